/* Room: tests. node/functions: the results of Python's functions, hostile patterns, no memory.
 *
 * functions_golden.txt is written by tests/lib/django_functions.py --golden: an expression, the type
 * of its result, and its value (numbers as they are, doubles as %a, bytes in hexadecimal). */
#include "node/functions.h"
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
    if (strlen(hex) != 2 * n)
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
        return strcmp(type, "real") == 0 && wanted == found;
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
