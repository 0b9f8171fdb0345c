/* Room: tests. Statements without waiting: a foreign loop with poll(), callbacks, many sessions. */
#include "tests/unit/client/both.h"

#include "base/clock.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct outcome {
    int rows, ends, result, stop_at;
    int64_t sum;
    char message[128];
    lectern_stmt *stmt;
    bool finalize_in_row, finalize_in_end, again;
};

static int on_row(void *arg, lectern_stmt *s)
{
    struct outcome *o = arg;
    o->stmt = s;
    o->rows++;
    o->sum += lectern_column_int64(s, 0);
    if (o->finalize_in_row) {
        EXPECT(lectern_finalize(s) == LECTERN_OK);
        return 0;
    }
    return o->rows == o->stop_at;
}

static void on_end(void *arg, lectern_stmt *s, int result)
{
    struct outcome *o = arg;
    o->ends++;
    o->result = result;
    if (s == NULL)
        return;
    (void)snprintf(o->message, sizeof o->message, "%s", lectern_errmsg(lectern_db_handle(s)));
    EXPECT(lectern_poll(lectern_cluster_of(lectern_db_handle(s)), 0) == LECTERN_MISUSE);
    if (o->again && o->ends < 3)
        EXPECT(lectern_start(s, on_row, on_end, o) == LECTERN_OK);
    else if (o->finalize_in_end)
        (void)lectern_finalize(s);
}

/* As a foreign loop does: poll(), then lectern_poll. Fails when that takes too long. */
static void turn_until(lectern_cluster *c, const int *count, int wanted)
{
    uint64_t limit = clock_mono_ms() + TEST_HANG_MS;
    while (*count < wanted) {
        struct pollfd p = {.fd = lectern_fd(c), .events = POLLIN};
        EXPECT(poll(&p, 1, TEST_HANG_MS) == 1);
        EXPECT(lectern_poll(c, 0) == LECTERN_OK);
        EXPECT(clock_mono_ms() < limit);
    }
}

struct scene {
    struct sql_node *node;
    lectern_cluster *cluster;
    lectern *db;
};

static struct scene begin(void)
{
    struct scene s = {.node = sql_node_start()};
    EXPECT(lectern_cluster_open(sql_node_url(s.node), &s.cluster) == LECTERN_OK);
    EXPECT(lectern_open_session(s.cluster, &s.db) == LECTERN_OK);
    return s;
}

static void end(struct scene *s)
{
    if (s->db != NULL)
        EXPECT_CODE(LECTERN_OK, s->db, lectern_close(s->db));
    EXPECT(lectern_cluster_close(s->cluster) == LECTERN_OK);
    sql_node_stop(s->node);
}

static lectern_stmt *lazy(lectern *db, const char *sql)
{
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_OK, db, lectern_prepare_v3(db, sql, -1, LECTERN_PREPARE_LAZY, &s, NULL));
    return s;
}

TEST(start_tells_rows_and_the_end)
{
    struct scene sc = begin();
    struct outcome o = {0};
    lectern_stmt *s = lazy(sc.db, "VALUES(1),(2),(3)");
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s, on_row, on_end, &o));
    EXPECT(o.rows == 0 && o.ends == 0); /* never from lectern_start */
    EXPECT(lectern_stmt_busy(s) == 1);
    EXPECT_CODE(LECTERN_MISUSE, sc.db, lectern_start(s, on_row, on_end, &o));
    EXPECT_CODE(LECTERN_MISUSE, sc.db, lectern_step(s));
    EXPECT_CODE(LECTERN_MISUSE, sc.db, lectern_bind_int(s, 1, 1));
    EXPECT(lectern_cluster_close(sc.cluster) == LECTERN_BUSY);
    turn_until(sc.cluster, &o.ends, 1);
    EXPECT(o.rows == 3 && o.sum == 6 && o.result == LECTERN_DONE);
    EXPECT(lectern_stmt_busy(s) == 0);
    EXPECT_CODE(LECTERN_ROW, sc.db, lectern_step(s)); /* stepped as any other */
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_finalize(s));
    end(&sc);
}

TEST(start_again_and_finalize_in_the_end)
{
    struct scene sc = begin();
    struct outcome o = {.again = true, .finalize_in_end = true};
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(lazy(sc.db, "VALUES(1),(2)"), on_row, on_end, &o));
    turn_until(sc.cluster, &o.ends, 3);
    EXPECT(o.rows == 6);
    end(&sc); /* nothing is left to finalize */
}

TEST(start_errors_and_stops)
{
    struct scene sc = begin();
    struct outcome bad = {0}, stopped = {.stop_at = 2}, gone = {.finalize_in_row = true},
                   last = {0};
    lectern_stmt *s1 = lazy(sc.db, "SELECT * FROM missing");
    lectern_stmt *s2 = lazy(sc.db, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c "
                                   "LIMIT 1000000) SELECT x, 'text' FROM c");
    lectern_stmt *s3 = lazy(sc.db, "VALUES(1),(2)"), *s4 = lazy(sc.db, "VALUES(9)");
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s1, on_row, on_end, &bad));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s2, on_row, on_end, &stopped));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s3, on_row, on_end, &gone));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s4, on_row, on_end, &last));
    turn_until(sc.cluster, &last.ends, 1);
    EXPECT(bad.ends == 1 && bad.result == LECTERN_ERROR && bad.rows == 0);
    EXPECT_TEXT("no such table: missing", bad.message);
    EXPECT(stopped.ends == 1 && stopped.result == LECTERN_ABORT && stopped.rows == 2);
    EXPECT(gone.ends == 0 && gone.rows == 1);
    EXPECT(last.result == LECTERN_DONE && last.sum == 9);
    (void)lectern_finalize(s1);
    (void)lectern_finalize(s2);
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_finalize(s4));
    end(&sc);
}

/* More than a window, in constant memory: rows are used as they come. */
TEST(start_streams)
{
    struct scene sc = begin();
    struct outcome o = {.finalize_in_end = true};
    EXPECT_CODE(LECTERN_OK, sc.db,
                lectern_start(lazy(sc.db, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 "
                                          "FROM c LIMIT 100000) SELECT x, 'text' FROM c"),
                              on_row, on_end, &o));
    turn_until(sc.cluster, &o.ends, 1);
    EXPECT(o.rows == 100000 && o.sum == 5000050000);
    end(&sc);
}

TEST(start_a_batch)
{
    struct scene sc = begin();
    struct outcome o = {0};
    lectern_batch *b;
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_new(sc.db, &b));
    EXPECT_CODE(LECTERN_MISUSE, sc.db, lectern_batch_start(b, on_end, &o));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_add_sql(b, "CREATE TABLE t(a)"));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_add_sql(b, "INSERT INTO t VALUES(1),(2)"));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_start(b, on_end, &o));
    EXPECT_CODE(LECTERN_MISUSE, sc.db, lectern_batch_run(b));
    EXPECT_CODE(LECTERN_MISUSE, sc.db, lectern_batch_clear(b));
    EXPECT_CODE(LECTERN_MISUSE, sc.db, lectern_batch_add_sql(b, "SELECT 1"));
    turn_until(sc.cluster, &o.ends, 1);
    EXPECT(o.result == LECTERN_DONE && lectern_batch_changes(b, 1) == 2);
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_start(b, on_end, &o)); /* the table is there */
    turn_until(sc.cluster, &o.ends, 2);
    EXPECT(o.result == LECTERN_ERROR && lectern_batch_failed(b) == 0);
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_start(b, on_end, &o));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_free(b)); /* amid it: no end is told */
    struct outcome after = {.finalize_in_end = true};
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(lazy(sc.db, "SELECT 5"), on_row, on_end, &after));
    turn_until(sc.cluster, &after.ends, 1);
    EXPECT(o.ends == 2 && after.sum == 5);
    end(&sc);
}

/* Waiting calls of one session let the others of the cluster go on. */
TEST(start_goes_on_while_another_session_waits)
{
    struct scene sc = begin();
    lectern *other;
    EXPECT(lectern_open_session(sc.cluster, &other) == LECTERN_OK);
    struct outcome o = {.finalize_in_end = true};
    EXPECT_CODE(LECTERN_OK, other, lectern_start(lazy(other, "SELECT 5"), on_row, on_end, &o));
    for (int i = 0; i < 1000 && o.ends == 0; i++)
        EXPECT_CODE(LECTERN_OK, sc.db, lectern_exec(sc.db, "SELECT 1", NULL, NULL, NULL));
    EXPECT(o.ends == 1 && o.sum == 5);
    EXPECT(lectern_close(other) == LECTERN_OK);
    end(&sc);
}

static void close_in_end(void *arg, lectern_stmt *s, int result)
{
    int *ends = arg;
    lectern *db = lectern_db_handle(s);
    EXPECT(result == LECTERN_DONE);
    EXPECT(lectern_close(db) == LECTERN_BUSY);
    EXPECT(lectern_finalize(s) == LECTERN_OK);
    EXPECT(lectern_close(db) == LECTERN_OK);
    ++*ends;
}

/* A session may end in its own callback, a cluster may not. */
TEST(start_many_sessions_that_end_by_themselves)
{
    struct scene sc = begin();
    int ends = 0;
    for (int i = 0; i < 50; i++) {
        lectern *db;
        EXPECT(lectern_open_session(sc.cluster, &db) == LECTERN_OK);
        EXPECT_CODE(LECTERN_OK, db, lectern_start(lazy(db, "SELECT 1"), NULL, close_in_end, &ends));
    }
    turn_until(sc.cluster, &ends, 50);
    EXPECT(fake_node_accepted(sql_node_fake(sc.node)) == 1); /* all over one connection */
    end(&sc);
}

/* Closed while something runs: cancelled, and the memory follows when it has ended. */
TEST(start_session_closed_amid_its_rows)
{
    struct scene sc = begin();
    sql_node_hold(sc.node, true);
    lectern_stmt *s = lazy(sc.db, "INSERT INTO t VALUES(1)");
    struct outcome o = {0};
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s, on_row, on_end, &o));
    for (int i = 0; i < 100 && fake_node_frames(sql_node_fake(sc.node), WIRE_QUERY) == 0; i++)
        EXPECT(lectern_poll(sc.cluster, 100) == LECTERN_OK);
    EXPECT_CODE(LECTERN_BUSY, sc.db, lectern_close(sc.db));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_finalize(s));
    EXPECT(lectern_close(sc.db) == LECTERN_OK);
    sc.db = NULL;
    end(&sc);
    EXPECT(o.ends == 0);
}

TEST(start_interrupted_and_late)
{
    struct scene sc = begin();
    sql_node_hold(sc.node, true);
    struct outcome o = {0};
    lectern_stmt *s = lazy(sc.db, "SELECT 1");
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s, on_row, on_end, &o));
    for (int i = 0; i < 100 && fake_node_frames(sql_node_fake(sc.node), WIRE_QUERY) == 0; i++)
        EXPECT(lectern_poll(sc.cluster, 100) == LECTERN_OK);
    lectern_interrupt(sc.db);
    turn_until(sc.cluster, &o.ends, 1);
    EXPECT(o.result == LECTERN_INTERRUPT);
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_timeout(sc.db, 50));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s, on_row, on_end, &o));
    turn_until(sc.cluster, &o.ends, 2);
    EXPECT(o.result == LECTERN_TIMEOUT || o.result == LECTERN_UNAVAILABLE);
    (void)lectern_finalize(s);
    end(&sc);
}

struct intruder {
    lectern *victim;
    int ends;
};

static void close_another(void *arg, lectern_stmt *s, int result)
{
    struct intruder *i = arg;
    EXPECT(result == LECTERN_DONE);
    EXPECT(lectern_finalize(s) == LECTERN_OK);
    EXPECT(lectern_close(i->victim) == LECTERN_BUSY); /* it waits in lectern_prepare */
    EXPECT(lectern_cluster_close(lectern_cluster_of(i->victim)) == LECTERN_BUSY);
    i->ends++;
}

/* A callback that runs while another session waits cannot take it away. */
TEST(start_session_is_not_closed_under_a_waiting_call)
{
    struct scene sc = begin();
    lectern *other;
    lectern_stmt *s;
    EXPECT(lectern_open_session(sc.cluster, &other) == LECTERN_OK);
    struct intruder i = {.victim = sc.db};
    EXPECT_CODE(LECTERN_OK, other, lectern_start(lazy(other, "SELECT 1"), NULL, close_another, &i));
    while (i.ends == 0) {
        EXPECT_CODE(LECTERN_OK, sc.db, lectern_prepare(sc.db, "SELECT 2", -1, &s, NULL));
        EXPECT_CODE(LECTERN_OK, sc.db, lectern_finalize(s));
    }
    EXPECT(lectern_close(other) == LECTERN_OK);
    end(&sc);
}

/* As SQLite: what was interrupted before is over. */
TEST(start_after_an_interrupt_of_nothing)
{
    struct scene sc = begin();
    struct outcome o = {0};
    lectern_stmt *s = lazy(sc.db, "VALUES(1),(2),(3)");
    lectern_interrupt(sc.db);
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_start(s, on_row, on_end, &o));
    turn_until(sc.cluster, &o.ends, 1);
    EXPECT_EQ(o.result, LECTERN_DONE);
    EXPECT_EQ(o.rows, 3);
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_finalize(s));
    end(&sc);
}

TEST(start_of_a_batch_that_runs_changes_nothing)
{
    struct scene sc = begin();
    struct outcome first = {0}, second = {0};
    lectern_batch *b;
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_new(sc.db, &b));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_add_sql(b, "CREATE TABLE t(a)"));
    EXPECT_CODE(LECTERN_OK, sc.db, lectern_batch_start(b, on_end, &first));
    EXPECT_CODE(LECTERN_MISUSE, sc.db, lectern_batch_start(b, on_end, &second));
    while (first.ends + second.ends == 0)
        EXPECT(lectern_poll(sc.cluster, 1000) == LECTERN_OK);
    EXPECT(first.ends == 1 && second.ends == 0);
    EXPECT(lectern_batch_free(b) == LECTERN_OK);
    end(&sc);
}

/* --- what comes for a statement whose turn to be told it is not yet --- */

/* INSERT is answered in parts: its row with SELECT 2, its end with SELECT 3. */
struct in_parts {
    struct wire_id insert;
    struct fake_node *node;
    lectern_cluster *cluster;
    lectern *one, *other, *inserts;
    lectern_stmt *insert_stmt;
    bool release;
    struct outcome o;
};

static bool answer_in_parts(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    struct in_parts *x = ctx;
    struct wire_query q;
    struct wire_statement s;
    struct wire_done done = {.seq = 5}, inserted = {.seq = 5, .changes = 1};
    if (f->type != WIRE_QUERY)
        return false;
    EXPECT_OK(wire_get_query(f, &q));
    EXPECT_OK(wire_get_statement(&q.statements, &s));
    char last = s.sql[s.sql_len - 1];
    if (s.sql[0] == 'I')
        x->insert = f->id;
    if (last == '2')
        fake_integers(p, x->insert, 7, 1);
    if (last == '3')
        wire_put_done(fake_out(p), x->insert, &inserted);
    if (s.sql[0] != 'I')
        wire_put_done(fake_out(p), f->id, &done);
    return true;
}

static void let_the_insert_end(void *arg, lectern_stmt *s, int result)
{
    struct in_parts *x = arg;
    EXPECT(result == LECTERN_DONE && lectern_finalize(s) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, x->other, lectern_exec(x->other, "SELECT 2", NULL, NULL, NULL));
    EXPECT(x->o.rows == 0);
    if (x->release)
        EXPECT(lectern_finalize(x->insert_stmt) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, x->other, lectern_exec(x->other, "SELECT 3", NULL, NULL, NULL));
    EXPECT(x->o.rows == 0 && x->o.ends == 0);
}

static void begin_in_parts(struct in_parts *x)
{
    char url[64];
    x->node = fake_node_start(&(struct fake_options){.answer = answer_in_parts, .ctx = x});
    (void)snprintf(url, sizeof url, "%s", fake_node_address(x->node));
    EXPECT(lectern_cluster_open(url, &x->cluster) == LECTERN_OK);
    lectern **const sessions[] = {&x->one, &x->other, &x->inserts};
    for (int i = 0; i < 3; i++)
        EXPECT(lectern_open_session(x->cluster, sessions[i]) == LECTERN_OK);
    x->insert_stmt = lazy(x->inserts, "INSERT INTO t VALUES(7) RETURNING a");
    EXPECT_CODE(LECTERN_OK, x->inserts, lectern_start(x->insert_stmt, on_row, on_end, &x->o));
    for (int i = 0; i < 100 && fake_node_frames(x->node, WIRE_QUERY) == 0; i++)
        EXPECT(lectern_poll(x->cluster, 100) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, x->one,
                lectern_start(lazy(x->one, "SELECT 1"), NULL, let_the_insert_end, x));
    while (fake_node_frames(x->node, WIRE_QUERY) < 4)
        EXPECT(lectern_poll(x->cluster, 100) == LECTERN_OK);
}

static void end_in_parts(struct in_parts *x)
{
    EXPECT(lectern_close(x->one) == LECTERN_OK && lectern_close(x->other) == LECTERN_OK);
    EXPECT(lectern_close(x->inserts) == LECTERN_OK);
    EXPECT(lectern_cluster_close(x->cluster) == LECTERN_OK);
    fake_node_stop(x->node);
}

/* It counts as any other. */
TEST(start_ends_during_the_callback_before_it)
{
    struct in_parts x = {0};
    begin_in_parts(&x);
    turn_until(x.cluster, &x.o.ends, 1);
    EXPECT(x.o.rows == 1 && x.o.sum == 7 && x.o.result == LECTERN_DONE);
    EXPECT_EQ(lectern_changes(x.inserts), 1);
    EXPECT_CODE(LECTERN_OK, x.inserts, lectern_finalize(x.insert_stmt));
    end_in_parts(&x);
}

/* Its session can be closed. */
TEST(start_is_finalized_during_the_callback_before_it)
{
    struct in_parts x = {.release = true};
    begin_in_parts(&x);
    EXPECT(x.o.rows == 0 && x.o.ends == 0);
    end_in_parts(&x);
}
