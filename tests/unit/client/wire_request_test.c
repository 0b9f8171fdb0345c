/* Room: tests. client/wire: QUERY, BATCH, DESCRIBE: where the bytes lie, what comes back, limits,
 * and what makes no sense. Cut and changed frames: wire_test.c. */
#include "client/wire.h"

#include "base/clock.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/client/wire_samples.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BIG MIB(80)

TEST(wire_query_has_the_documented_bytes)
{
    static const uint8_t drawn[] = {
        0x63, 0,   0,   0,   2,   7,   0,   0,    0,   1,   0, 0, 0, /* length, QUERY, stream 7,
                                                                        request 1 */
        2,    4,   0,   0,   0,   0,   0,   0xe8, 3,   0,   0, /* session, NUMBERED, 1000 ms */
        9,    0,   0,   0,   0,   0,   0,   0,    5,   0,   0, 0, 0, 0,
        0,    0,                                            /* min_seq 9, last_insert_rowid 5 */
        'w',  'w', 'w', 'w', 'w', 'w', 'w', 'w',  'w', 'w', /* writer */
        'w',  'w', 'w', 'w', 'w', 'w', 3,   0,    0,   0,   0, 0, /* number 3 */
        0,    0,   2,   0,   0,   0,   0,   0,    0,   0,   8, 0, 0, 0,
        0,    0, /* acked 2, since 8 */
        0,    0,   1,   0,   0,   0,   4,   0,    0,   0,   2, 0, 0, 0,
        'Q',  '?',                                    /* 1 statement, keep 4, text */
        1,    0,   0,   0,   0,   0,   0,   0,    0}; /* 1 parameter "": NULL */
    struct wire_query q = {.level = WIRE_SESSION,
                           .flags = WIRE_NUMBERED,
                           .timeout_ms = 1000,
                           .min_seq = 9,
                           .last_insert_rowid = 5,
                           .number = {.number = 3, .acked = 2, .since = 8}};
    struct buf b;
    memset(q.number.writer, 'w', WIRE_WRITER_BYTES);
    buf_init(&b, 200);
    size_t begun = wire_begin_query(&b, WIRE_QUERY, (struct wire_id){7, 1}, &q);
    size_t statement = wire_begin_statement(&b, 4, "Q?", 2);
    wire_put_param(&b, NULL, &(struct wire_value){.type = WIRE_NULL});
    wire_end_statement(&b, statement, 1);
    wire_end_query(&b, begun, 1);
    EXPECT_OK(buf_status(&b));
    EXPECT_EQ(b.len, sizeof drawn);
    EXPECT(memcmp(b.data, drawn, sizeof drawn) == 0);
    buf_fini(&b);
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
    struct wire_frame f = sample_frame(&b);
    EXPECT(f.type == WIRE_QUERY && f.id.stream == SAMPLE_STREAM && f.id.request == SAMPLE_REQUEST);
    EXPECT_OK(wire_get_query(&f, &q));
    EXPECT(q.level == WIRE_BOUNDED && q.flags == WIRE_FORWARDED && q.bound_ms == 1500);
    EXPECT(q.timeout_ms == 9 && q.min_seq == 1ull << 40 && q.n_statements == 1);
    EXPECT_EQ(q.last_insert_rowid, -77);
    EXPECT(q.number.number == 0 && q.number.acked == 0 && q.number.since == 0);
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

/* N statements, the i-th with the text of its number, keep number i and i % 3 parameters. */
static void put_batch(struct buf *b, const struct wire_query *q, uint32_t n)
{
    size_t begun = wire_begin_query(b, WIRE_BATCH, sample_id(), q);
    for (uint32_t i = 0; i < n; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "%u", i);
        size_t statement = wire_begin_statement(b, i, text, (size_t)len);
        for (uint32_t k = 0; k < i % 3; k++)
            wire_put_param(b, ":a", &(struct wire_value){.type = WIRE_INTEGER, .integer = i});
        wire_end_statement(b, statement, i % 3);
    }
    wire_end_query(b, begun, n);
}

TEST(wire_batch_round_trip)
{
    struct wire_query q = {
        .flags = WIRE_NUMBERED | WIRE_FOREIGN_KEYS_OFF,
        .number = {.writer = "sixteen bytes...", .number = 8, .acked = 7, .since = 1ull << 63}};
    struct wire_query got;
    struct buf b;
    buf_init(&b, BIG);
    put_batch(&b, &q, BATCH_STATEMENTS_MAX);
    struct wire_frame f = sample_frame(&b);
    EXPECT(f.type == WIRE_BATCH);
    EXPECT_OK(wire_get_query(&f, &got));
    EXPECT(got.flags == q.flags && memcmp(&got.number, &q.number, sizeof q.number) == 0);
    EXPECT_EQ(got.n_statements, BATCH_STATEMENTS_MAX);
    for (uint32_t i = 0; i < got.n_statements; i++) {
        struct wire_statement s;
        char text[16];
        int len = snprintf(text, sizeof text, "%u", i);
        EXPECT_OK(wire_get_statement(&got.statements, &s));
        EXPECT(s.keep == i && s.n_params == i % 3 && s.sql_len == (size_t)len);
        EXPECT(memcmp(s.sql, text, s.sql_len) == 0);
        for (uint32_t k = 0; k < s.n_params; k++) {
            const char *name;
            struct wire_value v;
            size_t n;
            EXPECT_OK(wire_get_param(&s.params, &name, &n, &v));
            EXPECT(n == 2 && v.type == WIRE_INTEGER && v.integer == i);
        }
        EXPECT_EQ(rd_left(&s.params), 0);
    }
    EXPECT_EQ(rd_left(&got.statements), 0);
    buf_fini(&b);
}

static enum err batch_of(enum wire_type type, uint32_t n)
{
    struct wire_query q = {.level = WIRE_ANY}, got;
    struct buf b;
    buf_init(&b, BIG);
    put_batch(&b, &q, n);
    b.data[WIRE_LENGTH_BYTES] = (uint8_t)type;
    struct wire_frame f = sample_frame(&b);
    enum err e = wire_get_query(&f, &got);
    buf_fini(&b);
    return e;
}

TEST(wire_counts_of_statements)
{
    EXPECT_ERR(ERR_PROTOCOL, batch_of(WIRE_BATCH, 0));
    EXPECT_OK(batch_of(WIRE_BATCH, 1));
    EXPECT_ERR(ERR_TOO_BIG, batch_of(WIRE_BATCH, BATCH_STATEMENTS_MAX + 1));
    for (unsigned i = 0; i < 2; i++) {
        enum wire_type type = i == 0 ? WIRE_QUERY : WIRE_DESCRIBE;
        EXPECT_ERR(ERR_PROTOCOL, batch_of(type, 0));
        EXPECT_OK(batch_of(type, 1));
        EXPECT_ERR(ERR_PROTOCOL, batch_of(type, 2));
    }
}

/* A QUERY of one statement with N_PARAMS times NULL. */
static enum err query_of(const struct wire_query *q, const char *sql, size_t sql_len,
                         uint32_t n_params)
{
    struct wire_value null = {.type = WIRE_NULL};
    struct wire_query got;
    struct buf b;
    buf_init(&b, BIG);
    size_t begun = wire_begin_query(&b, WIRE_QUERY, sample_id(), q);
    size_t statement = wire_begin_statement(&b, 0, sql, sql_len);
    for (uint32_t i = 0; i < n_params; i++)
        wire_put_param(&b, "", &null);
    wire_end_statement(&b, statement, n_params);
    wire_end_query(&b, begun, 1);
    struct wire_frame f = sample_frame(&b);
    enum err e = wire_get_query(&f, &got);
    buf_fini(&b);
    return e;
}

TEST(wire_query_limits)
{
    struct wire_query q = {.level = WIRE_SESSION};
    char *sql = calloc(1, SQL_TEXT_MAX + 1);
    EXPECT(sql != NULL);
    EXPECT_OK(query_of(&q, sql, SQL_TEXT_MAX, 0));
    EXPECT_ERR(ERR_TOO_BIG, query_of(&q, sql, SQL_TEXT_MAX + 1, 0));
    EXPECT_OK(query_of(&q, "", 0, SQL_PARAMS_MAX));
    EXPECT_ERR(ERR_TOO_BIG, query_of(&q, "", 0, SQL_PARAMS_MAX + 1));
    free(sql);
}

/* The sample QUERY with this level and these flags, and the number if flags say so. */
static enum err flagged(enum wire_type type, uint8_t level, uint16_t flags, uint64_t number,
                        uint64_t acked)
{
    struct wire_query q = {.flags = flags, .number = {.number = number, .acked = acked}}, got;
    struct buf b;
    buf_init(&b, 200);
    size_t begun = wire_begin_query(&b, type, sample_id(), &q);
    wire_end_statement(&b, wire_begin_statement(&b, 0, "COMMIT", 6), 0);
    wire_end_query(&b, begun, 1);
    b.data[WIRE_HEAD_BYTES] = level;
    struct wire_frame f = sample_frame(&b);
    enum err e = wire_get_query(&f, &got);
    buf_fini(&b);
    return e;
}

TEST(wire_refuses_levels_and_flags_that_it_does_not_know)
{
    EXPECT_OK(flagged(WIRE_QUERY, WIRE_STRONG, 0, 0, 0));
    EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_QUERY, WIRE_STRONG + 1, 0, 0, 0));
    EXPECT_OK(flagged(WIRE_QUERY, 0, WIRE_FORWARDED | WIRE_FOREIGN_KEYS_OFF, 0, 0));
    for (unsigned bit = 7; bit < 16; bit++)
        EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_QUERY, 0, (uint16_t)(1u << bit), 0, 0));
}

TEST(wire_refuses_numbers_that_make_no_sense)
{
    EXPECT_OK(flagged(WIRE_QUERY, 0, WIRE_NUMBERED, 1, 0));
    EXPECT_OK(flagged(WIRE_BATCH, 0, WIRE_NUMBERED, UINT64_MAX, UINT64_MAX - 1));
    EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_QUERY, 0, WIRE_NUMBERED, 0, 0));
    EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_QUERY, 0, WIRE_NUMBERED, 7, 7));
    EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_QUERY, 0, WIRE_NUMBERED, 7, UINT64_MAX));
    EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_DESCRIBE, 0, WIRE_NUMBERED, 1, 0));
    EXPECT_OK(flagged(WIRE_BATCH, 0, WIRE_NUMBERED | WIRE_AGAIN, 1, 0));
    EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_BATCH, 0, WIRE_AGAIN, 0, 0));
    EXPECT_OK(flagged(WIRE_DESCRIBE, 0, WIRE_INSIDE, 0, 0));
    EXPECT_OK(flagged(WIRE_BATCH, 0, WIRE_ALL_PARAMETERS, 0, 0));
    EXPECT_OK(flagged(WIRE_QUERY, 0, WIRE_INSIDE | WIRE_NUMBERED, 1, 0));
    EXPECT_ERR(ERR_PROTOCOL,
               flagged(WIRE_QUERY, 0, WIRE_INSIDE | WIRE_NUMBERED | WIRE_RESOLVE, 1, 0));
    EXPECT_OK(flagged(WIRE_QUERY, 0, WIRE_NUMBERED | WIRE_RESOLVE, 1, 0));
    EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_QUERY, 0, WIRE_RESOLVE, 1, 0));
    EXPECT_ERR(ERR_PROTOCOL, flagged(WIRE_BATCH, 0, WIRE_NUMBERED | WIRE_RESOLVE, 1, 0));
}

/* A short body that claims a huge count, at each place where a count stands: an error at once. */
TEST(wire_huge_counts_with_small_bodies_cost_nothing)
{
    struct buf b;
    uint64_t began = clock_mono_ms();
    buf_init(&b, 4096);
    for (unsigned i = 0; i < n_samples; i++) {
        buf_reset(&b);
        samples[i].put(&b);
        for (size_t at = WIRE_HEAD_BYTES; at + 4 <= b.len; at++) {
            static const uint32_t huge[] = {UINT32_MAX, 0x80000000u, 0x7fffffffu, 0x10000000u};
            uint32_t was = get_le32(b.data + at);
            for (unsigned k = 0; k < 4; k++) {
                set_le32(b.data + at, huge[k]);
                (void)sample_decode(sample_frame(&b), b.data, b.len);
            }
            set_le32(b.data + at, was);
        }
    }
    EXPECT(clock_mono_ms() - began < 2000); /* a loop of 4 billion would take longer */
    buf_fini(&b);
}

/* The dearest frames that a peer can send: the time to look through them is that of their bytes. */
TEST(wire_the_longest_requests_take_linear_time)
{
    struct wire_query q = {.level = WIRE_ANY}, got;
    struct wire_value null = {.type = WIRE_NULL};
    struct buf b;
    const uint32_t n = 350, each = SQL_PARAMS_MAX; /* 57 MB of parameters of 5 bytes */
    buf_init(&b, BIG);
    size_t begun = wire_begin_query(&b, WIRE_BATCH, sample_id(), &q);
    for (uint32_t i = 0; i < n; i++) {
        size_t statement = wire_begin_statement(&b, 0, "", 0);
        for (uint32_t k = 0; k < each; k++)
            wire_put_param(&b, "", &null);
        wire_end_statement(&b, statement, each);
    }
    wire_end_query(&b, begun, n);
    struct wire_frame f = sample_frame(&b);
    clock_t began = clock(); /* of this process: others may be busy */
    EXPECT_OK(wire_get_query(&f, &got));
    EXPECT(clock() - began < 5 * CLOCKS_PER_SEC);
    buf_fini(&b);
}
