/* Room: tests. */
#include "tests/unit/client/sql_node.h"

#include "base/sizes.h"
#include "tests/lib/test.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_MAX    4096
#define STREAMS_MAX 64
#define ROWS_BLOCK  KIB(16)

struct kept {
    uint32_t keep;
    char *sql;
    size_t len;
};

/* A SELECT whose window is used up. */
struct paused {
    sqlite3_stmt *stmt;
    struct wire_id id;
    bool row_ready;
};

struct window {
    uint32_t stream;
    int64_t left;
};

struct sql_node {
    struct fake_node *fake;
    sqlite3 *db;
    char url[64];
    uint64_t seq;
    struct kept kept[KEPT_MAX];
    struct window windows[STREAMS_MAX];
    struct paused paused;
    unsigned peer;
    pthread_mutex_t lock; /* of what follows */
    enum err fail;
    char fail_text[128];
    bool hold;
};

static struct window *window_of(struct sql_node *n, uint32_t stream)
{
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        struct window *w = &n->windows[i];
        if (w->stream == 0)
            *w = (struct window){.stream = stream, .left = WIRE_WINDOW};
        if (w->stream == stream)
            return w;
    }
    test_fail(__FILE__, __LINE__, "more than %d streams", STREAMS_MAX);
}

/* The text of S, remembered if it shall be. */
static void resolve_kept(struct sql_node *n, struct wire_statement *s)
{
    struct kept *free_one = NULL;
    for (unsigned i = 0; s->keep != 0 && i < KEPT_MAX; i++) {
        struct kept *k = &n->kept[i];
        if (k->keep == s->keep && s->sql_len == 0) {
            s->sql = k->sql;
            s->sql_len = k->len;
            return;
        }
        if (k->keep == s->keep)
            return;
        if (k->keep == 0 && free_one == NULL)
            free_one = k;
    }
    if (s->keep == 0)
        return;
    if (s->sql_len == 0)
        test_fail(__FILE__, __LINE__, "the text %u was never sent", s->keep);
    EXPECT(free_one != NULL);
    *free_one = (struct kept){s->keep, strndup(s->sql, s->sql_len), s->sql_len};
}

static void forget(struct sql_node *n, uint32_t keep)
{
    for (unsigned i = 0; i < KEPT_MAX; i++) {
        if (n->kept[i].keep != keep)
            continue;
        free(n->kept[i].sql);
        n->kept[i] = (struct kept){0};
    }
}

static void forget_all(struct sql_node *n)
{
    for (unsigned i = 0; i < KEPT_MAX; i++)
        free(n->kept[i].sql);
    memset(n->kept, 0, sizeof n->kept);
}

static uint8_t flags_of(struct sql_node *n)
{
    int on = 1;
    (void)sqlite3_db_config(n->db, SQLITE_DBCONFIG_ENABLE_FKEY, -1, &on);
    return (uint8_t)((sqlite3_get_autocommit(n->db) ? 0 : WIRE_IN_TRANSACTION) |
                     (on ? 0 : WIRE_NO_FOREIGN_KEYS));
}

static void put_error(struct sql_node *n, struct buf *b, struct wire_id id, uint32_t statement)
{
    const char *text = sqlite3_errmsg(n->db);
    struct wire_error e = {.code = ERR_SQL,
                           .sqlite_code = sqlite3_extended_errcode(n->db),
                           .offset = sqlite3_error_offset(n->db),
                           .seq = n->seq,
                           .flags = flags_of(n),
                           .statement = statement,
                           .message = text,
                           .message_len = strlen(text)};
    wire_put_error(b, id, &e);
}

static void put_done(struct sql_node *n, struct buf *b, struct wire_id id, bool changed)
{
    n->seq += changed;
    wire_put_done(b, id,
                  &(struct wire_done){.seq = n->seq,
                                      .changes = changed ? sqlite3_changes64(n->db) : 0,
                                      .last_insert_rowid = sqlite3_last_insert_rowid(n->db),
                                      .flags = flags_of(n)});
}

/* NULL: failed, or nothing to run. */
static sqlite3_stmt *prepare(struct sql_node *n, struct wire_statement *s)
{
    resolve_kept(n, s);
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(n->db, s->sql, (int)s->sql_len, &stmt, NULL) != SQLITE_OK)
        return NULL;
    for (uint32_t i = 0; stmt != NULL && i < s->n_params; i++) {
        const char *name;
        size_t name_len;
        struct wire_value v;
        EXPECT_OK(wire_get_param(&s->params, &name, &name_len, &v));
        int at = (int)i + 1, rc = SQLITE_OK;
        switch (v.type) {
        case WIRE_NULL:
            rc = sqlite3_bind_null(stmt, at);
            break;
        case WIRE_INTEGER:
            rc = sqlite3_bind_int64(stmt, at, v.integer);
            break;
        case WIRE_FLOAT:
            rc = sqlite3_bind_double(stmt, at, v.real);
            break;
        case WIRE_TEXT:
            rc = sqlite3_bind_text(stmt, at, v.text.bytes, (int)v.text.len, SQLITE_TRANSIENT);
            break;
        case WIRE_BLOB:
            rc = v.text.len == 0
                     ? sqlite3_bind_zeroblob(stmt, at, 0)
                     : sqlite3_bind_blob(stmt, at, v.text.bytes, (int)v.text.len, SQLITE_TRANSIENT);
            break;
        }
        if (rc != SQLITE_OK) {
            (void)sqlite3_finalize(stmt);
            return NULL;
        }
    }
    return stmt;
}

static void put_columns(struct buf *b, struct wire_id id, sqlite3_stmt *stmt)
{
    size_t begun = wire_begin(b, WIRE_COLUMNS, id);
    int n = sqlite3_column_count(stmt);
    buf_put_u32(b, (uint32_t)n);
    for (int i = 0; i < n; i++) {
        const char *type = sqlite3_column_decltype(stmt, i);
        buf_put_cstr(b, sqlite3_column_name(stmt, i));
        buf_put_cstr(b, type == NULL ? "" : type);
    }
    wire_end(b, begun);
}

static void put_value(struct buf *b, sqlite3_stmt *stmt, int i)
{
    struct wire_value v = {.type = WIRE_NULL};
    int type = sqlite3_column_type(stmt, i);
    if (type == SQLITE_INTEGER) {
        v = (struct wire_value){.type = WIRE_INTEGER, .integer = sqlite3_column_int64(stmt, i)};
    } else if (type == SQLITE_FLOAT) {
        v = (struct wire_value){.type = WIRE_FLOAT, .real = sqlite3_column_double(stmt, i)};
    } else if (type != SQLITE_NULL) {
        v.type = type == SQLITE_TEXT ? WIRE_TEXT : WIRE_BLOB;
        v.text.bytes = type == SQLITE_TEXT ? (const char *)sqlite3_column_text(stmt, i)
                                           : sqlite3_column_blob(stmt, i);
        v.text.len = (uint32_t)sqlite3_column_bytes(stmt, i);
        if (v.text.len == 0)
            v.text.bytes = "";
    }
    wire_put_value(b, &v);
}

/* Rows until the end, the window or an error. SQLITE_ROW: stopped at a row that is not put yet. */
static int put_rows(struct window *w, bool bounded, struct buf *b, struct wire_id id,
                    sqlite3_stmt *stmt, bool row_ready)
{
    int rc = row_ready ? SQLITE_ROW : sqlite3_step(stmt);
    while (rc == SQLITE_ROW && (!bounded || w->left > 0)) {
        size_t begun = wire_begin(b, WIRE_ROWS, id), count_at = b->len;
        uint32_t rows = 0;
        buf_put_u32(b, 0);
        for (; rc == SQLITE_ROW && b->len - begun < ROWS_BLOCK; rc = sqlite3_step(stmt), rows++)
            for (int i = 0; i < sqlite3_column_count(stmt); i++)
                put_value(b, stmt, i);
        buf_patch_u32(b, count_at, rows);
        wire_end(b, begun);
        w->left -= (int64_t)(b->len - begun);
    }
    return rc;
}

static void go_on(struct sql_node *n, struct buf *b)
{
    struct paused p = n->paused;
    int before = sqlite3_total_changes(n->db);
    int rc = put_rows(window_of(n, p.id.stream), true, b, p.id, p.stmt, p.row_ready);
    if (rc == SQLITE_ROW) {
        n->paused.row_ready = true;
        return;
    }
    if (rc == SQLITE_DONE)
        put_done(n, b, p.id, sqlite3_total_changes(n->db) != before);
    else
        put_error(n, b, p.id, 0);
    (void)sqlite3_finalize(p.stmt);
    n->paused.stmt = NULL;
}

static void run_query(struct sql_node *n, struct buf *b, struct wire_id id, struct wire_query *q)
{
    struct wire_statement s;
    EXPECT_OK(wire_get_statement(&q->statements, &s));
    EXPECT(n->paused.stmt == NULL);
    sqlite3_stmt *stmt = prepare(n, &s);
    if (stmt == NULL) {
        put_error(n, b, id, 0);
        return;
    }
    if (sqlite3_column_count(stmt) > 0)
        put_columns(b, id, stmt);
    n->paused = (struct paused){.stmt = stmt, .id = id};
    go_on(n, b);
}

static void run_batch(struct sql_node *n, struct buf *b, struct wire_id id, struct wire_query *q)
{
    size_t begun = b->len;
    (void)sqlite3_exec(n->db, "SAVEPOINT batch", NULL, NULL, NULL);
    for (uint32_t i = 0; i < q->n_statements; i++) {
        struct wire_statement s;
        EXPECT_OK(wire_get_statement(&q->statements, &s));
        sqlite3_stmt *stmt = prepare(n, &s);
        int before = sqlite3_total_changes(n->db), rc = SQLITE_ERROR;
        if (stmt != NULL && sqlite3_column_count(stmt) > 0)
            put_columns(b, id, stmt);
        if (stmt != NULL)
            rc = put_rows(window_of(n, id.stream), false, b, id, stmt, false);
        if (rc != SQLITE_DONE) {
            b->len = begun;
            put_error(n, b, id, i);
            (void)sqlite3_finalize(stmt);
            (void)sqlite3_exec(n->db, "ROLLBACK TO batch; RELEASE batch", NULL, NULL, NULL);
            return;
        }
        bool changed = sqlite3_total_changes(n->db) != before;
        wire_put_step(b, id,
                      &(struct wire_step){.changes = changed ? sqlite3_changes64(n->db) : 0,
                                          .last_insert_rowid = sqlite3_last_insert_rowid(n->db)});
        (void)sqlite3_finalize(stmt);
    }
    (void)sqlite3_exec(n->db, "RELEASE batch", NULL, NULL, NULL);
    put_done(n, b, id, true);
}

static void describe(struct sql_node *n, struct buf *b, struct wire_id id, struct wire_query *q)
{
    struct wire_statement s;
    EXPECT_OK(wire_get_statement(&q->statements, &s));
    resolve_kept(n, &s);
    sqlite3_stmt *stmt;
    const char *tail;
    if (sqlite3_prepare_v2(n->db, s.sql, (int)s.sql_len, &stmt, &tail) != SQLITE_OK) {
        put_error(n, b, id, 0);
        return;
    }
    struct buf params, columns;
    buf_init(&params, MIB(1));
    buf_init(&columns, MIB(1));
    int n_params = sqlite3_bind_parameter_count(stmt), n_columns = sqlite3_column_count(stmt);
    for (int i = 1; i <= n_params; i++) {
        const char *name = sqlite3_bind_parameter_name(stmt, i);
        buf_put_cstr(&params, name == NULL ? "" : name);
    }
    for (int i = 0; i < n_columns; i++) {
        const char *type = sqlite3_column_decltype(stmt, i);
        buf_put_cstr(&columns, sqlite3_column_name(stmt, i));
        buf_put_cstr(&columns, type == NULL ? "" : type);
    }
    struct wire_description d = {
        .used = (uint32_t)(tail - s.sql),
        .flags = (uint8_t)((sqlite3_stmt_readonly(stmt) ? WIRE_STATEMENT_READONLY : 0) |
                           (sqlite3_stmt_isexplain(stmt) ? WIRE_STATEMENT_EXPLAIN : 0) |
                           (stmt == NULL ? WIRE_STATEMENT_EMPTY : 0)),
        .n_params = (uint32_t)n_params,
        .n_columns = (uint32_t)n_columns,
        .params = rd_of(params.data, params.len),
        .columns = rd_of(columns.data, columns.len)};
    wire_put_description(b, id, &d);
    buf_fini(&params);
    buf_fini(&columns);
    (void)sqlite3_finalize(stmt);
}

static bool fails_now(struct sql_node *n, struct fake_peer *p, struct wire_id id, bool *hold)
{
    (void)pthread_mutex_lock(&n->lock);
    enum err fail = n->fail;
    n->fail = ERR_OK;
    *hold = n->hold;
    (void)pthread_mutex_unlock(&n->lock);
    if (fail != ERR_OK)
        fake_error(p, id, fail, n->fail_text);
    return fail != ERR_OK;
}

/* Of a connection that is no more: its transaction, its windows, its texts. */
static void forget_connection(struct sql_node *n)
{
    (void)sqlite3_finalize(n->paused.stmt);
    n->paused.stmt = NULL;
    if (!sqlite3_get_autocommit(n->db))
        (void)sqlite3_exec(n->db, "ROLLBACK", NULL, NULL, NULL);
    memset(n->windows, 0, sizeof n->windows);
    forget_all(n);
}

static bool answer(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    struct sql_node *n = ctx;
    if (fake_peer_number(p) != n->peer)
        forget_connection(n);
    n->peer = fake_peer_number(p);
    struct buf *b = fake_out(p);
    struct wire_query q;
    uint32_t v;
    bool hold = false;
    switch ((int)f->type) {
    case WIRE_QUERY:
    case WIRE_BATCH:
        EXPECT_OK(wire_get_query(f, &q));
        if (fails_now(n, p, f->id, &hold) || hold)
            return true;
        if (f->type == WIRE_QUERY)
            run_query(n, b, f->id, &q);
        else
            run_batch(n, b, f->id, &q);
        return true;
    case WIRE_DESCRIBE:
        EXPECT_OK(wire_get_query(f, &q));
        describe(n, b, f->id, &q);
        return true;
    case WIRE_CREDIT:
        EXPECT_OK(wire_get_credit(f, &v));
        window_of(n, f->id.stream)->left += v;
        EXPECT(window_of(n, f->id.stream)->left <= WIRE_WINDOW);
        if (n->paused.stmt != NULL && n->paused.id.stream == f->id.stream)
            go_on(n, b);
        return true;
    case WIRE_FORGET:
        EXPECT_OK(wire_get_forget(f, &v));
        forget(n, v);
        return true;
    case WIRE_CANCEL:
        if (n->paused.stmt != NULL && n->paused.id.request == f->id.request) {
            (void)sqlite3_finalize(n->paused.stmt);
            n->paused.stmt = NULL;
        } else {
            (void)pthread_mutex_lock(&n->lock);
            hold = n->hold;
            (void)pthread_mutex_unlock(&n->lock);
            if (!hold)
                return true; /* over already */
        }
        fake_error(p, f->id, ERR_CANCELLED, "interrupted");
        return true;
    case WIRE_CLOSE:
        if (n->paused.stmt != NULL && n->paused.id.stream == f->id.stream) {
            (void)sqlite3_finalize(n->paused.stmt);
            n->paused.stmt = NULL;
        }
        window_of(n, f->id.stream)->left = WIRE_WINDOW;
        return true;
    default:
        return false;
    }
}

struct sql_node *sql_node_start(void)
{
    struct sql_node *n = calloc(1, sizeof *n);
    EXPECT(n != NULL);
    EXPECT(sqlite3_open(":memory:", &n->db) == SQLITE_OK);
    (void)sqlite3_extended_result_codes(n->db, 1);
    n->seq = 1;
    EXPECT(pthread_mutex_init(&n->lock, NULL) == 0);
    n->fake = fake_node_start(&(struct fake_options){.answer = answer, .ctx = n});
    (void)snprintf(n->url, sizeof n->url, "lectern://%s", fake_node_address(n->fake));
    return n;
}

void sql_node_stop(struct sql_node *n)
{
    fake_node_stop(n->fake);
    (void)sqlite3_finalize(n->paused.stmt);
    forget_all(n);
    EXPECT(sqlite3_close(n->db) == SQLITE_OK);
    (void)pthread_mutex_destroy(&n->lock);
    free(n);
}

struct fake_node *sql_node_fake(struct sql_node *n)
{
    return n->fake;
}

const char *sql_node_url(struct sql_node *n)
{
    return n->url;
}

void sql_node_fail_next(struct sql_node *n, enum err code, const char *text)
{
    (void)pthread_mutex_lock(&n->lock);
    n->fail = code;
    (void)snprintf(n->fail_text, sizeof n->fail_text, "%s", text);
    (void)pthread_mutex_unlock(&n->lock);
}

void sql_node_hold(struct sql_node *n, bool on)
{
    (void)pthread_mutex_lock(&n->lock);
    n->hold = on;
    (void)pthread_mutex_unlock(&n->lock);
}

unsigned sql_node_kept(struct sql_node *n)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < KEPT_MAX; i++)
        kept += n->kept[i].keep != 0;
    return kept;
}
