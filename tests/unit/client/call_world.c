/* Room: tests.   Thread: the test's; the nodes' callbacks on threads of their own, under one lock.
 * Owns: the nodes' memory of what was done. */
#include "tests/unit/client/call_world.h"

#include "base/clock.h"
#include "client/loop.h"
#include "client/wire_cluster.h"
#include "tests/lib/test.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NUMBERS_MAX 512
#define TXNS_MAX    64
#define VOID        1000u /* runs: never to be */

/* What all nodes share; one world at a time. */
static struct {
    pthread_mutex_t lock;
    struct {
        enum how how;
        enum err code;
        unsigned times; /* 0: for ever */
        char state[32];
        char address[64];
        bool unheard;
    } node[WORLD_NODES];
    unsigned n, leader;
    uint64_t term, seq, covers;
    enum err resolve;
    unsigned expires, row_frames;
    uint32_t rows;
    bool no_status;
    unsigned runs[NUMBERS_MAX];
    struct {
        unsigned node, peer;
        uint32_t stream;
    } txns[TXNS_MAX];
    unsigned n_txns;
    struct request_seen seen[WORLD_SEEN_MAX];
    unsigned n_seen;
} us = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock(void)
{
    EXPECT(pthread_mutex_lock(&us.lock) == 0);
}

static void unlock(void)
{
    EXPECT(pthread_mutex_unlock(&us.lock) == 0);
}

/* --- the nodes' side -------------------------------------------------------------------------- */

static void put_text(struct buf *b, const char *s)
{
    struct wire_value v = {.type = WIRE_TEXT};
    v.text.bytes = s;
    v.text.len = (uint32_t)strlen(s);
    wire_put_value(b, &v);
}

static void put_integer(struct buf *b, uint64_t n)
{
    struct wire_value v = {.type = WIRE_INTEGER};
    v.integer = (int64_t)n;
    wire_put_value(b, &v);
}

static void answer_status(struct fake_peer *p, struct wire_id id)
{
    static const char *const columns[] = {"state", "node", "extra",  "address", "role",
                                          "term",  "seq",  "leader", "peer"};
    struct buf *b = fake_out(p);
    if (us.no_status) {
        fake_error(p, id, ERR_BUSY, "not now");
        return;
    }
    wire_put_columns(b, id, columns, 9);
    size_t begun = wire_begin(b, WIRE_ROWS, id);
    buf_put_u32(b, us.n);
    for (unsigned i = 0; i < us.n; i++) {
        put_text(b, us.node[i].state);
        put_integer(b, i + 1);
        put_text(b, "whatever");
        put_text(b, us.node[i].unheard ? "" : us.node[i].address);
        put_text(b, us.leader == i + 1 ? "leader" : "follower");
        put_integer(b, us.term);
        put_integer(b, us.seq);
        put_integer(b, us.leader);
        put_text(b, "127.0.0.1:9");
    }
    wire_end(b, begun);
    wire_put_done(b, id, &(struct wire_done){.seq = us.seq});
}

static bool is_in_txn(unsigned node, unsigned peer, uint32_t stream, bool drop)
{
    for (unsigned i = 0; i < us.n_txns; i++) {
        if (us.txns[i].node != node || us.txns[i].peer != peer || us.txns[i].stream != stream)
            continue;
        if (drop)
            us.txns[i] = us.txns[--us.n_txns];
        return true;
    }
    return false;
}

static void note(unsigned node, struct wire_frame *f, const struct wire_query *q,
                 const struct wire_statement *s)
{
    EXPECT(us.n_seen < WORLD_SEEN_MAX);
    struct request_seen *r = &us.seen[us.n_seen++];
    *r = (struct request_seen){
        .node = node, .type = f->type, .query = *q, .id = f->id, .keep = s->keep};
    (void)snprintf(r->sql, sizeof r->sql, "%.*s", (int)s->sql_len, s->sql_len == 0 ? "" : s->sql);
}

static bool has_rows(const char *sql)
{
    return strncmp(sql, "SELECT", 6) == 0 || strstr(sql, "RETURNING") != NULL;
}

static void answer_rows(struct fake_peer *p, struct wire_id id, bool columns_only)
{
    struct buf *b = fake_out(p);
    static const char *const v = "v";
    wire_put_columns(b, id, &v, 1);
    for (unsigned k = 0; k < us.row_frames && !columns_only; k++) {
        size_t begun = wire_begin(b, WIRE_ROWS, id);
        buf_put_u32(b, us.rows);
        for (uint32_t i = 0; i < us.rows; i++)
            put_integer(b, i);
        wire_end(b, begun);
    }
}

/* Runs it; *flags after it. False: COMMIT of nothing. */
static bool run(unsigned node, struct fake_peer *p, struct wire_id id, const struct wire_query *q,
                const char *sql, uint8_t *flags)
{
    unsigned peer = fake_peer_number(p);
    bool in_txn = is_in_txn(node, peer, id.stream, false);
    if (strncmp(sql, "BEGIN", 5) == 0 && !in_txn) {
        EXPECT(us.n_txns < TXNS_MAX);
        us.txns[us.n_txns].node = node;
        us.txns[us.n_txns].peer = peer;
        us.txns[us.n_txns++].stream = id.stream;
        in_txn = true;
    } else if (strncmp(sql, "COMMIT", 6) == 0 && !in_txn) {
        return false;
    } else if (strncmp(sql, "COMMIT", 6) == 0 || strncmp(sql, "ROLLBACK", 8) == 0) {
        in_txn = is_in_txn(node, peer, id.stream, true) && false;
    }
    if ((q->flags & WIRE_NUMBERED) != 0 && q->number.number < NUMBERS_MAX &&
        us.runs[q->number.number] == 0) {
        us.runs[q->number.number]++;
        us.seq++;
    }
    *flags = in_txn ? WIRE_IN_TRANSACTION : 0;
    if (us.leader != 0 && us.leader != node && strncmp(sql, "SELECT", 6) != 0)
        *flags |= WIRE_ELSEWHERE;
    return true;
}

static void answer_well(unsigned node, struct fake_peer *p, struct wire_frame *f,
                        const struct wire_query *q, const char *sql, enum how how)
{
    bool say = how != DO_AND_CLOSE && how != DO_AND_HUSH;
    uint8_t flags = 0;
    struct buf *b = fake_out(p);
    if (f->type == WIRE_DESCRIBE) {
        if (say)
            wire_put_description(b, f->id, &(struct wire_description){.used = 1});
        return;
    }
    bool ran = run(node, p, f->id, q, sql, &flags);
    if (!say)
        return;
    if (!ran) {
        fake_error(p, f->id, ERR_SQL, "no transaction is active");
        return;
    }
    if (has_rows(sql))
        answer_rows(p, f->id, how == HEAD_CLOSE);
    if (how == HEAD_CLOSE || how == PART_CLOSE)
        return;
    for (uint32_t i = 0; f->type == WIRE_BATCH && i < q->n_statements; i++)
        wire_put_step(b, f->id, &(struct wire_step){.changes = 1});
    wire_put_done(
        b, f->id,
        &(struct wire_done){
            .seq = us.seq, .changes = 1, .last_insert_rowid = (int64_t)us.seq, .flags = flags});
}

static bool closes(enum how how)
{
    return how == CLOSE || how == DO_AND_CLOSE || how == HEAD_CLOSE || how == PART_CLOSE;
}

/* What NODE does this time. */
static enum how take_how(unsigned node)
{
    enum how how = us.node[node - 1].how;
    if (us.node[node - 1].times > 0 && --us.node[node - 1].times == 0)
        us.node[node - 1].how = WELL;
    return how;
}

/* CLUSTER: done or not, it is only counted. */
static bool answer_cluster(unsigned node, struct fake_peer *p, struct wire_frame *f)
{
    enum how how = take_how(node);
    note(node, f, &(struct wire_query){0}, &(struct wire_statement){0});
    if (how == ERR)
        fake_error(p, f->id, us.node[node - 1].code, "as it was told");
    if (closes(how))
        fake_peer_close(p);
    return how != WELL;
}

static void answer_query(unsigned node, struct fake_peer *p, struct wire_frame *f)
{
    struct wire_query q;
    struct wire_statement s;
    EXPECT_OK(wire_get_query(f, &q));
    struct rd statements = q.statements;
    EXPECT_OK(wire_get_statement(&statements, &s));
    note(node, f, &q, &s);
    char sql[64];
    (void)snprintf(sql, sizeof sql, "%.*s", (int)s.sql_len, s.sql_len == 0 ? "" : s.sql);
    enum err code = us.node[node - 1].code;
    enum how how = take_how(node);
    if ((q.flags & WIRE_RESOLVE) != 0 && how == WELL) {
        bool numbered_well = q.number.number < NUMBERS_MAX;
        enum err say = us.resolve;
        if (say == ERR_NOT_FOUND && numbered_well)
            say = us.runs[q.number.number] == 1 ? ERR_OK : ERR_TXN_LOST;
        if (say == ERR_TXN_LOST && numbered_well)
            us.runs[q.number.number] = VOID;
        if (say == ERR_OK)
            wire_put_done(fake_out(p), f->id, &(struct wire_done){.seq = us.seq});
        else
            fake_error(p, f->id, say, "so it is");
        return;
    }
    if ((q.flags & WIRE_NUMBERED) != 0 && us.expires > 0) {
        us.expires--;
        wire_put_error(fake_out(p), f->id,
                       &(struct wire_error){.code = ERR_EXPIRED, .offset = -1, .seq = us.covers});
        return;
    }
    if (how == ERR && code == ERR_SQL && (q.flags & WIRE_NUMBERED) != 0 &&
        q.number.number < NUMBERS_MAX && us.runs[q.number.number] == 1)
        how = WELL; /* who would run it looks first, and finds it done */
    if (how == ERR)
        fake_error(p, f->id, code, "as it was told");
    else if (how == GARBAGE)
        wire_end(fake_out(p), wire_begin(fake_out(p), WIRE_DONE, f->id));
    else if (how != CLOSE && how != HUSH)
        answer_well(node, p, f, &q, sql, how);
    if (closes(how))
        fake_peer_close(p);
}

static bool answer(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    struct node_place *place = ctx;
    bool ours = true;
    lock();
    if (f->type == WIRE_STATUS)
        answer_status(p, f->id);
    else if (f->type == WIRE_QUERY || f->type == WIRE_BATCH || f->type == WIRE_DESCRIBE)
        answer_query(place->index + 1, p, f);
    else if (f->type == WIRE_CLUSTER)
        ours = answer_cluster(place->index + 1, p, f);
    else
        ours = false;
    unlock();
    return ours;
}

/* --- the test's side -------------------------------------------------------------------------- */

void world_begin_with(struct world *w, unsigned n, unsigned used)
{
    char text[1024] = "";
    *w = (struct world){.n = n};
    us.n = n;
    us.leader = 1;
    us.term = 1;
    us.seq = 10;
    for (unsigned i = 0; i < n; i++) {
        w->places[i] = (struct node_place){w, i};
        w->nodes[i] = fake_node_start(&(struct fake_options){.node_id = i + 1,
                                                             .cluster_id = 77,
                                                             .seq = 10,
                                                             .leader_id = 1,
                                                             .answer = answer,
                                                             .ctx = &w->places[i]});
        (void)snprintf(us.node[i].state, sizeof us.node[i].state, "ok");
        (void)snprintf(us.node[i].address, sizeof us.node[i].address, "%s",
                       fake_node_address(w->nodes[i]));
        size_t at = strlen(text);
        if (i < used)
            (void)snprintf(text + at, sizeof text - at, "%s%s", i == 0 ? "" : ",",
                           fake_node_address(w->nodes[i]));
    }
    w->url = (struct url){.level = WIRE_SESSION, .timeout_ms = 30000, .name = "test"};
    for (unsigned i = 0; i < used; i++)
        (void)snprintf(w->url.addresses[w->url.n_addresses++], URL_ADDRESS_MAX, "%s",
                       fake_node_address(w->nodes[i]));
    EXPECT_OK(cluster_new(&w->url, &w->cluster));
    EXPECT_OK(stream_new(w->cluster, &w->stream));
}

void world_begin(struct world *w, unsigned n)
{
    world_begin_with(w, n, n);
}

void world_end(struct world *w)
{
    stream_free(w->stream);
    cluster_free(w->cluster);
    for (unsigned i = 0; i < w->n; i++)
        fake_node_stop(w->nodes[i]);
}

static void set_how(unsigned node, enum how how, enum err code, unsigned times)
{
    lock();
    us.node[node - 1].how = how;
    us.node[node - 1].code = code;
    us.node[node - 1].times = times;
    unlock();
}

void world_does(struct world *w, unsigned node, enum how how, unsigned times)
{
    EXPECT(node <= w->n);
    set_how(node, how, ERR_OK, times);
}

void world_fails(struct world *w, unsigned node, enum err code, unsigned times)
{
    EXPECT(node <= w->n);
    set_how(node, ERR, code, times);
}

void world_leads(struct world *w, unsigned node)
{
    lock();
    us.leader = node;
    us.term++;
    unlock();
    for (unsigned i = 0; i < w->n; i++)
        fake_node_set_leader(w->nodes[i], node);
}

void world_state(struct world *w, unsigned node, const char *state)
{
    EXPECT(node <= w->n);
    lock();
    (void)snprintf(us.node[node - 1].state, sizeof us.node[0].state, "%s", state);
    unlock();
}

void world_unheard(struct world *w, unsigned node, bool on)
{
    EXPECT(node <= w->n);
    lock();
    us.node[node - 1].unheard = on;
    unlock();
}

void world_no_status(struct world *w, bool on)
{
    EXPECT(w->n > 0);
    lock();
    us.no_status = on;
    unlock();
}

void world_resolves(struct world *w, enum err code)
{
    EXPECT(w->n > 0);
    lock();
    us.resolve = code;
    unlock();
}

void world_expires(struct world *w, unsigned times, uint64_t covers)
{
    EXPECT(w->n > 0);
    lock();
    us.expires = times;
    us.covers = covers;
    unlock();
}

void world_rows(struct world *w, unsigned frames, uint32_t rows)
{
    EXPECT(w->n > 0);
    lock();
    us.row_frames = frames;
    us.rows = rows;
    unlock();
}

unsigned world_seen(struct world *w)
{
    EXPECT(w->n > 0);
    lock();
    unsigned n = us.n_seen;
    unlock();
    return n;
}

struct request_seen world_request(struct world *w, unsigned i)
{
    EXPECT(i < world_seen(w));
    lock();
    struct request_seen r = us.seen[i];
    unlock();
    return r;
}

void world_forget_requests(struct world *w)
{
    EXPECT(w->n > 0);
    lock();
    us.n_seen = us.n_txns = 0;
    unlock();
}

unsigned world_runs(struct world *w, uint64_t number)
{
    EXPECT(w->n > 0 && number < NUMBERS_MAX);
    lock();
    unsigned n = us.runs[number];
    unlock();
    return n;
}

/* --- calls ------------------------------------------------------------------------------------ */

static void on_columns(void *ctx, uint32_t n, struct rd columns)
{
    struct asked *a = ctx;
    EXPECT(n > 0 && rd_left(&columns) > 0);
    a->columns++;
}

static void on_rows(void *ctx, uint32_t rows, struct rd values, uint32_t frame_bytes)
{
    struct asked *a = ctx;
    EXPECT(rd_left(&values) + WIRE_HEAD_BYTES + 4 == frame_bytes);
    a->frames++;
    a->rows += rows;
    a->bytes += frame_bytes;
    if (a->take)
        call_took(a->call, frame_bytes);
}

static void on_step(void *ctx, const struct wire_step *step)
{
    struct asked *a = ctx;
    EXPECT(step->changes == 1);
    a->steps++;
}

static void on_description(void *ctx, const struct wire_description *d)
{
    struct asked *a = ctx;
    EXPECT(d->used == 1);
    a->descriptions++;
}

static void on_restart(void *ctx)
{
    struct asked *a = ctx;
    EXPECT(a->frames == 0);
    a->columns = a->steps = 0;
    a->restarts++;
}

static void on_end(void *ctx, const struct call_end *end)
{
    struct asked *a = ctx;
    EXPECT(!a->ended);
    a->ended = true;
    a->end = *end;
    (void)snprintf(a->message, sizeof a->message, "%.*s", (int)end->message_len, end->message);
    call_free(a->call);
    a->call = NULL;
}

void ask_events(struct call_events *events, struct asked *a)
{
    *a = (struct asked){.take = true};
    *events = (struct call_events){.ctx = a,
                                   .on_columns = on_columns,
                                   .on_rows = on_rows,
                                   .on_step = on_step,
                                   .on_description = on_description,
                                   .on_restart = on_restart,
                                   .on_end = on_end};
}

void ask_as(struct world *w, struct asked *a, enum wire_type type, enum call_kind kind,
            enum wire_level level, uint32_t keep, const char *sql, uint64_t timeout_ms)
{
    struct call_events events;
    ask_events(&events, a);
    EXPECT_OK(call_new(w->stream, type, kind, &events, &a->call));
    if (type == WIRE_CLUSTER)
        EXPECT_OK(
            call_set_change(a->call, &(struct wire_cluster){.op = WIRE_CLUSTER_REMOVE, .id = 3}));
    else if (type != WIRE_STATUS)
        EXPECT_OK(call_add_statement(a->call, keep, sql, strlen(sql), NULL, 0, 0));
    call_set_level(a->call, level, 0);
    call_start(a->call, clock_mono_ms() + timeout_ms);
    EXPECT(!a->ended); /* never from call_start */
}

void ask(struct world *w, struct asked *a, const char *sql, uint64_t timeout_ms)
{
    enum call_kind kind = CALL_WRITE;
    if (strncmp(sql, "SELECT", 6) == 0)
        kind = CALL_READ;
    else if (strncmp(sql, "BEGIN", 5) == 0)
        kind = CALL_BEGIN;
    else if (strncmp(sql, "COMMIT", 6) == 0)
        kind = CALL_COMMIT;
    ask_as(w, a, WIRE_QUERY, kind, WIRE_SESSION, 0, sql, timeout_ms);
}

void wait_end(struct world *w, struct asked *a, uint64_t limit_ms)
{
    uint64_t limit = test_felt_ms() + limit_ms;
    while (!a->ended) {
        EXPECT_OK(loop_turn(cluster_loop(w->cluster), 20));
        EXPECT(test_felt_ms() < limit);
    }
}

enum err run_sql(struct world *w, const char *sql, struct asked *a)
{
    struct asked unused;
    a = a == NULL ? &unused : a;
    ask(w, a, sql, 10000);
    wait_end(w, a, 11500);
    return a->end.code;
}

void turn_for(struct world *w, uint64_t ms)
{
    uint64_t end = clock_mono_ms() + ms;
    for (uint64_t now; (now = clock_mono_ms()) < end;)
        EXPECT_OK(loop_turn(cluster_loop(w->cluster), (int)(end - now)));
}

void wait_requests(struct world *w, unsigned node, unsigned n)
{
    uint64_t limit = clock_mono_ms() + TEST_HANG_MS;
    for (unsigned got = 0; got < n;) {
        EXPECT_OK(loop_turn(cluster_loop(w->cluster), 5));
        EXPECT(clock_mono_ms() < limit);
        got = 0;
        for (unsigned i = 0; i < world_seen(w); i++)
            got += world_request(w, i).node == node;
    }
}
