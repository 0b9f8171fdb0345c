/* Room: client.   Thread: the loop's, and one for each lookup of a name.
 * Owns: the lookups. What a lookup's thread needs lies in a box that both sides own: getaddrinfo
 * cannot be interrupted, so whoever is last, the thread or the caller, frees it.
 *
 * Invariants: the thread touches nothing but its box; what it found is written
 * before `is_done`, and read after it. A hanging lookup holds a thread and a descriptor for as long
 * as the system's resolver lets it (resolv.conf), then both are given back.
 *
 * Not here: connecting (link.c, dial.c). */
#include "client/resolve.h"

#include "base/check.h"
#include "base/thread.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct box {
    atomic_int owners;
    atomic_bool is_done;
    int done_fd;
    struct resolve_parts parts;
    struct addrinfo *found;
    int failure, system_errno; /* of getaddrinfo */
};

struct resolve {
    struct loop_watch watch; /* of a lookup on its thread */
    struct loop_task task;   /* of a numeric address: the answer is there already */
    struct loop *loop;
    struct box *box; /* NULL: numeric */
    struct addrinfo *found;
    resolve_done done;
    void *ctx;
    struct resolve_parts parts;
};

/* --- addresses as text ------------------------------------------------------------------------ */

/* Copies N bytes of text; false when they do not fit. */
static bool copy(char *to, size_t room, const char *from, size_t n)
{
    if (n >= room)
        return false;
    memcpy(to, from, n);
    to[n] = '\0';
    return true;
}

static bool is_port(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n > 5 || strspn(text, "0123456789") != n)
        return false;
    unsigned long port = strtoul(text, NULL, 10);
    return port >= 1 && port <= 65535;
}

enum err resolve_split(const char *address, struct resolve_parts *out)
{
    const char *host = address, *colon;
    size_t host_len;
    if (address[0] == '[') {
        const char *close = strchr(address, ']');
        if (close == NULL || close == address + 1 || (close[1] != '\0' && close[1] != ':'))
            goto wrong;
        host = address + 1;
        host_len = (size_t)(close - host);
        colon = close[1] == ':' ? close + 1 : NULL;
    } else {
        colon = strrchr(address, ':');
        if (colon != NULL && strchr(address, ':') != colon)
            colon = NULL; /* more than one: a bare IPv6 address */
        host_len = colon == NULL ? strlen(address) : (size_t)(colon - address);
    }
    const char *port = colon == NULL ? RESOLVE_DEFAULT_PORT : colon + 1;
    if (host_len == 0) {
        host = "127.0.0.1";
        host_len = strlen(host);
    }
    if (is_port(port) && copy(out->host, sizeof out->host, host, host_len) &&
        copy(out->port, sizeof out->port, port, strlen(port)))
        return ERR_OK;
wrong:
    return err_fail(ERR_CONFIG, "\"%.300s\" is not an address; write host:port", address);
}

enum err resolve_failure(const char *address, int failure)
{
    if (failure == EAI_MEMORY)
        return err_fail(ERR_NOMEM, "%s: out of memory for its addresses", address);
    return err_fail(ERR_NOT_FOUND, "%s: %s", address,
                    failure == EAI_SYSTEM ? strerror(errno) : gai_strerror(failure));
}

/* --- the thread ------------------------------------------------------------------------------- */

static void box_unref(struct box *b)
{
    if (atomic_fetch_sub(&b->owners, 1) > 1)
        return;
    if (b->found != NULL)
        freeaddrinfo(b->found);
    (void)close(b->done_fd);
    free(b);
}

static int look_up(const struct resolve_parts *p, int flags, struct addrinfo **found)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    *found = NULL;
    return getaddrinfo(p->host, p->port, &hints, found);
}

static void *look_up_thread(void *arg)
{
    struct box *b = arg;
    uint64_t one = 1;
    b->failure = look_up(&b->parts, 0, &b->found);
    b->system_errno = errno;
    atomic_store(&b->is_done, true);
    (void)!write(b->done_fd, &one, sizeof one); /* the counter has room for one */
    box_unref(b);
    return NULL;
}

/* --- the caller's side ------------------------------------------------------------------------ */

static void finish(struct resolve *r, int failure, struct addrinfo *found)
{
    resolve_done done = r->done;
    void *ctx = r->ctx;
    enum err e = ERR_OK;
    if (failure == 0 && found == NULL)
        failure = EAI_NONAME;
    if (failure != 0)
        e = resolve_failure(r->parts.host, failure);
    resolve_cancel(r);
    done(ctx, e, found);
}

static void on_found(struct loop_watch *w, uint32_t events)
{
    struct resolve *r = (struct resolve *)(void *)((char *)w - offsetof(struct resolve, watch));
    (void)events;
    CHECK(atomic_load(&r->box->is_done)); /* and so what it wrote before is ours to read */
    struct addrinfo *found = r->box->found;
    r->box->found = NULL;
    errno = r->box->system_errno;
    finish(r, r->box->failure, found);
}

static void on_numeric(struct loop_task *t)
{
    struct resolve *r = (struct resolve *)(void *)((char *)t - offsetof(struct resolve, task));
    struct addrinfo *found = r->found;
    r->found = NULL;
    finish(r, 0, found);
}

static enum err start_thread(struct resolve *r)
{
    struct box *b = calloc(1, sizeof *b);
    pthread_t t;
    if (b == NULL)
        return err_fail(ERR_NOMEM, "out of memory to look up %s", r->parts.host);
    atomic_init(&b->owners, 1);
    b->parts = r->parts;
    b->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->done_fd < 0) {
        free(b);
        return err_fail(ERR_IO, "no descriptor to look up %s: %s", r->parts.host, strerror(errno));
    }
    r->box = b;
    TRY(loop_watch_add(r->loop, &r->watch, b->done_fd, EPOLLIN));
    atomic_fetch_add(&b->owners, 1);
    enum err e = thread_start(&t, "lectern-resolve", look_up_thread, b);
    if (e == ERR_OK)
        (void)pthread_detach(t);
    else
        box_unref(b);
    return e;
}

enum err resolve_start(struct loop *l, const char *address, resolve_done done, void *ctx,
                       struct resolve **out)
{
    *out = NULL;
    struct resolve *r = calloc(1, sizeof *r);
    if (r == NULL)
        return err_fail(ERR_NOMEM, "out of memory to look up %.300s", address);
    *r = (struct resolve){
        .watch.ready = on_found, .task.run = on_numeric, .loop = l, .done = done, .ctx = ctx};
    enum err e = resolve_split(address, &r->parts);
    int failure = e == ERR_OK ? look_up(&r->parts, AI_NUMERICHOST, &r->found) : 0;
    if (e == ERR_OK && failure == 0)
        loop_task_defer(l, &r->task);
    else if (e == ERR_OK && failure == EAI_NONAME) /* a name */
        e = start_thread(r);
    else if (e == ERR_OK)
        e = resolve_failure(address, failure);
    if (e != ERR_OK) {
        resolve_cancel(r);
        return e;
    }
    *out = r;
    return ERR_OK;
}

void resolve_cancel(struct resolve *r)
{
    if (r == NULL)
        return;
    loop_watch_remove(r->loop, &r->watch);
    loop_task_cancel(&r->task);
    if (r->box != NULL)
        box_unref(r->box);
    if (r->found != NULL)
        freeaddrinfo(r->found);
    free(r);
}
