/* Room: tests. A disk that is full from some write on, and later is not: what was asked for says
 * ERR_FULL and can be asked for again; readers read on; checkpoints, `hashes` and restarts of the
 * WAL wait; nothing is lost. */
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/disk.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STEPS 60

static _Atomic long calls;

static struct repl_db *full_open(const char *name) ON_OWNER
{
    struct repl_config c = replica_small_config(name);
    struct repl_db *db;
    EXPECT_OK(repl_db_open(&c, &db));
    return db;
}

/* One transaction of the script: grows, shrinks, grows again. */
static void step_sql(unsigned i, char *sql, size_t n)
{
    if (i == 0)
        (void)snprintf(sql, n, "CREATE TABLE t(k INTEGER PRIMARY KEY, b BLOB)");
    else if (i % 17 == 16)
        (void)snprintf(sql, n, "DELETE FROM t WHERE k < %u", i - 3);
    else
        (void)snprintf(sql, n, "INSERT INTO t VALUES(%u, zeroblob(%u)), (-%u, randomblob(700))", i,
                       i * 131 % 5000, i);
}

static void make_log(struct replica_log *log) ON_OWNER
{
    struct repl_db *db = full_open("model");
    struct replica_leader l;
    char sql[200];
    replica_lead(&l, db);
    for (unsigned i = 0; i < STEPS; i++) {
        step_sql(i, sql, sizeof sql);
        replica_write(&l, log, "%s", sql);
        replica_upkeep(db);
    }
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
}

/* While the disk is full: upkeep is no error, and readers see what is published. */
static void live_on(struct repl_db *db) ON_OWNER
{
    struct repl_stats stats;
    bool wants_quiet;
    EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
    repl_db_stats(db, &stats);
    EXPECT(stats.waits_for_room);
    if (stats.published_seq > 0)
        EXPECT(replica_read_int(db, "SELECT count(*) FROM t") >= 0);
    EXPECT_OK(repl_db_verify(db));
}

/* Applies the log; the disk is full from call N on, until it has refused TRIES times. */
static unsigned follow(const struct replica_log *log, const char *name, long n,
                       unsigned tries) ON_OWNER
{
    struct repl_db *db = full_open(name);
    unsigned refused = 0;
    bool wants_quiet;
    atomic_store(&calls, 0);
    disk_arm(DISK_FULL, n, 1, &calls);
    for (unsigned i = 0; i < log->n; i++) {
        enum err e;
        while ((e = repl_db_apply(db, log->entries[i].bytes, log->entries[i].n)) == ERR_FULL) {
            live_on(db);
            if (++refused == tries)
                disk_disarm();
        }
        EXPECT_OK(e);
        EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
    }
    disk_disarm();
    EXPECT_EQ(repl_db_position(db).seq, STEPS);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
    db = full_open(name);
    EXPECT(repl_db_position_known(db));
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
    return refused;
}

static void remove_node(const char *name)
{
    static const char *const files[] = {"main.db", "main.db-wal", "main.db-shm", "position",
                                        "hashes",  "hashes.new",  "position.new"};
    for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = mem_printf("%s/%s/%s", test_dir(), name, files[i]);
        (void)unlink(path);
        free(path);
    }
}

TEST(full_disk_makes_a_follower_wait)
{
    replica_become_owner();
    disk_skip_syncs();
    struct replica_log log = {0};
    unsigned refused = 0;
    make_log(&log);
    (void)follow(&log, "x", 1L << 40, 1);
    long total = calls, step = total / (long)test_rounds(60);
    EXPECT(total > 300);
    for (long n = 1; n <= total; n += step > 0 ? step : 1) {
        remove_node("x");
        refused += follow(&log, "x", n, 1 + (unsigned)n % 3) > 0;
    }
    EXPECT(refused * 8 > test_rounds(60));
    replica_log_free(&log);
}

/* The leader's transaction is kept and published later; what is sealed behind it waits, too. */
static unsigned lead_through(const char *name, long n, unsigned tries) ON_OWNER
{
    struct repl_db *db = full_open(name);
    struct replica_leader l;
    unsigned refused = 0;
    char sql[200];
    replica_lead(&l, db);
    atomic_store(&calls, 0);
    disk_arm(DISK_FULL, n, 1, &calls);
    for (unsigned i = 0; i < STEPS;) {
        struct repl_txn *t[2] = {NULL};
        unsigned sealed = 0;
        for (; sealed < 2 && i < STEPS; sealed++, i++) {
            step_sql(i, sql, sizeof sql);
            /* A statement may need a temporary file. */
            if (sqlite3_exec(l.conn, sql, NULL, NULL, NULL) == SQLITE_FULL) {
                disk_disarm();
                stock_exec(l.conn, "%s", sql);
            }
            EXPECT_OK(repl_view_seal(l.view, 1, NULL, 0, &t[sealed]));
            EXPECT(t[sealed] != NULL);
        }
        for (unsigned k = 0; k < sealed; k++) {
            enum err e;
            while ((e = repl_db_publish(db, t[k])) == ERR_FULL) {
                live_on(db);
                if (++refused == tries)
                    disk_disarm();
            }
            EXPECT_OK(e);
        }
        replica_upkeep(db);
    }
    disk_disarm();
    replica_unlead(&l);
    EXPECT_EQ(repl_db_position(db).seq, STEPS);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
    return refused;
}

TEST(full_disk_makes_a_leader_wait)
{
    replica_become_owner();
    disk_skip_syncs();
    unsigned refused = 0;
    (void)lead_through("x", 1L << 40, 1);
    long total = calls, step = total / (long)test_rounds(60);
    EXPECT(total > 300);
    for (long n = 1; n <= total; n += step > 0 ? step : 1) {
        remove_node("x");
        refused += lead_through("x", n, 1 + (unsigned)n % 3) > 0;
    }
    EXPECT(refused * 8 > test_rounds(60));
}

/* Only main.db, or only `hashes`, meets the full disk: commits go on, the WAL is not begun anew. */
static void checkpoint_waits(const char *suffix) ON_OWNER
{
    struct repl_db *db = full_open("a");
    struct replica_leader l;
    struct repl_stats stats;
    char sql[200];
    unsigned i = 0;
    replica_lead(&l, db);
    disk_count_only(suffix);
    disk_only_fails(suffix);
    disk_arm(DISK_FULL, 1, 1, &calls);
    for (; i < STEPS; i++) {
        step_sql(i, sql, sizeof sql);
        replica_write(&l, NULL, "%s", sql);
        replica_upkeep(db);
    }
    do {
        replica_upkeep(db);
        repl_db_stats(db, &stats);
    } while (!stats.waits_for_room);
    EXPECT_EQ(stats.wal_restarts, 0);
    EXPECT(replica_read_int(db, "SELECT count(*) FROM t") > 3);
    disk_disarm();
    disk_count_only(NULL);
    disk_only_fails(NULL);
    while (!db->holds_readers) {
        replica_upkeep(db);
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    repl_db_stats(db, &stats);
    EXPECT(!stats.waits_for_room);
    replica_write(&l, NULL, "CREATE TABLE u(a)");
    EXPECT(db->frames < 10);
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

TEST(full_disk_under_the_database_file)
{
    replica_become_owner();
    disk_skip_syncs();
    checkpoint_waits("main.db");
}

TEST(full_disk_under_the_hashes)
{
    replica_become_owner();
    disk_skip_syncs();
    checkpoint_waits("/hashes");
}

/* A clean stop needs no room: the WAL keeps what cannot be copied. */
TEST(full_disk_at_a_clean_stop)
{
    replica_become_owner();
    disk_skip_syncs();
    struct repl_db *db = full_open("a");
    struct replica_leader l;
    char sql[200];
    replica_lead(&l, db);
    for (unsigned i = 0; i < 8; i++) {
        step_sql(i, sql, sizeof sql);
        replica_write(&l, NULL, "%s", sql);
    }
    replica_unlead(&l);
    disk_count_only("main.db");
    disk_only_fails("main.db");
    disk_arm(DISK_FULL, 1, 1, &calls);
    EXPECT_OK(repl_db_close(db));
    disk_disarm();
    disk_count_only(NULL);
    disk_only_fails(NULL);
    db = full_open("a");
    EXPECT_EQ(repl_db_position(db).seq, 8);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}
