/* Room: client.   Thread: any.   Owns: nothing.
 * Invariants: what is written reads back as the same value of the same type, also text with zero
 *   bytes, that SQL has no literal for, and with line ends, which programs on the way may change.
 * Not here: what is dumped, and in which order (sql_dump.c); output modes (shell_print.c). */
#include "client/sql_literal.h"

#include "client/wire.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#define PUT(b, literal) buf_put(b, literal, sizeof(literal) - 1)

/* --- numbers --- */

void sql_float(char to[SQL_NUMBER_MAX], double r)
{
    if (isinf(r))
        (void)snprintf(to, SQL_NUMBER_MAX, "%s", r > 0 ? "1e999" : "-1e999");
    else if (fabs(r) < 9e18 && r == (double)(int64_t)r && !(r == 0 && signbit(r)))
        (void)snprintf(to, SQL_NUMBER_MAX, "%" PRId64 ".0", (int64_t)r);
    else
        (void)sqlite3_snprintf(SQL_NUMBER_MAX, to, "%!.20g", r);
}

/* SQLite 3.40 reads digits of numbers below 1e-289 wrongly, some as zero: such a number is written
 * as a product with a power of two, which is read, and multiplied, without an error. */
#define TINY       1e-289
#define TINY_SHIFT 300
#define TINY_UNIT  "4.9090934652977265529e-91" /* 2^-300 */

static void put_float(struct buf *b, double r)
{
    char text[SQL_NUMBER_MAX];
    bool tiny = r != 0 && fabs(r) < TINY;
    sql_float(text, tiny ? ldexp(r, TINY_SHIFT) : r);
    buf_printf(b, "%s%s", text, tiny ? "*" TINY_UNIT : "");
}

static void put_hex(struct buf *b, const uint8_t *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    PUT(b, "X'");
    char *to = buf_extend(b, 2 * n);
    for (size_t i = 0; i < n && to != NULL; i++) {
        *to++ = digits[p[i] >> 4];
        *to++ = digits[p[i] & 15];
    }
    PUT(b, "'");
}

/* --- text --- */

static void put_quoted(struct buf *b, const char *p, size_t n, char quote)
{
    buf_put(b, &quote, 1);
    while (n > 0) {
        const char *at = memchr(p, quote, n);
        size_t run = at == NULL ? n : (size_t)(at - p) + 1;
        buf_put(b, p, run);
        if (at != NULL)
            buf_put(b, &quote, 1);
        p += run;
        n -= run;
    }
    buf_put(b, &quote, 1);
}

void sql_put_text(struct buf *b, const char *text, size_t n)
{
    put_quoted(b, text, n, '\'');
}

/* A word to stand for a byte, one that the text does not contain; TO is used when the two usual
 * ones are taken. */
static const char *stand_in(const char *text, size_t n, const char *first, const char *second,
                            char to[24])
{
    if (memmem(text, n, first, strlen(first)) == NULL)
        return first;
    if (memmem(text, n, second, strlen(second)) == NULL)
        return second;
    for (unsigned i = 0;; i++) {
        (void)snprintf(to, 24, "(%s%u)", first, i);
        if (memmem(text, n, to, strlen(to)) == NULL)
            return to;
    }
}

static void put_escaped(struct buf *b, const char *text, size_t n)
{
    char nl_room[24], cr_room[24];
    const char *nl = NULL, *cr = NULL;
    if (memchr(text, '\n', n) != NULL)
        nl = stand_in(text, n, "\\n", "\\012", nl_room);
    if (memchr(text, '\r', n) != NULL)
        cr = stand_in(text, n, "\\r", "\\015", cr_room);
    buf_printf(b, "%s%s'", nl != NULL ? "replace(" : "", cr != NULL ? "replace(" : "");
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n' && nl != NULL)
            buf_put(b, nl, strlen(nl));
        else if (text[i] == '\r' && cr != NULL)
            buf_put(b, cr, strlen(cr));
        else
            buf_put(b, text + i, 1);
        if (text[i] == '\'')
            PUT(b, "'");
    }
    PUT(b, "'");
    if (cr != NULL)
        buf_printf(b, ",'%s',char(13))", cr);
    if (nl != NULL)
        buf_printf(b, ",'%s',char(10))", nl);
}

static void put_any_text(struct buf *b, const char *text, size_t n, bool escape)
{
    if (n > 0 && memchr(text, 0, n) != NULL) {
        PUT(b, "CAST(");
        put_hex(b, (const uint8_t *)text, n);
        PUT(b, " AS TEXT)");
    } else if (escape && n > 0 && (memchr(text, '\n', n) != NULL || memchr(text, '\r', n) != NULL))
        put_escaped(b, text, n);
    else
        sql_put_text(b, text, n);
}

/* --- the door --- */

void sql_put_literal(struct buf *b, const struct wire_value *v, bool escape)
{
    switch (v->type) {
    case WIRE_NULL:
        PUT(b, "NULL");
        return;
    case WIRE_INTEGER:
        buf_printf(b, "%" PRId64, v->integer);
        return;
    case WIRE_FLOAT:
        put_float(b, v->real);
        return;
    case WIRE_TEXT:
        put_any_text(b, v->text.bytes, v->text.len, escape);
        return;
    case WIRE_BLOB:
        put_hex(b, (const uint8_t *)v->text.bytes, v->text.len);
        return;
    }
}

void sql_put_name(struct buf *b, const char *name, size_t n)
{
    bool plain = n > 0 && n < INT_MAX && !isdigit((unsigned char)name[0]) &&
                 sqlite3_keyword_check(name, (int)n) == 0;
    for (size_t i = 0; i < n && plain; i++)
        plain = isalnum((unsigned char)name[i]) || name[i] == '_';
    if (plain)
        buf_put(b, name, n);
    else
        put_quoted(b, name, n, '"');
}
