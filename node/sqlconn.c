/* Room: node. Thread: the connection's owner.
 *
 * Prepared statements are kept by their text: preparing costs two to three times as much as running
 * a one-row INSERT. A statement is in use by at most one request, since a connection is. */
#include "node/sqlconn.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/functions.h"
#include "node/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KEPT         64   /* statements kept for each connection */
#define KEPT_SQL_MAX 4096 /* longer texts are one-off scripts: not worth their memory */
#define PROGRESS_OPS 2000 /* SQLite VM steps between two looks: 50 to 200 us */

/* One VM step cannot be interrupted: LIKE and GLOB take pattern times text, which with SQLite's own
 * limit of 50,000 bytes is minutes for one row. */
#define LIKE_PATTERN_MAX 1000

struct sqlstmt {
    sqlite3_stmt *stmt;
    uint64_t hash, used;
    char *sql;
    size_t sql_len;
    int columns;
    bool kept, columns_sent;
    bool strict;           /* prepared while control of transactions was forbidden */
    bool ours;             /* sqlconn_exec's: never lent to a request with the same text */
    bool row_waits;        /* stepped to, not yet put: the block was full */
    int64_t total_changes; /* before the statement */
};

struct sqlconn {
    sqlite3 *conn;
    struct guard guard;
    bool forbid_transactions; /* to requests */
    bool (*tick)(void *ctx);
    void *tick_ctx;
    bool tick_stopped;       /* tick interrupted this request's statement */
    struct request *running; /* for the progress handler; NULL between statements */
    uint64_t clock;          /* counts uses, for the oldest of `kept` */
    struct sqlstmt *kept[KEPT];
};

static int on_progress(void *arg)
{
    struct sqlconn *c = arg;
    const struct request *r = c->running;
    if (r == NULL) /* our own BEGIN, COMMIT, SAVEPOINT: short, and never interrupted */
        return 0;
    if (c->tick != NULL && c->tick(c->tick_ctx)) {
        c->tick_stopped = true;
        return 1;
    }
    return atomic_load_explicit(&r->cancelled, memory_order_relaxed) ||
           (r->deadline_ms != 0 && clock_mono_ms() > r->deadline_ms);
}

struct sqlconn *sqlconn_new(sqlite3 *conn, bool (*tick)(void *ctx), void *ctx)
{
    struct sqlconn *c = MEM_NEW(struct sqlconn);
    c->conn = conn;
    c->tick = tick;
    c->tick_ctx = ctx;
    guard_install(&c->guard, conn);
    functions_register(conn, on_progress, c);
    sqlite3_progress_handler(conn, PROGRESS_OPS, on_progress, c);
    (void)sqlite3_limit(conn, SQLITE_LIMIT_SQL_LENGTH, (int)SQL_TEXT_MAX);
    (void)sqlite3_limit(conn, SQLITE_LIMIT_LENGTH, (int)(WIRE_FRAME_MAX - KIB(64)));
    (void)sqlite3_limit(conn, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LIKE_PATTERN_MAX);
    (void)sqlite3_extended_result_codes(conn, 1);
    return c;
}

static void stmt_free(struct sqlstmt *s)
{
    if (s == NULL)
        return;
    (void)sqlite3_finalize(s->stmt);
    free(s->sql);
    free(s);
}

void sqlconn_close(struct sqlconn *c)
{
    if (c == NULL)
        return;
    for (int i = 0; i < KEPT; i++)
        stmt_free(c->kept[i]);
    int rc = sqlite3_close(c->conn);
    CHECK(rc == SQLITE_OK); /* all statements are ours, and finalized */
    free(c);
}

sqlite3 *sqlconn_handle(struct sqlconn *c)
{
    return c->conn;
}

void sqlconn_allow_vacuum(struct sqlconn *c, bool on)
{
    c->guard.vacuum = on;
}

void sqlconn_forbid_transactions(struct sqlconn *c, bool on)
{
    c->forbid_transactions = on;
}

enum err sqlconn_fail(struct sqlconn *c, struct request *r, int rc)
{
    bool cancelled = atomic_load_explicit(&r->cancelled, memory_order_relaxed);
    int offset = sqlite3_error_offset(c->conn);
    if ((rc & 0xff) == SQLITE_INTERRUPT && c->tick_stopped) {
        request_fail(r, ERR_NOT_LEADER, "the leader changed while the statement ran");
        r->answer.sqlite_code = SQLITE_INTERRUPT;
        return ERR_NOT_LEADER;
    }
    if ((rc & 0xff) == SQLITE_INTERRUPT) {
        request_fail(r, cancelled ? ERR_CANCELLED : ERR_TIMEOUT,
                     cancelled ? "interrupted" : "the statement ran longer than its time limit");
        r->answer.sqlite_code = SQLITE_INTERRUPT;
        return r->answer.code;
    }
    if ((rc & 0xff) == SQLITE_FULL) {
        /* Lectern's own limits say which one and where; SQLite's temporary files do not. */
        request_fail(r, ERR_FULL,
                     err_text()[0] != 0 ? err_text()
                                        : "the disk for SQLite's temporary files is full: they are "
                                          "in the node's data directory, or in SQLITE_TMPDIR");
        r->answer.sqlite_code = rc;
        return ERR_FULL;
    }
    if (rc == SQLITE_IOERR_DATA && err_text()[0] != 0) { /* verify_vfs.c said which page */
        request_fail(r, ERR_CORRUPT, err_text());
        r->answer.sqlite_code = rc;
        return ERR_CORRUPT;
    }
    /* Only a refusal sets a reason; the code may be SQLITE_SCHEMA when SQLite tried twice. */
    bool refused = c->guard.reason[0] != 0;
    request_fail(r, refused ? ERR_FORBIDDEN : ERR_SQL,
                 refused ? c->guard.reason : sqlite3_errmsg(c->conn));
    rc = refused ? SQLITE_AUTH : rc;
    r->answer.sqlite_code = rc;
    r->answer.offset = offset;
    return r->answer.code;
}

enum err sqlconn_go_on(struct sqlconn *c, struct request *r)
{
    c->tick_stopped = false;
    c->running = r;
    bool stop = on_progress(c) != 0;
    c->running = NULL;
    return stop ? sqlconn_fail(c, r, SQLITE_INTERRUPT) : ERR_OK;
}

/* --- statements --- */

/* A statement of ours was let through the guard as ours: a request's with the same text is another
 * one, judged for itself. So is one that was let through before transactions were forbidden. */
static struct sqlstmt *find_kept(struct sqlconn *c, uint64_t hash, const char *sql, size_t n,
                                 bool ours)
{
    bool strict = !ours && c->forbid_transactions;
    for (int i = 0; i < KEPT; i++) {
        struct sqlstmt *s = c->kept[i];
        if (s != NULL && s->hash == hash && s->ours == ours && s->strict == strict &&
            s->sql_len == n && memcmp(s->sql, sql, n) == 0)
            return s;
    }
    return NULL;
}

static void keep(struct sqlconn *c, struct sqlstmt *s)
{
    int oldest = 0;
    for (int i = 0; i < KEPT; i++) {
        if (c->kept[i] == NULL) {
            oldest = i;
            break;
        }
        if (c->kept[i]->used < c->kept[oldest]->used)
            oldest = i;
    }
    stmt_free(c->kept[oldest]);
    c->kept[oldest] = s;
    s->kept = true;
}

static int prepare(struct sqlconn *c, const char *sql, size_t n, bool ours, struct sqlstmt **out,
                   const char **tail)
{
    uint64_t hash = hash64(sql, n, 0);
    struct sqlstmt *s = find_kept(c, hash, sql, n, ours);
    *tail = sql + n;
    *out = s;
    if (s != NULL) {
        s->used = ++c->clock;
        return SQLITE_OK;
    }
    sqlite3_stmt *stmt = NULL;
    /* Only while preparing: FTS3's optimize() runs savepoints of its own while it is stepped. When
     * SQLite prepares a statement anew it is one that was let through here. */
    c->guard.no_transaction_control = !ours && c->forbid_transactions;
    int rc = sqlite3_prepare_v3(c->conn, sql, (int)n, 0, &stmt, tail);
    c->guard.no_transaction_control = false;
    if (rc != SQLITE_OK || stmt == NULL)
        return rc;
    s = MEM_NEW(struct sqlstmt);
    s->stmt = stmt;
    s->hash = hash;
    s->ours = ours;
    s->strict = !ours && c->forbid_transactions;
    s->sql = mem_alloc(n);
    memcpy(s->sql, sql, n);
    s->sql_len = n;
    s->used = ++c->clock;
    /* More text behind the statement is refused by the caller: do not keep such a text. */
    if (n <= KEPT_SQL_MAX &&
        sql_skip_space(*tail, (size_t)(sql + n - *tail)) == (size_t)(sql + n - *tail))
        keep(c, s);
    *out = s;
    return SQLITE_OK;
}

int sqlconn_exec(struct sqlconn *c, const char *sql)
{
    struct sqlstmt *s;
    const char *tail;
    int rc = prepare(c, sql, strlen(sql), true, &s, &tail);
    if (rc != SQLITE_OK)
        return rc;
    CHECK(s != NULL);
    rc = sqlite3_step(s->stmt);
    while (rc == SQLITE_ROW)
        rc = sqlite3_step(s->stmt);
    int reset = sqlite3_reset(s->stmt);
    if (!s->kept)
        stmt_free(s);
    return rc == SQLITE_DONE ? SQLITE_OK : reset;
}

static int bind_value(sqlite3_stmt *stmt, int at, const struct wire_value *v)
{
    switch (v->type) {
    case WIRE_NULL:
        return sqlite3_bind_null(stmt, at);
    case WIRE_INTEGER:
        return sqlite3_bind_int64(stmt, at, v->integer);
    case WIRE_FLOAT:
        return sqlite3_bind_double(stmt, at, v->real);
    /* The bytes live in the request's frame, and the request outlives the statement's run. An empty
     * blob must not become NULL: SQLite takes a NULL pointer for that. */
    case WIRE_TEXT:
        return sqlite3_bind_text64(stmt, at, v->text.len == 0 ? "" : v->text.bytes, v->text.len,
                                   SQLITE_STATIC, SQLITE_UTF8);
    case WIRE_BLOB:
        return sqlite3_bind_blob64(stmt, at, v->text.len == 0 ? "" : v->text.bytes, v->text.len,
                                   SQLITE_STATIC);
    }
    UNREACHABLE("the decoder checked the type");
}

/* Index of the parameter NAME, with or without its : @ $; 0 when there is none. */
static int parameter_index(sqlite3_stmt *stmt, const char *name, size_t n)
{
    int count = sqlite3_bind_parameter_count(stmt);
    for (int i = 1; i <= count; i++) {
        const char *have = sqlite3_bind_parameter_name(stmt, i);
        if (have == NULL)
            continue;
        if (strlen(have) == n && memcmp(have, name, n) == 0)
            return i;
        if (strlen(have) == n + 1 && memcmp(have + 1, name, n) == 0)
            return i;
    }
    return 0;
}

static enum err refuse_parameters(struct request *r, const char *text)
{
    request_fail(r, ERR_MISUSE, text);
    r->answer.sqlite_code = SQLITE_RANGE;
    return ERR_MISUSE;
}

static bool has_bit(const uint8_t *bits, int i)
{
    return (bits[i / 8] & 1 << i % 8) != 0;
}

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

/* BOUND: one bit for each parameter that has a value, from 1. */
static enum err check_bound(struct sqlstmt *s, struct request *r, const uint8_t *bound, int count)
{
    for (int i = 1; i <= count; i++) {
        if (has_bit(bound, i))
            continue;
        const char *name = sqlite3_bind_parameter_name(s->stmt, i);
        char text[120];
        (void)snprintf(text, sizeof text,
                       "the statement has %d parameter%s: no value for %d%s%.60s", count,
                       plural(count), i, name == NULL ? "" : ", ", name == NULL ? "" : name);
        return refuse_parameters(r, text);
    }
    return ERR_OK;
}

static enum err bind_all(struct sqlconn *c, struct sqlstmt *s, struct request *r)
{
    struct rd params = r->statement.params;
    int position = 0, count = sqlite3_bind_parameter_count(s->stmt);
    uint8_t bound[SQL_PARAMS_MAX / 8 + 1];
    if (count > (int)SQL_PARAMS_MAX) /* Debian's SQLite would take more */
        return refuse_parameters(r, "the statement has too many parameters, or a number too large");
    memset(bound, 0, (size_t)count / 8 + 1);
    (void)sqlite3_clear_bindings(s->stmt);
    for (uint32_t i = 0; i < r->statement.n_params; i++) {
        const char *name;
        size_t name_len;
        struct wire_value v;
        enum err e = wire_get_param(&params, &name, &name_len, &v);
        CHECK(e == ERR_OK); /* wire_get_query checked them all */
        int at = name_len == 0 ? ++position : parameter_index(s->stmt, name, name_len);
        if (at == 0 || at > count) {
            char text[160], which[80] = "";
            if (name_len > 0)
                (void)snprintf(which, sizeof which, " (\"%.*s\")",
                               (int)(name_len > 60 ? 60 : name_len), name);
            (void)snprintf(text, sizeof text,
                           "the statement has %d parameter%s, and no place for value %u%s", count,
                           plural(count), i + 1, which);
            return refuse_parameters(r, text);
        }
        int rc = bind_value(s->stmt, at, &v);
        if (rc != SQLITE_OK)
            return sqlconn_fail(c, r, rc);
        bound[at / 8] |= (uint8_t)(1 << at % 8);
    }
    return (r->query.flags & WIRE_ALL_PARAMETERS) == 0 ? ERR_OK : check_bound(s, r, bound, count);
}

static enum err refuse_tail(struct request *r)
{
    request_fail(r, ERR_MISUSE, "only one statement for each request: there is more text after it");
    r->answer.sqlite_code = SQLITE_MISUSE;
    return ERR_MISUSE;
}

static bool is_pragma(const char *sql, size_t n)
{
    return n >= 6 && strncasecmp(sql, "PRAGMA", 6) == 0;
}

/* SQLite compiles from the schema that this connection last read, and finds out at the first step
 * that another connection has changed it. A description is never stepped, and some PRAGMAs are
 * compiled into nothing when there are no tables: both need the schema of now, and no program that
 * was compiled before. */
static void forget_old_schema(struct sqlconn *c, const char *sql, size_t n)
{
    struct sqlstmt *s = find_kept(c, hash64(sql, n, 0), sql, n, false);
    for (int i = 0; s != NULL && i < KEPT; i++)
        if (c->kept[i] == s)
            c->kept[i] = NULL;
    stmt_free(s);
    (void)sqlconn_exec(c, "SELECT 1 FROM sqlite_schema LIMIT 1"); /* an error comes again below */
}

/* Prepares (or finds) the first statement of R's text; *s = NULL: there is none. TAIL: what is
 * behind it. An error is in R's answer. */
static enum err prepare_request(struct sqlconn *c, struct request *r, struct sqlstmt **s,
                                const char **tail)
{
    const struct wire_statement *w = &r->statement;
    size_t skipped = sql_skip_space(w->sql, w->sql_len);
    *s = NULL;
    guard_reset(&c->guard);
    c->tick_stopped = false;
    c->running = r;
    (void)err_fail(ERR_OK, "%s", ""); /* what stands there later is of this statement */
    if (w->sql_len > SQL_TEXT_MAX) {
        request_fail(r, ERR_TOO_BIG, "the statement's text is longer than 1 MiB");
        return ERR_TOO_BIG;
    }
    const char *sql = w->sql + skipped;
    size_t n = w->sql_len - skipped;
    if (r->is_describe || is_pragma(sql, n))
        forget_old_schema(c, sql, n);
    int rc = prepare(c, sql, n, false, s, tail);
    /* SQLite says "no such table" when it cannot read whether its schema is still the newest. */
    if (rc == SQLITE_ERROR && err_text()[0] != 0)
        rc = SQLITE_IOERR_DATA;
    return rc == SQLITE_OK ? ERR_OK : sqlconn_fail(c, r, rc);
}

enum err sqlconn_begin(struct sqlconn *c, struct request *r, bool read_only, struct sqlstmt **stmt)
{
    struct sqlstmt *s;
    const char *tail, *end = r->statement.sql + r->statement.sql_len;
    *stmt = NULL;
    enum err e = prepare_request(c, r, &s, &tail);
    if (e == ERR_OK && s == NULL) {
        c->running = NULL;
        return ERR_OK;
    }
    if (e == ERR_OK && sql_skip_space(tail, (size_t)(end - tail)) != (size_t)(end - tail))
        e = refuse_tail(r);
    if (e == ERR_OK && read_only && !sqlite3_stmt_readonly(s->stmt)) {
        r->answer.not_read_only = true;
        e = ERR_FORBIDDEN;
    }
    if (e == ERR_OK && r->no_room != NULL && !sqlite3_stmt_readonly(s->stmt)) {
        request_fail(r, ERR_FULL, r->no_room);
        e = ERR_FULL;
    }
    if (e == ERR_OK)
        e = bind_all(c, s, r);
    if (e != ERR_OK) {
        c->running = NULL;
        if (s != NULL && !s->kept)
            stmt_free(s);
        return e;
    }
    s->columns_sent = s->row_waits = false;
    s->total_changes = sqlite3_total_changes64(c->conn);
    /* Inside a transaction of its own the connection knows better than the client, which may have
     * sent this before it had the answer to the last one. */
    if (!r->interactive || sqlite3_get_autocommit(c->conn))
        sqlite3_set_last_insert_rowid(c->conn, r->last_insert_rowid);
    *stmt = s;
    return ERR_OK;
}

/* --- rows --- */

static void put_columns(struct sqlstmt *s, struct request *r)
{
    struct buf *out = &r->answer.out;
    size_t begun = wire_begin(out, WIRE_COLUMNS, r->id);
    buf_put_u32(out, (uint32_t)s->columns);
    for (int i = 0; i < s->columns; i++) {
        const char *name = sqlite3_column_name(s->stmt, i);
        const char *type = sqlite3_column_decltype(s->stmt, i);
        buf_put_cstr(out, name == NULL ? "" : name);
        buf_put_cstr(out, type == NULL ? "" : type);
    }
    wire_end(out, begun);
    s->columns_sent = true;
}

static void put_row(struct sqlstmt *s, struct buf *out)
{
    for (int i = 0; i < s->columns; i++) {
        struct wire_value v = {.type = WIRE_NULL};
        switch (sqlite3_column_type(s->stmt, i)) {
        case SQLITE_INTEGER:
            v.type = WIRE_INTEGER;
            v.integer = sqlite3_column_int64(s->stmt, i);
            break;
        case SQLITE_FLOAT:
            v.type = WIRE_FLOAT;
            v.real = sqlite3_column_double(s->stmt, i);
            break;
        case SQLITE_TEXT:
            v.type = WIRE_TEXT;
            v.text.bytes = (const char *)sqlite3_column_text(s->stmt, i);
            v.text.len = (uint32_t)sqlite3_column_bytes(s->stmt, i);
            break;
        case SQLITE_BLOB:
            v.type = WIRE_BLOB;
            v.text.bytes = sqlite3_column_blob(s->stmt, i);
            v.text.len = (uint32_t)sqlite3_column_bytes(s->stmt, i);
            break;
        default:
            break;
        }
        wire_put_value(out, &v);
    }
}

/* One ROWS frame of about WIRE_ROWS_BLOCK bytes. Returns SQLite's code of the last step. */
static int put_rows_frame(struct sqlstmt *s, struct request *r, int rc)
{
    struct buf *out = &r->answer.out;
    size_t begun = wire_begin(out, WIRE_ROWS, r->id), count_at = out->len, start = out->len;
    uint32_t rows = 0;
    buf_put_u32(out, 0);
    while (rc == SQLITE_ROW && out->len - start < WIRE_ROWS_BLOCK && out->failed == ERR_OK) {
        put_row(s, out);
        rows++;
        rc = sqlite3_step(s->stmt);
    }
    buf_patch_u32(out, count_at, rows);
    wire_end(out, begun);
    if (out->len - start > WIRE_FRAME_MAX - WIRE_HEAD_BYTES)
        out->failed = ERR_TOO_BIG; /* one row of several huge values */
    return rc;
}

static void note_end(struct sqlconn *c, struct sqlstmt *s, struct request *r)
{
    bool changed = sqlite3_total_changes64(c->conn) != s->total_changes;
    r->answer.changes = changed ? sqlite3_changes64(c->conn) : 0;
    r->answer.last_insert_rowid = sqlite3_last_insert_rowid(c->conn);
}

enum err sqlconn_rows(struct sqlconn *c, struct sqlstmt *s, struct request *r, size_t block,
                      bool *more)
{
    struct buf *out = &r->answer.out;
    *more = false;
    if (atomic_load_explicit(&r->cancelled, memory_order_relaxed))
        return sqlconn_fail(c, r, SQLITE_INTERRUPT);
    c->running = r;
    int rc = s->row_waits ? SQLITE_ROW : sqlite3_step(s->stmt);
    /* Asked only now: the first step may have prepared the statement anew for a changed schema. */
    s->columns = sqlite3_column_count(s->stmt);
    if (!s->columns_sent && s->columns > 0 && (rc == SQLITE_ROW || rc == SQLITE_DONE))
        put_columns(s, r);
    while (rc == SQLITE_ROW && out->len < block && out->failed == ERR_OK)
        rc = put_rows_frame(s, r, rc);
    s->row_waits = rc == SQLITE_ROW;
    c->running = NULL;
    if (out->failed != ERR_OK) {
        request_fail(r, ERR_TOO_BIG, "the answer is over the size limit");
        return ERR_TOO_BIG;
    }
    if (rc == SQLITE_ROW) {
        *more = true;
        return ERR_OK;
    }
    if (rc != SQLITE_DONE)
        return sqlconn_fail(c, r, sqlite3_extended_errcode(c->conn));
    note_end(c, s, r);
    return ERR_OK;
}

void sqlconn_end(struct sqlconn *c, struct sqlstmt *s)
{
    c->running = NULL;
    if (s == NULL)
        return;
    (void)sqlite3_reset(s->stmt);
    (void)sqlite3_clear_bindings(s->stmt); /* they point into the request, which goes away */
    if (!s->kept)
        stmt_free(s);
}

enum err sqlconn_run(struct sqlconn *c, struct request *r, size_t max, bool *writes)
{
    struct sqlstmt *s;
    bool more;
    *writes = false;
    enum err e = sqlconn_begin(c, r, false, &s);
    if (e != ERR_OK || s == NULL)
        return e;
    *writes = !sqlite3_stmt_readonly(s->stmt);
    e = sqlconn_rows(c, s, r, max, &more);
    if (e == ERR_OK && more) {
        request_fail(r, ERR_TOO_BIG,
                     "the statement returns more rows than a write may (answer-bytes)");
        e = ERR_TOO_BIG;
    }
    sqlconn_end(c, s);
    return e;
}

/* --- describing --- */

static void put_description(struct request *r, sqlite3_stmt *stmt, uint32_t used)
{
    struct buf params, columns;
    struct wire_description d = {.used = used};
    buf_init(&params, WIRE_FRAME_MAX);
    buf_init(&columns, WIRE_FRAME_MAX);
    if (stmt == NULL) {
        d.flags = WIRE_STATEMENT_READONLY | WIRE_STATEMENT_EMPTY;
    } else {
        d.flags = (uint8_t)((sqlite3_stmt_readonly(stmt) ? WIRE_STATEMENT_READONLY : 0) |
                            (sqlite3_stmt_isexplain(stmt) ? WIRE_STATEMENT_EXPLAIN : 0));
        d.n_params = (uint32_t)sqlite3_bind_parameter_count(stmt);
        d.n_columns = (uint32_t)sqlite3_column_count(stmt);
    }
    for (int i = 1; i <= (int)d.n_params; i++) {
        const char *name = sqlite3_bind_parameter_name(stmt, i);
        buf_put_cstr(&params, name == NULL ? "" : name);
    }
    for (int i = 0; i < (int)d.n_columns; i++) {
        const char *name = sqlite3_column_name(stmt, i);
        const char *type = sqlite3_column_decltype(stmt, i);
        buf_put_cstr(&columns, name == NULL ? "" : name);
        buf_put_cstr(&columns, type == NULL ? "" : type);
    }
    d.params = rd_of(params.data, params.len);
    d.columns = rd_of(columns.data, columns.len);
    if (buf_status(&params) == ERR_OK && buf_status(&columns) == ERR_OK)
        wire_put_description(&r->answer.out, r->id, &d);
    else
        r->answer.out.failed = ERR_TOO_BIG;
    buf_fini(&params);
    buf_fini(&columns);
}

enum err sqlconn_describe(struct sqlconn *c, struct request *r)
{
    struct sqlstmt *s;
    const char *sql = r->statement.sql, *tail;
    enum err e = prepare_request(c, r, &s, &tail);
    c->running = NULL;
    if (e != ERR_OK)
        return e;
    put_description(r, s == NULL ? NULL : s->stmt,
                    (uint32_t)(s == NULL ? r->statement.sql_len : (size_t)(tail - sql)));
    if (s != NULL && !s->kept)
        stmt_free(s);
    e = buf_status(&r->answer.out);
    if (e != ERR_OK)
        request_fail(r, e, "the description is over the size limit");
    return e;
}
