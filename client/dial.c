/* Room: client.   Thread: any, blocking.   Owns: nothing; the caller gets the socket.
 *
 * Invariants: no wait without a deadline; a signal does not shorten or prolong one.
 *
 * Not here: the protocol (connection.c). */
#include "client/dial.h"

#include "base/clock.h"
#include "client/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum err dial_wait(int fd, short events, int wake_fd, uint64_t deadline, short *ready)
{
    *ready = 0;
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = wake_fd, .events = POLLIN}};
        uint64_t now = clock_mono_ms();
        uint64_t left = deadline > now ? deadline - now : 0;
        int n = poll(p, 2, left > 60000 ? 60000 : (int)left); /* poll skips a negative fd */
        if (n < 0 && errno != EINTR)
            return err_fail(ERR_CLOSED, "poll: %s", strerror(errno));
        if (n > 0 && p[1].revents != 0)
            return err_fail(ERR_CANCELLED, "interrupted");
        if (n > 0) {
            *ready = p[0].revents;
            return ERR_OK;
        }
        if (clock_mono_ms() >= deadline)
            return err_fail(ERR_TIMEOUT, "no answer in time");
    }
}

static enum err connect_one(const struct addrinfo *ai, const char *address, uint64_t deadline,
                            int wake_fd, int *out)
{
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
    if (fd < 0)
        return err_fail(ERR_CLOSED, "%s: socket: %s", address, strerror(errno));
    int on = 1, failure = 0;
    socklen_t size = sizeof failure;
    short ready;
    /* Both are improvements only: a socket that refuses them still works. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    enum err err = ERR_OK;
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) != 0) {
        failure = errno;
        if (failure == EINPROGRESS || failure == EINTR) {
            failure = 0;
            err = dial_wait(fd, POLLOUT, wake_fd, deadline, &ready);
            if (err == ERR_OK && getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
                failure = errno;
        }
    }
    if (err == ERR_TIMEOUT)
        err = err_fail(ERR_TIMEOUT, "%s: no connection in time", address);
    if (err == ERR_OK && failure != 0)
        err = err_fail(ERR_CLOSED, "%s: %s", address, strerror(failure));
    if (err != ERR_OK) {
        (void)close(fd);
        return err;
    }
    *out = fd;
    return ERR_OK;
}

enum err dial(const char *address, uint64_t deadline, int wake_fd, int *fd)
{
    struct resolve_parts p;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *all;
    TRY(resolve_split(address, &p));
    int failure = getaddrinfo(p.host, p.port, &hints, &all);
    if (failure != 0)
        return resolve_failure(address, failure);
    enum err err = err_fail(ERR_NOT_FOUND, "%s: the name has no address", address);
    for (struct addrinfo *ai = all; ai != NULL && err != ERR_OK && err != ERR_CANCELLED;
         ai = ai->ai_next)
        err = connect_one(ai, address, deadline, wake_fd, fd);
    freeaddrinfo(all);
    return err;
}

enum err dial_receive(int fd, struct buf *in, size_t max, const char *who, size_t *got)
{
    size_t before = in->len;
    void *to = buf_extend(in, max);
    if (to == NULL)
        return err_fail(buf_status(in), "an answer that does not fit the memory");
    ssize_t n = recv(fd, to, max, 0);
    int failure = errno;
    *got = n > 0 ? (size_t)n : 0;
    in->len = before + *got;
    if (n == 0)
        return err_fail(ERR_CLOSED, "%s closed the connection", who);
    if (n < 0 && failure != EAGAIN && failure != EWOULDBLOCK && failure != EINTR)
        return err_fail(ERR_CLOSED, "receive: %s", strerror(failure));
    return ERR_OK;
}
