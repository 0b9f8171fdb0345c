/* Room: consensus. Thread: loop.
 * Owns: one socket, one timer, the queue.
 * Invariants: frames are queued only while UP, so that a connection carries a gapless sequence from
 *             1; queued bytes stay under PEER_QUEUE_BYTES_MAX; one uv_write at most is under way,
 *             and the frames stay in the queue until it ends.
 * Not here: the queue (peer_queue.c), who the peers are (transport.c).
 *
 *            backoff over                resolved                  connected
 *   WAITING -------------> RESOLVING --------------> CONNECTING ---------------> GREETING
 *      ^                       |                         |                          |  welcome
 *      |  socket closed        | failed                  | failed, late             v
 *      +------ DROPPING <------+-------------------------+-------- refused, late -- UP
 *                 ^                                                                 | EOF, error
 *                 +-----------------------------------------------------------------+
 * One address of a name is tried at each attempt, in turn. */
#include "consensus/peer_out.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "consensus/peer_book.h"
#include "consensus/peer_queue.h"
#include "consensus/peer_socket.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BACKOFF_MIN_MS 50u
#define BACKOFF_MAX_MS 1000u
#define ATTEMPT_MS     2000u /* to resolve, connect and be answered */

enum state { WAITING, RESOLVING, CONNECTING, GREETING, UP, DROPPING, CLOSED };

static const char *const state_names[] = {"waiting", "resolving", "connecting", "greeting",
                                          "up",      "dropping",  "closed"};

/* Which states may follow, as bits. */
static const unsigned allowed[] = {
    [WAITING] = 1u << RESOLVING | 1u << CLOSED,
    [RESOLVING] = 1u << CONNECTING | 1u << WAITING | 1u << CLOSED,
    [CONNECTING] = 1u << GREETING | 1u << DROPPING,
    [GREETING] = 1u << UP | 1u << DROPPING,
    [UP] = 1u << DROPPING,
    [DROPPING] = 1u << WAITING | 1u << CLOSED,
    [CLOSED] = 0,
};

struct peer_out {
    struct peer_out_config c;
    struct peer_address address;
    enum state state;
    bool closing, timer_closed;
    unsigned fails, attempts;
    struct rng rng;
    uv_timer_t timer;
    uv_tcp_t tcp;
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    uv_write_t greet, write;
    uint8_t hello[PEER_HELLO_BYTES];
    uint8_t answer[PEER_ANSWER_BYTES + 1];
    size_t answer_n;
    bool waits;                     /* the answer is there, and judged later */
    char last_reason[ERR_TEXT_MAX]; /* logged already */

    struct peer_queue queue; /* what the kernel does not have yet */
    bool write_busy;         /* a uv_write of the front is under way, */
    size_t write_bytes;      /* of so many bytes */

    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void move(struct peer_out *o, enum state to)
{
    CHECK((allowed[o->state] & (1u << to)) != 0);
    o->state = to;
}

/* --- going down ------------------------------------------------------------------------------- */

static void wait_and_dial(struct peer_out *o, uint64_t ms);

static void maybe_free(struct peer_out *o)
{
    if (o->state != CLOSED || !o->timer_closed)
        return;
    void (*closed)(void *ctx) = o->closed;
    void *ctx = o->closed_ctx;
    CHECK(list_empty(&o->queue.frames));
    free(o);
    closed(ctx);
}

static void come_to_rest(struct peer_out *o)
{
    if (o->closing) {
        move(o, CLOSED);
        maybe_free(o);
        return;
    }
    uint64_t ms = BACKOFF_MIN_MS;
    for (unsigned i = 0; i < o->fails && ms < BACKOFF_MAX_MS; i++)
        ms *= 2;
    if (ms > BACKOFF_MAX_MS)
        ms = BACKOFF_MAX_MS;
    o->fails++;
    move(o, WAITING);
    wait_and_dial(o, ms / 2 + rng_below(&o->rng, ms / 2 + 1));
}

static void on_tcp_closed(uv_handle_t *h)
{
    thread_expect_loop();
    struct peer_out *o = h->data;
    peer_queue_clear(&o->queue); /* not before: a write under way reads it */
    o->write_busy = false;
    come_to_rest(o);
}

/* A line when the reason is a new one: a peer that is away for a day is not logged every second. */
static void tell(struct peer_out *o, const char *what, const char *why)
{
    char reason[sizeof o->last_reason];
    (void)snprintf(reason, sizeof reason, "%s: %s", what, why);
    if (strcmp(reason, o->last_reason) == 0)
        return;
    memcpy(o->last_reason, reason, sizeof reason);
    log_warn("consensus", "peer_down peer=%llu address=%s:%s reason=\"%s\"",
             (unsigned long long)o->c.peer, o->address.host, o->address.port, reason);
}

static void drop(struct peer_out *o)
{
    bool was_up = o->state == UP;
    if (o->state == DROPPING)
        return;
    move(o, DROPPING);
    (void)uv_timer_stop(&o->timer);
    uv_close((uv_handle_t *)&o->tcp, on_tcp_closed);
    if (was_up && !o->closing)
        o->c.on_change(o->c.ctx, o->c.peer, false);
}

static void fail(struct peer_out *o, const char *what, const char *why)
{
    if (o->state == DROPPING)
        return;
    tell(o, what, why);
    drop(o);
}

/* --- coming up -------------------------------------------------------------------------------- */

static void come_up(struct peer_out *o)
{
    move(o, UP);
    (void)uv_timer_stop(&o->timer);
    o->fails = 0;
    CHECK(o->queue.sequence == 0);
    o->last_reason[0] = 0;
    log_info("consensus", "peer_up peer=%llu address=%s:%s", (unsigned long long)o->c.peer,
             o->address.host, o->address.port);
    o->c.on_change(o->c.ctx, o->c.peer, true);
}

static void on_answer(struct peer_out *o)
{
    struct peer_answer a;
    enum err code = ERR_OK;
    o->waits = false;
    if (peer_answer_decode(o->answer, &a) != ERR_OK)
        fail(o, "no greeting", err_text());
    else if (a.code != ERR_OK) {
        /* The peer's own sentence may be cut: its answer has little room. */
        char whole[ERR_TEXT_MAX];
        if (a.standing != PEER_STANDING_NONE)
            peer_book_sentence(whole, sizeof whole, o->c.self, a.standing);
        fail(o, "refused", a.standing != PEER_STANDING_NONE ? whole : a.reason);
        if (a.standing != PEER_STANDING_NONE && !o->closing)
            o->c.on_refused(o->c.ctx, o->c.peer, a.standing);
    } else if (a.version != PEER_PROTOCOL_VERSION || a.frame_max < PEER_FRAME_MAX)
        fail(o, "refused by us", "it speaks another version, or takes only smaller frames");
    else if (!o->c.judge(o->c.ctx, o->c.peer, a.incarnation, &code))
        o->waits = true;
    else if (code != ERR_OK)
        fail(o, "refused by us", err_text());
    else
        come_up(o);
}

void peer_out_judge_again(struct peer_out *o)
{
    if (o->state == GREETING && o->waits)
        on_answer(o);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct peer_out *o = h->data;
    (void)suggested;
    /* One byte more than the answer: it would be one too many. */
    *buf = uv_buf_init((char *)o->answer + o->answer_n, (unsigned)(sizeof o->answer - o->answer_n));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    thread_expect_loop();
    struct peer_out *o = s->data;
    (void)buf;
    if (n < 0) {
        fail(o, "connection lost", n == UV_EOF ? "closed by the peer" : uv_strerror((int)n));
        return;
    }
    o->answer_n += (size_t)n;
    if (o->answer_n > PEER_ANSWER_BYTES)
        fail(o, "connection lost", "the peer sent bytes where none belong");
    else if (o->state == GREETING && o->answer_n == PEER_ANSWER_BYTES)
        on_answer(o);
}

static void on_greeted(uv_write_t *req, int status)
{
    thread_expect_loop();
    struct peer_out *o = req->data;
    if (status < 0)
        fail(o, "cannot greet", uv_strerror(status));
}

static void on_connected(uv_connect_t *req, int status)
{
    thread_expect_loop();
    struct peer_out *o = req->data;
    if (o->state == DROPPING)
        return;
    if (status < 0) {
        fail(o, "cannot connect", uv_strerror(status));
        return;
    }
    move(o, GREETING);
    peer_socket_tune(&o->tcp);
    o->answer_n = 0;
    o->waits = false;
    struct peer_hello hello = {
        .version = PEER_PROTOCOL_VERSION,
        .cluster_id = o->c.cluster_id,
        .from = o->c.self,
        .to = o->c.peer,
        .frame_max = PEER_FRAME_MAX,
        .incarnation = o->c.incarnation,
    };
    peer_hello_encode(o->hello, &hello);
    uv_buf_t buf = uv_buf_init((char *)o->hello, sizeof o->hello);
    o->greet.data = o;
    int rc = uv_write(&o->greet, (uv_stream_t *)&o->tcp, &buf, 1, on_greeted);
    if (rc == 0)
        rc = uv_read_start((uv_stream_t *)&o->tcp, on_alloc, on_read);
    if (rc != 0)
        fail(o, "cannot greet", uv_strerror(rc));
}

static void connect_to(struct peer_out *o, const struct addrinfo *all)
{
    unsigned n = 0;
    for (const struct addrinfo *a = all; a != NULL; a = a->ai_next)
        n++;
    CHECK(n > 0);
    const struct addrinfo *a = all;
    for (unsigned i = o->attempts++ % n; i > 0; i--)
        a = a->ai_next;
    int rc = uv_tcp_init(o->c.loop, &o->tcp);
    if (rc != 0) { /* no handle to close */
        tell(o, "cannot make a socket", uv_strerror(rc));
        come_to_rest(o);
        return;
    }
    move(o, CONNECTING);
    o->tcp.data = o;
    o->connect.data = o;
    rc = uv_tcp_connect(&o->connect, &o->tcp, a->ai_addr, on_connected);
    if (rc != 0)
        fail(o, "cannot connect", uv_strerror(rc));
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *all)
{
    thread_expect_loop();
    struct peer_out *o = req->data;
    if (status == 0 && !o->closing)
        connect_to(o, all);
    else {
        if (!o->closing)
            tell(o, "cannot resolve", uv_strerror(status));
        come_to_rest(o);
    }
    uv_freeaddrinfo(all);
}

static void on_late(uv_timer_t *t)
{
    thread_expect_loop();
    struct peer_out *o = t->data;
    if (o->state == RESOLVING) /* cannot be cut short once it runs: its end is waited for */
        (void)uv_cancel((uv_req_t *)&o->resolve);
    else
        fail(o, state_names[o->state],
             o->waits ? "met for the first time, and that could not be stored in time"
                      : "no answer in time");
}

static void on_dial(uv_timer_t *t)
{
    thread_expect_loop();
    struct peer_out *o = t->data;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    move(o, RESOLVING);
    (void)uv_timer_start(&o->timer, on_late, ATTEMPT_MS, 0);
    o->resolve.data = o;
    int rc = uv_getaddrinfo(o->c.loop, &o->resolve, on_resolved, o->address.host, o->address.port,
                            &hints);
    if (rc != 0) {
        tell(o, "cannot resolve", uv_strerror(rc));
        come_to_rest(o);
    }
}

static void wait_and_dial(struct peer_out *o, uint64_t ms)
{
    (void)uv_timer_start(&o->timer, on_dial, ms, 0);
}

/* --- the door --------------------------------------------------------------------------------- */

enum err peer_out_open(const struct peer_out_config *c, const char *address, struct peer_out **out)
{
    struct peer_address parsed;
    TRY(peer_address_parse(address, &parsed));
    struct peer_out *o = MEM_NEW(struct peer_out);
    o->c = *c;
    o->address = parsed;
    o->state = WAITING;
    o->rng.state = uv_hrtime() ^ (c->self << 32) ^ c->peer;
    peer_queue_init(&o->queue);
    CHECK(uv_timer_init(c->loop, &o->timer) == 0); /* cannot fail */
    o->timer.data = o;
    wait_and_dial(o, 0);
    *out = o;
    return ERR_OK;
}

enum err peer_out_set_address(struct peer_out *o, const char *address)
{
    struct peer_address parsed;
    TRY(peer_address_parse(address, &parsed));
    if (strcmp(parsed.host, o->address.host) == 0 && strcmp(parsed.port, o->address.port) == 0)
        return ERR_OK;
    o->address = parsed;
    o->fails = 0;
    o->last_reason[0] = 0;
    if (o->state == WAITING)
        wait_and_dial(o, 0);
    else if (o->state == RESOLVING)
        (void)uv_cancel((uv_req_t *)&o->resolve);
    else if (o->state != DROPPING)
        drop(o);
    return ERR_OK;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct peer_out *o = h->data;
    o->timer_closed = true;
    maybe_free(o);
}

void peer_out_close(struct peer_out *o, void (*closed)(void *ctx), void *ctx)
{
    CHECK(!o->closing);
    o->closing = true;
    o->closed = closed;
    o->closed_ctx = ctx;
    uv_close((uv_handle_t *)&o->timer, on_timer_closed);
    if (o->state == WAITING)
        move(o, CLOSED); /* freed when the timer is */
    else if (o->state == RESOLVING)
        (void)uv_cancel((uv_req_t *)&o->resolve);
    else
        drop(o);
}

/* --- writing ---------------------------------------------------------------------------------- */

static void flush(struct peer_out *o);

static void on_written(uv_write_t *req, int status)
{
    thread_expect_loop();
    struct peer_out *o = req->data;
    o->write_busy = false;
    if (o->state != UP) /* the socket is closing: its end frees the frames */
        return;
    if (status < 0) {
        fail(o, "connection lost", uv_strerror(status));
        return;
    }
    peer_queue_written(&o->queue, o->write_bytes);
    flush(o);
}

/* The socket is full: libuv writes the queue's front when it has room. The frames stay in the queue
 * until then. */
static void write_later(struct peer_out *o)
{
    uv_buf_t bufs[PEER_QUEUE_PIECES];
    unsigned n = peer_queue_pieces(&o->queue, bufs, &o->write_bytes);
    o->write.data = o;
    o->write_busy = true;
    int rc = uv_write(&o->write, (uv_stream_t *)&o->tcp, bufs, n, on_written);
    if (rc != 0)
        fail(o, "connection lost", uv_strerror(rc));
}

static void flush(struct peer_out *o)
{
    uv_buf_t bufs[PEER_QUEUE_PIECES];
    size_t bytes;
    while (o->state == UP && !o->write_busy && o->queue.bytes > 0) {
        unsigned n = peer_queue_pieces(&o->queue, bufs, &bytes);
        int rc = uv_try_write((uv_stream_t *)&o->tcp, bufs, n);
        if (rc < 0 && rc != UV_EAGAIN) {
            fail(o, "connection lost", uv_strerror(rc));
            return;
        }
        if (rc > 0)
            peer_queue_written(&o->queue, (size_t)rc);
        if (rc < 0 || (size_t)rc < bytes)
            write_later(o);
    }
}

void peer_out_flush(struct peer_out *o)
{
    flush(o);
}

bool peer_out_send(struct peer_out *o, enum peer_frame_type type, const uint8_t *head,
                   size_t head_n, const struct cns_item *items, unsigned n_items, const uint8_t *p,
                   size_t n)
{
    return o->state == UP && peer_queue_put(&o->queue, type, head, head_n, items, n_items, p, n);
}

uint64_t peer_out_queued(const struct peer_out *o)
{
    return o->state == UP ? o->queue.bytes : UINT64_MAX;
}
