/* Room: client.   Thread: one.   Owns: the cells that are kept.
 *
 * Widths are only known when all cells are: they are kept, up to PRINT_KEEP_BYTES. Above that the
 * widths seen so far stand, what is kept is printed, and later rows follow one by one; a cell that
 * is wider then moves its line, nothing is cut.
 *
 * Invariants: cells come in whole rows; the first row is the names. */
#include "client/shell_columns.h"

#include "base/check.h"
#include "client/shell_text.h"

#include <stdlib.h>
#include <string.h>

/* A cell: u32 length, bytes. */
#define CELL_HEAD 4u

struct edge {
    const char *left, *fill, *cross, *right;
};

/* How a mode draws: the row's bars, and the rules above, below the names, and at the end. */
struct style {
    const char *left, *bar, *right;
    struct edge top, middle, bottom;
    bool names_always, centred;
};

static const struct style styles[PRINT_MODES] = {
    [PRINT_COLUMN] = {"", "  ", "", {0}, {"", "-", "  ", ""}, {0}, false, false},
    [PRINT_TABLE] = {"| ",
                     " | ",
                     " |",
                     {"+-", "-", "-+-", "-+"},
                     {"+-", "-", "-+-", "-+"},
                     {"+-", "-", "-+-", "-+"},
                     true,
                     true},
    [PRINT_MARKDOWN] = {"| ", " | ", " |", {0}, {"|-", "-", "-|-", "-|"}, {0}, true, true},
    [PRINT_BOX] = {"│ ",
                   " │ ",
                   " │",
                   {"┌─", "─", "─┬─", "─┐"},
                   {"├─", "─", "─┼─", "─┤"},
                   {"└─", "─", "─┴─", "─┘"},
                   true,
                   true},
};

struct columns {
    const struct print_settings *settings;
    const struct style *style;
    FILE *out;
    uint32_t n, at; /* cells of a row; of the current one */
    struct buf cells, line;
    size_t *widths;
    const char **rest, **ends; /* of the row being printed */
    uint64_t rows;             /* whole ones, the names too */
    bool streaming, tall;      /* tall: some row has several lines */
    bool first;                /* no row was printed yet */
};

struct columns *shell_columns_new(const struct print_settings *settings, FILE *out, uint32_t n)
{
    struct columns *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    *c = (struct columns){.settings = settings, .out = out, .n = n, .first = true};
    c->style = &styles[settings->mode];
    CHECK(c->style->bar != NULL);
    /* One cell may be as large as a frame. */
    buf_init(&c->cells, PRINT_KEEP_BYTES + 80u * 1024 * 1024);
    buf_init(&c->line, 256u * 1024 * 1024);
    c->widths = calloc(n, sizeof *c->widths);
    c->rest = calloc(n, sizeof *c->rest);
    c->ends = calloc(n, sizeof *c->ends);
    if (c->widths == NULL || c->rest == NULL || c->ends == NULL) {
        shell_columns_free(c);
        return NULL;
    }
    return c;
}

void shell_columns_free(struct columns *c)
{
    if (c == NULL)
        return;
    buf_fini(&c->cells);
    buf_fini(&c->line);
    free(c->widths);
    free((void *)c->rest);
    free((void *)c->ends);
    free(c);
}

static int wanted_width(const struct columns *c, uint32_t i)
{
    return i < PRINT_WIDTHS_MAX ? c->settings->widths[i] : 0;
}

/* Columns after which a cell is continued on the next line; 0: never. */
static size_t wrap_at(const struct columns *c, uint32_t i)
{
    int w = wanted_width(c, i);
    return (size_t)(w == 0 ? c->settings->wrap : abs(w));
}

static void measure(struct columns *c, uint32_t i, const char *text, size_t n)
{
    const char *p = text;
    unsigned lines = 0;
    do {
        buf_reset(&c->line);
        size_t width = text_line(&p, text + n, wrap_at(c, i), &c->line);
        c->widths[i] = width > c->widths[i] ? width : c->widths[i];
        lines++;
    } while (p != NULL && c->rows > 0); /* of a name only the first line is shown */
    c->tall = c->tall || lines > 1;
}

static void blanks(FILE *out, size_t n)
{
    (void)fprintf(out, "%*s", (int)(n < 10000 ? n : 10000), "");
}

static void put_padded(struct columns *c, uint32_t i, size_t width, bool centred)
{
    size_t room = c->widths[i] > width ? c->widths[i] - width : 0;
    size_t before = centred ? room / 2 : wanted_width(c, i) < 0 ? room : 0;
    blanks(c->out, before);
    (void)fwrite(c->line.data, 1, c->line.len, c->out);
    blanks(c->out, room - before);
}

static void put_rule(struct columns *c, const struct edge *e)
{
    if (e->left == NULL)
        return;
    (void)fputs(e->left, c->out);
    for (uint32_t i = 0; i < c->n; i++) {
        for (size_t k = 0; k < c->widths[i]; k++)
            (void)fputs(e->fill, c->out);
        (void)fputs(i + 1 < c->n ? e->cross : e->right, c->out);
    }
    (void)putc('\n', c->out);
}

/* Prints the row whose cells begin at OFFSET; returns where the next one begins. */
static size_t put_row(struct columns *c, size_t offset, bool names)
{
    bool more;
    for (uint32_t i = 0; i < c->n; i++) {
        size_t n = get_le32(c->cells.data + offset);
        c->rest[i] = (const char *)c->cells.data + offset + CELL_HEAD;
        c->ends[i] = c->rest[i] + n;
        offset += CELL_HEAD + n;
    }
    do {
        more = false;
        (void)fputs(c->style->left, c->out);
        for (uint32_t i = 0; i < c->n; i++) {
            size_t width = 0;
            buf_reset(&c->line);
            if (c->rest[i] != NULL)
                width = text_line(&c->rest[i], c->ends[i], wrap_at(c, i), &c->line);
            more = more || c->rest[i] != NULL;
            put_padded(c, i, width, names && c->style->centred);
            (void)fputs(i + 1 < c->n ? c->style->bar : c->style->right, c->out);
        }
        (void)putc('\n', c->out);
    } while (more && !names);
    return offset;
}

static void put_data_row(struct columns *c, size_t *offset)
{
    if (!c->first && c->tall && c->settings->mode == PRINT_COLUMN)
        (void)putc('\n', c->out);
    else if (!c->first && c->tall && c->settings->mode != PRINT_MARKDOWN)
        put_rule(c, &c->style->middle);
    c->first = false;
    *offset = put_row(c, *offset, false);
}

/* Prints what is kept; from the first time on rows go out as they come. */
static void put_kept(struct columns *c)
{
    size_t offset = 0;
    uint64_t rows = c->rows;
    if (!c->streaming) {
        bool names = c->style->names_always || c->settings->headers;
        put_rule(c, &c->style->top);
        if (names) {
            offset = put_row(c, 0, true);
            put_rule(c, &c->style->middle);
        } else { /* skip them */
            for (uint32_t i = 0; i < c->n; i++)
                offset += CELL_HEAD + get_le32(c->cells.data + offset);
        }
        rows--;
    }
    for (; rows > 0; rows--)
        put_data_row(c, &offset);
    CHECK(offset == c->cells.len);
    buf_reset(&c->cells);
    c->rows = 0;
    c->streaming = true;
}

enum err shell_columns_cell(struct columns *c, const char *text, size_t n)
{
    buf_put_str(&c->cells, text, n);
    if (buf_status(&c->cells) != ERR_OK)
        return err_fail(buf_status(&c->cells), "the row does not fit the memory");
    if (!c->streaming) {
        if (c->rows == 0 && c->widths[c->at] == 0)
            c->widths[c->at] = (size_t)abs(wanted_width(c, c->at));
        measure(c, c->at, text, n);
    }
    if (++c->at == c->n) {
        c->at = 0;
        c->rows++;
        if (c->streaming || (c->cells.len > PRINT_KEEP_BYTES && c->rows > 1))
            put_kept(c);
    }
    return ERR_OK;
}

void shell_columns_end(struct columns *c)
{
    if (!c->streaming && c->rows < 2)
        return;
    if (!c->streaming)
        put_kept(c);
    put_rule(c, &c->style->bottom);
}
