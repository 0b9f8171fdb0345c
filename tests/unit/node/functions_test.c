/* Room: tests. node/functions: the results of Python's functions, hostile patterns, no memory.
 *
 * functions_golden.txt is written by tests/lib/django_functions.py --golden: an expression, the
 * type of its result, and its value (numbers as they are, doubles as %a, bytes in hexadecimal
 * behind an x). */
#include "node/functions.h"
#include "tests/lib/fail_alloc.h"
#include "tests/lib/test.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN "tests/unit/node/functions_golden.txt"

static sqlite3 *open_with(int (*stop)(void *), void *ctx)
{
    sqlite3 *conn;
    EXPECT(sqlite3_open(":memory:", &conn) == SQLITE_OK);
    functions_register(conn, stop, ctx);
    return conn;
}

/* Steps SQL once; the result's code. */
static int run(sqlite3 *conn, const char *sql, sqlite3_stmt **stmt)
{
    int rc = sqlite3_prepare_v2(conn, sql, -1, stmt, NULL);
    return rc == SQLITE_OK ? sqlite3_step(*stmt) : rc;
}

static bool is_hex_of(const char *hex, const void *p, size_t n)
{
    const unsigned char *u = p;
    if (*hex++ != 'x' || strlen(hex) != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char byte[3];
        (void)snprintf(byte, sizeof byte, "%02x", u[i]);
        if (memcmp(byte, hex + 2 * i, 2) != 0)
            return false;
    }
    return true;
}

static bool is_result(sqlite3_stmt *stmt, int rc, const char *type, const char *value)
{
    if (rc != SQLITE_ROW)
        return strcmp(type, "error") == 0;
    switch (sqlite3_column_type(stmt, 0)) {
    case SQLITE_NULL:
        return strcmp(type, "null") == 0;
    case SQLITE_INTEGER:
        return strcmp(type, "integer") == 0 &&
               strtoll(value, NULL, 10) == sqlite3_column_int64(stmt, 0);
    case SQLITE_FLOAT: {
        double wanted = strtod(value, NULL), found = sqlite3_column_double(stmt, 0);
        return strcmp(type, "real") == 0 && memcmp(&wanted, &found, sizeof found) == 0;
    }
    default: {
        bool text = sqlite3_column_type(stmt, 0) == SQLITE_TEXT;
        const void *p =
            text ? (const void *)sqlite3_column_text(stmt, 0) : sqlite3_column_blob(stmt, 0);
        return strcmp(type, text ? "text" : "blob") == 0 &&
               is_hex_of(value, p, (size_t)sqlite3_column_bytes(stmt, 0));
    }
    }
}

TEST(functions_give_what_python_gives)
{
    sqlite3 *conn = open_with(NULL, NULL);
    FILE *f = fopen(GOLDEN, "re");
    char *line = NULL;
    size_t cap = 0, lines = 0, wrong = 0;
    ssize_t n;
    EXPECT(f != NULL);
    while ((n = getline(&line, &cap, f)) > 0) {
        line[n - 1] = 0;
        char *rest = line, *expression = strsep(&rest, "\t"), *type = strsep(&rest, "\t");
        EXPECT(type != NULL);
        char *sql = sqlite3_mprintf("SELECT %s", expression);
        sqlite3_stmt *stmt = NULL;
        int rc = run(conn, sql, &stmt);
        lines++;
        if (!is_result(stmt, rc, type, rest == NULL ? "" : rest)) {
            fprintf(stderr, "%s\n  wanted %s %s\n  found %s %s\n", sql, type,
                    rest == NULL ? "" : rest,
                    rc == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0) : "error",
                    rc == SQLITE_ROW ? "" : sqlite3_errmsg(conn));
            wrong++;
        }
        (void)sqlite3_finalize(stmt);
        sqlite3_free(sql);
    }
    free(line);
    (void)fclose(f);
    EXPECT_EQ(sqlite3_close(conn), SQLITE_OK);
    EXPECT(lines > 5000);
    EXPECT_EQ(wrong, 0);
}

/* --- what Python has not --- */

static int code_of(sqlite3 *conn, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    int rc = run(conn, sql, &stmt);
    (void)sqlite3_finalize(stmt);
    return rc;
}

#define HOSTILE "'^(a|a)*[^a]'" /* 2^n ways for n times a */

static int count_and_stop_at(void *ctx)
{
    int *left = ctx;
    return --*left <= 0;
}

TEST(functions_hostile_patterns_end)
{
    sqlite3 *conn = open_with(NULL, NULL);
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('a', 40) REGEXP " HOSTILE), SQLITE_ERROR);
    EXPECT(strstr(sqlite3_errmsg(conn), "too many steps") != NULL);
    /* Little work from each start, or over a long text with each step: only the sum is large. */
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('a', 200000) REGEXP '[ab]*[cd]'"), SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('a', 200000) REGEXP '^(?:[ab]*+[cd]|a)+[zy]'"),
              SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('a', 50000) REGEXP REPEAT('(?:a|a)', 16) || '[zy]'"),
              SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('a', 40000) || 'c' REGEXP "
                            "'^(a{20000})(?:\\1c|a)+[zy]'"),
              SQLITE_ERROR);
    /* A long text alone is no reason. */
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('abc ', 1000000) REGEXP '[a-c]+ [d-f]'"), SQLITE_ROW);
    /* Each repetition is a frame on PCRE2's heap. */
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('a', 5000000) REGEXP '^(a|b)*c?$'"), SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "SELECT 'x' REGEXP REPEAT('(', 200) || REPEAT(')', 200)"), SQLITE_ROW);
    EXPECT_EQ(code_of(conn, "SELECT 'x' REGEXP REPEAT('(', 201) || REPEAT(')', 201)"),
              SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "SELECT 'x' REGEXP REPEAT('x', 40000)"), SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "SELECT 'x' REGEXP '((x{999}){999}){999}'"), SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "SELECT 1 REGEXP CAST(x'ff' AS TEXT)"), SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "SELECT CAST(x'ff' AS TEXT) REGEXP 'x'"), SQLITE_ERROR);
    EXPECT_EQ(sqlite3_close(conn), SQLITE_OK);
}

/* Many short ones, and a long one. */
TEST(functions_searches_are_interrupted)
{
    int left = 2;
    sqlite3 *conn = open_with(count_and_stop_at, &left);
    EXPECT_EQ(code_of(conn,
                      "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) "
                      "SELECT count(*) FROM n WHERE REPEAT('a', 13) || i REGEXP '^(a|a)*[^a0-9]'"),
              SQLITE_INTERRUPT);
    EXPECT_EQ(left, 0);
    left = 2;
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('a', 2000000) REGEXP '[ab]*[cd]'"), SQLITE_INTERRUPT);
    EXPECT_EQ(left, 0);
    EXPECT_EQ(sqlite3_close(conn), SQLITE_OK);
}

TEST(functions_long_results_are_refused_before_they_are_made)
{
    static const char *const calls[] = {
        "REPEAT('x', 1000001)",
        "REPEAT('ab', 9223372036854775807)",
        "LPAD('x', 1000001, 'y')",
        "LPAD('x', 9223372036854775807, 'yz')",
        "RPAD('x', 1 << 62, 'abc')",
        "RPAD('', 1000001, '-')",
        "REPEAT(x'00', 1 << 40)",
        "django_format_dtdelta('*', 'abc', 1 << 40)",
        "REPEAT(REPEAT('x', 1000), 1 << 55)",
    };
    sqlite3 *conn = open_with(NULL, NULL);
    (void)sqlite3_limit(conn, SQLITE_LIMIT_LENGTH, 1000000);
    sqlite3_int64 highest = sqlite3_memory_highwater(1);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        char *sql = sqlite3_mprintf("SELECT %s", calls[i]);
        if (code_of(conn, sql) != SQLITE_TOOBIG)
            test_fail(__FILE__, __LINE__, "%s: %s", sql, sqlite3_errmsg(conn));
        sqlite3_free(sql);
    }
    EXPECT(sqlite3_memory_highwater(0) < highest + 100000);
    EXPECT_EQ(code_of(conn, "SELECT REPEAT('x', 1000000)"), SQLITE_ROW);
    EXPECT_EQ(sqlite3_close(conn), SQLITE_OK);
}

TEST(functions_survive_without_memory)
{
    static const char *const calls[] = {
        "SELECT 'foobar' REGEXP '(?i)^(f)o+(?:b|c)' || ?",
        "SELECT 5.25 REGEXP '[[:a]', x'00' REGEXP ?",
        "SELECT zeroblob(100000) REGEXP 'b' || ?, REVERSE(zeroblob(1000))",
        "SELECT REVERSE(LPAD(RPAD('x', 500, 'ab'), 1000, 'yz')) || REPEAT(?, 3)",
        "SELECT SHA512(MD5('x')), ?",
        "SELECT STDDEV_SAMP(column1), VAR_POP(column1), ANY_VALUE(column1), ? FROM (VALUES (1.5), "
        "(2), (1e300))",
        "SELECT django_datetime_trunc('week', '2020-01-01 00:00:00', 'Europe/Berlin', 'UTC'), "
        "django_format_dtdelta('+', '2020-01-01', ?)",
        "SELECT BITXOR('x', ?)",
        "SELECT BIT_AND(column1), BIT_OR(column1 || ?) FROM (VALUES ('a'))",
    };
    if (!fail_alloc_works())
        return;
    sqlite3 *conn = open_with(NULL, NULL);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            sqlite3_stmt *stmt = NULL;
            EXPECT(sqlite3_prepare_v2(conn, calls[i], -1, &stmt, NULL) == SQLITE_OK);
            EXPECT(sqlite3_bind_text(stmt, 1, "bar", -1, SQLITE_STATIC) == SQLITE_OK);
            fail_alloc_at(n);
            int rc = sqlite3_step(stmt);
            failed = fail_alloc_end();
            /* libcrypto answers some failures by another way. */
            bool says = rc == SQLITE_NOMEM || rc == SQLITE_ROW || rc == SQLITE_ERROR;
            if (!says || (i == 0 && failed && rc == SQLITE_ERROR))
                test_fail(__FILE__, __LINE__, "%s: allocation %d: %s", calls[i], (int)n,
                          sqlite3_errmsg(conn));
            (void)sqlite3_finalize(stmt);
        }
    }
    EXPECT_EQ(sqlite3_close(conn), SQLITE_OK);
}

TEST(functions_follow_determinism)
{
    sqlite3 *conn = open_with(NULL, NULL);
    EXPECT_EQ(code_of(conn, "CREATE TABLE t(a, b AS (REVERSE(a)))"), SQLITE_DONE);
    EXPECT_EQ(code_of(conn, "CREATE INDEX i ON t(MD5(a))"), SQLITE_DONE);
    EXPECT_EQ(code_of(conn, "CREATE INDEX j ON t(a) WHERE a REGEXP 'x'"), SQLITE_DONE);
    EXPECT_EQ(code_of(conn, "CREATE INDEX k ON t(a + RAND())"), SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "CREATE INDEX k ON t(a || UUIDV7())"), SQLITE_ERROR);
    EXPECT_EQ(code_of(conn, "CREATE TABLE u(id DEFAULT (UUIDV4()), a)"), SQLITE_DONE);
    EXPECT_EQ(sqlite3_close(conn), SQLITE_OK);
}
