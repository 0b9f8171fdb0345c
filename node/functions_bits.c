/* Room: node. BIT_AND, BIT_OR, BIT_XOR: aggregates over integers. Thread: the connection's.
 *
 * Django's reduce the values that are not NULL with Python's operator: one value alone is the
 * result as it is, whatever its type; two or more of which one is no integer give NULL. */
#include "node/functions_state.h"

struct bits {
    int64_t count; /* of what is not NULL */
    int64_t bits;
    bool has_other;      /* than integers */
    sqlite3_value *kept; /* the first, if it is no integer */
};

/* Adds V's first value; NULL: there is nothing to combine it with. */
static struct bits *take(sqlite3_context *ctx, sqlite3_value *v)
{
    struct bits *b = sqlite3_aggregate_context(ctx, (int)sizeof *b);
    if (b == NULL) {
        sqlite3_result_error_nomem(ctx);
        return NULL;
    }
    int type = sqlite3_value_type(v);
    if (type == SQLITE_NULL)
        return NULL;
    b->count++;
    if (type != SQLITE_INTEGER) {
        b->has_other = true;
        if (b->count == 1 && (b->kept = sqlite3_value_dup(v)) == NULL)
            sqlite3_result_error_nomem(ctx);
        return NULL;
    }
    if (b->count > 1)
        return b;
    b->bits = sqlite3_value_int64(v);
    return NULL;
}

static void step_and(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    (void)n;
    struct bits *b = take(ctx, v[0]);
    if (b != NULL)
        b->bits &= sqlite3_value_int64(v[0]);
}

static void step_or(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    (void)n;
    struct bits *b = take(ctx, v[0]);
    if (b != NULL)
        b->bits |= sqlite3_value_int64(v[0]);
}

static void step_xor(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    (void)n;
    struct bits *b = take(ctx, v[0]);
    if (b != NULL)
        b->bits ^= sqlite3_value_int64(v[0]);
}

static void final(sqlite3_context *ctx)
{
    struct bits *b = sqlite3_aggregate_context(ctx, 0);
    if (b == NULL)
        return;
    if (b->count == 1 && b->kept != NULL)
        sqlite3_result_value(ctx, b->kept);
    else if (b->count > 0 && !b->has_other)
        sqlite3_result_int64(ctx, b->bits);
    sqlite3_value_free(b->kept);
}

const struct function functions_bits[] = {
    {"bit_and", 1, 0, NULL, step_and, final},
    {"bit_or", 1, 0, NULL, step_or, final},
    {"bit_xor", 1, 0, NULL, step_xor, final},
    {NULL, 0, 0, NULL, NULL, NULL},
};
