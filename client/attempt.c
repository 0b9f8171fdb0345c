/* Room: client.   Thread: the loop's.
 * Owns: the lookup, the list of addresses, and the socket until it is connected.
 *
 * Invariants: while it looks up or connects the timer is set; whoever calls an event touches
 * nothing after it, for it may have freed the attempt.
 *
 * Not here: names (resolve.c), what is said on the connection (link.c). */
#include "client/attempt.h"

#include "base/clock.h"
#include "client/resolve.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* When the time is over before it could be used: the program was away, and turns the loop again. */
#define LATE_MS 1000u

struct attempt {
    struct loop *loop;
    struct attempt_events events;
    uint64_t until_ms;
    struct resolve *lookup;       /* NULL: done */
    struct addrinfo *list, *next; /* NEXT: not tried yet */
    struct loop_watch watch;      /* of the socket that connects */
    struct loop_timer timer;
    uint64_t share_ms; /* until when the present address may take */
    char address[];
};

static enum err connect_failure(const struct attempt *a, int failure)
{
    return err_fail(failure == ENOMEM || failure == ENOBUFS ? ERR_NOMEM : ERR_CLOSED,
                    "%s: cannot connect: %s", a->address, strerror(failure));
}

/* All are improvements only: a socket that refuses them still works. Keep-alive finds out about
 * idle connections whose other end is gone: nobody awaits anything there. */
static void set_options(int fd)
{
    const int on = 1, idle_s = 60, interval_s = 15, count = 4;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static uint64_t later_than(uint64_t now, uint64_t until)
{
    return until > now ? until : now + LATE_MS;
}

/* Each address that is left gets its share of the time that is left. */
static uint64_t share_until(const struct attempt *a, uint64_t now)
{
    uint64_t left = later_than(now, a->until_ms) - now, n = 1;
    for (const struct addrinfo *ai = a->next; ai != NULL; ai = ai->ai_next)
        n++;
    return now + left / n;
}

static enum err begin(struct attempt *a, const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
    if (fd < 0)
        return connect_failure(a, errno);
    set_options(fd);
    enum err e = ERR_OK;
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) != 0 && errno != EINPROGRESS)
        e = connect_failure(a, errno);
    if (e == ERR_OK)
        e = loop_watch_add(a->loop, &a->watch, fd,
                           EPOLLOUT); /* also when it is connected already */
    if (e != ERR_OK) {
        (void)close(fd);
        return e;
    }
    a->share_ms = share_until(a, clock_mono_ms());
    loop_timer_set(a->loop, &a->timer, a->share_ms);
    return ERR_OK;
}

static void drop_socket(struct attempt *a)
{
    int fd = a->watch.fd;
    loop_timer_stop(a->loop, &a->timer);
    if (!a->watch.added)
        return;
    loop_watch_remove(a->loop, &a->watch);
    (void)close(fd);
}

void attempt_next(struct attempt *a, enum err e)
{
    drop_socket(a);
    while (a->next != NULL) {
        const struct addrinfo *ai = a->next;
        a->next = ai->ai_next;
        e = begin(a, ai);
        if (e == ERR_OK)
            return;
    }
    a->events.on_failed(a->events.ctx, e);
}

/* A connection to a port of this machine on which nobody listens may, by chance, be one to itself
 * (both ends open at once, RFC 9293 3.5): nobody is there. */
static bool is_to_itself(int fd)
{
    struct sockaddr_storage mine = {0}, other = {0};
    socklen_t n = sizeof mine, m = sizeof other;
    return getsockname(fd, (struct sockaddr *)&mine, &n) == 0 &&
           getpeername(fd, (struct sockaddr *)&other, &m) == 0 && n == m &&
           memcmp(&mine, &other, n) == 0;
}

/* The port must be free for its owner: closed as usual, it would be in TIME_WAIT for a minute, and
 * nobody could listen there. */
static void reset_when_closed(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

/* --- from the loop ---------------------------------------------------------------------------- */

#define ATTEMPT_OF(part, member)                                                                   \
    ((struct attempt *)(void *)((char *)(part)-offsetof(struct attempt, member)))

static void on_socket(struct loop_watch *w, uint32_t events)
{
    struct attempt *a = ATTEMPT_OF(w, watch);
    int failure = 0, fd = w->fd;
    socklen_t size = sizeof failure;
    (void)events;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
        failure = errno;
    if (failure == 0 && is_to_itself(fd)) {
        reset_when_closed(fd);
        failure = ECONNREFUSED;
    }
    if (failure != 0) {
        attempt_next(a, connect_failure(a, failure));
        return;
    }
    loop_watch_remove(a->loop, w);
    loop_timer_stop(a->loop, &a->timer);
    a->events.on_connected(a->events.ctx, fd, later_than(clock_mono_ms(), a->share_ms));
}

static void on_timer(struct loop_timer *t)
{
    struct attempt *a = ATTEMPT_OF(t, timer);
    enum err e;
    if (a->lookup != NULL)
        e = err_fail(ERR_TIMEOUT, "%s: looking up the name took too long", a->address);
    else
        e = err_fail(ERR_TIMEOUT,
                     "%s: no connection in time: the host is down, or the network is cut",
                     a->address);
    attempt_next(a, e); /* while it looks up there is none */
}

static void on_resolved(void *ctx, enum err e, struct addrinfo *list)
{
    struct attempt *a = ctx;
    a->lookup = NULL;
    a->list = a->next = list;
    attempt_next(a, e);
}

enum err attempt_new(struct loop *l, const char *address, uint64_t until_ms,
                     const struct attempt_events *events, struct attempt **out)
{
    size_t size = strlen(address) + 1;
    struct attempt *a = calloc(1, sizeof *a + size);
    *out = NULL;
    if (a == NULL)
        return err_fail(ERR_NOMEM, "out of memory for a connection to %.300s", address);
    a->loop = l;
    a->events = *events;
    a->until_ms = until_ms;
    a->watch.ready = on_socket;
    a->timer.fire = on_timer;
    memcpy(a->address, address, size);
    enum err e = resolve_start(l, address, on_resolved, a, &a->lookup);
    if (e != ERR_OK) {
        attempt_free(a);
        return e;
    }
    loop_timer_set(l, &a->timer, until_ms);
    *out = a;
    return ERR_OK;
}

void attempt_free(struct attempt *a)
{
    if (a == NULL)
        return;
    resolve_cancel(a->lookup);
    drop_socket(a);
    if (a->list != NULL)
        freeaddrinfo(a->list);
    free(a);
}
