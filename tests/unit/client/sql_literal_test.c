/* Room: tests. client/sql_literal: what is written reads back in SQLite as the very same value. */
#include "client/sql_literal.h"

#include "base/rng.h"
#include "client/wire.h"
#include "tests/lib/test.h"

#include <math.h>
#include <sqlite3.h>
#include <string.h>

static sqlite3_stmt *read_back(sqlite3 *db, const struct wire_value *v, bool escape)
{
    struct buf b;
    sqlite3_stmt *stmt;
    buf_init(&b, SIZE_MAX);
    buf_put(&b, "SELECT ", 7);
    sql_put_literal(&b, v, escape);
    EXPECT_OK(buf_status(&b));
    EXPECT(sqlite3_prepare_v2(db, (const char *)b.data, (int)b.len, &stmt, NULL) == SQLITE_OK);
    EXPECT(sqlite3_step(stmt) == SQLITE_ROW);
    buf_fini(&b);
    return stmt;
}

static void expect_float(sqlite3 *db, double r)
{
    struct wire_value v = {.type = WIRE_FLOAT};
    v.real = r;
    sqlite3_stmt *stmt = read_back(db, &v, true);
    double got = sqlite3_column_double(stmt, 0);
    EXPECT_EQ(sqlite3_column_type(stmt, 0), SQLITE_FLOAT);
    EXPECT(memcmp(&got, &r, sizeof r) == 0);
    (void)sqlite3_finalize(stmt);
}

/* All but -0.0, which SQLite keeps as 0.0. */
TEST(sql_literals_of_floats_read_back)
{
    sqlite3 *db;
    struct rng rng = {test_seed()};
    EXPECT(sqlite3_open(":memory:", &db) == SQLITE_OK);
    for (int shift = 0; shift < 64; shift++)
        for (int i = 0; i < 1000; i++) { /* all sizes, those nearly zero among them */
            uint64_t bits = rng_u64(&rng) >> shift;
            double r;
            memcpy(&r, &bits, sizeof r);
            if (!isnan(r))
                expect_float(db, r);
        }
    for (double r = 5e-324; r < 1e-280; r *= 1.7)
        expect_float(db, -r);
    static const double some[] = {0.0,
                                  1.0,
                                  0.1,
                                  1e17,
                                  9e18,
                                  1e19,
                                  -1e15,
                                  INFINITY,
                                  -INFINITY,
                                  1e-289,
                                  2.2250738585072014e-308};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
        expect_float(db, some[i]);
    (void)sqlite3_close(db);
}

static void expect_bytes(sqlite3 *db, enum wire_value_type type, const char *p, size_t n,
                         bool escape)
{
    struct wire_value v = {.type = type};
    v.text.bytes = p;
    v.text.len = (uint32_t)n;
    sqlite3_stmt *stmt = read_back(db, &v, escape);
    EXPECT_EQ(sqlite3_column_type(stmt, 0), type == WIRE_TEXT ? SQLITE_TEXT : SQLITE_BLOB);
    const void *got = sqlite3_column_blob(stmt, 0);
    EXPECT_EQ((size_t)sqlite3_column_bytes(stmt, 0), n);
    EXPECT(n == 0 || memcmp(got, p, n) == 0);
    (void)sqlite3_finalize(stmt);
}

TEST(sql_literals_of_text_and_blobs_read_back)
{
    static const char *const parts[] = {"'",     "\n",     "\r",     "\\n",    "\\r", "\\012",
                                        "\\015", "(\\n0)", "(\\n1)", "(\\r0)", "x",   "\xc3\xa9"};
    sqlite3 *db;
    struct rng rng = {test_seed()};
    EXPECT(sqlite3_open(":memory:", &db) == SQLITE_OK);
    for (int i = 0; i < 4000; i++) {
        char text[128];
        size_t n = 0;
        for (uint64_t k = rng_below(&rng, 12); k > 0; k--) {
            const char *part = parts[rng_below(&rng, sizeof parts / sizeof parts[0])];
            memcpy(text + n, part, strlen(part));
            n += strlen(part);
        }
        if (n > 0 && i % 10 == 0)
            text[rng_below(&rng, n)] = 0;
        expect_bytes(db, WIRE_TEXT, text, n, true);
        expect_bytes(db, WIRE_TEXT, text, n, false);
        expect_bytes(db, WIRE_BLOB, text, n, true);
    }
    (void)sqlite3_close(db);
}
