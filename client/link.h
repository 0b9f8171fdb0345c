/* Room: client. One TCP connection to one node: dialled, greeted, kept alive, frames both ways.
 *
 *   link_new --> looking up --> connecting --> greeting --> ready --> down (why) --> link_free
 *                                   ^             |
 *                                   +-------------+  the name's next address
 *
 * Silence is noticed: while `busy` (an answer is awaited) and nothing has come for LINK_QUIET_MS it
 * sends PING; without any byte for LINK_DEAD_MS more it is down with ERR_TIMEOUT, unless the PING
 * is still on its way behind bytes that move. A half-open connection or a paused node thus costs
 * one timeout, and a slow network none. Thread: the loop's. */
#ifndef CLIENT_LINK_H
#define CLIENT_LINK_H

#include "base/buf.h"
#include "base/sizes.h"
#include "client/loop.h"
#include "client/wire.h"

#define LINK_CONNECT_MS 3000u /* until WELCOME, all addresses of the name together */
#define LINK_QUIET_MS   1000u
#define LINK_DEAD_MS    1500u
/* Put and not taken by the kernel yet: what a node that reads slowly costs us. */
#define LINK_OUT_MAX (4 * (WIRE_FRAME_MAX + WIRE_LENGTH_BYTES))

struct link;

/* From loop_turn, never from a call below. From each of them, all calls below are right. */
struct link_events {
    void *ctx;
    void (*on_ready)(void *ctx, const struct wire_welcome *w); /* texts borrowed for the call */
    /* Every frame but WELCOME; F is borrowed for the call. PONG comes here, too, checked, and may
     * be read again. An error of the connection itself (stream 0) does not: the link goes down with
     * it.
     */
    void (*on_frame)(void *ctx, struct wire_frame *f);
    /* Once; no event follows. WHY is a sentence that names the address. ERR_CLOSED: refused,
     * broken or closed; ERR_TIMEOUT; ERR_NOT_FOUND: the name; ERR_PROTOCOL: no Lectern;
     * ERR_VERSION; ERR_NOMEM; or the code of the server's ERROR. */
    void (*on_down)(void *ctx, enum err code, const char *why);
};

/* Begins to connect. CLIENT_NAME: for the server's log. ERR_NOMEM, ERR_CONFIG, ERR_IO: no
 * descriptor. */
MUST_USE enum err link_new(struct loop *l, const char *address, const char *client_name,
                           const struct link_events *events, struct link **out);
/* In every state, also from its own events. NULL is allowed. */
void link_free(struct link *k);
/* Takes the link down for the caller's reason: what came on it makes no sense. No frame follows,
 * but on_down, at the end of the turn. */
void link_fail(struct link *k, enum err code, const char *why);
bool link_is_ready(const struct link *k);
/* Somebody accepted the connection, which counts also after its end: who never says WELCOME is
 * paused, or no Lectern. */
bool link_was_accepted(const struct link *k);
/* As it was given to link_new. */
const char *link_address(const struct link *k);

/* Where whole frames are put while it is ready; link_send tells that there are some, before any
 * other call on this link. They leave at the end of the turn, or when loop_turn is next called. */
struct buf *link_out(struct link *k);
/* An error: what was put since the last link_send is dropped, none of it leaves, and the link goes
 * on. ERR_NOMEM; ERR_TOO_BIG: a frame over WIRE_FRAME_MAX; ERR_BUSY: too much waits to leave;
 * ERR_CLOSED: not ready. */
MUST_USE enum err link_send(struct link *k);
/* Bytes put, and bytes taken by the kernel. Everything that was counted in link_put_total up to
 * then has left when link_sent_total has reached it: the node may have it. */
uint64_t link_put_total(const struct link *k);
uint64_t link_sent_total(const struct link *k);
/* Whether an answer is awaited: without, it rests. */
void link_set_busy(struct link *k, bool busy);
/* Asks for a PONG, unless one is awaited: on_frame hears what the node knows, and the round trip is
 * measured. Nothing while it is not ready. */
void link_ping(struct link *k);
/* When the last byte came. */
uint64_t link_heard_ms(const struct link *k);

/* Statements kept at the other end under their numbers. */
bool link_keeps(const struct link *k, uint32_t keep);
/* Remembers that a text of so many bytes was sent under KEEP. False: no more room there (or here),
 * send it without a number. */
bool link_keep(struct link *k, uint32_t keep, size_t sql_len);
/* Sends FORGET if it is kept there. */
void link_forget(struct link *k, uint32_t keep);

/* Smoothed round trip of PING and WELCOME, microseconds; 0: not known yet. */
uint64_t link_rtt_us(const struct link *k);

#endif
