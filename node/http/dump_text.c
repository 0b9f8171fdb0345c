/* Room: node/http.   Thread: any.   Owns: nothing.
 * Invariants: what is written reads back as the same value of the same type, also text with zero
 *   bytes, that SQL has no literal for, and with line ends, which programs on the way may change.
 * Not here: what is dumped, and in which order (dump.c). The shell's .dump (client/shell_literal.c)
 *   writes the same for its own values, into a file. */
#include "node/http/dump_text.h"

#include "client/wire.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUT(b, literal) buf_put(b, literal, sizeof(literal) - 1)

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

static void put_name(struct buf *b, const struct dump_name *name)
{
    bool plain = name->n > 0 && name->n < INT_MAX && !isdigit((unsigned char)name->p[0]) &&
                 sqlite3_keyword_check(name->p, (int)name->n) == 0;
    for (size_t i = 0; i < name->n && plain; i++)
        plain = isalnum((unsigned char)name->p[i]) || name->p[i] == '_';
    if (plain)
        buf_put(b, name->p, name->n);
    else
        put_quoted(b, name->p, name->n, '"');
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

/* SQLite reads twenty digits of a number that is nearly zero as zero: as few as will do. */
static void put_tiny(struct buf *b, double r)
{
    char text[64];
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*e", digits - 1, r);
        if (strtod(text, NULL) == r)
            break;
    }
    buf_put(b, text, strlen(text));
}

/* With a point or an exponent, so that it stays a float; all its digits, as sqlite3's .dump. */
static void put_float(struct buf *b, double r)
{
    char text[64];
    if (isinf(r)) {
        buf_printf(b, "%s", r > 0 ? "1e999" : "-1e999");
        return;
    }
    if (r != 0 && fabs(r) < 1e-290) {
        put_tiny(b, r);
        return;
    }
    if (fabs(r) < 9e18 && r == (double)(int64_t)r && !(r == 0 && signbit(r)))
        (void)snprintf(text, sizeof text, "%" PRId64 ".0", (int64_t)r);
    else
        (void)sqlite3_snprintf(sizeof text, text, "%!.20g", r);
    buf_put(b, text, strlen(text));
}

/* A word that the text does not have, to stand for a line end. */
static void choose_stand_in(const char *p, size_t n, const char *first, char out[24])
{
    (void)snprintf(out, 24, "%s", first);
    for (unsigned i = 0; memmem(p, n, out, strlen(out)) != NULL; i++)
        (void)snprintf(out, 24, "(%s%u)", first, i);
}

static void put_with_stand_ins(struct buf *b, const char *p, size_t n)
{
    char nl[24] = "", cr[24] = "";
    bool has_nl = memchr(p, '\n', n) != NULL, has_cr = memchr(p, '\r', n) != NULL;
    if (has_nl)
        choose_stand_in(p, n, "\\n", nl);
    if (has_cr)
        choose_stand_in(p, n, "\\r", cr);
    buf_printf(b, "%s%s'", has_nl ? "replace(" : "", has_cr ? "replace(" : "");
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n')
            buf_put(b, nl, strlen(nl));
        else if (p[i] == '\r')
            buf_put(b, cr, strlen(cr));
        else
            buf_put(b, p + i, 1);
        if (p[i] == '\'')
            PUT(b, "'");
    }
    PUT(b, "'");
    if (has_cr)
        buf_printf(b, ",'%s',char(13))", cr);
    if (has_nl)
        buf_printf(b, ",'%s',char(10))", nl);
}

static void put_text(struct buf *b, const char *p, size_t n)
{
    if (n > 0 && memchr(p, 0, n) != NULL) {
        PUT(b, "CAST(");
        put_hex(b, (const uint8_t *)p, n);
        PUT(b, " AS TEXT)");
    } else if (n > 0 && (memchr(p, '\n', n) != NULL || memchr(p, '\r', n) != NULL)) {
        put_with_stand_ins(b, p, n);
    } else {
        put_quoted(b, p, n, '\'');
    }
}

static void put_value(struct buf *b, const struct wire_value *v)
{
    switch (v->type) {
    case WIRE_NULL:
        PUT(b, "NULL");
        break;
    case WIRE_INTEGER:
        buf_printf(b, "%" PRId64, v->integer);
        break;
    case WIRE_FLOAT:
        put_float(b, v->real);
        break;
    case WIRE_TEXT:
        put_text(b, v->text.bytes, v->text.len);
        break;
    case WIRE_BLOB:
        put_hex(b, (const uint8_t *)v->text.bytes, v->text.len);
        break;
    }
}

enum err dump_put_row(struct buf *b, const struct dump_name *table, uint32_t n_columns,
                      struct rd *values)
{
    PUT(b, "INSERT INTO ");
    put_name(b, table);
    for (uint32_t i = 0; i < n_columns; i++) {
        struct wire_value v;
        TRY(wire_get_value(values, &v));
        buf_printf(b, "%s", i == 0 ? " VALUES(" : ",");
        put_value(b, &v);
    }
    PUT(b, ");\n");
    return ERR_OK;
}

void dump_put_virtual(struct buf *b, const struct dump_name *name, const struct dump_name *sql)
{
    PUT(b, "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table',");
    put_quoted(b, name->p, name->n, '\'');
    PUT(b, ",");
    put_quoted(b, name->p, name->n, '\'');
    PUT(b, ",0,");
    put_quoted(b, sql->p, sql->n, '\'');
    PUT(b, ");\n");
}
