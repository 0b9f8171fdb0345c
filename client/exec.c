/* Room: client.   Thread: under the cluster's lock.   Owns: the messages it gives away.
 *
 * One round trip for each statement: they are not described first, but sent as they are.
 *
 * Not here: where a statement ends (sql_split.c). */
#include "client/codes.h"
#include "client/sql_split.h"
#include "client/statement.h"

#include <stdlib.h>
#include <string.h>

typedef int (*exec_row)(void *arg, int n, char **values, char **names);

/* SQLite's callback has no const; nobody writes through it. */
static char *without_const(const void *p)
{
    char *q;
    memcpy(&q, &p, sizeof q);
    return q;
}

/* CELLS: room for names and values of all columns, each list ended by NULL. */
static int call_back(struct lectern_stmt *s, char **cells, exec_row row, void *arg)
{
    struct lectern *db = s->handle.db;
    char **names = cells, **values = cells + s->n_columns + 1;
    for (uint32_t i = 0; i < s->n_columns; i++) {
        names[i] = without_const(s->columns[i].name);
        values[i] = without_const(lectern_column_text(s, (int)i));
        if (values[i] == NULL && s->cells[i].v.type != WIRE_NULL)
            return session_fail(db, LECTERN_NOMEM, "%s", "");
    }
    names[s->n_columns] = values[s->n_columns] = NULL;
    unsigned levels = cluster_release(db->cluster); /* nobody else knows S */
    int stop = row(arg, (int)s->n_columns, values, names);
    cluster_regain(db->cluster, levels);
    if (stop != 0)
        return session_fail(db, LECTERN_ABORT, "%s", "");
    return LECTERN_OK;
}

static int run_one(struct lectern_stmt *s, exec_row row, void *arg)
{
    struct lectern *db = s->handle.db;
    char **cells = NULL;
    int code;
    while ((code = statement_step(s)) == LECTERN_ROW) {
        if (row == NULL)
            continue;
        if (cells == NULL)
            cells = calloc(2 * ((size_t)s->n_columns + 1), sizeof *cells);
        code = cells == NULL ? session_fail(db, LECTERN_NOMEM, "%s", "")
                             : call_back(s, cells, row, arg);
        if (code != LECTERN_OK)
            break;
    }
    free(cells);
    return code == LECTERN_DONE ? LECTERN_OK : code;
}

int statement_exec(struct lectern *db, const char *sql, exec_row row, void *arg)
{
    size_t left = strlen(sql);
    for (size_t n; (n = sql_split_first(sql, left)) != 0; sql += n, left -= n) {
        if (n > SQL_TEXT_MAX)
            return session_fail(db, LECTERN_TOOBIG,
                                "a statement has up to %llu bytes, this one %zu", SQL_TEXT_MAX, n);
        struct lectern_stmt *s = statement_new_lazy(db, sql, n);
        if (s == NULL)
            return session_fail(db, LECTERN_NOMEM, "%s", "");
        int code = run_one(s, row, arg);
        /* Finalizing says how the statement ended, which is not all: the callback's no, no memory.
         */
        struct last_error e;
        session_save_error(db, &e);
        (void)statement_finalize(s);
        (void)session_restore_error(db, &e);
        if (code != LECTERN_OK)
            return code;
    }
    return session_ok(db);
}

int lectern_exec(lectern *db, const char *sql, exec_row row, void *arg, char **message)
{
    if (message != NULL)
        *message = NULL;
    if (!session_enter(db))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = db->cluster;
    int code = statement_exec(db, sql == NULL ? "" : sql, row, arg);
    if (code != LECTERN_OK && message != NULL) {
        *message = strdup(lectern_errmsg(db));
        if (*message == NULL)
            code = session_fail(db, LECTERN_NOMEM, "%s", "");
    }
    session_leave(c);
    return code;
}

void lectern_free(void *p)
{
    free(p);
}

int lectern_complete(const char *sql)
{
    if (sql == NULL)
        return 0;
    struct sql_split s;
    sql_split_init(&s);
    for (size_t left = strlen(sql); left > 0;) {
        bool complete;
        size_t n = sql_split_feed(&s, sql, left, &complete);
        sql += n;
        left -= n;
    }
    return sql_split_complete(&s);
}
