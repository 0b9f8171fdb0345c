/* Room: client.   Thread: one; shell_run_interrupt in a signal handler.
 * Owns: which session Ctrl-C interrupts.
 *
 * Not here: where statements come from (shell_input.c), how rows look (shell_print.c). */
#include "client/shell_run.h"

#include "base/clock.h"
#include "base/sizes.h"
#include "client/shell_literal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The session that runs a statement, for the signal handler; NULL: none. A pointer is stored whole
 * on every machine that Lectern runs on. */
static lectern *volatile running;

bool shell_run_interrupt(void)
{
    lectern *db = running;
    if (db != NULL)
        lectern_interrupt(db);
    return db != NULL;
}

bool shell_apply_settings(struct shell *sh)
{
    int64_t ms = sh->timeout_ms == 0 ? SHELL_TIMEOUT_MS : (int64_t)sh->timeout_ms;
    uint32_t bound = sh->level == LECTERN_READ_BOUNDED ? sh->bound_ms : 0;
    if (sh->db == NULL)
        return true; /* once it is there */
    if (lectern_timeout(sh->db, ms) != LECTERN_OK ||
        lectern_read_level(sh->db, sh->level, bound) != LECTERN_OK)
        shell_complain(sh, "%s", lectern_errmsg(sh->db));
    return true;
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

static struct shell_value value_of(lectern_stmt *stmt, int column)
{
    struct shell_value v = {.type = lectern_column_type(stmt, column)};
    if (v.type == LECTERN_INTEGER)
        v.integer = lectern_column_int64(stmt, column);
    else if (v.type == LECTERN_FLOAT)
        v.real = lectern_column_double(stmt, column);
    else if (v.type == LECTERN_TEXT)
        v.text.bytes = (const char *)lectern_column_text(stmt, column);
    else if (v.type == LECTERN_BLOB)
        v.text.bytes = lectern_column_blob(stmt, column);
    if (v.type == LECTERN_TEXT || v.type == LECTERN_BLOB)
        v.text.len = (uint32_t)lectern_column_bytes(stmt, column);
    if ((v.type == LECTERN_TEXT || v.type == LECTERN_BLOB) && v.text.bytes == NULL)
        v.text.bytes = ""; /* an empty one */
    return v;
}

static enum err hand_columns(lectern_stmt *stmt, const struct shell_handler *h, uint32_t n)
{
    if (h->columns == NULL || n == 0)
        return ERR_OK;
    const char **names = calloc(n, sizeof *names);
    if (names == NULL)
        return err_fail(ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < n; i++) {
        names[i] = lectern_column_name(stmt, (int)i);
        if (names[i] == NULL)
            names[i] = "";
    }
    enum err e = h->columns(h->arg, names, n);
    free(names);
    return e;
}

static enum err hand_row(lectern_stmt *stmt, const struct shell_handler *h,
                         struct shell_value *values, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        values[i] = value_of(stmt, (int)i);
    return h->row(h->arg, values, n);
}

int shell_step_all(lectern_stmt *stmt, const struct shell_handler *h, enum err *e)
{
    struct shell_value *values = NULL;
    uint32_t n = 0;
    int rc = lectern_step(stmt);
    *e = ERR_OK;
    if (rc == LECTERN_ROW || rc == LECTERN_DONE) {
        n = (uint32_t)lectern_column_count(stmt);
        *e = hand_columns(stmt, h, n);
    }
    if (rc == LECTERN_ROW && *e == ERR_OK) {
        values = calloc(n == 0 ? 1 : n, sizeof *values);
        if (values == NULL)
            *e = err_fail(ERR_NOMEM, "out of memory");
    }
    while (rc == LECTERN_ROW && *e == ERR_OK) {
        if (h->row != NULL)
            *e = hand_row(stmt, h, values, n);
        if (*e == ERR_OK)
            rc = lectern_step(stmt);
    }
    free(values);
    return rc;
}

static void complain_about(struct shell *sh, const char *sql, size_t n)
{
    int offset = lectern_error_offset(sh->db);
    shell_complain(sh, "%s", lectern_errmsg(sh->db));
    if (sh->interactive && sql != NULL)
        show_place(sql, n, offset);
}

/* A script must not go on as if nothing had happened when no node can be reached, or when the rest
 * of its transaction would run outside of any. */
static bool ends_script(const struct shell *sh, int rc)
{
    return !sh->interactive && (rc == LECTERN_TXN_LOST || rc == LECTERN_UNAVAILABLE ||
                                rc == LECTERN_CANTOPEN || rc == LECTERN_PROTOCOL);
}

/* Runs STMT to its end and finalizes it; complains. RC: of its preparation. */
static bool run_statement(struct shell *sh, int rc, lectern_stmt *stmt, const char *sql, size_t n,
                          const struct shell_handler *h)
{
    enum err e = ERR_OK;
    running = sh->db;
    if (rc == LECTERN_OK)
        rc = shell_step_all(stmt, h, &e);
    running = NULL;
    if (e != ERR_OK)
        shell_complain(sh, "%s", err_text());
    else if (rc != LECTERN_DONE)
        complain_about(sh, sql, n);
    if (e == ERR_OK && ends_script(sh, rc))
        sh->quit = true;
    (void)lectern_finalize(stmt);
    return e == ERR_OK && rc == LECTERN_DONE;
}

static int prepare(struct shell *sh, const char *sql, size_t n, lectern_stmt **stmt)
{
    *stmt = NULL;
    return lectern_prepare_v3(sh->db, sql, n > INT32_MAX ? INT32_MAX : (int)n,
                              LECTERN_PREPARE_LAZY | LECTERN_PREPARE_ONCE, stmt, NULL);
}

static void show_extras(struct shell *sh, uint64_t ns)
{
    if (sh->changes)
        (void)fprintf(sh->out, "changes: %" PRId64 "   total_changes: %" PRId64 "\n",
                      lectern_changes(sh->db), lectern_total_changes(sh->db));
    if (sh->timer)
        (void)fprintf(sh->out, "Run Time: real %" PRIu64 ".%03" PRIu64 "\n", ns / 1000000000u,
                      ns / 1000000u % 1000u);
}

void shell_run(struct shell *sh, const char *sql, size_t n)
{
    lectern_stmt *stmt;
    enum err e = ERR_OK;
    if (sh->echo)
        (void)fprintf(sh->out, "%.*s\n", (int)n, sql);
    struct printer *p = printer_new(&sh->print, sh->out);
    if (p == NULL) {
        shell_complain(sh, "out of memory");
        return;
    }
    struct shell_handler h = printer_handler(p);
    uint64_t begun = clock_mono_ns();
    running = sh->db;
    int rc = prepare(sh, sql, n, &stmt);
    if (rc == LECTERN_OK)
        rc = shell_step_all(stmt, &h, &e);
    running = NULL;
    bool fine = e == ERR_OK && rc == LECTERN_DONE;
    uint64_t ns = clock_mono_ns() - begun;
    printer_end(p, fine);
    if (fine)
        show_extras(sh, ns);
    if (fflush(sh->out) != 0 && fine)
        shell_complain(sh, "cannot write the output");
    if (e != ERR_OK)
        shell_complain(sh, "%s", err_text());
    else if (!fine)
        complain_about(sh, sql, n);
    if (!fine && e == ERR_OK && ends_script(sh, rc))
        sh->quit = true;
    (void)lectern_finalize(stmt);
    if (sh->out_once)
        shell_output_reset(sh);
}

enum err shell_query(struct shell *sh, const char *sql, const char *const *params,
                     uint32_t n_params, const struct shell_handler *h)
{
    static const struct shell_handler nothing;
    lectern_stmt *stmt;
    int rc = prepare(sh, sql, strlen(sql), &stmt);
    for (uint32_t i = 0; i < n_params && rc == LECTERN_OK; i++)
        rc = lectern_bind_text(stmt, (int)i + 1, params[i], -1, LECTERN_STATIC);
    bool fine = run_statement(sh, rc, stmt, sql, strlen(sql), h == NULL ? &nothing : h);
    return fine ? ERR_OK : ERR_SQL;
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

static enum err fetch_columns(void *arg, const char *const *names, uint32_t n)
{
    struct fetched *f = arg;
    f->columns = n;
    for (uint32_t i = 0; i < n && i < 32; i++)
        (void)snprintf(f->names[i], sizeof f->names[i], "%.31s", names[i]);
    return ERR_OK;
}

static enum err fetch_row(void *arg, const struct shell_value *v, uint32_t n)
{
    struct fetched *f = arg;
    for (uint32_t i = 0; i < n; i++) {
        char number[LITERAL_NUMBER_MAX];
        if (v[i].type == LECTERN_NULL) {
            buf_put_u32(&f->cells, UINT32_MAX);
            continue;
        }
        if (v[i].type == LECTERN_INTEGER || v[i].type == LECTERN_FLOAT) {
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

struct shell_handler fetched_handler(struct fetched *f)
{
    return (struct shell_handler){.columns = fetch_columns, .row = fetch_row, .arg = f};
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
    struct shell_handler h = fetched_handler(f);
    return shell_query(sh, sql, params, n_params, &h);
}

static bool status(struct shell *sh, const struct shell_handler *h)
{
    lectern_stmt *stmt = NULL;
    int rc = lectern_prepare_status(sh->db, &stmt);
    return run_statement(sh, rc, stmt, NULL, 0, h);
}

enum err shell_fetch_status(struct shell *sh, struct fetched *f)
{
    struct shell_handler h = fetched_handler(f);
    return status(sh, &h) ? ERR_OK : ERR_SQL;
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
    struct shell_handler h = printer_handler(p);
    bool fine = status(sh, &h);
    printer_end(p, fine);
}
