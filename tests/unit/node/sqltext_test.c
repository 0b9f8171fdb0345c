/* Room: tests. node/sqltext: the first guess of what a statement is. */
#include "node/sqltext.h"
#include "tests/lib/test.h"

#include <string.h>

static enum sql_kind kind(const char *sql)
{
    return sql_classify(sql, strlen(sql));
}

TEST(sqltext_knows_the_first_word)
{
    EXPECT_EQ(kind("SELECT 1"), SQL_READ);
    EXPECT_EQ(kind("  -- hello\n /* x */ select 1"), SQL_READ);
    EXPECT_EQ(kind(";;insert into t values(1)"), SQL_WRITE);
    EXPECT_EQ(kind("vacuum"), SQL_ALONE);
    EXPECT_EQ(kind("begin immediate"), SQL_TRANSACTION);
    EXPECT_EQ(kind("END"), SQL_TRANSACTION);
    EXPECT_EQ(kind("rollback to x"), SQL_TRANSACTION);
    EXPECT_EQ(kind("beginning"), SQL_WRITE);
    EXPECT_EQ(kind(""), SQL_EMPTY);
    EXPECT_EQ(kind(" -- only this"), SQL_EMPTY);
    EXPECT_EQ(kind("/* open"), SQL_EMPTY);
    EXPECT_EQ(kind("pragma foreign_keys=off"), SQL_FOREIGN_KEYS);
    EXPECT_EQ(kind("PRAGMA main . foreign_keys"), SQL_FOREIGN_KEYS);
    EXPECT_EQ(kind("PRAGMA foreign_key_list(t)"), SQL_READ);
}

/* A follower that is behind must not answer a write with "no such table". */
TEST(sqltext_finds_the_statement_behind_with)
{
    EXPECT_EQ(kind("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x"), SQL_WRITE);
    EXPECT_EQ(kind("with recursive x(a, b) as not materialized (values (1, 2)), y AS (SELECT 1)\n"
                   "-- select\n insert or ignore into t values (1)"),
              SQL_WRITE);
    EXPECT_EQ(kind("WITH x AS (SELECT ')' AS \"(\", '''(', [(], `(`) REPLACE INTO t VALUES (1)"),
              SQL_WRITE);
    EXPECT_EQ(kind("WITH x AS (SELECT 1) UPDATE t SET a = 1"), SQL_WRITE);
    EXPECT_EQ(kind("WITH x AS (SELECT 1)/**/DELETE FROM t"), SQL_WRITE);
    EXPECT_EQ(kind("WITH x AS (SELECT 1) SELECT * FROM x"), SQL_READ);
    EXPECT_EQ(kind("WITH x AS (SELECT 1) VALUES (1)"), SQL_READ);
    EXPECT_EQ(kind("WITH replace AS (SELECT 1) SELECT * FROM replace"), SQL_READ);
    EXPECT_EQ(kind("WITH \"insert into\" AS (SELECT 'INTO') SELECT 1"), SQL_READ);
    EXPECT_EQ(kind("WITH x AS (SELECT 1"), SQL_READ); /* for SQLite to refuse */
    EXPECT_EQ(kind("WITH 'x"), SQL_READ);
    EXPECT_EQ(kind("WITH"), SQL_READ);
}

TEST(sqltext_reads_the_value_of_foreign_keys)
{
#define VALUE(sql) sql_foreign_keys_value(sql, strlen(sql))
    EXPECT(VALUE("PRAGMA foreign_keys") == -1);
    EXPECT(VALUE("PRAGMA foreign_keys;") == -1);
    EXPECT(VALUE("PRAGMA foreign_keys = ON") == 1);
    EXPECT(VALUE("PRAGMA foreign_keys=0;") == 0);
    EXPECT(VALUE("PRAGMA foreign_keys('yes')") == 1);
    EXPECT(VALUE("PRAGMA main.foreign_keys = off") == 0);
}

TEST(sqltext_tells_rollback_from_rollback_to)
{
#define ROLLS(sql) sql_is_rollback(sql, strlen(sql))
    EXPECT(ROLLS("ROLLBACK"));
    EXPECT(ROLLS("rollback transaction;"));
    EXPECT(!ROLLS("ROLLBACK TO a"));
    EXPECT(!ROLLS("ROLLBACK TRANSACTION TO a"));
    EXPECT(!ROLLS("COMMIT"));
}

#define BOM "\xef\xbb\xbf"

TEST(sqltext_takes_a_byte_order_mark_for_a_space)
{
    EXPECT_EQ(kind(BOM "COMMIT"), SQL_TRANSACTION);
    EXPECT_EQ(kind(" " BOM "/**/" BOM ";" BOM "begin"), SQL_TRANSACTION);
    EXPECT_EQ(kind(BOM), SQL_EMPTY);
    EXPECT_EQ(kind(BOM "VACUUM"), SQL_ALONE);
    EXPECT_EQ(kind("\xef\xbb"), SQL_WRITE);
    EXPECT_EQ(kind("COMMIT" BOM), SQL_WRITE); /* in a word it is a letter: a syntax error */
    EXPECT_EQ(kind("PRAGMA " BOM "foreign_keys = " BOM "1"), SQL_FOREIGN_KEYS);
    EXPECT(ROLLS(BOM "ROLLBACK"));
    EXPECT(!ROLLS("ROLLBACK " BOM "TO a"));
    EXPECT_EQ(sql_skip_space(BOM " x", 5), 4);
}

TEST(sqltext_reads_numbers_of_foreign_keys_as_sqlite_does)
{
    EXPECT(VALUE("PRAGMA foreign_keys = 2") == 1);
    EXPECT(VALUE("PRAGMA foreign_keys(+7)") == 1);
    EXPECT(VALUE("PRAGMA foreign_keys = -1") == 0);
    EXPECT(VALUE("PRAGMA foreign_keys = 256") == 0);
    EXPECT(VALUE("PRAGMA foreign_keys = 257") == 1);
    EXPECT(VALUE("PRAGMA foreign_keys = 4294967297") == 0);
    EXPECT(VALUE("PRAGMA foreign_keys = 00") == 0);
    EXPECT(VALUE("PRAGMA foreign_keys = \"3\" ;; -- end") == 1);
    EXPECT(VALUE("PRAGMA foreign_keys = maybe") == 0);
}

TEST(sqltext_a_pragma_with_more_behind_it_is_not_the_sessions)
{
    EXPECT_EQ(kind("PRAGMA foreign_keys=1; DROP TABLE t"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys; SELECT 1"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys(1); SELECT 1"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys 1"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys="), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys=(1)"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys(1"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys='1"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys=' 1'"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys=1e3"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys=-on"), SQL_READ);
    EXPECT_EQ(kind("PRAGMA foreign_keys=1;; /* no more */"), SQL_FOREIGN_KEYS);
}

TEST(sqltext_tells_the_steps_of_a_transaction)
{
    static const struct {
        const char *sql;
        enum sql_step step;
    } all[] = {
        {"BEGIN", SQL_STEP_BEGIN},
        {" /**/ begin ; -- x", SQL_STEP_BEGIN},
        {"BEGIN TRANSACTION", SQL_STEP_BEGIN},
        {"BEGIN DEFERRED", SQL_STEP_BEGIN},
        {"BEGIN DEFERRED TRANSACTION;", SQL_STEP_BEGIN},
        {"BEGIN IMMEDIATE", SQL_STEP_WRITE},
        {"BEGIN EXCLUSIVE TRANSACTION", SQL_STEP_WRITE},
        {"BEGIN READONLY", SQL_STEP_READONLY},
        {"begin transaction readonly;", SQL_STEP_READONLY},
        {"BEGIN DEFERRED TRANSACTION READONLY", SQL_STEP_READONLY},
        {"BEGIN IMMEDIATE TRANSACTION READONLY", SQL_STEP_NONE},
        {"BEGIN CONCURRENT", SQL_STEP_NONE},
        {"BEGIN; SELECT 1", SQL_STEP_NONE},
        {"BEGIN READONLY; SELECT 1", SQL_STEP_NONE},
        {"BEGIN 'x'", SQL_STEP_NONE},
        {"COMMIT", SQL_STEP_COMMIT},
        {"END TRANSACTION ;", SQL_STEP_COMMIT},
        {"COMMIT x", SQL_STEP_NONE},
        {"ROLLBACK", SQL_STEP_ROLLBACK},
        {"ROLLBACK TRANSACTION", SQL_STEP_ROLLBACK},
        {"ROLLBACK TO a", SQL_STEP_NONE},
        {"ROLLBACK TRANSACTION TO a", SQL_STEP_NONE},
        {"SAVEPOINT a", SQL_STEP_NONE},
        {"SELECT 1", SQL_STEP_NONE},
        {"", SQL_STEP_NONE},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (sql_step_of(all[i].sql, strlen(all[i].sql)) != all[i].step)
            test_fail(__FILE__, __LINE__, "%s", all[i].sql);
}

#define QUERIES(sql) sql_is_query(sql, strlen(sql))

TEST(sqltext_query_is_what_never_writes)
{
    EXPECT(QUERIES(" -- a\n;Select 1") && QUERIES("values(1)"));
    EXPECT(QUERIES("WITH a AS (SELECT 1) SELECT * FROM a"));
    EXPECT(!QUERIES("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a") && !QUERIES(""));
    EXPECT(!QUERIES("PRAGMA table_info(t)") && !QUERIES("EXPLAIN SELECT 1") && !QUERIES("BEGIN"));
}
