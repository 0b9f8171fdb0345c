/* Room: tests. What the storage costs, without a cluster:
 *
 *     bench-storage stall DIR SECONDS RATE    how long commits wait for checkpoints and restarts
 *     bench-storage fill DIR MEGABYTES        makes a database of that size, and ends as by kill -9
 *     bench-storage open DIR                  how long it takes to open, and the memory it needs
 *     bench-storage scan DIR ROUNDS           a full read of it with and without verification
 *
 * `stall` commits one row at a time at RATE a second, each at its appointed time: a commit that
 * waits makes all behind it late, and they count with the time since they were due. With RATE 0 one
 * follows the other. One line of key=value is printed, times in microseconds. DIR exists.
 * Thread: the owner, alone (and the checkpoint thread of the database). */
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "replication/replication.h"
#include "tests/bench/latencies.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define DATABASE_ID 0x5704a6eu
/* One row of `fill`: a transaction has FILL_ROWS of them. */
#define FILL_BYTES 3800
#define FILL_ROWS  2000

_Noreturn static void fail(const char *what)
{
    (void)fprintf(stderr, "bench-storage: %s: %s\n", what, err_text());
    exit(1);
}

#define MUST(expr)                                                                                 \
    do {                                                                                           \
        if ((expr) != ERR_OK)                                                                      \
            fail(#expr);                                                                           \
    } while (0)

static struct repl_db *open_db(const char *dir) ON_OWNER
{
    struct repl_config c;
    struct repl_db *db;
    char *path = mem_printf("%s/main.db", dir);
    repl_config_init(&c, path);
    c.database_id = DATABASE_ID;
    MUST(repl_db_open(&c, &db));
    free(path);
    return db;
}

static void run(sqlite3 *c, const char *sql)
{
    if (sqlite3_exec(c, sql, NULL, NULL, NULL) == SQLITE_OK)
        return;
    (void)fprintf(stderr, "bench-storage: %s: %s\n", sql, sqlite3_errmsg(c));
    exit(1);
}

struct leader {
    struct repl_db *db;
    struct repl_view *view;
    sqlite3 *conn;
};

static struct leader lead(const char *dir) ON_OWNER
{
    struct leader l = {.db = open_db(dir)};
    MUST(repl_view_open(l.db, &l.view));
    MUST(repl_view_connect(l.view, &l.conn));
    return l;
}

static void publish(struct leader *l) ON_OWNER
{
    struct repl_txn *t;
    MUST(repl_view_seal(l->view, 1, NULL, 0, &t));
    if (t != NULL)
        MUST(repl_db_publish(l->db, t));
}

/* As a lane does it: when a quiet moment is wanted, nothing is written until it has passed. */
static void upkeep(struct leader *l) ON_OWNER
{
    bool wants_quiet = true;
    while (wants_quiet)
        MUST(repl_db_upkeep(l->db, true, &wants_quiet));
}

static void wait_until(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void stall(const char *dir, double seconds, double rate) ON_OWNER
{
    struct leader l = lead(dir);
    struct latencies *h = MEM_NEW(struct latencies);
    struct repl_stats stats;
    sqlite3_stmt *insert;
    uint64_t wal_max = 0, n = 0, began = clock_mono_ns(), longest_upkeep = 0;
    uint64_t longest_commit = 0, oversleep = 0, was_free = began;
    run(l.conn, "BEGIN; CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, a INT, b TEXT);"
                "CREATE INDEX IF NOT EXISTS ta ON t(a); COMMIT");
    publish(&l);
    CHECK(sqlite3_prepare_v2(l.conn, "INSERT INTO t(a, b) VALUES(random(), hex(randomblob(50)))",
                             -1, &insert, NULL) == SQLITE_OK);
    const uint64_t end = began + (uint64_t)(seconds * 1e9);
    for (uint64_t due = began; due < end; n++) {
        if (rate > 0 && clock_mono_ns() < due)
            wait_until(due);
        uint64_t woken = clock_mono_ns();
        oversleep = max_of(oversleep, woken - max_of(due, was_free));
        CHECK(sqlite3_step(insert) == SQLITE_DONE);
        CHECK(sqlite3_reset(insert) == SQLITE_OK);
        publish(&l);
        longest_commit = max_of(longest_commit, clock_mono_ns() - woken);
        uint64_t late = clock_mono_ns() - due;
        latencies_add(h, late / 1000);
        uint64_t before = clock_mono_ns();
        upkeep(&l);
        longest_upkeep = max_of(longest_upkeep, clock_mono_ns() - before);
        repl_db_stats(l.db, &stats);
        wal_max = max_of(wal_max, stats.wal_bytes);
        was_free = clock_mono_ns();
        due = rate > 0 ? due + (uint64_t)(1e9 / rate) : clock_mono_ns();
    }
    (void)sqlite3_finalize(insert);
    (void)printf("commits=%llu p50_us=%llu p99_us=%llu p999_us=%llu max_us=%llu "
                 "longest_commit_us=%.0f longest_upkeep_us=%.0f oversleep_us=%.0f wal_max_mib=%.1f "
                 "restarts=%llu checkpoints=%llu "
                 "database_mib=%.0f\n",
                 (unsigned long long)n, (unsigned long long)latencies_quantile(h, 0.5),
                 (unsigned long long)latencies_quantile(h, 0.99),
                 (unsigned long long)latencies_quantile(h, 0.999), (unsigned long long)h->max,
                 (double)longest_commit / 1e3, (double)longest_upkeep / 1e3,
                 (double)oversleep / 1e3, (double)wal_max / (double)MIB(1),
                 (unsigned long long)stats.wal_restarts, (unsigned long long)stats.checkpoints,
                 (double)stats.pages * stats.page_size / (double)MIB(1));
    CHECK(sqlite3_close(l.conn) == SQLITE_OK);
    repl_view_close(l.view);
    MUST(repl_db_close(l.db));
    free(h);
}

static void fill(const char *dir, uint64_t megabytes) ON_OWNER
{
    struct leader l = lead(dir);
    struct repl_stats stats = {0};
    char *sql =
        mem_printf("INSERT INTO f(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
                   "FROM n WHERE i < %d) SELECT randomblob(%d) FROM n",
                   FILL_ROWS, FILL_BYTES);
    run(l.conn, "CREATE TABLE IF NOT EXISTS f(k INTEGER PRIMARY KEY, b BLOB)");
    publish(&l);
    while ((uint64_t)stats.pages * stats.page_size < MIB(megabytes)) {
        run(l.conn, sql);
        publish(&l);
        upkeep(&l);
        repl_db_stats(l.db, &stats);
    }
    (void)printf("pages=%u seq=%llu checksum=%016llx wal_mib=%.1f\n", stats.pages,
                 (unsigned long long)stats.published_seq, (unsigned long long)stats.checksum,
                 (double)stats.wal_bytes / (double)MIB(1));
    (void)fflush(stdout);
    (void)kill(getpid(), SIGKILL);
}

static void open_it(const char *dir) ON_OWNER
{
    struct rusage use;
    struct repl_stats stats;
    uint64_t began = clock_mono_ns();
    struct repl_db *db = open_db(dir);
    uint64_t opened = clock_mono_ns();
    repl_db_stats(db, &stats);
    (void)getrusage(RUSAGE_SELF, &use);
    (void)printf("open_ms=%.1f pages=%u seq=%llu checksum=%016llx wal_mib=%.1f memory_mib=%.1f\n",
                 (double)(opened - began) / 1e6, stats.pages,
                 (unsigned long long)stats.published_seq, (unsigned long long)stats.checksum,
                 (double)stats.wal_bytes / (double)MIB(1), (double)use.ru_maxrss / 1024);
    (void)fflush(stdout);
    (void)kill(getpid(), SIGKILL);
}

static double scan_once(sqlite3 *c)
{
    uint64_t began = clock_mono_ns();
    run(c, "SELECT sum(length(b)), max(b) FROM f");
    return (double)(clock_mono_ns() - began) / 1e6;
}

static void scan(const char *dir, int rounds) ON_OWNER
{
    struct repl_db *db = open_db(dir);
    char *path = mem_printf("%s/main.db", dir);
    sqlite3 *ours, *stock;
    thread_become(THREAD_READER);
    thread_expect_reader();
    MUST(repl_reader_open(db, &ours));
    CHECK(sqlite3_open_v2(path, &stock, SQLITE_OPEN_READONLY | SQLITE_OPEN_FULLMUTEX, NULL) ==
          SQLITE_OK);
    (void)scan_once(stock);
    (void)scan_once(ours);
    for (int i = 0; i < rounds; i++) {
        double without = scan_once(stock), with = scan_once(ours);
        (void)printf("unverified_ms=%.0f verified_ms=%.0f ratio=%.3f\n", without, with,
                     with / without);
    }
    (void)sqlite3_close(stock);
    (void)sqlite3_close(ours);
    thread_become(THREAD_OWNER);
    MUST(repl_db_close(db));
    free(path);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    log_set_level(LOG_WARN);
    if (strcmp(what, "stall") == 0 && argc == 5)
        stall(argv[2], strtod(argv[3], NULL), strtod(argv[4], NULL));
    else if (strcmp(what, "fill") == 0 && argc == 4)
        fill(argv[2], strtoull(argv[3], NULL, 10));
    else if (strcmp(what, "open") == 0 && argc == 3)
        open_it(argv[2]);
    else if (strcmp(what, "scan") == 0 && argc == 4)
        scan(argv[2], (int)strtol(argv[3], NULL, 10));
    else {
        (void)fprintf(stderr,
                      "usage: bench-storage stall|fill|open|scan DIR ...: see the source\n");
        return 2;
    }
    return 0;
}
