/* Room: tests. client/wire: the frames of answers: what was put comes back, and what makes no sense
 * is refused. Cut and changed frames: wire_test.c. */
#include "client/wire.h"

#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/client/wire_samples.h"

#include <string.h>

static bool text_is(struct rd *r, const char *wanted)
{
    size_t n;
    const char *s = rd_str(r, &n);
    return s != NULL && n == strlen(wanted) && memcmp(s, wanted, n) == 0;
}

/* The sample called NAME; B is begun anew. */
static struct wire_frame put(struct buf *b, const char *name)
{
    buf_reset(b);
    for (unsigned i = 0; i < n_samples; i++)
        if (strcmp(samples[i].name, name) == 0)
            samples[i].put(b);
    return sample_frame(b);
}

static bool is_ours(const struct wire_frame *f)
{
    return f->id.stream == SAMPLE_STREAM && f->id.request == SAMPLE_REQUEST;
}

TEST(wire_welcome_round_trip)
{
    struct buf b;
    struct wire_welcome w;
    buf_init(&b, 1000);
    struct wire_frame f = put(&b, "welcome");
    EXPECT(f.type == WIRE_WELCOME && f.id.stream == 0 && f.id.request == 0);
    EXPECT_OK(wire_get_welcome(&f, &w));
    EXPECT(w.node_id == 1 && w.cluster_id == UINT64_MAX && w.seq == 1ull << 42);
    EXPECT(w.server_len == 3 && w.sqlite_len == 6 && memcmp(w.sqlite, "3.40.1", 6) == 0);
    b.data[WIRE_HEAD_BYTES] = 3; /* another version: what follows is not looked at */
    f = sample_frame(&b);
    EXPECT_ERR(ERR_VERSION, wire_get_welcome(&f, &w));
    EXPECT_EQ(w.version, 3);
    buf_fini(&b);
}

TEST(wire_ends_of_answers_round_trip)
{
    struct buf b;
    struct wire_done d;
    struct wire_step s;
    buf_init(&b, 1000);
    struct wire_frame f = put(&b, "done");
    EXPECT(f.type == WIRE_DONE && is_ours(&f));
    EXPECT_OK(wire_get_done(&f, &d));
    EXPECT(d.seq == 9 && d.changes == -1 && d.last_insert_rowid == 5 && d.flags == 7);
    f = put(&b, "step");
    EXPECT(f.type == WIRE_STEP && is_ours(&f));
    EXPECT_OK(wire_get_step(&f, &s));
    EXPECT(s.changes == 3 && s.last_insert_rowid == -1);
    buf_fini(&b);
}

TEST(wire_error_round_trip)
{
    struct buf b;
    struct wire_error e;
    buf_init(&b, 1000);
    struct wire_frame f = put(&b, "error");
    EXPECT(f.type == WIRE_ERROR && is_ours(&f));
    EXPECT_OK(wire_get_error(&f, &e));
    EXPECT(e.code == ERR_TXN_LOST && e.sqlite_code == 2067 && e.offset == -1 && e.flags == 1);
    EXPECT(e.seq == 1ull << 41 && e.statement == 9999);
    EXPECT(e.message_len == 3 && memcmp(e.message, "why", 3) == 0);
    static const struct {
        uint32_t sent;
        enum err read;
    } codes[] = {{ERR_EXPIRED, ERR_EXPIRED},
                 {ERR_ROWS_LOST, ERR_ROWS_LOST},
                 {999, ERR_PROTOCOL}, /* of the future */
                 {0, ERR_PROTOCOL}};  /* an error that is none */
    for (unsigned i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        set_le32(b.data + WIRE_HEAD_BYTES, codes[i].sent);
        f = sample_frame(&b);
        EXPECT_OK(wire_get_error(&f, &e));
        EXPECT_EQ(e.code, codes[i].read);
    }
    EXPECT(ERR_EXPIRED == 25 && ERR_ROWS_LOST == 26); /* docs/PROTOCOL.md */
    buf_fini(&b);
}

TEST(wire_description_round_trip)
{
    struct buf b;
    struct wire_description d;
    buf_init(&b, 1000);
    struct wire_frame f = put(&b, "description");
    EXPECT(f.type == WIRE_DESCRIPTION && is_ours(&f));
    EXPECT_OK(wire_get_description(&f, &d));
    EXPECT(d.used == 9 && d.flags == WIRE_STATEMENT_READONLY && d.n_params == 2);
    EXPECT(text_is(&d.params, "") && text_is(&d.params, ":name") && rd_left(&d.params) == 0);
    EXPECT(d.n_columns == 1 && text_is(&d.columns, "count(*)"));
    EXPECT(text_is(&d.columns, "INTEGER") && rd_left(&d.columns) == 0);
    buf_fini(&b);
}

TEST(wire_connection_frames_round_trip)
{
    struct buf b;
    struct wire_pong p;
    uint32_t n;
    buf_init(&b, 1000);
    struct wire_frame f = put(&b, "pong");
    EXPECT(f.type == WIRE_PONG && f.id.stream == 0 && f.id.request == SAMPLE_REQUEST);
    EXPECT_OK(wire_get_pong(&f, &p));
    EXPECT(p.seq == 1ull << 50 && p.leader_id == 3 && p.serves == 1);
    f = put(&b, "ping");
    EXPECT(f.type == WIRE_PING && f.id.stream == 0 && f.id.request == SAMPLE_REQUEST);
    EXPECT_OK(wire_get_nothing(&f));
    f = put(&b, "forget");
    EXPECT(f.type == WIRE_FORGET && f.id.stream == 0);
    EXPECT_OK(wire_get_forget(&f, &n));
    EXPECT_EQ(n, 12);
    f = put(&b, "credit");
    EXPECT(f.type == WIRE_CREDIT && f.id.stream == SAMPLE_STREAM && f.id.request == 0);
    EXPECT_OK(wire_get_credit(&f, &n));
    EXPECT_EQ(n, WIRE_WINDOW / 2);
    f = put(&b, "close");
    EXPECT(f.type == WIRE_CLOSE && f.id.stream == SAMPLE_STREAM && f.id.request == 0);
    EXPECT_OK(wire_get_nothing(&f));
    buf_fini(&b);
}

TEST(wire_columns_and_rows_round_trip)
{
    struct buf b;
    struct rd r;
    struct wire_value v;
    uint32_t n;
    buf_init(&b, 1000);
    struct wire_frame f = put(&b, "columns");
    EXPECT_OK(wire_get_columns(&f, &n, &r));
    EXPECT(n == 5 && text_is(&r, "a") && text_is(&r, "") && text_is(&r, ""));
    f = put(&b, "rows");
    EXPECT_OK(wire_get_rows(&f, 5, &n, &r));
    EXPECT_EQ(n, 2);
    for (unsigned i = 0; i < 2; i++) {
        EXPECT_OK(wire_get_value(&r, &v));
        EXPECT_EQ(v.type, WIRE_NULL);
        EXPECT_OK(wire_get_value(&r, &v));
        EXPECT(v.type == WIRE_INTEGER && v.integer == INT64_MIN);
        EXPECT_OK(wire_get_value(&r, &v));
        EXPECT(v.type == WIRE_FLOAT && v.real == -0.5);
        EXPECT_OK(wire_get_value(&r, &v));
        EXPECT(v.type == WIRE_TEXT && v.text.len == 3 && memcmp(v.text.bytes, "h\0i", 3) == 0);
        EXPECT_OK(wire_get_value(&r, &v));
        EXPECT(v.type == WIRE_BLOB && v.text.len == 0);
    }
    EXPECT_EQ(rd_left(&r), 0);
    buf_fini(&b);
}

TEST(wire_rows_of_another_width_are_refused)
{
    struct buf b;
    struct rd r;
    uint32_t n;
    buf_init(&b, 1000);
    static const uint32_t widths[] = {0, 1, 4, 6, 10, SQL_COLUMNS_MAX, UINT32_MAX};
    for (unsigned i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        struct wire_frame f = put(&b, "rows");
        EXPECT_ERR(ERR_PROTOCOL, wire_get_rows(&f, widths[i], &n, &r));
    }
    buf_reset(&b); /* a frame without a row is one */
    size_t begun = wire_begin(&b, WIRE_ROWS, sample_id());
    buf_put_u32(&b, 0);
    wire_end(&b, begun);
    struct wire_frame f = sample_frame(&b);
    EXPECT_OK(wire_get_rows(&f, UINT32_MAX, &n, &r));
    EXPECT(n == 0 && rd_left(&r) == 0);
    buf_patch_u32(&b, begun + WIRE_HEAD_BYTES, UINT32_MAX); /* many, of nothing */
    f = sample_frame(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_rows(&f, 0, &n, &r));
    buf_fini(&b);
}

static void put_texts(struct buf *b, uint32_t n)
{
    buf_put_u32(b, n);
    for (uint32_t i = 0; i < n; i++)
        buf_put_str(b, "", 0);
}

static enum err columns_of(uint32_t n)
{
    struct buf b;
    struct rd r;
    uint32_t got;
    buf_init(&b, MIB(1));
    size_t begun = wire_begin(&b, WIRE_COLUMNS, sample_id());
    put_texts(&b, 2 * n);
    buf_patch_u32(&b, begun + WIRE_HEAD_BYTES, n);
    wire_end(&b, begun);
    struct wire_frame f = sample_frame(&b);
    enum err e = wire_get_columns(&f, &got, &r);
    EXPECT(e != ERR_OK || got == n);
    buf_fini(&b);
    return e;
}

static enum err description_of(uint32_t n_params, uint32_t n_columns)
{
    struct buf b;
    struct wire_description d;
    buf_init(&b, MIB(1));
    size_t begun = wire_begin(&b, WIRE_DESCRIPTION, sample_id());
    buf_put_u32(&b, 0);
    buf_put_u8(&b, 0);
    put_texts(&b, n_params);
    size_t at = b.len;
    put_texts(&b, 2 * n_columns);
    buf_patch_u32(&b, at, n_columns);
    wire_end(&b, begun);
    struct wire_frame f = sample_frame(&b);
    enum err e = wire_get_description(&f, &d);
    buf_fini(&b);
    return e;
}

TEST(wire_answers_are_as_wide_as_sqlite_can_be)
{
    EXPECT_ERR(ERR_PROTOCOL, columns_of(0));
    EXPECT_OK(columns_of(SQL_COLUMNS_MAX));
    EXPECT_ERR(ERR_PROTOCOL, columns_of(SQL_COLUMNS_MAX + 1));
    EXPECT_OK(description_of(0, 0));
    EXPECT_OK(description_of(SQL_PARAMS_MAX, SQL_COLUMNS_MAX));
    EXPECT_ERR(ERR_PROTOCOL, description_of(SQL_PARAMS_MAX + 1, 1));
    EXPECT_ERR(ERR_PROTOCOL, description_of(1, SQL_COLUMNS_MAX + 1));
}
