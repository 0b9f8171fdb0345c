/* Room: client.   Thread: the loop's.
 * Owns: the socket, what waits to leave and what came and is not a whole frame yet.
 *
 * Invariants:
 *  - `out` up to `whole` are whole frames; behind it is what the caller puts before link_send;
 *  - whoever calls on_ready or on_frame asks still_up() after it, and touches nothing when it says
 * no: the link may have been freed from there;
 *  - on_down comes from a task, with nothing of the link on the stack; once DOWN there is no
 * socket, no timer and no lookup any more;
 *  - the timer is set in all states before READY, and while it is busy.
 *
 * Not here: what frames mean (call.c), when to try again (members.c), whether a node is silent
 * (link_silence.c). */
#include "client/link.h"

#include "base/check.h"
#include "base/clock.h"
#include "client/attempt.h"
#include "client/kept_set.h"
#include "client/link_greeting.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES      65536u
#define READS_OF_TURN   16       /* then the other descriptors have their turn */
#define KEEP_BYTES      KIB(256) /* of memory, when a buffer has become nearly empty */
#define SILENCE_STEP_MS 250u

enum state { CONNECTING, GREETING, READY, DOWN };

struct link {
    struct loop *loop;
    struct link_events events;
    enum state state;
    char *address, *client_name;
    struct attempt *attempt; /* until READY */
    struct loop_watch watch;
    uint32_t interest; /* what the watch waits for */
    struct loop_timer timer;
    struct loop_task task; /* READY: frames leave; DOWN: on_down */
    struct buf in, out;
    size_t sent, whole;  /* of `out` */
    uint64_t out_before; /* bytes that were in `out` and are gone */
    unsigned in_event;
    bool freed;
    bool busy;
    bool accepted;
    uint64_t busy_ms, heard_ms; /* since when it is busy; when a byte came last */
    struct {
        bool on;
        uint64_t alive_ms; /* when it began, or the PING was seen moving last */
        uint64_t ping_end; /* in link_put_total */
        uint64_t acked;    /* of that, by the other end's kernel */
    } probe;
    uint32_t ping;    /* the last one */
    uint64_t ping_ns; /* when it, or HELLO, was put; 0: not awaited */
    uint64_t rtt_ns;
    struct kept_set kept;
    /* Why it is down; before: why who accepted it was not the right one, ERR_OK: nobody did. */
    enum err down_code;
    char why[ERR_TEXT_MAX];
};

/* --- the end ---------------------------------------------------------------------------------- */

static void disconnect(struct link *k)
{
    int fd = k->watch.fd;
    loop_timer_stop(k->loop, &k->timer);
    if (!k->watch.added)
        return;
    loop_watch_remove(k->loop, &k->watch);
    (void)close(fd);
}

static void end_attempt(struct link *k)
{
    attempt_free(k->attempt);
    k->attempt = NULL;
}

void link_fail(struct link *k, enum err code, const char *why)
{
    if (k->state == DOWN)
        return;
    disconnect(k);
    end_attempt(k);
    k->state = DOWN;
    k->down_code = code;
    if (why != k->why)
        (void)snprintf(k->why, sizeof k->why, "%s", why);
    loop_task_defer(k->loop, &k->task);
}

/* For the reason that err_fail was told. */
static void go_down(struct link *k, enum err e)
{
    link_fail(k, e, err_text());
}

static void destroy(struct link *k)
{
    buf_fini(&k->in);
    buf_fini(&k->out);
    kept_set_fini(&k->kept);
    free(k->address);
    free(k->client_name);
    free(k);
}

void link_free(struct link *k)
{
    if (k == NULL)
        return;
    disconnect(k);
    end_attempt(k);
    loop_task_cancel(&k->task);
    k->state = DOWN;
    k->freed = true; /* `in` holds the frame that its caller reads */
    if (k->in_event == 0)
        destroy(k);
}

/* After an event of the caller's. False: nothing of it may be touched any more. */
static bool still_up(struct link *k)
{
    if (k->freed && k->in_event == 0) {
        destroy(k);
        return false;
    }
    return k->state != DOWN;
}

/* --- bytes out -------------------------------------------------------------------------------- */

/* Gives memory back that one large frame needed. */
static void shrink(struct buf *b)
{
    struct buf small;
    if (b->cap <= KEEP_BYTES || b->len > KEEP_BYTES / 2)
        return;
    buf_init(&small, b->max);
    buf_put(&small, b->data, b->len);
    if (buf_status(&small) != ERR_OK) {
        buf_fini(&small);
        return;
    }
    buf_fini(b);
    *b = small;
}

static void drop_sent(struct link *k)
{
    bool all = k->sent == k->out.len;
    if (!all && k->sent < k->out.len / 2) /* so that moving the rest costs little for each byte */
        return;
    k->out_before += k->sent;
    buf_consume(&k->out, k->sent);
    k->whole -= k->sent;
    k->sent = 0;
    shrink(&k->out);
}

static void set_interest(struct link *k, uint32_t events)
{
    if (events != k->interest)
        loop_watch_change(k->loop, &k->watch, events);
    k->interest = events;
}

/* What is wrong with the socket is heard by receive(), behind all that came before: the sentence of
 * a server that closes. */
static void send_out(struct link *k)
{
    while (k->sent < k->whole) {
        ssize_t n = send(k->watch.fd, k->out.data + k->sent, k->whole - k->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        k->sent += (size_t)n;
    }
    bool blocked = k->sent < k->whole;
    drop_sent(k);
    set_interest(k, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

struct buf *link_out(struct link *k)
{
    return &k->out;
}

enum err link_send(struct link *k)
{
    enum err e = buf_status(&k->out);
    if (k->state == READY && e == ERR_OK) {
        k->whole = k->out.len;
        loop_task_defer(k->loop, &k->task);
        return ERR_OK;
    }
    k->out.failed = ERR_OK;
    k->out.len = k->whole;
    if (k->state != READY)
        return err_fail(ERR_CLOSED, "%s: there is no connection", k->address);
    if (e == ERR_TOO_BIG && k->out.max - k->whole < WIRE_FRAME_MAX + WIRE_LENGTH_BYTES)
        return err_fail(ERR_BUSY, "%s: %zu bytes wait to be sent there already", k->address,
                        k->whole - k->sent);
    if (e == ERR_TOO_BIG)
        return err_fail(e, "a request of more than %llu bytes", WIRE_FRAME_MAX);
    return err_fail(e, "%s: out of memory for a request", k->address);
}

/* Frames of the link's own: one that finds no memory is not sent. */
static bool send_own(struct link *k)
{
    return link_send(k) == ERR_OK;
}

uint64_t link_put_total(const struct link *k)
{
    return k->out_before + k->whole;
}

uint64_t link_sent_total(const struct link *k)
{
    return k->out_before + k->sent;
}

void link_ping(struct link *k)
{
    if (k->state != READY || k->ping_ns != 0)
        return;
    CHECK(k->out.len == k->whole);
    wire_put_ping(&k->out, k->ping + 1);
    if (!send_own(k))
        return;
    k->ping++;
    k->ping_ns = clock_mono_ns();
}

/* --- silence ---------------------------------------------------------------------------------- */

/* Bytes that the other end's kernel has: it may be a paused node's. */
static uint64_t acked_total(const struct link *k)
{
    int waiting = 0;
    (void)ioctl(k->watch.fd, SIOCOUTQ, &waiting); /* fails on no socket of ours; 0 is harmless */
    return link_sent_total(k) - (uint64_t)waiting;
}

static void begin_probe(struct link *k, uint64_t now)
{
    link_ping(k);
    if (k->ping_ns == 0)
        return; /* no memory: at the next step again */
    k->probe.on = true;
    k->probe.alive_ms = now;
    k->probe.ping_end = link_put_total(k);
    k->probe.acked = acked_total(k);
}

/* The PING waits behind bytes that move: the network is slow, and nobody can have answered. */
static void look_whether_it_moves(struct link *k, uint64_t now)
{
    uint64_t acked = acked_total(k);
    if (acked > k->probe.acked && acked < k->probe.ping_end)
        k->probe.alive_ms = now;
    k->probe.acked = acked;
}

/* Something lies there that this turn did not come to: the program was away, or had much to do. */
static bool something_waits(const struct link *k)
{
    char c;
    return recv(k->watch.fd, &c, 1, MSG_PEEK) >= 0 || errno != EAGAIN;
}

/* The timer, while it is READY. */
static void watch_silence(struct link *k)
{
    uint64_t now = clock_mono_ms();
    uint64_t since = k->heard_ms > k->busy_ms ? k->heard_ms : k->busy_ms;
    if (!k->busy)
        return;
    if (!k->probe.on && now < since + LINK_QUIET_MS) {
        loop_timer_set(k->loop, &k->timer, since + LINK_QUIET_MS);
        return;
    }
    if (!k->probe.on)
        begin_probe(k, now);
    else
        look_whether_it_moves(k, now);
    loop_timer_set(k->loop, &k->timer, now + SILENCE_STEP_MS);
    if (!k->probe.on || now < k->probe.alive_ms + LINK_DEAD_MS || something_waits(k))
        return;
    (void)err_fail(ERR_TIMEOUT,
                   "%s: no answer for %u ms: the node is paused, or the network is cut", k->address,
                   LINK_QUIET_MS + LINK_DEAD_MS);
    go_down(k, ERR_TIMEOUT);
}

void link_set_busy(struct link *k, bool busy)
{
    if (busy && !k->busy)
        k->busy_ms = clock_mono_ms();
    if (!busy)
        k->probe.on = false;
    k->busy = busy;
    /* Not stopped when it rests: it finds that out for itself, and most rests are short. */
    if (busy && k->state == READY && k->timer.at_ms == 0)
        loop_timer_set(k->loop, &k->timer, k->busy_ms + LINK_QUIET_MS);
}

/* --- bytes in --------------------------------------------------------------------------------- */

static void note_round_trip(struct link *k)
{
    uint64_t ns = clock_mono_ns() - k->ping_ns;
    k->rtt_ns = k->rtt_ns == 0 ? ns : (7 * k->rtt_ns + ns) / 8; /* as TCP does: RFC 6298 */
    k->ping_ns = 0;
}

/* The server ends the connection, with a sentence: without what could move a terminal's cursor. */
static enum err heard_error(struct link *k, struct wire_frame *f)
{
    struct wire_error x;
    char text[300];
    size_t n = 0;
    enum err e = wire_get_error(f, &x);
    if (e != ERR_OK && k->state == GREETING) /* the type fits, the rest does not */
        return err_fail(ERR_VERSION, "%s speaks another version of the protocol, this library %u",
                        k->address, WIRE_VERSION);
    TRY(e);
    for (; n < x.message_len && n + 1 < sizeof text; n++)
        text[n] = (uint8_t)x.message[n] < ' ' || x.message[n] == 0x7f ? '?' : x.message[n];
    text[n] = '\0';
    go_down(k, err_fail(x.code, "%s: %s", k->address, text));
    return ERR_OK;
}

/* The first frame. */
static enum err heard_greeting(struct link *k, struct wire_frame *f)
{
    struct wire_welcome w;
    if (f->type == WIRE_ERROR && f->id.stream == 0)
        return heard_error(k, f);
    if (f->type != WIRE_WELCOME)
        return greeting_of_stranger(k->address, k->in.data, k->in.len);
    enum err e = wire_get_welcome(f, &w);
    if (e == ERR_VERSION)
        return err_fail(e, "%s speaks version %u of the protocol, this library speaks %u",
                        k->address, w.version, WIRE_VERSION);
    TRY(e);
    note_round_trip(k);
    loop_timer_stop(k->loop, &k->timer);
    end_attempt(k);
    k->state = READY;
    if (k->busy)
        loop_timer_set(k->loop, &k->timer, k->heard_ms + LINK_QUIET_MS);
    k->in_event++;
    k->events.on_ready(k->events.ctx, &w);
    k->in_event--;
    return ERR_OK;
}

static enum err heard_frame(struct link *k, struct wire_frame *f)
{
    struct wire_frame again = *f;
    struct wire_pong p;
    if (f->type == WIRE_ERROR && f->id.stream == 0)
        return heard_error(k, f);
    if (f->type == WIRE_WELCOME || f->type < WIRE_WELCOME)
        return err_fail(ERR_PROTOCOL, "a frame of type %d", (int)f->type);
    if (f->type == WIRE_PONG)
        TRY(wire_get_pong(&again, &p));
    if (f->type == WIRE_PONG && k->ping_ns != 0 && f->id.request == k->ping)
        note_round_trip(k);
    k->in_event++;
    k->events.on_frame(k->events.ctx, f);
    k->in_event--;
    return ERR_OK;
}

/* A frame that is none, or not as it should be. */
static void broke_protocol(struct link *k, enum err e)
{
    char what[ERR_TEXT_MAX];
    if (k->state == GREETING && (e == ERR_PROTOCOL || e == ERR_TOO_BIG)) {
        go_down(k, greeting_of_stranger(k->address, k->in.data, k->in.len));
        return;
    }
    (void)snprintf(what, sizeof what, "%s", err_text());
    if (e == ERR_PROTOCOL || e == ERR_TOO_BIG)
        e = err_fail(ERR_PROTOCOL, "%s broke the protocol: %s", k->address, what);
    go_down(k, e);
}

/* False: it is down or gone. */
static bool handle_frames(struct link *k)
{
    size_t at = 0;
    for (;;) {
        struct wire_frame f;
        size_t used;
        size_t max = k->state == GREETING ? GREETING_MAX : WIRE_FRAME_MAX;
        enum err e = ERR_PROTOCOL;
        if (k->state != GREETING || greeting_may_follow(k->in.data, k->in.len))
            e = wire_next(k->in.data + at, k->in.len - at, max, &f, &used);
        if (e == ERR_OK && used == 0)
            break;
        if (e == ERR_OK)
            e = k->state == GREETING ? heard_greeting(k, &f) : heard_frame(k, &f);
        if (!still_up(k))
            return false;
        if (e != ERR_OK) {
            broke_protocol(k, e);
            return false;
        }
        at += used;
    }
    buf_consume(&k->in, at);
    shrink(&k->in);
    return true;
}

/* Who accepted it said nothing, or left: the name's next address may be better. If nobody accepts
 * there, this is what the caller hears of. */
static void try_next_address(struct link *k, enum err e)
{
    disconnect(k);
    k->state = CONNECTING;
    k->down_code = e;
    (void)snprintf(k->why, sizeof k->why, "%s", err_text());
    attempt_next(k->attempt, e);
}

/* The greeting ended with recv's N. */
static enum err left_early(const struct link *k, ssize_t n)
{
    if (k->in.len > 0)
        return greeting_cut_short(k->address, k->in.data, k->in.len, "closed the connection");
    if (n < 0 && errno != ECONNRESET)
        return err_fail(ERR_CLOSED, "%s: the connection broke: %s", k->address, strerror(errno));
    return err_fail(ERR_CLOSED,
                    "%s accepted the connection and closed it before it said anything: it is no "
                    "Lectern server, or a proxy whose server is down",
                    k->address);
}

/* The connection ended with recv's N. */
static void lost(struct link *k, ssize_t n)
{
    if (k->state == GREETING)
        try_next_address(k, left_early(k, n));
    else if (n == 0)
        go_down(k, err_fail(ERR_CLOSED, "%s closed the connection", k->address));
    else
        go_down(k,
                err_fail(ERR_CLOSED, "%s: the connection broke: %s", k->address, strerror(errno)));
}

/* False: it is down or gone, or connects anew. */
static bool receive(struct link *k)
{
    for (int i = 0; i < READS_OF_TURN; i++) {
        void *to = buf_extend(&k->in, READ_BYTES);
        if (to == NULL) {
            go_down(k, err_fail(ERR_NOMEM, "%s: out of memory for its answer", k->address));
            return false;
        }
        ssize_t n = recv(k->watch.fd, to, READ_BYTES, 0);
        k->in.len -= READ_BYTES - (n > 0 ? (size_t)n : 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n <= 0) {
            lost(k, n);
            return false;
        }
        k->heard_ms = clock_mono_ms();
        k->probe.on = false;
        if (!handle_frames(k))
            return false;
        if ((size_t)n < READ_BYTES)
            return true;
    }
    return true;
}

/* Until the time that it had for WELCOME was over. */
static enum err said_too_little(const struct link *k)
{
    if (k->in.len > 0)
        return greeting_cut_short(k->address, k->in.data, k->in.len, "said no more");
    return err_fail(ERR_TIMEOUT,
                    "%s accepted the connection but said nothing: the node is paused, or it is no "
                    "Lectern server",
                    k->address);
}

/* --- connecting ------------------------------------------------------------------------------- */

static void on_connected(void *ctx, int fd, uint64_t until_ms)
{
    struct link *k = ctx;
    enum err e = loop_watch_add(k->loop, &k->watch, fd, EPOLLIN);
    if (e != ERR_OK) {
        (void)close(fd);
        go_down(k, e);
        return;
    }
    k->interest = EPOLLIN;
    k->state = GREETING;
    k->accepted = true;
    loop_timer_set(k->loop, &k->timer, until_ms);
    buf_reset(&k->in);
    buf_reset(&k->out);
    k->sent = 0;
    wire_put_hello(&k->out, k->client_name, "");
    if (buf_status(&k->out) != ERR_OK) {
        go_down(k, err_fail(ERR_NOMEM, "%s: out of memory for HELLO", k->address));
        return;
    }
    k->whole = k->out.len;
    k->ping_ns = clock_mono_ns();
    send_out(k);
}

static void on_failed(void *ctx, enum err e)
{
    struct link *k = ctx;
    if (k->down_code == ERR_OK || e == ERR_NOMEM)
        go_down(k, e);
    else
        link_fail(k, k->down_code, k->why);
}

/* --- from the loop ---------------------------------------------------------------------------- */

#define LINK_OF(part, member)                                                                      \
    ((struct link *)(void *)((char *)(part)-offsetof(struct link, member)))

static void on_socket(struct loop_watch *w, uint32_t events)
{
    struct link *k = LINK_OF(w, watch);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !receive(k))
        return;
    if ((events & EPOLLOUT) != 0)
        send_out(k);
}

static void on_timer(struct loop_timer *t)
{
    struct link *k = LINK_OF(t, timer);
    if (k->state == READY)
        watch_silence(k);
    else
        try_next_address(k, said_too_little(k));
}

static void on_task(struct loop_task *t)
{
    struct link *k = LINK_OF(t, task);
    if (k->state == READY)
        send_out(k);
    else if (k->state == DOWN)
        k->events.on_down(k->events.ctx, k->down_code, k->why);
}

/* --- the rest --------------------------------------------------------------------------------- */

enum err link_new(struct loop *l, const char *address, const char *client_name,
                  const struct link_events *events, struct link **out)
{
    struct link *k = calloc(1, sizeof *k);
    *out = NULL;
    if (k == NULL)
        return err_fail(ERR_NOMEM, "out of memory for a connection to %.300s", address);
    k->loop = l;
    k->events = *events;
    k->watch.ready = on_socket;
    k->timer.fire = on_timer;
    k->task.run = on_task;
    buf_init(&k->in, WIRE_FRAME_MAX + WIRE_LENGTH_BYTES + READ_BYTES);
    buf_init(&k->out, LINK_OUT_MAX);
    k->address = strdup(address);
    k->client_name = strdup(client_name);
    struct attempt_events heard = {.ctx = k, .on_connected = on_connected, .on_failed = on_failed};
    enum err e;
    if (k->address == NULL || k->client_name == NULL)
        e = err_fail(ERR_NOMEM, "out of memory for a connection to %.300s", address);
    else
        e = attempt_new(l, address, clock_mono_ms() + LINK_CONNECT_MS, &heard, &k->attempt);
    if (e != ERR_OK) {
        link_free(k);
        return e;
    }
    *out = k;
    return ERR_OK;
}

bool link_is_ready(const struct link *k)
{
    return k->state == READY;
}

bool link_was_accepted(const struct link *k)
{
    return k->accepted;
}

const char *link_address(const struct link *k)
{
    return k->address;
}

uint64_t link_rtt_us(const struct link *k)
{
    return (k->rtt_ns + 999) / 1000;
}

bool link_keeps(const struct link *k, uint32_t keep)
{
    return kept_set_has(&k->kept, keep);
}

bool link_keep(struct link *k, uint32_t keep, size_t sql_len)
{
    return kept_set_add(&k->kept, keep, sql_len);
}

void link_forget(struct link *k, uint32_t keep)
{
    if (!kept_set_remove(&k->kept, keep) || k->state != READY)
        return;
    CHECK(k->out.len == k->whole);
    wire_put_forget(&k->out, keep);
    /* Without memory for it the other end keeps a text that nobody asks for, and our count of its
     * room is wrong by one. */
    (void)send_own(k);
}
