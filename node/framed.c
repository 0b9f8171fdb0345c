/* Room: node. Thread: loop.
 * Invariants: after framed_close no event is called; the struct is freed when libuv let go of the
 * handles; what it counts in events.waiting is its partial frame and its backlog, nothing once it
 * is closed and sent. Input goes through one scratch buffer shared by all connections (the loop
 * reads one at a time); only what is left of a partial frame is copied to the connection. */
#include "node/framed.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SCRATCH         KIB(256)
#define HELLO_MAX       KIB(1) /* of a frame before the handshake */
#define FLUSH_MS        2000
#define KEEPALIVE_S     15
#define USER_TIMEOUT_MS 30000 /* bytes unacknowledged for so long: the peer is gone */

struct framed {
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_getaddrinfo_t lookup;
    uv_connect_t connect;
    struct framed_events events;
    struct buf partial;
    size_t max, backlog;
    size_t counted;  /* in events.waiting */
    size_t dropping; /* bytes to come of a frame that is dropped, DROPPED */
    struct wire_frame dropped;
    uint64_t bytes_read, bytes_sent;
    bool closing, in_input, looking_up, timer_open, opened;
    unsigned handles; /* not yet closed */
};

struct write {
    uv_write_t req;
    struct framed *framed;
    uint8_t *data;
    size_t len;
};

static uint8_t scratch[SCRATCH];

static void count(struct framed *f) ON_LOOP
{
    if (f->events.waiting != NULL)
        waiting_set(f->events.waiting, &f->counted, f->partial.len + f->backlog);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct framed *f = h->data;
    if (--f->handles > 0)
        return;
    CHECK(f->counted == 0);
    buf_fini(&f->partial);
    free(f);
}

/* Closes the handles; the struct goes when libuv has let go. */
static void shut(struct framed *f) ON_LOOP
{
    if (uv_is_closing((uv_handle_t *)&f->tcp))
        return;
    if (f->events.waiting != NULL) /* libuv frees the backlog at once */
        waiting_set(f->events.waiting, &f->counted, 0);
    f->events.waiting = NULL;
    uv_close((uv_handle_t *)&f->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&f->timer, on_handle_closed);
}

static void lost(struct framed *f, const char *why)
{
    if (f->closing)
        return;
    (void)uv_read_stop((uv_stream_t *)&f->tcp);
    f->events.on_close(f->events.ctx, why);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)h;
    (void)suggested;
    *buf = uv_buf_init((char *)scratch, SCRATCH);
}

/* Hands out the whole frames of N bytes at P. Returns how many bytes were used. */
static size_t hand_out(struct framed *f, const uint8_t *p, size_t n)
{
    size_t at = 0;
    while (!f->closing) {
        struct wire_frame frame;
        size_t used = 0;
        enum err e = wire_next(p + at, n - at, f->max, &frame, &used);
        if (e != ERR_OK) {
            (void)uv_read_stop((uv_stream_t *)&f->tcp);
            f->events.on_bad(f->events.ctx, e);
            return n;
        }
        if (used == 0)
            break;
        f->events.on_frame(f->events.ctx, &frame);
        at += used;
    }
    return at;
}

/* Drops bytes of a frame that is not taken. Returns how many. */
static size_t drop(struct framed *f, size_t n)
{
    size_t used = n < f->dropping ? n : f->dropping;
    if (f->dropping == 0)
        return 0;
    f->dropping -= used;
    if (f->dropping == 0)
        f->events.on_dropped(f->events.ctx, &f->dropped);
    return used;
}

static void empty_partial(struct framed *f)
{
    size_t max = f->partial.max;
    buf_fini(&f->partial);
    buf_init(&f->partial, max);
}

/* No room for what came of a frame: it goes, and what follows of it. */
static void begin_drop(struct framed *f)
{
    const uint8_t *p = f->partial.data;
    size_t n = f->partial.len;
    if (f->events.may_hold == NULL || n < WIRE_HEAD_BYTES || f->events.may_hold(f->events.ctx, n))
        return;
    f->dropped = (struct wire_frame){
        .type = (enum wire_type)p[WIRE_LENGTH_BYTES],
        .id = {get_le32(p + WIRE_LENGTH_BYTES + 1), get_le32(p + WIRE_LENGTH_BYTES + 5)},
        .body = rd_of(scratch, 0)};
    f->dropping = WIRE_LENGTH_BYTES + (size_t)get_le32(p) - n;
    empty_partial(f);
}

static void take_input(struct framed *f, const uint8_t *p, size_t n) ON_LOOP
{
    f->in_input = true;
    size_t dropped = drop(f, n);
    p += dropped;
    n -= dropped;
    if (f->partial.len == 0) {
        size_t used = hand_out(f, p, n);
        if (!f->closing)
            buf_put(&f->partial, p + used, n - used);
    } else {
        buf_put(&f->partial, p, n);
        if (f->events.waiting != NULL) /* a whole frame is its receiver's */
            waiting_set(f->events.waiting, &f->counted, f->backlog);
        size_t used = hand_out(f, f->partial.data, f->partial.len);
        buf_consume(&f->partial, used);
    }
    if (f->partial.len == 0) /* an idle connection keeps nothing */
        empty_partial(f);
    if (!f->closing)
        begin_drop(f);
    count(f);
    f->in_input = false;
    if (f->partial.failed != ERR_OK)
        lost(f, "out of memory for a frame");
    if (f->closing && f->backlog == 0)
        shut(f);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct framed *f = stream->data;
    thread_expect_loop();
    if (n == UV_EOF && f->events.on_eof != NULL && !f->closing) {
        (void)uv_read_stop(stream);
        f->events.on_eof(f->events.ctx);
    } else if (n < 0) {
        lost(f, n == UV_EOF ? "closed by the other side" : uv_strerror((int)n));
    } else if (n > 0) {
        f->bytes_read += (uint64_t)n;
        take_input(f, (const uint8_t *)buf->base, (size_t)n);
    }
}

static void set_options(struct framed *f)
{
    uv_os_fd_t fd;
    unsigned timeout = USER_TIMEOUT_MS;
    (void)uv_tcp_nodelay(&f->tcp, 1);
    (void)uv_tcp_keepalive(&f->tcp, 1, KEEPALIVE_S);
    if (uv_fileno((uv_handle_t *)&f->tcp, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

static struct framed *make(uv_loop_t *loop, const struct framed_events *events)
{
    struct framed *f = MEM_NEW(struct framed);
    f->events = *events;
    f->max = HELLO_MAX;
    buf_init(&f->partial, WIRE_FRAME_MAX + WIRE_LENGTH_BYTES + SCRATCH);
    int rc = uv_tcp_init(loop, &f->tcp);
    CHECK(rc == 0);
    rc = uv_timer_init(loop, &f->timer);
    CHECK(rc == 0);
    f->tcp.data = f->timer.data = f->lookup.data = f->connect.data = f;
    f->handles = 2;
    return f;
}

struct framed *framed_accept(uv_loop_t *loop, uv_stream_t *listener,
                             const struct framed_events *events)
{
    thread_expect_loop();
    struct framed *f = make(loop, events);
    if (uv_accept(listener, (uv_stream_t *)&f->tcp) != 0 ||
        uv_read_start((uv_stream_t *)&f->tcp, on_alloc, on_read) != 0) {
        framed_close(f, false);
        return NULL;
    }
    f->opened = true;
    set_options(f);
    return f;
}

static void on_connected(uv_connect_t *req, int status)
{
    struct framed *f = req->data;
    thread_expect_loop();
    if (f->closing)
        return;
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&f->tcp, on_alloc, on_read);
    if (status != 0) {
        lost(f, uv_strerror(status));
        return;
    }
    f->opened = true;
    set_options(f);
    f->events.on_open(f->events.ctx);
}

static void on_found(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct framed *f = req->data;
    thread_expect_loop();
    f->looking_up = false;
    if (f->closing) {
        uv_freeaddrinfo(res);
        shut(f);
        return;
    }
    if (status == 0)
        status = uv_tcp_connect(&f->connect, &f->tcp, res->ai_addr, on_connected);
    uv_freeaddrinfo(res);
    if (status != 0)
        lost(f, uv_strerror(status));
}

static void on_bad_address(uv_timer_t *timer)
{
    thread_expect_loop();
    lost(timer->data, "the address is not HOST:PORT");
}

struct framed *framed_connect(uv_loop_t *loop, const char *address,
                              const struct framed_events *events)
{
    thread_expect_loop();
    struct framed *f = make(loop, events);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    const char *colon = strrchr(address, ':');
    char host[256];
    size_t n = colon == NULL ? 0 : (size_t)(colon - address);
    if (n > 1 && address[0] == '[' && address[n - 1] == ']') { /* [::1]:7701 */
        address++;
        n -= 2;
    }
    bool good = n > 0 && n < sizeof host;
    if (good) {
        memcpy(host, address, n);
        host[n] = 0;
        good = uv_getaddrinfo(loop, &f->lookup, on_found, host, colon + 1, &hints) == 0;
        f->looking_up = good;
    }
    if (!good)
        (void)uv_timer_start(&f->timer, on_bad_address, 0, 0);
    return f;
}

void framed_limit(struct framed *f, size_t max)
{
    f->max = max;
}

static void on_written(uv_write_t *req, int status)
{
    struct write *w = (struct write *)req;
    struct framed *f = w->framed;
    thread_expect_loop();
    CHECK(f->backlog >= w->len);
    f->backlog -= w->len;
    free(w->data);
    free(w);
    count(f);
    if (f->closing) {
        if (f->backlog == 0)
            shut(f);
        return;
    }
    if (status != 0)
        lost(f, uv_strerror(status));
    else if (f->backlog == 0)
        f->events.on_drain(f->events.ctx);
}

void framed_send(struct framed *f, struct buf *b)
{
    CHECK(!f->closing && buf_status(b) == ERR_OK);
    size_t done = 0;
    f->bytes_sent += b->len;
    if (f->backlog == 0) {
        uv_buf_t now = uv_buf_init((char *)b->data, (unsigned)b->len);
        int n = uv_try_write((uv_stream_t *)&f->tcp, &now, 1);
        done = n > 0 ? (size_t)n : 0; /* an error shows again below, in its callback */
    }
    if (done == b->len) {
        buf_reset(b);
        return;
    }
    struct write *w = MEM_NEW(struct write);
    buf_consume(b, done);
    w->framed = f;
    w->data = buf_take(b, &w->len);
    f->backlog += w->len;
    count(f);
    uv_buf_t rest = uv_buf_init((char *)w->data, (unsigned)w->len);
    int rc = uv_write(&w->req, (uv_stream_t *)&f->tcp, &rest, 1, on_written);
    if (rc != 0) {
        f->backlog -= w->len;
        free(w->data);
        free(w); /* the read side reports the broken connection */
        count(f);
    }
}

size_t framed_backlog(const struct framed *f)
{
    return uv_stream_get_write_queue_size((const uv_stream_t *)&f->tcp);
}

size_t framed_partial(const struct framed *f)
{
    return f->partial.len;
}

uint64_t framed_bytes_taken(const struct framed *f)
{
    return f->bytes_sent - framed_backlog(f);
}

uint64_t framed_bytes_read(const struct framed *f)
{
    return f->bytes_read;
}

static void on_flush_timeout(uv_timer_t *timer)
{
    thread_expect_loop();
    shut(timer->data);
}

void framed_close(struct framed *f, bool flush)
{
    if (f->closing)
        return;
    f->closing = true;
    if (f->opened)
        (void)uv_read_stop((uv_stream_t *)&f->tcp);
    if (f->looking_up) {
        (void)uv_cancel((uv_req_t *)&f->lookup);
        return; /* on_found shuts */
    }
    if (f->in_input && !(flush && f->backlog > 0)) {
        if (f->backlog > 0)
            shut(f);
        return; /* take_input shuts */
    }
    if (flush && f->backlog > 0)
        (void)uv_timer_start(&f->timer, on_flush_timeout, FLUSH_MS, 0);
    else
        shut(f);
}
