/* Room: node/http. One connection of HTTP/1.1: requests in, one after the other, answers out.
 *
 *     IDLE -> HEAD -> BODY -> ANSWER -> IDLE ...          each may end in OVER
 *              |        '------(answered early: the rest of the body is dropped)
 *              '-> UPGRADED: its bytes are a WebSocket's
 *
 * Thread: loop. */
#ifndef NODE_HTTP_HTTP_CONN_H
#define NODE_HTTP_HTTP_CONN_H

#include "base/buf.h"
#include "base/list.h"
#include "base/thread.h"
#include "node/http/exchange.h"
#include "node/http/http_listener.h"

#include <stdbool.h>
#include <stdint.h>

/* More of an answer than this is not taken yet: its maker waits. */
#define HTTP_FULL_BYTES 262144u

/* Accepts from the listener's socket. */
void http_conn_accept(struct http_listener *l, uv_stream_t *socket) ON_LOOP;
/* The node stops: a WebSocket ends when what came by it is answered. */
void http_conn_wind_down(struct http_conn *c) ON_LOOP;
/* Is a request that came whole without its answer, or an answer not taken? */
bool http_conn_is_busy(const struct http_conn *c) ON_LOOP;
/* Ends it now: what was sent goes out, and an answer that was begun is seen to be cut. */
void http_conn_stop(struct http_conn *c) ON_LOOP;
/* It waited too long for what it waits for. */
void http_conn_expire(struct http_conn *c) ON_LOOP;
/* Its next turn of the loop: AGAIN is what it gave to http_listener_again. */
void http_conn_go_on(struct list *again) ON_LOOP;
/* The connection with this link in a list of its listener. */
struct http_conn *http_conn_of(struct list *link) ON_LOOP;
/* When it has waited too long (monotonic ms). */
uint64_t http_conn_due(const struct http_conn *c) ON_LOOP;

/* --- for exchange.c --- */

struct http_listener *http_conn_listener(const struct http_conn *c) ON_LOOP;
/* May the connection be kept behind an answer that is begun now? */
bool http_conn_keeps(const struct http_conn *c) ON_LOOP;
/* It is one of more than there may be (http_listener_enter). */
bool http_conn_is_surplus(const struct http_conn *c) ON_LOOP;
/* The open answer cannot be completed: ends the connection so that its client sees that. */
void http_conn_break(struct http_conn *c) ON_LOOP;
/* Sends what B holds. */
void http_conn_send(struct http_conn *c, struct buf *b) ON_LOOP;
/* The answer of the open exchange is made: what is left of it goes in parts. */
void http_conn_answered(struct http_conn *c) ON_LOOP;
/* Its client sent its end: nothing more can come. */
bool http_conn_is_at_end(const struct http_conn *c) ON_LOOP;
size_t http_conn_backlog(const struct http_conn *c) ON_LOOP;
/* The handler of the open exchange is to have its on_turn. */
void http_conn_again(struct http_conn *c) ON_LOOP;

/* --- for websocket.c --- */

/* Who has the connection's bytes after an upgrade; all are called on the loop. */
struct http_takeover {
    void *ctx;
    /* Returns how many were taken: fewer only when it paused. The rest is kept for its resume. */
    size_t (*on_bytes)(void *ctx, const uint8_t *p, size_t n);
    void (*on_drain)(void *ctx);
    void (*on_late)(void *ctx); /* what is under way (http_conn_partly) did not come in time */
    void (*on_over)(void *ctx); /* the connection is gone, or http_conn_end was called */
    void (*on_wind_down)(void *ctx);
};
/* Sends HEAD (101) and gives the connection to T, whose on_bytes may come only after the caller
 * returned. The open exchange ends. */
void http_conn_upgrade(struct http_conn *c, struct buf *head,
                       const struct http_takeover *t) ON_LOOP;
void http_conn_pause(struct http_conn *c) ON_LOOP;
void http_conn_resume(struct http_conn *c) ON_LOOP;
/* Bytes of memory that whoever took over holds for it: counted with the connection's. False: the
 * node has no room for them. */
bool http_conn_holds(struct http_conn *c, size_t bytes) ON_LOOP;
/* From within on_bytes: a message is under way, and its rest is awaited as that of a body is; or it
 * came whole. */
void http_conn_partly(struct http_conn *c, bool is) ON_LOOP;
/* No more is sent: its client is to end it soon. What comes is read, paused or not. */
void http_conn_closing(struct http_conn *c) ON_LOOP;
/* All was sent: the connection ends; on_over follows. */
void http_conn_end(struct http_conn *c) ON_LOOP;

#endif
