/* Room: node. Thread: loop.
 * Owns: the handles and the backlog of each connection.
 * Invariants: after tcp_close no event is called; the struct is freed when libuv let go of the
 * handles; what it counts in events.waiting is its backlog, nothing once it is closed. Input goes
 * through one scratch buffer shared by all connections: the loop reads one at a time, and no more
 * than that of a connection before it has looked at the others.
 * Not here: what the bytes mean (framed.c, http/). */
#include "node/tcp.h"

#include "base/check.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define SCRATCH     KIB(64)
#define FLUSH_MS    2000
#define KEEPALIVE_S 15
#define ACCEPTS     1024 /* the kernel's queue of new connections */
#define HOST_MAX    256
#define ENDING_MAX  128 /* that have a moment to take their last bytes, of the whole process */

/* Of a connection that we open, until it is open. */
struct dial {
    uv_getaddrinfo_t lookup;
    uv_connect_t connect;
};

struct tcp {
    uv_tcp_t tcp;
    uv_timer_t timer; /* of the end, of what must not be told at once, or of the next turn */
    struct tcp_events events;
    struct dial *dial;
    const char *later; /* told by the timer */
    size_t backlog;
    size_t counted; /* in events.waiting */
    uint64_t bytes_read, bytes_sent;
    bool opened, paused, looking_up;
    bool waits;       /* for the loop's next turn, before more is read */
    bool ended, lost; /* on_eof or on_close was called; on_close was */
    bool closing;
    enum tcp_end how;   /* CLOSING */
    struct list ending; /* of those that are not shut yet */
    unsigned handles;   /* not yet closed */
};

struct write {
    uv_write_t req;
    struct tcp *tcp;
    uint8_t *data;
    size_t len;
};

static uint8_t scratch[SCRATCH];

/* Closed for their owners, and still there for the other side: the longest first. */
static struct list endings = {&endings, &endings};
static unsigned n_endings;

static uv_stream_t *stream_of(struct tcp *t)
{
    return (uv_stream_t *)&t->tcp;
}

static void count(struct tcp *t, size_t now) ON_LOOP
{
    if (t->events.waiting != NULL)
        waiting_set(t->events.waiting, &t->counted, now);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct tcp *t = h->data;
    if (--t->handles > 0)
        return;
    CHECK(t->counted == 0);
    free(t->dial);
    free(t);
}

/* Whatever was sent and not taken is dropped, and the other side sees a break. */
static void break_off(struct tcp *t)
{
    struct linger l = {.l_onoff = 1};
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)&t->tcp, &fd) == 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
}

/* Closes the handles; the struct goes when libuv has let go. What ends before all was taken ends
 * with a break: a client must not take a part for the whole. */
static void shut(struct tcp *t) ON_LOOP
{
    if (uv_is_closing((uv_handle_t *)&t->tcp))
        return;
    if (t->how == TCP_RESET || (t->how != TCP_NOW && t->backlog > 0))
        break_off(t);
    if (!list_empty(&t->ending)) {
        list_remove(&t->ending);
        n_endings--;
    }
    count(t, 0); /* libuv frees the backlog at once */
    t->events.waiting = NULL;
    uv_close((uv_handle_t *)&t->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&t->timer, on_handle_closed);
}

static void lose(struct tcp *t, const char *why) ON_LOOP
{
    if (t->closing || t->lost)
        return;
    (void)uv_read_stop(stream_of(t));
    (void)uv_timer_stop(&t->timer);
    t->ended = t->lost = true;
    t->events.on_close(t->events.ctx, why);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)h;
    (void)suggested;
    *buf = uv_buf_init((char *)scratch, SCRATCH);
}

/* Told from the loop: its caller does not expect to be called back. */
static void on_later(uv_timer_t *timer)
{
    struct tcp *t = timer->data;
    thread_expect_loop();
    lose(t, t->later);
}

static void lose_later(struct tcp *t, const char *why)
{
    t->waits = true; /* nothing more is read, and the timer is ours */
    if (t->opened)
        (void)uv_read_stop(stream_of(t));
    t->later = why;
    (void)uv_timer_start(&t->timer, on_later, 0, 0);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

/* Reads, unless something is against it. */
static void read_on(struct tcp *t) ON_LOOP
{
    if (t->opened && !t->paused && !t->ended && !t->waits &&
        uv_read_start(stream_of(t), on_alloc, on_read) != 0)
        lose_later(t, "the connection cannot be read");
}

static void on_turn(uv_timer_t *timer)
{
    struct tcp *t = timer->data;
    thread_expect_loop();
    t->waits = false;
    read_on(t);
}

/* There may be more to read: libuv would go on for 32 times, while all others wait. */
static void await_turn(struct tcp *t)
{
    (void)uv_read_stop(stream_of(t));
    t->waits = true;
    (void)uv_timer_start(&t->timer, on_turn, 0, 0);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct tcp *t = stream->data;
    thread_expect_loop();
    if (t->closing) { /* lingering: what comes is dropped */
        (void)(n < 0 ? uv_read_stop(stream) : 0);
        if (n < 0 && (n != UV_EOF || t->backlog == 0))
            shut(t);
        else if (n < 0)
            t->how = TCP_FLUSH;
        return;
    }
    if (n == UV_EOF && t->events.on_eof != NULL) {
        (void)uv_read_stop(stream);
        t->ended = true;
        t->events.on_eof(t->events.ctx);
    } else if (n < 0) {
        lose(t, n == UV_EOF ? "closed by the other side" : uv_strerror((int)n));
    } else if (n > 0) {
        t->bytes_read += (uint64_t)n;
        meters_received(t->events.door, (uint64_t)n);
        if (n == SCRATCH)
            await_turn(t);
        t->events.on_bytes(t->events.ctx, (const uint8_t *)buf->base, (size_t)n);
    }
}

static void set_options(struct tcp *t)
{
    uv_os_fd_t fd;
    unsigned timeout = t->events.gone_ms;
    (void)uv_tcp_nodelay(&t->tcp, 1);
    (void)uv_tcp_keepalive(&t->tcp, 1, KEEPALIVE_S);
    if (timeout != 0 && uv_fileno((uv_handle_t *)&t->tcp, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

static struct tcp *make(uv_loop_t *loop, const struct tcp_events *events)
{
    struct tcp *t = MEM_NEW(struct tcp);
    t->events = *events;
    int rc = uv_tcp_init(loop, &t->tcp);
    CHECK(rc == 0);
    rc = uv_timer_init(loop, &t->timer);
    CHECK(rc == 0);
    t->tcp.data = t->timer.data = t;
    t->handles = 2;
    list_init(&t->ending);
    return t;
}

/* The host of HOST:PORT into HOST, without the brackets of [::1]:7701. Returns the port, or NULL.
 */
static const char *cut_address(const char *address, char host[HOST_MAX])
{
    const char *colon = strrchr(address, ':');
    size_t n = colon == NULL ? 0 : (size_t)(colon - address);
    if (n > 1 && address[0] == '[' && address[n - 1] == ']') {
        address++;
        n -= 2;
    }
    if (n == 0 || n >= HOST_MAX)
        return NULL;
    memcpy(host, address, n);
    host[n] = 0;
    return colon + 1;
}

enum err tcp_listen(uv_tcp_t *socket, const char *setting, const char *address,
                    uv_connection_cb on_connection)
{
    char host[HOST_MAX];
    const char *port = cut_address(address, host);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t lookup;
    if (port == NULL)
        return err_fail(ERR_CONFIG, "%s = \"%s\" is not HOST:PORT", setting, address);
    int rc = uv_getaddrinfo(socket->loop, &lookup, NULL, host, port, &hints);
    if (rc == 0) {
        rc = uv_tcp_bind(socket, lookup.addrinfo->ai_addr, 0);
        uv_freeaddrinfo(lookup.addrinfo);
    }
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)socket, ACCEPTS, on_connection);
    if (rc != 0)
        return err_fail(rc == UV_EADDRINUSE ? ERR_LOCKED : ERR_IO, "cannot listen on %s (%s): %s",
                        address, setting, uv_strerror(rc));
    return ERR_OK;
}

struct tcp *tcp_accept(uv_loop_t *loop, uv_stream_t *listener, const struct tcp_events *events)
{
    thread_expect_loop();
    struct tcp *t = make(loop, events);
    if (uv_accept(listener, stream_of(t)) != 0 ||
        uv_read_start(stream_of(t), on_alloc, on_read) != 0) {
        tcp_close(t, TCP_NOW);
        return NULL;
    }
    t->opened = true;
    set_options(t);
    meters_accepted(events->door);
    return t;
}

static void on_connected(uv_connect_t *req, int status)
{
    struct tcp *t = req->data;
    thread_expect_loop();
    if (t->closing)
        return;
    if (status != 0) {
        lose(t, uv_strerror(status));
        return;
    }
    t->opened = true;
    set_options(t);
    read_on(t);
    t->events.on_open(t->events.ctx);
}

static void on_found(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct tcp *t = req->data;
    thread_expect_loop();
    t->looking_up = false;
    if (t->closing) {
        uv_freeaddrinfo(res);
        shut(t);
        return;
    }
    if (status == 0)
        status = uv_tcp_connect(&t->dial->connect, &t->tcp, res->ai_addr, on_connected);
    uv_freeaddrinfo(res);
    if (status != 0)
        lose(t, uv_strerror(status));
}

struct tcp *tcp_connect(uv_loop_t *loop, const char *address, const struct tcp_events *events)
{
    thread_expect_loop();
    struct tcp *t = make(loop, events);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char host[HOST_MAX];
    const char *port = cut_address(address, host);
    t->dial = MEM_NEW(struct dial);
    t->dial->lookup.data = t->dial->connect.data = t;
    if (port != NULL)
        t->looking_up = uv_getaddrinfo(loop, &t->dial->lookup, on_found, host, port, &hints) == 0;
    if (!t->looking_up)
        lose_later(t, "the address is not HOST:PORT");
    return t;
}

void tcp_pause(struct tcp *t)
{
    if (t->opened && !t->paused && !t->ended)
        (void)uv_read_stop(stream_of(t));
    t->paused = true;
}

void tcp_resume(struct tcp *t)
{
    CHECK(!t->closing);
    if (!t->paused)
        return;
    t->paused = false;
    read_on(t);
}

/* All is out: what is left is the other side's end, or nothing. */
static void on_shutdown(uv_shutdown_t *req, int status)
{
    struct tcp *t = req->data;
    thread_expect_loop();
    free(req);
    if (status != 0)
        shut(t);
}

static void linger(struct tcp *t) ON_LOOP
{
    uv_shutdown_t *req = MEM_NEW(uv_shutdown_t);
    req->data = t;
    if (uv_shutdown(req, stream_of(t), on_shutdown) != 0) {
        free(req);
        shut(t);
    } else if (uv_read_start(stream_of(t), on_alloc, on_read) != 0) {
        shut(t); /* req comes back with UV_ECANCELED */
    }
}

static void on_written(uv_write_t *req, int status)
{
    struct write *w = (struct write *)req;
    struct tcp *t = w->tcp;
    thread_expect_loop();
    CHECK(t->backlog >= w->len);
    t->backlog -= w->len;
    free(w->data);
    free(w);
    count(t, t->backlog);
    if (t->closing) {
        if (status != 0 || (t->backlog == 0 && t->how == TCP_FLUSH))
            shut(t);
        return;
    }
    if (status != 0)
        lose(t, uv_strerror(status));
    else if (t->backlog == 0 && !t->lost)
        t->events.on_drain(t->events.ctx);
}

void tcp_send(struct tcp *t, struct buf *b)
{
    CHECK(!t->closing && buf_status(b) == ERR_OK && b->len <= INT_MAX); /* as libuv counts */
    size_t done = 0;
    t->bytes_sent += b->len;
    meters_sent(t->events.door, b->len);
    if (t->backlog == 0) {
        uv_buf_t now = uv_buf_init((char *)b->data, (unsigned)b->len);
        int n = uv_try_write(stream_of(t), &now, 1);
        done = n > 0 ? (size_t)n : 0; /* an error shows again below, in its callback */
    }
    if (done == b->len) {
        buf_reset(b);
        return;
    }
    struct write *w = MEM_NEW(struct write);
    w->tcp = t;
    w->data = buf_take(b, &w->len);
    uv_buf_t rest = uv_buf_init((char *)w->data + done, (unsigned)(w->len - done));
    w->len -= done;
    t->backlog += w->len;
    count(t, t->backlog);
    int rc = uv_write(&w->req, stream_of(t), &rest, 1, on_written);
    if (rc != 0) {
        t->backlog -= w->len;
        free(w->data);
        free(w);
        count(t, t->backlog);
        lose_later(t, "the connection cannot be written");
    }
}

size_t tcp_backlog(const struct tcp *t)
{
    return uv_stream_get_write_queue_size((const uv_stream_t *)&t->tcp);
}

uint64_t tcp_bytes_sent(const struct tcp *t)
{
    return t->bytes_sent;
}

/* The kernel takes megabytes for a slow client, and asks for more when a third of that is gone:
 * only what the other side has acknowledged shows that it goes on. */
uint64_t tcp_bytes_taken(const struct tcp *t)
{
    uv_os_fd_t fd;
    int queued = 0;
    if (uv_fileno((const uv_handle_t *)&t->tcp, &fd) != 0 || ioctl(fd, SIOCOUTQ, &queued) != 0 ||
        queued < 0)
        queued = 0;
    size_t waits = tcp_backlog(t) + (size_t)queued;
    return t->bytes_sent > waits ? t->bytes_sent - waits : 0;
}

uint64_t tcp_bytes_read(const struct tcp *t)
{
    return t->bytes_read;
}

bool tcp_is_broken(const struct tcp *t)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof info;
    uv_os_fd_t fd;
    return uv_fileno((const uv_handle_t *)&t->tcp, &fd) == 0 &&
           getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0 && info.tcpi_state == TCP_CLOSE;
}

static void on_end_timeout(uv_timer_t *timer)
{
    thread_expect_loop();
    shut(timer->data);
}

/* Who opens connections and is refused without end must not take the descriptors that the log
 * needs: of too many, the one that had the most of its moment is shut. */
static void give_a_moment(struct tcp *t) ON_LOOP
{
    if (n_endings == ENDING_MAX)
        shut(LIST_ENTRY(endings.next, struct tcp, ending));
    list_push_back(&endings, &t->ending);
    n_endings++;
}

void tcp_close(struct tcp *t, enum tcp_end how)
{
    if (t->closing)
        return;
    t->closing = true;
    t->how = how;
    if (t->opened)
        (void)uv_read_stop(stream_of(t));
    if (t->looking_up) {
        (void)uv_cancel((uv_req_t *)&t->dial->lookup);
        return; /* on_found shuts */
    }
    bool lingers = how == TCP_LINGER && t->opened && !t->ended;
    if (how == TCP_LINGER && !lingers)
        t->how = how = TCP_FLUSH;
    if (how == TCP_NOW || how == TCP_RESET || (!lingers && t->backlog == 0)) {
        shut(t);
        return;
    }
    (void)uv_timer_start(&t->timer, on_end_timeout, FLUSH_MS, 0);
    give_a_moment(t);
    if (lingers)
        linger(t);
}
