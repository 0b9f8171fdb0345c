/* Room: client.   Thread: any, blocking.   Owns: nothing; the caller gets the socket.
 *
 * Invariants: no wait without a deadline, and none that its owner cannot end: the name is looked up
 * and the addresses are tried as a link does it (attempt.c), in a loop of its own; a signal does
 * not shorten or prolong a wait; nothing here reads as an error of a disk.
 *
 * Not here: the protocol (image_client.c). */
#include "client/dial.h"

#include "base/clock.h"
#include "client/attempt.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOK_MS 100 /* how often `stop` is asked */

static const struct dial_stop NOTHING = {.wake_fd = -1};

static bool must_stop(const struct dial_stop *s)
{
    return s->stop != NULL && s->stop(s->arg);
}

enum err dial_wait(int fd, short events, const struct dial_stop *stop, uint64_t deadline,
                   short *ready)
{
    const struct dial_stop *s = stop == NULL ? &NOTHING : stop;
    uint64_t most = s->stop == NULL ? 60000 : LOOK_MS;
    *ready = 0;
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = s->wake_fd, .events = POLLIN}};
        if (must_stop(s))
            return err_fail(ERR_CANCELLED, "interrupted");
        uint64_t now = clock_mono_ms();
        uint64_t left = deadline > now ? deadline - now : 0;
        int n = poll(p, 2, (int)(left > most ? most : left)); /* poll skips a negative fd */
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

/* --- connecting ------------------------------------------------------------------------------- */

struct dialling {
    struct loop_watch wake;
    bool ended;
    enum err e;
    int fd;
    char why[ERR_TEXT_MAX];
};

static void end(struct dialling *d, enum err e)
{
    d->ended = true;
    d->e = e == ERR_IO ? ERR_CLOSED : e; /* no descriptor: not the disk's fault */
    (void)snprintf(d->why, sizeof d->why, "%s", e == ERR_OK ? "" : err_text());
}

static void on_connected(void *ctx, int fd, uint64_t until_ms)
{
    struct dialling *d = ctx;
    (void)until_ms;
    d->fd = fd;
    end(d, ERR_OK);
}

static void on_failed(void *ctx, enum err e)
{
    end(ctx, e);
}

static void on_wake(struct loop_watch *w, uint32_t events)
{
    struct dialling *d = (struct dialling *)(void *)((char *)w - offsetof(struct dialling, wake));
    (void)events;
    if (!d->ended)
        end(d, err_fail(ERR_CANCELLED, "interrupted"));
}

static void turn_until_ended(struct loop *l, struct dialling *d, const struct dial_stop *s)
{
    while (!d->ended) {
        enum err e = must_stop(s) ? err_fail(ERR_CANCELLED, "interrupted")
                                  : loop_turn(l, s->stop == NULL ? -1 : LOOK_MS);
        if (e != ERR_OK && !d->ended)
            end(d, e);
    }
}

enum err dial(const char *address, uint64_t deadline, const struct dial_stop *stop, int *fd)
{
    const struct dial_stop *s = stop == NULL ? &NOTHING : stop;
    struct dialling d = {.wake.ready = on_wake, .fd = -1};
    struct attempt_events events = {
        .ctx = &d, .on_connected = on_connected, .on_failed = on_failed};
    struct attempt *a = NULL;
    struct loop *l = NULL;
    enum err e = loop_new(&l);
    if (e == ERR_OK && s->wake_fd >= 0)
        e = loop_watch_add(l, &d.wake, s->wake_fd, EPOLLIN);
    if (e == ERR_OK)
        e = attempt_new(l, address, deadline, &events, &a);
    if (e != ERR_OK)
        end(&d, e);
    else
        turn_until_ended(l, &d, s);
    attempt_free(a);
    if (l != NULL)
        loop_watch_remove(l, &d.wake);
    loop_free(l);
    if (d.e != ERR_OK && d.fd >= 0)
        (void)close(d.fd); /* both came in one turn */
    if (d.e != ERR_OK)
        return err_fail(d.e, "%s", d.why);
    *fd = d.fd;
    return ERR_OK;
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
