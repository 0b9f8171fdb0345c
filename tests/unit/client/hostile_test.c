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
    EXPECT_CODE(LECTERN_OK, h.db, lectern_timeout(h.db, 20000));
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

/* Frames of one small row, BYTES of them. */
static void put_small_frames(struct fake_peer *p, struct wire_id id, uint32_t bytes)
{
    size_t before = fake_out(p)->len;
    while (fake_out(p)->len - before < bytes)
        put_rows(p, id, 1, 1);
}

/* Takes BEGIN; then it obeys the window, and does not stop: what is held of small frames is mostly
 * what the library needs for each. */
static bool never_ends(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    struct hostile *h = ctx;
    struct wire_done begun = {.seq = 2, .flags = WIRE_IN_TRANSACTION};
    uint32_t credit = WIRE_WINDOW * 2 / 3;
    if (f->type == WIRE_CREDIT) {
        EXPECT_OK(wire_get_credit(f, &credit));
        if (h->queries == 2)
            put_small_frames(p, h->asked, credit);
        return true;
    }
    if (f->type != WIRE_QUERY && f->type != WIRE_BATCH)
        return false;
    if (++h->queries == 1)
        wire_put_done(fake_out(p), f->id, &begun);
    if (h->queries != 2)
        return h->queries == 1;
    h->asked = f->id;
    wire_put_columns(fake_out(p), f->id, (const char *const[]){"a"}, 1);
    put_small_frames(p, h->asked, credit);
    return true;
}

static void begin_endless(struct hostile *h)
{
    char url[64];
    h->node = fake_node_start(&(struct fake_options){.answer = never_ends, .ctx = h});
    (void)snprintf(url, sizeof url, "lectern://%s", fake_node_address(h->node));
    EXPECT(lectern_open(url, &h->db) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, h->db, lectern_exec(h->db, "BEGIN", NULL, NULL, NULL));
}

static void end_endless(struct hostile *h)
{
    if (strstr(lectern_errmsg(h->db), "the answer of a write has over 128 MiB") == NULL)
        test_fail(__FILE__, __LINE__, "ended with: %s", lectern_errmsg(h->db));
    EXPECT_CODE(LECTERN_OK, h->db, lectern_exec(h->db, "SELECT 1", NULL, NULL, NULL));
    EXPECT_EQ(fake_node_accepted(h->node), 2u); /* the first connection was believed no more */
    end(h);
}

TEST(hostile_answer_of_a_write_without_an_end)
{
    struct hostile h = {0};
    begin_endless(&h);
    EXPECT_CODE(LECTERN_TXN_LOST, h.db,
                lectern_exec(h.db, "INSERT INTO t VALUES(1) RETURNING a", NULL, NULL, NULL));
    end_endless(&h);
}

TEST(hostile_answer_of_a_batch_without_an_end)
{
    struct hostile h = {0};
    begin_endless(&h);
    lectern_batch *b;
    EXPECT_CODE(LECTERN_OK, h.db, lectern_batch_new(h.db, &b));
    EXPECT_CODE(LECTERN_OK, h.db, lectern_batch_add_sql(b, "INSERT INTO t VALUES(1) RETURNING a"));
    EXPECT_CODE(LECTERN_TXN_LOST, h.db, lectern_batch_run(b));
    EXPECT(lectern_batch_free(b) == LECTERN_OK);
    end_endless(&h);
}
