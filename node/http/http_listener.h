/* Room: node/http. The HTTP port: accepts connections, and ends those that keep it waiting.
 * Thread: loop. */
#ifndef NODE_HTTP_HTTP_LISTENER_H
#define NODE_HTTP_HTTP_LISTENER_H

#include "base/err.h"
#include "base/list.h"
#include "base/thread.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct node;
struct router;
struct waiting;
struct http_listener;

struct http_options {
    const char *listen; /* HOST:PORT; port 0: a free one */
    /* Pages that may use this node: "*" all, "" none, or origins with commas between. */
    const char *cors;
    const char *url; /* where clients reach it, as an origin; "": we were not told */
    const struct router *router;
    struct node *node;       /* for the handlers */
    struct waiting *waiting; /* where bytes that wait are counted; NULL: nowhere */
    size_t body_max;         /* bytes of a body, or of a WebSocket's message */
    bool compress;           /* answers, for clients that take them so */
    unsigned connections_max;
    /* Milliseconds: for a head; for 1 KiB of a body; for a client to take 1 KiB of its answer; for
     * the next request. */
    uint32_t head_ms, body_ms, take_ms, idle_ms;
};

/* What is used where the configuration says nothing. */
struct http_options http_options_default(void);

/* Borrows what OPTIONS point to. ERR_CONFIG, ERR_IO: nothing is open. */
MUST_USE enum err http_listener_open(uv_loop_t *loop, const struct http_options *options,
                                     struct http_listener **out) ON_LOOP;
uint16_t http_listener_port(const struct http_listener *l) ON_LOOP;
unsigned http_listener_connections(const struct http_listener *l) ON_LOOP;
/* The node is about to stop: all is served, and each connection ends behind its next answer. */
void http_listener_wind_down(struct http_listener *l) ON_LOOP;
/* It stops: new requests are refused, but those of handlers that answer while it does; WebSockets
 * end when what came by them is answered. */
void http_listener_refuse(struct http_listener *l) ON_LOOP;
/* No more connections are taken; the others go on. */
void http_listener_deafen(struct http_listener *l) ON_LOOP;
/* Nothing that was taken waits for its answer, and all answers were taken. */
bool http_listener_is_quiet(const struct http_listener *l) ON_LOOP;
/* Ends all connections and frees; handlers hear on_over before it returns
 * (the one from which it is called: after). */
void http_listener_close(struct http_listener *l) ON_LOOP;

/* --- for http_conn.c and exchange.c --- */

/* What a connection waits for; each has its time in struct http_options. */
enum http_wait {
    HTTP_WAIT_HEAD,    /* the rest of a head */
    HTTP_WAIT_BODY,    /* more of a body */
    HTTP_WAIT_TAKE,    /* the client, to take its answer */
    HTTP_WAIT_CLOSE,   /* a WebSocket's client, to close it, too: 5 seconds */
    HTTP_WAIT_IDLE,    /* the next request */
    HTTP_WAIT_HANDLER, /* us: no limit of its own */
    HTTP_WAITS
};
/* LINK's connection waits for W, from now. Returns when that is too long (monotonic ms). Every
 * connection waits for one thing. */
uint64_t http_listener_await(struct http_listener *l, struct list *link, enum http_wait w) ON_LOOP;
/* AGAIN's connection has more to do than it may in one turn of the loop: http_conn_go_on in the
 * next. */
void http_listener_again(struct http_listener *l, struct list *again) ON_LOOP;
/* One more connection, or one less. When there are enough, a few more are let in to ask what costs
 * nothing (handler.only_tells), once: who watches a node is not to find it dead when it is full. */
#define HTTP_SPARE_MAX 16u
enum http_place { HTTP_PLACE, HTTP_PLACE_SPARE, HTTP_PLACE_NONE };
enum http_place http_listener_enter(struct http_listener *l) ON_LOOP;
void http_listener_leave(struct http_listener *l, enum http_place place) ON_LOOP;
/* Somebody is told that there are enough. */
void http_listener_is_full(struct http_listener *l) ON_LOOP;
bool http_listener_is_winding_down(const struct http_listener *l) ON_LOOP;
bool http_listener_refuses(const struct http_listener *l) ON_LOOP;
const struct http_options *http_listener_options(const struct http_listener *l) ON_LOOP;
uv_loop_t *http_listener_loop(const struct http_listener *l) ON_LOOP;
/* What its requests have done beside the loop. */
struct asides *http_listener_asides(const struct http_listener *l) ON_LOOP;
/* The time as the header `date` has it. */
const char *http_listener_date(struct http_listener *l) ON_LOOP;

#endif
