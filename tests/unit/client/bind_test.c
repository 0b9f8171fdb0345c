/* Room: tests. lectern_bind_* beside sqlite3_bind_*: values, misuse, destructors. */
#include "tests/unit/client/both.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int destroyed;

static void destroy(void *p)
{
    destroyed++;
    free(p);
}

/* SELECT ?1, typeof(?1) gives the same for what was bound on both. */
static void same_value(struct both *b, struct both_stmt *s)
{
    EXPECT(both_step(b, s) == SQLITE_ROW);
    EXPECT(sqlite3_column_type(s->lite, 0) == lectern_column_type(s->db, 0));
    EXPECT_TEXT((const char *)sqlite3_column_text(s->lite, 1), lectern_column_text(s->db, 1));
    int n = sqlite3_column_bytes(s->lite, 0);
    EXPECT(n == lectern_column_bytes(s->db, 0));
    if (n > 0)
        EXPECT(memcmp(sqlite3_column_blob(s->lite, 0), lectern_column_blob(s->db, 0), (size_t)n) ==
               0);
    EXPECT(both_reset(s) == SQLITE_OK);
}

#define BOTH(call, ...)                                                                            \
    do {                                                                                           \
        EXPECT_CODE(sqlite3_##call(s.lite, __VA_ARGS__), b.db, lectern_##call(s.db, __VA_ARGS__)); \
        same_value(&b, &s);                                                                        \
    } while (0)

TEST(bind_values_arrive_as_sqlites_do)
{
    struct both b = both_open();
    struct both_stmt s = both_prepare(&b, "SELECT ?1, typeof(?1)");
    same_value(&b, &s); /* nothing bound */
    BOTH(bind_int, 1, -7);
    BOTH(bind_int64, 1, INT64_MIN);
    BOTH(bind_int64, 1, INT64_MAX);
    BOTH(bind_double, 1, 1.5);
    BOTH(bind_double, 1, (double)INFINITY);
    BOTH(bind_double, 1, (double)NAN);
    BOTH(bind_double, 1, -0.0);
    BOTH(bind_null, 1);
    BOTH(bind_text, 1, "abc", -1, NULL);
    BOTH(bind_text, 1, "abc", 2, NULL);
    BOTH(bind_text, 1, "abc", 0, NULL);
    BOTH(bind_text, 1, "a\0c", 3, NULL);
    BOTH(bind_text, 1, NULL, 5, NULL);
    BOTH(bind_blob, 1, "a\0c", 3, NULL);
    BOTH(bind_blob, 1, "", 0, NULL);
    BOTH(bind_blob, 1, NULL, 3, NULL);
    BOTH(bind_zeroblob, 1, 5);
    BOTH(bind_zeroblob, 1, 0);
    BOTH(bind_zeroblob, 1, -3);
    BOTH(bind_zeroblob, 1, 300000);
    both_finalize(&s);
    both_close(&b);
}

TEST(bind_parameters_have_their_names)
{
    static const char *const texts[] = {"SELECT 1",
                                        "SELECT ?, ?, ?",
                                        "SELECT ?3, ?1",
                                        "SELECT :a, @b, $c, :a",
                                        "SELECT ?2, :x, ?, $y::z(1)",
                                        "INSERT INTO t VALUES (:one, ?7)"};
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a, b)");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct both_stmt s = both_prepare(&b, texts[i]);
        int n = sqlite3_bind_parameter_count(s.lite);
        EXPECT_EQ(n, lectern_bind_parameter_count(s.db));
        for (int p = -1; p <= n + 1; p++) {
            const char *name = sqlite3_bind_parameter_name(s.lite, p);
            EXPECT((name == NULL) == (lectern_bind_parameter_name(s.db, p) == NULL));
            if (name == NULL)
                continue;
            EXPECT_TEXT(name, lectern_bind_parameter_name(s.db, p));
            EXPECT_EQ(sqlite3_bind_parameter_index(s.lite, name),
                      lectern_bind_parameter_index(s.db, name));
        }
        EXPECT(lectern_bind_parameter_index(s.db, ":none") == 0);
        EXPECT(lectern_bind_parameter_index(s.db, NULL) == 0);
        both_finalize(&s);
    }
    both_close(&b);
}

TEST(bind_stays_over_runs_until_it_is_cleared)
{
    struct both b = both_open();
    struct both_stmt s = both_prepare(&b, "SELECT ?1, typeof(?2), ?2");
    EXPECT(sqlite3_bind_int(s.lite, 1, 5) == lectern_bind_int(s.db, 1, 5));
    EXPECT(sqlite3_bind_text(s.lite, 2, "two", -1, SQLITE_TRANSIENT) ==
           lectern_bind_text(s.db, 2, "two", -1, LECTERN_TRANSIENT));
    for (int i = 0; i < 3; i++)
        same_value(&b, &s);
    EXPECT(sqlite3_clear_bindings(s.lite) == lectern_clear_bindings(s.db));
    same_value(&b, &s);
    both_finalize(&s);
    both_close(&b);
}

/* A static text is read when the statement runs, as in SQLite; a transient one when it is bound. */
TEST(bind_static_is_read_at_the_run_and_transient_at_once)
{
    struct both b = both_open();
    struct both_stmt s = both_prepare(&b, "SELECT ?1 || ?2");
    char text[] = "old";
    EXPECT(lectern_bind_text(s.db, 1, text, -1, LECTERN_STATIC) == LECTERN_OK);
    EXPECT(lectern_bind_text(s.db, 2, text, -1, LECTERN_TRANSIENT) == LECTERN_OK);
    memcpy(text, "new", 3);
    EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s.db));
    EXPECT_TEXT("newold", lectern_column_text(s.db, 0));
    both_finalize(&s);
    both_close(&b);
}

#define DESTROYED_AS_SQLITE(statement_of_db, statement_of_lite)                                    \
    do {                                                                                           \
        destroyed = 0;                                                                             \
        int wanted_ = (statement_of_lite), n_ = destroyed;                                         \
        destroyed = 0;                                                                             \
        EXPECT_CODE(wanted_, b.db, (statement_of_db));                                             \
        EXPECT_EQ(n_, destroyed);                                                                  \
    } while (0)

TEST(bind_destructors_are_called_as_sqlite_does)
{
    struct both b = both_open();
    struct both_stmt s = both_prepare(&b, "SELECT ?, ?");
    DESTROYED_AS_SQLITE(lectern_bind_text(s.db, 1, strdup("a"), -1, destroy),
                        sqlite3_bind_text(s.lite, 1, strdup("a"), -1, destroy));
    /* bound anew */
    DESTROYED_AS_SQLITE(lectern_bind_int(s.db, 1, 1), sqlite3_bind_int(s.lite, 1, 1));
    EXPECT(destroyed == 1);
    /* no such parameter */
    DESTROYED_AS_SQLITE(lectern_bind_text(s.db, 3, strdup("a"), -1, destroy),
                        sqlite3_bind_text(s.lite, 3, strdup("a"), -1, destroy));
    EXPECT(destroyed == 1);
    /* NULL is no value to destroy */
    DESTROYED_AS_SQLITE(lectern_bind_blob(s.db, 1, NULL, 4, destroy),
                        sqlite3_bind_blob(s.lite, 1, NULL, 4, destroy));
    EXPECT(destroyed == 0);
    DESTROYED_AS_SQLITE(lectern_bind_blob(s.db, 2, strdup("b"), 1, destroy),
                        sqlite3_bind_blob(s.lite, 2, strdup("b"), 1, destroy));
    /* Of less than no bytes: SQLite's manual says that it is not called (its code asserts). */
    char blob[] = "b";
    destroyed = 0;
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_bind_blob(s.db, 2, blob, -1, destroy));
    EXPECT_TEXT("a blob of -1 bytes", lectern_errmsg(b.db));
    EXPECT(destroyed == 0);
    /* while it runs */
    EXPECT(both_step(&b, &s) == SQLITE_ROW);
    DESTROYED_AS_SQLITE(lectern_bind_text(s.db, 1, strdup("a"), 1, destroy),
                        sqlite3_bind_text(s.lite, 1, strdup("a"), 1, destroy));
    EXPECT(destroyed == 1);
    EXPECT(both_step(&b, &s) == SQLITE_DONE);
    DESTROYED_AS_SQLITE(lectern_bind_text(s.db, 1, strdup("a"), 1, destroy),
                        sqlite3_bind_text(s.lite, 1, strdup("a"), 1, destroy));
    EXPECT(both_reset(&s) == SQLITE_OK);
    DESTROYED_AS_SQLITE(lectern_clear_bindings(s.db), sqlite3_clear_bindings(s.lite));
    EXPECT(destroyed == 1);
    DESTROYED_AS_SQLITE(lectern_bind_text(s.db, 1, strdup("a"), 1, destroy),
                        sqlite3_bind_text(s.lite, 1, strdup("a"), 1, destroy));
    DESTROYED_AS_SQLITE(lectern_finalize(s.db), sqlite3_finalize(s.lite));
    EXPECT(destroyed == 1);
    DESTROYED_AS_SQLITE(lectern_bind_text(NULL, 1, strdup("a"), 1, destroy),
                        sqlite3_bind_text(NULL, 1, strdup("a"), 1, destroy));
    EXPECT(destroyed == 1);
    both_close(&b);
}

TEST(bind_while_it_runs_is_misuse)
{
    struct both b = both_open();
    struct both_stmt s = both_prepare(&b, "SELECT ?1");
    EXPECT(both_step(&b, &s) == SQLITE_ROW);
    for (int round = 0; round < 2; round++) {
        EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_bind_int(s.db, 1, 1));
        EXPECT_TEXT("bind on a busy prepared statement: [SELECT ?1]", lectern_errmsg(b.db));
        EXPECT(sqlite3_bind_int(s.lite, 1, 1) == SQLITE_MISUSE);
        EXPECT_TEXT(sqlite3_errmsg(b.lite), "bad parameter or other API misuse");
        if (round == 0)
            EXPECT(both_step(&b, &s) == SQLITE_DONE);
    }
    EXPECT(both_reset(&s) == SQLITE_OK);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_bind_int(s.db, 1, 1));
    EXPECT_CODE(LECTERN_RANGE, b.db, lectern_bind_int(s.db, 0, 1));
    EXPECT_CODE(LECTERN_RANGE, b.db, lectern_bind_int(s.db, -1, 1));
    EXPECT_CODE(LECTERN_RANGE, b.db, lectern_bind_int(s.db, 2, 1));
    EXPECT_CODE(LECTERN_RANGE, b.db, lectern_bind_int(s.db, INT_MAX, 1));
    both_finalize(&s);
    both_close(&b);
}

TEST(bind_over_the_limit_is_too_big)
{
    struct both b = both_open();
    struct both_stmt s = both_prepare(&b, "SELECT ?1, typeof(?2)");
    char *large = malloc(50u << 20);
    EXPECT(large != NULL);
    memset(large, 'x', 50u << 20);
    EXPECT_CODE(LECTERN_TOOBIG, b.db, lectern_bind_zeroblob(s.db, 1, 70 << 20));
    EXPECT_CODE(LECTERN_TOOBIG, b.db, lectern_bind_text(s.db, 1, large, INT_MAX, LECTERN_STATIC));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_bind_blob(s.db, 1, large, -1, LECTERN_STATIC));
    /* each fits, both do not */
    EXPECT_CODE(LECTERN_OK, b.db, lectern_bind_blob(s.db, 1, large, 50 << 20, LECTERN_STATIC));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_bind_zeroblob(s.db, 2, 50 << 20));
    EXPECT_CODE(LECTERN_TOOBIG, b.db, lectern_step(s.db));
    EXPECT_CODE(LECTERN_TOOBIG, b.db, lectern_reset(s.db));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_bind_int(s.db, 1, 1));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_bind_null(s.db, 2));
    EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s.db));
    free(large);
    both_finalize(&s);
    both_close(&b);
}
