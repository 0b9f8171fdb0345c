/* Room: node/http.   Thread: loop.   Owns: nothing.
 * A path is one line of `routes`; what it does is its handler's file.
 * Not here: connections (http_conn.c), how a path is found (router.c). */
#include "node/http/door.h"

#include "client/lectern.h"
#include "node/http/exchange.h"
#include "node/node.h"

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

static const struct handler version = {.on_end = on_version};

static const struct route routes[] = {
    {HTTP_VERB_GET, "/version", &version},
    {HTTP_VERB_OTHER, NULL, NULL},
};

const struct router door_router = {.routes = routes};
