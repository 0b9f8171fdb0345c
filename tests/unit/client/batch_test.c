/* Room: tests. lectern_batch_*: all or none, in one round trip. */
#include "tests/unit/client/both.h"

#include <stdlib.h>
#include <string.h>

static int64_t number(lectern *db, const char *sql)
{
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_OK, db, lectern_prepare(db, sql, -1, &s, NULL));
    EXPECT_CODE(LECTERN_ROW, db, lectern_step(s));
    int64_t v = lectern_column_int64(s, 0);
    EXPECT_CODE(LECTERN_OK, db, lectern_finalize(s));
    return v;
}

TEST(batch_runs_all_in_one_round_trip)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    unsigned queries = fake_node_frames(sql_node_fake(b.node), WIRE_QUERY);
    lectern_batch *batch;
    lectern_stmt *s, *rows;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_new(b.db, &batch));
    EXPECT_CODE(LECTERN_OK, b.db,
                lectern_prepare(b.db, "INSERT INTO t(v) VALUES(?)", -1, &s, NULL));
    for (int i = 0; i < 100; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "v%d", i);
        EXPECT_CODE(LECTERN_OK, b.db, lectern_bind_text(s, 1, text, -1, LECTERN_STATIC));
        EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_add(batch, s));
    }
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(s)); /* not needed any more */
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_add_sql(batch, "SELECT count(*), max(v) FROM t"));
    EXPECT_CODE(LECTERN_OK, b.db,
                lectern_batch_add_sql(batch, "UPDATE t SET v = 'x' WHERE id <= 7 RETURNING id;"));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_run(batch));
    EXPECT(fake_node_frames(sql_node_fake(b.node), WIRE_BATCH) == 1);
    EXPECT(fake_node_frames(sql_node_fake(b.node), WIRE_QUERY) == queries);
    EXPECT(lectern_batch_changes(batch, 5) == 1 && lectern_batch_last_insert_rowid(batch, 5) == 6);
    EXPECT(lectern_batch_changes(batch, 101) == 7 && lectern_batch_changes(batch, 102) == 0);
    EXPECT(lectern_changes(b.db) == 7 && lectern_total_changes(b.db) == 107);
    EXPECT(lectern_last_insert_rowid(b.db) == 100);

    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_rows(batch, 100, &rows));
    EXPECT(lectern_column_count(rows) == 2);
    for (int round = 0; round < 3; round++) { /* reset brings them back */
        EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(rows));
        EXPECT(lectern_column_int(rows, 0) == 100);
        EXPECT_TEXT("v99", lectern_column_text(rows, 1));
        if (round == 1)
            EXPECT_CODE(LECTERN_OK, b.db, lectern_reset(rows));
        else
            EXPECT_CODE(LECTERN_DONE, b.db, lectern_step(rows));
    }
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(rows));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_rows(batch, 100, &rows));
    EXPECT_CODE(LECTERN_RANGE, b.db, lectern_batch_rows(batch, 102, &rows));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_rows(batch, 0, &rows)); /* none */
    EXPECT_CODE(LECTERN_DONE, b.db, lectern_step(rows));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(rows));

    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_rows(batch, 101, &rows));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_free(batch)); /* rows live on */
    for (int i = 1; i <= 7; i++) {
        EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(rows));
        EXPECT(lectern_column_int(rows, 0) == i);
    }
    EXPECT_CODE(LECTERN_DONE, b.db, lectern_step(rows));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(rows));
    both_close(&b);
}

TEST(batch_that_fails_names_the_statement)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY)");
    lectern_batch *batch;
    lectern_stmt *rows;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_new(b.db, &batch));
    EXPECT(lectern_batch_failed(batch) == -1);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_add_sql(batch, "INSERT INTO t VALUES(1)"));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_add_sql(batch, "INSERT INTO t VALUES(2)"));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_add_sql(batch, "INSERT INTO t VALUES(1)"));
    EXPECT_CODE(LECTERN_CONSTRAINT, b.db, lectern_batch_run(batch));
    EXPECT(lectern_extended_errcode(b.db) == SQLITE_CONSTRAINT_PRIMARYKEY);
    EXPECT_TEXT("UNIQUE constraint failed: t.id", lectern_errmsg(b.db));
    EXPECT(lectern_batch_failed(batch) == 2);
    EXPECT(lectern_batch_changes(batch, 0) == 0);
    EXPECT_CODE(LECTERN_RANGE, b.db, lectern_batch_rows(batch, 0, &rows));
    EXPECT(number(b.db, "SELECT count(*) FROM t") == 0);
    /* Emptied, it is as new. */
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_clear(batch));
    EXPECT(lectern_batch_failed(batch) == -1);
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_run(batch));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_add_sql(batch, "INSERT INTO t VALUES(5)"));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_run(batch));
    /* Run again, it is done again. */
    EXPECT_CODE(LECTERN_CONSTRAINT, b.db, lectern_batch_run(batch));
    EXPECT(lectern_batch_failed(batch) == 0);
    sql_node_fail_next(b.node, ERR_FULL, "disk full");
    EXPECT_CODE(LECTERN_FULL, b.db, lectern_batch_run(batch));
    EXPECT(lectern_batch_failed(batch) == -1); /* none in particular */
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_free(batch));
    EXPECT(number(b.db, "SELECT sum(id) FROM t") == 5);
    both_close(&b);
}

TEST(batch_takes_one_statement_at_a_time)
{
    struct both b = both_open();
    lectern_batch *batch;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_new(b.db, &batch));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_add_sql(batch, NULL));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_add_sql(batch, ""));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_add_sql(batch, " -- none"));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_add_sql(batch, "SELECT 1; SELECT 2"));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_add_sql(batch, "SELECT 1; -- end"));
    for (int i = 1; i < 10000; i++)
        EXPECT(lectern_batch_add_sql(batch, "SELECT 1") == LECTERN_OK);
    EXPECT_CODE(LECTERN_TOOBIG, b.db, lectern_batch_add_sql(batch, "SELECT 1"));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_run(batch));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_free(batch));
    both_close(&b);
}

/* More rows than a window, of a batch: they are all taken at once. */
TEST(batch_answers_may_be_long)
{
    struct both b = both_open();
    lectern_batch *batch;
    lectern_stmt *rows;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_new(b.db, &batch));
    EXPECT_CODE(LECTERN_OK, b.db,
                lectern_batch_add_sql(batch, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT "
                                             "x+1 FROM c LIMIT 100000) SELECT x, 'text' FROM c"));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_run(batch));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_rows(batch, 0, &rows));
    int64_t n = 0;
    while (lectern_step(rows) == LECTERN_ROW)
        EXPECT(lectern_column_int64(rows, 0) == ++n);
    EXPECT(n == 100000);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(rows));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_free(batch));
    both_close(&b);
}
