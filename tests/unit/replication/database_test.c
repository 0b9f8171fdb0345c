/* Room: tests. Creating, opening, closing, and what is said about files that are not ours. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void read_file(const char *path, struct buf *b)
{
    buf_init(b, 64 << 20);
    EXPECT_OK(file_read_all(path, b));
}

TEST(database_is_created_the_same_everywhere)
{
    replica_become_owner();
    struct repl_db *a = replica_open("a"), *b = replica_open("b");
    EXPECT(repl_db_position_known(a));
    EXPECT_EQ(repl_db_position(a).seq, 0);
    replica_expect_equal(a, b);
    EXPECT_EQ(replica_read_int(a, "SELECT count(*) FROM sqlite_schema"), 0);
    EXPECT_OK(repl_db_verify(a));
    EXPECT_OK(repl_db_close(a));
    EXPECT_OK(repl_db_close(b));
    struct buf x, y;
    read_file(test_path("a/main.db"), &x);
    read_file(test_path("b/main.db"), &y);
    EXPECT_EQ(x.len, 1024);
    EXPECT(y.len == x.len && memcmp(x.data, y.data, x.len) == 0);
    buf_fini(&x);
    buf_fini(&y);
}

TEST(database_genesis_suits_stock_sqlite_at_every_page_size)
{
    replica_become_owner();
    for (uint32_t size = 512; size <= 65536; size *= 2) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", size);
        struct repl_config c = replica_config(name);
        c.page_size = size;
        c.entry_bytes_max = 1 << 20;
        struct repl_db *db;
        EXPECT_OK(repl_db_open(&c, &db));
        struct replica_leader l;
        replica_lead(&l, db);
        replica_write(&l, NULL, "CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(%u));",
                      3 * size);
        replica_unlead(&l);
        replica_expect_sound(db);
        EXPECT_OK(repl_db_close(db));
        sqlite3 *stock = stock_open(c.path, 4096);
        EXPECT_EQ(stock_int(stock, "PRAGMA page_size"), size);
        EXPECT_EQ(stock_int(stock, "SELECT length(a) FROM t"), 3 * size);
        stock_expect_intact(stock);
        stock_close(stock);
    }
}

TEST(database_refuses_odd_page_sizes)
{
    replica_become_owner();
    struct repl_config c = replica_config("a");
    struct repl_db *db;
    c.page_size = 1000;
    EXPECT_ERR(ERR_CONFIG, repl_db_open(&c, &db));
    c.page_size = 131072;
    EXPECT_ERR(ERR_CONFIG, repl_db_open(&c, &db));
}

TEST(database_remembers_its_position)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct replica_leader l;
    struct repl_db *db = replica_open("a");
    replica_lead(&l, db);
    replica_write(&l, &log, "CREATE TABLE t(a)");
    for (int i = 0; i < 10; i++)
        replica_write(&l, &log, "INSERT INTO t VALUES(%d)", i);
    replica_unlead(&l);
    struct repl_position before = repl_db_position(db);
    EXPECT_EQ(before.seq, 11);
    EXPECT_EQ(repl_db_published(db), 11);
    EXPECT_EQ(repl_db_published_upper(db), 11);
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(repl_db_close(db));
        db = replica_open("a");
        EXPECT(repl_db_position_known(db));
        EXPECT_EQ(repl_db_position(db).seq, before.seq);
        EXPECT_EQ(repl_db_position(db).checksum, before.checksum);
        EXPECT_EQ(replica_read_int(db, "SELECT sum(a) FROM t"), 45);
        replica_expect_sound(db);
    }
    /* It has all of the log already: skipped. */
    unsigned cursor = 0;
    replica_apply(db, &log, &cursor, log.n);
    EXPECT_EQ(repl_db_position(db).seq, before.seq);
    EXPECT_OK(repl_db_close(db));
    replica_log_free(&log);
}

/* --- files that are not as we left them ------------------------------------------------------- */

static void expect_open_fails(enum err code, const char *name)
{
    replica_become_owner();
    struct repl_config c = replica_config(name);
    struct repl_db *db;
    EXPECT_ERR(code, repl_db_open(&c, &db));
    EXPECT(strlen(err_text()) > 20);
}

/* A database of N transactions behind the first, not closed cleanly when CRASH. */
static void make(const char *name, int n) ON_OWNER
{
    struct repl_db *db = replica_open(name);
    struct replica_leader l;
    replica_lead(&l, db);
    replica_write(&l, NULL, "CREATE TABLE t(a)");
    for (int i = 0; i < n; i++)
        replica_write(&l, NULL, "INSERT INTO t VALUES(%d)", i);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
}

TEST(database_without_position_is_not_ours)
{
    replica_become_owner();
    make("a", 3);
    EXPECT(unlink(test_path("a/position")) == 0);
    expect_open_fails(ERR_CORRUPT, "a");
    EXPECT(unlink(test_path("a/main.db-wal")) == 0);
    expect_open_fails(ERR_CORRUPT, "a");
}

TEST(database_creation_is_finished_after_a_crash)
{
    replica_become_owner();
    EXPECT_OK(repl_db_close(replica_open("a")));
    EXPECT(unlink(test_path("a/position")) == 0);
    (void)unlink(test_path("a/main.db-wal"));
    struct repl_db *db = replica_open("a");
    EXPECT_EQ(repl_db_position(db).seq, 0);
    EXPECT_OK(repl_db_close(db));
    /* A temporary file that never was renamed. */
    EXPECT(unlink(test_path("a/position")) == 0 && unlink(test_path("a/main.db")) == 0);
    (void)unlink(test_path("a/main.db-wal"));
    stock_write(test_path("a/main.db.new"), (const uint8_t *)"half", 4);
    db = replica_open("a");
    EXPECT_EQ(repl_db_position(db).seq, 0);
    EXPECT_OK(repl_db_close(db));
}

TEST(database_missing_beside_its_position)
{
    replica_become_owner();
    make("a", 3);
    EXPECT(unlink(test_path("a/main.db")) == 0);
    expect_open_fails(ERR_CORRUPT, "a");
}

TEST(database_of_another_cluster_is_refused)
{
    replica_become_owner();
    make("a", 1);
    struct repl_config c = replica_config("a");
    c.database_id++;
    struct repl_db *db;
    EXPECT_ERR(ERR_FORMAT, repl_db_open(&c, &db));
}

TEST(database_keeps_its_page_size)
{
    replica_become_owner();
    make("a", 1);
    struct repl_config c = replica_config("a");
    c.page_size = 8192;
    struct repl_db *db;
    struct repl_stats stats;
    EXPECT_OK(repl_db_open(&c, &db));
    repl_db_stats(db, &stats);
    EXPECT_EQ(stats.page_size, 1024);
    EXPECT_EQ(stats.published_seq, 2);
    EXPECT_OK(repl_db_close(db));
}

TEST(database_in_another_journal_mode_is_refused)
{
    replica_become_owner();
    make("a", 1);
    sqlite3 *stock = stock_open(test_path("a/main.db"), 1024);
    stock_exec(stock, "PRAGMA journal_mode=DELETE");
    stock_close(stock);
    expect_open_fails(ERR_FORMAT, "a");
}

TEST(database_written_by_another_program_while_stopped)
{
    replica_become_owner();
    make("a", 5);
    sqlite3 *stock = stock_open(test_path("a/main.db"), 1024);
    stock_exec(stock, "INSERT INTO t VALUES(99)");
    stock_close(stock); /* keeps the WAL: its commit looks like one of ours */
    expect_open_fails(ERR_CORRUPT, "a");
    EXPECT(strstr(err_text(), "another program") != NULL);
}

TEST(database_checkpointed_and_written_by_another_program)
{
    replica_become_owner();
    make("a", 5);
    sqlite3 *stock = stock_open(test_path("a/main.db"), 1024);
    stock_exec(stock, "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(99)");
    stock_close(stock);
    expect_open_fails(ERR_CORRUPT, "a");
}

/* What `sqlite3 main.db` does when it is the only one: checkpoints and removes the WAL. */
static void visit_with_stock(const char *path)
{
    sqlite3 *stock = NULL;
    EXPECT(sqlite3_open(path, &stock) == SQLITE_OK);
    EXPECT(stock_int(stock, "SELECT count(*) FROM sqlite_schema") > 0);
    stock_close(stock);
    char *wal = mem_printf("%s-wal", path);
    EXPECT(access(wal, F_OK) != 0);
    free(wal);
}

TEST(database_knows_its_position_without_a_wal)
{
    replica_become_owner();
    make("a", 5);
    visit_with_stock(test_path("a/main.db"));
    struct repl_db *db = replica_open("a");
    EXPECT(repl_db_position_known(db));
    EXPECT_EQ(repl_db_position(db).seq, 6);
    struct replica_leader l;
    replica_lead(&l, db);
    replica_write(&l, NULL, "INSERT INTO t VALUES(7)");
    EXPECT_EQ(repl_db_position(db).seq, 7);
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

/* The files of DB as a kill now would leave them, under NAME. */
static void copy_as_killed(struct repl_db *db, const char *name)
{
    struct repl_config c = replica_config(name);
    stock_copy_files(db->db_file, db->wal_file, c.path);
    struct buf position;
    read_file(db->position_path, &position);
    char *file = mem_printf("%s/position", name);
    stock_write(test_path(file), position.data, position.len);
    free(file);
    buf_fini(&position);
}

TEST(database_adopts_a_position)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *a = replica_open("a"), *b = replica_open("b");
    struct replica_leader l;
    replica_lead(&l, a);
    replica_write(&l, &log, "CREATE TABLE t(a)");
    for (int i = 0; i < 5; i++)
        replica_write(&l, &log, "INSERT INTO t VALUES(%d)", i);
    replica_unlead(&l);
    unsigned cursor = 0;
    replica_apply(b, &log, &cursor, log.n - 1);
    copy_as_killed(b, "c"); /* not closed; then somebody looks with sqlite3 */
    EXPECT_OK(repl_db_close(b));
    visit_with_stock(test_path("c/main.db"));

    struct repl_db *c = replica_open("c");
    EXPECT(!repl_db_position_known(c));
    struct repl_entry e; /* the checksum is there to be looked for in the log */
    EXPECT_OK(repl_entry_read(log.entries[log.n - 2].bytes, log.entries[log.n - 2].n, &e));
    EXPECT_EQ(repl_db_position(c).checksum, e.checksum_after);
    EXPECT_EQ(repl_db_position(c).seq, 0);
    const struct replica_entry *last = &log.entries[log.n - 1];
    EXPECT_ERR(ERR_MISUSE, repl_db_apply(c, last->bytes, last->n));
    struct repl_view *view;
    EXPECT_ERR(ERR_MISUSE, repl_view_open(c, &view));
    EXPECT_OK(repl_db_adopt_position(c, log.entries[log.n - 2].seq));
    EXPECT_OK(repl_db_close(c));
    c = replica_open("c"); /* adopted for good */
    EXPECT(repl_db_position_known(c));
    EXPECT_ERR(ERR_MISUSE, repl_db_adopt_position(c, 1));
    replica_apply(c, &log, &cursor, log.n);
    replica_expect_equal(a, c);
    replica_expect_sound(c);
    EXPECT_OK(repl_db_close(c));
    EXPECT_OK(repl_db_close(a));
    replica_log_free(&log);
}

TEST(database_killed_after_a_clean_stop_and_more_writes)
{
    replica_become_owner();
    make("a", 5);
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    replica_lead(&l, db);
    replica_write(&l, NULL, "INSERT INTO t VALUES(77)"); /* into the WAL that the stop left */
    copy_as_killed(db, "b");
    replica_unlead(&l);
    struct repl_db *b = replica_open("b");
    EXPECT(repl_db_position_known(b));
    EXPECT_EQ(repl_db_position(b).seq, 7);
    replica_expect_equal(db, b);
    EXPECT_OK(repl_db_close(b));
    EXPECT_OK(repl_db_close(db));
}

/* DB's process is killed; its memory is not: another connection keeps the wal-index alive. */
static void kill_owner(struct replica_leader *l) ON_OWNER
{
    struct repl_db *db = l->db;
    replica_unlead(l);
    database_free(db); /* notes and copies nothing */
}

/* As wal_index_restart leaves it between the header and nBackfill. */
static void index_as_killed_in_restart(struct repl_db *db, uint32_t backfilled) ON_OWNER
{
    void volatile *block = NULL;
    EXPECT(db->db_file->pMethods->xShmMap(db->db_file, 0, 32768, 0, &block) == SQLITE_OK);
    uint32_t volatile *n_backfill = (uint32_t volatile *)block + 24;
    *n_backfill = db->frames; /* what wal_index_restart asks for */
    wal_index_restart(db->index, db->wal.salt);
    *n_backfill = backfilled;
}

TEST(database_killed_inside_the_restart_of_an_index_that_lives_on)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    sqlite3 *foreign = stock_open(db->config.path, 1024); /* another process's */
    struct replica_leader l;
    struct wal_index_state x;
    bool wants_quiet;
    replica_lead(&l, db);
    replica_write(&l, NULL, "CREATE TABLE t(a, b)");
    for (int i = 0; i < 400; i++)
        replica_write(&l, NULL, "INSERT INTO t VALUES(%d, randomblob(900))", i);
    EXPECT_EQ(stock_int(foreign, "SELECT count(*) FROM t"), 400);
    replica_upkeep(db);
    uint32_t old = db->frames;
    replica_write(&l, NULL, "INSERT INTO t VALUES(400, randomblob(900))");
    EXPECT(old > 400 && db->frames < 10);
    index_as_killed_in_restart(db, old);
    kill_owner(&l);

    db = replica_open("a");
    EXPECT_OK(wal_index_read(db->index, &x));
    EXPECT_EQ(x.frames, db->frames);
    EXPECT(x.frames > 0 && x.backfilled == 0);
    EXPECT_EQ(repl_db_position(db).seq, 402);
    EXPECT_EQ(stock_int(foreign, "SELECT count(*) FROM t"), 401);
    replica_lead(&l, db);
    for (int i = 401; db->frames < old; i++) { /* up to what was said to be copied */
        replica_write(&l, NULL, "INSERT INTO t VALUES(%d, randomblob(900))", i);
        EXPECT_EQ(stock_int(foreign, "SELECT count(*) FROM t"), i + 1);
    }
    EXPECT_OK(repl_db_upkeep(db, false, &wants_quiet));
    replica_unlead(&l);
    replica_expect_sound(db);
    stock_close(foreign);
    EXPECT_OK(repl_db_close(db));
}

/* --- damage ----------------------------------------------------------------------------------- */

static void flip_bit(const char *path, uint64_t offset)
{
    int fd;
    uint8_t byte;
    size_t got;
    EXPECT_OK(file_open(path, O_RDWR, 0, &fd));
    EXPECT_OK(file_read_at(fd, path, &byte, 1, offset, &got));
    EXPECT(got == 1);
    byte ^= 0x10;
    EXPECT_OK(file_write_at(fd, path, &byte, 1, offset));
    EXPECT(close(fd) == 0);
}

/* Written after the node stopped: tests are quicker than the file system's clock. */
static void set_newer(const char *path)
{
    struct stat st;
    EXPECT(stat(path, &st) == 0);
    st.st_mtim.tv_sec++;
    EXPECT(utimensat(AT_FDCWD, path, (struct timespec[]){st.st_mtim, st.st_mtim}, 0) == 0);
}

TEST(database_damage_while_stopped_is_found_at_open)
{
    replica_become_owner();
    make("a", 200);
    flip_bit(test_path("a/main.db"), 1024 + 700); /* shadowed by the WAL or not: page 2 or 3 */
    flip_bit(test_path("a/main.db"), 2048 + 700);
    set_newer(test_path("a/main.db"));
    /* The WAL has all newest pages; without it the file itself counts. */
    EXPECT(unlink(test_path("a/main.db-wal")) == 0);
    struct repl_db *db = replica_open("a");
    EXPECT(!repl_db_position_known(db));
    EXPECT_OK(repl_db_close(db));
}

TEST(database_wal_damage_while_stopped_is_found_at_open)
{
    replica_become_owner();
    make("a", 20);
    flip_bit(test_path("a/main.db-wal"), 32 + 7 * (1024 + 24) + 500);
    expect_open_fails(ERR_CORRUPT, "a");
}

/* Writes through the keeper's file: another descriptor of ours would drop its locks. */
static void flip_bit_live(sqlite3_file *f, sqlite3_int64 offset)
{
    uint8_t byte;
    EXPECT(f->pMethods->xRead(f, &byte, 1, offset) == SQLITE_OK);
    byte ^= 0x10;
    EXPECT(f->pMethods->xWrite(f, &byte, 1, offset) == SQLITE_OK);
}

TEST(database_verify_names_the_damaged_page)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    replica_lead(&l, db);
    replica_write(&l, NULL, "CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(20000))");
    replica_unlead(&l);
    flip_bit_live(db->wal_file, (sqlite3_int64)(wal_frame_offset(5, 1024) + 24 + 100));
    EXPECT_ERR(ERR_CORRUPT, repl_db_verify(db));
    EXPECT(strstr(err_text(), "main.db-wal, frame 5") != NULL);
    EXPECT_ERR(ERR_STOPPED, repl_db_verify(db));
    EXPECT(strstr(err_text(), "frame 5") != NULL);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
}

TEST(database_scrub_finds_a_damaged_page)
{
    replica_become_owner();
    make("a", 300); /* its close checkpoints all */
    visit_with_stock(test_path("a/main.db"));
    struct repl_db *db = replica_open("a");
    EXPECT(db->pages > 4);
    EXPECT_OK(repl_db_verify(db));
    flip_bit_live(db->db_file, 3 * 1024 + 900);
    enum err e = ERR_OK;
    unsigned steps = 0;
    for (; e == ERR_OK && steps < 100; steps++)
        e = repl_db_scrub(db, 1);
    EXPECT_ERR(ERR_CORRUPT, e);
    EXPECT(strstr(err_text(), "page 4 in ") != NULL && strstr(err_text(), "main.db ") != NULL);
    EXPECT(steps <= db->pages + 1);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
}

/* --- locks ------------------------------------------------------------------------------------ */

TEST(database_shuts_out_other_writers)
{
    replica_become_owner();
    make("a", 3);
    struct repl_db *db = replica_open("a"), *second;
    sqlite3 *stock = stock_open(test_path("a/main.db"), 1024);
    EXPECT_EQ(stock_int(stock, "SELECT count(*) FROM t"), 3);
    EXPECT(sqlite3_exec(stock, "INSERT INTO t VALUES(1)", NULL, NULL, NULL) == SQLITE_BUSY);
    EXPECT(sqlite3_exec(stock, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL) == SQLITE_BUSY);
    struct repl_config c = replica_config("a");
    EXPECT_ERR(ERR_LOCKED, repl_db_open(&c, &second));
    EXPECT(strstr(err_text(), "another process writes to") != NULL);
    stock_close(stock);
    EXPECT_OK(repl_db_close(db));
}

TEST(database_does_not_open_while_another_writes)
{
    replica_become_owner();
    make("a", 3);
    sqlite3 *stock = stock_open(test_path("a/main.db"), 1024);
    stock_exec(stock, "BEGIN IMMEDIATE");
    expect_open_fails(ERR_LOCKED, "a");
    EXPECT(strstr(err_text(), "the lock WRITE") != NULL);
    stock_exec(stock, "ROLLBACK");
    stock_close(stock);
    EXPECT_OK(repl_db_close(replica_open("a")));
}

/* Another process's lock, for a moment. */
struct holder {
    sqlite3_file *file;
    int first, n;
};

static void *hold_for_a_moment(void *arg)
{
    struct holder *h = arg;
    (void)nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    wal_unlock(h->file, h->first, h->n, true);
    return NULL;
}

/* A writer or a backup's checkpoint; what recovery holds, before the keeper's first read. */
TEST(database_opens_when_another_process_holds_a_lock_for_a_moment)
{
    replica_become_owner();
    make("a", 3);
    sqlite3 *stock = stock_open(test_path("a/main.db"), 1024);
    EXPECT_EQ(stock_int(stock, "SELECT count(*) FROM t"), 3);
    const int locks[][2] = {{WAL_LOCK_WRITE, 1}, {WAL_LOCK_CHECKPOINT, 1}, {WAL_LOCK_READ(0), 5}};
    for (unsigned i = 0; i < 3; i++) {
        struct holder h = {stock_file(stock, SQLITE_FCNTL_FILE_POINTER), locks[i][0], locks[i][1]};
        pthread_t thread;
        EXPECT_OK(wal_lock(h.file, h.first, h.n, true));
        EXPECT(pthread_create(&thread, NULL, hold_for_a_moment, &h) == 0);
        struct repl_db *db = replica_open("a");
        EXPECT(pthread_join(thread, NULL) == 0);
        EXPECT_EQ(repl_db_position(db).seq, 4);
        EXPECT_OK(repl_db_close(db));
    }
    stock_close(stock);
}

TEST(database_names_the_lock_that_stays)
{
    replica_become_owner();
    make("a", 3);
    sqlite3 *stock = stock_open(test_path("a/main.db"), 1024);
    sqlite3_file *f = stock_file(stock, SQLITE_FCNTL_FILE_POINTER);
    EXPECT_EQ(stock_int(stock, "SELECT count(*) FROM t"), 3);
    EXPECT_OK(wal_lock(f, WAL_LOCK_CHECKPOINT, 1, true));
    expect_open_fails(ERR_LOCKED, "a");
    EXPECT(strstr(err_text(), "the lock CHECKPOINT") != NULL);
    wal_unlock(f, WAL_LOCK_CHECKPOINT, 1, true);
    stock_close(stock);
}
