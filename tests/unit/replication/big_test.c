/* Room: tests. Transactions that are larger than the memory for them: the spill, the stash, a full
 * disk in the middle, a leader that goes in the middle. */
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "replication/spill.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/disk.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic long calls;

static unsigned files_in(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    EXPECT(d != NULL);
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

/* --- the spill -------------------------------------------------------------------------------- */

static void fill(struct spill *s, uint64_t from, uint64_t to, uint8_t value)
{
    uint8_t p[1000];
    memset(p, value, sizeof p);
    for (uint64_t at = from; at < to; at += sizeof p)
        EXPECT_OK(spill_write(s, at, p, to - at < sizeof p ? (size_t)(to - at) : sizeof p));
}

static void expect_bytes(const struct spill *s, uint64_t from, uint64_t to, uint8_t value)
{
    uint8_t *p = mem_alloc((size_t)(to - from));
    EXPECT_OK(spill_read(s, from, p, (size_t)(to - from)));
    for (uint64_t i = 0; i < to - from; i++)
        EXPECT_EQ(p[i], value);
    free(p);
}

TEST(spill_keeps_the_newest_in_memory_and_leaves_no_file)
{
    struct spill s;
    spill_init(&s, test_path("spill"), KIB(64));
    fill(&s, 5000, 900000, 1);
    EXPECT(s.fd >= 0 && s.filed > 0 && (s.count - s.filed) * s.chunk <= KIB(64));
    EXPECT_EQ(files_in(test_dir()), 0); /* it has no name */
    fill(&s, 20000, 300000, 2);         /* over what is in the file */
    expect_bytes(&s, 5000, 20000, 1);
    expect_bytes(&s, 20000, 300000, 2);
    expect_bytes(&s, 300000, 900000, 1);
    spill_drop_from(&s, 250000); /* and goes on there, in the file first */
    fill(&s, 250000, 600000, 3);
    expect_bytes(&s, 20000, 250000, 2);
    expect_bytes(&s, 250000, 600000, 3);
    spill_drop_before(&s, 599000);
    EXPECT(s.fd < 0 && s.filed == 0);
    expect_bytes(&s, 599000, 600000, 3);
    spill_fini(&s);
}

TEST(spill_on_a_full_disk_keeps_what_it_has)
{
    struct spill s;
    uint8_t page[4096] = {7};
    spill_init(&s, test_path("spill"), KIB(16));
    uint64_t at = 0;
    for (; at < KIB(16); at += sizeof page)
        EXPECT_OK(spill_write(&s, at, page, sizeof page));
    disk_arm(DISK_FULL, 1, test_seed(), &calls);
    EXPECT_ERR(ERR_FULL, spill_write(&s, at, page, sizeof page));
    EXPECT(strstr(err_text(), "No space left") != NULL && s.fd < 0);
    EXPECT_ERR(ERR_FULL, spill_write(&s, at, page, sizeof page));
    disk_disarm();
    EXPECT_OK(spill_write(&s, at, page, sizeof page));
    uint8_t back[4096];
    for (uint64_t i = 0; i <= at; i += sizeof page) {
        EXPECT_OK(spill_read(&s, i, back, sizeof back));
        EXPECT(memcmp(page, back, sizeof back) == 0);
    }
    spill_fini(&s);
}

TEST(spill_leaves_the_reserve_alone)
{
    struct spill s;
    spill_init(&s, test_path("spill"), KIB(64));
    spill_set_reserve(&s, UINT64_C(1) << 60); /* no disk has so much */
    uint8_t page[4096] = {7};
    enum err e = ERR_OK;
    for (uint64_t at = 0; e == ERR_OK && at < MIB(1); at += sizeof page)
        e = spill_write(&s, at, page, sizeof page);
    EXPECT_ERR(ERR_FULL, e);
    EXPECT(strstr(err_text(), "disk-reserve") != NULL && s.fd < 0 && s.filed == 0);
    spill_set_reserve(&s, 1);
    fill(&s, KIB(64), KIB(256), 3);
    expect_bytes(&s, KIB(64), KIB(256), 3);
    spill_fini(&s);
}

/* --- transactions ----------------------------------------------------------------------------- */

TEST(big_transaction_goes_through_files)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *a = replica_open("a"), *b = replica_open("b");
    struct replica_leader l;
    unsigned cursor = 0;
    replica_lead(&l, a);
    replica_write(&l, &log, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    replica_write(&l, &log,
                  "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<3000) "
                  "INSERT INTO t SELECT i, randomblob(700) FROM n");
    EXPECT(log.n > 200);
    replica_write(&l, &log, "UPDATE t SET v = randomblob(900) WHERE id %% 3 = 0");
    replica_write(&l, &log, "CREATE INDEX i ON t(v)");
    replica_write(&l, &log, "DELETE FROM t WHERE id > 100");
    stock_exec(l.conn, "VACUUM");
    struct repl_txn *t;
    EXPECT_OK(repl_view_seal(l.view, 1, NULL, 0, &t));
    EXPECT(t != NULL);
    replica_log_add(&log, t);
    EXPECT_OK(repl_db_publish(a, t));
    replica_unlead(&l);
    replica_apply(b, &log, &cursor, log.n);
    replica_expect_equal(a, b);
    replica_expect_sound(b);
    EXPECT_EQ(access(test_path("a/main.db.overlay"), F_OK), -1);
    EXPECT_EQ(access(test_path("b/main.db.stash"), F_OK), -1);
    EXPECT_OK(repl_db_close(a));
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&log);
}

TEST(big_statement_on_a_full_disk_hurts_nobody_else)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *a = replica_open("a");
    struct replica_leader l;
    replica_lead(&l, a);
    replica_write(&l, &log, "CREATE TABLE t(v)");
    replica_write(&l, &log, "INSERT INTO t VALUES(1)");
    disk_arm(DISK_FULL, 1, test_seed(), &calls);
    int rc = sqlite3_exec(l.conn, "INSERT INTO t VALUES(randomblob(500000))", NULL, NULL, NULL);
    EXPECT_EQ(rc & 0xff, SQLITE_FULL);
    EXPECT(strstr(err_text(), "No space left") != NULL);
    EXPECT(sqlite3_get_autocommit(l.conn));
    disk_disarm();
    EXPECT_EQ(stock_int(l.conn, "SELECT count(*) FROM t"), 1);
    replica_write(&l, &log, "INSERT INTO t VALUES(randomblob(500000))");
    EXPECT_EQ(replica_read_int(a, "SELECT count(*) FROM t"), 2);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(a));
    replica_log_free(&log);
}

/* A log whose second transaction has many parts. */
static struct repl_db *make_big(struct replica_log *log, const char *name) ON_OWNER
{
    struct repl_db *db = replica_open(name);
    struct replica_leader l;
    replica_lead(&l, db);
    replica_write(&l, log, "CREATE TABLE t(v)");
    replica_write(&l, log, "INSERT INTO t VALUES(randomblob(200000))");
    replica_write(&l, log, "INSERT INTO t VALUES('after')");
    replica_unlead(&l);
    EXPECT(log->n > 25);
    return db;
}

TEST(big_parts_wait_for_room_on_a_full_disk)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *a = make_big(&log, "a"), *b = replica_open("b");
    unsigned waited = 0;
    for (unsigned i = 0; i < log.n; i++) {
        if (log.entries[i].seq == 2) {
            disk_arm(DISK_FULL, 1, test_seed(), &calls);
            enum err e = repl_db_apply(b, log.entries[i].bytes, log.entries[i].n);
            disk_disarm();
            waited += e == ERR_FULL;
            EXPECT(e == ERR_OK || e == ERR_FULL);
            if (e == ERR_OK)
                continue;
        }
        EXPECT_OK(repl_db_apply(b, log.entries[i].bytes, log.entries[i].n));
    }
    EXPECT(waited > 2);
    replica_expect_equal(a, b);
    EXPECT_OK(repl_db_close(a));
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&log);
}

/* The leader goes when K parts of its transaction were committed: the others come through the next
 * leader, or never. */
TEST(big_transaction_outlives_its_leader)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *other = make_big(&log, "other");
    EXPECT_OK(repl_db_close(other));
    for (unsigned k = 0; k < 27; k += 1 + k / 4) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%u", k);
        struct repl_db *db = replica_open(name);
        struct replica_leader l;
        struct replica_log mine = {0};
        struct repl_txn *t;
        replica_lead(&l, db);
        replica_write(&l, &mine, "CREATE TABLE t(v)");
        stock_exec(l.conn, "INSERT INTO t VALUES(randomblob(200000))");
        EXPECT_OK(repl_view_seal(l.view, 1, NULL, 0, &t));
        replica_log_add(&mine, t);
        EXPECT(k < repl_txn_parts(t));
        EXPECT_OK(repl_db_apply_sealed(db, t, k));
        EXPECT_OK(repl_db_apply_sealed(db, t, k)); /* as after a full disk */
        repl_txn_free(t);
        replica_unlead(&l);
        unsigned cursor = 1 + k;
        if (k % 2 == 0) { /* the next leader had them all */
            replica_apply(db, &mine, &cursor, mine.n);
            EXPECT_EQ(replica_read_int(db, "SELECT length(v) FROM t"), 200000);
        } else { /* it had not: its term begins */
            repl_db_apply_reset(db);
            EXPECT_EQ(repl_db_position(db).seq, 1);
            replica_lead(&l, db);
            replica_write(&l, &mine, "INSERT INTO t VALUES('instead')");
            replica_unlead(&l);
            EXPECT_EQ(replica_read_int(db, "SELECT count(*) FROM t"), 1);
        }
        replica_expect_sound(db);
        EXPECT_OK(repl_db_close(db));
        replica_log_free(&mine);
    }
    replica_log_free(&log);
}
