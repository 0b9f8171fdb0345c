/* Room: tests. Answers that no honest node gives: an error and a sentence, never a crash, and no
 * more memory than the windows allow. */
#include "tests/unit/client/both.h"

#include "base/sizes.h"

#include <string.h>

struct hostile {
    bool (*answer)(struct hostile *h, struct fake_peer *p, struct wire_frame *f);
    unsigned queries;
    struct wire_id asked; /* the last of them */
    struct fake_node *node;
    lectern *db;
};

static bool answer(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    struct hostile *h = ctx;
    if (f->type != WIRE_QUERY && f->type != WIRE_BATCH)
        return false;
    h->queries++;
    return h->answer(h, p, f);
}

static void begin(struct hostile *h)
{
    char url[64];
    h->node = fake_node_start(&(struct fake_options){.node_id = 1, .answer = answer, .ctx = h});
    (void)snprintf(url, sizeof url, "lectern://%s", fake_node_address(h->node));
    int code = lectern_open(url, &h->db);
    EXPECT_CODE(LECTERN_OK, h->db, code);
    EXPECT_CODE(LECTERN_OK, h->db, lectern_timeout(h->db, 1000));
}

static void end(struct hostile *h)
{
    EXPECT_CODE(LECTERN_OK, h->db, lectern_close(h->db));
    fake_node_stop(h->node);
}

static void put_rows(struct fake_peer *p, struct wire_id id, uint32_t rows, uint32_t columns)
{
    size_t begun = wire_begin(fake_out(p), WIRE_ROWS, id);
    buf_put_u32(fake_out(p), rows);
    for (uint32_t i = 0; i < rows * columns; i++)
        wire_put_value(fake_out(p), &(struct wire_value){.type = WIRE_INTEGER, .integer = i});
    wire_end(fake_out(p), begun);
}

/* A write's first result, and another one when it is asked for again. */
static bool changes_its_mind(struct hostile *h, struct fake_peer *p, struct wire_frame *f)
{
    bool first = h->queries == 1;
    wire_put_columns(fake_out(p), f->id, (const char *const[]){"a", "b"}, first ? 2 : 1);
    put_rows(p, f->id, 1, first ? 2 : 1);
    if (first) {
        fake_peer_close(p);
        return true;
    }
    put_rows(p, f->id, 3, 1);
    wire_put_done(fake_out(p), f->id, &(struct wire_done){.seq = 9});
    return true;
}

TEST(hostile_second_answer_of_other_columns)
{
    struct hostile h = {.answer = changes_its_mind};
    begin(&h);
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_OK, h.db,
                lectern_prepare_v3(h.db, "INSERT INTO t VALUES(1) RETURNING a, b", -1,
                                   LECTERN_PREPARE_LAZY, &s, NULL));
    int code;
    while ((code = lectern_step(s)) == LECTERN_ROW)
        EXPECT(lectern_column_int(s, 0) >= 0);
    EXPECT_CODE(LECTERN_UNKNOWN, h.db, code);
    (void)lectern_finalize(s);
    end(&h);
}

static bool counts_wildly(struct hostile *h, struct fake_peer *p, struct wire_frame *f)
{
    (void)h;
    wire_put_done(fake_out(p), f->id, &(struct wire_done){.seq = 9, .changes = INT64_MAX});
    return true;
}

TEST(hostile_changes)
{
    struct hostile h = {.answer = counts_wildly};
    begin(&h);
    for (int i = 0; i < 3; i++)
        (void)lectern_exec(h.db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL);
    end(&h);
}

static bool steps_on(struct hostile *h, struct fake_peer *p, struct wire_frame *f)
{
    (void)h;
    for (int i = 0; i < 1000; i++)
        wire_put_step(fake_out(p), f->id, &(struct wire_step){.changes = 1});
    return true; /* and no DONE */
}

TEST(hostile_batch_of_more_steps_than_statements)
{
    struct hostile h = {.answer = steps_on};
    begin(&h);
    EXPECT_CODE(LECTERN_OK, h.db, lectern_timeout(h.db, 1000));
    lectern_batch *b;
    EXPECT_CODE(LECTERN_OK, h.db, lectern_batch_new(h.db, &b));
    EXPECT_CODE(LECTERN_OK, h.db, lectern_batch_add_sql(b, "INSERT INTO t VALUES(1)"));
    EXPECT_CODE(LECTERN_UNKNOWN, h.db, lectern_batch_run(b));
    EXPECT(strstr(lectern_errmsg(h.db), "broke the protocol") != NULL);
    EXPECT(lectern_batch_free(b) == LECTERN_OK);
    end(&h);
}

static bool floods(struct hostile *h, struct fake_peer *p, struct wire_frame *f)
{
    (void)h;
    wire_put_columns(fake_out(p), f->id, (const char *const[]){"a"}, 1);
    for (unsigned i = 0; i < 100; i++)
        put_rows(p, f->id, 8000, 1);
    return true; /* 7 MB in a window of 256 KiB, and no DONE */
}

/* Whoever looks at the first row only must not be made to hold what the node likes to send. */
TEST(hostile_rows_beyond_the_window)
{
    struct hostile h = {.answer = floods};
    begin(&h);
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_OK, h.db,
                lectern_prepare_v3(h.db, "SELECT a FROM t", -1, LECTERN_PREPARE_LAZY, &s, NULL));
    EXPECT_CODE(LECTERN_ROW, h.db, lectern_step(s));
    for (int i = 0; i < 200; i++) /* the session's loop turns, nothing is fetched */
        EXPECT(lectern_poll(lectern_cluster_of(h.db), 2) == LECTERN_OK);
    int code;
    unsigned rows = 1;
    while ((code = lectern_step(s)) == LECTERN_ROW)
        rows++;
    EXPECT_EQ(code, LECTERN_IOERR);
    EXPECT(strstr(lectern_errmsg(h.db), "broke the protocol") != NULL);
    EXPECT(rows < 100000);
    (void)lectern_finalize(s);
    end(&h);
}

#define BLOB_BYTES MIB(30)

/* Obeys the window, of which one frame may be far more, and does not stop. */
static bool never_ends(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    struct hostile *h = ctx;
    if (f->type != WIRE_QUERY && f->type != WIRE_BATCH && f->type != WIRE_CREDIT)
        return false;
    if (f->type != WIRE_CREDIT) {
        h->queries++;
        h->asked = f->id;
        wire_put_columns(fake_out(p), f->id, (const char *const[]){"a"}, 1);
    }
    if (h->queries > 1) { /* again: it has the first frames already, and then too much */
        for (int i = 0; i < 10; i++)
            put_rows(p, h->asked, 1, 1);
        return true;
    }
    size_t begun = wire_begin(fake_out(p), WIRE_ROWS, h->asked);
    buf_put_u32(fake_out(p), 1);
    buf_put_u8(fake_out(p), WIRE_BLOB);
    buf_put_u32(fake_out(p), BLOB_BYTES);
    void *blob = buf_extend(fake_out(p), BLOB_BYTES);
    EXPECT(blob != NULL);
    memset(blob, 0, BLOB_BYTES);
    wire_end(fake_out(p), begun);
    return true;
}

static void begin_endless(struct hostile *h)
{
    char url[64];
    h->node = fake_node_start(&(struct fake_options){.answer = never_ends, .ctx = h});
    (void)snprintf(url, sizeof url, "lectern://%s", fake_node_address(h->node));
    EXPECT(lectern_open(url, &h->db) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, h->db, lectern_timeout(h->db, 1000));
}

static void expect_given_up(const struct hostile *h)
{
    EXPECT(strstr(lectern_errmsg(h->db), "the answer of a write has over 128 MiB") != NULL);
    EXPECT(fake_node_accepted(h->node) > 1); /* that connection is believed no more */
}

TEST(hostile_answer_of_a_write_without_an_end)
{
    struct hostile h = {0};
    begin_endless(&h);
    EXPECT_CODE(LECTERN_UNKNOWN, h.db,
                lectern_exec(h.db, "INSERT INTO t VALUES(1) RETURNING a", NULL, NULL, NULL));
    expect_given_up(&h);
    end(&h);
}

TEST(hostile_answer_of_a_batch_without_an_end)
{
    struct hostile h = {0};
    begin_endless(&h);
    lectern_batch *b;
    EXPECT_CODE(LECTERN_OK, h.db, lectern_batch_new(h.db, &b));
    EXPECT_CODE(LECTERN_OK, h.db, lectern_batch_add_sql(b, "INSERT INTO t VALUES(1) RETURNING a"));
    EXPECT_CODE(LECTERN_UNKNOWN, h.db, lectern_batch_run(b));
    expect_given_up(&h);
    EXPECT(lectern_batch_free(b) == LECTERN_OK);
    end(&h);
}
