/* Room: tests. Thread: any. Owns: nothing. */
#include "tests/unit/client/wire_samples.h"

#include "base/sizes.h"
#include "client/wire_cluster.h"
#include "tests/lib/test.h"

#include <string.h>

struct wire_id sample_id(void)
{
    return (struct wire_id){.stream = SAMPLE_STREAM, .request = SAMPLE_REQUEST};
}

struct wire_frame sample_frame(const struct buf *b)
{
    struct wire_frame f;
    size_t used;
    EXPECT_OK(buf_status(b));
    EXPECT_OK(wire_next(b->data, b->len, WIRE_FRAME_MAX, &f, &used));
    EXPECT_EQ(used, b->len);
    return f;
}

/* --- one of each ------------------------------------------------------------------------------ */

static const struct wire_value values[] = {
    {.type = WIRE_NULL},
    {.type = WIRE_INTEGER, .integer = INT64_MIN},
    {.type = WIRE_FLOAT, .real = -0.5},
    {.type = WIRE_TEXT, .text = {"h\0i", 3}},
    {.type = WIRE_BLOB, .text = {NULL, 0}},
};
#define N_VALUES 5u

static void put_hello(struct buf *b)
{
    wire_put_hello(b, "somebody", "main");
}

static void put_statement(struct buf *b, uint32_t keep, const char *sql, uint32_t n_params)
{
    size_t begun = wire_begin_statement(b, keep, sql, strlen(sql));
    for (uint32_t i = 0; i < n_params; i++)
        wire_put_param(b, i == 3 ? ":name" : NULL, &values[i]);
    wire_end_statement(b, begun, n_params);
}

void put_sample_query(struct buf *b)
{
    struct wire_query q = {.level = WIRE_BOUNDED,
                           .flags = WIRE_FORWARDED,
                           .bound_ms = 1500,
                           .timeout_ms = 9,
                           .min_seq = 1ull << 40,
                           .last_insert_rowid = -77};
    size_t begun = wire_begin_query(b, WIRE_QUERY, sample_id(), &q);
    put_statement(b, 6, "SELECT ?", N_VALUES);
    wire_end_query(b, begun, 1);
}

static void put_batch(struct buf *b)
{
    struct wire_query q = {
        .level = WIRE_SESSION,
        .flags = WIRE_NUMBERED | WIRE_FOREIGN_KEYS_OFF,
        .number = {
            .writer = "0123456789abcde", .number = 1ull << 33, .acked = 7, .since = 1ull << 34}};
    size_t begun = wire_begin_query(b, WIRE_BATCH, sample_id(), &q);
    put_statement(b, 0, "INSERT INTO t VALUES (?, ?)", 2);
    put_statement(b, 9, "", N_VALUES);
    put_statement(b, 0, "", 0);
    wire_end_query(b, begun, 3);
}

static void put_resolve(struct buf *b)
{
    struct wire_query q = {.flags = WIRE_NUMBERED | WIRE_RESOLVE,
                           .number = {.number = 2, .acked = 1}};
    size_t begun = wire_begin_query(b, WIRE_QUERY, sample_id(), &q);
    put_statement(b, 0, "COMMIT", 0);
    wire_end_query(b, begun, 1);
}

static void put_describe(struct buf *b)
{
    struct wire_query q = {.level = WIRE_ANY};
    size_t begun = wire_begin_query(b, WIRE_DESCRIBE, sample_id(), &q);
    put_statement(b, 1, "SELECT 1; SELECT 2", 0);
    wire_end_query(b, begun, 1);
}

static void put_status(struct buf *b)
{
    wire_put_status(b, sample_id());
}

static void put_cancel(struct buf *b)
{
    wire_put_cancel(b, sample_id());
}

static void put_cluster(struct buf *b)
{
    struct wire_cluster c = {.op = WIRE_CLUSTER_ADD, .id = 3, .address = "[::1]:7801"};
    wire_put_cluster(b, sample_id(), &c);
}

static void put_credit(struct buf *b)
{
    wire_put_credit(b, SAMPLE_STREAM, WIRE_WINDOW / 2);
}

static void put_close(struct buf *b)
{
    wire_put_close(b, SAMPLE_STREAM);
}

static void put_forget(struct buf *b)
{
    wire_put_forget(b, 12);
}

static void put_ping(struct buf *b)
{
    wire_put_ping(b, SAMPLE_REQUEST);
}

static void put_welcome(struct buf *b)
{
    struct wire_welcome w = {.version = WIRE_VERSION,
                             .node_id = 1,
                             .cluster_id = UINT64_MAX,
                             .seq = 1ull << 42,
                             .server = "0.1",
                             .server_len = 3,
                             .sqlite = "3.40.1",
                             .sqlite_len = 6};
    wire_put_welcome(b, &w);
}

static void put_columns(struct buf *b)
{
    static const char *const names[N_VALUES] = {"a", "", "c d", "e", "f"};
    wire_put_columns(b, sample_id(), names, N_VALUES);
}

static void put_rows(struct buf *b)
{
    size_t begun = wire_begin(b, WIRE_ROWS, sample_id());
    buf_put_u32(b, 2);
    for (unsigned i = 0; i < 2 * N_VALUES; i++)
        wire_put_value(b, &values[i % N_VALUES]);
    wire_end(b, begun);
}

static void put_step(struct buf *b)
{
    wire_put_step(b, sample_id(), &(struct wire_step){.changes = 3, .last_insert_rowid = -1});
}

static void put_done(struct buf *b)
{
    struct wire_done d = {.seq = 9, .changes = -1, .last_insert_rowid = 5, .flags = 7};
    wire_put_done(b, sample_id(), &d);
}

static void put_error(struct buf *b)
{
    struct wire_error e = {.code = ERR_TXN_LOST,
                           .sqlite_code = 2067,
                           .offset = -1,
                           .seq = 1ull << 41,
                           .flags = WIRE_IN_TRANSACTION,
                           .statement = 9999,
                           .message = "why",
                           .message_len = 3};
    wire_put_error(b, sample_id(), &e);
}

static void put_description(struct buf *b)
{
    struct buf params, columns;
    struct wire_description d = {
        .used = 9, .flags = WIRE_STATEMENT_READONLY, .n_params = 2, .n_columns = 1};
    buf_init(&params, 100);
    buf_init(&columns, 100);
    buf_put_cstr(&params, "");
    buf_put_cstr(&params, ":name");
    buf_put_cstr(&columns, "count(*)");
    buf_put_cstr(&columns, "INTEGER");
    d.params = rd_of(params.data, params.len);
    d.columns = rd_of(columns.data, columns.len);
    wire_put_description(b, sample_id(), &d);
    buf_fini(&params);
    buf_fini(&columns);
}

static void put_pong(struct buf *b)
{
    struct wire_pong p = {.seq = 1ull << 50, .leader_id = 3, .serves = 1};
    wire_put_pong(b, SAMPLE_REQUEST, &p);
}

const struct sample samples[] = {
    {"hello", put_hello},       {"query", put_sample_query},
    {"batch", put_batch},       {"resolve", put_resolve},
    {"describe", put_describe}, {"status", put_status},
    {"cancel", put_cancel},     {"cluster", put_cluster},
    {"credit", put_credit},     {"close", put_close},
    {"forget", put_forget},     {"ping", put_ping},
    {"welcome", put_welcome},   {"columns", put_columns},
    {"rows", put_rows},         {"step", put_step},
    {"done", put_done},         {"error", put_error},
    {"pong", put_pong},         {"description", put_description},
};
const unsigned n_samples = sizeof samples / sizeof samples[0];

/* --- the decoder ------------------------------------------------------------------------------ */

struct bounds {
    const uint8_t *bytes;
    size_t n;
};

static void inside(const struct bounds *b, const void *p, size_t n)
{
    const uint8_t *at = p;
    if (n > 0)
        EXPECT(at >= b->bytes && n <= b->n && at <= b->bytes + (b->n - n));
}

static void value_inside(const struct bounds *b, const struct wire_value *v)
{
    EXPECT(v->type <= WIRE_BLOB);
    if (v->type == WIRE_TEXT || v->type == WIRE_BLOB)
        inside(b, v->text.bytes, v->text.len);
}

static void statement_inside(const struct bounds *b, struct rd *statements)
{
    struct wire_statement s;
    EXPECT_OK(wire_get_statement(statements, &s));
    EXPECT(s.sql_len <= SQL_TEXT_MAX && s.n_params <= SQL_PARAMS_MAX);
    inside(b, s.sql, s.sql_len);
    for (uint32_t i = 0; i < s.n_params; i++) {
        struct wire_value v;
        const char *name;
        size_t n;
        EXPECT_OK(wire_get_param(&s.params, &name, &n, &v));
        inside(b, name, n);
        value_inside(b, &v);
    }
    EXPECT_EQ(rd_left(&s.params), 0);
}

static enum err decode_query(struct wire_frame *f, const struct bounds *b)
{
    struct wire_query q;
    TRY(wire_get_query(f, &q));
    EXPECT(q.n_statements > 0 && q.n_statements <= BATCH_STATEMENTS_MAX);
    EXPECT(f->type == WIRE_BATCH || q.n_statements == 1);
    EXPECT((q.flags & WIRE_NUMBERED) == 0 || q.number.acked < q.number.number);
    EXPECT((q.flags & WIRE_RESOLVE) == 0 || (q.flags & WIRE_NUMBERED) != 0);
    for (uint32_t i = 0; i < q.n_statements; i++)
        statement_inside(b, &q.statements);
    EXPECT_EQ(rd_left(&q.statements), 0);
    return ERR_OK;
}

static void texts_inside(const struct bounds *b, struct rd r, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        size_t len;
        const char *s = rd_str(&r, &len);
        EXPECT(!r.failed);
        inside(b, s, len);
    }
    EXPECT_EQ(rd_left(&r), 0);
}

static enum err decode_columns(struct wire_frame *f, const struct bounds *b)
{
    struct rd columns;
    uint32_t n;
    TRY(wire_get_columns(f, &n, &columns));
    texts_inside(b, columns, 2ull * n);
    return ERR_OK;
}

static enum err decode_rows(struct wire_frame *f, const struct bounds *b)
{
    struct rd r;
    uint32_t rows;
    TRY(wire_get_rows(f, N_VALUES, &rows, &r));
    for (uint64_t i = 0; i < (uint64_t)rows * N_VALUES; i++) {
        struct wire_value v;
        EXPECT_OK(wire_get_value(&r, &v));
        value_inside(b, &v);
    }
    EXPECT_EQ(rd_left(&r), 0);
    return ERR_OK;
}

static enum err decode_description(struct wire_frame *f, const struct bounds *b)
{
    struct wire_description d;
    TRY(wire_get_description(f, &d));
    texts_inside(b, d.params, d.n_params);
    texts_inside(b, d.columns, 2ull * d.n_columns);
    return ERR_OK;
}

static enum err decode_error(struct wire_frame *f, const struct bounds *b)
{
    struct wire_error e;
    TRY(wire_get_error(f, &e));
    EXPECT(e.code != ERR_OK);
    inside(b, e.message, e.message_len);
    return ERR_OK;
}

static enum err decode_greeting(struct wire_frame *f, const struct bounds *b)
{
    struct wire_hello h;
    struct wire_welcome w;
    if (f->type == WIRE_HELLO) {
        TRY(wire_get_hello(f, &h));
        inside(b, h.client, h.client_len);
        inside(b, h.database, h.database_len);
    } else {
        TRY(wire_get_welcome(f, &w));
        inside(b, w.server, w.server_len);
        inside(b, w.sqlite, w.sqlite_len);
    }
    return ERR_OK;
}

static enum err decode_numbers(struct wire_frame *f)
{
    uint32_t n;
    struct wire_step step;
    struct wire_done done;
    struct wire_pong pong;
    struct wire_cluster cluster;
    if (f->type == WIRE_CREDIT)
        return wire_get_credit(f, &n);
    if (f->type == WIRE_FORGET)
        return wire_get_forget(f, &n);
    if (f->type == WIRE_STEP)
        return wire_get_step(f, &step);
    if (f->type == WIRE_DONE)
        return wire_get_done(f, &done);
    if (f->type == WIRE_PONG)
        return wire_get_pong(f, &pong);
    if (f->type == WIRE_CLUSTER)
        return wire_get_cluster(f, &cluster);
    return wire_get_nothing(f);
}

enum err sample_decode(struct wire_frame f, const uint8_t *bytes, size_t n)
{
    struct bounds b = {bytes, n};
    inside(&b, f.body.p, rd_left(&f.body));
    if (f.type == WIRE_HELLO || f.type == WIRE_WELCOME)
        return decode_greeting(&f, &b);
    if (f.type == WIRE_QUERY || f.type == WIRE_BATCH || f.type == WIRE_DESCRIBE)
        return decode_query(&f, &b);
    if (f.type == WIRE_COLUMNS)
        return decode_columns(&f, &b);
    if (f.type == WIRE_ROWS)
        return decode_rows(&f, &b);
    if (f.type == WIRE_DESCRIPTION)
        return decode_description(&f, &b);
    if (f.type == WIRE_ERROR)
        return decode_error(&f, &b);
    return decode_numbers(&f);
}
