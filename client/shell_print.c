/* Room: client.   Thread: one.   Owns: the copy of the settings, the names of one answer.
 *
 * Invariants: the text is that of sqlite3's shell, byte by byte, where that is sane (a test runs
 * both); memory does not grow with the answer.
 *
 * Not here: aligned modes (shell_columns.c), literals (shell_literal.c). */
#include "client/shell_print.h"

#include "base/buf.h"
#include "client/shell_columns.h"
#include "client/shell_literal.h"
#include "client/shell_text.h"
#include "client/sql_literal.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct printer {
    struct print_settings s;
    FILE *out;
    struct columns *columns; /* the aligned modes */
    struct buf names;        /* n times: u32 length, bytes */
    uint32_t n;
    uint64_t rows;
    int name_width; /* mode line */
};

/* --- settings --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    const char *separator, *row_separator; /* NULL: stays */
    bool headers;                          /* turns them on; no mode turns them off */
} modes[PRINT_MODES] = {
    [PRINT_LIST] = {"list", "|", "\n", false},
    [PRINT_COLUMN] = {"column", NULL, "\n", true},
    [PRINT_BOX] = {"box", NULL, "\n", false},
    [PRINT_CSV] = {"csv", ",", "\r\n", false},
    [PRINT_JSON] = {"json", NULL, "\n", false},
    [PRINT_LINE] = {"line", NULL, "\n", false},
    [PRINT_TABLE] = {"table", NULL, "\n", false},
    [PRINT_INSERT] = {"insert", NULL, "\n", false},
    [PRINT_MARKDOWN] = {"markdown", NULL, "\n", false},
    [PRINT_QUOTE] = {"quote", ",", "\n", false},
    [PRINT_TABS] = {"tabs", "\t", "\n", false},
};

void print_settings_init(struct print_settings *s)
{
    *s = (struct print_settings){.mode = PRINT_LIST};
    (void)snprintf(s->separator, sizeof s->separator, "|");
    (void)snprintf(s->row_separator, sizeof s->row_separator, "\n");
    (void)snprintf(s->insert_table, sizeof s->insert_table, "\"table\"");
}

bool print_set_mode(struct print_settings *s, const char *name)
{
    size_t len = strlen(name);
    for (int m = 0; m < PRINT_MODES; m++) {
        bool plural = strcmp(name, "columns") == 0 || strcmp(name, "lines") == 0;
        if (strncmp(modes[m].name, name, plural ? len - 1 : len) != 0 || len == 0)
            continue;
        s->mode = (enum print_mode)m;
        if (modes[m].separator != NULL)
            (void)snprintf(s->separator, sizeof s->separator, "%s", modes[m].separator);
        (void)snprintf(s->row_separator, sizeof s->row_separator, "%s", modes[m].row_separator);
        if (modes[m].headers && !s->headers_set)
            s->headers = true;
        return true;
    }
    return false;
}

const char *print_mode_name(enum print_mode mode)
{
    return modes[mode].name;
}

/* --- one value -------------------------------------------------------------------------------- */

struct text {
    const char *p;
    size_t n;
    char room[LITERAL_NUMBER_MAX];
};

/* A value as plain text; NULL as the user wants to see it. */
static void text_of(const struct printer *p, const struct shell_value *v, struct text *t)
{
    switch (v->type) {
    case LECTERN_NULL:
        t->p = p->s.null_value;
        t->n = strlen(p->s.null_value);
        return;
    case LECTERN_INTEGER:
    case LECTERN_FLOAT:
        literal_number(t->room, v);
        t->p = t->room;
        t->n = strlen(t->room);
        return;
    case LECTERN_TEXT:
    case LECTERN_BLOB:
        t->p = v->text.bytes;
        t->n = v->text.len;
        return;
    }
}

static void put_csv(const struct printer *p, const char *text, size_t n)
{
    const char *separator = p->s.separator;
    bool quote = n == 0 || memmem(text, n, separator, strlen(separator)) != NULL;
    for (size_t i = 0; i < n && !quote; i++) {
        unsigned char c = (unsigned char)text[i];
        quote = c <= ' ' || c >= 0x7f || c == '"' || c == '\'';
    }
    if (!quote) {
        (void)fwrite(text, 1, n, p->out);
        return;
    }
    (void)putc('"', p->out);
    for (size_t i = 0; i < n; i++) {
        (void)putc(text[i], p->out);
        if (text[i] == '"')
            (void)putc('"', p->out);
    }
    (void)putc('"', p->out);
}

static void put_json_text(FILE *out, const char *text, size_t n)
{
    static const char letters[] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r',
                                   ['\t'] = 't', ['"'] = '"',  ['\\'] = '\\'};
    (void)putc('"', out);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)text[i];
        unsigned code;
        size_t bytes = text_char(text + i, text + n, &code);
        if (bytes == 0) /* JSON is UTF-8: other bytes would break every reader */
            (void)fputs("\\ufffd", out);
        else if (c < sizeof letters && letters[c] != 0)
            (void)fprintf(out, "\\%c", letters[c]);
        else if (c < ' ')
            (void)fprintf(out, "\\u%04x", c);
        else
            (void)fwrite(text + i, 1, bytes, out);
        i += bytes == 0 ? 1 : bytes;
    }
    (void)putc('"', out);
}

static void put_json(const struct printer *p, const struct shell_value *v)
{
    struct text t;
    if (v->type == LECTERN_NULL) {
        (void)fputs("null", p->out);
    } else if (v->type == LECTERN_FLOAT) {
        sql_float(t.room, v->real);
        (void)fputs(t.room, p->out);
    } else if (v->type == LECTERN_INTEGER) {
        literal_number(t.room, v);
        (void)fputs(t.room, p->out);
    } else {
        put_json_text(p->out, v->text.bytes, v->text.len);
    }
}

/* --- rows ------------------------------------------------------------------------------------- */

/* Calls PUT for each name: the names are read once more for every row of some modes. */
struct name {
    const char *p;
    size_t n;
};

static struct name next_name(struct rd *r)
{
    struct name name;
    name.p = rd_str(r, &name.n);
    return name;
}

static void put_names(struct printer *p)
{
    struct rd r = rd_of(p->names.data, p->names.len);
    for (uint32_t i = 0; i < p->n; i++) {
        struct name name = next_name(&r);
        if (i > 0)
            (void)fputs(p->s.separator, p->out);
        if (p->s.mode == PRINT_CSV)
            put_csv(p, name.p, name.n);
        else if (p->s.mode == PRINT_QUOTE)
            literal_put_text(p->out, name.p, name.n);
        else
            (void)fwrite(name.p, 1, name.n, p->out);
    }
    (void)fputs(p->s.row_separator, p->out);
}

static void put_separated_row(struct printer *p, const struct shell_value *v)
{
    if (p->rows == 0 && p->s.headers)
        put_names(p);
    for (uint32_t i = 0; i < p->n; i++) {
        struct text t;
        if (i > 0)
            (void)fputs(p->s.separator, p->out);
        text_of(p, &v[i], &t);
        if (p->s.mode == PRINT_QUOTE)
            literal_put(p->out, &v[i], false);
        else if (p->s.mode == PRINT_CSV && v[i].type != LECTERN_NULL)
            put_csv(p, t.p, t.n);
        else
            (void)fwrite(t.p, 1, t.n, p->out);
    }
    (void)fputs(p->s.row_separator, p->out);
}

static void put_line_row(struct printer *p, const struct shell_value *v)
{
    struct rd r = rd_of(p->names.data, p->names.len);
    if (p->rows > 0)
        (void)fputs(p->s.row_separator, p->out);
    for (uint32_t i = 0; i < p->n; i++) {
        struct name name = next_name(&r);
        struct text t;
        text_of(p, &v[i], &t);
        (void)fprintf(p->out, "%*s%.*s = ", p->name_width - (int)name.n, "", (int)name.n, name.p);
        (void)fwrite(t.p, 1, t.n, p->out);
        (void)fputs(p->s.row_separator, p->out);
    }
}

static void put_insert_row(struct printer *p, const struct shell_value *v)
{
    struct rd r = rd_of(p->names.data, p->names.len);
    (void)fprintf(p->out, "INSERT INTO %s", p->s.insert_table);
    for (uint32_t i = 0; i < p->n && p->s.headers; i++) {
        struct name name = next_name(&r);
        (void)putc(i == 0 ? '(' : ',', p->out);
        literal_put_name(p->out, name.p, name.n);
    }
    if (p->s.headers)
        (void)putc(')', p->out);
    for (uint32_t i = 0; i < p->n; i++) {
        (void)fputs(i == 0 ? " VALUES(" : ",", p->out);
        literal_put(p->out, &v[i], true);
    }
    (void)fputs(");\n", p->out);
}

static void put_json_row(struct printer *p, const struct shell_value *v)
{
    struct rd r = rd_of(p->names.data, p->names.len);
    (void)fputs(p->rows == 0 ? "[{" : ",\n{", p->out);
    for (uint32_t i = 0; i < p->n; i++) {
        struct name name = next_name(&r);
        if (i > 0)
            (void)putc(',', p->out);
        put_json_text(p->out, name.p, name.n);
        (void)putc(':', p->out);
        put_json(p, &v[i]);
    }
    (void)putc('}', p->out);
}

static enum err put_aligned_row(struct printer *p, const struct shell_value *v)
{
    for (uint32_t i = 0; i < p->n; i++) {
        struct text t;
        text_of(p, &v[i], &t);
        TRY(shell_columns_cell(p->columns, t.p, t.n));
    }
    return ERR_OK;
}

/* --- the handler ------------------------------------------------------------------------------ */

static bool aligned(enum print_mode m)
{
    return m == PRINT_COLUMN || m == PRINT_BOX || m == PRINT_TABLE || m == PRINT_MARKDOWN;
}

static enum err on_columns(void *arg, const char *const *names, uint32_t n)
{
    struct printer *p = arg;
    p->n = n;
    p->name_width = 5;
    if (aligned(p->s.mode)) {
        p->columns = shell_columns_new(&p->s, p->out, n);
        if (p->columns == NULL)
            return err_fail(ERR_NOMEM, "out of memory for %u columns", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        size_t len = strlen(names[i]);
        buf_put_str(&p->names, names[i], len);
        if ((int)len > p->name_width)
            p->name_width = (int)len;
        if (p->columns != NULL)
            TRY(shell_columns_cell(p->columns, names[i], len));
    }
    if (buf_status(&p->names) != ERR_OK)
        return err_fail(buf_status(&p->names), "the names of the columns are too long");
    return ERR_OK;
}

static enum err on_row(void *arg, const struct shell_value *v, uint32_t n)
{
    struct printer *p = arg;
    (void)n;
    switch (p->s.mode) {
    case PRINT_LIST:
    case PRINT_CSV:
    case PRINT_QUOTE:
    case PRINT_TABS:
        put_separated_row(p, v);
        break;
    case PRINT_LINE:
        put_line_row(p, v);
        break;
    case PRINT_INSERT:
        put_insert_row(p, v);
        break;
    case PRINT_JSON:
        put_json_row(p, v);
        break;
    case PRINT_COLUMN:
    case PRINT_BOX:
    case PRINT_TABLE:
    case PRINT_MARKDOWN:
        TRY(put_aligned_row(p, v));
        break;
    case PRINT_MODES:
        break;
    }
    p->rows++;
    if (ferror(p->out))
        return err_fail(ERR_IO, "cannot write the output: %s", strerror(errno));
    return ERR_OK;
}

struct printer *printer_new(const struct print_settings *s, FILE *out)
{
    struct printer *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->s = *s;
    p->out = out;
    buf_init(&p->names, 16u * 1024 * 1024);
    return p;
}

struct shell_handler printer_handler(struct printer *p)
{
    return (struct shell_handler){.columns = on_columns, .row = on_row, .arg = p};
}

void printer_end(struct printer *p, bool fine)
{
    if (p->columns != NULL && fine)
        shell_columns_end(p->columns);
    if (p->s.mode == PRINT_JSON && p->rows > 0)
        (void)fputs(fine ? "]\n" : "\n", p->out);
    shell_columns_free(p->columns);
    buf_fini(&p->names);
    free(p);
}
