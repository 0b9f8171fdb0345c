/* Room: tests. A bit that flips on the disk under a running database: whoever meets it gets an
 * error and on_damage is called; nobody gets a wrong row, and nothing damaged is copied. Thread:
 * owner; readers also on threads. */
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct told {
    unsigned n;
    char sentence[ERR_TEXT_MAX];
};

static void note_damage(void *ctx, const char *sentence)
{
    struct told *t = ctx;
    t->n++;
    (void)snprintf(t->sentence, sizeof t->sentence, "%s", sentence);
}

static struct repl_db *open_told(const char *name, struct told *t) ON_OWNER
{
    struct repl_config c = replica_config(name);
    struct repl_db *db;
    c.on_damage = note_damage;
    c.ctx = t;
    EXPECT_OK(repl_db_open(&c, &db));
    return db;
}

/* Through the keeper's file: another descriptor of ours would drop its locks. */
static void flip(sqlite3_file *f, sqlite3_int64 offset)
{
    uint8_t byte;
    EXPECT(f->pMethods->xRead(f, &byte, 1, offset) == SQLITE_OK);
    byte ^= 0x04;
    EXPECT(f->pMethods->xWrite(f, &byte, 1, offset) == SQLITE_OK);
}

#define ROWS 300

static void fill(struct repl_db *db) ON_OWNER
{
    struct replica_leader l;
    replica_lead(&l, db);
    replica_write(&l, NULL,
                  "CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT); CREATE INDEX ta ON t(a)");
    for (int i = 0; i < ROWS; i++)
        replica_write(&l, NULL, "INSERT INTO t VALUES(%d, printf('%%.*c', 200, 'x'))", i);
    replica_unlead(&l);
}

static const char everything[] =
    "SELECT k, a FROM t UNION ALL SELECT count(*), max(a) FROM t INDEXED BY ta";

/* Reads all there is; the rows that come are right, whatever the end. */
static int read_all(sqlite3 *c)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(c, everything, -1, &s, NULL);
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(s);
        if (rc != SQLITE_ROW)
            break;
        const char *a = (const char *)sqlite3_column_text(s, 1);
        EXPECT(a != NULL && strspn(a, "x") == 200 && a[200] == 0);
    }
    (void)sqlite3_finalize(s);
    return rc;
}

static void expect_told(const struct told *t, uint32_t page_no, const char *where)
{
    char *page = mem_printf("page %u in ", page_no);
    if (t->n == 0 || strncmp(t->sentence, page, strlen(page)) != 0 ||
        strstr(t->sentence, where) == NULL)
        test_fail(__FILE__, __LINE__, "told %u times of page %u: \"%s\"", t->n, page_no,
                  t->sentence);
    free(page);
}

/* Everything is in main.db, and the WAL is not looked at: a new one has begun. */
static void settle(struct repl_db *db) ON_OWNER
{
    struct replica_leader l;
    bool wants_quiet;
    replica_lead(&l, db);
    for (int i = (int)db->position.seq; db->frames * 1048ull < db->config.wal_restart_bytes; i++)
        replica_write(&l, NULL, "PRAGMA user_version=%d", i + 1);
    while (!db->holds_readers)
        EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
    replica_write(&l, NULL, "CREATE TABLE other(a)");
    replica_unlead(&l);
}

static bool in_wal(struct repl_db *db, uint32_t page_no) ON_OWNER
{
    uint32_t frame = 0;
    EXPECT_OK(wal_index_find(db->index, page_no, db->frames, &frame));
    return frame > 0;
}

TEST(verify_refuses_each_damaged_page_of_the_database)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_db *db = open_told("a", &told);
    unsigned refused = 0;
    fill(db);
    settle(db);
    for (uint32_t n = 2; n <= db->pages; n++) {
        if (in_wal(db, n))
            continue;
        const sqlite3_int64 at = (sqlite3_int64)(n - 1) * 1024 + (n * 37) % 1024;
        told = (struct told){0};
        flip(db->db_file, at);
        sqlite3 *c = replica_reader(db);
        int rc = read_all(c);
        EXPECT((rc == SQLITE_DONE) == (told.n == 0)); /* a free page is not read */
        if (rc != SQLITE_DONE) {
            EXPECT_EQ(rc, SQLITE_IOERR_DATA);
            expect_told(&told, n, "main.db, at byte");
            refused++;
        }
        stock_close(c);
        flip(db->db_file, at);
    }
    EXPECT(refused > 100);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

/* SQLite from 3.45 on reads the last page of a large value in part, beside its page cache. */
TEST(verify_refuses_a_part_of_a_damaged_page)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_db *db = open_told("a", &told);
    uint8_t part[1500], there[1500];
    fill(db);
    settle(db);
    const uint32_t page_no = db->pages - 10;
    const sqlite3_int64 at = (sqlite3_int64)(page_no - 1) * 1024;
    EXPECT(!in_wal(db, page_no) && !in_wal(db, page_no + 1));
    sqlite3 *c = replica_reader(db);
    stock_exec(c, "BEGIN; SELECT count(*) FROM t");
    sqlite3_file *f = stock_file(c, SQLITE_FCNTL_FILE_POINTER);
    for (int from = 0; from < 1024; from += 300) {
        EXPECT(f->pMethods->xRead(f, part, 1500, at + from) == SQLITE_OK);
        EXPECT(db->db_file->pMethods->xRead(db->db_file, there, 1500, at + from) == SQLITE_OK);
        EXPECT(memcmp(part, there, 1500) == 0);
    }
    flip(db->db_file, at + 900);
    EXPECT_EQ(f->pMethods->xRead(f, part, 300, at), SQLITE_IOERR_DATA);
    expect_told(&told, page_no, "main.db, at byte");
    told.n = 0;
    EXPECT_EQ(f->pMethods->xRead(f, part, 300, at - 100), SQLITE_IOERR_DATA);
    expect_told(&told, page_no, "main.db, at byte");
    flip(db->db_file, at + 900);
    stock_close(c);
    EXPECT_OK(repl_db_close(db));
}

TEST(verify_refuses_each_damaged_frame)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_config c = replica_config("a");
    struct repl_db *db;
    c.on_damage = note_damage;
    c.ctx = &told;
    c.wal_checkpoint_bytes = c.wal_restart_bytes = 64 << 20;
    EXPECT_OK(repl_db_open(&c, &db));
    unsigned refused = 0;
    fill(db);
    for (uint32_t n = 1; n <= db->pages; n++) {
        uint32_t frame;
        EXPECT_OK(wal_index_find(db->index, n, db->frames, &frame));
        EXPECT(frame > 0);
        const sqlite3_int64 at = (sqlite3_int64)wal_frame_offset(frame, 1024) + 24 + n * 41 % 1024;
        told = (struct told){0};
        flip(db->wal_file, at);
        sqlite3 *r;
        thread_become(THREAD_READER);
        thread_expect_reader();
        enum err e = repl_reader_open(db, &r);
        if (n == 1) {
            EXPECT_EQ(e, ERR_CORRUPT);
            EXPECT(strstr(err_text(), "page 1 in ") != NULL);
        } else {
            EXPECT_OK(e);
            EXPECT_EQ(read_all(r), SQLITE_IOERR_DATA);
            stock_close(r);
        }
        thread_become(THREAD_OWNER);
        expect_told(&told, n, "main.db-wal, frame ");
        refused++;
        flip(db->wal_file, at);
    }
    EXPECT(refused > 100);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

TEST(verify_refuses_damage_to_the_writers_view)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_db *db = open_told("a", &told);
    struct replica_leader l;
    fill(db);
    settle(db);
    flip(db->db_file, (sqlite3_int64)(db->pages - 10) * 1024 + 500);
    replica_lead(&l, db);
    EXPECT_EQ(read_all(l.conn), SQLITE_IOERR_DATA);
    expect_told(&told, db->pages - 9, "main.db, at byte");
    sqlite3_int64 at = (sqlite3_int64)wal_frame_offset(1, 1024) + 24 + 600;
    flip(db->db_file, (sqlite3_int64)(db->pages - 10) * 1024 + 500);
    EXPECT_EQ(read_all(l.conn), SQLITE_DONE);
    replica_write(&l, NULL, "UPDATE t SET a = a || ''");
    stock_exec(l.conn, "PRAGMA shrink_memory");
    told = (struct told){0};
    flip(db->wal_file, at + 1048 * 20);
    EXPECT_EQ(sqlite3_exec(l.conn, "UPDATE t SET a = a || ''", NULL, NULL, NULL),
              SQLITE_IOERR_DATA);
    EXPECT(told.n > 0 && strstr(told.sentence, "main.db-wal, frame 21 ") != NULL);
    replica_unlead(&l);
    EXPECT(repl_db_verify(db) == ERR_CORRUPT);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
}

/* Who reads an older state reads pages that a newer one does not have. */
TEST(verify_refuses_damage_behind_the_end_of_a_newer_state)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_db *db = open_told("a", &told);
    struct replica_leader l;
    sqlite3 *old;
    fill(db);
    settle(db);
    const uint32_t pages = db->pages;
    replica_lead(&l, db);
    EXPECT_OK(repl_view_connect(l.view, &old));
    stock_exec(old, "BEGIN; SELECT count(*) FROM sqlite_schema");
    replica_write(&l, NULL, "DELETE FROM t WHERE k > 10");
    stock_exec(l.conn, "VACUUM");
    struct repl_txn *t;
    EXPECT_OK(repl_view_seal(l.view, 1, NULL, 0, &t));
    EXPECT_OK(repl_db_publish(db, t));
    EXPECT(db->pages < pages / 2);
    const sqlite3_int64 at = (sqlite3_int64)(pages - 11) * 1024 + 500;
    flip(db->db_file, at);
    EXPECT_EQ(read_all(old), SQLITE_IOERR_DATA);
    expect_told(&told, pages - 10, "main.db, at byte");
    flip(db->db_file, at);
    told.n = 0;
    EXPECT_EQ(read_all(old), SQLITE_DONE);
    stock_close(old);
    replica_write(&l, NULL, "CREATE TABLE more(a)");
    EXPECT_EQ(told.n, 0);
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

TEST(verify_copies_no_damaged_frame)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_config c = replica_config("a");
    struct repl_db *db;
    c.on_damage = note_damage;
    c.ctx = &told;
    c.wal_checkpoint_bytes = 1 << 20;
    EXPECT_OK(repl_db_open(&c, &db));
    fill(db);
    uint32_t frame, page_no = db->pages / 2;
    EXPECT_OK(wal_index_find(db->index, page_no, db->frames, &frame));
    flip(db->wal_file, (sqlite3_int64)wal_frame_offset(frame, 1024) + 24 + 900);
    EXPECT_ERR(ERR_CORRUPT, repl_db_close(db));
    EXPECT(strstr(err_text(), "main.db-wal, frame ") != NULL);
    expect_told(&told, page_no, "main.db-wal, frame ");
}

/* Pages that another process copied: our hashes follow. */
TEST(verify_follows_another_processs_checkpoint)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_db *db = open_told("a", &told);
    fill(db);
    wal_unlock(db->db_file, WAL_LOCK_CHECKPOINT, 1, true); /* the gap of a checkpoint's start */
    db->holds_checkpoint = false;
    sqlite3 *foreign = stock_open(db->config.path, 1024);
    stock_exec(foreign, "PRAGMA wal_checkpoint");
    stock_close(foreign);
    sqlite3 *c = replica_reader(db); /* at mark 0: from main.db */
    EXPECT_EQ(read_all(c), SQLITE_DONE);
    stock_close(c);
    EXPECT_EQ(told.n, 0);
    replica_upkeep(db);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

/* SQLite moves a table that the transaction made (auto_vacuum keeps roots together), and then reads
 * the page where it was: behind the end of the database, with what was there long ago. */
TEST(verify_lets_the_writer_read_what_it_does_not_use)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_db *db = open_told("a", &told);
    struct replica_leader l;
    struct repl_txn *t;
    replica_lead(&l, db);
    stock_exec(l.conn, "PRAGMA auto_vacuum=1; VACUUM");
    EXPECT_OK(repl_view_seal(l.view, 1, NULL, 0, &t));
    EXPECT_OK(repl_db_publish(db, t));
    replica_write(&l, NULL,
                  "CREATE TABLE t(k, a); CREATE TABLE t1(a); CREATE TABLE t2(a);"
                  "CREATE TABLE t3(a); CREATE TABLE t4(a)");
    uint32_t before = db->pages;
    replica_unlead(&l);
    settle(db); /* all of it is in main.db */
    replica_lead(&l, db);
    replica_write(&l, NULL, "DROP TABLE other; DROP TABLE t4; DROP TABLE t3");
    EXPECT(db->pages < before);
    replica_unlead(&l);
    settle(db); /* and cut off */
    replica_lead(&l, db);
    replica_write(&l, NULL, "DROP TABLE other");
    replica_write(&l, NULL, "CREATE TABLE n1(a); CREATE TABLE n2(a); DROP TABLE t1");
    EXPECT_EQ(told.n, 0);
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

/* --- the file `hashes` ------------------------------------------------------------------------ */

/* Ends as by kill -9: what is in the files stays. */
static void kill_owner(struct repl_db *db) ON_OWNER
{
    database_free(db);
}

TEST(verify_uses_the_hashes_after_a_kill)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_db *db = open_told("a", &told);
    fill(db);
    settle(db);
    struct repl_position p = repl_db_position(db);
    uint32_t page_no = db->pages - 10;
    EXPECT(!in_wal(db, page_no));
    kill_owner(db);
    char *path = mem_printf("%s/a/main.db", test_dir());
    FILE *f = fopen(path, "r+");
    EXPECT(f != NULL && fseek(f, (long)(page_no - 1) * 1024 + 9, SEEK_SET) == 0);
    int byte = fgetc(f);
    EXPECT(byte != EOF && fseek(f, -1, SEEK_CUR) == 0 && fputc(byte ^ 1, f) != EOF);
    EXPECT(fclose(f) == 0);
    free(path);

    db = open_told("a", &told); /* reads no page of main.db: the damage is found by who reads it */
    EXPECT_EQ(repl_db_position(db).seq, p.seq);
    EXPECT_EQ(repl_db_position(db).checksum, p.checksum);
    EXPECT_EQ(told.n, 0);
    sqlite3 *c = replica_reader(db);
    EXPECT_EQ(read_all(c), SQLITE_IOERR_DATA);
    expect_told(&told, page_no, "main.db, at byte");
    stock_close(c);
    EXPECT_OK(repl_db_rehash(db));
    EXPECT(repl_db_position(db).checksum != p.checksum);
    EXPECT_EQ(repl_db_position(db).seq, p.seq);
    EXPECT_OK(repl_db_close(db));
}

/* So little that the WAL could hold the rest, as far as numbers tell. */
TEST(verify_finds_a_database_that_was_cut_short)
{
    replica_become_owner();
    struct told told = {0};
    struct repl_db *db = open_told("a", &told), *none = NULL;
    fill(db);
    settle(db);
    uint32_t last = db->pages;
    while (in_wal(db, last))
        last--;
    EXPECT(db->frames > 0 && db->pages - last < db->frames);
    kill_owner(db);
    EXPECT(truncate(test_path("a/main.db"), (off_t)last * 1024 - 100) == 0);
    struct repl_config c = replica_config("a");
    EXPECT_ERR(ERR_CORRUPT, repl_db_open(&c, &none));
    EXPECT(strstr(err_text(), "cut short") != NULL);
}

static void overwrite(const char *path, long at, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "r+");
    EXPECT(f != NULL && fseek(f, at, SEEK_SET) == 0 && fwrite(bytes, 1, n, f) == n);
    EXPECT(fclose(f) == 0);
}

/* Lost, cut, damaged, of another database: the same position is found. */
TEST(verify_makes_the_hashes_again)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    fill(db);
    settle(db);
    struct repl_position p = repl_db_position(db);
    char *path = mem_strdup(test_path("a/hashes"));
    for (unsigned i = 0; i < 6; i++) {
        kill_owner(db);
        if (i == 0)
            EXPECT(unlink(path) == 0);
        if (i == 1)
            EXPECT(truncate(path, 4096) == 0);
        if (i == 2)
            EXPECT(truncate(path, 100) == 0);
        if (i == 3)
            overwrite(path, 4096 + 300, "damage", 6);
        if (i == 4)
            overwrite(path, 20, "damage", 6);
        if (i == 5)
            EXPECT(truncate(path, 4096 + 700) == 0);
        db = replica_open("a");
        EXPECT_EQ(repl_db_position(db).seq, p.seq);
        EXPECT_EQ(repl_db_position(db).checksum, p.checksum);
        replica_expect_sound(db);
    }
    kill_owner(db);
    overwrite(path, 8, "\x02", 1); /* a newer version: its head's checksum is wrong: made again */
    db = replica_open("a");
    EXPECT_EQ(repl_db_position(db).checksum, p.checksum);
    EXPECT_OK(repl_db_close(db));
    free(path);
}

/* The entry of one page is another one, and its block says that it is right. */
static void falsify_hashes(uint32_t page_no)
{
    struct hashes_file *f;
    uint64_t hashes[HASHES_PER_BLOCK];
    bool valid;
    EXPECT_OK(hashes_open(test_path("a/hashes"), REPLICA_DATABASE_ID, 1024, false, &f));
    EXPECT_OK(hashes_read_block(f, 0, hashes, &valid));
    EXPECT(valid && page_no <= HASHES_PER_BLOCK);
    hashes[page_no - 1] ^= 5;
    EXPECT_OK(hashes_write_block(f, 0, hashes));
    hashes_close(f);
}

TEST(verify_rehash_finds_wrong_hashes)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    fill(db);
    settle(db);
    struct repl_position p = repl_db_position(db);
    uint32_t page_no = db->pages - 10;
    EXPECT(!in_wal(db, page_no));
    kill_owner(db);
    falsify_hashes(page_no);
    db = replica_open("a");
    EXPECT_EQ(repl_db_position(db).checksum, p.checksum ^ 5);
    EXPECT_OK(repl_db_rehash(db));
    EXPECT_EQ(repl_db_position(db).checksum, p.checksum);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
    db = replica_open("a");
    EXPECT_EQ(repl_db_position(db).checksum, p.checksum);
    EXPECT_OK(repl_db_close(db));
}

/* The log knows the checksum: an entry that the database has already, or the next one. */
/* Else another process's checkpoint could change a page between its reading and its hash. */
TEST(verify_rehash_is_alone_with_the_pages)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    bool wants_quiet;
    replica_lead(&l, db);
    replica_write(&l, NULL, "CREATE TABLE t(a)");
    while (db->frames * 1048ull < db->config.wal_checkpoint_bytes)
        replica_write(&l, NULL, "INSERT INTO t VALUES(randomblob(900))");
    replica_unlead(&l);
    EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
    EXPECT(!db->holds_checkpoint); /* one began, and its end was not looked at */
    EXPECT_OK(repl_db_rehash(db));
    EXPECT(db->holds_checkpoint);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

TEST(verify_wrong_hashes_are_found_by_the_log)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct replica_leader l;
    struct repl_db *db = replica_open("a");
    fill(db);
    settle(db);
    uint32_t page_no = db->pages - 10;
    EXPECT(!in_wal(db, page_no));
    replica_lead(&l, db);
    replica_write(&l, &log, "CREATE TABLE known(a)");
    replica_unlead(&l);
    struct repl_position p = repl_db_position(db);
    kill_owner(db);
    falsify_hashes(page_no);
    db = replica_open("a");
    EXPECT(repl_db_position(db).checksum != p.checksum);
    unsigned cursor = 0;
    replica_apply(db, &log, &cursor, log.n);
    EXPECT_EQ(repl_db_position(db).checksum, p.checksum);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
    replica_log_free(&log);
}

/* --- durable ---------------------------------------------------------------------------------- */

TEST(verify_durable_follows_the_request)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct repl_stats stats;
    fill(db);
    uint64_t seq = repl_db_position(db).seq;
    EXPECT(repl_db_durable(db) < seq);
    repl_db_want_durable(db);
    for (int i = 0; i < 10000 && repl_db_durable(db) < seq; i++)
        (void)usleep(1000);
    EXPECT_EQ(repl_db_durable(db), seq);
    struct replica_leader l;
    replica_lead(&l, db);
    replica_write(&l, NULL, "CREATE TABLE more(a)");
    replica_unlead(&l);
    EXPECT_EQ(repl_db_durable(db), seq);
    settle(db);
    EXPECT(repl_db_durable(db) > seq); /* what the WAL's restart made so */
    repl_db_stats(db, &stats);
    EXPECT(!stats.waits_for_room && stats.restart_waits_ms == 0);
    EXPECT_OK(repl_db_close(db));
}
