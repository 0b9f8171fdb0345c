/* Room: client.   Thread: under the cluster's lock.   Owns: statements.
 *
 *              step                 no more rows, or an error
 *     READY -----------> RUN ---------------------------------> HALTED
 *       ^                 |                                        |
 *       +--- reset -------+                                        |
 *       +--- reset, or the next step (which runs it anew) ---------+
 *
 * A read's rows are used as they come; the answer of a write is awaited to its end before its first
 * row is given out, so that an error, lectern_changes and lectern_get_autocommit are right by then.
 *
 * Invariants: in RUN there is a run, or rows of a batch; a started statement's run is only looked
 * at by start.c until its end.
 * Not here: values (bind.c, column.c), callbacks (start.c). */
#include "client/statement.h"

#include "base/check.h"
#include "client/codes.h"
#include "client/sql_split.h"
#include "client/statement_kind.h"
#include "client/wire_cluster.h"

#include <stdlib.h>
#include <string.h>

bool statement_enter(struct lectern_stmt *s)
{
    return s != NULL && handle_enter(&s->handle, STATEMENT_ALIVE, STATEMENT_DEAD);
}

/* --- making one --- */

struct text *text_new(const char *sql, size_t n)
{
    struct text *t = malloc(sizeof *t + n + 1);
    if (t == NULL)
        return NULL;
    *t = (struct text){.refs = 1, .len = n};
    memcpy(t->sql, sql, n);
    t->sql[n] = '\0';
    return t;
}

struct text *text_ref(struct text *t)
{
    t->refs++;
    return t;
}

void text_unref(struct text *t, struct lectern_cluster *c)
{
    if (t == NULL || --t->refs > 0)
        return;
    if (t->keep != 0)
        cluster_forget(c, t->keep);
    free(t);
}

struct lectern_stmt *statement_new(struct lectern *db, enum wire_type type, struct text *text)
{
    struct lectern_stmt *s = calloc(1, sizeof *s);
    if (s == NULL) {
        text_unref(text, db->cluster);
        return NULL;
    }
    s->handle.magic = STATEMENT_ALIVE;
    s->handle.db = db;
    s->type = type;
    s->text = text;
    list_init(&s->rows);
    s->row_at = &s->rows;
    list_push_back(&db->statements, &s->handle.link);
    return s;
}

/* What its words tell. READONLY: what SQLite says, if it was asked. */
static void classify(struct lectern_stmt *s, bool readonly)
{
    enum statement_kind kind = statement_kind(s->text->sql, s->text->len);
    s->readonly = readonly;
    s->changes = statement_counts(s->text->sql, s->text->len);
    s->savepoint = kind == STATEMENT_SAVEPOINT;
    if (kind == STATEMENT_BEGIN || kind == STATEMENT_SAVEPOINT)
        s->kind = CALL_BEGIN;
    else if (kind == STATEMENT_COMMIT)
        s->kind = CALL_COMMIT;
    else
        s->kind = readonly ? CALL_READ : CALL_WRITE;
}

struct lectern_stmt *statement_new_lazy(struct lectern *db, const char *sql, size_t n)
{
    struct text *text = text_new(sql, n);
    struct lectern_stmt *s = text == NULL ? NULL : statement_new(db, WIRE_QUERY, text);
    if (s == NULL)
        return NULL;
    s->lazy = true;
    s->explain = statement_explains(sql, n);
    classify(s, statement_kind(sql, n) == STATEMENT_READ);
    return s;
}

/* --- preparing --- */

/* The names of the parameters out of D. ERR_NOMEM. */
static enum err take_params(struct lectern_stmt *s, const struct wire_description *d)
{
    struct rd r = d->params;
    s->n_params = d->n_params;
    s->params = calloc(d->n_params + 1u, sizeof *s->params);
    char *to = s->params_text = malloc(rd_left(&r) + 1);
    if (s->params == NULL || to == NULL)
        return err_fail(ERR_NOMEM, "no memory for the names of parameters");
    for (uint32_t i = 0; i < d->n_params; i++) {
        size_t n;
        const char *name = rd_str(&r, &n);
        CHECK(!r.failed); /* a name's length word, gone, leaves room for its zero */
        if (n == 0)
            continue;
        s->params[i] = to;
        memcpy(to, name, n);
        to[n] = '\0';
        to += n + 1;
    }
    return ERR_OK;
}

static enum err take_description(struct lectern_stmt *s, const struct wire_description *d)
{
    classify(s, (d->flags & WIRE_STATEMENT_READONLY) != 0);
    if ((d->flags & WIRE_STATEMENT_EXPLAIN) != 0) {
        s->explain = statement_explains(s->text->sql, s->text->len);
        s->explain = s->explain == 0 ? 1 : s->explain;
    }
    TRY(take_params(s, d));
    return statement_columns_set(s, d->n_columns, d->columns);
}

/* Makes the statement out of a description of SQL's N bytes. NULL in *OUT: an empty one. */
static int describe_done(struct lectern *db, const struct wire_description *d, const char *sql,
                         size_t n, uint32_t keep, lectern_stmt **out, size_t *used)
{
    *used = d->used < n ? d->used : n;
    if ((d->flags & WIRE_STATEMENT_EMPTY) != 0)
        return session_ok(db);
    struct text *text = text_new(sql, *used);
    struct lectern_stmt *s = text == NULL ? NULL : statement_new(db, WIRE_QUERY, text);
    if (s == NULL)
        return session_fail(db, LECTERN_NOMEM, "%s", "");
    enum err e = take_description(s, d);
    if (e != ERR_OK) {
        (void)statement_finalize(s);
        return session_fail_err(db, e);
    }
    text->keep = keep;
    if (keep != 0 && *used != n) { /* the nodes keep another text under that number */
        cluster_forget(db->cluster, keep);
        text->keep = cluster_next_keep(db->cluster);
    }
    *out = s;
    return session_ok(db);
}

static int describe(struct lectern *db, enum wire_level level, uint32_t keep, const char *sql,
                    size_t n, lectern_stmt **out, size_t *used)
{
    struct run *r;
    enum err e = run_new(db, WIRE_DESCRIBE, CALL_READ, db, &r);
    if (e != ERR_OK)
        return session_fail_err(db, e);
    e = call_add_statement(r->call, keep, sql, n, NULL, 0, 0);
    if (e != ERR_OK) {
        run_release(r);
        return session_fail_err(db, e);
    }
    call_set_level(r->call, level, level == WIRE_BOUNDED ? db->bound_ms : 0);
    if (statement_kind(sql, n) != STATEMENT_READ)
        call_set_for_write(r->call);
    run_start(r);
    if (!run_wait_end(r))
        return LECTERN_MISUSE;
    int code = session_ended(db, r);
    const struct item *i = run_first(r);
    if (code == LECTERN_OK && (i == NULL || i->kind != ITEM_DESCRIPTION))
        code = session_fail(db, LECTERN_PROTOCOL, "the node did not describe the statement");
    if (code == LECTERN_OK)
        code = describe_done(db, &i->description, sql, n, keep, out, used);
    run_release(r);
    return code;
}

/* Statements are compiled as of what the session has seen, even if it reads older states: what it
 * created is there. A write is judged by the leader's tables before it is called wrong. */
static int compile(struct lectern *db, const char *sql, size_t n, unsigned flags,
                   lectern_stmt **out, size_t *used)
{
    if (!session_may_run(db))
        return LECTERN_TXN_LOST;
    session_heed_interrupt(db);
    bool keeps = (flags & LECTERN_PREPARE_ONCE) == 0 && n <= KEEP_TEXT_MAX;
    uint32_t keep = keeps ? cluster_next_keep(db->cluster) : 0;
    enum wire_level level = db->level == WIRE_STRONG ? WIRE_STRONG : WIRE_SESSION;
    int code = describe(db, level, keep, sql, n, out, used);
    if (code == LECTERN_ERROR && level != WIRE_STRONG && statement_kind(sql, n) != STATEMENT_READ &&
        !stream_in_transaction(db->stream))
        code = describe(db, WIRE_STRONG, keep, sql, n, out, used);
    if (*out == NULL && keep != 0)
        cluster_forget(db->cluster, keep);
    return code;
}

static int prepare_first(struct lectern *db, const char *sql, size_t n, unsigned flags,
                         lectern_stmt **out, size_t *used)
{
    *used = n;
    size_t first = sql_split_first(sql, n);
    if (first == 0)
        return session_ok(db); /* nothing but blanks and comments: no statement, as in SQLite */
    bool lazy = (flags & LECTERN_PREPARE_LAZY) != 0;
    size_t len = lazy ? n : first;
    if (len > SQL_TEXT_MAX)
        return session_fail(db, LECTERN_TOOBIG, "a statement has up to %llu bytes, this one %zu",
                            SQL_TEXT_MAX, len);
    if (!lazy)
        return compile(db, sql, first, flags, out, used);
    *out = statement_new_lazy(db, sql, n);
    if (*out == NULL)
        return session_fail(db, LECTERN_NOMEM, "%s", "");
    if ((flags & LECTERN_PREPARE_ONCE) == 0 && n <= KEEP_TEXT_MAX)
        (*out)->text->keep = cluster_next_keep(db->cluster);
    return session_ok(db);
}

int lectern_prepare_v3(lectern *db, const char *sql, int n, unsigned flags, lectern_stmt **out,
                       const char **tail)
{
    if (out != NULL)
        *out = NULL;
    if (tail != NULL)
        *tail = sql;
    if (!session_enter(db))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = db->cluster;
    int code;
    if (sql == NULL || out == NULL) {
        code = session_fail(db, LECTERN_MISUSE, "the text, or where its statement goes, is NULL");
    } else if ((flags & ~(unsigned)(LECTERN_PREPARE_LAZY | LECTERN_PREPARE_ONCE)) != 0) {
        code = session_fail(db, LECTERN_MISUSE, "there is no such flag of prepare: %#x", flags);
    } else {
        size_t used, len = n < 0 ? strlen(sql) : strnlen(sql, (size_t)n);
        code = prepare_first(db, sql, len, flags, out, &used);
        if (code == LECTERN_OK && tail != NULL)
            *tail = sql + used;
    }
    session_leave(c);
    return code;
}

int lectern_prepare(lectern *db, const char *sql, int n, lectern_stmt **out, const char **tail)
{
    return lectern_prepare_v3(db, sql, n, 0, out, tail);
}

/* --- running --- */

/* The frame that was read is used up. */
static void drop_frame(struct lectern_stmt *s)
{
    cells_clear(s);
    s->rows_left = 0;
    if (s->frame != NULL && !s->prefetched)
        run_used(s->run, s->frame);
    s->frame = NULL;
}

static void halt(struct lectern_stmt *s)
{
    drop_frame(s);
    if (s->run != NULL)
        run_release(s->run);
    s->run = NULL;
    s->state = STATEMENT_HALTED;
}

/* The session's error is CODE now, and the statement at its end. */
static int fail(struct lectern_stmt *s, int code)
{
    halt(s);
    session_copy_error(s->handle.db, &s->last);
    return code;
}

static enum err fill_call(const struct lectern_stmt *s, struct call *c)
{
    if (s->type == WIRE_CLUSTER)
        return call_set_change(c, s->change);
    if (s->type != WIRE_QUERY)
        return ERR_OK;
    struct buf params;
    buf_init(&params, WIRE_FRAME_MAX);
    bound_encode(s, &params);
    enum err e = buf_status(&params);
    if (e == ERR_OK)
        e = call_add_statement(c, s->text->keep, s->text->sql, s->text->len, params.data,
                               params.len, bound_count(s));
    else
        e = err_fail(e, e == ERR_NOMEM ? "no memory for the bound values"
                                       : "the bound values together are over 64 MiB");
    buf_fini(&params);
    return e;
}

int statement_begin(struct lectern_stmt *s, void (*on_ready)(struct run *r))
{
    struct lectern *db = s->handle.db;
    if (!session_may_run(db))
        return fail(s, LECTERN_TXN_LOST);
    struct run *r;
    enum err e = run_new(db, s->type, s->kind, s, &r);
    if (e != ERR_OK)
        return fail(s, session_fail_err(db, e));
    e = fill_call(s, r->call);
    if (e != ERR_OK) {
        run_release(r);
        return fail(s, session_fail_err(db, e));
    }
    if (s->kind == CALL_READ)
        call_set_level(r->call, db->level, db->bound_ms);
    if (s->savepoint)
        call_set_savepoint(r->call);
    r->counts = s->changes;
    r->on_ready = on_ready;
    s->run = r;
    s->state = STATEMENT_RUN;
    last_error_set(&s->last, LECTERN_OK);
    run_start(r);
    return LECTERN_OK;
}

void statement_interrupt(struct lectern_stmt *s)
{
    if (s->run == NULL)
        return;
    s->run->interrupted = true;
    run_cancel(s->run);
}

/* The next of what came, taken. NULL: nothing here. */
static struct item *next_item(struct lectern_stmt *s)
{
    if (s->prefetched) {
        if (s->row_at->next == &s->rows)
            return NULL;
        s->row_at = s->row_at->next;
        return LIST_ENTRY(s->row_at, struct item, link);
    }
    struct item *i = run_first(s->run);
    if (i != NULL)
        run_take(s->run, i);
    return i;
}

int statement_next_row(struct lectern_stmt *s)
{
    struct lectern *db = s->handle.db;
    for (;;) {
        if (s->run != NULL && s->run->interrupted && s->kind == CALL_READ)
            return fail(s, session_fail(db, LECTERN_INTERRUPT, "%s", ""));
        if (s->rows_left > 0) {
            cells_read(s);
            return session_is(db, LECTERN_ROW);
        }
        drop_frame(s);
        struct item *i = next_item(s);
        if (i == NULL)
            return LECTERN_DONE;
        if (i->kind == ITEM_ROWS) {
            s->frame = i;
            s->values = rd_of(i->bytes, i->len);
            s->rows_left = s->n_columns == 0 ? 0 : i->n;
            continue;
        }
        enum err e = ERR_OK;
        if (i->kind == ITEM_COLUMNS)
            e = statement_columns_set(s, i->n, rd_of(i->bytes, i->len));
        if (!s->prefetched)
            run_used(s->run, i);
        if (e != ERR_OK)
            return fail(s, session_fail_err(db, e));
    }
}

int statement_end(struct lectern_stmt *s)
{
    struct lectern *db = s->handle.db;
    int code = s->run == NULL ? session_ok(db) : session_ended(db, s->run);
    if (code != LECTERN_OK)
        return fail(s, code);
    halt(s);
    return session_is(db, LECTERN_DONE);
}

static void rewind_rows(struct lectern_stmt *s)
{
    drop_frame(s);
    s->row_at = &s->rows;
    s->state = STATEMENT_RUN;
    last_error_set(&s->last, LECTERN_OK);
}

/* False: S was reset or finalized meanwhile, and is not to be looked at again. */
static bool wait_for(struct lectern_stmt *s, bool (*wait)(struct run *r))
{
    s->waited_for = true;
    if (!wait(s->run))
        return false;
    s->waited_for = false;
    return true;
}

int statement_step(struct lectern_stmt *s)
{
    struct lectern *db = s->handle.db;
    if (s->waited_for)
        return session_fail(db, LECTERN_MISUSE, "another call steps the statement right now");
    session_heed_interrupt(db);
    if (s->started)
        return session_fail(db, LECTERN_MISUSE, "the statement was started and has not ended");
    if (s->state == STATEMENT_HALTED)
        s->state = STATEMENT_READY;
    if (s->state == STATEMENT_READY && s->prefetched)
        rewind_rows(s);
    if (s->state == STATEMENT_READY) {
        int code = statement_begin(s, NULL);
        if (code != LECTERN_OK)
            return code;
        if (s->kind != CALL_READ && !wait_for(s, run_wait_end))
            return LECTERN_MISUSE; /* reset or finalized meanwhile: nothing to say it with */
    }
    for (;;) {
        int code = statement_next_row(s);
        if (code != LECTERN_DONE)
            return code;
        if (s->run == NULL || s->run->ended)
            return statement_end(s);
        struct run *r = s->run;
        if (!wait_for(s, run_wait))
            return LECTERN_MISUSE;
        if (!r->ended && run_first(r) == NULL)
            return statement_end(s); /* the loop failed */
    }
}

int lectern_step(lectern_stmt *s)
{
    if (!statement_enter(s))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = s->handle.db->cluster;
    int code = statement_step(s);
    session_leave(c);
    return code;
}

/* --- its end --- */

int statement_reset(struct lectern_stmt *s)
{
    struct lectern *db = s->handle.db;
    bool has_run = s->state != STATEMENT_READY;
    halt(s);
    s->state = STATEMENT_READY;
    s->started = s->waited_for = false;
    if (s->prefetched)
        s->row_at = &s->rows;
    if (s->last.code != LECTERN_OK)
        return session_restore_error(db, &s->last);
    return has_run ? session_ok(db) : LECTERN_OK; /* as SQLite: what did not run says nothing */
}

int lectern_reset(lectern_stmt *s)
{
    if (s == NULL)
        return LECTERN_OK;
    if (!statement_enter(s))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = s->handle.db->cluster;
    int code = statement_reset(s);
    session_leave(c);
    return code;
}

int statement_finalize(struct lectern_stmt *s)
{
    int code = statement_reset(s);
    text_unref(s->text, s->handle.db->cluster);
    for (struct list *l; (l = list_pop_front(&s->rows)) != NULL;)
        free(LIST_ENTRY(l, struct item, link));
    bound_free_all(s);
    statement_columns_free(s);
    free(s->params);
    free(s->params_text);
    free(s->change);
    handle_bury(&s->handle, STATEMENT_DEAD);
    return code;
}

int lectern_finalize(lectern_stmt *s)
{
    if (s == NULL)
        return LECTERN_OK;
    if (!statement_enter(s))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = s->handle.db->cluster;
    int code = statement_finalize(s);
    session_leave(c);
    return code;
}

/* --- facts --- */

const char *lectern_sql(lectern_stmt *s)
{
    if (!statement_enter(s))
        return NULL;
    const char *sql = s->text == NULL ? NULL : s->text->sql;
    session_leave(s->handle.db->cluster);
    return sql;
}

lectern *lectern_db_handle(lectern_stmt *s)
{
    return s == NULL || s->handle.magic != STATEMENT_ALIVE ? NULL : s->handle.db;
}

/* As SQLite: 1 also for no statement. */
int lectern_stmt_readonly(lectern_stmt *s)
{
    if (!statement_enter(s))
        return 1;
    int readonly = s->readonly;
    session_leave(s->handle.db->cluster);
    return readonly;
}

int lectern_stmt_isexplain(lectern_stmt *s)
{
    if (!statement_enter(s))
        return 0;
    int explain = s->explain;
    session_leave(s->handle.db->cluster);
    return explain;
}

int lectern_stmt_busy(lectern_stmt *s)
{
    if (!statement_enter(s))
        return 0;
    int busy = s->state == STATEMENT_RUN;
    session_leave(s->handle.db->cluster);
    return busy;
}
