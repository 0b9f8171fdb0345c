/* Room: tests. node/sqlconn with node/guard: what a client's SQL may not do to the connection that
 * it shares with others. */
#include "node/sqlconn.h"
#include "base/clock.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/node/stage.h"

#include <stdlib.h>
#include <string.h>

static struct sqlconn *open_conn(bool (*tick)(void *ctx))
{
    sqlite3 *handle;
    EXPECT(sqlite3_open(":memory:", &handle) == SQLITE_OK);
    return sqlconn_new(handle, tick, NULL);
}

static struct request *ask(struct sqlconn *c, const char *sql)
{
    struct request *r = stage_request(1, 1, sql);
    bool writes;
    (void)sqlconn_run(c, r, MIB(1), &writes);
    return r;
}

static void expect_answer(struct sqlconn *c, const char *sql, enum err code, const char *needle)
{
    struct request *r = ask(c, sql);
    const char *said = r->answer.message == NULL ? "" : r->answer.message;
    if (r->answer.code != code || strstr(said, needle) == NULL)
        test_fail(__FILE__, __LINE__, "%s: wanted %s \"%s\", got %s \"%s\"", sql,
                  err_name((int)code), needle, err_name((int)r->answer.code), said);
    request_free(r);
}

static void runs(struct sqlconn *c, const char *sql)
{
    expect_answer(c, sql, ERR_OK, "");
}

static void refused(struct sqlconn *c, const char *sql, const char *needle)
{
    expect_answer(c, sql, ERR_FORBIDDEN, needle);
}

TEST(sqlconn_nothing_temporary_can_hide_a_real_table)
{
    struct sqlconn *c = open_conn(NULL);
    runs(c, "CREATE TABLE t(a)");
    refused(c, "CREATE TEMP TABLE t(a)", "temporary");
    refused(c, "CREATE TABLE temp.t(a)", "temporary");
    refused(c, "CREATE TABLE TEMP.t AS SELECT 1", "temporary");
    refused(c, "CREATE TABLE \"temp\".t(a UNIQUE)", "temporary");
    refused(c, "CREATE VIEW temp.v AS SELECT 1", "temporary");
    refused(c, "CREATE TRIGGER temp.tr AFTER INSERT ON main.t BEGIN SELECT 1; END", "temporary");
    refused(c, "CREATE TEMP TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END", "temporary");
    refused(c, "CREATE VIRTUAL TABLE temp.f USING fts5(a)", "temporary");
    refused(c, "ANALYZE temp", "temporary");
    refused(c, "PRAGMA temp.user_version = 5", "cannot be set");
    runs(c, "PRAGMA temp.user_version");
    runs(c, "INSERT INTO t VALUES (1)");
    refused(c, "INSERT INTO sqlite_temp_schema VALUES ('table', 't', 't', 0, '')", "temporary");
    sqlite3_stmt *s;
    EXPECT(sqlite3_prepare_v2(sqlconn_handle(c), "SELECT count(*) FROM sqlite_temp_schema", -1, &s,
                              NULL) == SQLITE_OK);
    EXPECT(sqlite3_step(s) == SQLITE_ROW && sqlite3_column_int(s, 0) == 0);
    EXPECT(sqlite3_finalize(s) == SQLITE_OK);
    sqlconn_close(c);
}

TEST(sqlconn_lasting_schema_changes_pass_the_guard)
{
    static const char *const good[] = {
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE)",
        "INSERT INTO t(b) VALUES (1), (2)",
        "CREATE TABLE copy AS SELECT * FROM t",
        "CREATE TABLE \"temporary\"(a)",
        "CREATE INDEX i ON t(b)",
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM copy; END",
        "ALTER TABLE t RENAME TO t2",
        "ALTER TABLE t2 RENAME COLUMN b TO c",
        "ALTER TABLE t2 ADD COLUMN d DEFAULT 5",
        "ALTER TABLE t2 DROP COLUMN d",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "CREATE VIRTUAL TABLE g USING fts4(a, tokenize=porter)",
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
        "INSERT INTO f VALUES ('one two')",
        "INSERT INTO g VALUES ('one two')",
        "SELECT optimize(g) FROM g",
        "INSERT INTO f(f) VALUES ('integrity-check')",
        "INSERT INTO t2(c) VALUES (3)",
        "ANALYZE",
        "ANALYZE main",
        "REINDEX",
        "PRAGMA integrity_check",
        "PRAGMA optimize",
        "DROP TRIGGER tr",
        "DROP VIEW v",
        "DROP TABLE f",
        "DROP TABLE g",
        "DROP TABLE t2",
        "DROP TABLE copy",
    };
    struct sqlconn *c = open_conn(NULL);
    sqlconn_forbid_transactions(c, true); /* as on the lane's group connection */
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        runs(c, good[i]);
    sqlconn_allow_vacuum(c, true);
    runs(c, "VACUUM");
    refused(c, "VACUUM INTO 'x'", "write a file");
    sqlconn_allow_vacuum(c, false);
    refused(c, "ATTACH '' AS other", "ATTACH");
    sqlconn_close(c);
}

/* The text alone decides nothing: also what no scanner of ours understands is refused. */
TEST(sqlconn_a_request_cannot_end_the_shared_transaction)
{
    static const char *const bad[] = {
        "COMMIT",
        "END",
        "ROLLBACK",
        ("\xef\xbb\xbf"
         "COMMIT"), /* two pieces: C would read \xbfC as one character */
        "\xef\xbb\xbf/**/\xef\xbb\xbfROLLBACK",
        "BEGIN",
        "SAVEPOINT s",
        "SAVEPOINT request",
        "RELEASE request",
        "ROLLBACK TO request",
        "BEGIN IMMEDIATE",
        "EXPLAIN COMMIT",
    };
    struct sqlconn *c = open_conn(NULL);
    sqlconn_forbid_transactions(c, true);
    runs(c, "CREATE TABLE t(a)");
    for (int round = 0; round < 3; round++) {
        EXPECT(sqlconn_exec(c, "BEGIN IMMEDIATE") == SQLITE_OK);
        EXPECT(sqlconn_exec(c, "SAVEPOINT request") == SQLITE_OK);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
            refused(c, bad[i], "is not allowed in a batch, which is one transaction by itself");
        /* A changed schema makes SQLite prepare the kept BEGIN, SAVEPOINT ... anew. */
        runs(c, round == 0 ? "CREATE TABLE u(a)" : "ALTER TABLE u ADD COLUMN b DEFAULT 1");
        runs(c, "INSERT INTO t VALUES (1)");
        if (round == 2)
            break;
        EXPECT(sqlconn_exec(c, "ROLLBACK TO request") == SQLITE_OK);
        EXPECT(sqlconn_exec(c, "RELEASE request") == SQLITE_OK);
        EXPECT(!sqlite3_get_autocommit(sqlconn_handle(c)));
        EXPECT(sqlconn_exec(c, "COMMIT") == SQLITE_OK);
        if (round == 0)
            runs(c, "CREATE TABLE u(a)");
    }
    EXPECT(sqlconn_exec(c, "ROLLBACK") == SQLITE_OK);
    sqlconn_forbid_transactions(c, false); /* as on an interactive transaction's connection */
    runs(c, "BEGIN");
    runs(c, "SAVEPOINT request");
    runs(c, "COMMIT");
    sqlconn_close(c);
}

TEST(sqlconn_refuses_what_reaches_outside_the_database)
{
    struct sqlconn *c = open_conn(NULL);
    refused(c, "SELECT fts3_tokenizer('simple')", "fts3_tokenizer");
    refused(c, "SELECT FTS3_Tokenizer('evil', x'4141414141414141')", "fts3_tokenizer");
    runs(c, "CREATE VIEW v AS SELECT fts3_tokenizer('simple')"); /* looked at when it is used */
    expect_answer(c, "SELECT * FROM v", ERR_SQL, "unsafe use of fts3_tokenizer");
    refused(c, "SELECT load_extension('x')", "load_extension");
    refused(c, "SELECT sqlite_log(1, 'x')", "sqlite_log");
    refused(c, "SELECT sql FROM sqlite_stmt", "sqlite_stmt");
    refused(c, "SELECT count(*) FROM SQLITE_STMT AS s", "sqlite_stmt");
    refused(c, "SELECT 1 WHERE EXISTS (SELECT 1 FROM main.sqlite_stmt)", "sqlite_stmt");
    sqlconn_close(c);
}

static bool stop_at_once(void *ctx)
{
    (void)ctx;
    return true;
}

#define ENDLESS                                                                                    \
    "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM " \
    "n WHERE i < 0"

TEST(sqlconn_tells_a_lost_leadership_from_a_timeout)
{
    struct sqlconn *c = open_conn(stop_at_once);
    runs(c, "CREATE TABLE t(a)");
    expect_answer(c, ENDLESS, ERR_NOT_LEADER, "the leader changed while the statement ran");
    runs(c, "INSERT INTO t VALUES (1)");
    expect_answer(c, "INSERT INTO nowhere VALUES (1)", ERR_SQL, "no such table");
    sqlconn_close(c);
}

TEST(sqlconn_no_pattern_keeps_the_writer_for_minutes)
{
    struct sqlconn *c = open_conn(NULL);
    uint64_t begun = test_cpu_ms();
    runs(c, "SELECT 'abc' LIKE 'a%c'");
    runs(c, "SELECT 'x' LIKE printf('%.*c', 1000, 'a')");
    expect_answer(
        c, "SELECT printf('%.*c', 8000000, 'a') LIKE '%' || printf('%.*c', 40000, 'a') || 'b'",
        ERR_SQL, "LIKE or GLOB pattern too complex");
    expect_answer(c, "SELECT printf('%.*c', 8000000, 'a') GLOB '*' || printf('%.*c', 1000, 'a')",
                  ERR_SQL, "LIKE or GLOB pattern too complex");
    EXPECT(test_cpu_ms() - begun < 10000);
    sqlconn_close(c);
}
