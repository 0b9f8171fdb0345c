/* Room: node. A TCP connection that carries frames of the native protocol: a client's, or ours to
 * the leader.
 *
 * Nothing is allocated for an idle one beyond its handle: partial frames are the only bytes kept. A
 * peer that is gone without a word is noticed (keepalive, TCP_USER_TIMEOUT). Thread: loop. */
#ifndef NODE_FRAMED_H
#define NODE_FRAMED_H

#include "base/thread.h"
#include "client/wire.h"
#include "node/tcp.h"
#include "node/waiting.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct framed;

struct framed_events {
    void *ctx;
    void (*on_open)(void *ctx);                        /* of framed_connect */
    void (*on_frame)(void *ctx, struct wire_frame *f); /* borrowed for the call */
    /* BYTES of a frame are here, more are to come: false, the frame is dropped as it comes, and
     * on_dropped gets its head (an empty body) when it has come. NULL: all frames are taken. */
    bool (*may_hold)(void *ctx, size_t bytes);
    void (*on_dropped)(void *ctx, struct wire_frame *f);
    /* N bytes at P (borrowed) do not begin with a frame; none follow. */
    void (*on_bad)(void *ctx, enum err e, const uint8_t *p, size_t n);
    void (*on_eof)(void *ctx);   /* nothing more will come, but answers may go; NULL: as on_close */
    void (*on_drain)(void *ctx); /* the backlog fell to zero */
    void (*on_close)(void *ctx, const char *why); /* the other side ended it, or it broke */
    struct waiting *waiting; /* where partial frames and the backlog are counted; NULL: nowhere */
};

/* Accepts from LISTENER; NULL when it is gone again. */
struct framed *framed_accept(uv_loop_t *loop, uv_stream_t *listener,
                             const struct framed_events *events) ON_LOOP;
/* Connects to a numeric or named HOST:PORT; on_open or on_close follows, never before it returns.
 */
struct framed *framed_connect(uv_loop_t *loop, const char *address,
                              const struct framed_events *events) ON_LOOP;
/* Frames above MAX bytes are refused from now on. */
void framed_limit(struct framed *f, size_t max) ON_LOOP;
/* Sends what B holds and empties it. */
void framed_send(struct framed *f, struct buf *b) ON_LOOP;
/* Bytes that the other side has not taken yet. */
size_t framed_backlog(const struct framed *f) ON_LOOP;
/* Bytes of a frame that came in part. */
size_t framed_partial(const struct framed *f) ON_LOOP;
/* All bytes that were sent to the other side, and that it has taken (tcp.h). */
uint64_t framed_bytes_sent(const struct framed *f) ON_LOOP;
uint64_t framed_bytes_taken(const struct framed *f) ON_LOOP;
/* All bytes that were read from it: it grows while the other side is alive and sends. */
uint64_t framed_bytes_read(const struct framed *f) ON_LOOP;
/* After on_eof: is the other side gone altogether (tcp.h)? */
bool framed_is_broken(const struct framed *f) ON_LOOP;
/* Closes (tcp_close) and frees; no event follows. */
void framed_close(struct framed *f, enum tcp_end how) ON_LOOP;

#endif
