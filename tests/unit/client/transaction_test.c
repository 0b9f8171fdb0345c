/* Room: tests. lectern_transaction: again, but never too often. */
#include "tests/unit/client/both.h"

#include <signal.h>
#include <string.h>
#include <sys/time.h>

struct story {
    struct sql_node *node;
    int runs, lose_at, result;
    enum err with;
};

static int insert(lectern *db, void *arg)
{
    struct story *s = arg;
    s->runs++;
    EXPECT(lectern_get_autocommit(db) == 0);
    int code = lectern_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL);
    if (code != LECTERN_OK)
        return code;
    if (s->runs <= s->lose_at)
        sql_node_fail_next(s->node, s->with, "for the test"); /* of the COMMIT, or what follows */
    return s->result;
}

static int rows_of(lectern *db)
{
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_OK, db, lectern_prepare(db, "SELECT count(*) FROM t", -1, &s, NULL));
    EXPECT_CODE(LECTERN_ROW, db, lectern_step(s));
    int n = lectern_column_int(s, 0);
    EXPECT_CODE(LECTERN_OK, db, lectern_finalize(s));
    return n;
}

TEST(transaction_commits_or_rolls_back)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a UNIQUE)");
    struct story s = {.node = b.node};
    EXPECT_CODE(LECTERN_OK, b.db, lectern_transaction(b.db, NULL, insert, &s));
    EXPECT(s.runs == 1 && rows_of(b.db) == 1);
    /* the function's own error is the result, sentence and all */
    EXPECT_CODE(LECTERN_CONSTRAINT, b.db, lectern_transaction(b.db, NULL, insert, &s));
    EXPECT_TEXT("UNIQUE constraint failed: t.a", lectern_errmsg(b.db));
    EXPECT(lectern_extended_errcode(b.db) == SQLITE_CONSTRAINT_UNIQUE);
    EXPECT(lectern_get_autocommit(b.db) == 1 && s.runs == 2);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "DELETE FROM t", NULL, NULL, NULL));
    s.result = 77; /* of its own, and rolled back */
    EXPECT_CODE(77, b.db, lectern_transaction(b.db, "BEGIN", insert, &s));
    EXPECT(rows_of(b.db) == 0 && s.runs == 3);
    EXPECT_CODE(LECTERN_ERROR, b.db, lectern_transaction(b.db, "BEGIN NONSENSE", insert, &s));
    EXPECT(s.runs == 3);
    both_close(&b);
}

static int nest(lectern *db, void *arg)
{
    EXPECT_CODE(LECTERN_BUSY, db, lectern_close(db));
    return lectern_transaction(db, NULL, insert, arg);
}

TEST(transaction_misuse)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    struct story s = {.node = b.node};
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_transaction(b.db, NULL, NULL, NULL));
    EXPECT(lectern_transaction(NULL, NULL, insert, &s) == LECTERN_MISUSE);
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_transaction(b.db, NULL, nest, &s));
    both_exec(&b, "BEGIN");
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_transaction(b.db, NULL, insert, &s));
    both_exec(&b, "ROLLBACK");
    EXPECT(s.runs == 0);
    both_close(&b);
}

static int end_it(lectern *db, void *arg)
{
    (void)lectern_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL);
    return lectern_exec(db, arg, NULL, NULL, NULL);
}

/* What it did then, is said: whether something was written matters. */
TEST(transaction_ended_by_its_function_is_misuse)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    char commit[] = "COMMIT", rollback[] = "ROLLBACK";
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_transaction(b.db, NULL, end_it, commit));
    EXPECT(strstr(lectern_errmsg(b.db), "it committed") != NULL);
    EXPECT(rows_of(b.db) == 1);
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_transaction(b.db, NULL, end_it, rollback));
    EXPECT(strstr(lectern_errmsg(b.db), "rolled back") != NULL);
    EXPECT(rows_of(b.db) == 1);
    both_close(&b);
}

static int lose_at_its_end(lectern *db, void *arg)
{
    struct story *s = arg;
    s->runs++;
    EXPECT_CODE(LECTERN_OK, db, lectern_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL));
    if (s->runs > s->lose_at)
        return LECTERN_OK;
    fake_node_drop(sql_node_fake(s->node), true);
    while (lectern_get_autocommit(db) == 0)
        EXPECT(lectern_poll(lectern_cluster_of(db), 100) == LECTERN_OK);
    return LECTERN_OK;
}

/* It is over as well, and nobody ended it. */
TEST(transaction_lost_behind_its_last_statement_is_run_again)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    struct story s = {.node = b.node, .lose_at = 1};
    EXPECT_CODE(LECTERN_OK, b.db, lectern_transaction(b.db, NULL, lose_at_its_end, &s));
    EXPECT(s.runs == 2 && rows_of(b.db) == 1);
    both_close(&b);
}

/* Takes no notice of anything. */
static int blind(lectern *db, void *arg)
{
    struct story *s = arg;
    s->runs++;
    (void)lectern_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL);
    if (s->runs <= s->lose_at)
        fake_node_drop(sql_node_fake(s->node), true);
    (void)lectern_exec(db, "INSERT INTO t VALUES(2)", NULL, NULL, NULL);
    (void)lectern_exec(db, "INSERT INTO t VALUES(3)", NULL, NULL, NULL);
    return LECTERN_OK;
}

/* After a loss nothing of the function runs outside of a transaction, and it is run again. */
TEST(transaction_lost_is_run_again_whole)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    struct story s = {.node = b.node, .lose_at = 2};
    EXPECT_CODE(LECTERN_OK, b.db, lectern_transaction(b.db, NULL, blind, &s));
    EXPECT(s.runs == 3);
    EXPECT(rows_of(b.db) == 3);
    both_close(&b);
}

static int always_busy(lectern *db, void *arg)
{
    struct story *s = arg;
    (void)db;
    s->runs++;
    return LECTERN_BUSY;
}

TEST(transaction_ends_with_its_time)
{
    struct both b = both_open();
    struct story s = {0};
    EXPECT_CODE(LECTERN_OK, b.db, lectern_timeout(b.db, 200));
    EXPECT_CODE(LECTERN_BUSY, b.db, lectern_transaction(b.db, NULL, always_busy, &s));
    EXPECT(s.runs > 2 && s.runs < 60); /* with pauses */
    EXPECT(lectern_get_autocommit(b.db) == 1);
    both_close(&b);
}

static lectern *to_interrupt;

static void on_alarm(int signal_number)
{
    (void)signal_number;
    lectern_interrupt(to_interrupt);
}

TEST(transaction_pause_is_interrupted)
{
    struct both b = both_open();
    struct story s = {0};
    to_interrupt = b.db;
    EXPECT(signal(SIGALRM, on_alarm) != SIG_ERR);
    struct itimerval soon = {.it_value = {.tv_usec = 100000}};
    EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    EXPECT_CODE(LECTERN_INTERRUPT, b.db, lectern_transaction(b.db, NULL, always_busy, &s));
    EXPECT(s.runs > 0 && lectern_get_autocommit(b.db) == 1);
    both_close(&b);
}

/* Wherever it comes: in BEGIN, in the function, in ROLLBACK, in the pause. */
TEST(transaction_is_interrupted_at_any_moment)
{
    struct both b = both_open();
    struct story s = {0};
    to_interrupt = b.db;
    EXPECT(signal(SIGALRM, on_alarm) != SIG_ERR);
    for (int us = 50; us < 20000; us += 331) {
        struct itimerval soon = {.it_value = {.tv_usec = us}};
        EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        EXPECT_CODE(LECTERN_INTERRUPT, b.db, lectern_transaction(b.db, NULL, always_busy, &s));
        EXPECT(lectern_get_autocommit(b.db) == 1);
    }
    both_close(&b);
}

/* Its first part is lost: a savepoint that was to be inside must not begin another one. */
TEST(transaction_lost_is_not_begun_again_by_a_savepoint)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "BEGIN; INSERT INTO t VALUES(1)", 0, 0, 0));
    fake_node_drop(sql_node_fake(b.node), true);
    while (lectern_get_autocommit(b.db) == 0)
        EXPECT(lectern_poll(lectern_cluster_of(b.db), 100) == LECTERN_OK);
    EXPECT_CODE(LECTERN_TXN_LOST, b.db, lectern_exec(b.db, "SAVEPOINT a", 0, 0, 0));
    EXPECT(lectern_get_autocommit(b.db) == 1);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SAVEPOINT a; RELEASE a", 0, 0, 0));
    both_close(&b);
}
