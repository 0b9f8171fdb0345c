/* Room: node. Thread: loop.
 * Invariants: at most one request of a session is under way; answers leave in the order of the
 * requests; s->at says who has the current one, and only that one may answer it. `watch` is linked
 * while frames, or a reader's statement, wait for the client.
 *
 * An answer leaves frame by frame: ROWS only while the window is above zero, nothing while the
 * connection's backlog is too long. A client that takes too little (progress.h) ends its own
 * statement. All that a session keeps is in node.waiting.
 *
 * What a client hears of a numbered write of which an attempt may have been done (`in_doubt`) is
 * the word of a leader that looked it up, or ERR_UNKNOWN; never a code that means "surely not run".
 * Not here: connections and frames (connection.c), where a request runs (route.c). */
#include "node/session.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "node/answer.h"
#include "node/channel.h"
#include "node/image.h"
#include "node/meters.h"
#include "node/read_txn.h"
#include "node/route.h"
#include "node/upstream.h"

#include <stdlib.h>

#define SEND_MAX KIB(512) /* of an answer at once, but for one longer frame */

/* Requests that wait for their turn, and bytes of those without an answer. A stream above
 * MODEST_BYTES has the first part of the connection's room, the others have all of it: a greedy one
 * takes nothing from them. One request alone always has room. */
#define QUEUE_MAX        256u
#define MODEST_BYTES     MIB(1)
#define GREEDY_BYTES_MAX MIB(128)
#define ALL_BYTES_MAX    MIB(192)
/* Answers in memory of one connection that wait for windows; one alone may be above. */
#define HELD_BYTES_MAX MIB(64)

/* --- the life of a session --- */

/* What it keeps now, in the sum of the node. */
static void count(struct session *s) ON_LOOP
{
    size_t requests = s->n_pending + (s->current != NULL);
    waiting_set(&s->node->waiting, &s->counted,
                sizeof *s + requests * sizeof(struct request) + s->request_bytes + s->held);
}

struct session *session_new(struct channel *c, uint32_t stream)
{
    struct session *s = MEM_NEW(struct session);
    s->node = c->node;
    s->channel = c;
    s->stream = stream;
    s->id = ++s->node->next_session_id;
    s->foreign_keys = true;
    s->window = WIRE_WINDOW;
    c->n_sessions++;
    list_init(&s->pending);
    list_init(&s->watch);
    list_init(&s->stall);
    list_init(&s->snapped);
    list_push_back(&s->node->sessions, &s->link);
    meters_move(METER_SESSIONS, 1);
    count(s);
    return s;
}

static void free_if_done(struct session *s) ON_LOOP
{
    if (s->channel != NULL || s->current != NULL || s->beginning)
        return;
    CHECK(s->upstream == NULL && s->snapshot == NULL && s->n_pending == 0 &&
          list_empty(&s->watch) && list_empty(&s->stall));
    waiting_set(&s->node->waiting, &s->counted, 0);
    meters_move(METER_SESSIONS, -1);
    list_remove(&s->link);
    free(s);
}

static void tell_lane(struct session *s, enum letter_kind kind) ON_LOOP
{
    struct lane_session *l = MEM_NEW(struct lane_session);
    l->letter.kind = kind;
    l->session_id = s->id;
    lane_send(s->node->lane, &l->letter);
}

/* The lane forgets the session's transaction. */
static void tell_gone(struct session *s) ON_LOOP
{
    tell_lane(s, LANE_GONE);
}

/* The client takes rows, or they wait for it: its transaction, wherever it is, is not idle. */
static void touch(struct session *s, uint64_t now_ms) ON_LOOP
{
    if (s->home == HOME_NONE || now_ms < s->touched_ms + s->node->config->txn_idle_ms / 8)
        return;
    s->touched_ms = now_ms;
    if (s->home == HOME_LANE)
        tell_lane(s, LANE_USED);
    else if (s->home == HOME_UPSTREAM)
        upstream_touch(s);
    else
        s->snapshot_used_ms = now_ms;
}

/* Accounts for what waits of the current answer. */
static void hold(struct session *s, size_t bytes) ON_LOOP
{
    s->channel->held_bytes += bytes - s->held;
    s->held = bytes;
    count(s);
}

static void drop_current(struct session *s) ON_LOOP
{
    struct request *r = s->current;
    if (r == NULL)
        return;
    atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    switch (s->at) {
    case AT_ROUTE:
        route_forget(s);
        break;
    case AT_BLOCKED: /* goes back to its reader, which ends it */
        s->at = AT_READER;
        answer_empty(&r->answer);
        readers_run(s->node->readers, r);
        return;
    case AT_UPSTREAM:
    case AT_SENDING:
        break;
    case AT_LANE:
    case AT_READER:
    case AT_IMAGE:
    case AT_NOBODY:
        return; /* comes back */
    }
    s->current = NULL;
    s->at = AT_NOBODY;
    request_free(r);
}

/* What another thread has of S takes room until it comes back: else a client that opens streams and
 * closes them could make the node hold any number of bytes. */
static void count_closed(struct session *s, struct channel *c) ON_LOOP
{
    if (s->current != NULL) {
        s->counted_at = c;
        s->request_bytes = s->current->bytes;
        c->request_bytes += s->request_bytes;
        list_push_back(&c->closed, &s->stall);
    }
    count(s);
}

void session_leave_transaction(struct session *s)
{
    upstream_close(s);
    if (s->home == HOME_LANE)
        tell_gone(s);
    if (s->at != AT_READER) /* else it is the reader's until `current` comes back */
        read_txn_leave(s);
    s->home = HOME_NONE;
}

void session_end(struct session *s)
{
    struct channel *c = s->channel;
    struct list *i;
    hold(s, 0);
    list_remove(&s->watch);
    list_remove(&s->stall);
    c->n_requests -= s->n_pending + (s->current != NULL);
    c->request_bytes -= s->request_bytes;
    s->request_bytes = 0;
    s->channel = NULL;
    c->n_sessions--;
    while ((i = list_pop_front(&s->pending)) != NULL)
        request_free(LIST_ENTRY(i, struct request, letter.link));
    s->n_pending = 0;
    image_forget(s);
    drop_current(s);
    count_closed(s, c);
    session_leave_transaction(s);
    free_if_done(s);
}

/* --- the line of requests --- */

/* One at a time, and none for a client that does not take the answers it has asked for. */
static bool may_begin(struct session *s) ON_LOOP
{
    if (s->channel == NULL || s->current != NULL || s->n_pending == 0)
        return false;
    if (!channel_is_full(s->channel))
        return true;
    channel_stall(s->channel, s);
    return false;
}

/* Begins the next request, if any. It may be answered at once, so this is a loop, not a chain of
 * calls; and it may end the connection: S may be gone afterwards. */
static void next(struct session *s) ON_LOOP
{
    if (s->beginning)
        return; /* called from the loop below */
    s->beginning = true;
    while (may_begin(s)) {
        s->current = LIST_ENTRY(list_pop_front(&s->pending), struct request, letter.link);
        s->n_pending--;
        s->at = AT_ROUTE;
        route(s, s->current);
    }
    s->beginning = false;
    free_if_done(s);
}

/* R's bytes are not needed any more. */
static void drop_query(struct session *s, struct request *r) ON_LOOP
{
    s->request_bytes -= r->bytes;
    s->channel->request_bytes -= r->bytes;
    request_drop_query(r);
}

/* The current request is over; S may be freed. */
static void finish(struct session *s, struct request *r) ON_LOOP
{
    CHECK(s->current == r);
    struct channel *c = s->channel;
    s->current = NULL;
    s->at = AT_NOBODY;
    s->ended = ERR_OK;
    list_remove(&s->watch);
    list_remove(&s->stall);
    if (c != NULL)
        drop_query(s, r);
    request_free(r);
    if (c == NULL) {
        if (s->counted_at != NULL)
            s->counted_at->request_bytes -= s->request_bytes;
        s->request_bytes = 0;
        count(s);
        free_if_done(s);
        return;
    }
    hold(s, 0);
    bool more = s->n_pending > 0;
    channel_answered(c);
    if (more) /* so C is still there */
        next(s);
}

static enum err need_room(const struct session *s, const struct request *r) ON_LOOP
{
    const struct channel *c = s->channel;
    bool modest = s->request_bytes + r->bytes <= MODEST_BYTES;
    size_t all = c->request_bytes + r->bytes;
    size_t max = modest ? ALL_BYTES_MAX : GREEDY_BYTES_MAX;
    if (s->n_pending >= QUEUE_MAX || (c->request_bytes > 0 && all > max))
        return err_fail(
            ERR_BUSY,
            "too many requests, or bytes of them, wait on this stream: read answers first");
    return channel_need_room(c, r->bytes);
}

void session_take(struct session *s, struct request *r)
{
    enum err e = r->answer.code == ERR_OK ? need_room(s, r) : ERR_OK;
    if (e != ERR_OK) {
        request_fail_text(r, e);
        request_drop_query(r);
    }
    list_push_back(&s->pending, &r->letter.link);
    s->n_pending++;
    s->request_bytes += r->bytes;
    s->channel->request_bytes += r->bytes;
    count(s);
    next(s);
}

/* --- sending --- */

static void cut_ended(const struct session *s, struct request *r) ON_LOOP
{
    if (s->ended == ERR_TIMEOUT)
        answer_cut(r, s->ended, "its client took the rows too slowly");
    else if (s->ended == ERR_CANCELLED)
        answer_cut(r, s->ended, "its client closed its side, and gave no credit for the rows");
    else if (s->ended != ERR_OK)
        answer_cut(r, s->ended,
                   "its connection, or its node (waiting-bytes), has no room for its rows");
}

/* How much of the current answer may leave now, in whole frames; the window is used up by it. */
static size_t allowed(struct session *s, const struct answer *a) ON_LOOP
{
    const struct buf *out = &a->out;
    size_t at = a->sent;
    while (at < out->len && at - a->sent < SEND_MAX) {
        size_t size = WIRE_LENGTH_BYTES + get_le32(out->data + at);
        if (out->data[at + WIRE_LENGTH_BYTES] == WIRE_ROWS) {
            if (s->window <= 0)
                break;
            s->window -= (int64_t)size;
        }
        at += size;
    }
    CHECK(at <= out->len);
    return at - a->sent;
}

/* The next N bytes, of which at least one frame is left behind them, or was before. */
static void send_part(struct session *s, struct answer *a, size_t n) ON_LOOP
{
    struct buf some;
    buf_init(&some, n);
    buf_put(&some, a->out.data + a->sent, n);
    CHECK(buf_status(&some) == ERR_OK);
    channel_send(s->channel, &some);
    buf_fini(&some);
    a->sent += n;
    if (a->sent == a->out.len)
        answer_empty(a);
    else
        answer_forget_sent(a);
}

/* Is the current answer, or the part of it that is here, too long for the room of the node? */
static bool lacks_room(const struct session *s) ON_LOOP
{
    size_t bytes = s->current->answer.out.len;
    return bytes > s->held + WAITING_SHARE &&
           channel_need_room(s->channel, bytes - s->held) != ERR_OK;
}

static bool send_while_taken(struct session *s) ON_LOOP
{
    struct answer *a = &s->current->answer;
    while (a->out.len > 0) {
        if (channel_is_full(s->channel)) {
            channel_stall(s->channel, s);
            return false;
        }
        size_t n = allowed(s, a);
        if (n == 0)
            return false;
        if (n == a->out.len)
            channel_send(s->channel, &a->out);
        else
            send_part(s, a, n);
    }
    return true;
}

/* Sends what may be sent of the current answer. True: nothing of it is left. */
static bool send_some(struct session *s) ON_LOOP
{
    if (lacks_room(s)) /* the backlog is as much in memory as what waits here */
        return false;
    s->sending = true;
    bool all = send_while_taken(s);
    s->sending = false;
    return all;
}

/* The current request waits for its client from now on, if it did not yet. */
static void watch(struct session *s) ON_LOOP
{
    if (!list_empty(&s->watch))
        return;
    list_push_back(&s->node->watched, &s->watch);
    progress_begin(&s->takes, s->credited, clock_mono_ms());
}

/* May all that is left of the current answer wait? */
static enum err need_to_hold(const struct session *s) ON_LOOP
{
    size_t bytes = s->current->answer.out.len, others = s->channel->held_bytes - s->held;
    if (bytes <= s->held)
        return ERR_OK;
    if (others > 0 && others + bytes > HELD_BYTES_MAX)
        return err_fail(ERR_BUSY,
                        "this connection's streams hold too many answers that it does not take");
    return channel_need_room(s->channel, bytes - s->held);
}

/* The current request is answered, and its answer has its end: sends what may be sent. */
static void send_answer(struct session *s) ON_LOOP
{
    struct request *r = s->current;
    s->at = AT_SENDING;
    bool sent = send_some(s);
    enum err e = !sent && r->answer.code == ERR_OK ? need_to_hold(s) : ERR_OK;
    if (e != ERR_OK) {
        answer_cut(r, e, err_text());
        answer_put_end(r);
        meters_error(r->answer.code);
        sent = send_some(s);
    }
    if (sent) {
        finish(s, r);
        return;
    }
    hold(s, r->answer.out.len);
    drop_query(s, r);
    watch(s);
}

/* --- answers --- */

/* This node could not: nothing was done, or R's number makes another attempt harmless. */
static bool runs_elsewhere(const struct session *s, const struct request *r) ON_LOOP
{
    bool lost = r->answer.code == ERR_NOT_LEADER ||
                (r->answer.code == ERR_UNKNOWN && request_is_numbered(r) && !r->answer.settled);
    return lost && !r->forwarded && s->home == HOME_NONE && s->node->fetch == NULL;
}

/* True: R is on its way again. */
static bool try_again(struct session *s, struct request *r) ON_LOOP
{
    if (r->answer.not_read_only) {
        request_clear_answer(r);
        s->at = AT_ROUTE;
        route_write(s, r);
        return true;
    }
    if (!runs_elsewhere(s, r))
        return false;
    r->in_doubt = r->in_doubt || r->answer.code == ERR_UNKNOWN;
    if (clock_mono_ms() > s->give_up_ms) {
        request_fail(r, ERR_NO_LEADER, "the leader could not be reached in time");
        return false;
    }
    request_clear_answer(r);
    s->at = AT_ROUTE;
    list_push_back(&s->node->wait_leader, &r->letter.link);
    return true;
}

/* What the session carries from R on. */
static void note_state(struct session *s, struct request *r) ON_LOOP
{
    struct answer *a = &r->answer;
    bool ran = !r->is_status && !r->is_describe && r->cluster == NULL && r->image_frame == 0;
    if (s->at == AT_UPSTREAM)
        s->home = a->in_transaction ? HOME_UPSTREAM : HOME_NONE;
    else if (s->at == AT_LANE)
        s->home = a->in_transaction ? HOME_LANE : HOME_NONE;
    else if (s->at == AT_READER)
        s->home = a->in_transaction ? HOME_SNAPSHOT : HOME_NONE;
    if (ran && a->code == ERR_OK)
        s->last_insert_rowid = a->last_insert_rowid;
    else
        a->last_insert_rowid = s->last_insert_rowid;
    s->foreign_keys = r->foreign_keys;
    if (a->seq > s->seen_seq)
        s->seen_seq = a->seq;
}

static enum meter_request kind_of(const struct request *r) ON_LOOP
{
    if (r->is_status)
        return METER_STATUS;
    if (r->cluster != NULL)
        return METER_CLUSTER;
    if (r->image_frame != 0)
        return METER_IMAGE;
    if (r->is_describe)
        return METER_DESCRIBE;
    if (r->is_batch)
        return METER_BATCH;
    return r->kind == SQL_READ          ? METER_READ
           : r->kind == SQL_TRANSACTION ? METER_TRANSACTION
                                        : METER_WRITE;
}

/* R is answered, as far as this node has to do with it. */
static void meter(const struct session *s, const struct request *r) ON_LOOP
{
    enum meter_door door = r->forwarded ? METER_NODE : s->channel->door;
    meters_request(door, kind_of(r), clock_mono_ns() - r->came_ns);
    if (r->answer.code != ERR_OK)
        meters_error(r->answer.code);
}

void session_answer(struct session *s, struct request *r)
{
    CHECK(s->current == r && r->session == s);
    if (s->at == AT_LANE)
        s->node->n_in_lane--;
    if (s->at == AT_READER)
        read_txn_note(s, r);
    if (s->channel == NULL) {
        if (r->answer.in_transaction && s->at == AT_LANE)
            tell_gone(s);
        read_txn_leave(s);
        finish(s, r);
        return;
    }
    hold(s, 0); /* of what was relayed; what waits from now on is counted when it does */
    if (s->at == AT_UPSTREAM && !r->answer.in_transaction)
        upstream_release(s);
    if (try_again(s, r))
        return;
    note_state(s, r);
    cut_ended(s, r);
    answer_admit_doubt(r);
    answer_name_node(r, s->node->config->id);
    answer_put_end(r);
    meter(s, r);
    send_answer(s);
}

static void resume(struct session *s) ON_LOOP;

void session_rows(struct session *s, struct request *r)
{
    CHECK(s->current == r && s->at == AT_READER);
    if (s->channel == NULL) {
        answer_empty(&r->answer);
        readers_run(s->node->readers, r); /* it is cancelled, and comes back */
        return;
    }
    s->at = AT_BLOCKED;
    s->blocked_ms = clock_mono_ms();
    resume(s);
}

static void end_statement(struct session *s, enum err why) ON_LOOP;

void session_relay(struct session *s)
{
    CHECK(s->at == AT_UPSTREAM && s->channel != NULL);
    struct buf *out = &s->current->answer.out;
    if (s->ended != ERR_OK)
        answer_empty(&s->current->answer);
    bool sent = send_some(s);
    enum err e = sent ? ERR_OK : need_to_hold(s);
    hold(s, out->len);
    if (!sent && e == ERR_OK) {
        watch(s);
        return;
    }
    if (sent)
        list_remove(&s->watch);
    else
        end_statement(s, e);
}

/* Its reader goes on. */
static void unblock(struct session *s) ON_LOOP
{
    struct request *r = s->current;
    if (s->channel->judged && r->deadline_ms != 0) /* its client's time is its client's */
        r->deadline_ms += clock_mono_ms() - s->blocked_ms;
    list_remove(&s->watch);
    list_remove(&s->stall);
    hold(s, 0);
    s->at = AT_READER;
    answer_empty(&r->answer);
    readers_run(s->node->readers, r);
}

static void resume(struct session *s) ON_LOOP
{
    switch (s->at) {
    case AT_BLOCKED:
        if (send_some(s) && s->window > 0 && !channel_is_full(s->channel)) {
            unblock(s);
            return;
        }
        if (lacks_room(s)) {
            end_statement(s, ERR_BUSY);
            return;
        }
        hold(s, s->current->answer.out.len);
        watch(s);
        if (channel_is_full(s->channel))
            channel_stall(s->channel, s);
        return;
    case AT_SENDING:
        send_answer(s);
        return;
    case AT_UPSTREAM:
        upstream_resume(s);
        return;
    case AT_NOBODY:
        next(s);
        return;
    case AT_ROUTE:
    case AT_LANE:
    case AT_READER:
    case AT_IMAGE:
        return;
    }
}

void session_resume(struct session *s)
{
    progress_begin(&s->takes, s->credited, clock_mono_ms()); /* the connection's delay is over */
    resume(s);
}

/* --- what the client says of a request under way --- */

enum err session_credit(struct session *s, uint32_t bytes)
{
    if (s->window + bytes > WIRE_WINDOW_MAX)
        return err_fail(ERR_PROTOCOL, "stream %u is given credit beyond %u bytes", s->stream,
                        WIRE_WINDOW_MAX);
    s->window += bytes;
    s->credited += bytes;
    touch(s, clock_mono_ms());
    if (bytes > 0 && !s->sending && !list_empty(&s->watch) && list_empty(&s->stall))
        resume(s);
    return ERR_OK;
}

/* All that may run is among the first QUEUE_MAX; behind them there may be very many more, which are
 * refused already (session_take), and a client may send a CANCEL for each of them. */
static void cancel_pending(struct session *s, uint32_t request) ON_LOOP
{
    unsigned seen = 0;
    LIST_EACH(i, &s->pending) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        if (seen++ == QUEUE_MAX)
            return;
        if (r->id.request == request)
            atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    }
}

void session_cancel(struct session *s, uint32_t request)
{
    struct request *r = s->current;
    if (r == NULL || r->id.request != request) { /* those that wait end when their turn comes */
        cancel_pending(s, request);
        return;
    }
    atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    if (s->at == AT_UPSTREAM) {
        upstream_cancel(s);
    } else if (s->at == AT_ROUTE) {
        route_forget(s);
    } else if (s->at == AT_BLOCKED) { /* its reader ends it */
        unblock(s);
    } else if (s->at == AT_SENDING && r->answer.code == ERR_OK) {
        answer_cut(r, ERR_CANCELLED, "interrupted");
        answer_put_end(r);
        send_answer(s);
    }
}

/* --- clients that take nothing --- */

/* Its statement ends, whatever became of it. A reader's keeps a connection, and an old snapshot. */
static void end_statement(struct session *s, enum err why) ON_LOOP
{
    struct request *r = s->current;
    s->ended = why;
    atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    if (s->at == AT_BLOCKED) {
        unblock(s);
    } else if (s->at == AT_UPSTREAM) {
        list_remove(&s->watch);
        list_remove(&s->stall);
        answer_empty(&r->answer);
        upstream_resume(s);
        upstream_cancel(s);
    } else if (r->answer.code == ERR_OK) {
        cut_ended(s, r);
        answer_put_end(r);
        send_answer(s);
    }
}

static void watch_timer(struct session *s, uint64_t now_ms) ON_LOOP
{
    const struct request *r = s->current;
    if (s->ended != ERR_OK)
        return;
    touch(s, now_ms);
    /* While the connection is full its own timer judges the client. */
    bool waits = list_empty(&s->stall); /* for credit */
    bool judges = !s->channel->judged;
    bool silent = judges && waits && progress_stopped(&s->takes, s->credited, now_ms);
    bool late = judges && s->at == AT_BLOCKED && now_ms > r->deadline_ms;
    if (waits && s->channel->no_credit)
        end_statement(s, ERR_CANCELLED);
    else if (silent || late)
        end_statement(s, ERR_TIMEOUT);
    else if (s->at == AT_BLOCKED && atomic_load_explicit(&r->cancelled, memory_order_relaxed))
        unblock(s); /* it held the WAL back (reader_watch.c): its reader ends it */
}

void sessions_timer(struct node *n, uint64_t now_ms)
{
    struct list all, *i;
    list_init(&all);
    list_splice(&all, &n->watched);
    while ((i = list_pop_front(&all)) != NULL) {
        list_push_back(&n->watched, i);
        watch_timer(LIST_ENTRY(i, struct session, watch), now_ms);
    }
}
