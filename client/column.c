/* Room: client.   Thread: under the cluster's lock.   Owns: names of columns, the cells of a row.
 *
 * A row is read in place: texts and blobs are pointers into the frame, which is ours to write to.
 * C wants a zero behind a text. There the type byte of the next value stands, which has been read
 * already when the row has, but for the last one: that is the first byte of the next row, and is
 * lent (kept in lent_byte, put back before the next row is read).
 *
 * Conversions are those of sqlite3_column_*: numbers from the longest prefix of a text that is one,
 * integers clamped, floats written as "%!.15g". Never by the program's locale.
 *
 * Invariants: cells hold pointers into `frame` only while on_row. */
#include "base/check.h"
#include "client/statement.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- names --- */

void statement_columns_free(struct lectern_stmt *s)
{
    cells_clear(s);
    free(s->columns);
    free(s->columns_text);
    free(s->columns_raw);
    free(s->cells);
    s->columns = NULL;
    s->columns_text = NULL;
    s->columns_raw = NULL;
    s->cells = NULL;
    s->n_columns = 0;
    s->columns_raw_len = 0;
}

/* One text out of R to TO, with a zero; returns where the next begins. */
static char *copy_text(char *to, struct rd *r, const char **out)
{
    size_t n;
    const char *p = rd_str(r, &n);
    CHECK(!r->failed);
    if (n != 0)
        memcpy(to, p, n);
    to[n] = '\0';
    *out = to;
    return to + n + 1;
}

enum err statement_columns_set(struct lectern_stmt *s, uint32_t n, struct rd raw)
{
    size_t len = rd_left(&raw);
    if (n == s->n_columns && len == s->columns_raw_len &&
        (len == 0 || memcmp(raw.p, s->columns_raw, len) == 0))
        return ERR_OK;
    /* Two texts of each column, of 4 bytes at least, become two zeros. */
    struct column_name *columns = calloc(n + 1u, sizeof *columns);
    struct cell *cells = calloc(n + 1u, sizeof *cells);
    char *text = malloc(len + 1), *to = text;
    uint8_t *copy = malloc(len + 1);
    if (columns == NULL || cells == NULL || text == NULL || copy == NULL) {
        free(columns);
        free(cells);
        free(text);
        free(copy);
        return err_fail(ERR_NOMEM, "no memory for %" PRIu32 " columns", n);
    }
    memcpy(copy, len == 0 ? (const void *)"" : raw.p, len);
    for (uint32_t i = 0; i < n; i++) {
        to = copy_text(to, &raw, &columns[i].name);
        to = copy_text(to, &raw, &columns[i].decltype);
        if (columns[i].decltype[0] == '\0')
            columns[i].decltype = NULL;
    }
    statement_columns_free(s);
    s->n_columns = n;
    s->columns = columns;
    s->cells = cells;
    s->columns_text = text;
    s->columns_raw = copy;
    s->columns_raw_len = len;
    return ERR_OK;
}

int lectern_column_count(lectern_stmt *s)
{
    if (!statement_enter(s))
        return 0;
    int n = (int)s->n_columns;
    session_leave(s->handle.db->cluster);
    return n;
}

int lectern_data_count(lectern_stmt *s)
{
    if (!statement_enter(s))
        return 0;
    int n = s->on_row ? (int)s->n_columns : 0;
    session_leave(s->handle.db->cluster);
    return n;
}

static const char *name_of(lectern_stmt *s, int column, bool decltype)
{
    if (!statement_enter(s))
        return NULL;
    const char *name = NULL;
    if (column >= 0 && (uint32_t)column < s->n_columns)
        name = decltype ? s->columns[column].decltype : s->columns[column].name;
    session_leave(s->handle.db->cluster);
    return name;
}

const char *lectern_column_name(lectern_stmt *s, int column)
{
    return name_of(s, column, false);
}

const char *lectern_column_decltype(lectern_stmt *s, int column)
{
    return name_of(s, column, true);
}

/* --- the row --- */

/* BYTES of a value, as part of our own frame. */
static uint8_t *own(struct lectern_stmt *s, const char *bytes)
{
    return s->frame->bytes + (bytes - (const char *)s->frame->bytes);
}

void cells_clear(struct lectern_stmt *s)
{
    if (s->lent != NULL)
        *s->lent = s->lent_byte;
    s->lent = NULL;
    if (!s->on_row)
        return;
    s->on_row = false;
    for (uint32_t i = 0; i < s->n_columns; i++) {
        free(s->cells[i].text);
        s->cells[i].text = NULL;
    }
}

static bool has_bytes(const struct wire_value *v)
{
    return v->type == WIRE_TEXT || v->type == WIRE_BLOB;
}

void cells_read(struct lectern_stmt *s)
{
    CHECK(s->rows_left > 0);
    cells_clear(s);
    for (uint32_t i = 0; i < s->n_columns; i++)
        CHECK(wire_get_value(&s->values, &s->cells[i].v) == ERR_OK);
    s->lent = own(s, (const char *)s->values.p);
    s->lent_byte = *s->lent;
    for (uint32_t i = 0; i < s->n_columns; i++) {
        const struct wire_value *v = &s->cells[i].v;
        if (has_bytes(v))
            own(s, v->text.bytes)[v->text.len] = 0;
    }
    s->rows_left--;
    s->on_row = true;
}

/* --- conversions --- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The integer that P begins with, clamped. */
static int64_t int_of_text(const char *p, size_t n)
{
    const char *end = p + n;
    while (p < end && is_space(*p))
        p++;
    bool minus = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+'))
        p++;
    const uint64_t most = minus ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
    uint64_t v = 0;
    for (; p < end && is_digit(*p); p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (v > (most - digit) / 10)
            return minus ? INT64_MIN : INT64_MAX;
        v = v * 10 + digit;
    }
    return minus ? (int64_t)(0 - v) : (int64_t)v;
}

/* Where the number that P begins with ends; P itself: there is none. */
static const char *number_end(const char *p, const char *end)
{
    const char *start = p;
    if (p < end && (*p == '-' || *p == '+'))
        p++;
    const char *digits = p;
    while (p < end && is_digit(*p))
        p++;
    size_t n = (size_t)(p - digits);
    if (p < end && *p == '.') {
        const char *fraction = ++p;
        while (p < end && is_digit(*p))
            p++;
        n += (size_t)(p - fraction);
    }
    if (n == 0)
        return start;
    if (p < end && (*p == 'e' || *p == 'E')) {
        const char *q = p + 1;
        if (q < end && (*q == '-' || *q == '+'))
            q++;
        if (q < end && is_digit(*q)) {
            while (q < end && is_digit(*q))
                q++;
            p = q;
        }
    }
    return p;
}

/* P is writable and has a byte behind it. */
static double double_of_text(uint8_t *text, size_t n)
{
    char *p = (char *)text, *limit = p + n;
    while (p < limit && is_space(*p))
        p++;
    const char *end = number_end(p, limit);
    if (end == p)
        return 0.0;
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (plain == (locale_t)0)
        return 0.0; /* cannot fail: the C locale is a constant of the library */
    char *stop = p + (end - p), behind = *stop;
    *stop = '\0';
    double v = strtod_l(p, NULL, plain);
    *stop = behind;
    freelocale(plain);
    return v;
}

static int64_t int_of_double(double v)
{
    if (v <= (double)INT64_MIN)
        return INT64_MIN;
    if (v >= (double)INT64_MAX)
        return INT64_MAX;
    return (int64_t)v;
}

#define NUMBER_TEXT 40

/* As SQLite's "%!.15g": always with a point, so that it reads as a float again. */
static int write_double(char *to, double v)
{
    if (isinf(v))
        return snprintf(to, NUMBER_TEXT, "%s", v < 0 ? "-Inf" : "Inf");
    if (v == 0.0)
        v = 0.0 * 0.0; /* no minus */
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    locale_t before = uselocale(plain);
    int n = snprintf(to, NUMBER_TEXT, "%.15g", v);
    (void)uselocale(before);
    freelocale(plain);
    if (strchr(to, '.') != NULL)
        return n;
    char *e = strchr(to, 'e');
    char *at = e == NULL ? to + n : e;
    memmove(at + 2, at, strlen(at) + 1);
    memcpy(at, ".0", 2);
    return n + 2;
}

/* --- column_* --- */

/* Enters; NULL (left again): nothing there, and lectern_errcode says RANGE. */
static struct cell *cell_enter(lectern_stmt *s, int column)
{
    if (!statement_enter(s))
        return NULL;
    if (s->on_row && column >= 0 && (uint32_t)column < s->n_columns)
        return &s->cells[column];
    (void)session_fail(s->handle.db, LECTERN_RANGE, "%s",
                       s->on_row ? "column index out of range" : "the statement is on no row");
    session_leave(s->handle.db->cluster);
    return NULL;
}

int lectern_column_type(lectern_stmt *s, int column)
{
    static const int types[] = {
        [WIRE_NULL] = LECTERN_NULL, [WIRE_INTEGER] = LECTERN_INTEGER, [WIRE_FLOAT] = LECTERN_FLOAT,
        [WIRE_TEXT] = LECTERN_TEXT, [WIRE_BLOB] = LECTERN_BLOB,
    };
    struct cell *c = cell_enter(s, column);
    if (c == NULL)
        return LECTERN_NULL;
    int type = types[c->v.type];
    session_leave(s->handle.db->cluster);
    return type;
}

int64_t lectern_column_int64(lectern_stmt *s, int column)
{
    struct cell *c = cell_enter(s, column);
    if (c == NULL)
        return 0;
    int64_t v = 0;
    if (c->v.type == WIRE_INTEGER)
        v = c->v.integer;
    else if (c->v.type == WIRE_FLOAT)
        v = int_of_double(c->v.real);
    else if (has_bytes(&c->v))
        v = int_of_text(c->v.text.bytes, c->v.text.len);
    session_leave(s->handle.db->cluster);
    return v;
}

int lectern_column_int(lectern_stmt *s, int column)
{
    return (int)(uint32_t)(uint64_t)lectern_column_int64(s, column);
}

double lectern_column_double(lectern_stmt *s, int column)
{
    struct cell *c = cell_enter(s, column);
    if (c == NULL)
        return 0.0;
    double v = 0.0;
    if (c->v.type == WIRE_INTEGER)
        v = (double)c->v.integer;
    else if (c->v.type == WIRE_FLOAT)
        v = c->v.real;
    else if (has_bytes(&c->v))
        v = double_of_text(own(s, c->v.text.bytes), c->v.text.len);
    session_leave(s->handle.db->cluster);
    return v;
}

/* The text of a number, made once. False: no memory, which is the session's error then. */
static bool turn_to_text(struct lectern_stmt *s, struct cell *c)
{
    if (c->text != NULL)
        return true;
    c->text = malloc(NUMBER_TEXT);
    if (c->text == NULL) {
        (void)session_fail(s->handle.db, LECTERN_NOMEM, "%s", "");
        return false;
    }
    int n = c->v.type == WIRE_INTEGER ? snprintf(c->text, NUMBER_TEXT, "%" PRId64, c->v.integer)
                                      : write_double(c->text, c->v.real);
    c->text_len = (size_t)n;
    return true;
}

/* What C is as bytes: NULL for NULL or without memory. */
static const void *bytes_of(struct lectern_stmt *s, struct cell *c, size_t *n)
{
    *n = 0;
    if (c->v.type == WIRE_NULL)
        return NULL;
    if (has_bytes(&c->v)) {
        *n = c->v.text.len;
        return c->v.text.bytes;
    }
    if (!turn_to_text(s, c))
        return NULL;
    *n = c->text_len;
    return c->text;
}

const unsigned char *lectern_column_text(lectern_stmt *s, int column)
{
    struct cell *c = cell_enter(s, column);
    if (c == NULL)
        return NULL;
    size_t n;
    const void *p = bytes_of(s, c, &n);
    session_leave(s->handle.db->cluster);
    return p;
}

const void *lectern_column_blob(lectern_stmt *s, int column)
{
    struct cell *c = cell_enter(s, column);
    if (c == NULL)
        return NULL;
    size_t n;
    const void *p = bytes_of(s, c, &n);
    session_leave(s->handle.db->cluster);
    return n == 0 ? NULL : p; /* as SQLite: a blob without bytes is NULL */
}

int lectern_column_bytes(lectern_stmt *s, int column)
{
    struct cell *c = cell_enter(s, column);
    if (c == NULL)
        return 0;
    size_t n;
    (void)bytes_of(s, c, &n);
    session_leave(s->handle.db->cluster);
    return (int)n;
}
