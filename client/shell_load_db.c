/* Room: client.   Thread: one.   Owns: the connection to the file, its schema.
 *
 *     look at the file, count --> look at the cluster: nothing of it is there --> tables, all in
 * one batch --> rows, in batches --> sqlite_sequence, statistics --> indexes, triggers, views
 *     --> user_version --> counts compared, foreign keys checked
 *
 * Invariants: nothing is written before everything that can be judged was judged; the file is read
 * in one transaction, so it is one state. Indexes come after the rows, for speed, triggers so that
 * they do nothing while rows are loaded.
 *
 * Not here: what the file holds (shell_load_schema.c). */
#include "client/shell_load.h"

#include "client/shell_load_batch.h"
#include "client/shell_load_schema.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

struct source {
    struct load *load;
    sqlite3 *db;
    struct schema schema;
};

static enum err no_memory(void)
{
    return err_fail(ERR_NOMEM, "out of memory");
}

static enum err open_source(struct source *s)
{
    const char *file = s->load->file;
    int rc = sqlite3_open_v2(file, &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_PRIVATECACHE, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(s->db, "PRAGMA trusted_schema=OFF; BEGIN", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        return err_fail(ERR_IO, "cannot open %s: %s", file, sqlite3_errmsg(s->db));
    (void)sqlite3_busy_timeout(s->db, 10000);
    return schema_read(s->db, file, &s->schema);
}

/* --- the cluster before ------------------------------------------------------------------------
 */

/* Nothing of the file may be there yet: tables, indexes, triggers and views share their names. */
static enum err check_target(struct source *s)
{
    struct load *l = s->load;
    lectern_stmt *stmt = NULL;
    enum err e = ERR_OK;
    int rc = lectern_prepare_v3(l->db, "SELECT type, name FROM sqlite_schema", -1,
                                LECTERN_PREPARE_LAZY | LECTERN_PREPARE_ONCE, &stmt, NULL);
    if (rc != LECTERN_OK)
        return load_failed(l, rc, "the schema of the cluster");
    while (e == ERR_OK && (rc = lectern_step(stmt)) == LECTERN_ROW) {
        const char *type = (const char *)lectern_column_text(stmt, 0);
        const char *name = (const char *)lectern_column_text(stmt, 1);
        if (type == NULL || name == NULL) {
            e = no_memory();
            break;
        }
        for (unsigned i = 0; i < s->schema.n; i++)
            if (s->schema.objects[i].kind != OBJECT_INTERNAL &&
                sqlite3_stricmp(s->schema.objects[i].name, name) == 0)
                e = err_fail(ERR_MISUSE,
                             "the cluster has a %s %s already, and so has %s: nothing was loaded. "
                             "Drop or rename it first",
                             type, name, l->file);
    }
    if (e == ERR_OK && rc != LECTERN_DONE)
        e = load_failed(l, rc, "the schema of the cluster");
    (void)lectern_finalize(stmt);
    return e;
}

/* --- tables, rows ------------------------------------------------------------------------------
 */

/* All of them, or none. */
static enum err make_tables(struct source *s)
{
    struct load *l = s->load;
    struct load_batch *b = load_batch_new(l);
    enum err e = b == NULL ? no_memory() : ERR_OK;
    unsigned i = 0;
    for (; e == ERR_OK && i < s->schema.n; i++) {
        const struct object *o = &s->schema.objects[i];
        bool made =
            o->kind == OBJECT_TABLE || o->kind == OBJECT_VIRTUAL || o->kind == OBJECT_REBUILT;
        if (made && o->sql != NULL)
            e = load_batch_add_sql(b, o->sql, strlen(o->sql), i);
    }
    if (e == ERR_OK)
        e = load_batch_flush(b);
    if (e != ERR_OK && b != NULL) {
        char why[ERR_TEXT_MAX];
        (void)snprintf(why, sizeof why, "%s", err_text());
        e = err_fail(e, "%s: %s", s->schema.objects[load_batch_place(b)].name, why);
    }
    load_batch_free(b);
    return e;
}

/* Value COLUMN of the file's row as parameter COLUMN + 1; *bytes grows. */
static int bind_value(lectern_stmt *to, sqlite3_stmt *from, int column, size_t *bytes)
{
    int n;
    const void *p;
    switch (sqlite3_column_type(from, column)) {
    case SQLITE_INTEGER:
        *bytes += 8;
        return lectern_bind_int64(to, column + 1, sqlite3_column_int64(from, column));
    case SQLITE_FLOAT:
        *bytes += 8;
        return lectern_bind_double(to, column + 1, sqlite3_column_double(from, column));
    case SQLITE_TEXT:
        p = sqlite3_column_text(from, column);
        n = sqlite3_column_bytes(from, column);
        *bytes += (size_t)n;
        if (p == NULL)
            return LECTERN_NOMEM;
        return lectern_bind_text(to, column + 1, p, n, LECTERN_STATIC);
    case SQLITE_BLOB:
        p = sqlite3_column_blob(from, column);
        n = sqlite3_column_bytes(from, column);
        *bytes += (size_t)n;
        if (p == NULL && n > 0)
            return LECTERN_NOMEM;
        if (n == 0) /* a NULL pointer would be a NULL value */
            return lectern_bind_zeroblob(to, column + 1, 0);
        return lectern_bind_blob(to, column + 1, p, n, LECTERN_STATIC);
    default:
        *bytes += 1;
        return lectern_bind_null(to, column + 1);
    }
}

static enum err row_failed(const struct object *o, uint64_t row, enum err e)
{
    char why[ERR_TEXT_MAX];
    (void)snprintf(why, sizeof why, "%s", err_text());
    return err_fail(e, "%s, row %" PRIu64 ": %s", o->name, row, why);
}

static enum err copy_rows(struct source *s, const struct object *o, sqlite3_stmt *from,
                          lectern_stmt *to, struct load_batch *b)
{
    struct load *l = s->load;
    uint64_t row = 0, rows = l->rows, bytes = l->bytes;
    int rc;
    while ((rc = sqlite3_step(from)) == SQLITE_ROW) {
        size_t size = 0;
        int bound = LECTERN_OK;
        row++;
        for (int i = 0; i < o->columns && bound == LECTERN_OK; i++)
            bound = bind_value(to, from, i, &size);
        if (bound != LECTERN_OK)
            return row_failed(o, row, load_failed(l, bound, ""));
        enum err e = load_batch_add(b, to, size, row);
        l->rows = rows + load_batch_done(b);
        l->bytes = bytes + load_batch_bytes(b);
        if (e != ERR_OK)
            return row_failed(o, load_batch_place(b), e);
        progress_show(&l->progress, l->rows, l->total, "rows", l->bytes, o->name);
    }
    if (rc != SQLITE_DONE)
        return row_failed(o, row + 1, schema_source_failed(s->db, l->file, ""));
    enum err e = load_batch_flush(b);
    l->rows = rows + load_batch_done(b);
    l->bytes = bytes + load_batch_bytes(b);
    return e == ERR_OK ? ERR_OK : row_failed(o, load_batch_place(b), e);
}

static enum err load_table(struct source *s, const struct object *o)
{
    struct load *l = s->load;
    sqlite3_stmt *from = NULL;
    lectern_stmt *to = NULL;
    struct load_batch *b = load_batch_new(l);
    enum err e = b == NULL ? no_memory() : ERR_OK;
    if (e == ERR_OK && sqlite3_prepare_v2(s->db, o->select, -1, &from, NULL) != SQLITE_OK)
        e = schema_source_failed(s->db, l->file, o->name);
    if (e == ERR_OK) {
        int rc = lectern_prepare_v3(l->db, o->insert, -1, LECTERN_PREPARE_LAZY, &to, NULL);
        e = rc == LECTERN_OK ? ERR_OK : load_failed(l, rc, o->name);
    }
    if (e == ERR_OK)
        e = copy_rows(s, o, from, to, b);
    if (e == ERR_OK)
        l->tables++;
    (void)lectern_finalize(to);
    (void)sqlite3_finalize(from);
    load_batch_free(b);
    return e;
}

static enum err load_tables(struct source *s)
{
    for (unsigned i = 0; i < s->schema.n; i++)
        if (s->schema.objects[i].select != NULL)
            TRY(load_table(s, &s->schema.objects[i]));
    return ERR_OK;
}

/* --- after the rows ----------------------------------------------------------------------------
 */

static enum err copy_internal(struct source *s, const char *name, const char *select,
                              const char *insert, int columns)
{
    struct load *l = s->load;
    struct object o = {.columns = columns};
    uint64_t rows = l->rows, bytes = l->bytes;
    o.name = sqlite3_mprintf("%s", name);
    o.select = sqlite3_mprintf("%s", select);
    o.insert = sqlite3_mprintf("%s", insert);
    enum err e =
        o.name == NULL || o.select == NULL || o.insert == NULL ? no_memory() : load_table(s, &o);
    if (e == ERR_OK)
        l->tables--; /* not the user's */
    l->rows = rows;
    l->bytes = bytes;
    sqlite3_free(o.name);
    sqlite3_free(o.select);
    sqlite3_free(o.insert);
    return e;
}

/* What AUTOINCREMENT gives next; the names of the loaded tables alone, others keep theirs. */
static enum err load_sequence(struct source *s)
{
    if (!s->schema.has_sequence)
        return ERR_OK;
    TRY(copy_internal(s, "sqlite_sequence",
                      "SELECT name FROM main.sqlite_sequence AS q WHERE EXISTS (SELECT 1 FROM "
                      "main.sqlite_schema WHERE type = 'table' AND name = q.name)",
                      "DELETE FROM sqlite_sequence WHERE name = ?1", 1));
    return copy_internal(s, "sqlite_sequence",
                         "SELECT name, seq FROM main.sqlite_sequence AS q WHERE EXISTS (SELECT 1 "
                         "FROM main.sqlite_schema WHERE type = 'table' AND name = q.name)",
                         "INSERT INTO sqlite_sequence(name, seq) VALUES(?1, ?2)", 2);
}

/* The planner's statistics; ANALYZE of one table of the schema makes the table that holds them. */
static enum err load_statistics(struct source *s)
{
    if (!s->schema.has_stat)
        return ERR_OK;
    TRY(load_run(s->load, "ANALYZE sqlite_schema", "ANALYZE sqlite_schema"));
    return copy_internal(s, "sqlite_stat1", "SELECT tbl, idx, stat FROM main.sqlite_stat1",
                         "INSERT INTO sqlite_stat1(tbl, idx, stat) VALUES(?1, ?2, ?3)", 3);
}

static enum err rebuild(struct source *s, const struct object *o)
{
    char *sql = sqlite3_mprintf("INSERT INTO \"%w\"(\"%w\") VALUES('rebuild')", o->name, o->name);
    enum err e = sql == NULL ? no_memory() : load_run(s->load, sql, o->name);
    sqlite3_free(sql);
    return e;
}

static enum err make_the_rest(struct source *s)
{
    struct load *l = s->load;
    for (unsigned i = 0; i < s->schema.n; i++) {
        const struct object *o = &s->schema.objects[i];
        progress_show(&l->progress, l->rows, l->total, "rows", l->bytes, o->name);
        if (o->kind == OBJECT_REBUILT)
            TRY(rebuild(s, o));
        else if (o->kind == OBJECT_LATER && o->sql != NULL)
            TRY(load_run(l, o->sql, o->name));
    }
    return ERR_OK;
}

static enum err set_number(struct source *s, const char *pragma, int64_t value)
{
    char sql[128];
    if (value == 0) /* the default; another one that is set there stays */
        return ERR_OK;
    (void)snprintf(sql, sizeof sql, "PRAGMA %s = %" PRId64, pragma, value);
    return load_run(s->load, sql, pragma);
}

static enum err check_counts(struct source *s)
{
    for (unsigned i = 0; i < s->schema.n; i++) {
        const struct object *o = &s->schema.objects[i];
        if (o->select == NULL)
            continue;
        int64_t found = 0;
        char *sql = sqlite3_mprintf("SELECT count(*) FROM \"%w\"", o->name);
        enum err e = sql == NULL ? no_memory() : load_ask_number(s->load, sql, o->name, &found);
        sqlite3_free(sql);
        TRY(e);
        if (found >= 0 && (uint64_t)found != o->rows)
            return err_fail(ERR_DIVERGED,
                            "%s has %" PRId64 " rows in the cluster, and %" PRIu64
                            " in the file: did somebody else write to it meanwhile?",
                            o->name, found, o->rows);
    }
    return ERR_OK;
}

/* --- all of it ---------------------------------------------------------------------------------
 */

static enum err load_all(struct source *s)
{
    TRY(make_tables(s));
    TRY(load_tables(s));
    TRY(load_sequence(s));
    TRY(make_the_rest(s));
    TRY(load_statistics(s));
    TRY(set_number(s, "user_version", s->schema.user_version));
    TRY(set_number(s, "application_id", s->schema.application_id));
    return check_counts(s);
}

/* --atomic: a leader that is lost takes the transaction with it, and it is begun again. */
static enum err load_as_one(struct source *s)
{
    struct load *l = s->load;
    for (unsigned tries = 1;; tries++) {
        enum err e = load_begin(l);
        if (e == ERR_OK)
            e = load_end(l, load_all(s));
        if (e != ERR_TXN_LOST || tries == LOAD_TXN_TRIES)
            return e;
        l->tables = l->rows = l->bytes = 0;
    }
}

enum err load_db(struct load *l)
{
    struct source s = {.load = l};
    enum err e = open_source(&s);
    if (e == ERR_OK)
        e = check_target(&s);
    l->total = s.schema.rows;
    l->began = e == ERR_OK;
    if (e == ERR_OK)
        e = l->atomic ? load_as_one(&s) : load_all(&s);
    schema_fini(&s.schema);
    (void)sqlite3_close(s.db);
    return e;
}
