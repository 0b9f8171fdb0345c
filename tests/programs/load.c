/* Room: tests. Load without waiting: many sessions over one cluster in one thread, each with one
 * thing under way, driven by poll() on the library's descriptor. Meanwhile a test kills nodes.
 *
 *     load URL INSERTS BATCHES TRANSACTIONS
 *
 * INSERTS sessions write one row at a time, BATCHES three rows in a batch, TRANSACTIONS two rows
 * between BEGIN IMMEDIATE and COMMIT; all into
 *
 *     CREATE TABLE events(id INTEGER PRIMARY KEY, kind TEXT, session INT, n INT, part INT)
 *
 * which has no unique index on purpose: what is done twice shows. N counts what a session tried:
 * each number is used once. For each outcome a line
 *
 *     MS KIND SESSION N STAGE CODE ROWID...
 *
 * STAGE is where a transaction ended (0 BEGIN, 1 and 2 INSERT, 3 COMMIT). In between the inserting
 * sessions count their own rows (level session): fewer than they know of, or more than they sent,
 * is a line "BAD ...". It ends when standard input does: nothing new is begun, what is under way
 * comes to its end.
 *
 * Thread: one. Not here: what the outcomes must be (tests/lib/exactly_once.py). */
#include <lectern.h>

#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ACTORS_MAX  1024
#define PARTS       3  /* rows of a batch */
#define COUNT_EVERY 16 /* writes between two counts of one's own rows */

#define INSERT "INSERT INTO events(kind, session, n, part) VALUES (?, ?, ?, ?)"
#define COUNT  "SELECT count(*) FROM events WHERE kind = 'i' AND session = ?"

enum stage { BEGIN, FIRST, SECOND, COMMIT, ROLLBACK, N_STAGES };

struct actor {
    char kind; /* i, b, t */
    int number;
    int64_t n, acknowledged, unknown, seen;
    lectern *db;
    lectern_stmt *insert, *count, *steps[N_STAGES];
    lectern_batch *batch;
    enum stage stage, ended_at;
    int result;
};

static struct actor actors[ACTORS_MAX];
static int n_actors, n_running;
static bool stopping;
static struct timespec began;

_Noreturn static void fail(const char *what, lectern *db)
{
    (void)fprintf(stderr, "load: %s: %s\n", what, lectern_errmsg(db));
    exit(1);
}

static void must(int code, const char *what, const struct actor *a)
{
    if (code != LECTERN_OK)
        fail(what, a->db);
}

static int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (t.tv_sec - began.tv_sec) * 1000 + (t.tv_nsec - began.tv_nsec) / 1000000;
}

static void begin_next(struct actor *a);

/* Counts and writes down how number N ended. */
static void outcome(struct actor *a, enum stage stage, int code)
{
    printf("%" PRId64 " %c %d %" PRId64 " %d %d", now_ms(), a->kind, a->number, a->n, (int)stage,
           code);
    if (code == LECTERN_DONE && a->kind == 'b') {
        for (int i = 0; i < PARTS; i++)
            printf(" %" PRId64, lectern_batch_last_insert_rowid(a->batch, i));
    } else if (code == LECTERN_DONE && a->kind == 'i') {
        printf(" %" PRId64, lectern_last_insert_rowid(a->db));
        if (lectern_changes(a->db) != 1)
            printf("\nBAD changes %" PRId64, lectern_changes(a->db));
    }
    printf("\n");
    if (code == LECTERN_DONE)
        a->acknowledged++;
    else if (code == LECTERN_UNKNOWN)
        a->unknown++;
    if (code != LECTERN_DONE)
        (void)fprintf(stderr, "%c %d: %d %s\n", a->kind, a->number, code, lectern_errmsg(a->db));
}

static void bind_row(const struct actor *a, int part)
{
    char kind[2] = {a->kind, 0};
    must(lectern_bind_text(a->insert, 1, kind, 1, LECTERN_TRANSIENT), "bind", a);
    must(lectern_bind_int(a->insert, 2, a->number), "bind", a);
    must(lectern_bind_int64(a->insert, 3, a->n), "bind", a);
    must(lectern_bind_int(a->insert, 4, part), "bind", a);
}

/* --- one row, and counting one's own rows ----------------------------------------------------- */

static int on_count(void *arg, lectern_stmt *stmt)
{
    struct actor *a = arg;
    int64_t rows = lectern_column_int64(stmt, 0);
    if (rows < a->acknowledged || rows < a->seen || rows > a->acknowledged + a->unknown)
        printf("BAD count of session %d: %" PRId64 " rows, %" PRId64 " acknowledged, %" PRId64
               " unknown, %" PRId64 " seen before, at %s\n",
               a->number, rows, a->acknowledged, a->unknown, a->seen,
               lectern_info(a->db, LECTERN_INFO_ADDRESS));
    a->seen = rows;
    return 0;
}

static void counted(void *arg, lectern_stmt *stmt, int result)
{
    struct actor *a = arg;
    (void)stmt;
    if (result != LECTERN_DONE)
        printf("%" PRId64 " c %d %" PRId64 " 0 %d\n", now_ms(), a->number, a->n, result);
    begin_next(a);
}

static void inserted(void *arg, lectern_stmt *stmt, int result)
{
    struct actor *a = arg;
    (void)stmt;
    outcome(a, FIRST, result);
    if (a->n % COUNT_EVERY != 0) {
        begin_next(a);
        return;
    }
    must(lectern_bind_int(a->count, 1, a->number), "bind", a);
    must(lectern_start(a->count, on_count, counted, a), "start", a);
}

/* --- a batch ---------------------------------------------------------------------------------- */

static void batch_ended(void *arg, lectern_stmt *stmt, int result)
{
    struct actor *a = arg;
    (void)stmt;
    outcome(a, FIRST, result);
    begin_next(a);
}

static void begin_batch(struct actor *a)
{
    must(lectern_batch_clear(a->batch), "clear", a);
    for (int part = 0; part < PARTS; part++) {
        bind_row(a, part);
        must(lectern_batch_add(a->batch, a->insert), "add", a);
    }
    must(lectern_batch_start(a->batch, batch_ended, a), "start", a);
}

/* --- a transaction ---------------------------------------------------------------------------- */

static void begin_stage(struct actor *a, enum stage stage);

static void stage_ended(void *arg, lectern_stmt *stmt, int result)
{
    struct actor *a = arg;
    (void)stmt;
    if (a->stage == ROLLBACK) {
        outcome(a, a->ended_at, a->result);
        begin_next(a);
    } else if (result == LECTERN_DONE && a->stage != COMMIT) {
        begin_stage(a, (enum stage)(a->stage + 1));
    } else if (result == LECTERN_DONE || lectern_get_autocommit(a->db)) {
        outcome(a, a->stage, result);
        begin_next(a);
    } else { /* it failed and is still open */
        a->ended_at = a->stage;
        a->result = result;
        begin_stage(a, ROLLBACK);
    }
}

static void begin_stage(struct actor *a, enum stage stage)
{
    lectern_stmt *stmt = a->steps[stage];
    a->stage = stage;
    if (stage == FIRST || stage == SECOND) {
        stmt = a->insert;
        bind_row(a, stage == SECOND);
    }
    must(lectern_start(stmt, NULL, stage_ended, a), "start", a);
}

/* --- all of them ------------------------------------------------------------------------------ */

static void begin_next(struct actor *a)
{
    if (stopping) {
        n_running--;
        return;
    }
    a->n++;
    if (a->kind == 't') {
        begin_stage(a, BEGIN);
    } else if (a->kind == 'b') {
        begin_batch(a);
    } else {
        bind_row(a, 0);
        must(lectern_start(a->insert, NULL, inserted, a), "start", a);
    }
}

static lectern_stmt *prepare(const struct actor *a, const char *sql)
{
    lectern_stmt *stmt = NULL;
    must(lectern_prepare_v3(a->db, sql, -1, LECTERN_PREPARE_LAZY, &stmt, NULL), sql, a);
    return stmt;
}

static void add_actors(lectern_cluster *cluster, char kind, const char *count)
{
    for (long i = strtol(count, NULL, 10); i > 0 && n_actors < ACTORS_MAX; i--) {
        struct actor *a = &actors[n_actors];
        *a = (struct actor){.kind = kind, .number = n_actors++};
        must(lectern_open_session(cluster, &a->db), "session", a);
        a->insert = prepare(a, INSERT);
        a->count = prepare(a, COUNT);
        a->steps[BEGIN] = prepare(a, "BEGIN IMMEDIATE");
        a->steps[COMMIT] = prepare(a, "COMMIT");
        a->steps[ROLLBACK] = prepare(a, "ROLLBACK");
        must(lectern_batch_new(a->db, &a->batch), "batch", a);
    }
}

static void end_actor(struct actor *a)
{
    (void)lectern_finalize(a->insert);
    (void)lectern_finalize(a->count);
    for (int i = 0; i < N_STAGES; i++)
        (void)lectern_finalize(a->steps[i]);
    (void)lectern_batch_free(a->batch);
    must(lectern_close(a->db), "close", a);
}

/* What a program with a loop of its own does: wait for its things and for the library's. */
static void turn(lectern_cluster *cluster)
{
    struct pollfd fds[2] = {{.fd = lectern_fd(cluster), .events = POLLIN},
                            {.fd = stopping ? -1 : STDIN_FILENO, .events = POLLIN}};
    if (poll(fds, 2, -1) < 0)
        return; /* a signal */
    if (fds[1].revents != 0)
        stopping = true;
    if (fds[0].revents != 0 && lectern_poll(cluster, 0) != LECTERN_OK)
        fail("lectern_poll", NULL);
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    lectern_cluster *cluster = NULL;
    if (argc != 5 || lectern_cluster_open(argv[1], &cluster) != LECTERN_OK)
        fail("load URL INSERTS BATCHES TRANSACTIONS", NULL);
    (void)clock_gettime(CLOCK_MONOTONIC, &began);
    add_actors(cluster, 'i', argv[2]);
    add_actors(cluster, 'b', argv[3]);
    add_actors(cluster, 't', argv[4]);
    n_running = n_actors;
    for (int i = 0; i < n_actors; i++)
        begin_next(&actors[i]);
    while (n_running > 0)
        turn(cluster);
    for (int i = 0; i < n_actors; i++)
        end_actor(&actors[i]);
    return lectern_cluster_close(cluster) == LECTERN_OK ? 0 : 1;
}
