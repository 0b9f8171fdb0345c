/* Room: node. STDDEV_POP, STDDEV_SAMP, VAR_POP, VAR_SAMP, ANY_VALUE.
 * Thread: the connection's.
 *
 * Python's statistics module computes with fractions of any size and rounds once, at the end: so do
 * we, without keeping the values. The sums of x and of x*x are fixed-point numbers that are wide
 * enough for every double: their last bits are worth 2^-1074 and 2^-2148. */
#include "base/buf.h"
#include "node/functions_state.h"

#include <math.h>
#include <openssl/bn.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128;

#define UNIT         1074 /* the least double is 2^-UNIT */
#define SUM_WORDS    35   /* UNIT + 1024 bits of a double, 63 of the count, the sign */
#define SQUARE_WORDS 67
_Static_assert(SUM_WORDS * 64 >= UNIT + 1024 + 63 + 1, "the sum fits");
_Static_assert(SQUARE_WORDS * 64 >= 2 * (UNIT + 1024) + 63, "the squares fit");

struct sums {
    int64_t count;
    bool has_real, has_infinite;
    double infinite;         /* the sum of what is infinite */
    uint64_t sum[SUM_WORDS]; /* two's complement, the lowest word first */
    uint64_t square[SQUARE_WORDS];
};

/* Adds (or subtracts) M * 2^SHIFT. */
static void add_shifted(uint64_t *words, size_t n, u128 m, unsigned shift, bool minus)
{
    size_t at = shift / 64;
    unsigned bits = shift % 64;
    uint64_t low = (uint64_t)m, high = (uint64_t)(m >> 64);
    uint64_t part[3] = {low << bits, (uint64_t)((m << bits) >> 64),
                        bits == 0 ? 0 : high >> (64 - bits)};
    uint64_t carry = 0;
    for (size_t i = 0; at + i < n && (i < 3 || carry != 0); i++) {
        u128 by = (u128)(i < 3 ? part[i] : 0) + carry, now = words[at + i];
        u128 then = minus ? now - by : now + by;
        words[at + i] = (uint64_t)then;
        carry = (uint64_t)(then >> 64) != 0 ? 1 : 0;
    }
}

static void add_exact(struct sums *s, uint64_t m, unsigned shift, bool minus)
{
    add_shifted(s->sum, SUM_WORDS, m, shift, minus);
    add_shifted(s->square, SQUARE_WORDS, (u128)m * m, 2 * shift, false);
}

static void add_real(struct sums *s, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    unsigned exponent = (unsigned)(bits >> 52) & 0x7ff;
    s->has_real = true;
    if (isinf(x)) {
        s->infinite += x;
        s->has_infinite = true;
    } else if (exponent == 0) {
        add_exact(s, fraction, 0, x < 0);
    } else {
        add_exact(s, fraction | UINT64_C(1) << 52, exponent - 1, x < 0);
    }
}

static void step(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    (void)n;
    struct sums *s = sqlite3_aggregate_context(ctx, (int)sizeof *s);
    if (s == NULL) {
        sqlite3_result_error_nomem(ctx);
        return;
    }
    int type = sqlite3_value_type(v[0]);
    if (type == SQLITE_INTEGER) {
        int64_t x = sqlite3_value_int64(v[0]);
        add_exact(s, x < 0 ? 0 - (uint64_t)x : (uint64_t)x, UNIT, x < 0);
    } else if (type == SQLITE_FLOAT) {
        add_real(s, sqlite3_value_double(v[0]));
    } else {
        fn_raise(ctx, type == SQLITE_NULL ? "a NULL among the numbers (leave it out by WHERE ... "
                                            "IS NOT NULL, or FILTER)"
                                          : "text or a blob among the numbers");
        return;
    }
    s->count++;
}

/* --- the result --- */

/* The variance as a fraction. */
struct ratio {
    BIGNUM *a, *b, *t;
    BN_CTX *ctx;
};

static void ratio_fini(struct ratio *r)
{
    BN_free(r->a);
    BN_free(r->b);
    BN_free(r->t);
    BN_CTX_free(r->ctx);
}

/* |words| as a number. */
static bool from_words(const uint64_t *words, size_t n, BIGNUM *to)
{
    uint8_t bytes[8 * SQUARE_WORDS];
    uint64_t carry = 1;
    bool negative = words[n - 1] >> 63 != 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t w = negative ? ~words[i] + carry : words[i];
        carry = carry != 0 && w == 0 ? 1 : 0;
        set_le64(bytes + 8 * i, w);
    }
    return BN_lebin2bn(bytes, (int)(8 * n), to) != NULL;
}

/* (count * square - sum * sum) / (count * (count - less)), in units of 2^-2148. */
static bool variance(const struct sums *s, int64_t less, struct ratio *r)
{
    uint8_t count[8], others[8];
    *r = (struct ratio){BN_new(), BN_new(), BN_new(), BN_CTX_new()};
    if (r->a == NULL || r->b == NULL || r->t == NULL || r->ctx == NULL)
        return false;
    set_le64(count, (uint64_t)s->count);
    set_le64(others, (uint64_t)(s->count - less));
    return from_words(s->sum, SUM_WORDS, r->t) && BN_sqr(r->b, r->t, r->ctx) &&
           from_words(s->square, SQUARE_WORDS, r->a) && BN_lebin2bn(count, 8, r->t) != NULL &&
           BN_mul(r->a, r->a, r->t, r->ctx) && BN_sub(r->a, r->a, r->b) &&
           BN_lebin2bn(others, 8, r->b) != NULL && BN_mul(r->b, r->b, r->t, r->ctx) &&
           BN_lshift(r->b, r->b, 2 * UNIT);
}

/* floor(a / b * 2^shift) with about BITS bits (one less, or BITS) and whether something is left. */
static bool quotient(struct ratio *r, int bits, bool even, int *shift, u128 *q, bool *rest)
{
    uint8_t bytes[16];
    int s = bits - 1 - (BN_num_bits(r->a) - BN_num_bits(r->b));
    if (even)
        s -= s & 1; /* of a negative number, too */
    *shift = s;
    if (!(s >= 0 ? BN_lshift(r->a, r->a, s) : BN_lshift(r->b, r->b, -s)) ||
        !BN_div(r->a, r->t, r->a, r->b, r->ctx) || BN_bn2lebinpad(r->a, bytes, 16) != 16)
        return false;
    *q = (u128)get_le64(bytes + 8) << 64 | get_le64(bytes);
    *rest = !BN_is_zero(r->t);
    return true;
}

static uint64_t root_of(u128 q)
{
    uint64_t x = UINT64_MAX;
    long double near = sqrtl((long double)q);
    if (near < 18446744073709551615.0L)
        x = (uint64_t)near;
    while ((u128)x * x > q)
        x--;
    while (x < UINT64_MAX && (u128)(x + 1) * (x + 1) <= q)
        x++;
    return x;
}

/* M * 2^-SHIFT with something below M's last bit if REST: rounded once. M has 62 to 64 bits, and a
 * long double takes them all. */
static void result_real(sqlite3_context *ctx, uint64_t m, bool rest, int shift)
{
    double d = (double)ldexpl((long double)(rest ? m | 1 : m), -shift);
    if (isinf(d))
        fn_raise(ctx, "the result is over the range of a double");
    else
        sqlite3_result_double(ctx, d);
}

/* All values were integers: the variance is one, too, when it is whole. */
static bool is_whole(struct ratio *r, bool *whole)
{
    if (!BN_mod(r->t, r->a, r->b, r->ctx))
        return false;
    *whole = BN_is_zero(r->t);
    return true;
}

static bool result_whole(sqlite3_context *ctx, struct ratio *r)
{
    uint8_t bytes[8];
    if (!BN_div(r->a, NULL, r->a, r->b, r->ctx))
        return false;
    if (BN_num_bits(r->a) > 63) {
        fn_raise(ctx, "the result is over 64 bits");
        return true;
    }
    if (BN_bn2lebinpad(r->a, bytes, 8) != 8)
        return false;
    sqlite3_result_int64(ctx, (int64_t)get_le64(bytes));
    return true;
}

static bool result_of(sqlite3_context *ctx, const struct sums *s, struct ratio *r, bool root)
{
    bool whole = false, rest;
    int shift;
    u128 q;
    if (!root && !s->has_real && !is_whole(r, &whole))
        return false;
    if (whole)
        return result_whole(ctx, r);
    if (BN_is_zero(r->a)) {
        sqlite3_result_double(ctx, 0.0);
        return true;
    }
    if (!quotient(r, root ? 127 : 64, root, &shift, &q, &rest))
        return false;
    if (!root) {
        result_real(ctx, (uint64_t)q, rest, shift);
    } else {
        uint64_t x = root_of(q);
        result_real(ctx, x, rest || (u128)x * x != q, shift / 2);
    }
    return true;
}

/* LESS: what is taken from the count, 1 for a sample. */
static void finish(sqlite3_context *ctx, const char *name, int64_t less, bool root)
{
    struct sums *s = sqlite3_aggregate_context(ctx, 0);
    struct ratio r;
    if (s == NULL || s->count == 0)
        return;
    if (s->count <= less) {
        fn_raise(ctx, "%s() needs two values or more", name);
    } else if (s->has_infinite) {
        if (root)
            fn_raise(ctx, "%s(): an infinite number among the values", name);
        else
            sqlite3_result_double(ctx, s->infinite); /* infinity minus infinity is NULL */
    } else {
        if (!variance(s, less, &r) || !result_of(ctx, s, &r, root))
            sqlite3_result_error_nomem(ctx);
        ratio_fini(&r);
    }
}

static void stddev_pop(sqlite3_context *ctx)
{
    finish(ctx, "STDDEV_POP", 0, true);
}

static void stddev_samp(sqlite3_context *ctx)
{
    finish(ctx, "STDDEV_SAMP", 1, true);
}

static void var_pop(sqlite3_context *ctx)
{
    finish(ctx, "VAR_POP", 0, false);
}

static void var_samp(sqlite3_context *ctx)
{
    finish(ctx, "VAR_SAMP", 1, false);
}

/* --- ANY_VALUE: the first --- */

static void any_step(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    (void)n;
    sqlite3_value **kept = sqlite3_aggregate_context(ctx, (int)sizeof *kept);
    if (kept != NULL && *kept != NULL)
        return;
    if (kept != NULL)
        *kept = sqlite3_value_dup(v[0]);
    if (kept == NULL || *kept == NULL)
        sqlite3_result_error_nomem(ctx);
}

static void any_final(sqlite3_context *ctx)
{
    sqlite3_value **kept = sqlite3_aggregate_context(ctx, 0);
    if (kept == NULL || *kept == NULL)
        return;
    sqlite3_result_value(ctx, *kept);
    sqlite3_value_free(*kept);
}

const struct function functions_stat[] = {
    {"stddev_pop", 1, 0, NULL, step, stddev_pop},   {"stddev_samp", 1, 0, NULL, step, stddev_samp},
    {"var_pop", 1, 0, NULL, step, var_pop},         {"var_samp", 1, 0, NULL, step, var_samp},
    {"any_value", 1, 0, NULL, any_step, any_final}, {NULL, 0, 0, NULL, NULL, NULL},
};
