/* Room: client.   Thread: any.   Owns: nothing.
 *
 * Invariants: what is written here reads back as the same value of the same type, also text with
 * zero bytes, that SQL has no literal for. The format is that of sqlite3's .dump.
 *
 * Not here: output modes (shell_print.c). */
#include "client/shell_literal.h"

#include "base/buf.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <sqlite3.h>
#include <stdint.h>
#include <string.h>

void literal_number(char to[LITERAL_NUMBER_MAX], const struct shell_value *v)
{
    if (v->type == LECTERN_INTEGER)
        (void)snprintf(to, LITERAL_NUMBER_MAX, "%" PRId64, v->integer);
    else /* SQLite's own conversion, as its ! flag: always with a point */
        (void)sqlite3_snprintf(LITERAL_NUMBER_MAX, to, "%!.15g", v->real);
}

void literal_float(char to[LITERAL_NUMBER_MAX], double r)
{
    if (isinf(r))
        (void)snprintf(to, LITERAL_NUMBER_MAX, "%s", r > 0 ? "1e999" : "-1e999");
    else if (fabs(r) < 9e18 && r == (double)(int64_t)r && !(r == 0 && signbit(r)))
        (void)snprintf(to, LITERAL_NUMBER_MAX, "%" PRId64 ".0", (int64_t)r);
    else
        (void)sqlite3_snprintf(LITERAL_NUMBER_MAX, to, "%!.20g", r);
}

static void put_hex(FILE *out, const char *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    (void)fputs("X'", out);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        (void)putc(digits[c >> 4], out);
        (void)putc(digits[c & 15], out);
    }
    (void)putc('\'', out);
}

/* Writes text with its quotes doubled, and line ends as NL and CR where those are given. */
static void put_inside(FILE *out, const char *text, size_t n, const char *nl, const char *cr)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n' && nl != NULL)
            (void)fputs(nl, out);
        else if (text[i] == '\r' && cr != NULL)
            (void)fputs(cr, out);
        else
            (void)putc(text[i], out);
        if (text[i] == '\'')
            (void)putc('\'', out);
    }
}

void literal_put_text(FILE *out, const char *text, size_t n)
{
    (void)putc('\'', out);
    put_inside(out, text, n, NULL, NULL);
    (void)putc('\'', out);
}

/* A stand-in for a byte, one that the text does not contain; TO is used when the two usual ones are
 * taken. */
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

static void put_escaped(FILE *out, const char *text, size_t n)
{
    char nl_room[24], cr_room[24];
    const char *nl = NULL, *cr = NULL;
    if (n > 0 && memchr(text, '\n', n) != NULL)
        nl = stand_in(text, n, "\\n", "\\012", nl_room);
    if (n > 0 && memchr(text, '\r', n) != NULL)
        cr = stand_in(text, n, "\\r", "\\015", cr_room);
    (void)fprintf(out, "%s%s'", nl != NULL ? "replace(" : "", cr != NULL ? "replace(" : "");
    put_inside(out, text, n, nl, cr);
    (void)putc('\'', out);
    if (cr != NULL)
        (void)fprintf(out, ",'%s',char(13))", cr);
    if (nl != NULL)
        (void)fprintf(out, ",'%s',char(10))", nl);
}

void literal_put(FILE *out, const struct shell_value *v, bool escape)
{
    char number[LITERAL_NUMBER_MAX];
    switch (v->type) {
    case LECTERN_NULL:
        (void)fputs("NULL", out);
        return;
    case LECTERN_INTEGER:
        literal_number(number, v);
        (void)fputs(number, out);
        return;
    case LECTERN_FLOAT:
        literal_float(number, v->real);
        (void)fputs(number, out);
        return;
    case LECTERN_BLOB:
        put_hex(out, v->text.bytes, v->text.len);
        return;
    case LECTERN_TEXT:
        break;
    }
    if (v->text.len > 0 && memchr(v->text.bytes, 0, v->text.len) != NULL) {
        (void)fputs("CAST(", out);
        put_hex(out, v->text.bytes, v->text.len);
        (void)fputs(" AS TEXT)", out);
    } else if (escape) {
        put_escaped(out, v->text.bytes, v->text.len);
    } else {
        literal_put_text(out, v->text.bytes, v->text.len);
    }
}

void literal_put_name(FILE *out, const char *name, size_t n)
{
    bool plain = n > 0 && !isdigit((unsigned char)name[0]) &&
                 sqlite3_keyword_check(name, n > INT16_MAX ? INT16_MAX : (int)n) == 0;
    for (size_t i = 0; i < n && plain; i++)
        plain = isalnum((unsigned char)name[i]) || name[i] == '_';
    if (plain) {
        (void)fwrite(name, 1, n, out);
        return;
    }
    (void)putc('"', out);
    for (size_t i = 0; i < n; i++) {
        (void)putc(name[i], out);
        if (name[i] == '"')
            (void)putc('"', out);
    }
    (void)putc('"', out);
}
