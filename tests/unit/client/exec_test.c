/* Room: tests. lectern_exec and lectern_complete beside SQLite's. */
#include "tests/unit/client/both.h"

#include "base/buf.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

struct heard {
    struct buf text;
    int stop_at; /* row, 0: none */
    int rows;
};

static int hear(void *arg, int n, char **values, char **names)
{
    struct heard *h = arg;
    for (int i = 0; i < n; i++)
        buf_printf(&h->text, "%s=%s,", names[i], values[i] == NULL ? "NULL" : values[i]);
    EXPECT(values[n] == NULL);
    buf_put_u8(&h->text, '\n');
    return ++h->rows == h->stop_at;
}

static void same(struct both *b, const char *sql, int stop_at)
{
    struct heard lite = {.stop_at = stop_at}, db = {.stop_at = stop_at};
    buf_init(&lite.text, MIB(1));
    buf_init(&db.text, MIB(1));
    char *wanted, *got;
    int rc = sqlite3_exec(b->lite, sql, hear, &lite, &wanted);
    EXPECT_CODE(rc, b->db, lectern_exec(b->db, sql, hear, &db, &got));
    EXPECT((wanted == NULL) == (got == NULL));
    if (wanted != NULL)
        EXPECT_TEXT(wanted, got);
    EXPECT(lite.text.len == db.text.len);
    EXPECT(lite.text.len == 0 || memcmp(lite.text.data, db.text.data, lite.text.len) == 0);
    sqlite3_free(wanted);
    lectern_free(got);
    buf_fini(&lite.text);
    buf_fini(&db.text);
}

TEST(exec_runs_statements_as_sqlite_does)
{
    static const char *const texts[] = {
        "",
        ";",
        "  -- nothing\n",
        "SELECT 1 AS a, NULL AS b, 'x' AS c, 1.5",
        "CREATE TABLE t(a); INSERT INTO t VALUES(1),(2),(3); SELECT * FROM t; SELECT count(*) FROM "
        "t",
        "SELECT * FROM t WHERE a > 5",
        "SELECT 1; SELEC; SELECT 2",
        "SELECT 1; SELECT * FROM missing; SELECT 2",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a = 9; END; INSERT INTO t VALUES(4);"
        "SELECT a FROM t;",
        "SELECT 1; /* left open",
        "SELECT 'a;b' -- ;\n, 2; SELECT \"a\" FROM t WHERE 0;",
        "BEGIN; DELETE FROM t; ROLLBACK; SELECT count(*) FROM t",
        "INSERT INTO t VALUES(1) RETURNING a + 1 AS more",
    };
    struct both b = both_open();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        same(&b, texts[i], 0);
    both_close(&b);
}

TEST(exec_ends_when_the_callback_says_so)
{
    struct both b = both_open();
    for (int stop_at = 1; stop_at < 4; stop_at++)
        same(&b, "VALUES(1),(2); SELECT 3; SELECT 4", stop_at);
    EXPECT(lectern_errcode(b.db) == LECTERN_ABORT);
    EXPECT_TEXT("query aborted", lectern_errmsg(b.db));
    both_exec(&b, "SELECT 1");
    both_close(&b);
}

static int run_inside(void *arg, int n, char **values, char **names)
{
    lectern *db = arg;
    (void)n;
    (void)names;
    char sql[100];
    (void)snprintf(sql, sizeof sql, "UPDATE t SET b = a * 2 WHERE a = %s", values[0]);
    EXPECT_CODE(LECTERN_BUSY, db, lectern_close(db));
    EXPECT_CODE(LECTERN_OK, db, lectern_exec(db, sql, NULL, NULL, NULL));
    return 0;
}

TEST(exec_may_be_called_by_its_callback)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a, b); INSERT INTO t(a) VALUES(1),(2),(3)");
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SELECT a FROM t", run_inside, b.db, NULL));
    struct heard h = {0};
    buf_init(&h.text, MIB(1));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SELECT sum(b) AS s FROM t", hear, &h, NULL));
    EXPECT(h.text.len == 6 && memcmp(h.text.data, "s=12,\n", 6) == 0);
    buf_fini(&h.text);
    both_close(&b);
}

TEST(exec_complete_is_sqlites)
{
    static const char *const texts[] = {
        "",
        ";",
        "SELECT 1",
        "SELECT 1;",
        "SELECT 1; ",
        "SELECT 1; --c",
        "SELECT 1; --c\n",
        "SELECT 1; /* c */",
        "SELECT 1; /* c",
        "SELECT ';",
        "SELECT ';'",
        "SELECT ';';",
        "-- ;",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1;",
        "SELECT 1; x",
        "SELECT 1;;",
        "/",
        "-",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END;",
        "[;",
        "`;`;",
        "  ",
        "; -",
        "EXPLAIN CREATE TEMP TRIGGER r BEGIN x; END",
        "create temp trigger r begin x; end ;",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (sqlite3_complete(texts[i]) != lectern_complete(texts[i]))
            test_fail(__FILE__, __LINE__, "\"%s\": %d, got %d", texts[i],
                      sqlite3_complete(texts[i]), lectern_complete(texts[i]));
    EXPECT(lectern_complete(NULL) == 0);
}
