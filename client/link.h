/* Room: client. One TCP connection to one node: dialled, greeted, kept alive, frames both ways.
 *
 *   link_new --> connecting --> greeting --> ready --> down (why) --> link_free
 *
 * Silence is noticed: while `busy` (an answer is awaited) and nothing has come for LINK_QUIET_MS it
 * sends PING; without any byte for LINK_DEAD_MS more it is down with ERR_TIMEOUT. A half-open
 * connection or a paused node thus costs one timeout. Thread: the loop's. */
#ifndef CLIENT_LINK_H
#define CLIENT_LINK_H

#include "base/buf.h"
#include "client/loop.h"
#include "client/wire.h"

#define LINK_CONNECT_MS 3000u /* until WELCOME, all addresses of the name together */
#define LINK_QUIET_MS   1000u
#define LINK_DEAD_MS    1500u

struct link;

struct link_events {
    void *ctx;
    void (*on_ready)(void *ctx, const struct wire_welcome *w); /* texts borrowed for the call */
    /* Every frame but WELCOME; F is borrowed for the call. PONG comes here, too. An error of the
     * connection itself (stream 0) does not: the link goes down with it. */
    void (*on_frame)(void *ctx, struct wire_frame *f);
    /* Once; no event follows. WHY is a sentence that names the address. ERR_CLOSED: refused,
     * broken or closed; ERR_TIMEOUT; ERR_NOT_FOUND: the name; ERR_PROTOCOL: no Lectern;
     * ERR_VERSION; or the code of the server's ERROR. */
    void (*on_down)(void *ctx, enum err code, const char *why);
};

/* Begins to connect; events come from loop_turn, never from here. ERR_NOMEM, ERR_CONFIG. */
MUST_USE enum err link_new(struct loop *l, const char *address, const char *client_name,
                           const struct link_events *events, struct link **out);
/* Also while it connects, and from its own events. */
void link_free(struct link *k);
bool link_is_ready(const struct link *k);

/* Where frames are put; link_send tells that there are some. They leave at the end of the turn, or
 * when loop_turn is next called. Before `ready`: no. */
struct buf *link_out(struct link *k);
void link_send(struct link *k);
/* Bytes put and not taken by the kernel yet. Everything that was counted in link_put_total up to
 * then has left when link_sent_total has reached it: the node may have it. */
uint64_t link_put_total(const struct link *k);
uint64_t link_sent_total(const struct link *k);
/* How many answers are awaited: 0 lets it rest. */
void link_set_busy(struct link *k, bool busy);

/* Statements kept at the other end under their numbers. */
bool link_keeps(const struct link *k, uint32_t keep);
/* Remembers that a text was sent under KEEP. False: no more room there, send it as text. */
bool link_keep(struct link *k, uint32_t keep);
/* Sends FORGET if it is kept there. */
void link_forget(struct link *k, uint32_t keep);

/* Smoothed round trip of PING and WELCOME, microseconds. */
uint64_t link_rtt_us(const struct link *k);

#endif
