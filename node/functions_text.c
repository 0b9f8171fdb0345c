/* Room: node. LPAD, RPAD, REPEAT, REVERSE: lengths count code points in text, bytes in blobs.
 * Thread: the connection's. */
#include "node/functions_state.h"

#include <string.h>

/* Where the character AT begins, in checked UTF-8; AT is at most `units`. */
static size_t offset_of(const struct fn_string *s, int64_t at)
{
    if (!s->is_text)
        return (size_t)at;
    if (at == s->units)
        return s->n;
    size_t i = 0;
    while (at > 0) {
        i++;
        if (((unsigned char)s->p[i] & 0xc0) != 0x80)
            at--;
    }
    return i;
}

static void result_copy(sqlite3_context *ctx, const struct fn_string *s, size_t n)
{
    if (s->is_text)
        sqlite3_result_text64(ctx, s->p, n, SQLITE_TRANSIENT, SQLITE_UTF8);
    else
        sqlite3_result_blob64(ctx, s->p, n, SQLITE_TRANSIENT);
}

/* Python's s[:length]: a negative length leaves so many out at the end. */
static void result_slice(sqlite3_context *ctx, const struct fn_string *s, int64_t length)
{
    if (length < 0)
        length = length < -s->units ? 0 : s->units + length;
    result_copy(ctx, s, offset_of(s, length < s->units ? length : s->units));
}

/* Writes FILL again and again: N bytes. */
static void fill_with(char *to, const struct fn_string *fill, size_t n)
{
    if (fill->n == 1) {
        memset(to, fill->p[0], n);
        return;
    }
    size_t done = fill->n < n ? fill->n : n;
    memcpy(to, fill->p, done);
    while (done < n) { /* doubles what is there */
        size_t more = done < n - done ? done : n - done;
        memcpy(to + done, to, more);
        done += more;
    }
}

/* TEXT with COUNT characters of FILL before or behind it. */
static void pad(sqlite3_context *ctx, const struct fn_string *text, const struct fn_string *fill,
                int64_t count, bool left)
{
    if (fill->units == 0) {
        result_copy(ctx, text, text->n);
        return;
    }
    uint64_t whole = (uint64_t)(count / fill->units);
    /* No more than the longest value, or fn_room refuses: nothing overflows. */
    uint64_t bytes =
        whole > INT32_MAX ? UINT32_MAX : whole * fill->n + offset_of(fill, count % fill->units);
    char *out = fn_room(ctx, bytes + text->n);
    if (out == NULL)
        return;
    fill_with(left ? out : out + text->n, fill, (size_t)bytes);
    memcpy(left ? out + bytes : out, text->p, text->n);
    fn_result(ctx, out, (size_t)bytes + text->n, text->is_text);
}

static void pad_call(sqlite3_context *ctx, sqlite3_value **v, bool left)
{
    const char *name = left ? "LPAD" : "RPAD";
    struct fn_string text, fill;
    if (fn_any_null(3, v) || !fn_go_on(ctx) || !fn_string(ctx, v[0], name, &text))
        return;
    if (sqlite3_value_type(v[1]) != SQLITE_INTEGER) {
        fn_raise(ctx, "%s(text, length, fill): the length is not an integer", name);
        return;
    }
    int64_t length = sqlite3_value_int64(v[1]);
    /* Python's LPAD does not look at `fill` when it needs none. */
    if (left && length <= text.units) {
        result_slice(ctx, &text, length);
        return;
    }
    if (!fn_string(ctx, v[2], name, &fill))
        return;
    if (fill.is_text != text.is_text)
        fn_raise(ctx, "%s(text, length, fill) takes two texts or two blobs", name);
    else if (length <= text.units)
        result_slice(ctx, &text, length);
    else
        pad(ctx, &text, &fill, length - text.units, left);
}

static void lpad(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    (void)n;
    pad_call(ctx, v, true);
}

static void rpad(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    (void)n;
    pad_call(ctx, v, false);
}

static void multiply_string(sqlite3_context *ctx, sqlite3_value *string, int64_t count,
                            const char *name)
{
    struct fn_string s, none = {.p = "", .is_text = true};
    if (!fn_string(ctx, string, name, &s))
        return;
    none.is_text = s.is_text;
    if (count <= 0 || s.n == 0)
        result_copy(ctx, &none, 0);
    else if (count > INT64_MAX / s.units)
        sqlite3_result_error_toobig(ctx);
    else
        pad(ctx, &none, &s, count * s.units, false);
}

static void multiply_numbers(sqlite3_context *ctx, sqlite3_value *a, sqlite3_value *b,
                             const char *name)
{
    int64_t product;
    if (sqlite3_value_type(a) == SQLITE_FLOAT || sqlite3_value_type(b) == SQLITE_FLOAT)
        sqlite3_result_double(ctx, sqlite3_value_double(a) * sqlite3_value_double(b));
    else if (__builtin_mul_overflow(sqlite3_value_int64(a), sqlite3_value_int64(b), &product))
        fn_raise(ctx, "%s(): the product is over 64 bits", name);
    else
        sqlite3_result_int64(ctx, product);
}

void fn_multiply(sqlite3_context *ctx, sqlite3_value *a, sqlite3_value *b, const char *name)
{
    bool a_string = sqlite3_value_type(a) == SQLITE_TEXT || sqlite3_value_type(a) == SQLITE_BLOB;
    bool b_string = sqlite3_value_type(b) == SQLITE_TEXT || sqlite3_value_type(b) == SQLITE_BLOB;
    if (a_string && sqlite3_value_type(b) == SQLITE_INTEGER)
        multiply_string(ctx, a, sqlite3_value_int64(b), name);
    else if (b_string && sqlite3_value_type(a) == SQLITE_INTEGER)
        multiply_string(ctx, b, sqlite3_value_int64(a), name);
    else if (a_string || b_string)
        fn_raise(ctx, "%s(): text is multiplied by an integer only", name);
    else
        multiply_numbers(ctx, a, b, name);
}

static void repeat(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    if (!fn_any_null(n, v) && fn_go_on(ctx))
        fn_multiply(ctx, v[0], v[1], "REPEAT");
}

static void reverse(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct fn_string s;
    if (fn_any_null(n, v) || !fn_go_on(ctx) || !fn_string(ctx, v[0], "REVERSE", &s))
        return;
    char *out = fn_room(ctx, s.n);
    if (out == NULL)
        return;
    size_t from = 0;
    while (from < s.n) {
        size_t to = from + 1;
        while (s.is_text && to < s.n && ((unsigned char)s.p[to] & 0xc0) == 0x80)
            to++;
        memcpy(out + s.n - to, s.p + from, to - from);
        from = to;
    }
    fn_result(ctx, out, s.n, s.is_text);
}

const struct function functions_text[] = {
    {"lpad", 3, SQLITE_DETERMINISTIC, lpad, NULL, NULL},
    {"rpad", 3, SQLITE_DETERMINISTIC, rpad, NULL, NULL},
    {"repeat", 2, SQLITE_DETERMINISTIC, repeat, NULL, NULL},
    {"reverse", 1, SQLITE_DETERMINISTIC, reverse, NULL, NULL},
    {NULL, 0, 0, NULL, NULL, NULL},
};
