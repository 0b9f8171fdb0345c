/* Room: tests. What the words of a statement tell of it. */
#include "client/statement_kind.h"

#include "tests/lib/test.h"

#include <string.h>

TEST(statement_kinds_never_call_a_write_a_read)
{
    static const struct {
        const char *sql;
        enum statement_kind kind;
    } cases[] = {
        {"SELECT 1", STATEMENT_READ},
        {"  /* x */ -- y\n select 1", STATEMENT_READ},
        {"VALUES (1)", STATEMENT_READ},
        {"EXPLAIN INSERT INTO t VALUES (1)", STATEMENT_READ},
        {"WITH a AS (SELECT 1) SELECT * FROM a", STATEMENT_READ},
        {"WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", STATEMENT_WRITE},
        {"WITH a AS (SELECT 1)delete FROM t", STATEMENT_WRITE},
        {"selection", STATEMENT_WRITE},
        {"PRAGMA user_version = 3", STATEMENT_WRITE},
        {"BEGIN IMMEDIATE", STATEMENT_BEGIN},
        {"SAVEPOINT a", STATEMENT_SAVEPOINT},
        {"COMMIT", STATEMENT_COMMIT},
        {"end;", STATEMENT_COMMIT},
        {"RELEASE a", STATEMENT_COMMIT},
        {"INSERT INTO t SELECT 1", STATEMENT_WRITE},
        {"", STATEMENT_WRITE},
        {"/* open", STATEMENT_WRITE},
        {"-- only", STATEMENT_WRITE},
        {"\xef\xbb\xbf begin", STATEMENT_BEGIN}, /* a byte order mark is a space to SQLite */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        EXPECT_EQ(statement_kind(cases[i].sql, strlen(cases[i].sql)), cases[i].kind);
}
