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
 * Not here: what frames mean (call.c), when to try again (members.c), how it comes about
 * (link_dial.c), whether a node is silent (link_silence.c). */
#include "client/link_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "client/link_greeting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES    65536u
#define READS_OF_TURN 16       /* then the other descriptors have their turn */
#define KEEP_BYTES    KIB(256) /* of memory, when a buffer has become nearly empty */

/* --- the end ---------------------------------------------------------------------------------- */

void link_disconnect(struct link *k)
{
    int fd = k->watch.fd;
    loop_timer_stop(k->loop, &k->timer);
    if (!k->watch.added)
        return;
    loop_watch_remove(k->loop, &k->watch);
    (void)close(fd);
}

void link_end_attempt(struct link *k)
{
    attempt_free(k->attempt);
    k->attempt = NULL;
}

void link_fail(struct link *k, enum err code, const char *why)
{
    if (k->state == DOWN)
        return;
    link_disconnect(k);
    link_end_attempt(k);
    k->state = DOWN;
    k->down_code = code;
    if (why != k->why)
        (void)snprintf(k->why, sizeof k->why, "%s", why);
    loop_task_defer(k->loop, &k->task);
}

void link_go_down(struct link *k, enum err e)
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
    link_disconnect(k);
    link_end_attempt(k);
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
void link_send_out(struct link *k)
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

/* --- bytes in --------------------------------------------------------------------------------- */

void link_note_round_trip(struct link *k)
{
    uint64_t ns = clock_mono_ns() - k->ping_ns;
    k->rtt_ns = k->rtt_ns == 0 ? ns : (7 * k->rtt_ns + ns) / 8; /* as TCP does: RFC 6298 */
    k->ping_ns = 0;
}

/* The server ends the connection, with a sentence: without what could move a terminal's cursor. */
enum err link_heard_error(struct link *k, struct wire_frame *f)
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
    link_go_down(k, err_fail(x.code, "%s: %s", k->address, text));
    return ERR_OK;
}

static enum err heard_frame(struct link *k, struct wire_frame *f)
{
    struct wire_frame again = *f;
    struct wire_pong p;
    if (f->type == WIRE_ERROR && f->id.stream == 0)
        return link_heard_error(k, f);
    if (f->type == WIRE_WELCOME || f->type < WIRE_WELCOME)
        return err_fail(ERR_PROTOCOL, "a frame of type %d", (int)f->type);
    if (f->type == WIRE_PONG)
        TRY(wire_get_pong(&again, &p));
    if (f->type == WIRE_PONG && k->ping_ns != 0 && f->id.request == k->ping)
        link_note_round_trip(k);
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
        link_go_down(k, greeting_of_stranger(k->address, k->in.data, k->in.len));
        return;
    }
    (void)snprintf(what, sizeof what, "%s", err_text());
    if (e == ERR_PROTOCOL || e == ERR_TOO_BIG)
        e = err_fail(ERR_PROTOCOL, "%s broke the protocol: %s", k->address, what);
    link_go_down(k, e);
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
            e = k->state == GREETING ? link_heard_greeting(k, &f) : heard_frame(k, &f);
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

/* The connection ended with recv's N. */
static void lost(struct link *k, ssize_t n)
{
    if (k->state == GREETING)
        link_left_early(k, n);
    else if (n == 0)
        link_go_down(k, err_fail(ERR_CLOSED, "%s closed the connection", k->address));
    else
        link_go_down(
            k, err_fail(ERR_CLOSED, "%s: the connection broke: %s", k->address, strerror(errno)));
}

/* False: it is down or gone, or connects anew. */
static bool receive(struct link *k)
{
    for (int i = 0; i < READS_OF_TURN; i++) {
        void *to = buf_extend(&k->in, READ_BYTES);
        if (to == NULL) {
            link_go_down(k, err_fail(ERR_NOMEM, "%s: out of memory for its answer", k->address));
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

/* --- from the loop ---------------------------------------------------------------------------- */

#define LINK_OF(part, member)                                                                      \
    ((struct link *)(void *)((char *)(part)-offsetof(struct link, member)))

static void on_socket(struct loop_watch *w, uint32_t events)
{
    struct link *k = LINK_OF(w, watch);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !receive(k))
        return;
    if ((events & EPOLLOUT) != 0)
        link_send_out(k);
}

static void on_timer(struct loop_timer *t)
{
    struct link *k = LINK_OF(t, timer);
    if (k->state == READY)
        link_watch_silence(k);
    else
        link_said_too_little(k);
}

static void on_task(struct loop_task *t)
{
    struct link *k = LINK_OF(t, task);
    if (k->state == READY)
        link_send_out(k);
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
    enum err e;
    if (k->address == NULL || k->client_name == NULL)
        e = err_fail(ERR_NOMEM, "out of memory for a connection to %.300s", address);
    else
        e = link_dial(k);
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

uint64_t link_heard_ms(const struct link *k)
{
    return k->heard_ms;
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
