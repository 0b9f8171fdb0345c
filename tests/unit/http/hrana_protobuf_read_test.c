/* Room: tests. node/http/hrana_protobuf_read: requests of Hrana 3 from Protobuf. What is wrong with
 * a field alone is in protobuf_test.c, what the nodes say of it in
 * tests/cluster/test_hrana_protobuf.py. */
#include "base/rng.h"
#include "base/sizes.h"
#include "node/http/protobuf_write.h"
#include "tests/lib/test.h"
#include "tests/unit/http/hrana_show.h"

#include <stdlib.h>
#include <string.h>

/* --- the same as JSON and as Protobuf --- */

struct both {
    struct rng rng;
    struct buf text, bytes;
    struct json_writer j;
};

static void both_init(struct both *b, uint64_t seed)
{
    *b = (struct both){.rng = {seed}};
    buf_init(&b->text, MIB(1));
    buf_init(&b->bytes, MIB(1));
    b->j = json_writer_of(&b->text);
}

static void both_fini(struct both *b)
{
    buf_fini(&b->text);
    buf_fini(&b->bytes);
}

static void put_text(struct both *b, const char *key, uint32_t tag, const char *text)
{
    json_key(&b->j, key);
    json_cstr(&b->j, text);
    protobuf_put_cstr(&b->bytes, tag, text);
}

static void put_number(struct both *b, const char *key, uint32_t tag, int32_t v)
{
    json_key(&b->j, key);
    json_int(&b->j, v);
    protobuf_put_int32(&b->bytes, tag, v);
}

static void put_seq(struct both *b, uint32_t tag)
{
    uint64_t seq = rng_u64(&b->rng);
    if (rng_once_in(&b->rng, 2))
        return;
    json_key(&b->j, "replication_index");
    json_uint_text(&b->j, seq);
    protobuf_put_uint(&b->bytes, tag, seq);
}

static void put_type(struct both *b, const char *type)
{
    json_key(&b->j, "type");
    json_cstr(&b->j, type);
}

static const char *any_text(struct both *b)
{
    static const char *const texts[] = {"", "x", "SELECT ?", "\xc3\xa4\xf0\x9f\x98\x80 \"\\\n"};
    return texts[rng_below(&b->rng, 4)];
}

static void put_value(struct both *b, uint32_t tag)
{
    int64_t whole = (int64_t)(rng_u64(&b->rng) >> rng_below(&b->rng, 64));
    double real = (double)whole / 3;
    const char *text = any_text(b);
    size_t value = protobuf_begin(&b->bytes, tag);
    json_begin_object(&b->j);
    switch (rng_below(&b->rng, 5)) {
    case 0:
        put_type(b, "null");
        protobuf_put_bytes(&b->bytes, 1, NULL, 0);
        break;
    case 1:
        put_type(b, "integer");
        whole = rng_once_in(&b->rng, 2) ? -whole : whole;
        json_key(&b->j, "value");
        json_int_text(&b->j, whole);
        protobuf_put_sint(&b->bytes, 2, whole);
        break;
    case 2:
        put_type(b, "float");
        json_key(&b->j, "value");
        json_real(&b->j, real);
        protobuf_put_double(&b->bytes, 3, real);
        break;
    case 3:
        put_type(b, "text");
        put_text(b, "value", 4, text);
        break;
    default:
        put_type(b, "blob");
        json_key(&b->j, "base64");
        json_base64(&b->j, text, strlen(text));
        protobuf_put_bytes(&b->bytes, 5, text, strlen(text));
        break;
    }
    json_end_object(&b->j);
    protobuf_end(&b->bytes, value);
}

static void put_args(struct both *b)
{
    json_key(&b->j, "args");
    json_begin_array(&b->j);
    for (uint64_t n = rng_below(&b->rng, 4); n > 0; n--)
        put_value(b, 3);
    json_end_array(&b->j);
    json_key(&b->j, "named_args");
    json_begin_array(&b->j);
    for (uint64_t n = rng_below(&b->rng, 3); n > 0; n--) {
        size_t arg = protobuf_begin(&b->bytes, 4);
        json_begin_object(&b->j);
        put_text(b, "name", 1, any_text(b));
        json_key(&b->j, "value");
        put_value(b, 2);
        json_end_object(&b->j);
        protobuf_end(&b->bytes, arg);
    }
    json_end_array(&b->j);
}

/* `sql` or `sql_id`, in the fields TAG and the next. */
static void put_sql(struct both *b, uint32_t tag)
{
    if (rng_once_in(&b->rng, 3))
        put_number(b, "sql_id", tag + 1, (int32_t)rng_u64(&b->rng));
    else
        put_text(b, "sql", tag, any_text(b));
}

static void put_stmt(struct both *b, uint32_t tag)
{
    size_t stmt = protobuf_begin(&b->bytes, tag);
    bool want_rows = rng_once_in(&b->rng, 2);
    json_key(&b->j, "stmt");
    json_begin_object(&b->j);
    put_sql(b, 1);
    put_args(b);
    if (rng_once_in(&b->rng, 2)) {
        json_key(&b->j, "want_rows");
        json_bool(&b->j, want_rows);
        protobuf_put_uint(&b->bytes, 5, want_rows);
    }
    put_seq(b, 6);
    json_end_object(&b->j);
    protobuf_end(&b->bytes, stmt);
}

static void put_condition(struct both *b, uint32_t tag, uint32_t own, int depth)
{
    size_t condition = protobuf_begin(&b->bytes, tag);
    uint64_t kind = rng_below(&b->rng, depth < 5 ? 6 : 3);
    json_begin_object(&b->j);
    if (kind < 2 && own > 0) {
        put_type(b, kind == 0 ? "ok" : "error");
        put_number(b, "step", kind == 0 ? 1 : 2, (int32_t)rng_below(&b->rng, own));
    } else if (kind < 3) {
        put_type(b, "is_autocommit");
        protobuf_put_bytes(&b->bytes, 6, NULL, 0);
    } else if (kind == 3) {
        put_type(b, "not");
        json_key(&b->j, "cond");
        put_condition(b, 3, own, depth + 1);
    } else {
        size_t list = protobuf_begin(&b->bytes, kind == 4 ? 4 : 5);
        put_type(b, kind == 4 ? "and" : "or");
        json_key(&b->j, "conds");
        json_begin_array(&b->j);
        for (uint64_t n = rng_below(&b->rng, 4); n > 0; n--)
            put_condition(b, 1, own, depth + 1);
        json_end_array(&b->j);
        protobuf_end(&b->bytes, list);
    }
    json_end_object(&b->j);
    protobuf_end(&b->bytes, condition);
}

static void put_batch(struct both *b, uint32_t tag)
{
    size_t batch = protobuf_begin(&b->bytes, tag);
    uint32_t n = (uint32_t)rng_below(&b->rng, 5);
    json_key(&b->j, "batch");
    json_begin_object(&b->j);
    put_seq(b, 2);
    json_key(&b->j, "steps");
    json_begin_array(&b->j);
    for (uint32_t i = 0; i < n; i++) {
        size_t step = protobuf_begin(&b->bytes, 1);
        json_begin_object(&b->j);
        put_stmt(b, 2);
        if (rng_once_in(&b->rng, 2)) {
            json_key(&b->j, "condition");
            put_condition(b, 1, i, 0);
        }
        json_end_object(&b->j);
        protobuf_end(&b->bytes, step);
    }
    json_end_array(&b->j);
    json_end_object(&b->j);
    protobuf_end(&b->bytes, batch);
}

/* Of those that are the same over HTTP and, but for stream_id, over a WebSocket. */
static void put_request(struct both *b, bool websocket)
{
    static const struct {
        const char *name;
        uint32_t http, websocket;
    } kinds[] = {{"execute", 2, 4},        {"batch", 3, 5},      {"sequence", 4, 9},
                 {"describe", 5, 10},      {"store_sql", 6, 11}, {"close_sql", 7, 12},
                 {"get_autocommit", 8, 13}};
    uint64_t kind = rng_below(&b->rng, 7);
    uint32_t first = websocket ? 2 : 1;
    int32_t id = (int32_t)rng_u64(&b->rng);
    size_t request =
        protobuf_begin(&b->bytes, websocket ? kinds[kind].websocket : kinds[kind].http);
    json_begin_object(&b->j);
    put_type(b, kinds[kind].name);
    if (websocket && kind != 4 && kind != 5)
        put_number(b, "stream_id", 1, id);
    if (kind == 0)
        put_stmt(b, first);
    if (kind == 1)
        put_batch(b, first);
    if (kind == 2 || kind == 3) {
        put_sql(b, first);
        put_seq(b, first + 2);
    }
    if (kind == 4 || kind == 5)
        put_number(b, "sql_id", 1, id);
    if (kind == 4)
        put_text(b, "sql", 2, any_text(b));
    json_end_object(&b->j);
    protobuf_end(&b->bytes, request);
}

static void put_pipeline(struct both *b)
{
    json_begin_object(&b->j);
    if (rng_once_in(&b->rng, 2))
        put_text(b, "baton", 1, any_text(b));
    json_key(&b->j, "requests");
    json_begin_array(&b->j);
    for (uint64_t n = rng_below(&b->rng, 4); n > 0; n--) {
        size_t request = protobuf_begin(&b->bytes, 2);
        put_request(b, false);
        protobuf_end(&b->bytes, request);
    }
    json_end_array(&b->j);
    json_end_object(&b->j);
}

static void put_cursor(struct both *b)
{
    json_begin_object(&b->j);
    put_text(b, "baton", 1, any_text(b));
    put_batch(b, 2);
    json_end_object(&b->j);
}

static void put_message(struct both *b)
{
    size_t message = protobuf_begin(&b->bytes, 2);
    json_begin_object(&b->j);
    put_type(b, "request");
    put_number(b, "request_id", 1, (int32_t)rng_u64(&b->rng));
    json_key(&b->j, "request");
    put_request(b, true);
    json_end_object(&b->j);
    protobuf_end(&b->bytes, message);
}

TEST(hrana_protobuf_says_what_json_says)
{
    static void (*const put[])(struct both * b) = {put_pipeline, put_cursor, put_message};
    static const enum show_form forms[] = {PIPELINE_3, CURSOR, WS_3};
    struct rng rng = {test_seed()};
    struct buf shown, wanted;
    buf_init(&shown, MIB(1));
    buf_init(&wanted, MIB(1));
    for (uint64_t round = test_rounds(3000); round > 0; round--) {
        struct both b;
        uint64_t kind = rng_below(&rng, 3);
        both_init(&b, rng_u64(&rng));
        buf_reset(&shown);
        buf_reset(&wanted);
        put[kind](&b);
        EXPECT_OK(show_json(forms[kind], (const char *)b.text.data, b.text.len, MIB(4), &wanted));
        EXPECT_OK(
            show_bytes(&hrana_protobuf, forms[kind], b.bytes.data, b.bytes.len, MIB(4), &shown));
        if (strcmp((const char *)shown.data, (const char *)wanted.data) != 0)
            test_fail(__FILE__, __LINE__, "%s\n    from Protobuf, and from JSON\n    %s",
                      (const char *)shown.data, (const char *)wanted.data);
        both_fini(&b);
    }
    buf_fini(&shown);
    buf_fini(&wanted);
}

/* --- what is Protobuf's own --- */

static void put_select(struct buf *b, uint32_t tag)
{
    size_t stmt = protobuf_begin(b, tag);
    protobuf_put_cstr(b, 1, "SELECT");
    protobuf_end(b, stmt);
}

/* proto3: what is 0 may be left out. */
TEST(hrana_protobuf_takes_what_is_left_out)
{
    struct buf b;
    buf_init(&b, KIB(4));
    EXPECT_BYTES_SHOWN(PIPELINE_3, &b, "");
    static const struct {
        const char *shown;
        uint32_t tag;
    } kinds[] = {
        {"0 autocommit", 13},        {"0 store_sql #0 \"\" norows", 11},
        {"0 close_sql #0", 12},      {"0 open_stream", 2},
        {"0 close_stream", 3},       {"0 close_cursor", 7},
        {"0 fetch_cursor max 0", 8},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        buf_reset(&b);
        size_t message = protobuf_begin(&b, 2);
        protobuf_put_bytes(&b, kinds[i].tag, NULL, 0);
        protobuf_end(&b, message);
        EXPECT_BYTES_SHOWN(WS_3, &b, kinds[i].shown);
    }
    buf_reset(&b);
    protobuf_put_bytes(&b, 1, NULL, 0);
    EXPECT_BYTES_SHOWN(WS_3, &b, "hello");
    buf_reset(&b);
    size_t hello = protobuf_begin(&b, 1);
    protobuf_put_cstr(&b, 1, "jwt");
    protobuf_end(&b, hello);
    EXPECT_BYTES_SHOWN(WS_3, &b, "hello jwt");
    buf_fini(&b);
}

/* The numbers of a WebSocket's requests, and the last of several. */
TEST(hrana_protobuf_reads_numbers)
{
    struct buf b;
    buf_init(&b, KIB(4));
    size_t message = protobuf_begin(&b, 2), open = protobuf_begin(&b, 6);
    protobuf_put_int32(&b, 1, -7);
    protobuf_put_int32(&b, 2, 9);
    size_t batch = protobuf_begin(&b, 3), step = protobuf_begin(&b, 1);
    put_select(&b, 2);
    protobuf_end(&b, step);
    protobuf_end(&b, batch);
    protobuf_end(&b, open);
    protobuf_put_int32(&b, 1, 3);
    protobuf_put_int32(&b, 1, -4);
    protobuf_end(&b, message);
    EXPECT_BYTES_SHOWN(WS_3, &b, "-4 open_cursor s-7 c9 [\"SELECT\"]");
    buf_reset(&b);
    message = protobuf_begin(&b, 2);
    size_t fetch = protobuf_begin(&b, 8);
    protobuf_put_int32(&b, 1, 9);
    protobuf_put_uint(&b, 2, 4000000000);
    protobuf_end(&b, fetch);
    size_t close = protobuf_begin(&b, 3);
    protobuf_put_int32(&b, 1, 8);
    protobuf_end(&b, close);
    protobuf_end(&b, message);
    EXPECT_BYTES_SHOWN(WS_3, &b, "0 close_stream s8 c0");
    buf_fini(&b);
}

/* A batch of two steps, whose second one has DEPTH times `not` around a condition. */
static void put_deep(struct buf *b, int depth)
{
    size_t begun[80];
    size_t batch = protobuf_begin(b, 2), step = protobuf_begin(b, 1);
    put_select(b, 2);
    protobuf_end(b, step);
    step = protobuf_begin(b, 1);
    size_t condition = protobuf_begin(b, 1);
    for (int i = 0; i < depth; i++)
        begun[i] = protobuf_begin(b, 3);
    protobuf_put_uint(b, 1, 0);
    for (int i = depth - 1; i >= 0; i--)
        protobuf_end(b, begun[i]);
    protobuf_end(b, condition);
    put_select(b, 2);
    protobuf_end(b, step);
    protobuf_end(b, batch);
}

/* A condition on a step that is not before. */
TEST(hrana_protobuf_names_steps_before)
{
    struct buf b;
    buf_init(&b, KIB(4));
    size_t batch = protobuf_begin(&b, 2), step = protobuf_begin(&b, 1),
           condition = protobuf_begin(&b, 1);
    protobuf_put_uint(&b, 2, 0);
    protobuf_end(&b, condition);
    put_select(&b, 2);
    protobuf_end(&b, step);
    protobuf_end(&b, batch);
    EXPECT_BYTES_SHOWN(
        CURSOR, &b,
        "error: batch.steps[0].condition.step_error: must be that of a step before this one, 0");
    buf_fini(&b);
}

TEST(hrana_protobuf_bounds_batches_conditions_and_memory)
{
    struct buf b, out;
    buf_init(&b, MIB(4));
    buf_init(&out, MIB(4));
    for (uint32_t n = HRANA_STEPS_MAX; n <= HRANA_STEPS_MAX + 1; n++) {
        buf_reset(&b);
        size_t batch = protobuf_begin(&b, 2);
        for (uint32_t i = 0; i < n; i++) {
            size_t step = protobuf_begin(&b, 1);
            put_select(&b, 2);
            protobuf_end(&b, step);
        }
        protobuf_end(&b, batch);
        EXPECT_ERR(n == HRANA_STEPS_MAX ? ERR_OK : ERR_TOO_BIG,
                   show_bytes(&hrana_protobuf, CURSOR, b.data, b.len, MIB(64), &out));
        if (n > HRANA_STEPS_MAX)
            EXPECT(strcmp(err_text(), "batch.steps: has 10001 steps, and may have 10000") == 0);
        EXPECT_ERR(ERR_TOO_BIG, show_bytes(&hrana_protobuf, CURSOR, b.data, b.len, KIB(500), &out));
    }
    for (int depth = 60; depth <= 61; depth++) { /* 4 messages around them, 64 in all */
        buf_reset(&b);
        put_deep(&b, depth);
        EXPECT_ERR(depth == 60 ? ERR_OK : ERR_TOO_BIG,
                   show_bytes(&hrana_protobuf, CURSOR, b.data, b.len, MIB(64), &out));
    }
    buf_fini(&b);
    buf_fini(&out);
}

/* In any pieces; at every size of the arena whole, or refused for its size; cut anywhere and with
 * any byte changed within bounds (of memory that is exactly so long), or refused. */
TEST(hrana_protobuf_survives_anything)
{
    static void (*const put[])(struct both * b) = {put_pipeline, put_cursor, put_message};
    static const enum show_form forms[] = {PIPELINE_3, CURSOR, WS_3};
    struct rng rng = {test_seed()};
    struct buf out;
    buf_init(&out, MIB(1));
    for (uint64_t round = test_rounds(10000); round > 0; round--) {
        struct both b;
        uint64_t kind = rng_below(&rng, 3);
        both_init(&b, rng_u64(&rng));
        put[kind](&b);
        size_t n = rng_once_in(&rng, 3) ? rng_below(&rng, b.bytes.len + 1) : b.bytes.len;
        uint8_t *bytes = malloc(n + (n == 0));
        if (n > 0)
            memcpy(bytes, b.bytes.data, n);
        for (uint64_t k = rng_below(&rng, 4); n > 0 && k > 0; k--)
            bytes[rng_below(&rng, n)] = (uint8_t)(rng_u64(&rng) >> rng_below(&rng, 9));
        buf_reset(&out);
        size_t max = rng_once_in(&rng, 2) ? rng_below(&rng, KIB(8)) : KIB(64);
        enum err e = show_bytes(&hrana_protobuf, forms[kind], bytes, n, max, &out);
        EXPECT(e == ERR_OK || e == ERR_PROTOCOL || e == ERR_TOO_BIG);
        EXPECT(buf_status(&out) == ERR_OK);
        free(bytes);
        both_fini(&b);
    }
    buf_fini(&out);
}

TEST(hrana_protobuf_comes_in_pieces)
{
    struct rng rng = {test_seed()};
    struct buf b;
    char *text = malloc(50000);
    buf_init(&b, MIB(1));
    for (size_t i = 0; i < 50000; i++)
        text[i] = (char)('a' + i % 23);
    size_t request = protobuf_begin(&b, 2), store = protobuf_begin(&b, 6);
    protobuf_put_text(&b, 2, text, 50000);
    protobuf_end(&b, store);
    protobuf_end(&b, request);
    for (uint64_t round = test_rounds(300); round > 0; round--) {
        struct arena a;
        struct hrana_reader r;
        struct hrana_body body;
        size_t most = rng_once_in(&rng, 2) ? 40000 : 1000;
        arena_init(&a, KIB(256));
        hrana_reader_init(&r, &hrana_protobuf, HRANA_3, &a);
        for (size_t at = 0; at < b.len;) {
            size_t n = 1 + rng_below(&rng, most);
            n = n < b.len - at ? n : b.len - at;
            EXPECT_OK(hrana_reader_feed(&r, b.data + at, n));
            at += n;
        }
        EXPECT_OK(r.form->pipeline(&r, &body));
        hrana_reader_fini(&r);
        EXPECT(body.n_requests == 1 && body.requests[0].type == HRANA_STORE_SQL);
        const struct hrana_text *sql = &body.requests[0].stmt.sql;
        EXPECT(sql->n == 50000 && memcmp(sql->p, text, 50000) == 0);
        arena_fini(&a);
    }
    free(text);
    buf_fini(&b);
}
