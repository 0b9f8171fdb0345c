/* Room: node. Thread: loop. Owns: the listening socket, until libuv let go of it. */
#include "node/listener.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/connection.h"

#include <stdlib.h>
#include <string.h>

#define ACCEPTS 1024 /* the kernel's queue of new connections */

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

static enum err bind_to(struct listener *l, const char *address)
{
    const char *colon = strrchr(address, ':');
    CHECK(colon != NULL);                                   /* config.c checked */
    bool bracketed = address[0] == '[' && colon[-1] == ']'; /* [::1]:7701 */
    char *host = mem_printf("%.*s", (int)(colon - address) - 2 * bracketed, address + bracketed);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t lookup;
    int rc = uv_getaddrinfo(&l->node->loop, &lookup, NULL, host, colon + 1, &hints);
    if (rc == 0) {
        rc = uv_tcp_bind(&l->tcp, lookup.addrinfo->ai_addr, 0);
        uv_freeaddrinfo(lookup.addrinfo);
    }
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&l->tcp, ACCEPTS, on_connection);
    free(host);
    if (rc != 0)
        return err_fail(rc == UV_EADDRINUSE ? ERR_LOCKED : ERR_IO, "cannot listen on %s: %s",
                        address, uv_strerror(rc));
    return ERR_OK;
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
    enum err e = bind_to(l, n->config->listen);
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
