/* Room: client.   Thread: one; shell_run_interrupt in a signal handler.
 * Owns: which request Ctrl-C ends.
 *
 * Not here: where statements come from (shell_input.c), how rows look (shell_print.c). */
#include "client/shell_run.h"

#include "base/clock.h"
#include "base/sizes.h"
#include "client/shell_literal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The connection whose request runs, for the signal handler; NULL: none. A pointer is stored whole
 * on every machine that Lectern runs on. */
static struct conn *volatile running;

bool shell_run_interrupt(void)
{
    struct conn *c = running;
    if (c != NULL)
        conn_cancel(c);
    return c != NULL;
}

/* Shows where in the statement the error is: the line around it, and a mark below. */
static void show_place(const char *sql, size_t n, int32_t offset)
{
    if (offset < 0 || (size_t)offset >= n)
        return;
    size_t at = (size_t)offset, begin = at, end = at;
    while (begin > 0 && sql[begin - 1] != '\n' && at - begin < 40)
        begin--;
    while (begin < at && ((unsigned char)sql[begin] & 0xc0) == 0x80)
        begin++;
    while (end < n && sql[end] != '\n' && end - at < 30)
        end++;
    while (end > at && end < n && ((unsigned char)sql[end] & 0xc0) == 0x80)
        end--;
    int before = 0;
    for (size_t i = begin; i < at; i++)
        before += ((unsigned char)sql[i] & 0xc0) != 0x80;
    (void)fprintf(stderr, "  %.*s\n  %*s^--- error here\n", (int)(end - begin), sql + begin, before,
                  "");
}

static enum err query(struct shell *sh, const struct conn_query *q, const struct conn_handler *h,
                      struct wire_done *done)
{
    running = sh->conn;
    enum err err = conn_query(sh->conn, q, h, done);
    running = NULL;
    return err;
}

static void complain_about(struct shell *sh, const char *sql, size_t n)
{
    const struct conn_error *e = conn_error(sh->conn);
    shell_complain(sh, "%s", e->message);
    if (sh->interactive)
        show_place(sql, n, e->offset);
}

/* A script must not go on as if nothing had happened when no node can be reached, or when the rest
 * of its transaction would run outside of any. */
static bool ends_script(const struct shell *sh, enum err err)
{
    return !sh->interactive &&
           (err == ERR_TXN_LOST || (err == ERR_CLOSED && conn_address(sh->conn)[0] == '\0'));
}

static void show_extras(struct shell *sh, const struct wire_done *done, uint64_t ns)
{
    sh->total_changes += done->changes;
    if (sh->changes)
        (void)fprintf(sh->out, "changes: %" PRId64 "   total_changes: %" PRId64 "\n", done->changes,
                      sh->total_changes);
    if (sh->timer)
        (void)fprintf(sh->out, "Run Time: real %" PRIu64 ".%03" PRIu64 "\n", ns / 1000000000u,
                      ns / 1000000u % 1000u);
}

void shell_run(struct shell *sh, const char *sql, size_t n)
{
    struct wire_done done = {0};
    struct conn_query q = {.sql = sql,
                           .sql_len = n,
                           .level = sh->level,
                           .bound_ms = sh->bound_ms,
                           .timeout_ms = sh->timeout_ms};
    if (sh->echo)
        (void)fprintf(sh->out, "%.*s\n", (int)n, sql);
    struct printer *p = printer_new(&sh->print, sh->out);
    if (p == NULL) {
        shell_complain(sh, "out of memory");
        return;
    }
    struct conn_handler h = printer_handler(p);
    uint64_t begun = clock_mono_ns();
    enum err err = query(sh, &q, &h, &done);
    printer_end(p, err == ERR_OK);
    if (err == ERR_OK)
        show_extras(sh, &done, clock_mono_ns() - begun);
    if (fflush(sh->out) != 0 && err == ERR_OK)
        shell_complain(sh, "cannot write the output");
    if (err != ERR_OK)
        complain_about(sh, sql, n);
    if (ends_script(sh, err))
        sh->quit = true;
    if (sh->out_once)
        shell_output_reset(sh);
}

enum err shell_query(struct shell *sh, const char *sql, const char *const *params,
                     uint32_t n_params, const struct conn_handler *h)
{
    struct conn_param values[4] = {0};
    struct conn_query q = {.sql = sql,
                           .sql_len = strlen(sql),
                           .params = values,
                           .n_params = n_params,
                           .level = sh->level,
                           .bound_ms = sh->bound_ms,
                           .timeout_ms = sh->timeout_ms};
    for (uint32_t i = 0; i < n_params && i < 4; i++) {
        values[i].value.type = WIRE_TEXT;
        values[i].value.text.bytes = params[i];
        values[i].value.text.len = (uint32_t)strlen(params[i]);
    }
    enum err err = query(sh, &q, h, NULL);
    if (err != ERR_OK)
        complain_about(sh, sql, strlen(sql));
    return err;
}

/* --- a small answer in memory ----------------------------------------------------------------- */

void fetched_init(struct fetched *f)
{
    *f = (struct fetched){0};
    buf_init(&f->cells, MIB(64));
}

void fetched_fini(struct fetched *f)
{
    buf_fini(&f->cells);
}

static enum err fetch_columns(void *arg, const struct conn_column *columns, uint32_t n)
{
    struct fetched *f = arg;
    f->columns = n;
    for (uint32_t i = 0; i < n && i < 32; i++)
        (void)snprintf(f->names[i], sizeof f->names[i], "%.*s",
                       (int)(columns[i].name_len < 31 ? columns[i].name_len : 31), columns[i].name);
    return ERR_OK;
}

static enum err fetch_row(void *arg, const struct wire_value *v, uint32_t n)
{
    struct fetched *f = arg;
    for (uint32_t i = 0; i < n; i++) {
        char number[LITERAL_NUMBER_MAX];
        if (v[i].type == WIRE_NULL) {
            buf_put_u32(&f->cells, UINT32_MAX);
            continue;
        }
        if (v[i].type == WIRE_INTEGER || v[i].type == WIRE_FLOAT) {
            literal_number(number, &v[i]);
            buf_put_cstr(&f->cells, number);
        } else {
            buf_put_str(&f->cells, v[i].text.bytes, v[i].text.len);
        }
        buf_put_u8(&f->cells, 0);
    }
    f->rows++;
    if (buf_status(&f->cells) != ERR_OK)
        return err_fail(buf_status(&f->cells), "an answer too large for this command");
    return ERR_OK;
}

struct conn_handler fetched_handler(struct fetched *f)
{
    return (struct conn_handler){.columns = fetch_columns, .row = fetch_row, .arg = f};
}

struct rd fetched_cells(const struct fetched *f)
{
    return rd_of(f->cells.data, f->cells.len);
}

const char *fetched_next(struct rd *r, size_t *n)
{
    *n = rd_u32(r);
    if (*n == UINT32_MAX || r->failed) {
        *n = 0;
        return NULL;
    }
    return (const char *)rd_bytes(r, *n + 1);
}

enum err shell_fetch(struct shell *sh, const char *sql, const char *const *params,
                     uint32_t n_params, struct fetched *f)
{
    struct conn_handler h = fetched_handler(f);
    return shell_query(sh, sql, params, n_params, &h);
}

static enum err status(struct shell *sh, const struct conn_handler *h)
{
    running = sh->conn;
    enum err err = conn_status(sh->conn, h);
    running = NULL;
    if (err != ERR_OK)
        shell_complain(sh, "%s", conn_error(sh->conn)->message);
    return err;
}

enum err shell_fetch_status(struct shell *sh, struct fetched *f)
{
    struct conn_handler h = fetched_handler(f);
    return status(sh, &h);
}

void shell_status(struct shell *sh)
{
    struct print_settings s = sh->print;
    s.headers = true;
    if (s.mode == PRINT_LIST)
        s.mode = PRINT_COLUMN;
    struct printer *p = printer_new(&s, sh->out);
    if (p == NULL) {
        shell_complain(sh, "out of memory");
        return;
    }
    struct conn_handler h = printer_handler(p);
    enum err err = status(sh, &h);
    printer_end(p, err == ERR_OK);
}
