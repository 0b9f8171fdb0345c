/* Room: node. BITXOR, COT, RAND: the numbers that SQLite has no function for.
 * Thread: the connection's. */
#include "node/functions_state.h"

#include <math.h>

static void bitxor(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    if (fn_any_null(n, v))
        return;
    if (sqlite3_value_type(v[0]) != SQLITE_INTEGER || sqlite3_value_type(v[1]) != SQLITE_INTEGER)
        fn_raise(ctx, "BITXOR() takes two integers");
    else
        sqlite3_result_int64(ctx, sqlite3_value_int64(v[0]) ^ sqlite3_value_int64(v[1]));
}

static void cot(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    if (fn_any_null(n, v))
        return;
    int type = sqlite3_value_type(v[0]);
    double x = sqlite3_value_double(v[0]);
    if (type != SQLITE_INTEGER && type != SQLITE_FLOAT)
        fn_raise(ctx, "COT() takes a number");
    else if (isinf(x))
        fn_raise(ctx, "COT() of infinity is not defined");
    else if (tan(x) == 0.0)
        fn_raise(ctx, "COT(): division by zero");
    else
        sqlite3_result_double(ctx, 1 / tan(x));
}

/* 53 bits, as Python's random.random(): from 0 up to but not 1. */
static void rand_call(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    (void)n, (void)v;
    uint64_t bits;
    sqlite3_randomness((int)sizeof bits, &bits);
    sqlite3_result_double(ctx, (double)(bits >> 11) * 0x1p-53);
}

const struct function functions_number[] = {
    {"bitxor", 2, SQLITE_DETERMINISTIC, bitxor, NULL, NULL},
    {"cot", 1, SQLITE_DETERMINISTIC, cot, NULL, NULL},
    {"rand", 0, 0, rand_call, NULL, NULL},
    {NULL, 0, 0, NULL, NULL, NULL},
};
