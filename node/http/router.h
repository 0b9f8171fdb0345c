/* Room: node/http. Which handler has which path.
 *
 *     { HTTP_VERB_POST, "/v2/pipeline", &pipeline },      exactly this path
 *     { HTTP_VERB_POST, "/dev/:ns/v2/pipeline", ... },    `:ns` is one segment, not empty
 *     { HTTP_VERB_GET,  "/files/...", ... },              everything below
 *
 * GET answers HEAD, too. OPTIONS is answered for all paths. Thread: loop. */
#ifndef NODE_HTTP_ROUTER_H
#define NODE_HTTP_ROUTER_H

#include "base/thread.h"
#include "node/http/exchange.h"

struct websocket_handler;

struct route {
    enum http_verb verb; /* one */
    const char *path;
    const struct handler *handler;
};

struct router {
    const struct route *routes; /* in this order; the last has no path */
    /* Has the WebSockets, whatever their path; NULL: there are none. */
    const struct websocket_handler *websockets;
};

/* Gives X its handler; or answers it: 404, 405, OPTIONS, an upgrade, 503 when the node stops. */
void router_route(const struct router *r, struct exchange *x) ON_LOOP;

#endif
