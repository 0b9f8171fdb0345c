/* Room: tests. A node that dies at any of its writes, syncs, renames and cuts, or loses power
 * there, and is started again: its position is exact, its content is the one of that sequence, and
 * it goes on from the log.
 *
 * The program's own pwrite, fdatasync, ... stand before the C library's, for SQLite's calls as
 * well. A child process counts them and dies at the n-th. When the power goes, what was written
 * since a file's last sync is lost in part: none, a first part, or any subset of the writes stays,
 * the last of them torn at a sector. */
#include "base/buf.h"
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DIED        42
#define SECTOR      512
#define STEPS       45 /* transactions of the script */
#define CRASHES_MAX 3  /* one after the other, before the node is looked at */
#define PATH_BYTES  300

/* --- the disk --------------------------------------------------------------------------------- */

struct op {
    struct op *next; /* newest first */
    char path[PATH_BYTES];
    bool cut; /* else a write */
    uint64_t offset, size_before;
    size_t n, n_old;
    uint8_t *bytes, *old; /* old: what was there, up to the end of the file then */
};

#define LOG_ENTRIES_MAX 4096
#define LOG_BYTES_MAX   (4 << 20)

/* What the child and its parent share; it outlives the child, and its power. */
struct report {
    _Atomic long calls;    /* that it made */
    _Atomic uint64_t seq;  /* newest published that it told */
    _Atomic bool finished; /* it closed the database */
    /* The ordered entries of a leader: what Raft would keep. */
    _Atomic unsigned n;
    size_t end[LOG_ENTRIES_MAX]; /* of each entry in `bytes` */
    uint8_t bytes[LOG_BYTES_MAX];
};

static struct {
    _Atomic bool no_sync; /* a promise is enough for a process that dies by our hand */
    _Atomic bool armed;
    pthread_mutex_t gate;
    long left; /* calls before the end */
    bool power;
    struct rng rng;
    struct op *ops; /* not synced */
    struct report *report;
} disk = {.gate = PTHREAD_MUTEX_INITIALIZER};

static void fd_path(int fd, char path[PATH_BYTES])
{
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_BYTES - 1);
    path[n > 0 ? n : 0] = 0;
}

static bool is_shm(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, "-shm") == 0;
}

static void raw_write(const char *path, const uint8_t *p, size_t n, uint64_t offset)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return; /* removed since */
    (void)syscall(SYS_pwrite64, fd, p, n, offset);
    (void)close(fd);
}

static void raw_cut(const char *path, uint64_t size)
{
    if (syscall(SYS_truncate, path, size) != 0 && errno != ENOENT)
        _exit(1);
}

/* Before bytes [offset, offset + n) of FD change; BYTES is NULL for a cut to `offset`. */
static void note_op(int fd, const uint8_t *bytes, size_t n, uint64_t offset)
{
    struct stat st;
    struct op *o = mem_zalloc(sizeof *o);
    fd_path(fd, o->path);
    if (!disk.power || is_shm(o->path) || fstat(fd, &st) != 0) {
        free(o);
        return;
    }
    o->cut = bytes == NULL;
    o->offset = offset;
    o->size_before = (uint64_t)st.st_size;
    if (o->cut)
        n = o->size_before > offset ? (size_t)(o->size_before - offset) : 0;
    o->n = n;
    o->old = mem_zalloc(n + 1);
    ssize_t got = pread(fd, o->old, n, (off_t)offset);
    if (got < 0) { /* opened for writing only: a new file */
        got = 0;
    }
    o->n_old = (size_t)got;
    if (bytes != NULL) {
        o->bytes = mem_alloc(n + 1);
        memcpy(o->bytes, bytes, n);
    }
    o->next = disk.ops;
    disk.ops = o;
}

static void note_sync(int fd)
{
    char path[PATH_BYTES];
    fd_path(fd, path);
    struct op **at = &disk.ops;
    while (*at != NULL) {
        struct op *o = *at;
        if (strcmp(o->path, path) != 0) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        free(o->bytes);
        free(o->old);
        free(o);
    }
}

static void undo(const struct op *o)
{
    raw_write(o->path, o->old, o->n_old, o->offset);
    raw_cut(o->path, o->size_before);
}

static void redo(const struct op *o, bool torn)
{
    size_t n = o->n;
    if (o->cut) {
        raw_cut(o->path, o->offset);
        return;
    }
    if (torn) {
        uint64_t end = o->offset + rng_below(&disk.rng, n + 1);
        end -= end % SECTOR;
        n = end > o->offset ? (size_t)(end - o->offset) : 0;
    }
    raw_write(o->path, o->bytes, n, o->offset);
}

/* Takes all unsynced operations back, and does some of them again, in their order. The files are
 * judged one by one. */
static void lose_power(void)
{
    struct op *oldest = NULL;
    for (struct op *o = disk.ops, *next; o != NULL; o = next) {
        undo(o);
        next = o->next;
        o->next = oldest;
        oldest = o;
    }
    uint64_t mood = rng_u64(&disk.rng);
    for (struct op *o = oldest; o != NULL; o = o->next) {
        size_t len = strlen(o->path);
        uint64_t how = (mood >> (len % 8 * 8)) % 4; /* main.db, its WAL and position differ */
        if (how == 0)
            continue;
        if (how == 1 && rng_once_in(&disk.rng, 6)) { /* a first part: from here on nothing */
            redo(o, true);
            mood &= ~(0xffull << (len % 8 * 8));
        } else if (how < 3 || !rng_once_in(&disk.rng, 3)) {
            redo(o, how == 2 && rng_once_in(&disk.rng, 4));
        }
    }
}

/* With the gate held: the other threads wait there until the process is gone. */
static void count_call(void)
{
    atomic_fetch_add(&disk.report->calls, 1);
    if (--disk.left > 0)
        return;
    if (disk.power)
        lose_power();
    _exit(DIED);
}

static bool enter(void)
{
    if (!atomic_load(&disk.armed))
        return false;
    (void)pthread_mutex_lock(&disk.gate);
    count_call();
    return true;
}

static void leave(bool entered)
{
    if (entered)
        (void)pthread_mutex_unlock(&disk.gate);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset);
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset);
int fsync(int fd);
int fdatasync(int fd);
int ftruncate64(int fd, off64_t size);
int rename(const char *from, const char *to);
int unlink(const char *path);

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset)
{
    bool counted = enter();
    if (counted)
        note_op(fd, p, n, (uint64_t)offset);
    ssize_t done = syscall(SYS_pwrite64, fd, p, n, offset);
    leave(counted);
    return done;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
    return pwrite64(fd, p, n, offset);
}

static int sync_fd(int fd, long number)
{
    bool counted = enter();
    if (counted)
        note_sync(fd);
    leave(counted);
    return atomic_load(&disk.no_sync) ? 0 : (int)syscall(number, fd);
}

int fsync(int fd)
{
    return sync_fd(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_fd(fd, SYS_fdatasync);
}

int ftruncate64(int fd, off64_t size)
{
    bool counted = enter();
    if (counted)
        note_op(fd, NULL, 0, (uint64_t)size);
    int rc = (int)syscall(SYS_ftruncate, fd, size);
    leave(counted);
    return rc;
}

/* The directory is synced after each by the code under test; its loss is not simulated. */
int rename(const char *from, const char *to)
{
    bool counted = enter();
    int rc = (int)syscall(SYS_rename, from, to);
    leave(counted);
    return rc;
}

int unlink(const char *path)
{
    bool counted = enter();
    int rc = (int)syscall(SYS_unlink, path);
    leave(counted);
    return rc;
}

/* --- the work --------------------------------------------------------------------------------- */

/* Transaction number I + 1: depends on nothing but I and what the earlier ones left. */
static void script_step(sqlite3 *c, unsigned i)
{
    if (i == 0)
        stock_exec(c, "BEGIN; CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT, b BLOB);"
                      "CREATE INDEX ta ON t(a); COMMIT");
    else if (i % 19 == 11)
        stock_exec(c, "VACUUM");
    else if (i % 13 == 7)
        stock_exec(c, "DELETE FROM t WHERE k < %u", i - 5);
    else if (i % 17 == 9)
        stock_exec(c, "INSERT INTO t VALUES(%u, 'long', printf('%%.*c', 9000, 'x'))", i);
    else
        stock_exec(c, "INSERT INTO t VALUES(%u, 'name %u', printf('%%.*c', %u, 'y'))", i, i * 7,
                   i * 37 % 900);
}

static struct repl_config crash_config(const char *name)
{
    struct repl_config c = replica_config(name);
    c.page_size = 512;
    c.entry_bytes_max = 2048;
    c.wal_checkpoint_bytes = 4 * 1024;
    c.wal_restart_bytes = 12 * 1024;
    return c;
}

static struct repl_db *crash_open(const char *name) ON_OWNER
{
    struct repl_config c = crash_config(name);
    struct repl_db *db;
    EXPECT_OK(repl_db_open(&c, &db));
    EXPECT(repl_db_position_known(db));
    return db;
}

/* Whole transactions, before they are published. */
static void order(struct report *r, const struct repl_txn *t)
{
    unsigned n = atomic_load(&r->n);
    size_t at = n == 0 ? 0 : r->end[n - 1];
    for (unsigned i = 0; i < repl_txn_parts(t); i++) {
        size_t bytes;
        const uint8_t *p = repl_txn_part(t, i, &bytes);
        EXPECT(n < LOG_ENTRIES_MAX && at + bytes <= LOG_BYTES_MAX);
        memcpy(r->bytes + at, p, bytes);
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

/* Leads from the end of the log to the end of the script. */
static void lead_on(struct repl_db *db, struct report *r) ON_OWNER
{
    struct replica_leader l;
    replica_lead(&l, db);
    while (repl_view_seq(l.view) < STEPS) {
        struct repl_txn *t[2] = {NULL};
        for (unsigned i = 0; i < 2 && repl_view_seq(l.view) < STEPS; i++) {
            script_step(l.conn, (unsigned)repl_view_seq(l.view));
            EXPECT_OK(repl_view_seal(l.view, 1, &t[i]));
            EXPECT(t[i] != NULL);
        }
        for (unsigned i = 0; i < 2 && t[i] != NULL; i++) {
            order(r, t[i]);
            EXPECT_OK(repl_db_publish(db, t[i]));
            atomic_store(&r->seq, repl_db_published(db));
        }
        replica_upkeep(db);
    }
    replica_unlead(&l);
}

static void follow_log(struct repl_db *db, struct report *r) ON_OWNER
{
    struct replica_log log = ordered(r);
    unsigned cursor = 0;
    while (cursor < log.n) {
        replica_apply(db, &log, &cursor, cursor + 1);
        atomic_store(&r->seq, repl_db_published(db));
    }
    free(log.entries);
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
    disk.left = n;
    disk.power = t->power;
    disk.rng = t->rng;
    disk.report = t->report;
    atomic_store(&disk.armed, true);
    struct repl_db *db = crash_open(name);
    follow_log(db, t->report);
    if (t->leads)
        lead_on(db, t->report);
    EXPECT_OK(repl_db_close(db));
    atomic_store(&t->report->finished, true);
    atomic_store(&disk.armed, false);
    _exit(0);
}

static void run_child(struct trial *t, const char *name, long n) ON_OWNER
{
    atomic_store(&t->report->calls, 0);
    atomic_store(&t->report->seq, 0);
    atomic_store(&t->report->finished, false);
    (void)rng_u64(&t->rng);
    (void)fflush(stdout);
    pid_t pid = fork();
    EXPECT(pid >= 0);
    if (pid == 0)
        child_main(t, name, n);
    int status;
    EXPECT(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != DIED))
        test_fail(__FILE__, __LINE__, "the child at call %ld ended with status %#x", n, status);
    EXPECT(atomic_load(&t->report->finished) == (WEXITSTATUS(status) == 0));
}

static void remove_files(const char *name)
{
    static const char *const files[] = {"main.db",     "main.db-wal",  "main.db-shm",
                                        "main.db.new", "position.new", "position"};
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
        lead_on(db, t->report);
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
        if (!t->power) /* what a killed process told is in the files; power takes what it likes */
            at_least = atomic_load(&t->report->seq);
        if (t->report->finished)
            at_least = STEPS;
        n = 1 + (long)rng_below(&t->rng, (uint64_t)calls);
    }
    /* A child that died while opening told nothing. */
    expect_recovered(t, "x", t->power && !t->report->finished ? 0 : at_least);
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
    atomic_store(&disk.no_sync, true);
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
    long trials = (long)test_rounds(120), step = calls / trials > 0 ? calls / trials : 1;
    for (long n = 1 + (long)rng_below(&t.rng, (uint64_t)step); n <= calls; n += step) {
        if (leads)
            atomic_store(&t.report->n, 0);
        try_at(&t, n, calls);
    }
    EXPECT(munmap(t.report, sizeof *t.report) == 0);
}

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
