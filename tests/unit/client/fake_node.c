/* Room: tests.   Thread: one for each node; the calls come from any.
 * Owns: its listener and its connections.
 *
 * Invariants: everything but the wait in poll() is done under the lock, so a call that has returned
 * has happened; after each wait all sockets are tried without blocking, so it does no harm when one
 * was closed, and its number given to another, during the wait. */
#include "tests/unit/client/fake_node.h"

#include "base/clock.h"
#include "base/sizes.h"
#include "base/thread.h"
#include "tests/lib/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define TYPES 128

struct fake_peer {
    struct fake_node *node;
    int fd; /* -1: free */
    unsigned number;
    bool greeted, closing;
    struct buf in, out;
};

struct fake_node {
    struct fake_options o;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t frame_came;
    int listener, wake_fd;
    int port_fd; /* never listens: nobody else gets the port while the node is dead */
    uint16_t port;
    char address[64];
    bool stop, paused, muted;
    unsigned accepted, frames[TYPES];
    struct fake_peer peers[FAKE_CONNECTIONS_MAX];
};

/* --- sockets ---------------------------------------------------------------------------------- */

/* A socket of the node's address; of a free port, which it then is, when it has none yet. */
static int bind_socket(struct fake_node *n)
{
    bool v6 = strchr(n->o.host, ':') != NULL;
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(n->port)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(n->port)};
    struct sockaddr *a = v6 ? (void *)&a6 : (void *)&a4;
    socklen_t size = v6 ? sizeof a6 : sizeof a4;
    int on = 1;
    EXPECT(inet_pton(a->sa_family, n->o.host, v6 ? (void *)&a6.sin6_addr : (void *)&a4.sin_addr) ==
           1);
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0);
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    if (bind(fd, a, size) != 0)
        test_fail(__FILE__, __LINE__, "bind to port %u: %s", n->port, strerror(errno));
    EXPECT(getsockname(fd, a, &size) == 0);
    n->port = ntohs(v6 ? a6.sin6_port : a4.sin_port);
    return fd;
}

static void listen_again(struct fake_node *n)
{
    n->listener = bind_socket(n);
    EXPECT(listen(n->listener, FAKE_CONNECTIONS_MAX) == 0);
}

static void close_peer(struct fake_peer *p, bool reset)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (p->fd < 0)
        return;
    if (reset)
        (void)setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)close(p->fd);
    p->fd = -1;
    buf_fini(&p->in);
    buf_fini(&p->out);
}

static void accept_all(struct fake_node *n)
{
    for (int i = 0; i < FAKE_CONNECTIONS_MAX && n->listener >= 0; i++) {
        struct fake_peer *p = &n->peers[i];
        int on = 1;
        if (p->fd >= 0)
            continue;
        int fd = accept4(n->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        *p = (struct fake_peer){.node = n, .fd = fd, .number = ++n->accepted};
        buf_init(&p->in, WIRE_FRAME_MAX + MIB(1));
        buf_init(&p->out, 2 * WIRE_FRAME_MAX);
    }
}

static void send_out(struct fake_peer *p)
{
    EXPECT_OK(buf_status(&p->out));
    if (p->node->muted)
        buf_reset(&p->out);
    while (p->out.len > 0) {
        ssize_t sent = send(p->fd, p->out.data, p->out.len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            close_peer(p, false);
        if (sent < 0)
            return;
        buf_consume(&p->out, (size_t)sent);
    }
    if (p->closing)
        close_peer(p, false);
}

/* --- what it answers -------------------------------------------------------------------------- */

static void greet(struct fake_peer *p)
{
    const struct fake_options *o = &p->node->o;
    struct wire_welcome w = {.version = o->version == 0 ? WIRE_VERSION : o->version,
                             .node_id = o->node_id,
                             .cluster_id = o->cluster_id,
                             .seq = o->seq,
                             .server = "fake",
                             .server_len = 4,
                             .sqlite = "3.x",
                             .sqlite_len = 3};
    if (o->refuse != ERR_OK) {
        fake_error(p, (struct wire_id){0}, o->refuse, "no entry today");
        p->closing = true;
    } else if (!o->silent) {
        wire_put_welcome(&p->out, &w);
    }
}

static void answer_as_usual(struct fake_peer *p, struct wire_frame *f)
{
    const struct fake_options *o = &p->node->o;
    struct wire_pong pong = {.seq = o->seq, .leader_id = o->leader_id, .serves = 1};
    if (f->type == WIRE_HELLO)
        greet(p);
    else if (f->type == WIRE_PING && !o->silent)
        wire_put_pong(&p->out, f->id.request, &pong);
    else if (f->type == WIRE_DESCRIBE)
        fake_error(p, f->id, ERR_PROTOCOL, "this node describes nothing");
    else if (f->type == WIRE_QUERY || f->type == WIRE_BATCH || f->type == WIRE_STATUS ||
             f->type == WIRE_CLUSTER)
        wire_put_done(&p->out, f->id, &(struct wire_done){.seq = o->seq});
}

static void handle(struct fake_peer *p, struct wire_frame *f)
{
    struct fake_node *n = p->node;
    n->frames[(unsigned)f->type % TYPES]++;
    (void)pthread_cond_broadcast(&n->frame_came);
    if (n->o.answer == NULL || !n->o.answer(n->o.ctx, p, f))
        answer_as_usual(p, f);
}

static void receive(struct fake_peer *p)
{
    char bytes[65536];
    ssize_t got = recv(p->fd, bytes, sizeof bytes, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        close_peer(p, false);
        return;
    }
    if (got < 0)
        return;
    const struct fake_options *o = &p->node->o;
    if (o->raw != NULL) {
        if (o->after != NULL && memmem(bytes, (size_t)got, o->after, strlen(o->after)) == NULL)
            return;
        if (!p->greeted)
            buf_put(&p->out, o->raw, o->raw_len);
        p->greeted = true;
        return;
    }
    buf_put(&p->in, bytes, (size_t)got);
    EXPECT_OK(buf_status(&p->in));
    size_t at = 0, used = 1;
    while (p->fd >= 0 && !p->closing && used > 0) { /* the callback may drop it */
        struct wire_frame f;
        EXPECT_OK(wire_next(p->in.data + at, p->in.len - at, WIRE_FRAME_MAX, &f, &used));
        at += used;
        if (used > 0)
            handle(p, &f);
    }
    if (p->fd >= 0)
        buf_consume(&p->in, at);
}

/* --- its thread ------------------------------------------------------------------------------- */

static nfds_t gather(struct fake_node *n, struct pollfd *p)
{
    nfds_t count = 0;
    p[count++] = (struct pollfd){.fd = n->wake_fd, .events = POLLIN};
    if (n->paused)
        return count;
    p[count++] = (struct pollfd){.fd = n->listener, .events = POLLIN}; /* -1 is skipped */
    for (int i = 0; i < FAKE_CONNECTIONS_MAX; i++)
        if (n->peers[i].fd >= 0)
            p[count++] = (struct pollfd){
                .fd = n->peers[i].fd,
                .events = (short)(POLLIN | (n->peers[i].out.len > 0 ? POLLOUT : 0))};
    return count;
}

static void *run(void *arg)
{
    struct fake_node *n = arg;
    struct pollfd p[FAKE_CONNECTIONS_MAX + 2];
    (void)pthread_mutex_lock(&n->lock);
    while (!n->stop) {
        nfds_t count = gather(n, p);
        uint64_t woken;
        (void)pthread_mutex_unlock(&n->lock);
        (void)poll(p, count, -1);
        (void)pthread_mutex_lock(&n->lock);
        (void)!read(n->wake_fd, &woken, sizeof woken); /* empty: it was a socket */
        if (n->stop || n->paused)
            continue;
        accept_all(n);
        for (int i = 0; i < FAKE_CONNECTIONS_MAX; i++) {
            if (n->peers[i].fd >= 0)
                receive(&n->peers[i]);
            if (n->peers[i].fd >= 0 && !n->paused)
                send_out(&n->peers[i]);
        }
    }
    (void)pthread_mutex_unlock(&n->lock);
    return NULL;
}

static void lock(struct fake_node *n)
{
    (void)pthread_mutex_lock(&n->lock);
}

/* The thread looks again at what it waits for. */
static void unlock_and_wake(struct fake_node *n)
{
    uint64_t one = 1;
    (void)pthread_mutex_unlock(&n->lock);
    EXPECT(write(n->wake_fd, &one, sizeof one) == sizeof one);
}

uint16_t fake_port_of_both(void)
{
    for (unsigned tries = 0; tries < 100; tries++) {
        struct fake_node v6 = {.o.host = "::1"};
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int on = 1, kept = bind_socket(&v6);
        int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT(other >= 0);
        EXPECT(setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
        v4.sin_port = htons(v6.port);
        if (bind(other, (struct sockaddr *)&v4, sizeof v4) == 0)
            return v6.port; /* both stay open, and never listen */
        (void)close(kept);
        (void)close(other);
    }
    test_fail(__FILE__, __LINE__, "no port is free at both addresses");
}

struct fake_node *fake_node_start(const struct fake_options *o)
{
    struct fake_node *n = calloc(1, sizeof *n);
    pthread_mutexattr_t recursive; /* for the callback */
    pthread_condattr_t monotonic;
    EXPECT(n != NULL);
    n->o = *o;
    n->port = o->port;
    if (o->host == NULL)
        n->o.host = "127.0.0.1";
    if (o->raw != NULL && o->raw_len == 0)
        n->o.raw_len = strlen(o->raw);
    n->o.node_id = o->node_id == 0 ? 1 : o->node_id;
    n->o.cluster_id = o->cluster_id == 0 ? 1 : o->cluster_id;
    n->o.seq = o->seq == 0 ? 1 : o->seq;
    n->o.leader_id = o->leader_id == 0 ? 1 : o->leader_id;
    for (int i = 0; i < FAKE_CONNECTIONS_MAX; i++)
        n->peers[i].fd = -1;
    EXPECT(pthread_mutexattr_init(&recursive) == 0);
    EXPECT(pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE) == 0);
    EXPECT(pthread_mutex_init(&n->lock, &recursive) == 0);
    EXPECT(pthread_condattr_init(&monotonic) == 0);
    EXPECT(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    EXPECT(pthread_cond_init(&n->frame_came, &monotonic) == 0);
    n->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    EXPECT(n->wake_fd >= 0);
    n->port_fd = bind_socket(n);
    listen_again(n);
    (void)snprintf(n->address, sizeof n->address, strchr(n->o.host, ':') ? "[%s]:%u" : "%s:%u",
                   n->o.host, n->port);
    EXPECT_OK(thread_start(&n->thread, "fake-node", run, n));
    return n;
}

void fake_node_stop(struct fake_node *n)
{
    lock(n);
    n->stop = true;
    unlock_and_wake(n);
    EXPECT(pthread_join(n->thread, NULL) == 0);
    fake_node_kill(n);
    (void)close(n->wake_fd);
    (void)close(n->port_fd);
    (void)pthread_mutex_destroy(&n->lock);
    (void)pthread_cond_destroy(&n->frame_came);
    free(n);
}

const char *fake_node_address(const struct fake_node *n)
{
    return n->address;
}

uint16_t fake_node_port(const struct fake_node *n)
{
    return n->port;
}

/* --- what a test makes it do ------------------------------------------------------------------ */

void fake_node_pause(struct fake_node *n, bool on)
{
    lock(n);
    n->paused = on;
    unlock_and_wake(n);
}

void fake_node_mute(struct fake_node *n, bool on)
{
    lock(n);
    n->muted = on;
    unlock_and_wake(n);
}

void fake_node_drop(struct fake_node *n, bool reset)
{
    lock(n);
    for (int i = 0; i < FAKE_CONNECTIONS_MAX; i++)
        close_peer(&n->peers[i], reset);
    unlock_and_wake(n);
}

void fake_node_kill(struct fake_node *n)
{
    lock(n);
    if (n->listener >= 0) {
        /* The thread's poll() holds the socket for a moment longer: it listens no more. */
        (void)shutdown(n->listener, SHUT_RDWR);
        (void)close(n->listener);
    }
    n->listener = -1;
    fake_node_drop(n, true);
    unlock_and_wake(n);
}

void fake_node_revive(struct fake_node *n)
{
    lock(n);
    if (n->listener < 0)
        listen_again(n);
    n->paused = n->muted = false;
    unlock_and_wake(n);
}

void fake_node_set_seq(struct fake_node *n, uint64_t seq)
{
    lock(n);
    n->o.seq = seq;
    (void)pthread_mutex_unlock(&n->lock);
}

void fake_node_set_leader(struct fake_node *n, uint64_t leader_id)
{
    lock(n);
    n->o.leader_id = leader_id;
    (void)pthread_mutex_unlock(&n->lock);
}

void fake_node_send(struct fake_node *n, const void *bytes, size_t len)
{
    lock(n);
    for (int i = 0; i < FAKE_CONNECTIONS_MAX; i++)
        if (n->peers[i].fd >= 0)
            buf_put(&n->peers[i].out, bytes, len);
    unlock_and_wake(n);
}

unsigned fake_node_accepted(struct fake_node *n)
{
    lock(n);
    unsigned count = n->accepted;
    (void)pthread_mutex_unlock(&n->lock);
    return count;
}

unsigned fake_node_open(struct fake_node *n)
{
    unsigned count = 0;
    lock(n);
    for (int i = 0; i < FAKE_CONNECTIONS_MAX; i++)
        count += n->peers[i].fd >= 0;
    (void)pthread_mutex_unlock(&n->lock);
    return count;
}

unsigned fake_node_frames(struct fake_node *n, enum wire_type type)
{
    lock(n);
    unsigned count = n->frames[(unsigned)type % TYPES];
    (void)pthread_mutex_unlock(&n->lock);
    return count;
}

void fake_node_wait(struct fake_node *n, enum wire_type type, unsigned count)
{
    uint64_t until = clock_mono_ms() + TEST_HANG_MS;
    struct timespec t = {.tv_sec = (time_t)(until / 1000),
                         .tv_nsec = (long)(until % 1000) * 1000000};
    lock(n);
    while (n->frames[(unsigned)type % TYPES] < count)
        if (pthread_cond_timedwait(&n->frame_came, &n->lock, &t) != 0)
            test_fail(__FILE__, __LINE__, "%u frames of type %d, wanted %u",
                      n->frames[(unsigned)type % TYPES], (int)type, count);
    (void)pthread_mutex_unlock(&n->lock);
}

/* --- of a connection -------------------------------------------------------------------------- */

struct buf *fake_out(struct fake_peer *p)
{
    return &p->out;
}

struct fake_node *fake_peer_node(struct fake_peer *p)
{
    return p->node;
}

unsigned fake_peer_number(const struct fake_peer *p)
{
    return p->number;
}

void fake_peer_close(struct fake_peer *p)
{
    p->closing = true;
}

void fake_error(struct fake_peer *p, struct wire_id id, enum err code, const char *text)
{
    struct wire_error e = {
        .code = code, .offset = -1, .message = text, .message_len = strlen(text)};
    wire_put_error(&p->out, id, &e);
}

void fake_integers(struct fake_peer *p, struct wire_id id, int64_t first, uint32_t n)
{
    wire_put_columns(&p->out, id, (const char *const[]){"v"}, 1);
    size_t begun = wire_begin(&p->out, WIRE_ROWS, id);
    buf_put_u32(&p->out, n);
    for (uint32_t i = 0; i < n; i++)
        wire_put_value(&p->out, &(struct wire_value){.type = WIRE_INTEGER, .integer = first + i});
    wire_end(&p->out, begun);
}
