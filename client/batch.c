/* Room: client.   Thread: under the cluster's lock.   Owns: batches: what was added, what came.
 *
 * Adding copies the values; the texts are shared with their statements, so a thousand rows of one
 * INSERT travel as one text and a thousand lists of values. Everything that comes back is kept
 * until the next run: a node sends no more than it holds itself (answer-bytes).
 *
 * Invariants: results are those of the last run; its run is only looked at when it has ended.
 * Not here: atomicity (node/lane_batch.c), exactly once (call.c). */
#include "client/batch.h"

#include "client/codes.h"
#include "client/sql_split.h"
#include "client/statement.h"
#include "client/statement_kind.h"

#include <stdlib.h>
#include <string.h>

struct added {
    struct text *text;
    uint8_t *params;
    size_t params_len;
    uint32_t n_params;
    bool counts; /* lectern_changes speaks of it */
    /* Of the last run. */
    struct wire_step step;
    struct list items; /* COLUMNS, ROWS */
    bool taken;
};

struct lectern_batch {
    struct handle handle; /* first */
    struct added **added;
    uint32_t n, cap;
    struct run *run; /* under way */
    bool done;       /* the last run was good: there are results */
    int failed;
    lectern_on_end end_callback;
    void *callback_arg;
};

static bool batch_enter(struct lectern_batch *b)
{
    return b != NULL && handle_enter(&b->handle, BATCH_ALIVE, BATCH_DEAD);
}

struct lectern_batch *batch_of_link(struct list *l)
{
    return (struct lectern_batch *)(void *)LIST_ENTRY(l, struct handle, link); /* first of it */
}

void batch_interrupt(struct lectern_batch *b)
{
    if (b->run == NULL)
        return;
    b->run->interrupted = true;
    run_cancel(b->run);
}

/* --- filling it --- */

int lectern_batch_new(lectern *db, lectern_batch **out)
{
    if (out != NULL)
        *out = NULL;
    if (!session_enter(db))
        return LECTERN_MISUSE;
    int code;
    struct lectern_batch *b = out == NULL ? NULL : calloc(1, sizeof *b);
    if (out == NULL) {
        code = session_fail(db, LECTERN_MISUSE, "where the batch goes is NULL");
    } else if (b == NULL) {
        code = session_fail(db, LECTERN_NOMEM, "%s", "");
    } else {
        b->handle.magic = BATCH_ALIVE;
        b->handle.db = db;
        b->failed = -1;
        list_push_back(&db->batches, &b->handle.link);
        *out = b;
        code = session_ok(db);
    }
    session_leave(db->cluster);
    return code;
}

static void drop_result(struct added *a)
{
    for (struct list *l; (l = list_pop_front(&a->items)) != NULL;)
        free(LIST_ENTRY(l, struct item, link));
    a->step = (struct wire_step){0};
    a->taken = false;
}

static void added_free(struct added *a, struct lectern_cluster *c)
{
    drop_result(a);
    text_unref(a->text, c);
    free(a->params);
    free(a);
}

/* An empty place for one more, not yet counted; NULL: there is none, and the error is set. */
static struct added *make_place(struct lectern_batch *b)
{
    struct lectern *db = b->handle.db;
    if (b->run != NULL) {
        (void)session_fail(db, LECTERN_MISUSE, "the batch was started and has not ended");
        return NULL;
    }
    if (b->n >= BATCH_STATEMENTS_MAX) {
        (void)session_fail(db, LECTERN_TOOBIG, "a batch has up to %u statements",
                           BATCH_STATEMENTS_MAX);
        return NULL;
    }
    if (b->n == b->cap) {
        uint32_t cap = b->cap == 0 ? 8 : b->cap * 2;
        struct added **added = realloc(b->added, cap * sizeof *added);
        if (added != NULL) {
            b->added = added;
            b->cap = cap;
        }
    }
    struct added *a = b->n == b->cap ? NULL : calloc(1, sizeof *a);
    if (a == NULL) {
        (void)session_fail(db, LECTERN_NOMEM, "%s", "");
        return NULL;
    }
    list_init(&a->items);
    return a;
}

static int add(struct lectern_batch *b, struct lectern_stmt *s)
{
    struct lectern *db = b->handle.db;
    if (s->handle.db != db || s->text == NULL || s->prefetched)
        return session_fail(db, LECTERN_MISUSE,
                            "the statement is of another session, or has no SQL");
    struct added *a = make_place(b);
    if (a == NULL)
        return code_primary(db->code);
    struct buf params;
    buf_init(&params, WIRE_FRAME_MAX);
    bound_encode(s, &params);
    enum err e = buf_status(&params);
    if (e != ERR_OK) {
        buf_fini(&params);
        added_free(a, db->cluster);
        return session_fail_err(
            db, e == ERR_NOMEM ? e : err_fail(e, "the bound values together are over 64 MiB"));
    }
    a->text = text_ref(s->text);
    a->n_params = bound_count(s);
    a->params = buf_take(&params, &a->params_len);
    a->counts = s->changes;
    b->added[b->n++] = a;
    return session_ok(db);
}

int lectern_batch_add(lectern_batch *b, lectern_stmt *s)
{
    if (s == NULL || s->handle.magic != STATEMENT_ALIVE || !batch_enter(b))
        return LECTERN_MISUSE;
    int code = add(b, s);
    session_leave(b->handle.db->cluster);
    return code;
}

static int add_sql(struct lectern_batch *b, const char *sql)
{
    struct lectern *db = b->handle.db;
    if (sql == NULL)
        return session_fail(db, LECTERN_MISUSE, "the text is NULL");
    size_t n = strlen(sql), first = sql_split_first(sql, n);
    if (first == 0 || sql_split_first(sql + first, n - first) != 0)
        return session_fail(db, LECTERN_MISUSE, "not one statement: %.150s", sql);
    if (first > SQL_TEXT_MAX)
        return session_fail(db, LECTERN_TOOBIG, "a statement has up to %llu bytes, this one %zu",
                            SQL_TEXT_MAX, first);
    struct added *a = make_place(b);
    if (a == NULL)
        return code_primary(db->code);
    a->text = text_new(sql, first);
    if (a->text == NULL) {
        added_free(a, db->cluster);
        return session_fail(db, LECTERN_NOMEM, "%s", "");
    }
    a->counts = statement_counts(sql, first);
    b->added[b->n++] = a;
    return session_ok(db);
}

int lectern_batch_add_sql(lectern_batch *b, const char *sql)
{
    if (!batch_enter(b))
        return LECTERN_MISUSE;
    int code = add_sql(b, sql);
    session_leave(b->handle.db->cluster);
    return code;
}

/* --- running it --- */

static int begin(struct lectern_batch *b, void (*on_ready)(struct run *r))
{
    struct lectern *db = b->handle.db;
    if (!session_may_run(db))
        return LECTERN_TXN_LOST;
    session_heed_interrupt(db);
    for (uint32_t i = 0; i < b->n; i++)
        drop_result(b->added[i]);
    b->done = false;
    b->failed = -1;
    struct run *r;
    enum err e = run_new(db, WIRE_BATCH, CALL_WRITE, b, &r);
    if (e != ERR_OK)
        return session_fail_err(db, e);
    for (uint32_t i = 0; i < b->n && e == ERR_OK; i++) {
        const struct added *a = b->added[i];
        e = call_add_statement(r->call, a->text->keep, a->text->sql, a->text->len, a->params,
                               a->params_len, a->n_params);
    }
    if (e != ERR_OK) {
        run_release(r);
        return session_fail_err(db, e);
    }
    r->on_ready = on_ready;
    b->run = r;
    run_start(r);
    return LECTERN_OK;
}

/* What came, to the statements that it belongs to. False: fewer or more of them than we sent. */
static bool share_out(struct lectern_batch *b)
{
    uint32_t i = 0;
    for (struct item *item; (item = run_first(b->run)) != NULL;) {
        if (i == b->n)
            return false;
        run_keep(b->run, item);
        if (item->kind == ITEM_STEP) {
            b->added[i++]->step = item->step;
            free(item);
        } else {
            list_push_back(&b->added[i]->items, &item->link);
        }
    }
    return i == b->n;
}

static void account(struct lectern_batch *b)
{
    struct lectern *db = b->handle.db;
    for (uint32_t i = 0; i < b->n; i++) {
        if (!b->added[i]->counts)
            continue;
        session_changed(db, b->added[i]->step.changes);
    }
}

/* The run has ended, or the loop has failed. */
static int finish(struct lectern_batch *b)
{
    struct lectern *db = b->handle.db;
    struct run *r = b->run;
    int code = session_ended(db, r);
    bool named = r->err == ERR_SQL || r->err == ERR_FORBIDDEN;
    if (code != LECTERN_OK && named && r->statement < b->n)
        b->failed = (int)r->statement;
    if (code == LECTERN_OK && !share_out(b))
        code = session_fail(db, LECTERN_ROWS_LOST, "%s",
                            "the batch was done, but its answer made no sense");
    b->done = code == LECTERN_OK;
    if (b->done)
        account(b);
    b->run = NULL;
    run_release(r);
    return code;
}

static int startable(struct lectern_batch *b)
{
    struct lectern *db = b->handle.db;
    if (b->run != NULL)
        return session_fail(db, LECTERN_MISUSE, "the batch was started and has not ended");
    if (b->n == 0)
        return session_fail(db, LECTERN_MISUSE, "the batch is empty");
    return LECTERN_OK;
}

int lectern_batch_run(lectern_batch *b)
{
    if (!batch_enter(b))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = b->handle.db->cluster;
    int code = startable(b);
    if (code == LECTERN_OK)
        code = begin(b, NULL);
    if (code == LECTERN_OK) /* freed in a callback meanwhile: nothing to say it with */
        code = run_wait_end(b->run) ? finish(b) : LECTERN_MISUSE;
    session_leave(c);
    return code;
}

static void on_ready(struct run *r)
{
    if (!r->ended)
        return;
    struct lectern_batch *b = r->owner;
    int code = finish(b);
    lectern_on_end end = b->end_callback;
    if (end == NULL)
        return;
    struct lectern_cluster *c = b->handle.db->cluster;
    void *arg = b->callback_arg;
    unsigned levels = cluster_release(c);
    end(arg, NULL, code == LECTERN_OK ? LECTERN_DONE : code); /* B may be gone after */
    cluster_regain(c, levels);
}

int lectern_batch_start(lectern_batch *b, lectern_on_end end, void *arg)
{
    if (!batch_enter(b))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = b->handle.db->cluster;
    int code = startable(b);
    if (code == LECTERN_OK) {
        b->end_callback = end;
        b->callback_arg = arg;
        code = begin(b, on_ready);
    }
    if (code == LECTERN_OK)
        code = session_ok(b->handle.db);
    session_leave(c);
    return code;
}

/* --- what came of it --- */

/* Statement I of a batch that was run; NULL: there is none. */
static struct added *result(struct lectern_batch *b, int i)
{
    return b->done && i >= 0 && (uint32_t)i < b->n ? b->added[i] : NULL;
}

int64_t lectern_batch_changes(lectern_batch *b, int i)
{
    if (!batch_enter(b))
        return 0;
    const struct added *a = result(b, i);
    int64_t changes = a == NULL ? 0 : a->step.changes;
    session_leave(b->handle.db->cluster);
    return changes;
}

int64_t lectern_batch_last_insert_rowid(lectern_batch *b, int i)
{
    if (!batch_enter(b))
        return 0;
    const struct added *a = result(b, i);
    int64_t rowid = a == NULL ? 0 : a->step.last_insert_rowid;
    session_leave(b->handle.db->cluster);
    return rowid;
}

int lectern_batch_failed(lectern_batch *b)
{
    if (!batch_enter(b))
        return -1;
    int failed = b->failed;
    session_leave(b->handle.db->cluster);
    return failed;
}

static int take_rows(struct lectern_batch *b, int i, lectern_stmt **out)
{
    struct lectern *db = b->handle.db;
    struct added *a = result(b, i);
    if (a == NULL)
        return session_fail(db, LECTERN_RANGE, "the batch has no result %d", i);
    if (a->taken)
        return session_fail(db, LECTERN_MISUSE, "the rows of statement %d were taken already", i);
    struct lectern_stmt *s = statement_new(db, WIRE_QUERY, text_ref(a->text));
    if (s == NULL)
        return session_fail(db, LECTERN_NOMEM, "%s", "");
    s->prefetched = true;
    s->readonly = !a->counts;
    struct item *first =
        list_empty(&a->items) ? NULL : LIST_ENTRY(a->items.next, struct item, link);
    enum err e = first == NULL || first->kind != ITEM_COLUMNS
                     ? ERR_OK
                     : statement_columns_set(s, first->n, rd_of(first->bytes, first->len));
    if (e != ERR_OK) {
        (void)statement_finalize(s);
        return session_fail_err(db, e);
    }
    list_splice(&s->rows, &a->items);
    a->taken = true;
    *out = s;
    return session_ok(db);
}

int lectern_batch_rows(lectern_batch *b, int i, lectern_stmt **out)
{
    if (out != NULL)
        *out = NULL;
    if (!batch_enter(b))
        return LECTERN_MISUSE;
    int code = out == NULL ? session_fail(b->handle.db, LECTERN_MISUSE, "where the rows go is NULL")
                           : take_rows(b, i, out);
    session_leave(b->handle.db->cluster);
    return code;
}

/* --- its end --- */

static void empty(struct lectern_batch *b)
{
    for (uint32_t i = 0; i < b->n; i++)
        added_free(b->added[i], b->handle.db->cluster);
    b->n = 0;
    b->done = false;
    b->failed = -1;
}

int lectern_batch_clear(lectern_batch *b)
{
    if (!batch_enter(b))
        return LECTERN_MISUSE;
    int code;
    if (b->run != NULL) {
        code =
            session_fail(b->handle.db, LECTERN_MISUSE, "the batch was started and has not ended");
    } else {
        empty(b);
        code = session_ok(b->handle.db);
    }
    session_leave(b->handle.db->cluster);
    return code;
}

int lectern_batch_free(lectern_batch *b)
{
    if (b == NULL)
        return LECTERN_OK;
    if (!batch_enter(b))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = b->handle.db->cluster;
    if (b->run != NULL)
        run_release(b->run);
    b->run = NULL;
    empty(b);
    free(b->added);
    b->added = NULL;
    handle_bury(&b->handle, BATCH_DEAD);
    session_leave(c);
    return LECTERN_OK;
}
