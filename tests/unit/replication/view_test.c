/* Room: tests. The writer's view: the same SQL on a stock database beside it, commits that run
 * ahead of publication, and files that must not show it. */
#include "replication/capture_vfs.h"
#include "replication/database.h"
#include "replication/txn.h"
#include "replication/view.h"

#include "base/mem.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/stock.h"
#include "tests/unit/replication/view_stage.h"

#include <stdlib.h>
#include <string.h>

static void begin(struct stage *s, const char *name) ON_OWNER
{
    struct repl_config c = stage_config(name);
    stage_open(s, &c);
}

/* --- one after the other ---------------------------------------------------------------------- */

TEST(view_runs_ahead_and_the_files_do_not_show_it)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    uint64_t base = repl_db_position(s.db).seq;
    EXPECT(!stage_seal(&s));
    stage_commit(&s, "CREATE TABLE t(a, b)");
    stage_publish_all(&s);
    uint64_t files = stage_files_hash(&s), seen = stage_published_content(&s);

    for (int i = 0; i < 10; i++) {
        stage_commit(&s, "INSERT INTO t VALUES(random(), zeroblob(3000))");
        EXPECT(!stage_seal(&s));
    }
    EXPECT_EQ(stock_int(s.conn, "SELECT count(*) FROM t"), 10);
    EXPECT_EQ(repl_view_seq(s.view), base + 11);
    EXPECT_EQ(stage_files_hash(&s), files);
    EXPECT_EQ(stage_published_content(&s), seen);
    stock_expect_intact(s.conn);

    uint64_t ahead = stage_content(s.conn);
    stage_publish_all(&s);
    EXPECT(stage_files_hash(&s) != files);
    EXPECT_EQ(stage_published_content(&s), ahead);
    EXPECT_EQ(stage_content(s.conn), ahead); /* through the real file now */
    EXPECT_EQ(repl_db_position(s.db).seq, base + 11);
    stage_close(&s);
}

TEST(view_packs_each_page_once_with_its_newest_content)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    stage_commit(&s, "INSERT INTO t VALUES(1, 'x')");
    struct repl_txn *t = s.flight[1];
    EXPECT_EQ(repl_txn_parts(t), 1);
    size_t n, again_n;
    uint8_t *p, *again;
    EXPECT_OK(repl_txn_part(t, 0, &p, &n));
    EXPECT_EQ(repl_txn_bytes(t), t->n_pages * 4096ul);
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
    EXPECT_OK(repl_txn_part(t, 0, &again, &again_n));
    EXPECT(n == again_n && memcmp(p, again, n) == 0);
    free(p);
    free(again);
    stage_publish_all(&s); /* needs the frames, not the parts */
    stage_close(&s);
}

TEST(view_closed_leaves_no_trace)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(a)");
    stage_commit(&s, "INSERT INTO t VALUES(1)");
    stage_publish_all(&s);
    uint64_t files = stage_files_hash(&s), seen = stage_content(s.conn),
             seq = repl_view_seq(s.view);
    stage_commit(&s, "INSERT INTO t VALUES(2)");
    stage_commit(&s, "CREATE TABLE t2(b)");
    stock_exec(s.conn, "BEGIN; INSERT INTO t2 VALUES(3); COMMIT"); /* not even sealed */
    stage_drop_view(&s);
    EXPECT_EQ(stage_files_hash(&s), files);
    EXPECT_EQ(stage_published_content(&s), seen);

    stage_open_view(&s);
    EXPECT_EQ(repl_view_seq(s.view), seq);
    EXPECT_EQ(stage_content(s.conn), seen);
    stock_expect_intact(s.conn);
    stage_commit(&s, "INSERT INTO t VALUES(4)");
    stage_publish_all(&s);
    EXPECT_EQ(stage_published_content(&s), stage_content(s.conn));
    stage_close(&s);

    begin(&s, "main.db"); /* and after a restart of the process */
    EXPECT_EQ(repl_view_seq(s.view), seq + 1);
    EXPECT_EQ(stock_int(s.conn, "SELECT sum(a) FROM t"), 5);
    stage_close(&s);
}

TEST(view_has_one_writer_and_many_readers)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    sqlite3 *other;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(a)");
    EXPECT_OK(repl_view_connect(s.view, &other));
    stage_commit(&s, "INSERT INTO t VALUES(1)");
    EXPECT_EQ(stock_int(other, "SELECT count(*) FROM t"), 1); /* newest commit, not published */

    stock_exec(s.conn, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2)");
    EXPECT_EQ(sqlite3_exec(other, "INSERT INTO t VALUES(3)", NULL, NULL, NULL), SQLITE_BUSY);
    EXPECT_EQ(stock_int(other, "SELECT count(*) FROM t"), 1); /* uncommitted rows do not show */
    EXPECT(!stage_seal(&s));
    stock_exec(s.conn, "COMMIT");
    EXPECT(stage_seal(&s));

    stock_exec(other, "BEGIN");
    EXPECT_EQ(stock_int(other, "SELECT count(*) FROM t"), 2);
    stage_commit(&s, "INSERT INTO t VALUES(4)");
    EXPECT_EQ(stock_int(other, "SELECT count(*) FROM t"), 2); /* its snapshot */
    EXPECT_EQ(sqlite3_exec(other, "INSERT INTO t VALUES(5)", NULL, NULL, NULL),
              SQLITE_BUSY_SNAPSHOT);
    stock_exec(other, "ROLLBACK; INSERT INTO t VALUES(5)");
    EXPECT(stage_seal(&s));
    EXPECT_EQ(stock_int(s.conn, "SELECT count(*) FROM t"), 4);
    EXPECT_EQ(sqlite3_close(other), SQLITE_OK);
    stage_publish_all(&s);
    EXPECT_EQ(stage_published_content(&s), stage_content(s.conn));
    stage_close(&s);
}

TEST(view_enforces_foreign_keys)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(a PRIMARY KEY)");
    stage_commit(&s, "CREATE TABLE t2(a REFERENCES t)");
    EXPECT_EQ(sqlite3_exec(s.conn, "INSERT INTO t2 VALUES(1)", NULL, NULL, NULL),
              SQLITE_CONSTRAINT_FOREIGNKEY);
    EXPECT(!stage_seal(&s));
    stage_close(&s);
}

TEST(view_spills_and_rolls_back)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    stage_publish_all(&s);
    stock_exec(s.conn, "PRAGMA cache_size = 10");
    const char *many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500)"
                       " INSERT INTO t(a) SELECT randomblob(1500) FROM n";
    for (int i = 0; i < 6; i++) {
        stock_exec(s.conn, "BEGIN");
        stock_exec(s.conn, "%s", many);
        stock_exec(s.conn, "UPDATE t SET a = randomblob(1600)"); /* frames written in place */
        stock_exec(s.conn, "SAVEPOINT p");
        stock_exec(s.conn, "%s", many);
        EXPECT(!stage_seal(&s)); /* in the middle: nothing is committed */
        stock_exec(s.conn, "ROLLBACK TO p");
        stock_exec(s.conn, "DELETE FROM t WHERE id %% 3 = 0");
        stock_exec(s.conn, i % 2 == 0 ? "ROLLBACK" : "COMMIT");
        EXPECT_EQ(stage_seal(&s), i % 2);
        stock_expect_intact(s.conn);
    }
    stage_commit(&s, "DELETE FROM t WHERE id % 2 = 0");
    uint64_t ahead = stage_content(s.conn);
    stage_publish_all(&s);
    EXPECT_EQ(stage_published_content(&s), ahead);
    stage_close(&s);
}

/* Stock SQLite 3.40.1 commits frames without a checksum here (view.c, rechain), and loses this
 * transaction and the next ones when it recovers the WAL. */
TEST(view_mends_the_chain_that_sqlite_breaks)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_config c = stage_config("main.db");
    c.page_size = 512;
    stage_open(&s, &c);
    stock_exec(s.conn, "PRAGMA cache_size = 10");
    stage_commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    stage_commit(&s, "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 200)"
                     " INSERT INTO t SELECT i, zeroblob(400) FROM n");
    for (int i = 0; i < 20; i++) {
        stock_exec(s.conn,
                   "BEGIN; SAVEPOINT p;"
                   "UPDATE t SET a = zeroblob(%d) WHERE id %% 40 = 0;"
                   "UPDATE t SET a = zeroblob(%d) WHERE id %% 7 = 0;"
                   "UPDATE t SET a = zeroblob(%d) WHERE id %% 3 = 0; ROLLBACK TO p;"
                   "INSERT INTO t VALUES(%d, 1); COMMIT",
                   310 + i, 393 - i, 348 + i, 1000 + 10 * i);
        EXPECT(stage_seal(&s));
        stage_commit(&s, "INSERT INTO t(a) VALUES(2)"); /* chained to it */
    }
    uint64_t ahead = stage_content(s.conn);
    stage_publish_all(&s);
    stage_drop_view(&s);
    stage_open_view(&s); /* recovers the WAL */
    EXPECT_EQ(stage_content(s.conn), ahead);
    stage_close(&s);
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
    EXPECT(!stage_seal(&s));
    stage_commit(&s, "CREATE TABLE t(a)");
    stage_commit(&s, "INSERT INTO t VALUES(randomblob(9000))");
    EXPECT(s.flight[0]->new_wal && !s.flight[1]->new_wal);
    stage_publish_all(&s);
    EXPECT_EQ(stage_published_content(&s), stage_content(s.conn));
    stage_close(&s);
}

TEST(view_shrinks_and_grows_again)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    const char *fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300)"
                       " INSERT INTO t(a) SELECT randomblob(2500) FROM n";
    for (int round = 0; round < 3; round++) {
        stage_commit(&s, fill);
        int64_t large = stock_int(s.conn, "PRAGMA page_count");
        stage_commit(&s, "DELETE FROM t WHERE id % 10 != 0");
        stage_commit(&s, "VACUUM");
        EXPECT(stock_int(s.conn, "PRAGMA page_count") < large);
        EXPECT_EQ(s.flight[s.n_flight - 1]->pages_after, stock_int(s.conn, "PRAGMA page_count"));
        stage_commit(&s, fill); /* grows over the pages that are gone, all unpublished */
        stage_commit(&s, "VACUUM");
        stock_expect_intact(s.conn);
        if (round == 1)
            stage_publish_all(&s);
    }
    uint64_t ahead = stage_content(s.conn);
    stage_publish_all(&s); /* proves every checksum */
    EXPECT_EQ(stage_published_content(&s), ahead);
    stage_close(&s);
}

TEST(view_carries_big_blobs_in_parts)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_config c = stage_config("main.db");
    c.entry_bytes_max = 256 * 1024;
    stage_open(&s, &c);
    stage_commit(&s, "CREATE TABLE t(a)");
    stage_commit(&s, "INSERT INTO t VALUES(randomblob(3000000))");
    EXPECT(repl_txn_parts(s.flight[1]) >= 12);
    EXPECT_EQ(stock_int(s.conn, "SELECT length(a) FROM t"), 3000000);
    uint64_t ahead = stage_content(s.conn);
    stage_publish_all(&s);
    EXPECT_EQ(stage_published_content(&s), ahead);
    stage_close(&s);
}

/* The section is the caller's, so it may go away after the seal; it is in the last part, the same
 * each time, and takes pages' room in it and not over the limit. */
TEST(view_puts_the_section_into_the_last_part)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    static const char *const sql[] = {"INSERT INTO t VALUES(1)",
                                      "INSERT INTO t VALUES(randomblob(1500000))"};
    struct stage s;
    struct repl_config c = stage_config("main.db");
    c.entry_bytes_max = 512 * 1024;
    stage_open(&s, &c);
    stage_commit(&s, "CREATE TABLE t(a)");
    uint8_t *section = mem_alloc(OUTCOMES_SECTION_MAX);
    for (unsigned i = 0; i < 2; i++) {
        struct repl_txn *t;
        const size_t len = i == 0 ? 10 : OUTCOMES_SECTION_MAX;
        memset(section, 'a', len);
        stock_exec(s.conn, "%s", sql[i]);
        EXPECT_OK(repl_view_seal(s.view, 7, section, len, &t));
        memset(section, 'b', len);
        EXPECT_EQ(repl_txn_parts(t) > 1, i == 1);
        EXPECT(repl_txn_bytes(t) > len);
        for (unsigned round = 0; round < 2; round++)
            for (unsigned k = 0; k < repl_txn_parts(t); k++) {
                uint8_t *bytes;
                size_t n;
                struct repl_entry e;
                const bool last = k + 1 == repl_txn_parts(t);
                EXPECT_OK(repl_txn_part(t, k, &bytes, &n));
                EXPECT(n <= c.entry_bytes_max);
                EXPECT_OK(repl_entry_read(bytes, n, &e));
                EXPECT_EQ(e.section_len, last ? len : 0);
                EXPECT(!last || (e.section[0] == 'a' && e.section[len - 1] == 'a'));
                free(bytes);
            }
        s.flight[s.n_flight++] = t;
    }
    free(section);
    stage_publish_all(&s);
    stage_close(&s);
}

TEST(view_bounds_a_transaction)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_config c = stage_config("main.db");
    c.txn_bytes_max = 400000;
    stage_open(&s, &c);
    stage_commit(&s, "CREATE TABLE t(a)");
    EXPECT_EQ(sqlite3_exec(s.conn, "INSERT INTO t VALUES(randomblob(500000))", NULL, NULL, NULL) &
                  0xff,
              SQLITE_FULL);
    EXPECT(sqlite3_get_autocommit(s.conn));
    EXPECT(!stage_seal(&s));
    stock_exec(s.conn, "PRAGMA cache_size = 10; BEGIN");
    int rc = SQLITE_OK;
    for (int i = 0; i < 100 && rc == SQLITE_OK; i++)
        rc = sqlite3_exec(s.conn, "INSERT INTO t VALUES(randomblob(9000))", NULL, NULL, NULL);
    EXPECT_EQ(rc & 0xff, SQLITE_FULL);
    if (!sqlite3_get_autocommit(s.conn))
        stock_exec(s.conn, "ROLLBACK");
    EXPECT(!stage_seal(&s));
    EXPECT_EQ(stock_int(s.conn, "SELECT count(*) FROM t"), 0);
    for (int i = 0; i < 20; i++) /* many small ones are no large one */
        stage_commit(&s, "INSERT INTO t VALUES(randomblob(100000))");
    stock_expect_intact(s.conn);
    stage_publish_all(&s);
    EXPECT_EQ(stage_published_content(&s), stage_content(s.conn));
    stage_close(&s);
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
    EXPECT_ERR(ERR_MISUSE, repl_view_seal(s.view, 0, NULL, 0, &t));
    EXPECT_ERR(ERR_MISUSE, repl_view_seal(s.view, 0, NULL, 0, &t)); /* and stays so */
    stage_drop_view(&s);
    stage_open_view(&s);
    stage_commit(&s, "CREATE TABLE t(a)");
    stage_publish_all(&s);
    stage_close(&s);
}

/* Pages that a transaction adds and frees again have no use, but a content that counts. */
TEST(view_carries_pages_that_were_freed_at_once)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    for (int secure = 0; secure < 2; secure++) {
        stock_exec(s.conn, "PRAGMA secure_delete = %d", secure);
        for (int i = 0; i < 3; i++) {
            stage_commit(&s, "BEGIN; INSERT INTO t VALUES(1, randomblob(40000));"
                             "INSERT INTO t VALUES(2, randomblob(40000));"
                             "DELETE FROM t WHERE id = 1; COMMIT");
            stage_commit(&s, "DELETE FROM t");
            stage_commit(&s, "VACUUM");
        }
    }
    stage_publish_all(&s);
    stage_close(&s);
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
    stage_commit(&s, "CREATE TABLE t(a)");
    stage_publish_all(&s);
    uint64_t seen = stage_content(s.conn);
    const uint64_t places[] = {3, 10, 17, 24, 2000, 4119}; /* in the last frame */
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        stock_exec(s.conn, "INSERT INTO t VALUES(1)");
        struct overlay *o = overlay_of(s.conn);
        uint64_t at = o->end - 4120 + places[i];
        o->bytes.chunks[at / o->bytes.chunk - o->bytes.first][at % o->bytes.chunk] ^= 16;
        struct repl_txn *t;
        EXPECT_ERR(ERR_CORRUPT, repl_view_seal(s.view, 0, NULL, 0, &t));
        EXPECT(t == NULL);
        stage_drop_view(&s);
        stage_open_view(&s);
        EXPECT_EQ(stage_content(s.conn), seen);
    }
    stage_close(&s);
}

TEST(view_refuses_to_seal_during_a_write)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_txn *t;
    begin(&s, "main.db");
    stock_exec(s.conn, "CREATE TABLE t(a); BEGIN IMMEDIATE");
    EXPECT_ERR(ERR_MISUSE, repl_view_seal(s.view, 0, NULL, 0, &t));
    stage_close(&s);
}

static enum err into_real_wal(void *ctx, const uint8_t *p, size_t n, uint64_t offset)
{
    sqlite3_file *wal = ctx;
    EXPECT_EQ(wal->pMethods->xWrite(wal, p, (int)n, (sqlite3_int64)offset), SQLITE_OK);
    return ERR_OK;
}

/* What a crash during a publication leaves behind the published frames: valid, and not ours. */
TEST(view_sees_no_frame_that_is_not_published)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(a)");
    stage_publish_all(&s);
    uint64_t seen = stage_content(s.conn);
    stage_commit(&s, "INSERT INTO t VALUES(1)");
    uint64_t offset = wal_frame_offset(s.flight[0]->first_frame, 4096);
    uint64_t n = s.flight[0]->n_frames * (uint64_t)(WAL_FRAME_HEADER_BYTES + 4096);
    EXPECT_OK(view_each(s.view, offset, n, into_real_wal, s.db->wal_file));
    stage_drop_view(&s);
    stage_open_view(&s);
    EXPECT_EQ(stage_content(s.conn), seen);
    stage_commit(&s, "INSERT INTO t VALUES(2)");
    stage_publish_all(&s);
    EXPECT_EQ(stock_int(s.conn, "SELECT a FROM t"), 2);
    stage_close(&s);
}

TEST(view_refuses_a_damaged_wal)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(a)");
    stage_commit(&s, "INSERT INTO t VALUES(1)");
    stage_publish_all(&s);
    stage_drop_view(&s);
    sqlite3_file *wal = s.db->wal_file;
    sqlite3_int64 at = (sqlite3_int64)wal_frame_offset(s.db->frames, 4096) + 1000;
    uint8_t byte;
    for (int i = 0; i < 2; i++) {
        EXPECT_EQ(wal->pMethods->xRead(wal, &byte, 1, at), SQLITE_OK);
        byte ^= 1;
        EXPECT_EQ(wal->pMethods->xWrite(wal, &byte, 1, at), SQLITE_OK);
        if (i == 0)
            EXPECT_ERR(ERR_CORRUPT, repl_view_open(s.db, &s.view));
        EXPECT(s.view == NULL);
    }
    stage_open_view(&s); /* mended */
    stage_close(&s);
}

TEST(view_never_touches_the_files)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    begin(&s, "main.db");
    stage_commit(&s, "CREATE TABLE t(a)");
    stage_publish_all(&s);
    uint64_t files = stage_files_hash(&s);
    stage_commit(&s, "INSERT INTO t VALUES(randomblob(100000))");
    EXPECT_EQ(stock_int(s.conn, "PRAGMA wal_checkpoint(TRUNCATE)"), 1); /* busy */
    EXPECT_EQ(stock_int(s.conn, "PRAGMA mmap_size = 1000000"), 0);
    EXPECT(sqlite3_exec(s.conn, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL) != SQLITE_OK);
    stock_exec(s.conn, "PRAGMA synchronous = FULL");
    stage_commit(&s, "INSERT INTO t VALUES(1)"); /* no padding: still one commit */
    EXPECT_EQ(stage_files_hash(&s), files);
    stage_drop_view(&s); /* the last connection of the view: no checkpoint, no delete */
    EXPECT_EQ(stage_files_hash(&s), files);
    EXPECT(repl_db_position(s.db).seq > 0);
    stage_close(&s);
}

/* --- with checkpoints ------------------------------------------------------------------------- */

/* Everything published goes into the database file and the next commit begins a new WAL. */
static void restart_wal(struct stage *s) ON_OWNER
{
    bool wants_quiet;
    stage_publish_all(s);
    while (!s->db->holds_readers)
        EXPECT_OK(repl_db_upkeep(s->db, true, &wants_quiet));
}

static struct repl_config eager_config(const char *name)
{
    struct repl_config c = stage_config(name);
    c.wal_checkpoint_bytes = c.wal_restart_bytes = 1;
    return c;
}

TEST(view_restarts_the_wal)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    struct repl_config c = eager_config("main.db");
    stage_open(&s, &c);
    stage_commit(&s, "CREATE TABLE t(a)");
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 5; k++)
            stage_commit(&s, "INSERT INTO t VALUES(randomblob(10000))");
        restart_wal(&s);
        if (i == 1) { /* it does not come: the view goes, the old WAL stays */
            stage_drop_view(&s);
            EXPECT(!s.db->holds_readers);
            stage_open_view(&s);
            restart_wal(&s);
        }
        if (i == 2) { /* begun and rolled back */
            stock_exec(s.conn, "PRAGMA cache_size = 10; BEGIN");
            for (int k = 0; k < 20; k++)
                stock_exec(s.conn, "INSERT INTO t VALUES(randomblob(10000))");
            stock_exec(s.conn, "ROLLBACK");
            EXPECT(!stage_seal(&s));
            EXPECT_EQ(stock_int(s.conn, "SELECT count(*) FROM t"), 5 * (i + 1));
        }
        stage_commit(&s, "UPDATE t SET a = randomblob(10000) WHERE rowid % 2 = 0");
        EXPECT(s.flight[0]->new_wal && s.flight[0]->first_frame == 1);
        stage_commit(&s, "UPDATE t SET a = randomblob(10000) WHERE rowid % 2 = 1");
        stock_expect_intact(s.conn);
        uint64_t ahead = stage_content(s.conn);
        stage_publish_all(&s);
        EXPECT(!s.db->holds_readers);
        EXPECT_EQ(stage_published_content(&s), ahead);
        EXPECT_EQ(stage_content(s.conn), ahead);
    }
    stage_close(&s);
}

/* A reader of the view on an old state, while newer states get into the database file. */
TEST(view_readers_keep_their_state_during_checkpoints)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct stage s;
    sqlite3 *reader;
    struct repl_config c = eager_config("main.db");
    stage_open(&s, &c);
    stage_commit(&s, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    stage_commit(&s, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300)"
                     " INSERT INTO t(a) SELECT randomblob(2500) FROM n");
    EXPECT_OK(repl_view_connect(s.view, &reader));
    for (int in_wal = 0; in_wal < 2; in_wal++) {
        restart_wal(&s);
        if (in_wal) /* its state is a frame of the WAL, not the bare file */
            stage_commit(&s, "UPDATE t SET a = 1 WHERE id = 1");
        stock_exec(reader, "BEGIN");
        uint64_t seen = stage_content(reader);
        for (int i = 0; i < 3; i++) {
            stage_commit(&s, "UPDATE t SET a = randomblob(2500)");
            stage_publish_all(&s);
            for (int k = 0; k < 50; k++) {
                bool wants_quiet;
                EXPECT_OK(repl_db_upkeep(s.db, false, &wants_quiet));
                (void)sqlite3_sleep(1); /* time for its thread: too little proves less, no more */
            }
            stock_exec(reader, "PRAGMA shrink_memory"); /* from the files, not from its cache */
            EXPECT_EQ(stage_content(reader), seen);
            EXPECT(stage_content(s.conn) != seen);
        }
        stock_exec(reader, "COMMIT");
        EXPECT_EQ(stage_content(reader), stage_content(s.conn));
    }
    EXPECT_EQ(sqlite3_close(reader), SQLITE_OK);
    restart_wal(&s); /* nothing holds it back any more */
    stage_close(&s);
}
