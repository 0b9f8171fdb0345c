/* Room: tests. For fuzz targets of the HTTP port: a listener on a loop, and bytes said to it over a
 * socket, in one piece or byte by byte. Header only: a target is one object. */
#ifndef TESTS_FUZZ_HTTP_KIT_H
#define TESTS_FUZZ_HTTP_KIT_H

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/thread.h"
#include "node/http/http_listener.h"
#include "node/http/router.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

static uv_loop_t fuzz_loop;
static struct http_listener *fuzz_listener;
static struct node *fuzz_node; /* of the handlers, if they want one: to be set before fuzz_open */

static void fuzz_open(const struct router *router)
{
    struct http_options o = http_options_default();
    if (fuzz_listener != NULL)
        return;
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    (void)signal(SIGPIPE, SIG_IGN); /* as the server does */
    log_set_level(LOG_NONE);
    o.listen = "127.0.0.1:0";
    o.router = router;
    o.node = fuzz_node;
    o.body_max = 5000;
    CHECK(uv_loop_init(&fuzz_loop) == 0);
    enum err e = http_listener_open(&fuzz_loop, &o, &fuzz_listener);
    CHECK(e == ERR_OK);
}

static inline int fuzz_dial(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    /* No TIME_WAIT: the next thousand runs need the ports. */
    struct linger reset = {1, 0};
    int yes = 1;
    thread_expect_loop();
    a.sin_port = htons(http_listener_port(fuzz_listener));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

/* Goes away; returns when the connection is gone there, too. */
static inline void fuzz_hang_up(int fd)
{
    thread_expect_loop();
    (void)close(fd);
    while (http_listener_connections(fuzz_listener) > 0)
        (void)uv_run(&fuzz_loop, UV_RUN_ONCE);
    (void)uv_run(&fuzz_loop, UV_RUN_NOWAIT);
}

/* Says PREFIX at once, then N bytes at P in pieces of PIECE, reads and drops what comes, and goes.
 * Returns when the connection is gone there, too. */
static inline void fuzz_say(const char *prefix, const uint8_t *p, size_t n, size_t piece)
{
    static char room[65536];
    thread_expect_loop();
    int fd = fuzz_dial();
    if (*prefix != 0)
        CHECK(send(fd, prefix, strlen(prefix), MSG_NOSIGNAL) == (ssize_t)strlen(prefix));
    (void)uv_run(&fuzz_loop, UV_RUN_NOWAIT);
    (void)uv_run(&fuzz_loop, UV_RUN_NOWAIT);
    for (size_t at = 0; at < n; at += piece) {
        size_t len = n - at < piece ? n - at : piece;
        if (send(fd, p + at, len, MSG_NOSIGNAL) != (ssize_t)len)
            break;
        (void)uv_run(&fuzz_loop, UV_RUN_NOWAIT);
        while (recv(fd, room, sizeof room, 0) > 0)
            ;
    }
    (void)uv_run(&fuzz_loop, UV_RUN_NOWAIT);
    fuzz_hang_up(fd);
}

#endif
