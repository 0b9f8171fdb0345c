/* Room: tests. A leader and followers without Raft: random SQL over many WAL restarts and
 * checkpoints, leadership that wanders, transactions that are lost. All must stay equal, byte by
 * byte, and sound for stock SQLite. */
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <stdlib.h>
#include <string.h>

#define NODES      3
#define TABLES     5
#define FLIGHT_MAX 8

struct world {
    struct rng rng;
    uint32_t page_size;
    struct repl_db *db[NODES];
    unsigned cursor[NODES]; /* the next entry of the log that it has not seen */
    unsigned leader;
    struct replica_leader l;
    struct replica_log log;
    struct repl_txn *flight[FLIGHT_MAX]; /* sealed, not published; oldest first */
    unsigned n_flight;
    uint64_t sealed, lost;
    uint64_t restarts, checkpoints; /* of all, also before they were closed */
};

/* --- random SQL ------------------------------------------------------------------------------- */

static void random_change(struct world *w)
{
    sqlite3 *c = w->l.conn;
    struct rng *r = &w->rng;
    unsigned t = (unsigned)rng_below(r, TABLES), k = (unsigned)rng_below(r, 2000);
    switch (rng_below(r, 12)) {
    case 0:
        stock_exec(c, "DROP TABLE IF EXISTS t%u", t);
        break;
    case 1:
        stock_exec(c, "CREATE INDEX IF NOT EXISTS i%u ON t%u(b, a)", t, t);
        break;
    case 2:
        stock_exec(c, "DELETE FROM t%u WHERE k BETWEEN %u AND %u", t, k, k + 300);
        break;
    case 3:
        stock_exec(c, "UPDATE t%u SET b = b || 'x', a = a + 1 WHERE k BETWEEN %u AND %u", t, k,
                   k + 40);
        break;
    case 4:
        stock_exec(c, "REPLACE INTO t%u VALUES(%u, 1, 'big', randomblob(%u))", t, k,
                   (unsigned)rng_below(r, rng_once_in(r, 10) ? 200000 : 5000));
        break;
    case 5:
        stock_exec(c,
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u) "
                   "INSERT OR IGNORE INTO t%u SELECT %u + i, i, hex(randomblob(8)), "
                   "randomblob(abs(random()) %% 200) FROM n",
                   (unsigned)rng_below(r, 100) + 1, t, k);
        break;
    default:
        stock_exec(c, "INSERT OR REPLACE INTO t%u VALUES(%u, %u, 'name %u', randomblob(%u))", t, k,
                   k % 7, k, (unsigned)rng_below(r, 100));
        break;
    }
}

static void ensure_table(struct world *w)
{
    for (unsigned t = 0; t < TABLES; t++)
        stock_exec(w->l.conn,
                   "CREATE TABLE IF NOT EXISTS t%u(k INTEGER PRIMARY KEY, a INT, b TEXT, c BLOB)",
                   t);
}

/* Some changes in one transaction; it may be rolled back in part, or whole. */
static void random_transaction(struct world *w)
{
    sqlite3 *c = w->l.conn;
    struct rng *r = &w->rng;
    switch (rng_below(r, 200)) {
    case 0:
    case 1:
        stock_exec(c, "VACUUM");
        return;
    case 2: /* none, full, by hand: some changes need a VACUUM, some are a commit of their own */
        stock_exec(c, "PRAGMA auto_vacuum=%u", (unsigned)rng_below(r, 3));
        return;
    case 3:
    case 4:
        stock_exec(c, "PRAGMA incremental_vacuum(%u)", (unsigned)rng_below(r, 30));
        return;
    default:
        break;
    }
    stock_exec(c, "BEGIN");
    ensure_table(w);
    for (unsigned i = (unsigned)rng_below(r, 4) + 1; i > 0; i--) {
        bool back = rng_once_in(r, 8);
        if (back)
            stock_exec(c, "SAVEPOINT s");
        random_change(w);
        ensure_table(w);
        if (back)
            stock_exec(c, "ROLLBACK TO s; RELEASE s");
    }
    stock_exec(c, rng_once_in(r, 12) ? "ROLLBACK" : "COMMIT");
}

/* --- moves ------------------------------------------------------------------------------------ */

static void publish_oldest(struct world *w) ON_OWNER
{
    struct repl_txn *t = w->flight[0];
    replica_log_add(&w->log, t);
    w->cursor[w->leader] = w->log.n;
    EXPECT_OK(repl_db_publish(w->db[w->leader], t));
    w->n_flight--;
    memmove(w->flight, w->flight + 1, w->n_flight * sizeof w->flight[0]);
}

static void upkeep_leader(struct world *w) ON_OWNER
{
    bool wants_quiet;
    struct repl_db *db = w->db[w->leader];
    EXPECT_OK(repl_db_upkeep(db, w->n_flight == 0, &wants_quiet));
    if (!wants_quiet || rng_once_in(&w->rng, 4)) /* sometimes it does not get what it wants */
        return;
    while (w->n_flight > 0)
        publish_oldest(w);
    replica_upkeep(db);
}

static void write_some(struct world *w) ON_OWNER
{
    struct repl_txn *t;
    random_transaction(w);
    EXPECT_OK(repl_view_seal(w->l.view, w->sealed, NULL, 0, &t));
    if (t != NULL) {
        w->sealed++;
        w->flight[w->n_flight++] = t;
    }
    while (w->n_flight == FLIGHT_MAX || (w->n_flight > 0 && rng_once_in(&w->rng, 2)))
        publish_oldest(w);
    upkeep_leader(w);
}

static void follow(struct world *w, unsigned i, unsigned end) ON_OWNER
{
    if (i != w->leader)
        replica_apply(w->db[i], &w->log, &w->cursor[i], end);
}

/* The leader goes. Of what it had in flight some was ordered, the rest is lost. */
static void change_leader(struct world *w) ON_OWNER
{
    unsigned ordered = (unsigned)rng_below(&w->rng, w->n_flight + 1);
    for (unsigned i = 0; i < w->n_flight; i++) {
        if (i < ordered)
            replica_log_add(&w->log, w->flight[i]);
        else
            w->lost++;
        repl_txn_free(w->flight[i]);
    }
    w->n_flight = 0;
    replica_unlead(&w->l);
    unsigned next = (unsigned)rng_below(&w->rng, NODES);
    replica_apply(w->db[next], &w->log, &w->cursor[next], w->log.n);
    w->leader = next;
    replica_lead(&w->l, w->db[next]);
}

static void count(struct world *w, unsigned i) ON_OWNER
{
    struct repl_stats s;
    repl_db_stats(w->db[i], &s);
    w->restarts += s.wal_restarts;
    w->checkpoints += s.checkpoints;
}

static struct repl_db *open_node(struct world *w, unsigned i) ON_OWNER
{
    char name[] = {(char)('a' + i), 0};
    struct repl_config c = replica_config(name);
    struct repl_db *db;
    c.page_size = w->page_size;
    c.entry_bytes_max = w->page_size + 4096;
    EXPECT_OK(repl_db_open(&c, &db));
    return db;
}

/* Closed and opened again: what it contains does not change. */
static void reopen(struct world *w, unsigned i) ON_OWNER
{
    if (i == w->leader)
        return;
    struct repl_position before = repl_db_position(w->db[i]);
    count(w, i);
    EXPECT_OK(repl_db_close(w->db[i]));
    w->db[i] = open_node(w, i);
    EXPECT(repl_db_position_known(w->db[i]));
    EXPECT_EQ(repl_db_position(w->db[i]).seq, before.seq);
    EXPECT_EQ(repl_db_position(w->db[i]).checksum, before.checksum);
}

static void compare_all(struct world *w) ON_OWNER
{
    while (w->n_flight > 0)
        publish_oldest(w);
    for (unsigned i = 0; i < NODES; i++) {
        follow(w, i, w->log.n);
        replica_expect_sound(w->db[i]);
        if (i > 0)
            replica_expect_equal(w->db[0], w->db[i]);
    }
}

static void world_init(struct world *w) ON_OWNER
{
    *w = (struct world){.rng = {test_seed()}};
    w->page_size = 512u << rng_below(&w->rng, 6);
    for (unsigned i = 0; i < NODES; i++)
        w->db[i] = open_node(w, i);
    replica_lead(&w->l, w->db[0]);
}

static void world_fini(struct world *w) ON_OWNER
{
    compare_all(w);
    replica_unlead(&w->l);
    for (unsigned i = 0; i < NODES; i++)
        EXPECT_OK(repl_db_close(w->db[i]));
    replica_log_free(&w->log);
}

TEST(pair_random_sql_keeps_all_equal)
{
    replica_become_owner();
    struct world w;
    world_init(&w);
    uint64_t rounds = test_rounds(3000);
    for (uint64_t n = 1; n <= rounds; n++) {
        write_some(&w);
        for (unsigned i = 0; i < NODES; i++)
            if (rng_once_in(&w.rng, 3)) /* may stop inside a cut transaction */
                follow(&w, i, w.cursor[i] + (unsigned)rng_below(&w.rng, w.log.n - w.cursor[i] + 1));
        if (rng_once_in(&w.rng, 100))
            change_leader(&w);
        if (n % 250 == 0)
            compare_all(&w);
        if (rng_once_in(&w.rng, 200)) {
            unsigned i = (unsigned)rng_below(&w.rng, NODES);
            follow(&w, i, w.log.n); /* not inside a cut transaction: its parts would be gone */
            reopen(&w, i);
        }
    }
    compare_all(&w);
    for (unsigned i = 0; i < NODES; i++)
        count(&w, i);
    (void)printf(
        "page size %u sealed %llu lost %llu entries %u restarts %llu checkpoints %llu pages %u\n",
        w.page_size, (unsigned long long)w.sealed, (unsigned long long)w.lost, w.log.n,
        (unsigned long long)w.restarts, (unsigned long long)w.checkpoints, w.db[0]->pages);
    EXPECT(w.log.n > w.sealed - w.lost); /* some were cut */
    EXPECT(w.checkpoints >= rounds / 100 && w.restarts >= rounds / 100);
    world_fini(&w);
}

TEST(pair_dropping_the_view_loses_exactly_the_unpublished)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *a = replica_open("a"), *b = replica_open("b");
    struct replica_leader l;
    struct repl_txn *t[3];
    replica_lead(&l, a);
    replica_write(&l, &log, "CREATE TABLE t(a)");
    for (int i = 0; i < 3; i++) {
        stock_exec(l.conn, "INSERT INTO t VALUES(%d)", i);
        EXPECT_OK(repl_view_seal(l.view, 1, NULL, 0, &t[i]));
    }
    EXPECT_EQ(repl_view_seq(l.view), 4);
    EXPECT_EQ(replica_read_int(a, "SELECT count(*) FROM t"), 0);
    EXPECT_EQ(stock_int(l.conn, "SELECT count(*) FROM t"), 3);
    replica_log_add(&log, t[0]);
    EXPECT_OK(repl_db_publish(a, t[0]));
    EXPECT_EQ(replica_read_int(a, "SELECT count(*) FROM t"), 1);
    repl_txn_free(t[1]);
    repl_txn_free(t[2]);
    stock_exec(l.conn, "BEGIN; INSERT INTO t VALUES(9)"); /* open when the leadership goes */
    replica_unlead(&l);
    EXPECT_EQ(replica_read_int(a, "SELECT count(*) FROM t"), 1);
    EXPECT_EQ(repl_db_position(a).seq, 2);

    unsigned cursor = 0;
    replica_apply(b, &log, &cursor, log.n);
    replica_expect_equal(a, b);
    replica_lead(&l, b);
    replica_write(&l, &log, "INSERT INTO t VALUES(100)");
    replica_unlead(&l);
    cursor = log.n - 1;
    replica_apply(a, &log, &cursor, log.n);
    replica_expect_equal(a, b);
    replica_expect_sound(a);
    EXPECT_OK(repl_db_close(a));
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&log);
}

TEST(pair_transaction_of_many_parts_and_batches)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *a = replica_open("a"), *b = replica_open("b");
    struct replica_leader l;
    replica_lead(&l, a);
    replica_write(&l, &log, "CREATE TABLE t(a)");
    for (int i = 0; i < 2; i++) { /* 5 MB: several batches of frames on the follower */
        replica_write(&l, &log,
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                      "WHERE i < 50) INSERT INTO t SELECT randomblob(100000) FROM n");
        replica_upkeep(a);
    }
    EXPECT(log.n > 1000);
    unsigned cursor = 0;
    replica_apply(b, &log, &cursor, log.n);
    replica_expect_equal(a, b);
    replica_expect_sound(a);
    replica_expect_sound(b);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(a));
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&log);
}

TEST(pair_unfinished_parts_of_a_lost_leader_are_dropped)
{
    replica_become_owner();
    struct replica_log lost = {0}, log = {0};
    struct repl_db *a = replica_open("a"), *b = replica_open("b");
    struct replica_leader l;
    replica_lead(&l, a);
    replica_write(&l, &lost, "CREATE TABLE t AS SELECT randomblob(50000)");
    replica_unlead(&l);
    EXPECT(lost.n > 3);
    EXPECT_OK(repl_db_apply(b, lost.entries[0].bytes, lost.entries[0].n));
    EXPECT_OK(repl_db_apply(b, lost.entries[1].bytes, lost.entries[1].n));
    EXPECT_EQ(repl_db_position(b).seq, 0);
    repl_db_apply_reset(b);
    replica_lead(&l, b);
    replica_write(&l, &log, "CREATE TABLE other AS SELECT randomblob(50000)");
    replica_unlead(&l);
    EXPECT_EQ(repl_db_position(b).seq, 1);
    replica_expect_sound(b);
    EXPECT_OK(repl_db_close(a));
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&lost);
    replica_log_free(&log);
}

/* --- what apply refuses ----------------------------------------------------------------------- */

/* A and its log of three transactions, the last in several parts. */
static struct repl_db *make_log(struct replica_log *log) ON_OWNER
{
    struct repl_db *a = replica_open("a");
    struct replica_leader l;
    replica_lead(&l, a);
    replica_write(&l, log, "CREATE TABLE t(a)");
    replica_write(&l, log, "INSERT INTO t VALUES(1)");
    replica_write(&l, log, "INSERT INTO t VALUES(randomblob(50000))");
    replica_unlead(&l);
    EXPECT(log->n > 5);
    return a;
}

static enum err apply_one(struct repl_db *db, const struct replica_log *log, unsigned i) ON_OWNER
{
    return repl_db_apply(db, log->entries[i].bytes, log->entries[i].n);
}

static void expect_stopped(enum err code, enum err got, const char *word,
                           struct repl_db *db) ON_OWNER
{
    EXPECT_ERR(code, got);
    if (strstr(err_text(), word) == NULL)
        test_fail(__FILE__, __LINE__, "no \"%s\" in \"%s\"", word, err_text());
    EXPECT_ERR(ERR_STOPPED, repl_db_verify(db));
    EXPECT(strstr(err_text(), word) != NULL);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
}

TEST(pair_apply_refuses_a_gap)
{
    replica_become_owner();
    struct replica_log log = {0};
    EXPECT_OK(repl_db_close(make_log(&log)));
    struct repl_db *b = replica_open("b");
    expect_stopped(ERR_DIVERGED, apply_one(b, &log, 1), "transaction 2", b);
    b = replica_open("b"); /* nothing was written */
    EXPECT_EQ(repl_db_position(b).seq, 0);
    EXPECT_OK(apply_one(b, &log, 0));
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&log);
}

TEST(pair_apply_refuses_parts_out_of_order)
{
    replica_become_owner();
    struct replica_log log = {0};
    EXPECT_OK(repl_db_close(make_log(&log)));
    struct repl_db *b = replica_open("b");
    for (unsigned i = 0; i < 3; i++)
        EXPECT_OK(apply_one(b, &log, i));
    expect_stopped(ERR_CORRUPT, apply_one(b, &log, 4), "part 2", b);
    b = replica_open("b");
    expect_stopped(ERR_CORRUPT, apply_one(b, &log, 3), "part 1", b);
    replica_log_free(&log);
}

TEST(pair_apply_refuses_damage_and_foreign_entries)
{
    replica_become_owner();
    struct replica_log log = {0};
    EXPECT_OK(repl_db_close(make_log(&log)));
    struct repl_db *b = replica_open("b");
    log.entries[0].bytes[log.entries[0].n / 2] ^= 1;
    expect_stopped(ERR_CORRUPT, apply_one(b, &log, 0), "checksum", b);
    log.entries[0].bytes[log.entries[0].n / 2] ^= 1;
    struct repl_config c = replica_config("c");
    c.database_id = 99;
    EXPECT_OK(repl_db_open(&c, &b));
    expect_stopped(ERR_DIVERGED, apply_one(b, &log, 0), "joined to another cluster", b);
    c = replica_config("d");
    c.page_size = 4096;
    EXPECT_OK(repl_db_open(&c, &b));
    expect_stopped(ERR_DIVERGED, apply_one(b, &log, 0), "4096", b);
    replica_log_free(&log);
}

TEST(pair_divergence_is_found_before_it_is_visible)
{
    replica_become_owner();
    struct replica_log log = {0}, other = {0};
    EXPECT_OK(repl_db_close(make_log(&log)));
    struct repl_db *b = replica_open("b"), *c = replica_open("c");
    struct replica_leader l;
    replica_lead(&l, b);
    replica_write(&l, &other, "CREATE TABLE different(a)");
    replica_unlead(&l);
    expect_stopped(ERR_DIVERGED, apply_one(b, &log, 1), "its leader had", b);
    /* At the same sequence, from the log of a restart. */
    b = replica_open("b");
    expect_stopped(ERR_DIVERGED, apply_one(b, &log, 0), "the log says", b);
    b = replica_open("b");
    EXPECT_EQ(repl_db_position(b).seq, 1);
    EXPECT_EQ(replica_read_int(b, "SELECT count(*) FROM different"), 0);
    EXPECT_OK(repl_db_close(b));
    /* A page hash that is wrong here: the checksum after cannot come out. */
    EXPECT_OK(apply_one(c, &log, 0));
    digest_set(c->digest, 1, digest_get(c->digest, 1) ^ 1);
    expect_stopped(ERR_DIVERGED, apply_one(c, &log, 1), "its leader says", c);
    c = replica_open("c"); /* the files were never touched by it */
    EXPECT_EQ(repl_db_position(c).seq, 1);
    EXPECT_EQ(replica_read_int(c, "SELECT count(*) FROM t"), 0);
    unsigned cursor = 1;
    replica_apply(c, &log, &cursor, log.n);
    EXPECT_OK(repl_db_close(c));
    replica_log_free(&log);
    replica_log_free(&other);
}

TEST(pair_a_follower_accepts_more_than_it_would_make)
{
    replica_become_owner();
    struct replica_log log = {0};
    EXPECT_OK(repl_db_close(make_log(&log)));
    struct repl_config c = replica_config("b");
    c.txn_bytes_max = 4096;
    struct repl_db *b;
    EXPECT_OK(repl_db_open(&c, &b));
    for (unsigned i = 0; i < log.n; i++)
        EXPECT_OK(apply_one(b, &log, i));
    EXPECT_EQ(repl_db_position(b).seq, 3);
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&log);
}
