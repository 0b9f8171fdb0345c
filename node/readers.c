/* Room: node. Thread: readers (and readers_run on the loop).
 * Owns: the connections; `lock` guards the queue, the idle connections and their count.
 * Not here: which statement reads for too long (reader_watch.c). */
#include "node/readers.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/meters.h"
#include "node/sqlconn.h"

#include <stdlib.h>

#define BLOCK   KIB(256) /* an answer is sent in pieces of about this size */
#define TAKE_MS 1000     /* to take one, when others wait for a connection */
#define SLOW    4        /* one in so many connections may wait for its client all the same */

/* A connection, and the statement that it runs. */
struct reader_conn {
    struct list link; /* idle */
    struct sqlconn *sql;
    struct reading reading;
};

struct cursor_state {
    struct list link; /* of readers.away, while its client takes a block */
    struct request *r;
    struct reader_conn *conn;
    struct sqlstmt *stmt;
    uint64_t since_ms; /* it waits for that */
    bool leaving;      /* it was told to make room */
};

struct snapshot {
    struct list link; /* of readers.over */
    struct reader_conn *conn;
    uint64_t seq; /* nothing in it is newer */
};

struct readers {
    struct repl_db *db;
    struct mail *loop;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct list parked; /* requests that have a connection, ready to go on */
    struct list fresh;  /* requests without one */
    struct list begin;  /* requests that begin a snapshot */
    unsigned turn;      /* which of these three is asked first */
    struct list idle;   /* struct reader_conn */
    struct list over;   /* struct snapshot: to be ended */
    struct list away;   /* struct cursor_state, but for those in snapshots: the longest first */
    unsigned conns, conns_max;
    unsigned snapshots, snapshots_max;
    unsigned n_fresh, n_begin, n_away; /* how many are in those lists */
    unsigned n_leaving;                /* cursors that make room */
    bool stopping;
    bool looks_outside; /* a thread is to find out who else reads our files */
    struct reader_watch *watch;
    unsigned n_threads;
    pthread_t threads[];
};

/* Every few hundred microseconds of a running statement: one that reads no table holds nothing. */
static bool note_holding(void *ctx)
{
    struct reader_conn *c = ctx;
    if (!atomic_load_explicit(&c->reading.holds, memory_order_relaxed) &&
        sqlite3_txn_state(sqlconn_handle(c->sql), "main") != SQLITE_TXN_NONE)
        atomic_store_explicit(&c->reading.holds, true, memory_order_relaxed);
    return false;
}

/* The caller holds a place in `conns` or `snapshots`: an idle one, or the right to open another. */
static enum err take_conn(struct readers *p, struct reader_conn **out) ON_READER
{
    *out = NULL;
    (void)pthread_mutex_lock(&p->lock);
    struct list *l = list_pop_front(&p->idle);
    (void)pthread_mutex_unlock(&p->lock);
    if (l != NULL) {
        *out = LIST_ENTRY(l, struct reader_conn, link);
        return ERR_OK;
    }
    sqlite3 *conn;
    TRY(repl_reader_open(p->db, &conn));
    struct reader_conn *c = MEM_NEW(struct reader_conn);
    c->sql = sqlconn_new(conn, note_holding, c);
    *out = c;
    return ERR_OK;
}

static void give_conn(struct readers *p, struct reader_conn *c) ON_READER
{
    (void)pthread_mutex_lock(&p->lock);
    p->conns--;
    if (c != NULL)
        list_push_front(&p->idle, &c->link); /* the warmest first */
    (void)pthread_cond_signal(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
}

static void send_back(struct readers *p, struct request *r, enum letter_kind kind)
{
    r->letter.kind = kind;
    mail_send(p->loop, &r->letter.link);
}

/* --- snapshots --- */

static void free_snapshot(struct readers *p, struct snapshot *s) ON_READER
{
    (void)pthread_mutex_lock(&p->lock);
    p->snapshots--;
    if (s->conn != NULL)
        list_push_front(&p->idle, &s->conn->link);
    (void)pthread_cond_signal(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
    free(s);
}

/* SQLite rolls a transaction back by itself when it cannot read or has no memory. */
static bool is_open(const struct snapshot *s) ON_READER
{
    return sqlite3_get_autocommit(sqlconn_handle(s->conn->sql)) == 0;
}

/* Its transaction is rolled back: there is nothing to commit. */
static void end_snapshot(struct readers *p, struct snapshot *s) ON_READER
{
    if (is_open(s)) {
        int rc = sqlconn_exec(s->conn->sql, "ROLLBACK");
        CHECK(rc == SQLITE_OK); /* it has no statement under way */
    }
    reader_watch_end(p->watch, &s->conn->reading);
    free_snapshot(p, s);
}

/* BEGIN READONLY, which has its place in `snapshots`. SQLite takes the state when it first reads,
 * so that is done here. */
static void begin_snapshot(struct readers *p, struct request *r) ON_READER
{
    struct snapshot *s = MEM_NEW(struct snapshot);
    enum err e = take_conn(p, &s->conn);
    if (e != ERR_OK) {
        request_fail_text(r, e);
        free_snapshot(p, s);
        return;
    }
    int rc = sqlconn_exec(s->conn->sql, "BEGIN");
    if (rc == SQLITE_OK) {
        reader_watch_begin(p->watch, &s->conn->reading, r);
        rc = sqlconn_exec(s->conn->sql, "SELECT 1 FROM sqlite_schema LIMIT 1");
        if (rc == SQLITE_OK) {
            s->seq = r->answer.seq = repl_db_published_upper(p->db);
            (void)note_holding(s->conn);
            reader_watch_turn(p->watch, &s->conn->reading, NULL);
            r->answer.in_transaction = true;
            r->snapshot = s;
            return;
        }
        (void)sqlconn_fail(s->conn->sql, r, rc);
        end_snapshot(p, s);
        return;
    }
    (void)sqlconn_fail(s->conn->sql, r, rc);
    free_snapshot(p, s);
}

/* COMMIT or ROLLBACK, which are the same here. */
static void finish_snapshot(struct readers *p, struct request *r) ON_READER
{
    r->answer.seq = r->snapshot->seq;
    end_snapshot(p, r->snapshot);
    r->snapshot = NULL;
}

/* --- statements --- */

/* True: R is about its snapshot itself, and answered. */
static bool run_step(struct readers *p, struct request *r) ON_READER
{
    if (r->begins_snapshot) {
        begin_snapshot(p, r);
        return true;
    }
    if (r->snapshot == NULL || r->kind != SQL_TRANSACTION || r->is_describe)
        return false;
    enum sql_step step = sql_step_of(r->statement.sql, r->statement.sql_len);
    if (step == SQL_STEP_COMMIT || step == SQL_STEP_ROLLBACK) {
        finish_snapshot(p, r);
    } else {
        request_fail(r, ERR_FORBIDDEN,
                     "a read transaction is open: it takes COMMIT and ROLLBACK, no other statement "
                     "of this kind");
        r->answer.in_transaction = true;
    }
    return true;
}

/* Takes a connection, and begins R's statement on it. */
static enum err begin(struct readers *p, struct request *r, struct reader_conn **conn,
                      struct sqlstmt **stmt) ON_READER
{
    if (r->snapshot != NULL) {
        *conn = r->snapshot->conn;
        reader_watch_turn(p->watch, &(*conn)->reading, r);
    } else {
        enum err e = take_conn(p, conn);
        if (e != ERR_OK) {
            request_fail_text(r, e);
            return e;
        }
        reader_watch_begin(p->watch, &(*conn)->reading, r);
    }
    if (r->is_describe) /* complete with that: no statement is left to run */
        return sqlconn_describe((*conn)->sql, r);
    return sqlconn_begin((*conn)->sql, r, true, stmt);
}

/* The answer of a statement in a snapshot. What writes is no business of the writer's. */
static void stay_in_snapshot(struct readers *p, struct request *r) ON_READER
{
    r->answer.seq = r->snapshot->seq;
    if (!is_open(r->snapshot)) {
        CHECK(r->answer.code != ERR_OK);
        end_snapshot(p, r->snapshot);
        r->snapshot = NULL;
        return;
    }
    if (r->answer.not_read_only) {
        request_fail(r, ERR_FORBIDDEN, "attempt to write in a read transaction (BEGIN READONLY)");
        r->answer.sqlite_code = SQLITE_READONLY;
        r->answer.not_read_only = false;
    }
    r->answer.in_transaction = true;
}

/* The statement is over: its connection is another's, or rests in its snapshot. */
static void end(struct readers *p, struct request *r, struct reader_conn *conn,
                struct sqlstmt *stmt) ON_READER
{
    if (conn != NULL) {
        if (r->snapshot != NULL)
            reader_watch_turn(p->watch, &conn->reading, NULL);
        else
            reader_watch_end(p->watch, &conn->reading);
        sqlconn_end(conn->sql, stmt);
        if (atomic_load_explicit(&conn->reading.ended, memory_order_acquire) &&
            r->answer.code == ERR_CANCELLED) {
            request_fail(r, ERR_TIMEOUT, conn->reading.sentence);
            r->answer.sqlite_code = SQLITE_INTERRUPT;
        }
    }
    if (r->snapshot == NULL)
        give_conn(p, conn);
    else
        stay_in_snapshot(p, r);
}

/* R's rows go to its client, and nobody knows when it comes back. */
static void send_away(struct readers *p, struct request *r, struct reader_conn *conn,
                      struct sqlstmt *stmt) ON_READER
{
    (void)note_holding(conn);
    if (r->cursor == NULL) {
        r->cursor = MEM_NEW(struct cursor_state);
        *r->cursor = (struct cursor_state){.r = r, .conn = conn, .stmt = stmt};
        list_init(&r->cursor->link);
    }
    r->cursor->since_ms = clock_mono_ms();
    if (r->snapshot == NULL) {
        (void)pthread_mutex_lock(&p->lock);
        list_push_back(&p->away, &r->cursor->link);
        p->n_away++;
        (void)pthread_mutex_unlock(&p->lock);
    }
    send_back(p, r, LOOP_ROWS);
}

static void free_cursor(struct readers *p, struct cursor_state *cur) ON_READER
{
    if (cur != NULL && cur->leaving) {
        (void)pthread_mutex_lock(&p->lock);
        p->n_leaving--;
        (void)pthread_mutex_unlock(&p->lock);
    }
    free(cur);
}

/* Runs R until its end or until a block is full. */
static void run(struct readers *p, struct request *r) ON_READER
{
    struct cursor_state *cur = r->cursor;
    struct reader_conn *conn = cur == NULL ? NULL : cur->conn;
    struct sqlstmt *stmt = cur == NULL ? NULL : cur->stmt;
    bool more = false;
    if (cur == NULL && run_step(p, r)) {
        send_back(p, r, LOOP_ANSWER);
        return;
    }
    enum err e = cur == NULL ? begin(p, r, &conn, &stmt) : ERR_OK;
    if (e == ERR_OK && stmt != NULL)
        e = sqlconn_rows(conn->sql, stmt, r, BLOCK, &more);
    /* Read after the statement began: not less than what it can have seen. */
    if (r->answer.seq == 0)
        r->answer.seq = repl_db_published_upper(p->db);
    if (e == ERR_OK && more) {
        send_away(p, r, conn, stmt);
        return;
    }
    end(p, r, conn, stmt);
    free_cursor(p, cur);
    r->cursor = NULL;
    send_back(p, r, LOOP_ANSWER);
}

static struct list *take_fresh(struct readers *p)
{
    struct list *l = p->conns < p->conns_max ? list_pop_front(&p->fresh) : NULL;
    p->conns += l != NULL;
    p->n_fresh -= l != NULL;
    return l;
}

static struct list *take_begin(struct readers *p)
{
    struct list *l = p->snapshots < p->snapshots_max ? list_pop_front(&p->begin) : NULL;
    p->snapshots += l != NULL;
    p->n_begin -= l != NULL;
    return l;
}

/* A request for which there is a connection; with the lock. The three kinds take turns: none of
 * them, however many there are, keeps another waiting. */
static struct list *next_request(struct readers *p)
{
    bool open = reader_watch_is_open(p->watch);
    for (unsigned i = 0; i < 3; i++) {
        unsigned kind = (p->turn + i) % 3;
        struct list *l = kind == 0   ? list_pop_front(&p->parked)
                         : !open     ? NULL
                         : kind == 1 ? take_fresh(p)
                                     : take_begin(p);
        if (l == NULL)
            continue;
        p->turn = kind + 1;
        return l;
    }
    return NULL;
}

static struct request *next(struct readers *p) ON_READER
{
    struct list *l = NULL;
    (void)pthread_mutex_lock(&p->lock);
    for (;;) {
        if (p->looks_outside) {
            p->looks_outside = false;
            (void)pthread_mutex_unlock(&p->lock);
            reader_watch_look_outside(p->watch);
            (void)pthread_mutex_lock(&p->lock);
        }
        while ((l = list_pop_front(&p->over)) != NULL) {
            (void)pthread_mutex_unlock(&p->lock);
            end_snapshot(p, LIST_ENTRY(l, struct snapshot, link));
            (void)pthread_mutex_lock(&p->lock);
        }
        l = next_request(p);
        if (l != NULL || p->stopping)
            break;
        (void)pthread_cond_wait(&p->work, &p->lock);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return l == NULL ? NULL : LIST_ENTRY(l, struct request, letter.link);
}

static void *reader_main(void *arg)
{
    struct readers *p = arg;
    struct request *r;
    thread_become(THREAD_READER);
    thread_expect_reader();
    while ((r = next(p)) != NULL) {
        uint64_t began = clock_mono_ns();
        if (r->cursor == NULL)
            meters_read_waited(began - r->came_ns);
        run(p, r);
        meters_read_ran(clock_mono_ns() - began);
    }
    return NULL;
}

enum err readers_open(const struct config *config, struct repl_db *db, struct mail *loop,
                      struct readers **out)
{
    struct readers *p = mem_zalloc(sizeof *p + config->readers * sizeof(pthread_t));
    p->db = db;
    p->loop = loop;
    p->conns_max = (unsigned)config->reader_connections;
    p->snapshots_max = (unsigned)config->read_transactions;
    p->watch = reader_watch_new(config, db);
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    list_init(&p->fresh);
    list_init(&p->begin);
    list_init(&p->parked);
    list_init(&p->idle);
    list_init(&p->over);
    list_init(&p->away);
    *out = p;
    for (; p->n_threads < config->readers; p->n_threads++) {
        enum err e = thread_start(&p->threads[p->n_threads], "reader", reader_main, p);
        if (e != ERR_OK) {
            readers_close(p);
            *out = NULL;
            return e;
        }
    }
    return ERR_OK;
}

void readers_close(struct readers *p)
{
    (void)pthread_mutex_lock(&p->lock);
    p->stopping = true;
    (void)pthread_cond_broadcast(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++)
        (void)pthread_join(p->threads[i], NULL);
    CHECK(list_empty(&p->fresh) && list_empty(&p->begin) && list_empty(&p->parked) &&
          list_empty(&p->over) && list_empty(&p->away) && p->conns == 0 && p->snapshots == 0);
    LIST_EACH(l, &p->idle) {
        struct reader_conn *idle = LIST_ENTRY(l, struct reader_conn, link);
        sqlconn_close(idle->sql);
        free(idle);
    }
    reader_watch_free(p->watch);
    (void)pthread_cond_destroy(&p->work);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

void readers_run(struct readers *p, struct request *r)
{
    thread_expect_loop();
    r->letter.kind = READ_REQUEST;
    (void)pthread_mutex_lock(&p->lock);
    bool has_conn = r->cursor != NULL || r->snapshot != NULL;
    if (r->cursor != NULL && !list_empty(&r->cursor->link)) {
        list_remove(&r->cursor->link);
        p->n_away--;
    }
    p->n_fresh += !has_conn && !r->begins_snapshot;
    p->n_begin += !has_conn && r->begins_snapshot;
    list_push_back(has_conn             ? &p->parked
                   : r->begins_snapshot ? &p->begin
                                        : &p->fresh,
                   &r->letter.link);
    (void)pthread_cond_signal(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
}

void readers_end_snapshot(struct readers *p, struct snapshot *s)
{
    thread_expect_loop();
    (void)pthread_mutex_lock(&p->lock);
    list_push_back(&p->over, &s->link);
    (void)pthread_cond_signal(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
}

const char *snapshot_must_end(const struct snapshot *s)
{
    const struct reading *g = &s->conn->reading;
    return atomic_load_explicit(&g->ended, memory_order_acquire) ? g->sentence : NULL;
}

void readers_look(struct readers *p, struct readers_state *out)
{
    thread_expect_loop();
    (void)pthread_mutex_lock(&p->lock);
    *out = (struct readers_state){.busy = p->conns,
                                  .waiting = p->n_fresh,
                                  .snapshots = p->snapshots,
                                  .snapshots_waiting = p->n_begin};
    (void)pthread_mutex_unlock(&p->lock);
}

static bool expired(const struct request *r, uint64_t now_ms)
{
    return atomic_load_explicit(&r->cancelled, memory_order_relaxed) ||
           (r->deadline_ms != 0 && now_ms > r->deadline_ms);
}

static void take_expired(struct list *from, unsigned *n, struct list *to, uint64_t now_ms)
{
    LIST_EACH(i, from) {
        if (expired(LIST_ENTRY(i, struct request, letter.link), now_ms)) {
            list_remove(i);
            list_push_back(to, i);
            --*n;
        }
    }
}

/* Statements whose clients take nothing must not keep all others waiting: with the lock. */
static void make_room(struct readers *p, uint64_t now_ms) ON_LOOP
{
    if (p->conns < p->conns_max)
        return;
    LIST_EACH(i, &p->away) {
        struct cursor_state *cur = LIST_ENTRY(i, struct cursor_state, link);
        if (p->n_leaving >= p->n_fresh || p->n_away <= p->conns_max / SLOW ||
            now_ms < cur->since_ms + TAKE_MS)
            return;
        p->n_leaving += !cur->leaving;
        cur->leaving = true;
        reader_watch_give_up(&cur->conn->reading, now_ms - cur->since_ms);
        list_remove(i);
        p->n_away--;
    }
}

void readers_expire(struct readers *p, uint64_t now_ms)
{
    struct list over, *l;
    thread_expect_loop();
    list_init(&over);
    bool was_open = reader_watch_is_open(p->watch);
    bool looks_outside = reader_watch_look(p->watch, now_ms);
    (void)pthread_mutex_lock(&p->lock);
    p->looks_outside = p->looks_outside || looks_outside;
    if (looks_outside || (!was_open && reader_watch_is_open(p->watch)))
        (void)pthread_cond_broadcast(&p->work);
    take_expired(&p->fresh, &p->n_fresh, &over, now_ms);
    take_expired(&p->begin, &p->n_begin, &over, now_ms);
    make_room(p, now_ms);
    (void)pthread_mutex_unlock(&p->lock);
    while ((l = list_pop_front(&over)) != NULL) {
        struct request *r = LIST_ENTRY(l, struct request, letter.link);
        if (atomic_load_explicit(&r->cancelled, memory_order_relaxed))
            request_fail(r, ERR_CANCELLED, "interrupted");
        else
            request_fail(r, ERR_TIMEOUT, "timed out while it waited for a reader");
        send_back(p, r, LOOP_ANSWER);
    }
}
