/* Room: client.   Thread: one.   Owns: a directory until the copy is whole; the copy's connection.
 *
 * A transaction of a session has limits of time and of bytes, and holds up the leader's upkeep. A
 * copy has none: it costs its size on this machine's disk for as long as it is read.
 *
 * Invariant: the file has no name when it is read, so whatever ends us leaves nothing. */
#include "client/shell_copy.h"

#include "client/shell_progress.h"

#include <errno.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct shell_copy {
    struct shell *sh;
    sqlite3 *db;
    char dir[PATH_MAX], file[PATH_MAX + 8];
};

static int on_progress(void *arg, uint64_t done, uint64_t total)
{
    progress_show(arg, done, total, NULL, done, "the copy");
    return shell_interrupted != 0;
}

static bool export_to(struct shell_copy *c)
{
    struct progress p;
    progress_init(&p);
    int rc = lectern_export(c->sh->db, c->file, on_progress, &p);
    progress_clear(&p);
    if (rc != LECTERN_OK)
        shell_complain(c->sh, "%s", lectern_errmsg(c->sh->db));
    return rc == LECTERN_OK;
}

/* Opens the file and reads from it, so that SQLite needs its name no more. */
static bool open_copy(struct shell_copy *c)
{
    int rc =
        sqlite3_open_v2(c->file, &c->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_PRIVATECACHE, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c->db,
                          "PRAGMA trusted_schema=OFF; BEGIN; SELECT count(*) FROM sqlite_schema",
                          NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        shell_complain(c->sh, "cannot read the copy in %s: %s", c->dir, sqlite3_errmsg(c->db));
    return rc == SQLITE_OK;
}

struct shell_copy *shell_copy_open(struct shell *sh, const char *dir)
{
    struct shell_copy *c = calloc(1, sizeof *c);
    if (c == NULL) {
        shell_complain(sh, "out of memory");
        return NULL;
    }
    c->sh = sh;
    int n = snprintf(c->dir, sizeof c->dir, "%s/.lectern-dump-XXXXXX", dir);
    if (n >= (int)sizeof c->dir || mkdtemp(c->dir) == NULL) {
        shell_complain(sh, "cannot make a copy in %s: %s", dir,
                       strerror(n >= (int)sizeof c->dir ? ENAMETOOLONG : errno));
        free(c);
        return NULL;
    }
    (void)snprintf(c->file, sizeof c->file, "%s/db", c->dir);
    bool fine = export_to(c) && open_copy(c);
    (void)unlink(c->file);
    (void)rmdir(c->dir);
    if (fine)
        return c;
    shell_copy_close(c);
    return NULL;
}

void shell_copy_close(struct shell_copy *c)
{
    if (c == NULL)
        return;
    (void)sqlite3_close(c->db);
    free(c);
}

/* --- asking it -------------------------------------------------------------------------------- */

_Static_assert(SQLITE_INTEGER == LECTERN_INTEGER && SQLITE_FLOAT == LECTERN_FLOAT &&
                   SQLITE_TEXT == LECTERN_TEXT && SQLITE_BLOB == LECTERN_BLOB &&
                   SQLITE_NULL == LECTERN_NULL,
               "types of values have the same numbers");

static enum err take_value(sqlite3_stmt *stmt, int i, struct shell_value *v)
{
    v->type = sqlite3_column_type(stmt, i);
    if (v->type == SQLITE_INTEGER)
        v->integer = sqlite3_column_int64(stmt, i);
    else if (v->type == SQLITE_FLOAT)
        v->real = sqlite3_column_double(stmt, i);
    if (v->type != SQLITE_TEXT && v->type != SQLITE_BLOB)
        return ERR_OK;
    v->text.bytes = v->type == SQLITE_TEXT ? (const char *)sqlite3_column_text(stmt, i)
                                           : sqlite3_column_blob(stmt, i);
    v->text.len = (uint32_t)sqlite3_column_bytes(stmt, i);
    if (v->text.bytes == NULL && v->text.len > 0)
        return err_fail(ERR_NOMEM, "out of memory");
    if (v->text.bytes == NULL)
        v->text.bytes = ""; /* an empty one */
    return ERR_OK;
}

static enum err hand_rows(struct shell_copy *c, sqlite3_stmt *stmt, const struct shell_handler *h)
{
    int n = sqlite3_column_count(stmt), rc;
    enum err e = ERR_OK;
    struct shell_value *values = calloc(n < 1 ? 1 : (size_t)n, sizeof *values);
    if (values == NULL)
        return err_fail(ERR_NOMEM, "out of memory");
    while (e == ERR_OK && (rc = sqlite3_step(stmt)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW)
            e = err_fail(ERR_CORRUPT, "the copy: %s", sqlite3_errmsg(c->db));
        else if (shell_interrupted != 0)
            e = err_fail(ERR_CANCELLED, "interrupted");
        for (int i = 0; i < n && e == ERR_OK; i++)
            e = take_value(stmt, i, &values[i]);
        if (e == ERR_OK)
            e = h->row(h->arg, values, (uint32_t)n);
    }
    free(values);
    return e;
}

static enum err query(void *arg, const char *sql, const char *param, const struct shell_handler *h)
{
    struct shell_copy *c = arg;
    sqlite3_stmt *stmt = NULL;
    enum err e = ERR_OK;
    int rc = sqlite3_prepare_v2(c->db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK && param != NULL)
        rc = sqlite3_bind_text(stmt, 1, param, -1, SQLITE_STATIC);
    if (rc != SQLITE_OK)
        e = err_fail(ERR_SQL, "the copy: %s", sqlite3_errmsg(c->db));
    if (e == ERR_OK)
        e = hand_rows(c, stmt, h);
    if (e != ERR_OK)
        shell_complain(c->sh, "%s", err_text());
    (void)sqlite3_finalize(stmt);
    return e;
}

struct dump_source shell_copy_source(struct shell_copy *c)
{
    return (struct dump_source){.query = query, .arg = c};
}
