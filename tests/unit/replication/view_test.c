/* Room: tests. The writer's view: the same SQL on a stock database beside it, commits that run
 * ahead of publication, and files that must not show it. */
#include "replication/capture_vfs.h"
#include "replication/database.h"
#include "replication/txn.h"
#include "replication/view.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/stock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ON_FLIGHT_MAX 64

/* --- the stage: a database, its view, one connection ------------------------------------------ */

struct stage {
    struct repl_db *db;
    struct repl_view *view;
    sqlite3 *conn;
    struct repl_txn *flight[ON_FLIGHT_MAX]; /* sealed, not published; oldest first */
    unsigned n_flight;
};

static struct repl_config config_of(const char *name)
{
    struct repl_config c;
    repl_config_init(&c, test_path(name));
    c.database_id = 7;
    return c;
}

static void raise_curtain(struct stage *s, const struct repl_config *c) ON_OWNER
{
    *s = (struct stage){0};
    EXPECT_OK(repl_db_open(c, &s->db));
    EXPECT_OK(repl_view_open(s->db, &s->view));
    EXPECT_OK(repl_view_connect(s->view, &s->conn));
}

/* Drops the view with all that is unpublished. */
static void drop_view(struct stage *s) ON_OWNER
{
    EXPECT_EQ(sqlite3_close(s->conn), SQLITE_OK);
    for (unsigned i = 0; i < s->n_flight; i++)
        repl_txn_free(s->flight[i]);
    s->n_flight = 0;
    s->conn = NULL;
    repl_view_close(s->view);
    s->view = NULL;
}

static void open_view(struct stage *s) ON_OWNER
{
    EXPECT_OK(repl_view_open(s->db, &s->view));
    EXPECT_OK(repl_view_connect(s->view, &s->conn));
}

static void drop_curtain(struct stage *s) ON_OWNER
{
    if (s->view != NULL)
        drop_view(s);
    EXPECT_OK(repl_db_verify(s->db));
    EXPECT_OK(repl_db_close(s->db));
}

/* Seals what was committed: true when there was something. */
static bool seal(struct stage *s) ON_OWNER
{
    struct repl_txn *t;
    uint64_t before = repl_view_seq(s->view);
    EXPECT_OK(repl_view_seal(s->view, 1234, &t));
    EXPECT_EQ(repl_view_seq(s->view), before + (t != NULL));
    if (t == NULL)
        return false;
    EXPECT_EQ(repl_txn_seq(t), before + 1);
    EXPECT(s->n_flight < ON_FLIGHT_MAX);
    s->flight[s->n_flight++] = t;
    EXPECT_EQ(view_unpublished(s->view), s->n_flight);
    return true;
}

static void publish(struct stage *s) ON_OWNER
{
    CHECK(s->n_flight > 0);
    uint64_t seq = repl_txn_seq(s->flight[0]);
    EXPECT_OK(repl_db_publish(s->db, s->flight[0]));
    memmove(s->flight, s->flight + 1, --s->n_flight * sizeof *s->flight);
    EXPECT_EQ(repl_db_position(s->db).seq, seq);
}

static void publish_all(struct stage *s) ON_OWNER
{
    while (s->n_flight > 0)
        publish(s);
}

/* SQL, one commit, sealed. */
static void commit(struct stage *s, const char *sql) ON_OWNER
{
    stock_exec(s->conn, "%s", sql);
    EXPECT(seal(s));
}

/* The hash of all rows and the whole schema. */
static uint64_t content(sqlite3 *db)
{
    uint64_t h = 1;
    sqlite3_stmt *tables, *rows;
    EXPECT_EQ(sqlite3_prepare_v2(db, "SELECT name, sql FROM sqlite_schema ORDER BY name", -1,
                                 &tables, NULL),
              SQLITE_OK);
    while (sqlite3_step(tables) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(tables, 0);
        h = hash64(name, strlen(name), h);
        if (strncmp(name, "t", 1) != 0)
            continue;
        char *sql = sqlite3_mprintf("SELECT * FROM \"%w\" ORDER BY 1", name);
        EXPECT_EQ(sqlite3_prepare_v2(db, sql, -1, &rows, NULL), SQLITE_OK);
        int rc;
        while ((rc = sqlite3_step(rows)) == SQLITE_ROW)
            for (int i = 0; i < sqlite3_column_count(rows); i++) {
                const void *p = sqlite3_column_blob(rows, i);
                h = hash64(p, (size_t)sqlite3_column_bytes(rows, i), h + 1);
            }
        EXPECT_EQ(rc, SQLITE_DONE);
        sqlite3_finalize(rows);
        sqlite3_free(sql);
    }
    EXPECT_EQ(sqlite3_finalize(tables), SQLITE_OK);
    return h;
}

/* What a stock reader sees. */
static uint64_t published_content(const struct stage *s)
{
    thread_become(THREAD_READER);
    thread_expect_reader();
    sqlite3 *reader;
    EXPECT_OK(repl_reader_open(s->db, &reader));
    uint64_t h = content(reader);
    EXPECT_EQ(sqlite3_close(reader), SQLITE_OK);
    thread_become(THREAD_OWNER);
    return h;
}

/* The bytes of the real files, through the keeper. */
static uint64_t files_hash(const struct stage *s)
{
    uint64_t h = 0;
    sqlite3_file *files[] = {s->db->db_file, s->db->wal_file};
    for (int i = 0; i < 2; i++) {
        size_t n;
        uint8_t *p = stock_bytes(files[i], &n);
        h = hash64(p, n, h);
        free(p);
    }
    return h;
}

static void begin(struct stage *s, const char *name) ON_OWNER
{
    struct repl_config c = config_of(name);
    raise_curtain(s, &c);
}

/* --- one after the other ---------------------------------------------------------------------- */

TEST(view_runs_ahead_and_the_files_do_not_show_it)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    uint64_t base = repl_db_position(s.db).seq;
    EXPECT(!seal(&s));
    commit(&s, "CREATE TABLE t(a, b)");
    publish_all(&s);
    uint64_t files = files_hash(&s), seen = published_content(&s);

    for (int i = 0; i < 10; i++) {
        commit(&s, "INSERT INTO t VALUES(random(), zeroblob(3000))");
        EXPECT(!seal(&s));
    }
    EXPECT_EQ(stock_int(s.conn, "SELECT count(*) FROM t"), 10);
    EXPECT_EQ(repl_view_seq(s.view), base + 11);
    EXPECT_EQ(files_hash(&s), files);
    EXPECT_EQ(published_content(&s), seen);
    stock_expect_intact(s.conn);

    uint64_t ahead = content(s.conn);
    publish_all(&s);
    EXPECT(files_hash(&s) != files);
    EXPECT_EQ(published_content(&s), ahead);
    EXPECT_EQ(content(s.conn), ahead); /* through the real file now */
    EXPECT_EQ(repl_db_position(s.db).seq, base + 11);
    drop_curtain(&s);
}

TEST(view_packs_each_page_once_with_its_newest_content)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    commit(&s, "INSERT INTO t VALUES(1, 'x')");
    struct repl_txn *t = s.flight[1];
    EXPECT_EQ(repl_txn_parts(t), 1);
    size_t n;
    const uint8_t *p = repl_txn_part(t, 0, &n);
    EXPECT_EQ(n, repl_txn_bytes(t));
    struct txn_decoder d;
    EXPECT_OK(txn_decoder_init(&d, p, n));
    EXPECT_EQ(d.head.seq, repl_txn_seq(t));
    EXPECT_EQ(d.head.database_id, 7);
    EXPECT_EQ(d.head.wall_ms, 1234);
    EXPECT_EQ(d.head.checksum_before, s.flight[0]->checksum_after);
    EXPECT_EQ(d.head.checksum_after, t->checksum_after);
    EXPECT_EQ(d.head.pages_after, stock_int(s.conn, "PRAGMA page_count"));
    uint32_t page_no, last = 0, pages = 0;
    uint8_t *page = mem_alloc(d.head.page_size);
    for (bool done = false;;) {
        EXPECT_OK(txn_decoder_page(&d, &page_no, page, &done));
        if (done)
            break;
        EXPECT(page_no > last);
        EXPECT_EQ(digest_page_hash(page_no, page, d.head.page_size), t->pages[pages].hash);
        last = page_no;
        pages++;
    }
    EXPECT_EQ(pages, t->n_pages);
    free(page);
    uint8_t *taken = repl_txn_part_take(t, 0, &n);
    EXPECT(taken == p);
    free(taken);
    publish_all(&s); /* needs the frames, not the parts */
    drop_curtain(&s);
}

TEST(view_closed_leaves_no_trace)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(a)");
    commit(&s, "INSERT INTO t VALUES(1)");
    publish_all(&s);
    uint64_t files = files_hash(&s), seen = content(s.conn), seq = repl_view_seq(s.view);
    commit(&s, "INSERT INTO t VALUES(2)");
    commit(&s, "CREATE TABLE t2(b)");
    stock_exec(s.conn, "BEGIN; INSERT INTO t2 VALUES(3); COMMIT"); /* not even sealed */
    drop_view(&s);
    EXPECT_EQ(files_hash(&s), files);
    EXPECT_EQ(published_content(&s), seen);

    open_view(&s);
    EXPECT_EQ(repl_view_seq(s.view), seq);
    EXPECT_EQ(content(s.conn), seen);
    stock_expect_intact(s.conn);
    commit(&s, "INSERT INTO t VALUES(4)");
    publish_all(&s);
    EXPECT_EQ(published_content(&s), content(s.conn));
    drop_curtain(&s);

    begin(&s, "main.db"); /* and after a restart of the process */
    EXPECT_EQ(repl_view_seq(s.view), seq + 1);
    EXPECT_EQ(stock_int(s.conn, "SELECT sum(a) FROM t"), 5);
    drop_curtain(&s);
}

TEST(view_has_one_writer_and_many_readers)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    sqlite3 *other;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(a)");
    EXPECT_OK(repl_view_connect(s.view, &other));
    commit(&s, "INSERT INTO t VALUES(1)");
    EXPECT_EQ(stock_int(other, "SELECT count(*) FROM t"), 1); /* newest commit, not published */

    stock_exec(s.conn, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2)");
    EXPECT_EQ(sqlite3_exec(other, "INSERT INTO t VALUES(3)", NULL, NULL, NULL), SQLITE_BUSY);
    EXPECT_EQ(stock_int(other, "SELECT count(*) FROM t"), 1); /* uncommitted rows do not show */
    EXPECT(!seal(&s));
    stock_exec(s.conn, "COMMIT");
    EXPECT(seal(&s));

    stock_exec(other, "BEGIN");
    EXPECT_EQ(stock_int(other, "SELECT count(*) FROM t"), 2);
    commit(&s, "INSERT INTO t VALUES(4)");
    EXPECT_EQ(stock_int(other, "SELECT count(*) FROM t"), 2); /* its snapshot */
    EXPECT_EQ(sqlite3_exec(other, "INSERT INTO t VALUES(5)", NULL, NULL, NULL),
              SQLITE_BUSY_SNAPSHOT);
    stock_exec(other, "ROLLBACK; INSERT INTO t VALUES(5)");
    EXPECT(seal(&s));
    EXPECT_EQ(stock_int(s.conn, "SELECT count(*) FROM t"), 4);
    EXPECT_EQ(sqlite3_close(other), SQLITE_OK);
    publish_all(&s);
    EXPECT_EQ(published_content(&s), content(s.conn));
    drop_curtain(&s);
}

TEST(view_enforces_foreign_keys)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(a PRIMARY KEY)");
    commit(&s, "CREATE TABLE t2(a REFERENCES t)");
    EXPECT_EQ(sqlite3_exec(s.conn, "INSERT INTO t2 VALUES(1)", NULL, NULL, NULL),
              SQLITE_CONSTRAINT_FOREIGNKEY);
    EXPECT(!seal(&s));
    drop_curtain(&s);
}

TEST(view_spills_and_rolls_back)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    publish_all(&s);
    stock_exec(s.conn, "PRAGMA cache_size = 10");
    const char *many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500)"
                       " INSERT INTO t(a) SELECT randomblob(1500) FROM n";
    for (int i = 0; i < 6; i++) {
        stock_exec(s.conn, "BEGIN");
        stock_exec(s.conn, "%s", many);
        stock_exec(s.conn, "UPDATE t SET a = randomblob(1600)"); /* frames written in place */
        stock_exec(s.conn, "SAVEPOINT p");
        stock_exec(s.conn, "%s", many);
        EXPECT(!seal(&s)); /* in the middle: nothing is committed */
        stock_exec(s.conn, "ROLLBACK TO p");
        stock_exec(s.conn, "DELETE FROM t WHERE id %% 3 = 0");
        stock_exec(s.conn, i % 2 == 0 ? "ROLLBACK" : "COMMIT");
        EXPECT_EQ(seal(&s), i % 2);
        stock_expect_intact(s.conn);
    }
    commit(&s, "DELETE FROM t WHERE id % 2 = 0");
    uint64_t ahead = content(s.conn);
    publish_all(&s);
    EXPECT_EQ(published_content(&s), ahead);
    drop_curtain(&s);
}

/* Stock SQLite 3.40.1 commits frames without a checksum here (view.c, rechain), and loses this
 * transaction and the next ones when it recovers the WAL. */
TEST(view_mends_the_chain_that_sqlite_breaks)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_config c = config_of("main.db");
    c.page_size = 512;
    raise_curtain(&s, &c);
    stock_exec(s.conn, "PRAGMA cache_size = 10");
    commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    commit(&s, "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 200)"
               " INSERT INTO t SELECT i, zeroblob(400) FROM n");
    for (int i = 0; i < 20; i++) {
        stock_exec(s.conn,
                   "BEGIN; SAVEPOINT p;"
                   "UPDATE t SET a = zeroblob(%d) WHERE id %% 40 = 0;"
                   "UPDATE t SET a = zeroblob(%d) WHERE id %% 7 = 0;"
                   "UPDATE t SET a = zeroblob(%d) WHERE id %% 3 = 0; ROLLBACK TO p;"
                   "INSERT INTO t VALUES(%d, 1); COMMIT",
                   310 + i, 393 - i, 348 + i, 1000 + 10 * i);
        EXPECT(seal(&s));
        commit(&s, "INSERT INTO t(a) VALUES(2)"); /* chained to it */
    }
    uint64_t ahead = content(s.conn);
    publish_all(&s);
    drop_view(&s);
    open_view(&s); /* recovers the WAL */
    EXPECT_EQ(content(s.conn), ahead);
    drop_curtain(&s);
}

/* The very first transaction of a WAL, spilled and rolled back: its header is written again. */
TEST(view_begins_a_wal_after_a_rolled_back_beginning)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    EXPECT_EQ(s.db->frames, 0);
    stock_exec(s.conn, "PRAGMA cache_size = 10; BEGIN; CREATE TABLE t(a)");
    for (int i = 0; i < 50; i++)
        stock_exec(s.conn, "INSERT INTO t VALUES(randomblob(9000))");
    stock_exec(s.conn, "ROLLBACK");
    EXPECT(!seal(&s));
    commit(&s, "CREATE TABLE t(a)");
    commit(&s, "INSERT INTO t VALUES(randomblob(9000))");
    EXPECT(s.flight[0]->new_wal && !s.flight[1]->new_wal);
    publish_all(&s);
    EXPECT_EQ(published_content(&s), content(s.conn));
    drop_curtain(&s);
}

TEST(view_shrinks_and_grows_again)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    const char *fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300)"
                       " INSERT INTO t(a) SELECT randomblob(2500) FROM n";
    for (int round = 0; round < 3; round++) {
        commit(&s, fill);
        int64_t large = stock_int(s.conn, "PRAGMA page_count");
        commit(&s, "DELETE FROM t WHERE id % 10 != 0");
        commit(&s, "VACUUM");
        EXPECT(stock_int(s.conn, "PRAGMA page_count") < large);
        EXPECT_EQ(s.flight[s.n_flight - 1]->pages_after, stock_int(s.conn, "PRAGMA page_count"));
        commit(&s, fill); /* grows over the pages that are gone, all unpublished */
        commit(&s, "VACUUM");
        stock_expect_intact(s.conn);
        if (round == 1)
            publish_all(&s);
    }
    uint64_t ahead = content(s.conn);
    publish_all(&s); /* proves every checksum */
    EXPECT_EQ(published_content(&s), ahead);
    drop_curtain(&s);
}

TEST(view_carries_big_blobs_in_parts)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_config c = config_of("main.db");
    c.entry_bytes_max = 256 * 1024;
    raise_curtain(&s, &c);
    commit(&s, "CREATE TABLE t(a)");
    commit(&s, "INSERT INTO t VALUES(randomblob(3000000))");
    EXPECT(repl_txn_parts(s.flight[1]) >= 12);
    EXPECT_EQ(stock_int(s.conn, "SELECT length(a) FROM t"), 3000000);
    uint64_t ahead = content(s.conn);
    publish_all(&s);
    EXPECT_EQ(published_content(&s), ahead);
    drop_curtain(&s);
}

TEST(view_bounds_a_transaction)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_config c = config_of("main.db");
    c.txn_bytes_max = 400000;
    raise_curtain(&s, &c);
    commit(&s, "CREATE TABLE t(a)");
    EXPECT_EQ(sqlite3_exec(s.conn, "INSERT INTO t VALUES(randomblob(500000))", NULL, NULL, NULL) &
                  0xff,
              SQLITE_FULL);
    EXPECT(sqlite3_get_autocommit(s.conn));
    EXPECT(!seal(&s));
    stock_exec(s.conn, "PRAGMA cache_size = 10; BEGIN");
    int rc = SQLITE_OK;
    for (int i = 0; i < 100 && rc == SQLITE_OK; i++)
        rc = sqlite3_exec(s.conn, "INSERT INTO t VALUES(randomblob(9000))", NULL, NULL, NULL);
    EXPECT_EQ(rc & 0xff, SQLITE_FULL);
    if (!sqlite3_get_autocommit(s.conn))
        stock_exec(s.conn, "ROLLBACK");
    EXPECT(!seal(&s));
    EXPECT_EQ(stock_int(s.conn, "SELECT count(*) FROM t"), 0);
    for (int i = 0; i < 20; i++) /* many small ones are no large one */
        commit(&s, "INSERT INTO t VALUES(randomblob(100000))");
    stock_expect_intact(s.conn);
    publish_all(&s);
    EXPECT_EQ(published_content(&s), content(s.conn));
    drop_curtain(&s);
}

/* --- what must be refused --------------------------------------------------------------------- */

TEST(view_refuses_two_commits_in_one_seal)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_txn *t;
    begin(&s, "main.db");
    stock_exec(s.conn, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    EXPECT_ERR(ERR_MISUSE, repl_view_seal(s.view, 0, &t));
    EXPECT_ERR(ERR_MISUSE, repl_view_seal(s.view, 0, &t)); /* and stays so */
    drop_view(&s);
    open_view(&s);
    commit(&s, "CREATE TABLE t(a)");
    publish_all(&s);
    drop_curtain(&s);
}

/* Pages that a transaction adds and frees again have no use, but a content that counts. */
TEST(view_carries_pages_that_were_freed_at_once)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    for (int secure = 0; secure < 2; secure++) {
        stock_exec(s.conn, "PRAGMA secure_delete = %d", secure);
        for (int i = 0; i < 3; i++) {
            commit(&s, "BEGIN; INSERT INTO t VALUES(1, randomblob(40000));"
                       "INSERT INTO t VALUES(2, randomblob(40000));"
                       "DELETE FROM t WHERE id = 1; COMMIT");
            commit(&s, "DELETE FROM t");
            commit(&s, "VACUUM");
        }
    }
    publish_all(&s);
    drop_curtain(&s);
}

/* The way from a connection to its overlay, as capture_vfs.c lays out its WAL file. */
static struct overlay *overlay_of(sqlite3 *conn)
{
    struct {
        sqlite3_file base;
        struct capture *capture;
    } file;
    memcpy(&file, stock_file(conn, SQLITE_FCNTL_JOURNAL_POINTER), sizeof file);
    return &file.capture->overlay;
}

/* One bit of a frame that SQLite wrote, changed in memory before it is sealed. */
TEST(view_seals_nothing_that_is_damaged)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(a)");
    publish_all(&s);
    uint64_t seen = content(s.conn);
    const uint64_t places[] = {3, 10, 17, 24, 2000, 4119}; /* in the last frame */
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        stock_exec(s.conn, "INSERT INTO t VALUES(1)");
        struct overlay *o = overlay_of(s.conn);
        uint64_t at = o->end - 4120 + places[i];
        o->chunks[at / KIB(256) - o->first][at % KIB(256)] ^= 16;
        struct repl_txn *t;
        EXPECT_ERR(ERR_CORRUPT, repl_view_seal(s.view, 0, &t));
        EXPECT(t == NULL);
        drop_view(&s);
        open_view(&s);
        EXPECT_EQ(content(s.conn), seen);
    }
    drop_curtain(&s);
}

TEST(view_never_touches_the_files)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    commit(&s, "CREATE TABLE t(a)");
    publish_all(&s);
    uint64_t files = files_hash(&s);
    commit(&s, "INSERT INTO t VALUES(randomblob(100000))");
    EXPECT_EQ(stock_int(s.conn, "PRAGMA wal_checkpoint(TRUNCATE)"), 1); /* busy */
    EXPECT_EQ(stock_int(s.conn, "PRAGMA mmap_size = 1000000"), 0);
    EXPECT(sqlite3_exec(s.conn, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL) != SQLITE_OK);
    stock_exec(s.conn, "PRAGMA synchronous = FULL");
    commit(&s, "INSERT INTO t VALUES(1)"); /* no padding: still one commit */
    EXPECT_EQ(files_hash(&s), files);
    drop_view(&s); /* the last connection of the view: no checkpoint, no delete */
    EXPECT_EQ(files_hash(&s), files);
    EXPECT(repl_db_position(s.db).seq > 0);
    drop_curtain(&s);
}

/* --- with checkpoints ------------------------------------------------------------------------- */

/* Everything published goes into the database file and the next commit begins a new WAL. */
static void restart_wal(struct stage *s) ON_OWNER
{
    bool wants_quiet;
    publish_all(s);
    while (!s->db->holds_readers)
        EXPECT_OK(repl_db_upkeep(s->db, true, &wants_quiet));
}

static struct repl_config eager_config(const char *name)
{
    struct repl_config c = config_of(name);
    c.wal_checkpoint_bytes = c.wal_restart_bytes = 1;
    return c;
}

TEST(view_restarts_the_wal)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_config c = eager_config("main.db");
    raise_curtain(&s, &c);
    commit(&s, "CREATE TABLE t(a)");
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 5; k++)
            commit(&s, "INSERT INTO t VALUES(randomblob(10000))");
        restart_wal(&s);
        if (i == 1) { /* it does not come: the view goes, the old WAL stays */
            drop_view(&s);
            EXPECT(!s.db->holds_readers);
            open_view(&s);
            restart_wal(&s);
        }
        if (i == 2) { /* begun and rolled back */
            stock_exec(s.conn, "PRAGMA cache_size = 10; BEGIN");
            for (int k = 0; k < 20; k++)
                stock_exec(s.conn, "INSERT INTO t VALUES(randomblob(10000))");
            stock_exec(s.conn, "ROLLBACK");
            EXPECT(!seal(&s));
            EXPECT_EQ(stock_int(s.conn, "SELECT count(*) FROM t"), 5 * (i + 1));
        }
        commit(&s, "UPDATE t SET a = randomblob(10000) WHERE rowid % 2 = 0");
        EXPECT(s.flight[0]->new_wal && s.flight[0]->first_frame == 1);
        commit(&s, "UPDATE t SET a = randomblob(10000) WHERE rowid % 2 = 1");
        stock_expect_intact(s.conn);
        uint64_t ahead = content(s.conn);
        publish_all(&s);
        EXPECT(!s.db->holds_readers);
        EXPECT_EQ(published_content(&s), ahead);
        EXPECT_EQ(content(s.conn), ahead);
    }
    drop_curtain(&s);
}

/* A reader of the view on an old state, while newer states get into the database file. */
TEST(view_readers_keep_their_state_during_checkpoints)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    sqlite3 *reader;
    struct repl_config c = eager_config("main.db");
    raise_curtain(&s, &c);
    commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    commit(&s, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300)"
               " INSERT INTO t(a) SELECT randomblob(2500) FROM n");
    EXPECT_OK(repl_view_connect(s.view, &reader));
    for (int in_wal = 0; in_wal < 2; in_wal++) {
        restart_wal(&s);
        if (in_wal) /* its state is a frame of the WAL, not the bare file */
            commit(&s, "UPDATE t SET a = 1 WHERE id = 1");
        stock_exec(reader, "BEGIN");
        uint64_t seen = content(reader);
        for (int i = 0; i < 3; i++) {
            commit(&s, "UPDATE t SET a = randomblob(2500)");
            publish_all(&s);
            for (int k = 0; k < 50; k++) {
                bool wants_quiet;
                EXPECT_OK(repl_db_upkeep(s.db, false, &wants_quiet));
                (void)sqlite3_sleep(1); /* time for its thread: too little proves less, no more */
            }
            stock_exec(reader, "PRAGMA shrink_memory"); /* from the files, not from its cache */
            EXPECT_EQ(content(reader), seen);
            EXPECT(content(s.conn) != seen);
        }
        stock_exec(reader, "COMMIT");
        EXPECT_EQ(content(reader), content(s.conn));
    }
    EXPECT_EQ(sqlite3_close(reader), SQLITE_OK);
    restart_wal(&s); /* nothing holds it back any more */
    drop_curtain(&s);
}

/* --- random SQL, a shadow, a follower --------------------------------------------------------- */

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
        const uint8_t *bytes = repl_txn_part(t, i, &n);
        EXPECT_OK(repl_db_apply(p->follower, bytes, n));
    }
    publish(&p->leader);
    struct repl_position a = repl_db_position(p->leader.db), b = repl_db_position(p->follower);
    EXPECT_EQ(a.seq, b.seq);
    EXPECT_EQ(a.checksum, b.checksum);
}

static void expect_published(struct play *p) ON_OWNER
{
    uint64_t seq = repl_db_position(p->leader.db).seq;
    struct stage follower = {.db = p->follower};
    EXPECT_EQ(published_content(&p->leader), p->content_at[seq]);
    EXPECT_EQ(published_content(&follower), p->content_at[seq]);
}

/* The leader loses its office and gets it again: what was not published is gone. */
static void new_view(struct play *p) ON_OWNER
{
    sqlite3 *reader;
    drop_view(&p->leader);
    thread_become(THREAD_READER);
    thread_expect_reader();
    EXPECT_OK(repl_reader_open(p->leader.db, &reader));
    sqlite3_backup *b = sqlite3_backup_init(p->shadow, "main", reader, "main");
    EXPECT_EQ(sqlite3_backup_step(b, -1), SQLITE_DONE);
    EXPECT_EQ(sqlite3_backup_finish(b), SQLITE_OK);
    EXPECT_EQ(sqlite3_close(reader), SQLITE_OK);
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    open_view(&p->leader);
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
    seal(l);
    CHECK(repl_view_seq(l->view) < SEQS_MAX);
    uint64_t seq = repl_view_seq(l->view);
    if (seq > before) {
        p->content_at[seq] = content(l->conn);
        if (rng_once_in(&p->rng, 10))
            EXPECT_EQ(p->content_at[seq], content(p->shadow));
    }
    if (l->n_flight == ON_FLIGHT_MAX)
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
    struct repl_config c = config_of("leader.db");
    c.page_size = page_size;
    c.wal_checkpoint_bytes = 300000;
    c.wal_restart_bytes = 1000000;
    c.entry_bytes_max = 100000 + rng_below(&p.rng, 400000);
    raise_curtain(&p.leader, &c);
    EXPECT_EQ(mkdir(test_path("follower"), 0700), 0); /* `position` lies beside the database */
    c.path = test_path("follower/main.db");
    EXPECT_OK(repl_db_open(&c, &p.follower));
    p.shadow = stock_open(test_path("shadow.db"), page_size);
    stock_exec(p.leader.conn, "PRAGMA cache_size = 20"); /* spills all the time */
    for (int i = 0; i < 3; i++) {
        char *sql = sqlite3_mprintf("CREATE TABLE t%d(id INTEGER PRIMARY KEY, a, b)", i);
        both(&p, sql);
        sqlite3_free(sql);
        EXPECT(seal(&p.leader));
        p.content_at[repl_view_seq(p.leader.view)] = content(p.leader.conn);
    }
    for (uint64_t i = 0, n = test_rounds(800); i < n; i++)
        play_step(&p);
    while (p.leader.n_flight > 0)
        publish_and_follow(&p);
    EXPECT_EQ(content(p.leader.conn), content(p.shadow));
    expect_published(&p);
    drop_curtain(&p.leader);
    EXPECT_OK(repl_db_verify(p.follower));
    EXPECT_OK(repl_db_close(p.follower));
    stock_close(p.shadow);
    free(p.content_at);
}
