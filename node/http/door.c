/* Room: node/http.   Thread: loop.   Owns: nothing.
 * A path is one line of `routes`; what it does is its handler's file.
 * Not here: connections (http_conn.c), how a path is found (router.c). */
#include "node/http/door.h"

#include "base/sizes.h"
#include "client/lectern.h"
#include "node/http/dump.h"
#include "node/http/exchange.h"
#include "node/http/health.h"
#include "node/http/hrana_cursor_http.h"
#include "node/http/hrana_pipeline.h"
#include "node/http/hrana_v1.h"
#include "node/http/hrana_ws.h"
#include "node/http/metrics.h"
#include "node/http/nodes.h"
#include "node/node.h"

#include <inttypes.h>

static void on_version(struct exchange *x)
{
    struct buf b;
    thread_expect_loop();
    buf_init(&b, 64);
    buf_printf(&b, "lectern %d.%d.%d\n", LECTERN_VERSION_NUMBER / 1000000,
               LECTERN_VERSION_NUMBER / 1000 % 1000, LECTERN_VERSION_NUMBER % 1000);
    exchange_answer(x, 200, "text/plain", &b);
    buf_fini(&b);
}

/* For who opens the port in a browser. */
static void on_home(struct exchange *x)
{
    struct buf b;
    thread_expect_loop();
    buf_init(&b, KIB(1));
    buf_printf(&b,
               "Lectern " LECTERN_VERSION ", node %" PRIu64 ": SQLite, replicated.\n\n"
               "Programs reach the database at this address with libSQL's drivers (docs/DRIVERS.md "
               "of Lectern).\nThere are pages for people and their tools (docs/METRICS.md):\n\n"
               "/nodes    the nodes of the cluster, and how each one is\n"
               "/readyz   should programs come to this node? And why not. /livez: does it run?\n"
               "/leader   is it the leader, and who else?\n"
               "/metrics  numbers, for Prometheus\n"
               "/dump     the database as SQL text\n",
               x->node->config->id);
    exchange_answer(x, 200, "text/plain; charset=utf-8", &b);
    buf_fini(&b);
}

static const struct handler home = {.on_end = on_home, .only_tells = true};
static const struct handler version = {.on_end = on_version, .only_tells = true};

static const struct route routes[] = {
    {HTTP_VERB_GET, "/", &home},
    {HTTP_VERB_GET, "/version", &version},
    {HTTP_VERB_GET, "/health", &health_alive},
    {HTTP_VERB_GET, "/livez", &health_alive},
    {HTTP_VERB_GET, "/readyz", &health_ready},
    {HTTP_VERB_GET, "/leader", &health_leader},
    {HTTP_VERB_GET, "/nodes", &nodes_handler},
    {HTTP_VERB_GET, "/metrics", &metrics_handler},
    {HTTP_VERB_POST, "/v2/pipeline", &hrana_pipeline_2},
    {HTTP_VERB_POST, "/v3/pipeline", &hrana_pipeline_3},
    {HTTP_VERB_POST, "/v3/cursor", &hrana_cursor_json},
    {HTTP_VERB_POST, "/v3-protobuf/pipeline", &hrana_pipeline_3_protobuf},
    {HTTP_VERB_POST, "/v3-protobuf/cursor", &hrana_cursor_protobuf},
    {HTTP_VERB_GET, "/dump", &dump_handler},
    {HTTP_VERB_POST, "/v1/execute", &hrana_v1_execute},
    {HTTP_VERB_POST, "/v1/batch", &hrana_v1_batch},
    {HTTP_VERB_POST, "/", &hrana_statements},
    {HTTP_VERB_POST, "/dev/:ns/v2/pipeline", &hrana_pipeline_2},
    {HTTP_VERB_POST, "/dev/:ns/v3/pipeline", &hrana_pipeline_3},
    {HTTP_VERB_POST, "/dev/:ns/v3/cursor", &hrana_cursor_json},
    {HTTP_VERB_POST, "/dev/:ns/v3-protobuf/pipeline", &hrana_pipeline_3_protobuf},
    {HTTP_VERB_POST, "/dev/:ns/v3-protobuf/cursor", &hrana_cursor_protobuf},
    {HTTP_VERB_GET, "/v2", &hrana_is_spoken},
    {HTTP_VERB_GET, "/v3", &hrana_is_spoken},
    {HTTP_VERB_GET, "/v3-protobuf", &hrana_is_spoken},
    {HTTP_VERB_OTHER, NULL, NULL},
};

const struct router door_router = {.routes = routes, .websockets = &hrana_ws_handler};

enum err door_open(struct node *n, struct http_listener **out)
{
    const struct config *c = n->config;
    struct http_options o = http_options_default();
    *out = NULL;
    if (c->http_listen[0] == 0)
        return ERR_OK;
    o.listen = c->http_listen;
    o.cors = c->http_cors;
    o.url = c->http_url;
    o.router = &door_router;
    o.node = n;
    o.waiting = &n->waiting;
    o.body_max = c->http_body_bytes;
    o.compress = c->http_compress;
    o.connections_max = (unsigned)c->http_connections_max;
    o.idle_ms = (uint32_t)c->http_idle_ms;
    return http_listener_open(&n->loop, &o, out);
}
