/* Room: node. Thread: loop.
 *
 *   transaction open?  -> where it lives (lane or upstream)
 *   read               -> level: any | session: published >= seen | bounded, strong: ReadIndex,
 * applied
 *                         -> readers (which hand back what is not read-only) -> write
 *   write              -> lane here | upstream to the leader | wait for a leader, with an end */
#include "node/route.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/admin.h"
#include "node/disk_watch.h"
#include "node/fetch.h"
#include "node/gossip.h"
#include "node/image.h"
#include "node/meters.h"
#include "node/read_txn.h"
#include "node/status.h"
#include "node/upstream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* A client may ask for more time than statement-timeout, but not for ever: what runs or waits for
 * its client holds a place that others need. */
#define TIMEOUT_MS_MAX (24ull * 60 * 60 * 1000)

/* A read that must be at least as new as its beginning. */
struct strong_read {
    struct list link; /* of node.wait_reads */
    struct cns_read read;
    struct session *session;
    struct request *request;
    uint64_t began_ms, index;
    bool asked; /* the index is known: waits until it is applied */
};

static void fail(struct session *s, enum err code, const char *sentence) ON_LOOP
{
    request_fail(s->current, code, sentence);
    s->current->answer.in_transaction = s->home != HOME_NONE;
    session_answer(s, s->current);
}

/* --- reads --- */

static void run_read(struct session *s, struct request *r) ON_LOOP
{
    s->at = AT_READER;
    readers_run(s->node->readers, r);
}

/* What R's client has seen, or R's session by requests sent ahead. */
static uint64_t wanted_seq(const struct session *s, const struct request *r) ON_LOOP
{
    return r->query.min_seq > s->seen_seq ? r->query.min_seq : s->seen_seq;
}

static void read_when_seen(struct session *s, struct request *r) ON_LOOP
{
    struct node *n = s->node;
    if (repl_db_published(lane_db(n->lane)) >= wanted_seq(s, r))
        run_read(s, r);
    else
        list_push_back(&n->wait_seq, &r->letter.link);
}

static void drop_strong(struct strong_read *w) ON_LOOP
{
    if (!w->asked)
        cns_read_cancel(w->session->node->cns, &w->read);
    list_remove(&w->link);
    free(w);
}

static void run_strong(struct strong_read *w) ON_LOOP
{
    struct session *s = w->session;
    struct request *r = w->request;
    if (w->began_ms > s->node->vouched_ms)
        s->node->vouched_ms = w->began_ms;
    drop_strong(w);
    read_when_seen(s, r);
}

static void on_read_index(struct cns_read *read, enum err e, uint64_t index)
{
    struct strong_read *w = read->ctx;
    struct session *s = w->session;
    struct request *r = w->request;
    thread_expect_loop();
    w->asked = true;
    w->index = index;
    if (e == ERR_OK) {
        if (index <= s->node->applied_index)
            run_strong(w);
        return;
    }
    drop_strong(w);
    if (clock_mono_ms() > s->give_up_ms)
        fail(s, e, "no majority confirmed the leader in time: nobody knows how old this read is");
    else
        list_push_back(&s->node->wait_leader, &r->letter.link); /* and ask again */
}

static void ask_strong(struct session *s, struct request *r) ON_LOOP
{
    struct strong_read *w = MEM_NEW(struct strong_read);
    uint64_t now = clock_mono_ms();
    w->session = s;
    w->request = r;
    w->began_ms = now;
    w->read.ctx = w;
    w->read.done = on_read_index;
    list_init(&w->read.link);
    list_push_back(&s->node->wait_reads, &w->link);
    cns_read_index(s->node->cns, &w->read, s->give_up_ms > now ? s->give_up_ms - now : 1);
}

static void route_read(struct session *s, struct request *r) ON_LOOP
{
    struct node *n = s->node;
    if (n->began_empty && !n->accepted) { /* it may be a wiped node, which the others refuse */
        list_push_back(&n->wait_leader, &r->letter.link);
        return;
    }
    switch (r->query.level) {
    case WIRE_ANY:
        run_read(s, r);
        return;
    case WIRE_SESSION:
        read_when_seen(s, r);
        return;
    case WIRE_BOUNDED:
        if (n->vouched_ms != 0 && clock_mono_ms() <= n->vouched_ms + r->query.bound_ms)
            read_when_seen(s, r);
        else
            ask_strong(s, r);
        return;
    case WIRE_STRONG:
        ask_strong(s, r);
        return;
    }
    UNREACHABLE("the decoder checked the level");
}

/* --- writes --- */

/* The disk is nearly full: no write is begun. A COMMIT is let through, for what the transaction
 * needs is what the reserve is for; and what only looks like a read is told by the lane. */
static bool refuse_write(struct session *s, struct request *r) ON_LOOP
{
    char sentence[ERR_TEXT_MAX];
    free(r->no_room);
    r->no_room = NULL;
    if (!disk_watch_is_low(s->node->disk))
        return false;
    disk_watch_describe(s->node->disk, sentence);
    r->no_room = r->kind == SQL_READ ? mem_strdup(sentence) : NULL;
    if (r->kind != SQL_WRITE && r->kind != SQL_ALONE)
        return false;
    fail(s, ERR_FULL, sentence);
    return true;
}

static void run_in_lane(struct session *s, struct request *r) ON_LOOP
{
    struct node *n = s->node;
    if (refuse_write(s, r))
        return;
    if (s->home == HOME_NONE && n->n_in_lane >= n->config->queue_max) {
        fail(s, ERR_BUSY, "the writer's queue is full (queue-length): try again later");
        return;
    }
    s->at = AT_LANE;
    n->n_in_lane++;
    r->letter.kind = LANE_REQUEST;
    lane_send(n->lane, &r->letter);
}

/* True: R went somewhere. */
static bool try_forward(struct session *s, struct request *r) ON_LOOP
{
    struct node *n = s->node;
    const struct gossip_news *leader = gossip_of(n->gossip, n->leader_id);
    if (r->forwarded || n->role == CNS_LEADER || leader == NULL || leader->address[0] == 0)
        return false;
    s->at = AT_UPSTREAM;
    meters_count(METER_FORWARDED, 1);
    upstream_send(s, r, n->leader_id, leader->address);
    return true;
}

/* Nobody takes it now. */
static void wait_for_leader(struct session *s, struct request *r) ON_LOOP
{
    struct node *n = s->node;
    if (r->forwarded && n->role != CNS_LEADER)
        fail(s, ERR_NOT_LEADER, "this node is not the leader");
    else
        list_push_back(&n->wait_leader, &r->letter.link);
}

void route_write(struct session *s, struct request *r)
{
    struct node *n = s->node;
    if (atomic_load_explicit(&r->cancelled, memory_order_relaxed)) { /* a reader had it till now */
        fail(s, ERR_CANCELLED, "interrupted");
        return;
    }
    if (node_is_serving(n))
        run_in_lane(s, r);
    else if (!try_forward(s, r))
        wait_for_leader(s, r);
}

/* A change of the members: the leader's, like a write. */
static void route_cluster(struct session *s, struct request *r) ON_LOOP
{
    if (s->home != HOME_NONE)
        fail(s, ERR_MISUSE, "not while a transaction is open: COMMIT or ROLLBACK first");
    else if (node_is_serving(s->node))
        admin_run(s, r);
    else if (!try_forward(s, r))
        wait_for_leader(s, r);
}
/* --- settings of the session --- */

static void answer_here(struct session *s, struct request *r) ON_LOOP
{
    r->answer.in_transaction = s->home != HOME_NONE;
    r->answer.last_insert_rowid = r->last_insert_rowid;
    session_answer(s, r);
}

/* What SQLite would say of a statement that it is not asked for: it changes nothing that the leader
 * has. COLUMN: of its rows; NULL: it has none. */
static void describe_here(struct session *s, struct request *r, const char *column) ON_LOOP
{
    struct buf columns;
    struct wire_description d = {.used = (uint32_t)r->statement.sql_len,
                                 .flags = WIRE_STATEMENT_READONLY};
    buf_init(&columns, KIB(1));
    if (column != NULL) {
        buf_put_cstr(&columns, column);
        buf_put_cstr(&columns, "");
        d.n_columns = 1;
    }
    d.params = rd_of(columns.data, 0);
    d.columns = rd_of(columns.data, columns.len);
    wire_put_description(&r->answer.out, r->id, &d);
    buf_fini(&columns);
    answer_here(s, r);
}

static void route_foreign_keys(struct session *s, struct request *r) ON_LOOP
{
    int value = sql_foreign_keys_value(r->statement.sql, r->statement.sql_len);
    if (r->is_describe) {
        describe_here(s, r, value < 0 ? "foreign_keys" : NULL);
        return;
    }
    if (value < 0) {
        struct buf *b = &r->answer.out;
        struct wire_value v = {.type = WIRE_INTEGER};
        v.integer = r->foreign_keys;
        wire_put_columns(b, r->id, &(const char *){"foreign_keys"}, 1);
        size_t begun = wire_begin(b, WIRE_ROWS, r->id);
        buf_put_u32(b, 1);
        wire_put_value(b, &v);
        wire_end(b, begun);
    } else if (s->home == HOME_NONE) { /* inside a transaction it does nothing, as in SQLite */
        r->foreign_keys = value != 0;
    }
    answer_here(s, r);
}

/* --- the door --- */

static void set_limits(struct session *s, struct request *r) ON_LOOP
{
    const struct config *c = s->node->config;
    uint64_t now = clock_mono_ms(), timeout = r->query.timeout_ms;
    if (r->cluster != NULL) {
        s->give_up_ms = r->deadline_ms = now + admin_patience_ms(r);
        return;
    }
    if (timeout > TIMEOUT_MS_MAX)
        timeout = TIMEOUT_MS_MAX;
    r->deadline_ms = now + (timeout != 0 ? timeout : c->statement_ms);
    s->give_up_ms =
        now + (timeout != 0 && timeout < c->leader_wait_ms ? timeout : c->leader_wait_ms);
}

/* A statement that this node may answer. */
static void dispatch_sql(struct session *s, struct request *r) ON_LOOP
{
    if (request_is_resolve(r) && s->home != HOME_NONE) {
        fail(s, ERR_MISUSE, "the outcome of a COMMIT cannot be asked for inside a transaction");
    } else if (request_is_resolve(r)) {
        route_write(s, r);
    } else if (s->home == HOME_NONE && (r->query.flags & WIRE_INSIDE) != 0) {
        fail(s, ERR_TXN_LOST, "the transaction that this belongs to is not open any more");
    } else if (r->kind == SQL_FOREIGN_KEYS) {
        route_foreign_keys(s, r);
    } else if (r->is_describe && read_txn_begins(r)) {
        describe_here(s, r, NULL);
    } else if (s->home == HOME_LANE) {
        run_in_lane(s, r);
    } else if (s->home == HOME_UPSTREAM) {
        s->at = AT_UPSTREAM;
        upstream_send(s, r, 0, NULL);
    } else if (s->home == HOME_SNAPSHOT) {
        read_txn_route(s, r);
    } else if (read_txn_begins(r)) {
        r->begins_snapshot = true;
        route_read(s, r);
    } else if (r->is_describe) {
        route_read(s, r);
    } else if (r->kind == SQL_EMPTY) {
        r->answer.last_insert_rowid = r->last_insert_rowid;
        session_answer(s, r);
    } else if (r->kind == SQL_READ) {
        route_read(s, r);
    } else {
        route_write(s, r);
    }
}

static void dispatch(struct session *s, struct request *r) ON_LOOP
{
    struct node *n = s->node;
    if (atomic_load_explicit(&r->cancelled, memory_order_relaxed)) { /* while it waited */
        fail(s, ERR_CANCELLED, "interrupted");
    } else if (r->answer.code != ERR_OK) { /* refused before it was read */
        r->answer.in_transaction = s->home != HOME_NONE;
        session_answer(s, r);
    } else if (r->is_status) {
        status_answer(n, r);
        r->answer.in_transaction = s->home != HOME_NONE;
        session_answer(s, r);
    } else if (n->failed) {
        session_leave_transaction(s);
        request_fail(r, ERR_STOPPED, n->failure);
        session_answer(s, r);
    } else if (n->fetch != NULL) { /* it has no database: clients go elsewhere */
        char sentence[ERR_TEXT_MAX];
        fetch_describe(n->fetch, sentence);
        request_fail(r, ERR_NOT_LEADER, sentence);
        session_answer(s, r);
    } else if (r->image_frame != 0) {
        image_run(s, r);
    } else if (r->cluster != NULL) {
        route_cluster(s, r);
    } else {
        dispatch_sql(s, r);
    }
}

void route(struct session *s, struct request *r)
{
    thread_expect_loop();
    set_limits(s, r);
    dispatch(s, r);
}

/* --- what wakes the waiting --- */

void route_leader_changed(struct node *n)
{
    admin_look(n, clock_mono_ms());
    struct list again, *i;
    list_init(&again);
    list_splice(&again, &n->wait_leader);
    while ((i = list_pop_front(&again)) != NULL) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        dispatch(r->session, r);
    }
}

void route_applied(struct node *n)
{
    if (!list_empty(&n->wait_admin))
        admin_look(n, clock_mono_ms());
    uint64_t published = repl_db_published(lane_db(n->lane));
    LIST_EACH(i, &n->wait_seq) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        if (published < wanted_seq(r->session, r))
            continue;
        list_remove(i);
        run_read(r->session, r);
    }
    LIST_EACH(i, &n->wait_reads) {
        struct strong_read *w = LIST_ENTRY(i, struct strong_read, link);
        if (w->asked && w->index <= n->applied_index)
            run_strong(w);
    }
}

/* One that fails may end others: they are looked for before. */
static void take_overdue(struct list *q, struct list *overdue, uint64_t now_ms) ON_LOOP
{
    list_init(overdue);
    LIST_EACH(it, q) {
        const struct request *r = LIST_ENTRY(it, struct request, letter.link);
        if (now_ms > r->session->give_up_ms) {
            list_remove(it);
            list_push_back(overdue, it);
        }
    }
}

static void end_overdue(struct list *q, uint64_t now_ms, enum err code,
                        const char *sentence) ON_LOOP
{
    struct list overdue, *i;
    take_overdue(q, &overdue, now_ms);
    while ((i = list_pop_front(&overdue)) != NULL)
        fail(LIST_ENTRY(i, struct request, letter.link)->session, code, sentence);
}

/* Those whose sequence this node has not reached: it may be slow, and the number may be wrong. */
static void end_behind(struct node *n, uint64_t now_ms) ON_LOOP
{
    char sentence[ERR_TEXT_MAX];
    struct list overdue, *i;
    take_overdue(&n->wait_seq, &overdue, now_ms);
    while ((i = list_pop_front(&overdue)) != NULL) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        (void)snprintf(sentence, sizeof sentence,
                       "the session's position, %" PRIu64
                       ", is newer than what this node has (%" PRIu64
                       "): the node is behind, or the position is of another cluster",
                       wanted_seq(r->session, r), repl_db_published(lane_db(n->lane)));
        fail(r->session, ERR_TIMEOUT, sentence);
    }
}

void route_timer(struct node *n, uint64_t now_ms)
{
    /* First what is overdue: a leader that cannot be reached sends its requests back here. */
    end_overdue(&n->wait_leader, now_ms, ERR_NO_LEADER,
                "the cluster has no leader now (no majority of the nodes can talk to each other?)");
    route_leader_changed(n);
    end_behind(n, now_ms);
    struct list overdue, *i;
    list_init(&overdue);
    LIST_EACH(it, &n->wait_reads) {
        struct strong_read *w = LIST_ENTRY(it, struct strong_read, link);
        if (w->asked && now_ms > w->session->give_up_ms) {
            list_remove(it);
            list_push_back(&overdue, it);
        }
    }
    while ((i = list_pop_front(&overdue)) != NULL) {
        struct strong_read *w = LIST_ENTRY(i, struct strong_read, link);
        struct session *s = w->session;
        drop_strong(w);
        fail(s, ERR_TIMEOUT, "this node is behind: it did not apply the newest entries in time");
    }
}

void route_refuse_all(struct node *n, enum err code, const char *sentence)
{
    end_overdue(&n->wait_leader, UINT64_MAX, code, sentence);
    end_overdue(&n->wait_seq, UINT64_MAX, code, sentence);
    admin_refuse_all(n, code, sentence);
    LIST_EACH(i, &n->wait_reads) {
        struct strong_read *w = LIST_ENTRY(i, struct strong_read, link);
        struct session *s = w->session;
        drop_strong(w);
        fail(s, code, sentence);
    }
}

void route_forget(struct session *s)
{
    struct request *r = s->current;
    CHECK(s->at == AT_ROUTE && r != NULL);
    list_remove(&r->letter.link);
    LIST_EACH(i, &s->node->wait_reads) {
        struct strong_read *w = LIST_ENTRY(i, struct strong_read, link);
        if (w->session == s)
            drop_strong(w);
    }
    if (s->channel != NULL && r->cluster != NULL && admin_has_begun(r))
        fail(s, ERR_UNKNOWN,
             "interrupted, but the change was begun: look at `lectern cluster list`");
    else if (s->channel != NULL)
        fail(s, ERR_CANCELLED, "interrupted");
}
