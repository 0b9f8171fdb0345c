/* Room: tests. Prepare, step, reset and finalize beside SQLite's. */
#include "tests/unit/client/both.h"

#include <stdlib.h>
#include <string.h>

TEST(statement_prepare_finds_the_tail)
{
    static const char *const texts[] = {
        "SELECT 1",
        "SELECT 1;",
        "SELECT 1; SELECT 2",
        ";;; SELECT 1 ; -- c",
        "",
        "  ",
        "-- only",
        "/* open",
        "SELECT ';'; x",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END; rest",
        "SELECT 1 /* ; */ ; y",
        "EXPLAIN SELECT 1; z",
        "/* c */ SELECT 1",
    };
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (int n = -1; n < 8; n += 8) {
            const char *wanted, *got;
            sqlite3_stmt *lite;
            lectern_stmt *db;
            int rc = sqlite3_prepare_v2(b.lite, texts[i], n, &lite, &wanted);
            EXPECT_CODE(rc, b.db, lectern_prepare(b.db, texts[i], n, &db, &got));
            EXPECT((lite == NULL) == (db == NULL));
            if (rc == SQLITE_OK && wanted != got)
                test_fail(__FILE__, __LINE__, "%s: \"%s\", got \"%s\"", texts[i], wanted, got);
            if (lite != NULL) {
                EXPECT_TEXT(sqlite3_sql(lite), lectern_sql(db));
                EXPECT(sqlite3_stmt_readonly(lite) == lectern_stmt_readonly(db));
                EXPECT(sqlite3_stmt_isexplain(lite) == lectern_stmt_isexplain(db));
                EXPECT(lectern_db_handle(db) == b.db);
            }
            EXPECT(sqlite3_finalize(lite) == lectern_finalize(db));
        }
    }
    both_close(&b);
}

TEST(statement_prepare_errors_are_sqlites)
{
    static const char *const texts[] = {"SELEC",
                                        "SELECT nope",
                                        "SELECT * FROM missing",
                                        "SELECT (",
                                        "INSERT INTO missing VALUES(1)",
                                        "SELECT 'open",
                                        "SELECT 1 FROM t WHERE x = 1 )"};
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(x)");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        sqlite3_stmt *lite;
        lectern_stmt *db = (lectern_stmt *)(void *)&b;
        EXPECT(sqlite3_prepare_v2(b.lite, texts[i], -1, &lite, NULL) == SQLITE_ERROR);
        EXPECT_CODE(LECTERN_ERROR, b.db, lectern_prepare(b.db, texts[i], -1, &db, NULL));
        EXPECT(db == NULL);
        EXPECT_TEXT(sqlite3_errmsg(b.lite), lectern_errmsg(b.db));
        EXPECT(sqlite3_error_offset(b.lite) == lectern_error_offset(b.db));
    }
    both_close(&b);
}

/* The same steps, codes, counts and errors over a life of a table. */
TEST(statement_runs_as_sqlites)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)");
    struct both_stmt in = both_prepare(&b, "INSERT INTO t(v) VALUES(?)");
    struct both_stmt out = both_prepare(&b, "SELECT * FROM t ORDER BY id");
    for (int i = 0; i < 5; i++) {
        EXPECT(sqlite3_bind_int(in.lite, 1, i) == lectern_bind_int(in.db, 1, i));
        EXPECT(both_step(&b, &in) == SQLITE_DONE);
        EXPECT(both_reset(&in) == SQLITE_OK);
    }
    EXPECT(both_step(&b, &in) == SQLITE_CONSTRAINT); /* 4 again */
    EXPECT(sqlite3_extended_errcode(b.lite) == lectern_extended_errcode(b.db));
    EXPECT(both_step(&b, &in) == SQLITE_CONSTRAINT); /* resets itself, and fails again */
    EXPECT(both_reset(&in) == SQLITE_CONSTRAINT);
    EXPECT_TEXT(sqlite3_errmsg(b.lite), lectern_errmsg(b.db));
    EXPECT(both_reset(&in) == SQLITE_OK); /* told once... */
    int rows = 0;
    while (both_step(&b, &out) == SQLITE_ROW)
        rows++;
    EXPECT(rows == 5);
    EXPECT(both_step(&b, &out) == SQLITE_ROW); /* after DONE it begins anew */
    EXPECT(sqlite3_stmt_busy(out.lite) == lectern_stmt_busy(out.db));
    EXPECT(both_reset(&out) == SQLITE_OK);
    EXPECT(sqlite3_stmt_busy(out.lite) == lectern_stmt_busy(out.db));
    both_exec(&b, "UPDATE t SET v = v + 100 WHERE id > 2");
    EXPECT(lectern_changes(b.db) == 3);
    both_exec(&b, "SELECT 1; CREATE TABLE u(a)");
    EXPECT(lectern_changes(b.db) == 3); /* no INSERT, UPDATE, DELETE: it stays */
    both_exec(&b, "DELETE FROM t WHERE id > 900");
    EXPECT(lectern_changes(b.db) == 0);
    EXPECT(sqlite3_total_changes(b.lite) == lectern_total_changes(b.db));
    both_exec(&b, "WITH x(a) AS (SELECT 77) INSERT INTO t(v) SELECT a FROM x");
    EXPECT(lectern_changes(b.db) == 1);
    both_exec(&b, "BEGIN; INSERT INTO t(v) VALUES(1000)");
    EXPECT(lectern_get_autocommit(b.db) == 0);
    both_exec(&b, "ROLLBACK");
    both_exec(&b, "INSERT INTO t(v) VALUES(1000); SELECT last_insert_rowid()");
    both_finalize(&in);
    both_finalize(&out);
    both_close(&b);
}

TEST(statement_returning_gives_rows_of_a_write_that_is_done)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    struct both_stmt s =
        both_prepare(&b, "INSERT INTO t(v) VALUES(1),(2),(3) RETURNING id, v * 10 AS ten");
    EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s.db));
    EXPECT(lectern_changes(b.db) == 3); /* at the first row already */
    EXPECT_TEXT("ten", lectern_column_name(s.db, 1));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_reset(s.db));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "DELETE FROM t", NULL, NULL, NULL));
    EXPECT(lectern_changes(b.db) == 3);
    for (int i = 0; i < 3; i++) {
        EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s.db));
        EXPECT(lectern_column_int(s.db, 1) == 10 * (i + 1));
    }
    EXPECT_CODE(LECTERN_DONE, b.db, lectern_step(s.db));
    both_finalize(&s);
    both_close(&b);
}

/* The columns of a `*` change with the table. */
TEST(statement_sees_a_change_of_schema)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    struct both_stmt s = both_prepare(&b, "SELECT * FROM t");
    EXPECT(both_step(&b, &s) == SQLITE_ROW);
    const char *name = lectern_column_name(s.db, 0);
    EXPECT(both_reset(&s) == SQLITE_OK);
    EXPECT(both_step(&b, &s) == SQLITE_ROW);
    EXPECT(lectern_column_name(s.db, 0) == name); /* the same again: pointers stay */
    EXPECT(both_reset(&s) == SQLITE_OK);
    both_exec(&b, "ALTER TABLE t ADD COLUMN b DEFAULT 'two'");
    EXPECT(both_step(&b, &s) == SQLITE_ROW);
    EXPECT(lectern_column_count(s.db) == 2);
    EXPECT_TEXT("two", lectern_column_text(s.db, 1));
    both_finalize(&s);
    both_close(&b);
}

/* Far more rows than a window: they come as they are used, and others have their turn meanwhile. */
TEST(statement_streams_and_lets_others_have_their_turn)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE n(x)");
    struct both_stmt s = both_prepare(
        &b, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 60000) "
            "SELECT x, 'some text to fill the frames' FROM c");
    int64_t wanted = 1;
    for (int code; (code = lectern_step(s.db)) != LECTERN_DONE; wanted++) {
        EXPECT_CODE(LECTERN_ROW, b.db, code);
        EXPECT(lectern_column_int64(s.db, 0) == wanted);
        if (wanted == 2000 || wanted == 2001)
            EXPECT_CODE(LECTERN_OK, b.db,
                        lectern_exec(b.db, "INSERT INTO n VALUES(1)", NULL, NULL, NULL));
    }
    EXPECT(wanted == 60001);
    EXPECT(fake_node_frames(sql_node_fake(b.node), WIRE_CREDIT) > 2);
    both_finalize(&s);
    both_close(&b);
}

/* Rows that are not wanted any more: reset cancels them, the next statement has its turn. */
TEST(statement_reset_amid_rows_cancels_them)
{
    struct both b = both_open();
    struct both_stmt s = both_prepare(
        &b, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1000000) "
            "SELECT x, 'some text to fill the frames' FROM c");
    for (int i = 0; i < 3; i++) {
        EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s.db));
        EXPECT(lectern_column_int(s.db, 0) == 1);
        EXPECT_CODE(LECTERN_OK, b.db, lectern_reset(s.db));
        EXPECT(lectern_column_type(s.db, 0) == LECTERN_NULL);
    }
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SELECT 1", NULL, NULL, NULL));
    EXPECT(fake_node_frames(sql_node_fake(b.node), WIRE_CANCEL) >= 3);
    EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s.db));
    both_finalize(&s); /* amid rows, too */
    both_close(&b);
}

/* A read that more than the memory's share is left of keeps the others out, and says so. */
TEST(statement_with_too_many_rows_left_refuses_others)
{
    struct both b = both_open();
    struct both_stmt s =
        both_prepare(&b, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 100) "
                         "SELECT x, zeroblob(1000000) FROM c");
    EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s.db));
    EXPECT_CODE(LECTERN_BUSY, b.db, lectern_exec(b.db, "SELECT 1", NULL, NULL, NULL));
    EXPECT(strstr(lectern_errmsg(b.db), "open SELECT") != NULL);
    int rows = 1;
    while (lectern_step(s.db) == LECTERN_ROW)
        rows++;
    EXPECT(rows == 100);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SELECT 1", NULL, NULL, NULL));
    both_finalize(&s);
    both_close(&b);
}

TEST(statement_texts_are_kept_once_and_forgotten)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    EXPECT(sql_node_kept(b.node) == 0); /* exec keeps nothing */
    struct both_stmt s = both_prepare(&b, "INSERT INTO t VALUES(?)");
    EXPECT(sql_node_kept(b.node) == 1);
    for (int i = 0; i < 5; i++)
        EXPECT(both_step(&b, &s) == SQLITE_DONE);
    lectern_stmt *once, *large;
    EXPECT(lectern_prepare_v3(b.db, "SELECT 1", -1, LECTERN_PREPARE_ONCE, &once, NULL) == 0);
    char *text = malloc(5001);
    EXPECT(text != NULL);
    memset(text, ' ', 5000);
    memcpy(text, "SELECT", 6);
    text[4999] = '1';
    text[5000] = '\0';
    EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare(b.db, text, -1, &large, NULL));
    EXPECT(sql_node_kept(b.node) == 1);
    EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(large));
    EXPECT(lectern_finalize(once) == LECTERN_OK && lectern_finalize(large) == LECTERN_OK);
    free(text);
    both_finalize(&s);
    both_exec(&b, "SELECT 1"); /* FORGET has gone before it */
    EXPECT(sql_node_kept(b.node) == 0);
    both_close(&b);
}

TEST(statement_lazy_asks_nobody_before_it_runs)
{
    struct both b = both_open();
    unsigned before = fake_node_frames(sql_node_fake(b.node), WIRE_DESCRIBE);
    lectern_stmt *s;
    EXPECT_CODE(
        LECTERN_OK, b.db,
        lectern_prepare_v3(b.db, "SELECT ?2 + ?1, 'x'", -1, LECTERN_PREPARE_LAZY, &s, NULL));
    EXPECT(lectern_column_count(s) == 0 && lectern_bind_parameter_count(s) == 0);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_bind_int(s, 2, 40));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_bind_int(s, 1, 2));
    EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s));
    EXPECT(lectern_column_int(s, 0) == 42 && lectern_column_count(s) == 2);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(s));
    EXPECT_CODE(LECTERN_OK, b.db,
                lectern_prepare_v3(b.db, "SELEC", -1, LECTERN_PREPARE_LAZY, &s, NULL));
    EXPECT_CODE(LECTERN_RANGE, b.db, lectern_bind_int(s, 40000, 2));
    EXPECT_CODE(LECTERN_ERROR, b.db, lectern_step(s));
    EXPECT_TEXT("near \"SELEC\": syntax error", lectern_errmsg(b.db));
    EXPECT_CODE(LECTERN_ERROR, b.db, lectern_finalize(s));
    EXPECT(fake_node_frames(sql_node_fake(b.node), WIRE_DESCRIBE) == before);
    both_close(&b);
}

TEST(statement_too_long_is_too_big)
{
    struct both b = both_open();
    size_t n = (1u << 20) + 10;
    char *text = malloc(n + 1);
    EXPECT(text != NULL);
    memset(text, ' ', n);
    memcpy(text, "SELECT 1,", 9);
    text[n - 1] = '2';
    text[n] = '\0';
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_TOOBIG, b.db, lectern_prepare(b.db, text, -1, &s, NULL));
    EXPECT_CODE(LECTERN_TOOBIG, b.db, lectern_exec(b.db, text, NULL, NULL, NULL));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare(b.db, "SELECT 1", -1, &s, NULL));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(s));
    free(text);
    both_close(&b);
}

static void same_last_error(struct both *b)
{
    EXPECT_TEXT(sqlite3_errmsg(b->lite), lectern_errmsg(b->db));
    EXPECT_EQ(sqlite3_extended_errcode(b->lite), lectern_extended_errcode(b->db));
}

/* Whatever else was run since. */
TEST(statement_reset_and_finalize_say_its_own_failure)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1)");
    struct both_stmt s = both_prepare(&b, "INSERT INTO t VALUES(1)");
    EXPECT(both_step(&b, &s) == SQLITE_CONSTRAINT);
    both_exec(&b, "SELECT * FROM nowhere");
    EXPECT(both_reset(&s) == SQLITE_CONSTRAINT);
    same_last_error(&b);
    EXPECT(strstr(lectern_errmsg(b.db), "UNIQUE constraint failed: t.a") != NULL);
    both_exec(&b, "SELECT * FROM nowhere");
    EXPECT(both_reset(&s) == SQLITE_OK); /* said once; and it has not run since */
    same_last_error(&b);
    EXPECT(both_step(&b, &s) == SQLITE_CONSTRAINT);
    both_exec(&b, "SELECT 1");
    struct both_stmt unused = both_prepare(&b, "SELECT 2");
    both_finalize(&s);
    same_last_error(&b);
    EXPECT(lectern_errcode(b.db) == LECTERN_CONSTRAINT);
    both_exec(&b, "SELECT * FROM nowhere");
    both_finalize(&unused);
    same_last_error(&b);
    s = both_prepare(&b, "SELECT 3");
    EXPECT(both_step(&b, &s) == SQLITE_ROW);
    both_exec(&b, "SELECT * FROM nowhere");
    EXPECT(both_reset(&s) == SQLITE_OK); /* it ran, and well */
    same_last_error(&b);
    both_finalize(&s);
    both_close(&b);
}
