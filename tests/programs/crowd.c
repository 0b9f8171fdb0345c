/* Room: tests. Many sessions over one cluster in one thread: each inserts a row and reads it back,
 * all at the same time. It says what that took and what memory it needs.
 *
 *     crowd URL SESSIONS    into  CREATE TABLE crowd(session INTEGER PRIMARY KEY, text)
 *
 * One line of JSON when all have ended, errors included; then it keeps its sessions open until
 * standard input ends, so that a test can look at the nodes.
 *
 * Thread: one. */
#include <lectern.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct guest {
    lectern *db;
    lectern_stmt *insert, *select;
    int64_t number;
};

static int waiting, inserted, read_back, failed;
static char first_error[600];

static long rss_kib(void)
{
    long total = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL)
        return -1;
    int n = fscanf(f, "%ld %ld", &total, &pages);
    (void)fclose(f);
    return n == 2 ? pages * (sysconf(_SC_PAGESIZE) / 1024) : -1;
}

static double now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1000.0 + (double)t.tv_nsec / 1e6;
}

static void leave(const struct guest *g, int result)
{
    waiting--;
    if (result == LECTERN_DONE)
        return;
    if (failed++ == 0)
        (void)snprintf(first_error, sizeof first_error, "guest %" PRId64 ": %d %s", g->number,
                       result, lectern_errmsg(g->db));
}

static int on_row(void *arg, lectern_stmt *stmt)
{
    const struct guest *g = arg;
    read_back += lectern_column_int64(stmt, 0) == g->number;
    return 0;
}

static void selected(void *arg, lectern_stmt *stmt, int result)
{
    (void)stmt;
    leave(arg, result);
}

static void was_inserted(void *arg, lectern_stmt *stmt, int result)
{
    struct guest *g = arg;
    (void)stmt;
    inserted += result == LECTERN_DONE;
    if (result == LECTERN_DONE)
        result = lectern_bind_int64(g->select, 1, g->number) == LECTERN_OK
                     ? lectern_start(g->select, on_row, selected, g)
                     : LECTERN_ERROR;
    if (result != LECTERN_OK)
        leave(g, result);
}

/* Joins the crowd: a session, two statements, the first one started. */
static int enter(lectern_cluster *cluster, struct guest *g, int64_t number)
{
    static const char insert[] = "INSERT INTO crowd VALUES (?, 'guest')";
    static const char select[] = "SELECT session FROM crowd WHERE session = ?";
    g->number = number;
    int code = lectern_open_session(cluster, &g->db);
    if (code == LECTERN_OK)
        code = lectern_prepare_v3(g->db, insert, -1, LECTERN_PREPARE_LAZY, &g->insert, NULL);
    if (code == LECTERN_OK)
        code = lectern_prepare_v3(g->db, select, -1, LECTERN_PREPARE_LAZY, &g->select, NULL);
    if (code == LECTERN_OK)
        code = lectern_bind_int64(g->insert, 1, number);
    if (code == LECTERN_OK)
        code = lectern_start(g->insert, NULL, was_inserted, g);
    waiting += code == LECTERN_OK;
    return code;
}

static int end_all(lectern_cluster *cluster, struct guest *guests, long n)
{
    for (long i = 0; i < n; i++) {
        (void)lectern_finalize(guests[i].insert);
        (void)lectern_finalize(guests[i].select);
        (void)lectern_close(guests[i].db);
    }
    free(guests);
    return lectern_cluster_close(cluster) == LECTERN_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    lectern_cluster *cluster = NULL;
    long n = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    struct guest *guests = n > 0 ? calloc((size_t)n, sizeof *guests) : NULL;
    if (guests == NULL || lectern_cluster_open(argv[1], &cluster) != LECTERN_OK) {
        (void)fprintf(stderr, "crowd URL SESSIONS\n");
        return 2;
    }
    long before = rss_kib();
    double began = now_ms();
    for (long i = 0; i < n; i++) {
        int code = enter(cluster, &guests[i], i + 1);
        if (code != LECTERN_OK) {
            (void)fprintf(stderr, "guest %ld: %d %s\n", i, code, lectern_errmsg(guests[i].db));
            return 1;
        }
    }
    long started = rss_kib(), most = started;
    while (waiting > 0 && lectern_poll(cluster, -1) == LECTERN_OK)
        most = rss_kib() > most ? rss_kib() : most;
    printf("{\"inserted\": %d, \"read_back\": %d, \"failed\": %d, \"ms\": %.0f, "
           "\"rss_before_kib\": %ld, \"rss_started_kib\": %ld, \"rss_most_kib\": %ld, "
           "\"rss_kib\": %ld, \"error\": \"%s\"}\n",
           inserted, read_back, failed, now_ms() - began, before, started, most, rss_kib(),
           first_error);
    (void)fflush(stdout);
    while (getchar() != EOF)
        ;
    return end_all(cluster, guests, n);
}
