/* Room: client.   Thread: one.   Owns: nothing.
 * Invariants: memory holds the schema, one block of rows and the text of one row, never a table.
 * Not here: what is written, and how (sql_dump.h). */
#include "client/shell_dump.h"

#include "base/buf.h"
#include "base/sizes.h"
#include "client/shell_literal.h"
#include "client/shell_run.h"
#include "client/sql_dump.h"

struct dump {
    const struct dump_source *from;
    FILE *out;
    struct sql_dump text;
    struct buf room; /* of the text that is not written yet */
    bool failed;
};

/* Writes what there is of the text. */
static enum err write_out(struct dump *d)
{
    TRY(buf_status(&d->room));
    (void)fwrite(d->room.data, 1, d->room.len, d->out);
    buf_reset(&d->room);
    return ferror(d->out) ? err_fail(ERR_IO, "cannot write the output") : ERR_OK;
}

static enum err fetch(struct dump *d, const char *sql, const char *pattern, struct fetched *f)
{
    struct shell_handler h = fetched_handler(f);
    return d->from->query(d->from->arg, sql, pattern, &h);
}

static enum err put_row(void *arg, const struct shell_value *v, uint32_t n)
{
    struct dump *d = arg;
    for (uint32_t i = 0; i < n; i++) {
        struct wire_value value = literal_of(&v[i]);
        sql_dump_value(&d->text, i, &value);
    }
    sql_dump_end_row(&d->text);
    return write_out(d);
}

/* Which schema entries are wanted; the pattern is bound as ?1. */
#define WANTED                                                                                     \
    "AND (?1 = '' OR name LIKE ?1 ESCAPE '\\' OR tbl_name LIKE ?1 ESCAPE '\\' OR EXISTS (SELECT "  \
    "1 "                                                                                           \
    "FROM sqlite_schema v WHERE v.name LIKE ?1 ESCAPE '\\' AND v.sql LIKE 'CREATE VIRTUAL "        \
    "TABLE%' AND substr(o.name, 1, length(v.name) + 1) = v.name || '_'))"

static struct sql_text next_text(struct rd *r)
{
    struct sql_text t;
    t.p = fetched_next(r, &t.n);
    return t;
}

static void dump_tables(struct dump *d, const char *pattern)
{
    const struct shell_handler rows = {.row = put_row, .arg = d};
    struct fetched f;
    fetched_init(&f);
    d->failed = fetch(d, SQL_DUMP_TABLES(WANTED), pattern, &f) != ERR_OK;
    struct rd r = fetched_cells(&f);
    for (uint64_t i = 0; i < f.rows && !d->failed; i++) {
        struct sql_text name = next_text(&r), sql = next_text(&r), select = next_text(&r);
        if (sql_dump_table(&d->text, name, sql) && select.n > 0)
            d->failed = d->from->query(d->from->arg, select.p, NULL, &rows) != ERR_OK;
    }
    fetched_fini(&f);
}

static void dump_others(struct dump *d, const char *pattern)
{
    struct fetched f;
    fetched_init(&f);
    d->failed = fetch(d, SQL_DUMP_OTHERS(WANTED), pattern, &f) != ERR_OK;
    struct rd r = fetched_cells(&f);
    for (uint64_t i = 0; i < f.rows && !d->failed; i++)
        sql_dump_other(&d->text, next_text(&r));
    fetched_fini(&f);
}

bool shell_dump_from(struct shell *sh, const struct dump_source *from, char *const *patterns, int n)
{
    struct dump d = {.from = from, .out = sh->out};
    buf_init(&d.room, SIZE_MAX);
    sql_dump_begin(&d.text, &d.room);
    for (int i = 0; (i < n || i == 0) && !d.failed; i++)
        dump_tables(&d, n == 0 ? "" : patterns[i]);
    for (int i = 0; (i < n || i == 0) && !d.failed; i++)
        dump_others(&d, n == 0 ? "" : patterns[i]);
    sql_dump_end(&d.text, !d.failed);
    if (write_out(&d) != ERR_OK && !d.failed) {
        shell_complain(sh, "%s", err_text());
        d.failed = true;
    }
    buf_fini(&d.room);
    return !d.failed;
}

static enum err query_session(void *arg, const char *sql, const char *param,
                              const struct shell_handler *h)
{
    return shell_query(arg, sql, &param, param == NULL ? 0 : 1, h);
}

void shell_dump(struct shell *sh, char *const *patterns, int n)
{
    struct dump_source from = {.query = query_session, .arg = sh};
    /* One moment for all: a read transaction, unless the user's own is open already. */
    bool own = lectern_get_autocommit(sh->db) != 0;
    if (own && shell_query(sh, "BEGIN", NULL, 0, NULL) != ERR_OK)
        return;
    (void)shell_dump_from(sh, &from, patterns, n);
    if (own && !lectern_get_autocommit(sh->db) &&
        shell_query(sh, "COMMIT", NULL, 0, NULL) != ERR_OK)
        return; /* it wrote nothing, and was complained about */
}
