/* Room: tests. Random SQL in the writer's view, on a stock database beside it, and on a follower
 * that applies what is published: all three must agree, with checkpoints, WAL restarts and views
 * that are dropped on the way. */
#include "tests/unit/replication/stock.h"
#include "tests/unit/replication/view_stage.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <sys/stat.h>

#define SEQS_MAX 100000

struct play {
    struct stage leader;
    struct repl_db *follower;
    sqlite3 *shadow;
    struct rng rng;
    uint64_t *content_at; /* by sequence */
};

static void both(struct play *p, const char *sql)
{
    char *why = NULL, *why_shadow = NULL;
    int rc = sqlite3_exec(p->leader.conn, sql, NULL, NULL, &why);
    int rc_shadow = sqlite3_exec(p->shadow, sql, NULL, NULL, &why_shadow);
    if ((rc & 0xff) != (rc_shadow & 0xff))
        test_fail(__FILE__, __LINE__, "%s: %d %s, the shadow: %d %s", sql, rc, why, rc_shadow,
                  why_shadow);
    sqlite3_free(why);
    sqlite3_free(why_shadow);
}

static void statement(struct play *p)
{
    struct rng *r = &p->rng;
    unsigned t = (unsigned)rng_below(r, 3), id = (unsigned)rng_below(r, 400);
    unsigned n = (unsigned)rng_below(r, rng_once_in(r, 10) ? 30000 : 300);
    char *sql;
    switch (rng_below(r, 9)) {
    case 0:
        sql = sqlite3_mprintf("DELETE FROM t%u WHERE id %% %u = 1", t, 1 + id % 20);
        break;
    case 1:
        sql = sqlite3_mprintf("UPDATE t%u SET b = zeroblob(%u) WHERE id > %u LIMIT 40", t, n, id);
        break;
    case 2:
        sql = sqlite3_mprintf("INSERT INTO t%u(a, b) SELECT a + 1, b FROM t%u LIMIT 30", t,
                              (t + 1) % 3);
        break;
    case 3:
        sql = sqlite3_mprintf("INSERT INTO t%u VALUES(%u, %u, 1)", t, id, id); /* may fail */
        break;
    default:
        sql = sqlite3_mprintf("INSERT OR REPLACE INTO t%u VALUES(%u, %u, hex(zeroblob(%u)))", t, id,
                              (unsigned)rng_u64(r), n);
    }
    both(p, sql);
    sqlite3_free(sql);
}

static void transaction(struct play *p)
{
    struct rng *r = &p->rng;
    both(p, rng_once_in(r, 2) ? "BEGIN" : "BEGIN IMMEDIATE");
    bool saved = false;
    for (uint64_t i = rng_below(r, 12); i > 0; i--) {
        statement(p);
        if (rng_once_in(r, 4)) {
            both(p, saved ? rng_once_in(r, 2) ? "ROLLBACK TO p; RELEASE p" : "RELEASE p"
                          : "SAVEPOINT p");
            saved = !saved;
        }
    }
    both(p, rng_once_in(r, 4) ? "ROLLBACK" : "COMMIT");
}

static void change_schema(struct play *p)
{
    switch (rng_below(&p->rng, 5)) {
    case 0:
        both(p, "VACUUM");
        break;
    case 1:
        both(p, "DROP TABLE IF EXISTS t9");
        break;
    case 2:
        both(p, "CREATE TABLE t9 AS SELECT * FROM t1");
        break;
    case 3:
        both(p, "DROP INDEX IF EXISTS i1");
        break;
    default:
        both(p, "CREATE INDEX IF NOT EXISTS i1 ON t1(a)");
    }
}

static void publish_and_follow(struct play *p) ON_OWNER
{
    struct repl_txn *t = p->leader.flight[0];
    for (unsigned i = 0; i < repl_txn_parts(t); i++) {
        size_t n;
        uint8_t *bytes;
        EXPECT_OK(repl_txn_part(t, i, &bytes, &n));
        EXPECT_OK(repl_db_apply(p->follower, bytes, n));
        free(bytes);
    }
    stage_publish(&p->leader);
    struct repl_position a = repl_db_position(p->leader.db), b = repl_db_position(p->follower);
    EXPECT_EQ(a.seq, b.seq);
    EXPECT_EQ(a.checksum, b.checksum);
}

static void expect_published(struct play *p) ON_OWNER
{
    uint64_t seq = repl_db_position(p->leader.db).seq;
    struct stage follower = {.db = p->follower};
    EXPECT_EQ(stage_published_content(&p->leader), p->content_at[seq]);
    EXPECT_EQ(stage_published_content(&follower), p->content_at[seq]);
}

/* The leader loses its office and gets it again: what was not published is gone. */
static void new_view(struct play *p) ON_OWNER
{
    sqlite3 *reader;
    stage_drop_view(&p->leader);
    thread_become(THREAD_READER);
    thread_expect_reader();
    EXPECT_OK(repl_reader_open(p->leader.db, &reader));
    sqlite3_backup *b = sqlite3_backup_init(p->shadow, "main", reader, "main");
    EXPECT_EQ(sqlite3_backup_step(b, -1), SQLITE_DONE);
    EXPECT_EQ(sqlite3_backup_finish(b), SQLITE_OK);
    EXPECT_EQ(sqlite3_close(reader), SQLITE_OK);
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    stage_open_view(&p->leader);
    stock_exec(p->leader.conn, "PRAGMA cache_size = 20");
}

static void play_step(struct play *p) ON_OWNER
{
    struct stage *l = &p->leader;
    bool wants_quiet;
    uint64_t before = repl_view_seq(l->view);
    switch (rng_below(&p->rng, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        statement(p);
        break;
    case 4:
    case 5:
        transaction(p);
        break;
    case 6:
        if (rng_once_in(&p->rng, 8))
            change_schema(p);
        break;
    case 7:
        EXPECT_OK(repl_db_upkeep(l->db, l->n_flight == 0, &wants_quiet));
        EXPECT_OK(repl_db_upkeep(p->follower, true, &wants_quiet));
        if (wants_quiet || rng_once_in(&p->rng, 10))
            while (l->n_flight > 0)
                publish_and_follow(p);
        break;
    case 8:
        if (rng_once_in(&p->rng, 40))
            new_view(p);
        break;
    default:
        for (uint64_t i = rng_below(&p->rng, 4); i > 0 && l->n_flight > 0; i--)
            publish_and_follow(p);
    }
    stage_seal(l);
    CHECK(repl_view_seq(l->view) < SEQS_MAX);
    uint64_t seq = repl_view_seq(l->view);
    if (seq > before) {
        p->content_at[seq] = stage_content(l->conn);
        if (rng_once_in(&p->rng, 10))
            EXPECT_EQ(p->content_at[seq], stage_content(p->shadow));
    }
    if (l->n_flight == STAGE_FLIGHT_MAX)
        publish_and_follow(p);
    if (rng_once_in(&p->rng, 50))
        expect_published(p);
    if (rng_once_in(&p->rng, 200))
        stock_expect_intact(l->conn);
}

TEST(view_plays_random_sql_like_stock_sqlite)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct play p = {.rng = {test_seed()}};
    p.content_at = mem_zalloc(SEQS_MAX * sizeof *p.content_at);
    p.content_at[0] = 1; /* of no tables */
    uint32_t page_size = 512u << rng_below(&p.rng, 5);
    struct repl_config c = stage_config("leader.db");
    c.page_size = page_size;
    c.wal_checkpoint_bytes = 300000;
    c.wal_restart_bytes = 1000000;
    c.entry_bytes_max = 100000 + rng_below(&p.rng, 400000);
    stage_open(&p.leader, &c);
    EXPECT_EQ(mkdir(test_path("follower"), 0700), 0); /* `position` lies beside the database */
    c.path = test_path("follower/main.db");
    EXPECT_OK(repl_db_open(&c, &p.follower));
    p.shadow = stock_open(test_path("shadow.db"), page_size);
    stock_exec(p.leader.conn, "PRAGMA cache_size = 20"); /* spills all the time */
    for (int i = 0; i < 3; i++) {
        char *sql = sqlite3_mprintf("CREATE TABLE t%d(id INTEGER PRIMARY KEY, a, b)", i);
        both(&p, sql);
        sqlite3_free(sql);
        EXPECT(stage_seal(&p.leader));
        p.content_at[repl_view_seq(p.leader.view)] = stage_content(p.leader.conn);
    }
    for (uint64_t i = 0, n = test_rounds(800); i < n; i++)
        play_step(&p);
    while (p.leader.n_flight > 0)
        publish_and_follow(&p);
    EXPECT_EQ(stage_content(p.leader.conn), stage_content(p.shadow));
    expect_published(&p);
    stage_close(&p.leader);
    EXPECT_OK(repl_db_verify(p.follower));
    EXPECT_OK(repl_db_close(p.follower));
    stock_close(p.shadow);
    free(p.content_at);
}
