/* Room: node. Thread: loop. Owns: the listening socket, until libuv let go of it. */
#include "node/listener.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/connection.h"
#include "node/tcp.h"

#include <stdlib.h>

struct listener {
    uv_tcp_t tcp;
    struct node *node;
};

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *l = stream->data;
    thread_expect_loop();
    if (status < 0)
        log_warn("listener", "accept reason=\"%s\"", uv_strerror(status));
    else
        connection_accept(l->node, stream);
}

static void on_listener_closed(uv_handle_t *h)
{
    free(h->data);
}

enum err listener_open(struct node *n, struct listener **out)
{
    struct listener *l = MEM_NEW(struct listener);
    l->node = n;
    int rc = uv_tcp_init(&n->loop, &l->tcp);
    CHECK(rc == 0);
    l->tcp.data = l;
    enum err e = tcp_listen(&l->tcp, "listen", n->config->listen, on_connection);
    if (e != ERR_OK) {
        listener_close(l);
        return e;
    }
    *out = l;
    return ERR_OK;
}

void listener_close(struct listener *l)
{
    uv_close((uv_handle_t *)&l->tcp, on_listener_closed);
}
