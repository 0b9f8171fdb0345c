/* Room: client.   Thread: one.   Owns: nothing.
 *
 * The order and the format are those of sqlite3's .dump: tables with their rows first
 * (sqlite_sequence last), then indexes, triggers and views, so that rows are loaded fast and
 * without side effects. A virtual table is written into the schema as it stands, and its shadow
 * tables with their rows: that is the only way back for all kinds of them, and needs sqlite3, not
 * Lectern (writable_schema).
 *
 * Invariants: memory holds the schema and one block of rows, never a table. */
#include "client/shell_dump.h"

#include "base/buf.h"
#include "base/sizes.h"
#include "client/shell_literal.h"
#include "client/shell_run.h"

#include <stdlib.h>
#include <string.h>

struct dump {
    struct shell *sh;
    const struct dump_source *from;
    FILE *out;
    bool virtual_tables; /* writable_schema is on in the text */
    bool failed;
};

static enum err fetch(struct dump *d, const char *sql, const char *param, struct fetched *f)
{
    struct shell_handler h = fetched_handler(f);
    return d->from->query(d->from->arg, sql, param, &h);
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* A name quoted for use in SQL, at the end of B. */
static void add_name(struct buf *b, const char *name)
{
    buf_put_u8(b, '"');
    for (; *name != '\0'; name++) {
        buf_put(b, name, 1);
        if (*name == '"')
            buf_put_u8(b, '"');
    }
    buf_put_u8(b, '"');
}

/* SELECT of all columns that can be inserted: no generated and no hidden ones. */
static enum err make_select(struct dump *d, const char *table, struct buf *sql)
{
    struct fetched f;
    fetched_init(&f);
    enum err err = fetch(d, "SELECT name FROM pragma_table_info(?1) ORDER BY cid", table, &f);
    struct rd r = fetched_cells(&f);
    buf_printf(sql, "SELECT ");
    for (uint64_t i = 0; err == ERR_OK && i < f.rows; i++) {
        size_t n;
        const char *name = fetched_next(&r, &n);
        if (i > 0)
            buf_put_u8(sql, ',');
        add_name(sql, name != NULL ? name : "");
    }
    if (err == ERR_OK && f.rows == 0) {
        shell_complain(d->sh, "table %s has no columns", table);
        err = ERR_NOT_FOUND;
    }
    buf_printf(sql, " FROM ");
    add_name(sql, table);
    buf_put_u8(sql, 0);
    fetched_fini(&f);
    return err == ERR_OK ? buf_status(sql) : err;
}

struct rows {
    FILE *out;
    const char *table;
};

static enum err put_row(void *arg, const struct shell_value *v, uint32_t n)
{
    const struct rows *r = arg;
    (void)fputs("INSERT INTO ", r->out);
    literal_put_name(r->out, r->table, strlen(r->table));
    for (uint32_t i = 0; i < n; i++) {
        (void)fputs(i == 0 ? " VALUES(" : ",", r->out);
        literal_put(r->out, &v[i], true);
    }
    (void)fputs(");\n", r->out);
    return ferror(r->out) ? err_fail(ERR_IO, "cannot write the output") : ERR_OK;
}

static void dump_rows(struct dump *d, const char *table)
{
    struct rows rows = {.out = d->out, .table = table};
    struct shell_handler h = {.row = put_row, .arg = &rows};
    struct buf sql;
    buf_init(&sql, SQL_TEXT_MAX);
    if (make_select(d, table, &sql) != ERR_OK ||
        d->from->query(d->from->arg, (const char *)sql.data, NULL, &h) != ERR_OK)
        d->failed = true;
    buf_fini(&sql);
}

static void dump_virtual(struct dump *d, const char *name, const char *sql)
{
    if (!d->virtual_tables)
        (void)fputs("PRAGMA writable_schema=ON;\n", d->out);
    d->virtual_tables = true;
    (void)fputs("INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table',",
                d->out);
    literal_put_text(d->out, name, strlen(name));
    (void)putc(',', d->out);
    literal_put_text(d->out, name, strlen(name));
    (void)fputs(",0,", d->out);
    literal_put_text(d->out, sql, strlen(sql));
    (void)fputs(");\n", d->out);
}

static void dump_table(struct dump *d, const char *name, const char *sql)
{
    if (strcmp(name, "sqlite_sequence") == 0) {
        (void)fputs("DELETE FROM sqlite_sequence;\n", d->out);
    } else if (starts(name, "sqlite_stat") && strlen(name) == strlen("sqlite_stat1")) {
        (void)fputs("ANALYZE sqlite_schema;\n", d->out);
    } else if (starts(name, "sqlite_")) {
        return;
    } else if (starts(sql, "CREATE VIRTUAL TABLE")) {
        dump_virtual(d, name, sql);
        return;
    } else if (starts(sql, "CREATE TABLE '") || starts(sql, "CREATE TABLE \"")) {
        /* A shadow table may be there already when its virtual table made it. */
        (void)fprintf(d->out, "CREATE TABLE IF NOT EXISTS %s;\n", sql + strlen("CREATE TABLE "));
    } else {
        (void)fprintf(d->out, "%s;\n", sql);
    }
    dump_rows(d, name);
}

/* Which schema entries are wanted; the pattern is bound as ?1. */
#define WANTED                                                                                     \
    "(?1 = '' OR name LIKE ?1 ESCAPE '\\' OR tbl_name LIKE ?1 ESCAPE '\\' OR EXISTS (SELECT 1 "    \
    "FROM sqlite_schema v WHERE v.name LIKE ?1 ESCAPE '\\' AND v.sql LIKE 'CREATE VIRTUAL "        \
    "TABLE%' AND substr(o.name, 1, length(v.name) + 1) = v.name || '_'))"

static void dump_tables(struct dump *d, const char *pattern)
{
    struct fetched f;
    fetched_init(&f);
    if (fetch(d,
              "SELECT name, sql FROM sqlite_schema AS o WHERE type = 'table' AND sql NOT "
              "NULL AND " WANTED " ORDER BY tbl_name = 'sqlite_sequence', rowid",
              pattern, &f) != ERR_OK)
        d->failed = true;
    struct rd r = fetched_cells(&f);
    for (uint64_t i = 0; i < f.rows && !d->failed; i++) {
        size_t n;
        const char *name = fetched_next(&r, &n), *sql = fetched_next(&r, &n);
        if (name != NULL && sql != NULL)
            dump_table(d, name, sql);
    }
    fetched_fini(&f);
}

static void dump_others(struct dump *d, const char *pattern)
{
    struct fetched f;
    fetched_init(&f);
    if (fetch(d,
              "SELECT sql FROM sqlite_schema AS o WHERE sql NOT NULL AND type IN ('index', "
              "'trigger', 'view') AND " WANTED " ORDER BY rowid",
              pattern, &f) != ERR_OK)
        d->failed = true;
    struct rd r = fetched_cells(&f);
    for (uint64_t i = 0; i < f.rows && !d->failed; i++) {
        size_t n;
        const char *sql = fetched_next(&r, &n);
        (void)fprintf(d->out, "%s;\n", sql == NULL ? "" : sql);
    }
    fetched_fini(&f);
}

bool shell_dump_from(struct shell *sh, const struct dump_source *from, char *const *patterns, int n)
{
    struct dump d = {.sh = sh, .from = from, .out = sh->out};
    (void)fputs("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", d.out);
    for (int i = 0; i < n || i == 0; i++)
        dump_tables(&d, n == 0 ? "" : patterns[i]);
    for (int i = 0; (i < n || i == 0) && !d.failed; i++)
        dump_others(&d, n == 0 ? "" : patterns[i]);
    if (d.virtual_tables)
        (void)fputs("PRAGMA writable_schema=OFF;\n", d.out);
    (void)fputs(d.failed ? "ROLLBACK; -- due to errors\n" : "COMMIT;\n", d.out);
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
