/* Room: tests. What other processes' checkpoints, and a node that is wrong about a quiet moment, do
 * to restarts of the WAL. */
#include "base/clock.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/disk.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <limits.h>
#include <string.h>
#include <time.h>

/* Until the WAL is TIMES as long as a restart asks for. No upkeep. */
static void make_long(struct replica_leader *l, unsigned times) ON_OWNER
{
    replica_write(l, NULL, "DROP TABLE IF EXISTS t; CREATE TABLE t(b)");
    while (l->db->frames * 1048 < l->db->config.wal_restart_bytes * times + 50000)
        replica_write(l, NULL, "INSERT INTO t VALUES(randomblob(900))");
}

/* Upkeep until the marks of a restart are held, over the pauses between attempts. */
static void upkeep_to_restart(struct repl_db *db) ON_OWNER
{
    uint64_t began = clock_mono_ms();
    while (!db->holds_readers) {
        replica_upkeep(db);
        EXPECT(clock_mono_ms() < began + 60000);
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* The gap of a checkpoint's start: CHECKPOINT is given to the thread, another process is quicker.
 */
static void give_checkpoint_away(struct repl_db *db) ON_OWNER
{
    wal_unlock(db->db_file, WAL_LOCK_CHECKPOINT, 1, true);
    db->holds_checkpoint = false;
}

TEST(checkpoint_of_another_process_does_not_stop_the_writers)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    replica_lead(&l, db);
    sqlite3 *foreign = replica_reader(db);
    sqlite3_file *f = stock_file(foreign, SQLITE_FCNTL_FILE_POINTER);
    EXPECT_EQ(stock_int(foreign, "SELECT count(*) FROM sqlite_schema"), 0);
    make_long(&l, 2); /* far too long: a restart is wanted whatever is copied */
    give_checkpoint_away(db);
    EXPECT_OK(wal_lock(f, WAL_LOCK_CHECKPOINT, 1, true));
    for (uint64_t end = clock_mono_ms() + 500; clock_mono_ms() < end;) {
        bool wants_quiet;
        EXPECT_OK(repl_db_upkeep(db, false, &wants_quiet));
        EXPECT(!wants_quiet);
        EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
        EXPECT(!wants_quiet);
    }
    EXPECT(!db->holds_checkpoint && !db->holds_readers);
    wal_unlock(f, WAL_LOCK_CHECKPOINT, 1, true);
    upkeep_to_restart(db);
    replica_write(&l, NULL, "INSERT INTO t VALUES(1)");
    EXPECT(db->frames < 10);
    stock_close(foreign);
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

TEST(checkpoint_of_another_process_is_synced_before_the_wal_goes)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    _Atomic long calls = 0;
    replica_lead(&l, db);
    make_long(&l, 1);
    give_checkpoint_away(db);
    disk_count_only("main.db");
    disk_arm(DISK_KILL, LONG_MAX, 1, &calls);
    sqlite3 *foreign = stock_open(db->config.path, 1024); /* synchronous=OFF */
    stock_exec(foreign, "PRAGMA wal_checkpoint");
    stock_close(foreign);
    EXPECT(calls > 100); /* the copy */
    struct position_record before = db->record;
    disk_arm(DISK_FAIL, 1, 2, &calls); /* the sync of main.db is the first call that counts */
    enum err e = ERR_OK;
    bool wants_quiet;
    while (e == ERR_OK && !db->holds_readers)
        e = repl_db_upkeep(db, true, &wants_quiet);
    disk_disarm();
    disk_count_only(NULL);
    EXPECT_EQ(e, ERR_IO); /* with this seed: not for want of room */
    if (strstr(err_text(), "cannot sync") == NULL || strstr(err_text(), "main.db:") == NULL)
        test_fail(__FILE__, __LINE__, "\"%s\"", err_text());
    EXPECT(memcmp(&before, &db->record, sizeof before) == 0);
    uint64_t seq = repl_db_position(db).seq;
    replica_unlead(&l);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
    db = replica_open("a"); /* the old WAL is whole */
    EXPECT_EQ(repl_db_position(db).seq, seq);
    EXPECT(db->frames > 100);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

static void wait_ms(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* The kernel says once that it could not write, and calls what it dropped clean. */
TEST(checkpoint_believes_no_sync_after_one_that_failed)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    _Atomic long calls = 0;
    bool wants_quiet;
    replica_lead(&l, db);
    replica_write(&l, NULL, "CREATE TABLE t(a)");
    replica_unlead(&l);
    disk_count_only("main.db-wal");
    disk_arm(DISK_FAIL, 1, 2, &calls);
    repl_db_want_durable(db);
    while (atomic_load(&calls) == 0) /* the runner's time limit ends it */
        wait_ms(1);
    wait_ms(200);
    EXPECT_EQ(atomic_load(&calls), 1);
    disk_disarm();
    disk_count_only(NULL);
    repl_db_want_durable(db);
    wait_ms(200);
    EXPECT(repl_db_durable(db) < repl_db_position(db).seq);
    enum err e = ERR_OK;
    for (uint64_t end = clock_mono_ms() + TEST_HANG_MS; e == ERR_OK && clock_mono_ms() < end;)
        e = repl_db_upkeep(db, true, &wants_quiet);
    EXPECT_EQ(e, ERR_IO);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
}

TEST(checkpoint_restart_does_not_believe_in_a_quiet_moment)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    const char *open[] = {"BEGIN; SELECT count(*) FROM t", "BEGIN IMMEDIATE"};
    replica_lead(&l, db);
    for (unsigned i = 0; i < 2; i++) {
        make_long(&l, 1);
        stock_exec(l.conn, "%s", open[i]);
        for (uint64_t end = clock_mono_ms() + 500; clock_mono_ms() < end;) {
            bool wants_quiet;
            EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
            EXPECT(!wants_quiet && !db->holds_readers);
        }
        stock_exec(l.conn, "COMMIT");
        upkeep_to_restart(db);
        replica_write(&l, NULL, "INSERT INTO t VALUES(1)");
        EXPECT(db->frames < 10);
    }
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}
