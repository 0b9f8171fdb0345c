/* Room: node. Thread: readers, and the loop where said; `lock` guards all but the configuration.
 * Owns: the list of what reads; not the readings.
 * Invariants: a reading in the list has a request that lives, or none; nothing is ended while the
 * WAL is not over wal-limit, or nobody holds its restart back. Not here: how a cancelled statement
 * ends (sqlconn.c, readers.c, session.c).
 *
 * Why age alone decides which statement it is: any read transaction, whatever it saw first, stops
 * checkpoints at what it sees (one that saw nothing of the WAL stops them at once), and keeps its
 * read mark. So all that are old hold back, and ending only some of them would help nobody.
 *
 *             a statement was ended, or they relieve each other
 *     OPEN ----------------------------------------------------> CLOSED (no new ones begin)
 *      ^                                                           |
 *      +----- the WAL started over, or GATE_MS are over ------------+
 * Not while another process holds the WAL back, too: it would be in vain. */
#include "node/reader_watch.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/meters.h"
#include "node/wal_locks.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define LOOK_MS    250u   /* between two looks */
#define GATE_MS    2000u  /* new statements wait so long at most, */
#define DRAIN_MS   1000u  /* and those under way have so long, when all have to end */
#define OUTSIDE_MS 60000u /* between two lines about other processes */
#define SQL_SHOWN  80u    /* bytes of a statement in the log */
#define OWNERS_MAX 16u    /* other processes that are named */

struct reader_watch {
    const struct config *config;
    struct repl_db *db;
    char *shm_path;
    pthread_mutex_t lock;
    struct list readings;
    uint64_t ended_ms; /* when the last one was ended */
    unsigned others;
    bool others_known;
    _Atomic bool is_closed; /* the gate, as all below the loop's */
    bool ends_all;          /* at drain_ms */
    bool asked;             /* for the restart, since all were gone */
    uint64_t closed_ms, drain_ms;
    uint64_t wal_restarts; /* when it was closed */
    uint64_t ended_all_ms; /* the last time */
    uint64_t looked_ms, outside_ms;
};

struct reader_watch *reader_watch_new(const struct config *config, struct repl_db *db)
{
    struct reader_watch *w = MEM_NEW(struct reader_watch);
    w->config = config;
    w->db = db;
    w->shm_path = mem_printf("%s/main.db-shm", config->data);
    (void)pthread_mutex_init(&w->lock, NULL);
    list_init(&w->readings);
    return w;
}

void reader_watch_free(struct reader_watch *w)
{
    CHECK(list_empty(&w->readings));
    (void)pthread_mutex_destroy(&w->lock);
    free(w->shm_path);
    free(w);
}

void reader_watch_begin(struct reader_watch *w, struct reading *g, struct request *r)
{
    g->r = r;
    g->session_id = r->session_id;
    g->began_ms = clock_mono_ms();
    atomic_store_explicit(&g->holds, false, memory_order_relaxed);
    atomic_store_explicit(&g->ended, false, memory_order_relaxed);
    g->named = false;
    (void)pthread_mutex_lock(&w->lock);
    list_push_back(&w->readings, &g->link); /* the oldest first */
    (void)pthread_mutex_unlock(&w->lock);
}

void reader_watch_end(struct reader_watch *w, struct reading *g)
{
    (void)pthread_mutex_lock(&w->lock);
    list_remove(&g->link);
    (void)pthread_mutex_unlock(&w->lock);
    g->r = NULL;
}

void reader_watch_turn(struct reader_watch *w, struct reading *g, struct request *r)
{
    (void)pthread_mutex_lock(&w->lock);
    g->r = r;
    (void)pthread_mutex_unlock(&w->lock);
}

static uint64_t age_of(const struct reading *g, uint64_t now_ms)
{
    return now_ms > g->began_ms ? now_ms - g->began_ms : 0;
}

/* The beginning of R's SQL, fit for a line of the log. */
static void show_sql(char to[SQL_SHOWN + 1], const struct request *r)
{
    if (r == NULL) {
        (void)snprintf(to, SQL_SHOWN + 1, "(an open read transaction)");
        return;
    }
    size_t n = r->statement.sql_len < SQL_SHOWN ? r->statement.sql_len : SQL_SHOWN;
    for (size_t i = 0; i < n; i++) {
        char c = r->statement.sql[i];
        to[i] = c == '"' ? '\'' : c >= ' ' && c <= '~' && c != '\\' ? c : ' ';
    }
    to[n] = 0;
}

static void tell(const struct reading *g, const char *event, uint64_t age_ms,
                 const struct repl_stats *st)
{
    char sql[SQL_SHOWN + 1];
    show_sql(sql, g->r);
    log_warn("node",
             "%s session=%" PRIu64 " age_ms=%" PRIu64 " wal_bytes=%" PRIu64
             " restart_waits_ms=%" PRIu64 " sql=\"%s\"",
             event, g->session_id, age_ms, st->wal_bytes, st->restart_waits_ms, sql);
}

/* For the reason that its sentence says. */
static void cancel(struct reading *g)
{
    meters_count(METER_READS_ENDED, 1);
    atomic_store_explicit(&g->ended, true, memory_order_release);
    if (g->r != NULL)
        atomic_store_explicit(&g->r->cancelled, true, memory_order_relaxed);
}

/* With the lock held. */
static void end_reading(struct reader_watch *w, struct reading *g, uint64_t now_ms,
                        const struct repl_stats *st)
{
    uint64_t age = age_of(g, now_ms);
    w->ended_ms = now_ms;
    (void)snprintf(g->sentence, sizeof g->sentence,
                   "the %s was ended after %" PRIu64 " ms (reader-limit): it kept the WAL of "
                   "this node, %" PRIu64 " MiB now (wal-limit: %" PRIu64 " MiB), from starting "
                   "over. Read less at a time, take the rows faster, or raise reader-limit or "
                   "wal-limit",
                   g->r == NULL ? "read transaction" : "statement", age,
                   (uint64_t)(st->wal_bytes / MIB(1)),
                   (uint64_t)(w->config->wal_limit_bytes / MIB(1)));
    tell(g, "reader_ended", age, st);
    cancel(g);
}

void reader_watch_give_up(struct reading *g, uint64_t waited_ms)
{
    char sql[SQL_SHOWN + 1];
    thread_expect_loop();
    CHECK(g->r != NULL);
    show_sql(sql, g->r);
    log_info("node",
             "reader_ended session=%" PRIu64 " waited_ms=%" PRIu64 " sql=\"%s\""
             " why=\"its client took no rows, and others waited for a reader\"",
             g->session_id, waited_ms, sql);
    (void)snprintf(g->sentence, sizeof g->sentence,
                   "the statement was ended: its client took no rows for %" PRIu64 " ms, and other "
                   "statements waited for a reader (reader-connections). Take the rows faster, or "
                   "ask for fewer at a time",
                   waited_ms);
    cancel(g);
}

/* Names and ends those that are older than WARN_MS and LIMIT_MS (0: none). *n_ended of them; *left
 * have a read transaction and go on. */
static void look_at_all(struct reader_watch *w, uint64_t now_ms, uint64_t limit_ms,
                        const struct repl_stats *st, unsigned *n_ended, unsigned *left)
{
    *n_ended = *left = 0;
    (void)pthread_mutex_lock(&w->lock);
    LIST_EACH(i, &w->readings) {
        struct reading *g = LIST_ENTRY(i, struct reading, link);
        uint64_t age = age_of(g, now_ms);
        if (!atomic_load_explicit(&g->holds, memory_order_relaxed))
            continue;
        ++*left;
        if (atomic_load_explicit(&g->ended, memory_order_relaxed))
            continue;
        if (limit_ms != 0 && age > limit_ms) {
            end_reading(w, g, now_ms, st);
            ++*n_ended;
        } else if (age > w->config->reader_warn_ms && !g->named) {
            g->named = true;
            tell(g, "reader_holds_wal", age, st);
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
}

/* --- the gate --------------------------------------------------------------------------------- */

static void close_gate(struct reader_watch *w, uint64_t now_ms, const struct repl_stats *st,
                       bool ends_all)
{
    w->closed_ms = now_ms;
    w->drain_ms = now_ms + DRAIN_MS;
    w->ends_all = ends_all;
    w->asked = false;
    w->wal_restarts = st->wal_restarts;
    atomic_store_explicit(&w->is_closed, true, memory_order_relaxed);
    log_info("node", "reads_wait wal_bytes=%" PRIu64 " restart_waits_ms=%" PRIu64, st->wal_bytes,
             st->restart_waits_ms);
}

static void look_at_gate(struct reader_watch *w, uint64_t now_ms, const struct repl_stats *st)
{
    unsigned n_ended, left;
    bool done = st->wal_restarts != w->wal_restarts || st->wal_bytes <= w->config->wal_limit_bytes;
    if (done || now_ms > w->closed_ms + GATE_MS) {
        log_info("node", "reads_go_on wal_bytes=%" PRIu64 " waited_ms=%" PRIu64, st->wal_bytes,
                 now_ms - w->closed_ms);
        atomic_store_explicit(&w->is_closed, false, memory_order_relaxed);
        return;
    }
    look_at_all(w, now_ms, w->ends_all && now_ms > w->drain_ms ? 1 : 0, st, &n_ended, &left);
    if (left == 0 && !w->asked) {
        w->asked = true;
        repl_db_restart_soon(w->db);
    }
}

bool reader_watch_is_open(const struct reader_watch *w)
{
    return !atomic_load_explicit(&w->is_closed, memory_order_relaxed);
}

/* Somebody outside holds the WAL back as well, or might. */
static bool is_in_vain(struct reader_watch *w, bool must_know)
{
    (void)pthread_mutex_lock(&w->lock);
    bool in_vain = w->others > 0 || (must_know && !w->others_known);
    (void)pthread_mutex_unlock(&w->lock);
    return in_vain;
}

/* Reads relieve each other: for twice the limit there was always one. */
static bool must_end_all(struct reader_watch *w, uint64_t now_ms, const struct repl_stats *st)
{
    uint64_t limit = 2 * w->config->reader_limit_ms;
    return limit != 0 && st->restart_waits_ms > limit &&
           (w->ended_all_ms == 0 || now_ms > w->ended_all_ms + limit) && !is_in_vain(w, true);
}

/* --- the look --------------------------------------------------------------------------------- */

bool reader_watch_look(struct reader_watch *w, uint64_t now_ms)
{
    const struct config *c = w->config;
    struct repl_stats st;
    unsigned n_ended, left;
    thread_expect_loop();
    if (!reader_watch_is_open(w)) {
        repl_db_stats(w->db, &st);
        look_at_gate(w, now_ms, &st);
        return false;
    }
    if (now_ms < w->looked_ms + LOOK_MS)
        return false;
    w->looked_ms = now_ms;
    repl_db_stats(w->db, &st);
    if (st.wal_bytes <= c->wal_limit_bytes || st.restart_waits_ms == 0)
        return false;
    look_at_all(w, now_ms, c->reader_limit_ms, &st, &n_ended, &left);
    if (left > 0 && must_end_all(w, now_ms, &st)) {
        w->ended_all_ms = now_ms;
        close_gate(w, now_ms, &st, true);
    } else if (n_ended > 0 && !is_in_vain(w, false)) {
        close_gate(w, now_ms, &st, false);
    }
    if (st.restart_waits_ms <= c->reader_warn_ms ||
        (w->outside_ms != 0 && now_ms < w->outside_ms + OUTSIDE_MS))
        return false;
    w->outside_ms = now_ms;
    return true;
}

/* Is one of our own statements the reason, or was it? */
static bool is_ours(struct reader_watch *w, uint64_t now_ms, uint64_t waits_ms)
{
    (void)pthread_mutex_lock(&w->lock);
    bool ours = w->ended_ms != 0 && now_ms < w->ended_ms + waits_ms;
    LIST_EACH(i, &w->readings) {
        const struct reading *g = LIST_ENTRY(i, struct reading, link);
        ours = ours || (atomic_load_explicit(&g->holds, memory_order_relaxed) &&
                        age_of(g, now_ms) > w->config->reader_warn_ms);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return ours;
}

void reader_watch_look_outside(struct reader_watch *w)
{
    struct wal_lock_owner owners[OWNERS_MAX];
    struct repl_stats st;
    struct buf who;
    unsigned n;
    uint64_t now = clock_mono_ms();
    enum err e = wal_locks_of_others(w->shm_path, owners, OWNERS_MAX, &n);
    repl_db_stats(w->db, &st);
    (void)pthread_mutex_lock(&w->lock);
    w->others = e == ERR_OK ? n : 0;
    w->others_known = e == ERR_OK;
    (void)pthread_mutex_unlock(&w->lock);
    if (st.wal_bytes <= w->config->wal_limit_bytes || st.restart_waits_ms == 0)
        return; /* meanwhile it is over */
    buf_init(&who, KIB(4));
    for (unsigned i = 0; i < n; i++)
        buf_printf(&who, "%s%s (pid %ld)", i == 0 ? "" : ", ", owners[i].command, owners[i].pid);
    if (n > 0)
        log_warn("node",
                 "wal_held_by_another_process wal_bytes=%" PRIu64 " restart_waits_ms=%" PRIu64
                 " who=\"%.*s\" what_to_do=\"it reads main.db in a transaction that does not end: "
                 "end it there; Lectern cannot\"",
                 st.wal_bytes, st.restart_waits_ms, (int)who.len, (const char *)who.data);
    else if (!is_ours(w, now, st.restart_waits_ms))
        log_warn("node",
                 "wal_held wal_bytes=%" PRIu64 " restart_waits_ms=%" PRIu64
                 " why=\"no statement here is that old: an open transaction, or another program "
                 "that reads main.db%s%s\"",
                 st.wal_bytes, st.restart_waits_ms, e == ERR_OK ? "" : "; ",
                 e == ERR_OK ? "" : err_text());
    buf_fini(&who);
}
