/* Room: node. Thread: owner.
 *
 * Interactive transactions: BEGIN ... COMMIT over several requests. Each has a connection of its
 * own over the writer's view from BEGIN on, and holds the lane (nobody else writes) from its first
 * write on, as in SQLite. Two limits end it: idle time and total time. What a client saw inside one
 * is answered only when it is published, like everything else.
 *
 *   (none) --BEGIN--> reading --first write--> writing (l->holder) --COMMIT--> (none)
 *                        |                         |
 *                        +--- limit, lost leader --+--> lost --next request--> (none)
 */
#include "node/lane_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/meters.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIVEN_UP "the transaction was rolled back: its client gave it up over another connection"

static struct itxn *find(struct lane *l, uint64_t session_id) ON_OWNER
{
    LIST_EACH(i, &l->itxns) {
        struct itxn *t = LIST_ENTRY(i, struct itxn, link);
        if (t->session_id == session_id)
            return t;
    }
    return NULL;
}

unsigned lane_open_transactions(const struct lane *l)
{
    unsigned n = 0;
    LIST_EACH(i, &l->itxns)
        n += LIST_ENTRY(i, struct itxn, link)->conn != NULL;
    return n;
}

bool lane_has_transaction(struct lane *l, uint64_t session_id)
{
    return find(l, session_id) != NULL;
}

bool lane_is_holder(struct lane *l, const struct request *r)
{
    return l->holder != NULL && l->holder->session_id == r->session_id;
}

static enum err take_conn(struct lane *l, struct sqlconn **out) ON_OWNER
{
    if (l->n_idle_conns > 0) {
        *out = l->idle_conns[--l->n_idle_conns];
        return ERR_OK;
    }
    sqlite3 *conn;
    TRY(repl_view_connect(l->view, &conn));
    *out = sqlconn_new(conn, lane_tick, l);
    return ERR_OK;
}

static void give_conn(struct lane *l, struct sqlconn *conn) ON_OWNER
{
    sqlite3 *handle = sqlconn_handle(conn);
    if (!sqlite3_get_autocommit(handle))
        (void)sqlconn_exec(conn, "ROLLBACK");
    CHECK(sqlite3_get_autocommit(handle));
    if (l->n_idle_conns < IDLE_CONNS_MAX)
        l->idle_conns[l->n_idle_conns++] = conn;
    else
        sqlconn_close(conn);
}

/* Rolls back and gives the lane free. */
static void release(struct lane *l, struct itxn *t) ON_OWNER
{
    if (t->conn == NULL)
        return;
    if (l->holder == t)
        l->holder = NULL;
    give_conn(l, t->conn);
    t->conn = NULL;
    meters_move(METER_TRANSACTIONS, -1);
}

/* It ends against its client's will; the struct stays, to tell the client why. */
static void lose(struct lane *l, struct itxn *t, const char *reason) ON_OWNER
{
    if (t->conn == NULL)
        return;
    release(l, t);
    (void)snprintf(t->reason, sizeof t->reason, "%s", reason);
    log_info("lane", "transaction-lost session=%" PRIu64 " reason=\"%s\"", t->session_id, reason);
}

static void end(struct lane *l, struct itxn *t) ON_OWNER
{
    release(l, t);
    list_remove(&t->link);
    free(t);
}

static enum err begin(struct lane *l, const struct request *r, struct itxn **out) ON_OWNER
{
    struct sqlconn *conn;
    if (lane_open_transactions(l) >= OPEN_TRANSACTIONS_MAX)
        return err_fail(ERR_BUSY, "%u transactions are open at once, which is the limit: end some",
                        OPEN_TRANSACTIONS_MAX);
    TRY(take_conn(l, &conn));
    struct itxn *t = MEM_NEW(struct itxn);
    t->session_id = r->session_id;
    t->conn = conn;
    t->began_ms = t->used_ms = clock_mono_ms();
    (void)sqlite3_db_config(sqlconn_handle(conn), SQLITE_DBCONFIG_ENABLE_FKEY, (int)r->foreign_keys,
                            (int *)NULL);
    list_push_back(&l->itxns, &t->link);
    meters_move(METER_TRANSACTIONS, 1);
    *out = t;
    return ERR_OK;
}

/* The client hears of the end at its next request; ROLLBACK is what it would want anyway. */
static void answer_lost(struct lane *l, struct itxn *t, struct request *r) ON_OWNER
{
    if (r->is_describe || !sql_is_rollback(r->statement.sql, r->statement.sql_len))
        request_fail(r, ERR_TXN_LOST, t->reason);
    r->answer.time_up = r->answer.code == ERR_TXN_LOST && t->time_up;
    end(l, t);
    lane_answer(l, r);
}

static void answer_when_published(struct lane *l, struct request *r) ON_OWNER
{
    struct list one;
    list_init(&one);
    list_push_back(&one, &r->letter.link);
    lane_depart(l, &one);
}

/* Another transaction writes: R's statement has done nothing yet and may be tried again later. */
static bool must_wait(const struct lane *l, const struct itxn *t, const struct request *r) ON_OWNER
{
    return r->answer.code != ERR_OK && (r->answer.sqlite_code & 0xff) == SQLITE_BUSY &&
           r->answer.sqlite_code != SQLITE_BUSY_SNAPSHOT && l->holder != NULL && l->holder != t;
}

/* COMMIT, END or RELEASE, as far as the text tells (BEGIN and SAVEPOINT, too). */
static bool may_commit(const struct request *r)
{
    return !r->is_batch && r->kind == SQL_TRANSACTION &&
           !sql_is_rollback(r->statement.sql, r->statement.sql_len);
}

/* Will R most likely commit what T wrote? */
static bool adds_a_flight(const struct lane *l, const struct itxn *t,
                          const struct request *r) ON_OWNER
{
    return l->holder == t && may_commit(r);
}

/* R's client asked from elsewhere, and was told that this COMMIT was not done and never will be. */
static bool is_given_up(struct lane *l, const struct request *r) ON_OWNER
{
    return request_is_numbered(r) && may_commit(r) &&
           outcomes_is_void(l->outcomes, &r->query.number);
}

static void explain_snapshot(struct request *r) ON_OWNER
{
    if (r->answer.code == ERR_SQL && r->answer.sqlite_code == SQLITE_BUSY_SNAPSHOT) {
        request_fail(r, ERR_SQL,
                     "the database changed since this transaction first read it: roll back, and "
                     "begin with BEGIN IMMEDIATE, or let nodes do so (http-begin)");
        r->answer.sqlite_code = SQLITE_BUSY_SNAPSHOT;
    }
}

void lane_run_interactive(struct lane *l, struct request *r)
{
    struct itxn *t = find(l, r->session_id);
    r->interactive = true;
    if (t != NULL && t->conn == NULL) {
        answer_lost(l, t, r);
        return;
    }
    if (t != NULL && is_given_up(l, r)) {
        lose(l, t, GIVEN_UP);
        answer_lost(l, t, r);
        return;
    }
    if (t == NULL && (l->wants_quiet || l->bars_begins)) {
        list_push_back(&l->stalled, &r->letter.link); /* the WAL starts over in a moment */
        return;
    }
    enum err e = t == NULL ? begin(l, r, &t) : ERR_OK;
    if (e != ERR_OK) {
        request_fail_text(r, e);
        lane_answer(l, r);
        return;
    }
    t->busy = true;
    if (request_is_numbered(r))
        memcpy(t->writer, r->query.number.writer, sizeof t->writer);
    if (adds_a_flight(l, t, r) && !lane_has_room(l)) {
        list_push_back(&l->stalled, &r->letter.link);
        return;
    }
    sqlite3 *handle = sqlconn_handle(t->conn);
    l->run_ns = clock_mono_ns();
    meters_stage(METER_STAGE_QUEUE, l->run_ns - r->came_ns);
    (void)lane_run_inside(l, t->conn, r); /* the answer holds the error */
    bool open = !sqlite3_get_autocommit(handle);
    if (r->answer.code ==
        ERR_NOT_LEADER) { /* interrupted: the leadership is lost, its letter comes */
        end(l, t);
        request_fail(r, ERR_TXN_LOST, "the transaction was rolled back: the leader changed");
        lane_answer(l, r);
        return;
    }
    if (must_wait(l, t, r)) {
        request_clear_answer(r);
        r->tried = true;
        if (!open)
            end(l, t); /* BEGIN IMMEDIATE: it takes a connection again when its turn comes */
        list_push_back(&l->stalled, &r->letter.link);
        return;
    }
    explain_snapshot(r);
    r->answer.in_transaction = open;
    if (open && sqlite3_txn_state(handle, "main") == SQLITE_TXN_WRITE) {
        CHECK(l->holder == NULL || l->holder == t);
        l->holder = t;
    }
    if (!open && r->answer.code == ERR_OK && may_commit(r))
        lane_note_done(l, r);
    if (!open)
        end(l, t);
    answer_when_published(l, r);
}

void lane_retry_stalled(struct lane *l)
{
    struct list again, *i;
    uint64_t now = clock_mono_ms();
    list_init(&again);
    list_splice(&again, &l->stalled);
    while ((i = list_pop_front(&again)) != NULL) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        struct itxn *t = find(l, r->session_id);
        bool cancelled = atomic_load_explicit(&r->cancelled, memory_order_relaxed);
        if (cancelled || (r->deadline_ms != 0 && now > r->deadline_ms)) {
            request_fail(r, cancelled ? ERR_CANCELLED : ERR_TIMEOUT,
                         lane_is_holder(l, r)
                             ? "what was written before was not committed until the time limit"
                             : "another transaction held the writer until the time limit");
            r->answer.in_transaction = t != NULL && t->conn != NULL;
            lane_answer(l, r);
        } else if (l->view == NULL && t == NULL) {
            request_fail(r, ERR_NOT_LEADER, "the leader changed");
            lane_answer(l, r);
        } else if ((l->holder != NULL && r->tried) ||
                   (t == NULL && (l->wants_quiet || l->bars_begins))) {
            list_push_back(&l->stalled, &r->letter.link);
        } else {
            r->tried = false;
            lane_run_interactive(l, r);
        }
    }
}

void lane_end_overdue(struct lane *l, uint64_t now_ms)
{
    LIST_EACH(i, &l->itxns) {
        struct itxn *t = LIST_ENTRY(i, struct itxn, link);
        char reason[160];
        if (t->conn == NULL)
            continue;
        if (!t->busy && now_ms > t->used_ms + l->config->txn_idle_ms) {
            (void)snprintf(reason, sizeof reason,
                           "the transaction was rolled back: no statement came for %" PRIu64
                           " ms (transaction-idle-timeout)",
                           l->config->txn_idle_ms);
            t->time_up = true;
            lose(l, t, reason);
        } else if (now_ms > t->began_ms + l->config->txn_total_ms) {
            (void)snprintf(reason, sizeof reason,
                           "the transaction was rolled back: it was open for %" PRIu64
                           " ms (transaction-timeout)",
                           l->config->txn_total_ms);
            t->time_up = true;
            lose(l, t, reason);
        }
    }
}

void lane_end_session(struct lane *l, uint64_t session_id)
{
    struct itxn *t = find(l, session_id);
    if (t != NULL)
        end(l, t);
}

void lane_lose_writer(struct lane *l, const uint8_t *writer)
{
    static const uint8_t nobody[WIRE_WRITER_BYTES];
    if (memcmp(writer, nobody, sizeof nobody) == 0)
        return;
    LIST_EACH(i, &l->itxns) {
        struct itxn *t = LIST_ENTRY(i, struct itxn, link);
        if (memcmp(t->writer, writer, sizeof t->writer) == 0)
            lose(l, t, GIVEN_UP);
    }
}

void lane_note_answer(struct lane *l, const struct request *r)
{
    struct itxn *t = find(l, r->session_id);
    if (t == NULL)
        return;
    t->busy = false;
    t->used_ms = clock_mono_ms();
    if (!r->answer.in_transaction) /* its client knows now that it is over */
        end(l, t);
}

void lane_note_use(struct lane *l, uint64_t session_id)
{
    struct itxn *t = find(l, session_id);
    if (t != NULL)
        t->used_ms = clock_mono_ms();
}

void lane_end_all(struct lane *l, const char *reason)
{
    LIST_EACH(i, &l->itxns)
        lose(l, LIST_ENTRY(i, struct itxn, link), reason);
    while (l->n_idle_conns > 0)
        sqlconn_close(l->idle_conns[--l->n_idle_conns]);
}

void lane_free_itxns(struct lane *l)
{
    LIST_EACH(i, &l->itxns)
        end(l, LIST_ENTRY(i, struct itxn, link));
}
