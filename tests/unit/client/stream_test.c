/* Room: tests. Sessions: many on one link, frames of the past, windows, and no memory. */
#include "base/clock.h"
#include "base/sizes.h"
#include "client/call_state.h"
#include "client/loop.h"
#include "tests/lib/fail_alloc.h"
#include "tests/lib/test.h"
#include "tests/unit/client/call_world.h"

#include <stdlib.h>
#include <string.h>

static struct world w;
static struct asked a;

/* --- many ------------------------------------------------------------------------------------- */

#define MANY 5000u

struct one_of_many {
    struct stream *stream;
    struct call *call;
};
static unsigned many_ended;

static void many_end(void *ctx, const struct call_end *end)
{
    struct one_of_many *o = ctx;
    EXPECT_OK(end->code);
    call_free(o->call);
    o->call = NULL;
    many_ended++;
}

/* Two nodes that answer as usual: a bare DONE. */
static struct lectern_cluster *plain_cluster(struct fake_node *n)
{
    struct url url = {.n_addresses = 1, .name = "test"};
    struct lectern_cluster *c;
    (void)snprintf(url.addresses[0], URL_ADDRESS_MAX, "%s", fake_node_address(n));
    EXPECT_OK(cluster_new(&url, &c));
    return c;
}

static uint64_t run_many(struct lectern_cluster *c, struct one_of_many *all, unsigned n)
{
    uint64_t begun = clock_mono_ms(), felt = test_felt_ms();
    many_ended = 0;
    for (unsigned i = 0; i < n; i++) {
        struct call_events events = {.ctx = &all[i], .on_end = many_end};
        EXPECT_OK(call_new(all[i].stream, WIRE_QUERY, i % 2 == 0 ? CALL_WRITE : CALL_READ, &events,
                           &all[i].call));
        EXPECT_OK(call_add_statement(all[i].call, 0, "SELECT 1", 8, NULL, 0, 0));
        call_start(all[i].call, begun + 20000);
    }
    while (many_ended < n) {
        EXPECT_OK(loop_turn(cluster_loop(c), 100));
        EXPECT(clock_mono_ms() < begun + 20000);
    }
    return test_felt_ms() - felt;
}

TEST(stream_thousands_share_a_link)
{
    struct fake_node *node = fake_node_start(&(struct fake_options){.node_id = 1});
    struct lectern_cluster *c = plain_cluster(node);
    struct one_of_many *all = calloc(MANY, sizeof *all);
    EXPECT(all != NULL);
    for (unsigned i = 0; i < MANY; i++)
        EXPECT_OK(stream_new(c, &all[i].stream));
    EXPECT_EQ(cluster_sessions(c), MANY);
    (void)run_many(c, all, MANY);
    uint64_t few = run_many(c, all, MANY / 10), lots = run_many(c, all, MANY);
    EXPECT(lots < 40 * (few + 20)); /* no frame looks at all streams */
    EXPECT_EQ(fake_node_accepted(node), 1);
    for (unsigned i = 0; i < MANY; i++)
        stream_free(all[i].stream);
    EXPECT_OK(stream_new(c, &all[0].stream)); /* a number that was given before */
    (void)run_many(c, all, 1);
    fake_node_wait(node, WIRE_CLOSE, MANY);
    stream_free(all[0].stream);
    cluster_free(c);
    free(all);
    fake_node_stop(node);
}

/* A node takes 16,384 streams of a connection; sessions at rest make room for others. */
TEST(stream_more_of_them_than_a_node_takes)
{
    struct fake_node *node = fake_node_start(&(struct fake_options){.node_id = 1});
    struct lectern_cluster *c = plain_cluster(node);
    const unsigned n = STREAMS_AT_NODE + 1000;
    struct one_of_many *all = calloc(n, sizeof *all);
    EXPECT(all != NULL);
    for (unsigned i = 0; i < n; i++)
        EXPECT_OK(stream_new(c, &all[i].stream));
    (void)run_many(c, all, STREAMS_AT_NODE);
    EXPECT_EQ(fake_node_frames(node, WIRE_CLOSE), 0);
    EXPECT_EQ(c->members.all[0].n_open, STREAMS_AT_NODE);
    (void)run_many(c, all, n); /* all at once: the last ones wait until others are at rest */
    EXPECT(c->members.all[0].n_open <= STREAMS_AT_NODE);
    EXPECT(fake_node_frames(node, WIRE_CLOSE) >= 1000);
    EXPECT(fake_node_frames(node, WIRE_CLOSE) <= 2 * n);
    EXPECT_EQ(fake_node_accepted(node), 1);
    fake_node_drop(node, false); /* the next connection knows of none */
    (void)run_many(c, all, 10);
    EXPECT_EQ(c->members.all[0].n_open, 10);
    for (unsigned i = 0; i < n; i++)
        stream_free(all[i].stream);
    EXPECT_EQ(c->members.all[0].n_open, 0);
    cluster_free(c);
    free(all);
    fake_node_stop(node);
}

TEST(stream_beyond_what_a_node_takes_is_busy)
{
    struct fake_node *node = fake_node_start(&(struct fake_options){.node_id = 1});
    struct lectern_cluster *c = plain_cluster(node);
    struct one_of_many one;
    EXPECT_OK(stream_new(c, &one.stream));
    (void)run_many(c, &one, 1);
    stream_free(one.stream);
    c->members.all[0].n_open = STREAMS_AT_NODE; /* all of them in use */
    EXPECT_OK(stream_new(c, &one.stream));
    struct call_events events;
    ask_events(&events, &a);
    EXPECT_OK(call_new(one.stream, WIRE_QUERY, CALL_WRITE, &events, &a.call));
    EXPECT_OK(call_add_statement(a.call, 0, "INSERT", 6, NULL, 0, 0));
    call_start(a.call, clock_mono_ms() + 300);
    while (!a.ended)
        EXPECT_OK(loop_turn(cluster_loop(c), 100));
    EXPECT_ERR(ERR_BUSY, a.end.code);
    EXPECT(strstr(a.message, "16000 sessions of this program") != NULL);
    EXPECT(!a.end.was_sent);
    stream_free(one.stream);
    cluster_free(c);
    fake_node_stop(node);
}

/* --- frames that come at a wrong time --------------------------------------------------------- */

static void put_strays(struct buf *b, uint32_t stream, uint32_t request)
{
    static const char *const v = "v";
    struct wire_id id = {stream, request};
    wire_put_columns(b, id, &v, 1);
    size_t begun = wire_begin(b, WIRE_ROWS, id);
    buf_put_u32(b, 1);
    wire_put_value(b, &(struct wire_value){.type = WIRE_NULL});
    wire_end(b, begun);
    wire_put_done(b, id, &(struct wire_done){.seq = 999});
}

TEST(stream_frames_of_nobody_are_dropped)
{
    world_begin(&w, 1);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    struct request_seen r = world_request(&w, 0);
    struct buf b;
    buf_init(&b, WIRE_FRAME_MAX);
    put_strays(&b, r.id.stream, r.id.request);     /* an answer that was given */
    put_strays(&b, r.id.stream, r.id.request + 7); /* one to come */
    put_strays(&b, r.id.stream + 5, 1);
    put_strays(&b, UINT32_MAX, 1);
    put_strays(&b, r.id.stream | 1u << 31, r.id.request);
    fake_node_send(w.nodes[0], b.data, b.len);
    buf_fini(&b);
    turn_for(&w, 50);
    EXPECT(stream_position(w.stream) < 999);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(fake_node_accepted(w.nodes[0]), 1);
    world_end(&w);
}

/* What a node may say that makes no sense, to a QUERY under way. */
static void put_nonsense(struct buf *b, unsigned kind, struct wire_id id)
{
    static const char *const v = "v";
    size_t begun;
    switch (kind) {
    case 0: /* rows before columns */
        begun = wire_begin(b, WIRE_ROWS, id);
        buf_put_u32(b, 0);
        wire_end(b, begun);
        return;
    case 1:
        wire_put_columns(b, id, &v, 1);
        wire_put_columns(b, id, &v, 1);
        return;
    case 2:
        wire_put_step(b, id, &(struct wire_step){.changes = 1});
        return;
    case 3:
        wire_put_description(b, id, &(struct wire_description){.used = 1});
        return;
    case 4: /* a request from a server */
        wire_put_status(b, id);
        return;
    case 5: /* more rows than there are */
        wire_put_columns(b, id, &v, 1);
        begun = wire_begin(b, WIRE_ROWS, id);
        buf_put_u32(b, 1000000);
        wire_end(b, begun);
        return;
    case 6: /* of no columns */
        wire_put_columns(b, id, &v, 0);
        return;
    case 7: /* the cluster's own stream: rows that nobody can read */
        begun = wire_begin(b, WIRE_ROWS, (struct wire_id){1, 1});
        buf_put_u32(b, UINT32_MAX);
        wire_end(b, begun);
        wire_put_step(b, (struct wire_id){1, 1}, &(struct wire_step){.changes = 1});
        return;
    default: /* the connection */
        wire_put_done(b, (struct wire_id){0, 3}, &(struct wire_done){.seq = 1});
        return;
    }
}

TEST(stream_nonsense_ends_the_link_the_session_goes_on)
{
    for (unsigned kind = 0; kind < 9; kind++) {
        struct buf b;
        world_begin(&w, 1);
        EXPECT_OK(run_sql(&w, "INSERT", &a));
        turn_for(&w, 5);
        world_does(&w, 1, HUSH, 1);
        ask(&w, &a, "SELECT", 5000);
        wait_requests(&w, 1, world_seen(&w) + 1);
        buf_init(&b, WIRE_FRAME_MAX);
        put_nonsense(&b, kind, world_request(&w, world_seen(&w) - 1).id);
        fake_node_send(w.nodes[0], b.data, b.len);
        buf_fini(&b);
        wait_end(&w, &a, 5000); /* asked again over a new link */
        EXPECT_OK(a.end.code);
        EXPECT_EQ(fake_node_accepted(w.nodes[0]), 2);
        world_end(&w);
    }
}

/* --- windows ---------------------------------------------------------------------------------- */

TEST(stream_rows_not_taken_are_given_back_with_the_call)
{
    world_begin(&w, 1);
    world_rows(&w, 4, 7000);
    ask(&w, &a, "SELECT", 5000);
    a.take = false;
    wait_end(&w, &a, 5000);
    EXPECT(a.bytes > WIRE_WINDOW / 2);
    turn_for(&w, 120);
    EXPECT(fake_node_frames(w.nodes[0], WIRE_CREDIT) >= 1);
    world_end(&w);
}

TEST(stream_rows_of_a_lost_link_are_not_credited_to_the_next)
{
    world_begin(&w, 1);
    world_rows(&w, 4, 7000);
    world_does(&w, 1, PART_CLOSE, 1);
    ask(&w, &a, "SELECT", 5000);
    a.take = false;
    wait_end(&w, &a, 5000);
    EXPECT(a.end.code == ERR_CLOSED && a.bytes > WIRE_WINDOW / 2);
    world_rows(&w, 1, 7000); /* taken, and too few to be credited at once */
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    fake_node_drop(w.nodes[0], true);
    turn_for(&w, 50);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    turn_for(&w, 250);
    /* Those for STATUS, and no other: a window above its beginning would end the connection. */
    EXPECT(fake_node_frames(w.nodes[0], WIRE_CREDIT) <= fake_node_frames(w.nodes[0], WIRE_STATUS));
    EXPECT_EQ(fake_node_accepted(w.nodes[0]), 3);
    world_end(&w);
}

TEST(stream_rows_after_a_cancel_are_credited_and_dropped)
{
    world_begin(&w, 1);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 120); /* STATUS, and its credit */
    unsigned before = fake_node_frames(w.nodes[0], WIRE_CREDIT);
    world_does(&w, 1, HUSH, 1);
    ask(&w, &a, "SELECT", 5000);
    wait_requests(&w, 1, world_seen(&w) + 1);
    struct wire_id id = world_request(&w, world_seen(&w) - 1).id;
    struct buf b;
    static const char *const v = "v";
    buf_init(&b, WIRE_FRAME_MAX);
    wire_put_columns(&b, id, &v, 1);
    for (int k = 0; k < 3; k++) {
        size_t begun = wire_begin(&b, WIRE_ROWS, id);
        buf_put_u32(&b, 60000);
        for (int i = 0; i < 60000; i++)
            wire_put_value(&b, &(struct wire_value){.type = WIRE_NULL});
        wire_end(&b, begun);
    }
    wire_put_error(&b, id, &(struct wire_error){.code = ERR_CANCELLED, .offset = -1});
    call_cancel(a.call);
    fake_node_send(w.nodes[0], b.data, b.len);
    buf_fini(&b);
    wait_end(&w, &a, 400); /* sooner than the grace */
    EXPECT(a.end.code == ERR_CANCELLED && a.frames == 0 && a.columns == 0);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT_EQ(world_request(&w, world_seen(&w) - 1).id.stream, id.stream);
    EXPECT(fake_node_frames(w.nodes[0], WIRE_CREDIT) > before);
    world_end(&w);
}

TEST(stream_frees_its_transaction)
{
    world_begin(&w, 1);
    EXPECT_OK(run_sql(&w, "BEGIN", &a));
    stream_free(w.stream);
    EXPECT_OK(stream_new(w.cluster, &w.stream));
    turn_for(&w, 20);
    fake_node_wait(w.nodes[0], WIRE_CLOSE, 1);
    EXPECT(!stream_in_transaction(w.stream));
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    world_end(&w);
}

/* --- limits ----------------------------------------------------------------------------------- */

TEST(stream_requests_over_a_limit_are_refused)
{
    struct call *c;
    struct call_events events = {.on_end = many_end};
    world_begin(&w, 1);
    char *large = calloc(1, SQL_TEXT_MAX + 1);
    char *params = calloc(1, WIRE_FRAME_MAX);
    EXPECT(large != NULL && params != NULL);
    EXPECT_OK(call_new(w.stream, WIRE_BATCH, CALL_WRITE, &events, &c));
    EXPECT_ERR(ERR_TOO_BIG, call_add_statement(c, 0, large, SQL_TEXT_MAX + 1, NULL, 0, 0));
    EXPECT_ERR(ERR_TOO_BIG,
               call_add_statement(c, 0, "x", 1, params, 1, (uint32_t)SQL_PARAMS_MAX + 1));
    EXPECT_ERR(ERR_TOO_BIG, call_add_statement(c, 0, "x", 1, params, WIRE_FRAME_MAX, 1));
    for (unsigned i = 0; i < BATCH_STATEMENTS_MAX; i++)
        EXPECT_OK(call_add_statement(c, 0, "x", 1, NULL, 0, 0));
    EXPECT_ERR(ERR_TOO_BIG, call_add_statement(c, 0, "x", 1, NULL, 0, 0));
    call_free(c);
    free(large);
    free(params);
    world_end(&w);
}

/* --- no memory -------------------------------------------------------------------------------- */

/* One call, by an allocation that may fail at any point. True: it did as it should, or said that
 * there is no memory. */
static enum err try_sql(struct world *v, enum wire_type type, enum call_kind kind, const char *sql)
{
    struct call_events events = {0};
    struct asked *t = &a;
    uint32_t keep = cluster_next_keep(v->cluster);
    ask_events(&events, t);
    enum err e = call_new(v->stream, type, kind, &events, &t->call);
    if (e == ERR_OK)
        e = call_add_statement(t->call, keep, sql, strlen(sql), NULL, 0, 0);
    if (e != ERR_OK) {
        call_free(t->call);
        return e;
    }
    call_start(t->call, clock_mono_ms() + 5000);
    wait_end(v, t, 6000);
    cluster_forget(v->cluster, keep);
    return t->end.code;
}

/* Whether an allocation failed in it. */
static bool scenario(struct world *v, uint64_t n)
{
    static const struct {
        enum wire_type type;
        enum call_kind kind;
        const char *sql;
    } steps[] = {
        {WIRE_QUERY, CALL_WRITE, "INSERT"},   {WIRE_QUERY, CALL_READ, "SELECT"},
        {WIRE_DESCRIBE, CALL_READ, "INSERT"}, {WIRE_BATCH, CALL_WRITE, "INSERT"},
        {WIRE_QUERY, CALL_BEGIN, "BEGIN"},    {WIRE_QUERY, CALL_WRITE, "INSERT inside"},
        {WIRE_QUERY, CALL_COMMIT, "COMMIT"},  {WIRE_QUERY, CALL_READ, "SELECT"},
    };
    fail_alloc_at(n);
    enum err e = cluster_new(&v->url, &v->cluster);
    if (e == ERR_OK && (e = stream_new(v->cluster, &v->stream)) != ERR_OK)
        cluster_free(v->cluster);
    EXPECT(e == ERR_OK || e == ERR_NOMEM);
    for (size_t i = 0; e == ERR_OK && i < sizeof steps / sizeof steps[0]; i++) {
        enum err said = try_sql(v, steps[i].type, steps[i].kind, steps[i].sql);
        /* A link that fails for want of memory takes its transaction with it. */
        bool lost = said == ERR_TXN_LOST && steps[i].kind != CALL_BEGIN;
        bool none = said == ERR_SQL && steps[i].kind == CALL_COMMIT; /* BEGIN had no memory */
        EXPECT(said == ERR_OK || said == ERR_NOMEM || lost || none);
    }
    bool failed = fail_alloc_end();
    if (e != ERR_OK)
        return failed;
    if (stream_in_transaction(v->stream)) /* its COMMIT had no memory */
        EXPECT_OK(run_sql(v, "ROLLBACK", &a));
    EXPECT_OK(run_sql(v, "SELECT", &a)); /* usable after all */
    stream_free(v->stream);
    cluster_free(v->cluster);
    return failed;
}

TEST(stream_any_allocation_may_fail)
{
    uint64_t n = 1;
    world_begin(&w, 2);
    struct world v = w;
    if (!fail_alloc_works())
        printf("skipped: allocations cannot fail under this sanitizer\n");
    for (;; n++) {
        world_forget_requests(&w);
        if (!scenario(&v, n))
            break;
        EXPECT(n < 5000);
    }
    EXPECT(n > 20 || !fail_alloc_works());
    world_end(&w);
}
