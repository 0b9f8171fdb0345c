/* Room: tests. A node that dies at any of its writes, syncs, renames and cuts, or loses power
 * there, and is started again: its position is exact, its content is the one of that sequence, and
 * it goes on from the log. A disk that fails there: the database stops with a sentence, and what
 * is in the files is as after a death. */
#include "base/buf.h"
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/disk.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS       45 /* transactions of the script */
#define CRASHES_MAX 3  /* one after the other, before the node is looked at */

#define LOG_ENTRIES_MAX 4096
#define LOG_BYTES_MAX   (4 << 20)

/* What the child and its parent share; it outlives the child, and its power. */
struct report {
    _Atomic long calls;       /* that it made */
    _Atomic uint64_t seq;     /* newest published that it told */
    _Atomic uint64_t durable; /* that no loss of power may take back */
    _Atomic bool finished;    /* it closed the database */
    /* The ordered entries of a leader: what Raft would keep. */
    _Atomic unsigned n;
    size_t end[LOG_ENTRIES_MAX]; /* of each entry in `bytes` */
    uint8_t bytes[LOG_BYTES_MAX];
};

/* --- the work --------------------------------------------------------------------------------- */

/* Transaction number I + 1: depends on nothing but I and what the earlier ones left. */
static enum err script_step(sqlite3 *c, unsigned i)
{
    char sql[200];
    if (i == 0)
        (void)snprintf(sql, sizeof sql,
                       "BEGIN; CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT, b BLOB);"
                       "CREATE INDEX ta ON t(a); COMMIT");
    else if (i % 19 == 11)
        (void)snprintf(sql, sizeof sql, "VACUUM");
    else if (i % 13 == 7)
        (void)snprintf(sql, sizeof sql, "DELETE FROM t WHERE k < %u", i - 5);
    else
        (void)snprintf(sql, sizeof sql,
                       "INSERT INTO t VALUES(%u, 'name %u', printf('%%.*c', %u, 'y'))", i, i * 7,
                       i % 17 == 9 ? 9000 : i * 37 % 900);
    return sqlite_error(sqlite3_exec(c, sql, NULL, NULL, NULL), "run the script on", "the view");
}

static struct repl_db *crash_open(const char *name) ON_OWNER
{
    struct repl_config c = replica_small_config(name);
    struct repl_db *db;
    EXPECT_OK(repl_db_open(&c, &db));
    EXPECT(repl_db_position_known(db));
    return db;
}

/* Whole transactions, before they are published. */
static void order(struct report *r, const struct repl_txn *t) ON_OWNER
{
    unsigned n = atomic_load(&r->n);
    size_t at = n == 0 ? 0 : r->end[n - 1];
    for (unsigned i = 0; i < repl_txn_parts(t); i++) {
        size_t bytes;
        uint8_t *p;
        EXPECT_OK(repl_txn_part(t, i, &p, &bytes));
        EXPECT(n < LOG_ENTRIES_MAX && at + bytes <= LOG_BYTES_MAX);
        memcpy(r->bytes + at, p, bytes);
        free(p);
        at += bytes;
        r->end[n++] = at;
    }
    atomic_store(&r->n, n);
}

/* The ordered entries, borrowed. */
static struct replica_log ordered(struct report *r)
{
    struct replica_log log = {.n = atomic_load(&r->n)};
    log.entries = mem_alloc((log.n + 1) * sizeof *log.entries);
    for (unsigned i = 0; i < log.n; i++) {
        size_t at = i == 0 ? 0 : r->end[i - 1];
        log.entries[i] = (struct replica_entry){r->bytes + at, r->end[i] - at, 0};
    }
    return log;
}

static enum err upkeep_all(struct repl_db *db) ON_OWNER
{
    bool wants_quiet = true;
    while (wants_quiet)
        TRY(repl_db_upkeep(db, true, &wants_quiet));
    return ERR_OK;
}

/* Tells what was published and what survives; now and then more is to survive. */
static void tell(struct repl_db *db, struct report *r) ON_OWNER
{
    uint64_t published = repl_db_published(db);
    if (published % 4 == 1)
        repl_db_want_durable(db);
    atomic_store(&r->seq, published);
    atomic_store(&r->durable, repl_db_durable(db));
}

/* Two transactions run ahead, then both are published. */
static enum err lead_step(struct replica_leader *l, struct report *r) ON_OWNER
{
    struct repl_txn *t[2] = {NULL};
    enum err e = ERR_OK;
    for (unsigned i = 0; i < 2 && e == ERR_OK && repl_view_seq(l->view) < STEPS; i++) {
        e = script_step(l->conn, (unsigned)repl_view_seq(l->view));
        if (e == ERR_OK)
            e = repl_view_seal(l->view, 1, NULL, 0, &t[i]);
        EXPECT(e != ERR_OK || t[i] != NULL);
    }
    for (unsigned i = 0; i < 2 && t[i] != NULL; i++) {
        if (e == ERR_OK) {
            order(r, t[i]);
            e = repl_db_publish(l->db, t[i]);
            if (e == ERR_FULL)
                repl_txn_free(t[i]);
            tell(l->db, r);
        } else {
            repl_txn_free(t[i]);
        }
    }
    return e == ERR_OK ? upkeep_all(l->db) : e;
}

/* Leads from the end of the log to the end of the script, or to the first error. */
static enum err lead_on(struct repl_db *db, struct report *r) ON_OWNER
{
    struct replica_leader l = {.db = db};
    TRY(repl_view_open(db, &l.view));
    enum err e = repl_view_connect(l.view, &l.conn);
    while (e == ERR_OK && repl_view_seq(l.view) < STEPS)
        e = lead_step(&l, r);
    replica_unlead(&l);
    return e;
}

static enum err follow_log(struct repl_db *db, struct report *r) ON_OWNER
{
    struct replica_log log = ordered(r);
    enum err e = ERR_OK;
    for (unsigned i = 0; i < log.n && e == ERR_OK; i++) {
        e = repl_db_apply(db, log.entries[i].bytes, log.entries[i].n);
        tell(db, r);
        if (e == ERR_OK)
            e = upkeep_all(db);
    }
    free(log.entries);
    return e;
}

/* --- the trial -------------------------------------------------------------------------------- */

struct trial {
    bool leads, power, watched;
    struct report *report;
    struct rng rng;
};

/* Works in a child that dies at its N-th call. */
static void child_main(struct trial *t, const char *name, long n) ON_OWNER
{
    disk_arm(t->power ? DISK_POWER : DISK_KILL, n, rng_u64(&t->rng), &t->report->calls);
    struct repl_db *db = crash_open(name);
    EXPECT_OK(follow_log(db, t->report));
    if (t->leads)
        EXPECT_OK(lead_on(db, t->report));
    EXPECT_OK(repl_db_close(db));
    atomic_store(&t->report->finished, true);
    disk_disarm();
    _exit(0);
}

static void run_child(struct trial *t, const char *name, long n) ON_OWNER
{
    atomic_store(&t->report->calls, 0);
    atomic_store(&t->report->seq, 0);
    atomic_store(&t->report->durable, 0);
    atomic_store(&t->report->finished, false);
    (void)rng_u64(&t->rng);
    (void)fflush(stdout);
    pid_t pid = fork();
    EXPECT(pid >= 0);
    if (pid == 0)
        child_main(t, name, n);
    int status;
    EXPECT(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != DISK_DIED))
        test_fail(__FILE__, __LINE__, "the child at call %ld ended with status %#x", n, status);
    EXPECT(atomic_load(&t->report->finished) == (WEXITSTATUS(status) == 0));
}

static void remove_files(const char *name)
{
    static const char *const files[] = {"main.db",      "main.db-wal", "main.db-shm", "main.db.new",
                                        "position.new", "position",    "hashes",      "hashes.new"};
    for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = mem_printf("%s/%s/%s", test_dir(), name, files[i]);
        (void)unlink(path);
        free(path);
    }
}

/* The checksum of the database at SEQ, as the log says. */
static uint64_t checksum_at(const struct replica_log *log, uint64_t seq)
{
    struct repl_entry e = {0};
    EXPECT(log->n > 0);
    for (unsigned i = 0; i < log->n && e.seq < (seq == 0 ? 1 : seq); i++)
        EXPECT_OK(repl_entry_read(log->entries[i].bytes, log->entries[i].n, &e));
    return seq == 0 ? e.checksum_before : e.checksum_after;
}

static void expect_recovered(struct trial *t, const char *name, uint64_t at_least) ON_OWNER
{
    struct replica_log log = ordered(t->report);
    struct repl_db *db = crash_open(name);
    struct repl_position p = repl_db_position(db);
    EXPECT(!db->rehashed); /* `hashes` was right where it had to be */
    if (p.seq < at_least)
        test_fail(__FILE__, __LINE__, "recovered at sequence %llu, the child told %llu",
                  (unsigned long long)p.seq, (unsigned long long)at_least);
    if (log.n > 0)
        EXPECT_EQ(p.checksum, checksum_at(&log, p.seq));
    else
        EXPECT_EQ(p.seq, 0);
    replica_expect_sound(db);
    unsigned cursor = 0;
    replica_apply(db, &log, &cursor, log.n);
    replica_expect_sound(db);
    if (t->leads)
        EXPECT_OK(lead_on(db, t->report));
    EXPECT_EQ(repl_db_position(db).seq, STEPS);
    EXPECT_OK(repl_db_close(db));
    remove_files(name);
    free(log.entries);
}

/* Another process that has the database open: then the shared memory, and with it the wal-index,
 * survives a crash as it was, and SQLite recovers nothing. */
static pid_t watch(const char *name) ON_OWNER
{
    int ready[2];
    char byte = 0;
    EXPECT_OK(repl_db_close(crash_open(name)));
    EXPECT(pipe(ready) == 0);
    pid_t pid = fork();
    EXPECT(pid >= 0);
    if (pid == 0) {
        char *path = mem_printf("%s/%s/main.db", test_dir(), name);
        sqlite3 *conn;
        if (sqlite3_open_v2(path, &conn, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
            sqlite3_exec(conn, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) != SQLITE_OK)
            _exit(1);
        (void)!write(ready[1], &byte, 1);
        for (;;)
            (void)pause();
    }
    EXPECT(close(ready[1]) == 0 && read(ready[0], &byte, 1) == 1 && close(ready[0]) == 0);
    return pid;
}

static void unwatch(pid_t pid)
{
    int status;
    EXPECT(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
}

/* N: the call at which the first of the deaths comes; the later ones come anywhere. */
static void try_at(struct trial *t, long n, long calls) ON_OWNER
{
    uint64_t at_least = 0;
    pid_t watcher = t->watched ? watch("x") : 0;
    for (uint64_t i = rng_below(&t->rng, CRASHES_MAX) + 1; i > 0; i--) {
        run_child(t, "x", n);
        /* What a killed process told is in the files; power takes what is not durable. A child that
         * died while it opened told nothing. */
        uint64_t kept = atomic_load(t->power ? &t->report->durable : &t->report->seq);
        at_least = kept > at_least ? kept : at_least;
        if (t->report->finished)
            at_least = STEPS;
        n = 1 + (long)rng_below(&t->rng, (uint64_t)calls);
    }
    expect_recovered(t, "x", at_least);
    if (watcher != 0)
        unwatch(watcher);
}

/* A whole run without a death: leaves the log, and says how many calls there are. */
static long count_calls(struct trial *t) ON_OWNER
{
    run_child(t, "x", 1L << 40);
    EXPECT(atomic_load(&t->report->finished));
    long calls = atomic_load(&t->report->calls);
    expect_recovered(t, "x", STEPS);
    return calls;
}

static void crash_trials(bool leads, bool power, bool watched)
{
    replica_become_owner();
    disk_skip_syncs();
    struct trial t = {.leads = true, .power = power, .rng = {test_seed()}};
    t.report =
        mmap(NULL, sizeof *t.report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(t.report != MAP_FAILED);
    long calls = count_calls(&t);
    t.leads = leads;
    if (!leads)
        calls = count_calls(&t); /* applies what the leader left */
    (void)printf("%ld calls, %u entries\n", calls, atomic_load(&t.report->n));
    EXPECT(calls > 200);
    t.watched = watched;
    long trials = (long)test_rounds(80), step = calls / trials > 0 ? calls / trials : 1;
    for (long n = 1 + (long)rng_below(&t.rng, (uint64_t)step); n <= calls; n += step) {
        if (leads)
            atomic_store(&t.report->n, 0);
        try_at(&t, n, calls);
    }
    EXPECT(munmap(t.report, sizeof *t.report) == 0);
}

/* --- a disk that fails ------------------------------------------------------------------------ */

static void expect_error(enum err e)
{
    if ((e != ERR_IO && e != ERR_FULL && e != ERR_STOPPED) || strlen(err_text()) < 20)
        test_fail(__FILE__, __LINE__, "the disk failed, and the error is %s: %s", err_name((int)e),
                  err_text());
}

/* Works in this process until call N fails, and all after it. *CALLS: how many there were. */
static void work_with_failing_disk(struct trial *t, const char *name, long n) ON_OWNER
{
    struct repl_config c = replica_small_config(name);
    struct repl_db *db;
    atomic_store(&t->report->calls, 0);
    atomic_store(&t->report->seq, 0);
    disk_arm(DISK_FAIL, n, rng_u64(&t->rng), &t->report->calls);
    enum err e = repl_db_open(&c, &db);
    if (e == ERR_OK) {
        e = follow_log(db, t->report);
        if (e == ERR_OK && t->leads)
            e = lead_on(db, t->report);
        if (e != ERR_OK)
            expect_error(e);
        if (e != ERR_OK && db->stopped) { /* a leader's SQL may fail alone: VACUUM's file */
            EXPECT_ERR(ERR_STOPPED, repl_db_verify(db));
            EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
        } else {
            e = repl_db_close(db);
        }
    }
    if (e != ERR_OK)
        expect_error(e);
    disk_disarm();
    EXPECT(e != ERR_OK || atomic_load(&t->report->calls) < n);
}

static void failure_trials(bool leads)
{
    replica_become_owner();
    disk_skip_syncs();
    struct trial t = {.leads = true, .rng = {test_seed()}};
    t.report =
        mmap(NULL, sizeof *t.report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(t.report != MAP_FAILED);
    long calls = count_calls(&t), step = calls / (long)test_rounds(80);
    t.leads = leads;
    for (long n = 1; n <= calls; n += 1 + (long)rng_below(&t.rng, (uint64_t)step * 2 + 1)) {
        if (leads)
            atomic_store(&t.report->n, 0);
        work_with_failing_disk(&t, "x", n);
        expect_recovered(&t, "x", atomic_load(&t.report->seq));
    }
    EXPECT(munmap(t.report, sizeof *t.report) == 0);
}

TEST(crash_disk_of_a_follower_fails_anywhere)
{
    failure_trials(false);
}

TEST(crash_disk_of_a_leader_fails_anywhere)
{
    failure_trials(true);
}

/* --- a process that dies ---------------------------------------------------------------------- */

TEST(crash_kills_a_follower_anywhere)
{
    crash_trials(false, false, false);
}

TEST(crash_kills_a_leader_anywhere)
{
    crash_trials(true, false, false);
}

TEST(crash_cuts_a_followers_power_anywhere)
{
    crash_trials(false, true, false);
}

TEST(crash_cuts_a_leaders_power_anywhere)
{
    crash_trials(true, true, false);
}

TEST(crash_kills_a_follower_that_another_process_reads)
{
    crash_trials(false, false, true);
}

TEST(crash_kills_a_leader_that_another_process_reads)
{
    crash_trials(true, false, true);
}

/* Between the new WAL's salts in `position` and its header, again and again: the salts of the WAL
 * that is in the file must stay known. */
TEST(crash_between_position_and_header_again_and_again)
{
    replica_become_owner();
    disk_skip_syncs();
    struct trial t = {.leads = true, .rng = {test_seed()}};
    t.report =
        mmap(NULL, sizeof *t.report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(t.report != MAP_FAILED);
    (void)count_calls(&t);
    t.leads = false;
    disk_count_only("/position");
    for (long n = 1; n < 10; n++) {
        uint64_t told = 0;
        for (unsigned lives = 0; lives < 4; lives++) {
            run_child(&t, "x", lives == 0 ? n : 1 + (long)rng_below(&t.rng, 2));
            told = atomic_load(&t.report->seq);
        }
        expect_recovered(&t, "x", atomic_load(&t.report->finished) ? STEPS : told);
    }
    EXPECT(munmap(t.report, sizeof *t.report) == 0);
}
