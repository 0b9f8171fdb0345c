/* Room: node. A TCP connection: bytes in, bytes out, and its end.
 *
 * Nothing is kept for an idle one beyond its handle: input is lent, output is queued only when the
 * kernel takes no more. A peer that is gone without a word is noticed (keepalive,
 * TCP_USER_TIMEOUT). Thread: loop. */
#ifndef NODE_TCP_H
#define NODE_TCP_H

#include "base/buf.h"
#include "base/thread.h"
#include "node/meters.h"
#include "node/waiting.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct tcp;

/* All are called on the loop, never from within a call of this file's functions. */
struct tcp_events {
    void *ctx;
    void (*on_open)(void *ctx);                              /* of tcp_connect */
    void (*on_bytes)(void *ctx, const uint8_t *p, size_t n); /* borrowed for the call */
    /* Nothing more will come, but answers may go; NULL: as on_close. */
    void (*on_eof)(void *ctx);
    void (*on_drain)(void *ctx); /* the backlog fell to zero */
    /* The other side ended it, or it broke: once, and nothing follows; close it then or later. */
    void (*on_close)(void *ctx, const char *why);
    struct waiting *waiting; /* where the backlog is counted; NULL: nowhere */
    enum meter_door door;    /* where its bytes are counted, of all time */
    /* Bytes unacknowledged for so long: the other side is gone (TCP_USER_TIMEOUT). The kernel takes
     * a slow reader with a small buffer for one that is gone, though it reads on; 0: it waits, and
     * the owner looks at tcp_bytes_taken. */
    unsigned gone_ms;
};

enum tcp_end {
    TCP_NOW,   /* what was sent and not taken is lost */
    TCP_RESET, /* the same, and the other side sees that it was no end but a break */
    TCP_FLUSH, /* after what was sent went out */
    /* The same, and what still comes is read and dropped until the other side ends, too: closing
     * with unread bytes would take back an answer that was not read yet (RFC 9112, 9.6). */
    TCP_LINGER
};

/* Listens on HOST:PORT, which SETTING says (a name is looked up here and now: at a node's start).
 * ERR_CONFIG: it is not that; ERR_LOCKED: somebody else does; ERR_IO. */
MUST_USE enum err tcp_listen(uv_tcp_t *socket, const char *setting, const char *address,
                             uv_connection_cb on_connection) ON_LOOP;
/* Accepts from LISTENER; NULL when it is gone again. */
struct tcp *tcp_accept(uv_loop_t *loop, uv_stream_t *listener,
                       const struct tcp_events *events) ON_LOOP;
/* Connects to a numeric or named HOST:PORT; on_open or on_close follows, never before it returns.
 */
struct tcp *tcp_connect(uv_loop_t *loop, const char *address,
                        const struct tcp_events *events) ON_LOOP;
/* Sends what B holds and empties it. */
void tcp_send(struct tcp *t, struct buf *b) ON_LOOP;
/* No more on_bytes until tcp_resume. */
void tcp_pause(struct tcp *t) ON_LOOP;
void tcp_resume(struct tcp *t) ON_LOOP;
/* Bytes that the other side has not taken yet. */
size_t tcp_backlog(const struct tcp *t) ON_LOOP;
/* All bytes that were sent to the other side; that it has taken (its kernel has acknowledged them:
 * costs a call of ours); that were read from it. */
uint64_t tcp_bytes_sent(const struct tcp *t) ON_LOOP;
uint64_t tcp_bytes_taken(const struct tcp *t) ON_LOOP;
uint64_t tcp_bytes_read(const struct tcp *t) ON_LOOP;
/* After on_eof nothing is read, so nobody is told when the connection breaks: has it (a call of
 * ours)? */
bool tcp_is_broken(const struct tcp *t) ON_LOOP;
/* Closes and frees; no event follows. FLUSH and LINGER take 2 seconds at most, less when more than
 * 128 do so; what was not taken by then ends with a break, as RESET does. */
void tcp_close(struct tcp *t, enum tcp_end how) ON_LOOP;

#endif
