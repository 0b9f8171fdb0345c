/* Room: tests. client/wire: the frames as docs/PROTOCOL draws them, round trips, hostile bytes. */
#include "client/wire.h"
#include "client/wire_cluster.h"

#include "base/rng.h"
#include "base/sizes.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

#define BIG MIB(80)

static const struct wire_id ID = {.stream = 5, .request = 77};

static bool is_ours(const struct wire_frame *f)
{
    return f->id.stream == ID.stream && f->id.request == ID.request;
}

static struct wire_frame frame_of(const struct buf *b)
{
    struct wire_frame f;
    size_t used;
    EXPECT_OK(buf_status(b));
    EXPECT_OK(wire_next(b->data, b->len, WIRE_FRAME_MAX, &f, &used));
    EXPECT_EQ(used, b->len);
    return f;
}

TEST(wire_hello_has_the_documented_bytes)
{
    static const uint8_t drawn[] = {0x19, 0,    0, 0, 1, 0, 0, 0, 0,   0,   0, 0, 0, 0x4c, 0x43,
                                    0x54, 0x4e, 2, 0, 2, 0, 0, 0, 'm', 'e', 0, 0, 0, 0};
    struct buf b;
    struct wire_hello h;
    buf_init(&b, 100);
    wire_put_hello(&b, "me", "");
    EXPECT_EQ(b.len, sizeof drawn);
    EXPECT(memcmp(b.data, drawn, sizeof drawn) == 0);
    struct wire_frame f = frame_of(&b);
    EXPECT_OK(wire_get_hello(&f, &h));
    EXPECT(h.client_len == 2 && memcmp(h.client, "me", 2) == 0 && h.database_len == 0);
    b.data[17] = 3; /* another version */
    f = frame_of(&b);
    EXPECT_ERR(ERR_VERSION, wire_get_hello(&f, &h));
    EXPECT_EQ(h.version, 3);
    b.data[13] = 'G'; /* another protocol */
    f = frame_of(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_hello(&f, &h));
    buf_fini(&b);
}

static void put_sample_query(struct buf *b)
{
    const struct wire_value values[] = {
        {.type = WIRE_NULL},
        {.type = WIRE_INTEGER, .integer = INT64_MIN},
        {.type = WIRE_FLOAT, .real = -0.5},
        {.type = WIRE_TEXT, .text = {"h\0i", 3}},
        {.type = WIRE_BLOB, .text = {NULL, 0}},
    };
    struct wire_query q = {.level = WIRE_BOUNDED,
                           .flags = WIRE_FORWARDED,
                           .bound_ms = 1500,
                           .timeout_ms = 9,
                           .min_seq = 1ull << 40,
                           .last_insert_rowid = -77};
    size_t begun = wire_begin_query(b, WIRE_QUERY, ID, &q);
    size_t statement = wire_begin_statement(b, 6, "SELECT ?", 8);
    for (uint32_t i = 0; i < 5; i++)
        wire_put_param(b, i == 3 ? ":name" : NULL, &values[i]);
    wire_end_statement(b, statement, 5);
    wire_end_query(b, begun, 1);
}

TEST(wire_query_round_trip)
{
    struct buf b;
    struct wire_query q;
    struct wire_statement s;
    struct wire_value v;
    const char *name;
    size_t n;
    buf_init(&b, 1000);
    put_sample_query(&b);
    struct wire_frame f = frame_of(&b);
    EXPECT(f.type == WIRE_QUERY && is_ours(&f));
    EXPECT_OK(wire_get_query(&f, &q));
    EXPECT(q.level == WIRE_BOUNDED && q.flags == WIRE_FORWARDED && q.bound_ms == 1500);
    EXPECT(q.timeout_ms == 9 && q.min_seq == 1ull << 40 && q.n_statements == 1);
    EXPECT_EQ(q.last_insert_rowid, -77);
    EXPECT_OK(wire_get_statement(&q.statements, &s));
    EXPECT_EQ(rd_left(&q.statements), 0);
    EXPECT(s.keep == 6 && s.n_params == 5 && s.sql_len == 8 && memcmp(s.sql, "SELECT ?", 8) == 0);
    EXPECT_OK(wire_get_param(&s.params, &name, &n, &v));
    EXPECT(n == 0 && v.type == WIRE_NULL);
    EXPECT_OK(wire_get_param(&s.params, &name, &n, &v));
    EXPECT(v.type == WIRE_INTEGER && v.integer == INT64_MIN);
    EXPECT_OK(wire_get_param(&s.params, &name, &n, &v));
    EXPECT(v.type == WIRE_FLOAT && v.real == -0.5);
    EXPECT_OK(wire_get_param(&s.params, &name, &n, &v));
    EXPECT(n == 5 && memcmp(name, ":name", 5) == 0);
    EXPECT(v.type == WIRE_TEXT && v.text.len == 3 && memcmp(v.text.bytes, "h\0i", 3) == 0);
    EXPECT_OK(wire_get_param(&s.params, &name, &n, &v));
    EXPECT(v.type == WIRE_BLOB && v.text.len == 0);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_param(&s.params, &name, &n, &v));
    buf_fini(&b);
}

TEST(wire_answers_round_trip)
{
    struct buf b;
    struct wire_welcome w = {.version = WIRE_VERSION,
                             .node_id = 1,
                             .cluster_id = UINT64_MAX,
                             .seq = 1ull << 42,
                             .server = "0.1",
                             .server_len = 3,
                             .sqlite = "3.40.1",
                             .sqlite_len = 6};
    struct wire_done d = {.seq = 9, .changes = -1, .last_insert_rowid = 5, .flags = 1};
    struct wire_error e = {.code = ERR_TXN_LOST,
                           .sqlite_code = 2067,
                           .offset = -1,
                           .seq = 1ull << 41,
                           .flags = WIRE_IN_TRANSACTION,
                           .statement = 9999,
                           .message = "why",
                           .message_len = 3};
    buf_init(&b, 1000);
    wire_put_welcome(&b, &w);
    struct wire_frame f = frame_of(&b);
    w = (struct wire_welcome){0};
    EXPECT_OK(wire_get_welcome(&f, &w));
    EXPECT(w.node_id == 1 && w.cluster_id == UINT64_MAX && w.seq == 1ull << 42);
    EXPECT(w.server_len == 3 && w.sqlite_len == 6 && memcmp(w.sqlite, "3.40.1", 6) == 0);
    buf_reset(&b);
    wire_put_done(&b, ID, &d);
    f = frame_of(&b);
    d = (struct wire_done){0};
    EXPECT_OK(wire_get_done(&f, &d));
    EXPECT(d.seq == 9 && d.changes == -1 && d.last_insert_rowid == 5 && d.flags == 1);
    buf_reset(&b);
    wire_put_error(&b, ID, &e);
    f = frame_of(&b);
    e = (struct wire_error){0};
    EXPECT_OK(wire_get_error(&f, &e));
    EXPECT(e.code == ERR_TXN_LOST && e.sqlite_code == 2067 && e.offset == -1 && e.flags == 1);
    EXPECT(e.seq == 1ull << 41 && e.statement == 9999);
    EXPECT(e.message_len == 3 && memcmp(e.message, "why", 3) == 0);
    set_le32(b.data + WIRE_HEAD_BYTES, 999); /* a code of the future */
    f = frame_of(&b);
    EXPECT_OK(wire_get_error(&f, &e));
    EXPECT_EQ(e.code, ERR_PROTOCOL);
    set_le32(b.data + WIRE_HEAD_BYTES, 0); /* an error that is none */
    f = frame_of(&b);
    EXPECT_OK(wire_get_error(&f, &e));
    EXPECT_EQ(e.code, ERR_PROTOCOL);
    buf_fini(&b);
}

TEST(wire_next_wants_whole_frames_and_judges_early)
{
    struct buf b;
    struct wire_frame f;
    size_t used;
    buf_init(&b, 1000);
    wire_put_cancel(&b, ID);
    EXPECT_EQ(b.len, WIRE_HEAD_BYTES);
    for (size_t n = 0; n < b.len; n++) {
        EXPECT_OK(wire_next(b.data, n, 9, &f, &used));
        EXPECT_EQ(used, 0);
    }
    EXPECT_OK(wire_next(b.data, b.len, 9, &f, &used));
    EXPECT(used == b.len && f.type == WIRE_CANCEL && is_ours(&f) && rd_left(&f.body) == 0);
    EXPECT_ERR(ERR_TOO_BIG, wire_next(b.data, b.len, 8, &f, &used));
    b.data[4] = 12; /* no such type: known before the rest has come */
    EXPECT_ERR(ERR_PROTOCOL, wire_next(b.data, 5, 1000, &f, &used));
    b.data[4] = WIRE_CANCEL;
    b.data[0] = 8; /* no room for the request */
    EXPECT_ERR(ERR_PROTOCOL, wire_next(b.data, 4, 1000, &f, &used));
    set_le32(b.data, UINT32_MAX);
    EXPECT_ERR(ERR_TOO_BIG, wire_next(b.data, 4, WIRE_FRAME_MAX, &f, &used));
    buf_fini(&b);
}

/* A QUERY of one statement with N_PARAMS times NULL. */
static void put_query(struct buf *b, const struct wire_query *q, const char *sql, size_t sql_len,
                      uint32_t n_params)
{
    struct wire_value null = {.type = WIRE_NULL};
    size_t begun = wire_begin_query(b, WIRE_QUERY, ID, q);
    size_t statement = wire_begin_statement(b, 0, sql, sql_len);
    for (uint32_t i = 0; i < n_params; i++)
        wire_put_param(b, "", &null);
    wire_end_statement(b, statement, n_params);
    wire_end_query(b, begun, 1);
}

TEST(wire_query_limits)
{
    struct buf b;
    struct wire_query q = {.level = WIRE_SESSION};
    struct wire_query got;
    char *sql = calloc(1, SQL_TEXT_MAX + 1);
    EXPECT(sql != NULL);
    buf_init(&b, BIG);
    put_query(&b, &q, sql, SQL_TEXT_MAX, 0);
    struct wire_frame f = frame_of(&b);
    EXPECT_OK(wire_get_query(&f, &got));
    buf_reset(&b);
    put_query(&b, &q, sql, SQL_TEXT_MAX + 1, 0);
    f = frame_of(&b);
    EXPECT_ERR(ERR_TOO_BIG, wire_get_query(&f, &got));
    for (uint32_t n = SQL_PARAMS_MAX; n <= SQL_PARAMS_MAX + 1; n++) {
        buf_reset(&b);
        put_query(&b, &q, "", 0, n);
        f = frame_of(&b);
        enum err err = wire_get_query(&f, &got);
        EXPECT_EQ(err, n > SQL_PARAMS_MAX ? ERR_TOO_BIG : ERR_OK);
    }
    free(sql);
    buf_fini(&b);
}

TEST(wire_refuses_what_it_does_not_know)
{
    struct buf b;
    struct wire_query q;
    buf_init(&b, 1000);
    put_sample_query(&b);
    struct wire_frame f = frame_of(&b);
    b.data[WIRE_HEAD_BYTES] = WIRE_STRONG + 1;
    EXPECT_ERR(ERR_PROTOCOL, wire_get_query(&f, &q));
    f = frame_of(&b);
    b.data[WIRE_HEAD_BYTES] = WIRE_ANY;
    b.data[WIRE_HEAD_BYTES + 1] = 0x80;
    EXPECT_ERR(ERR_PROTOCOL, wire_get_query(&f, &q));
    b.data[WIRE_HEAD_BYTES + 1] = 0;
    f = frame_of(&b);
    EXPECT_OK(wire_get_query(&f, &q));
    /* One byte more or less, the length told truly, is refused. */
    buf_put_u8(&b, 0);
    set_le32(b.data, (uint32_t)b.len - 4);
    f = frame_of(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_query(&f, &q));
    for (size_t n = b.len - 2; n >= WIRE_HEAD_BYTES; n--) {
        b.len = n;
        set_le32(b.data, (uint32_t)n - 4);
        f = frame_of(&b);
        EXPECT_ERR(ERR_PROTOCOL, wire_get_query(&f, &q));
    }
    buf_fini(&b);
}

TEST(wire_never_writes_a_frame_over_the_limit)
{
    struct buf b;
    struct wire_value v = {.type = WIRE_BLOB};
    char *bytes = calloc(1, WIRE_FRAME_MAX);
    EXPECT(bytes != NULL);
    buf_init(&b, BIG);
    wire_put_status(&b, ID);
    size_t before = b.len;
    v.text.bytes = bytes;
    v.text.len = (uint32_t)WIRE_FRAME_MAX;
    size_t begun = wire_begin(&b, WIRE_ROWS, ID);
    wire_put_value(&b, &v);
    wire_end(&b, begun);
    EXPECT_EQ(buf_status(&b), ERR_TOO_BIG);
    EXPECT_EQ(b.len, before);
    buf_reset(&b);
    v.text.len = (uint32_t)WIRE_FRAME_MAX - (WIRE_HEAD_BYTES - WIRE_LENGTH_BYTES) - 5;
    begun = wire_begin(&b, WIRE_ROWS, ID);
    wire_put_value(&b, &v);
    wire_end(&b, begun);
    struct wire_frame f = frame_of(&b);
    EXPECT_OK(wire_get_value(&f.body, &v));
    EXPECT_EQ(rd_left(&f.body), 0);
    free(bytes);
    buf_fini(&b);
}

/* Everything that a decoder hands out must lie inside of the input. */
static void expect_inside(const struct buf *b, const void *p, size_t n)
{
    const uint8_t *at = p;
    if (n > 0)
        EXPECT(at >= b->data && n <= b->len && at <= b->data + (b->len - n));
}

/* wire_get_query has promised that nothing fails here. */
static void decode_statement(const struct buf *b, struct rd *statements)
{
    struct wire_statement s;
    EXPECT_OK(wire_get_statement(statements, &s));
    expect_inside(b, s.sql, s.sql_len);
    for (uint32_t i = 0; i < s.n_params; i++) {
        struct wire_value v;
        const char *name;
        size_t n;
        EXPECT_OK(wire_get_param(&s.params, &name, &n, &v));
        expect_inside(b, name, n);
        if (v.type == WIRE_TEXT || v.type == WIRE_BLOB)
            expect_inside(b, v.text.bytes, v.text.len);
    }
    EXPECT_EQ(rd_left(&s.params), 0);
}

static void decode_query(const struct buf *b, struct wire_frame *f)
{
    struct wire_query q;
    if (wire_get_query(f, &q) != ERR_OK)
        return;
    for (uint32_t i = 0; i < q.n_statements; i++)
        decode_statement(b, &q.statements);
    EXPECT_EQ(rd_left(&q.statements), 0);
}

static void decode_any(const struct buf *b)
{
    struct wire_frame f;
    struct wire_hello h;
    struct wire_welcome w;
    struct wire_done d;
    struct wire_error e;
    size_t used;
    if (wire_next(b->data, b->len, WIRE_FRAME_MAX, &f, &used) != ERR_OK || used == 0)
        return;
    EXPECT(used <= b->len);
    expect_inside(b, f.body.p, rd_left(&f.body));
    struct wire_frame again = f;
    decode_query(b, &again);
    again = f;
    if (wire_get_hello(&again, &h) == ERR_OK) {
        expect_inside(b, h.client, h.client_len);
        expect_inside(b, h.database, h.database_len);
    }
    again = f;
    if (wire_get_welcome(&again, &w) == ERR_OK)
        expect_inside(b, w.sqlite, w.sqlite_len);
    again = f;
    if (wire_get_error(&again, &e) == ERR_OK) {
        expect_inside(b, e.message, e.message_len);
        EXPECT(e.code != ERR_OK);
    }
    enum err err = wire_get_done(&f, &d);
    EXPECT(err == ERR_OK || err == ERR_PROTOCOL);
}

static void put_sample(struct buf *b, uint64_t kind)
{
    struct wire_welcome w = {
        .version = WIRE_VERSION, .server = "0.1", .server_len = 3, .sqlite = "3", .sqlite_len = 1};
    struct wire_done d = {.seq = 9};
    struct wire_error e = {.code = ERR_SQL, .message = "no such table", .message_len = 13};
    if (kind == 0)
        wire_put_hello(b, "somebody", "main");
    else if (kind == 1)
        wire_put_welcome(b, &w);
    else if (kind == 2)
        wire_put_done(b, ID, &d);
    else if (kind == 3)
        wire_put_error(b, ID, &e);
    else
        put_sample_query(b);
}

TEST(wire_decoders_stay_inside_of_mutated_frames)
{
    struct rng rng = {test_seed()};
    struct buf b;
    buf_init(&b, 4096);
    for (uint64_t round = 0; round < test_rounds(200000); round++) {
        buf_reset(&b);
        put_sample(&b, rng_below(&rng, 8));
        for (uint64_t hits = rng_below(&rng, 4); hits > 0; hits--)
            b.data[rng_below(&rng, b.len)] = (uint8_t)rng_u64(&rng);
        if (rng_once_in(&rng, 4)) /* a length field somewhere */
            set_le32(b.data + rng_below(&rng, b.len - 3), (uint32_t)rng_below(&rng, 300));
        if (rng_once_in(&rng, 4))
            b.len = rng_below(&rng, b.len + 1);
        if (rng_once_in(&rng, 2) && b.len >= 4) /* so that most of them pass wire_next */
            set_le32(b.data, (uint32_t)(b.len - 4));
        /* In a block of its own exact size, so that a sanitizer sees one byte too many. */
        struct buf exact = {.data = malloc(b.len + (b.len == 0)), .len = b.len};
        EXPECT(exact.data != NULL);
        memcpy(exact.data, b.data, b.len);
        decode_any(&exact);
        free(exact.data);
    }
    buf_fini(&b);
}

TEST(wire_cluster_comes_back_and_nothing_else_is_taken)
{
    struct wire_cluster c = {.op = WIRE_CLUSTER_ADD,
                             .role = WIRE_STANDBY,
                             .flags = WIRE_CLUSTER_FORCE,
                             .timeout_ms = 7,
                             .id = 1ull << 50,
                             .address = "[::1]:7801"};
    struct wire_cluster back;
    struct buf b;
    buf_init(&b, 1000);
    wire_put_cluster(&b, ID, &c);
    struct wire_frame f = frame_of(&b);
    EXPECT(f.type == WIRE_CLUSTER && is_ours(&f));
    EXPECT_OK(wire_get_cluster(&f, &back));
    EXPECT(back.op == c.op && back.role == c.role && back.flags == c.flags && back.id == c.id &&
           back.timeout_ms == 7 && strcmp(back.address, c.address) == 0);
    /* op, role, flags, a length, a byte of the address: each alone is enough to be refused */
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{13, 0},  {13, 5}, {13, 2},   {14, 3}, {15, 4},
                 {28, 11}, {28, 9}, {32, ' '}, {34, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint8_t good = b.data[wrong[i].at];
        b.data[wrong[i].at] = wrong[i].value;
        f = frame_of(&b);
        EXPECT_ERR(ERR_PROTOCOL, wire_get_cluster(&f, &back));
        b.data[wrong[i].at] = good;
    }
    buf_reset(&b);
    c.address[0] = 0; /* ADD without an address */
    wire_put_cluster(&b, ID, &c);
    f = frame_of(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_cluster(&f, &back));
    buf_fini(&b);
}
