/* Room: tests. What the client library costs: the load of tests/bench/bench.c through lectern.h.
 *
 *     bench-library [--clients N] [--seconds S] [--level L] [--step] insert|select URL
 *
 * One row a request, prepared once, one request under way for each of N sessions over one cluster,
 * without waiting; --step: one session and lectern_step, which waits. Prints the same line as
 * bench.
 *
 * Thread: one. The first fifth of the time warms up and is not counted. An error ends the run. */
#include "client/lectern.h"
#include "tests/bench/latencies.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define CLIENTS_MAX 4096
#define TEXT_BYTES  100
#define ROWS_READ   10000 /* as in bench.c: run.py puts them there */

#define SQL_INSERT "INSERT INTO bench(client, n, text) VALUES (?, ?, ?)"
#define SQL_SELECT "SELECT client, n, text FROM bench WHERE id = ?"

struct session {
    lectern *db;
    lectern_stmt *stmt;
    int number;
    int64_t n;
    uint64_t sent_ns;
};

static struct session sessions[CLIENTS_MAX];
static struct latencies latency;
static uint64_t count_from_ns, end_ns, random_state;
static bool reads;
static int running;
static char text[TEXT_BYTES];

_Noreturn static void fail(const char *what)
{
    (void)fprintf(stderr, "bench-library: %s\n", what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int64_t random_key(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((random_state >> 33) % ROWS_READ) + 1;
}

static void bind(struct session *s)
{
    int bad = 0;
    s->n++;
    if (reads) {
        bad |= lectern_bind_int64(s->stmt, 1, random_key());
    } else {
        bad |= lectern_bind_int(s->stmt, 1, s->number);
        bad |= lectern_bind_int64(s->stmt, 2, s->n);
        bad |= lectern_bind_text(s->stmt, 3, text, TEXT_BYTES, LECTERN_STATIC);
    }
    if (bad != 0)
        fail(lectern_errmsg(s->db));
    s->sent_ns = now_ns();
}

static bool ended(struct session *s, int result)
{
    if (result != LECTERN_DONE)
        fail(lectern_errmsg(s->db));
    uint64_t now = now_ns();
    if (s->sent_ns >= count_from_ns && now < end_ns)
        latencies_add(&latency, (now - s->sent_ns) / 1000);
    return now >= end_ns;
}

/* Looks at the row as a program does. */
static int on_row(void *arg, lectern_stmt *stmt)
{
    (void)arg;
    if (lectern_column_text(stmt, 2) == NULL || lectern_column_int64(stmt, 1) <= 0)
        fail("not the row that was asked for");
    return 0;
}

static void on_end(void *arg, lectern_stmt *stmt, int result)
{
    struct session *s = arg;
    if (ended(s, result)) {
        running--;
        return;
    }
    bind(s);
    if (lectern_start(stmt, on_row, on_end, s) != LECTERN_OK)
        fail(lectern_errmsg(s->db));
}

static void run_waiting(struct session *s)
{
    int result;
    do {
        bind(s);
        while ((result = lectern_step(s->stmt)) == LECTERN_ROW)
            (void)on_row(NULL, s->stmt);
        (void)lectern_reset(s->stmt);
    } while (!ended(s, result));
}

static void run_all(lectern_cluster *cluster, int n)
{
    for (int i = 0; i < n; i++) {
        bind(&sessions[i]);
        if (lectern_start(sessions[i].stmt, on_row, on_end, &sessions[i]) != LECTERN_OK)
            fail(lectern_errmsg(sessions[i].db));
    }
    running = n;
    while (running > 0)
        if (lectern_poll(cluster, -1) != LECTERN_OK)
            fail("lectern_poll");
}

static void open_all(lectern_cluster *cluster, int n, int level)
{
    for (int i = 0; i < n; i++) {
        struct session *s = &sessions[i];
        s->number = i + 1;
        if (lectern_open_session(cluster, &s->db) != LECTERN_OK ||
            lectern_read_level(s->db, level, 0) != LECTERN_OK ||
            lectern_prepare(s->db, reads ? SQL_SELECT : SQL_INSERT, -1, &s->stmt, NULL) !=
                LECTERN_OK)
            fail(lectern_errmsg(s->db));
    }
}

static void print_result(double seconds, uint64_t took_ns)
{
    struct rusage use;
    (void)getrusage(RUSAGE_SELF, &use);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                 (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    (void)printf("ops=%llu rate=%.1f p50_us=%llu p90_us=%llu p99_us=%llu max_us=%llu cpu=%.3f\n",
                 (unsigned long long)latency.count, (double)latency.count / (seconds * 0.8),
                 (unsigned long long)latencies_quantile(&latency, 0.50),
                 (unsigned long long)latencies_quantile(&latency, 0.90),
                 (unsigned long long)latencies_quantile(&latency, 0.99),
                 (unsigned long long)latency.max, cpu / ((double)took_ns / 1e9));
}

static int level_of(const char *name)
{
    static const char *const names[] = {"any", "bounded", "session", "strong"};
    for (int i = 0; i < 4; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    fail("--level is any, bounded, session or strong");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"clients", 1, NULL, 'c'},
                                            {"seconds", 1, NULL, 's'},
                                            {"level", 1, NULL, 'l'},
                                            {"step", 0, NULL, 'w'},
                                            {NULL, 0, NULL, 0}};
    long n = 1;
    int level = LECTERN_READ_SESSION;
    double seconds = 5;
    bool step = false;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == 'c')
            n = strtol(optarg, NULL, 10);
        else if (o == 's')
            seconds = strtod(optarg, NULL);
        else if (o == 'l')
            level = level_of(optarg);
        else if (o == 'w')
            step = true;
        else
            return 2;
    }
    lectern_cluster *cluster = NULL;
    if (argc - optind != 2 || n < 1 || n > CLIENTS_MAX || !(seconds > 0) || (step && n != 1) ||
        lectern_cluster_open(argv[optind + 1], &cluster) != LECTERN_OK)
        fail("usage: bench-library [--clients N] [--seconds S] [--level L] [--step] "
             "insert|select URL");
    reads = strcmp(argv[optind], "select") == 0;
    memset(text, 'x', sizeof text);
    random_state = now_ns();
    open_all(cluster, (int)n, level);
    uint64_t began = now_ns();
    end_ns = began + (uint64_t)(seconds * 1e9);
    count_from_ns = began + (uint64_t)(seconds * 0.2e9);
    if (step)
        run_waiting(&sessions[0]);
    else
        run_all(cluster, (int)n);
    print_result(seconds, now_ns() - began);
    for (int i = 0; i < n; i++) {
        (void)lectern_finalize(sessions[i].stmt);
        (void)lectern_close(sessions[i].db);
    }
    return lectern_cluster_close(cluster) == LECTERN_OK ? 0 : 1;
}
