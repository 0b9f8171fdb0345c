/* Room: node. Thread: loop.
 * Owns: the frame that came in part.
 * Invariants: after framed_close no event is called; what it counts in events.waiting is its
 * partial frame, nothing once it is closed. Only what is left of a partial frame is copied to the
 * connection.
 * Not here: the connection below, and its backlog (tcp.c). */
#include "node/framed.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>

#define HELLO_MAX KIB(1) /* of a frame before the handshake */
/* What one read adds to a partial frame at most. */
#define READ_MAX KIB(256)
/* Bytes unacknowledged for so long: the other side is gone. */
#define GONE_MS 30000

struct framed {
    struct tcp *tcp;
    struct framed_events events;
    struct buf partial;
    size_t max;
    size_t counted;  /* in events.waiting */
    size_t dropping; /* bytes to come of a frame that is dropped, DROPPED */
    struct wire_frame dropped;
    bool closing, in_input;
};

static void count(struct framed *f, size_t bytes) ON_LOOP
{
    if (f->events.waiting != NULL)
        waiting_set(f->events.waiting, &f->counted, bytes);
}

static void end(struct framed *f) ON_LOOP
{
    count(f, 0);
    buf_fini(&f->partial);
    free(f);
}

/* Hands out the whole frames of N bytes at P. Returns how many bytes were used. */
static size_t hand_out(struct framed *f, const uint8_t *p, size_t n) ON_LOOP
{
    size_t at = 0;
    while (!f->closing) {
        struct wire_frame frame;
        size_t used = 0;
        enum err e = wire_next(p + at, n - at, f->max, &frame, &used);
        if (e != ERR_OK) {
            tcp_pause(f->tcp);
            f->events.on_bad(f->events.ctx, e, p + at, n - at);
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
        .body = rd_of(&f->dropped, 0)};
    f->dropping = WIRE_LENGTH_BYTES + (size_t)get_le32(p) - n;
    empty_partial(f);
}

static void on_bytes(void *ctx, const uint8_t *p, size_t n)
{
    struct framed *f = ctx;
    thread_expect_loop();
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
        count(f, 0); /* a whole frame is its receiver's */
        size_t used = hand_out(f, f->partial.data, f->partial.len);
        buf_consume(&f->partial, used);
    }
    if (f->partial.len == 0) /* an idle connection keeps nothing */
        empty_partial(f);
    if (!f->closing)
        begin_drop(f);
    f->in_input = false;
    if (f->closing) {
        end(f);
        return;
    }
    count(f, f->partial.len);
    if (f->partial.failed != ERR_OK) {
        tcp_pause(f->tcp);
        f->events.on_close(f->events.ctx, "out of memory for a frame");
    }
}

static void on_open(void *ctx)
{
    struct framed *f = ctx;
    f->events.on_open(f->events.ctx);
}

static void on_eof(void *ctx)
{
    struct framed *f = ctx;
    f->events.on_eof(f->events.ctx);
}

static void on_drain(void *ctx)
{
    struct framed *f = ctx;
    f->events.on_drain(f->events.ctx);
}

static void on_close(void *ctx, const char *why)
{
    struct framed *f = ctx;
    f->events.on_close(f->events.ctx, why);
}

static struct framed *make(const struct framed_events *events)
{
    struct framed *f = MEM_NEW(struct framed);
    f->events = *events;
    f->max = HELLO_MAX;
    buf_init(&f->partial, WIRE_FRAME_MAX + WIRE_LENGTH_BYTES + READ_MAX);
    return f;
}

static struct tcp_events events_of(struct framed *f)
{
    return (struct tcp_events){.ctx = f,
                               .on_open = on_open,
                               .on_bytes = on_bytes,
                               .on_eof = f->events.on_eof == NULL ? NULL : on_eof,
                               .on_drain = on_drain,
                               .on_close = on_close,
                               .waiting = f->events.waiting,
                               .gone_ms = GONE_MS};
}

struct framed *framed_accept(uv_loop_t *loop, uv_stream_t *listener,
                             const struct framed_events *events)
{
    struct framed *f = make(events);
    struct tcp_events e = events_of(f);
    f->tcp = tcp_accept(loop, listener, &e);
    if (f->tcp != NULL)
        return f;
    end(f);
    return NULL;
}

struct framed *framed_connect(uv_loop_t *loop, const char *address,
                              const struct framed_events *events)
{
    struct framed *f = make(events);
    struct tcp_events e = events_of(f);
    e.door = METER_NODE;
    f->tcp = tcp_connect(loop, address, &e);
    return f;
}

void framed_limit(struct framed *f, size_t max)
{
    f->max = max;
}

void framed_send(struct framed *f, struct buf *b)
{
    CHECK(!f->closing);
    tcp_send(f->tcp, b);
}

size_t framed_backlog(const struct framed *f)
{
    return tcp_backlog(f->tcp);
}

size_t framed_partial(const struct framed *f)
{
    return f->partial.len;
}

uint64_t framed_bytes_sent(const struct framed *f)
{
    return tcp_bytes_sent(f->tcp);
}

uint64_t framed_bytes_taken(const struct framed *f)
{
    return tcp_bytes_taken(f->tcp);
}

uint64_t framed_bytes_read(const struct framed *f)
{
    return tcp_bytes_read(f->tcp);
}

bool framed_is_broken(const struct framed *f)
{
    return tcp_is_broken(f->tcp);
}

void framed_close(struct framed *f, enum tcp_end how)
{
    if (f->closing)
        return;
    f->closing = true;
    tcp_close(f->tcp, how);
    if (!f->in_input) /* else on_bytes ends it */
        end(f);
}
