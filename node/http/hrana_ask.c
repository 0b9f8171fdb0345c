/* Room: node/http.   Thread: loop.   Owns: ask.error, ask.writer, and the place in
 * node.hrana_waits. Invariants: one request of a stream is under way at a time; what a session
 * answers is told in `ask` before the channel hears that it answered.
 *
 * A write that this node passed on to the leader is answered when this node has applied it, too: so
 * whoever reads here next sees it. After leader-wait it is answered nevertheless: it is done.
 *
 * Not here: which request is next (hrana_run.c). */
#include "node/http/hrana_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

#define STREAM 1u /* of the channel: it has one session */

/* --- the request --- */

/* What a session would refuse too, but in words that no driver knows. NULL: it may be asked. */
static struct hrana_error *check(const struct hrana_text *t, const struct hrana_stmt *stmt) ON_LOOP
{
    if (t->n > SQL_TEXT_MAX)
        return hrana_error_new("SQL_TOO_LONG", "a statement's text is at most %zu bytes",
                               (size_t)SQL_TEXT_MAX);
    if (sql_classify(t->p, t->n) == SQL_EMPTY)
        return hrana_error_new("SQL_NO_STATEMENT", "SQL string does not contain any statement");
    if (!hrana_is_one_statement(t))
        return hrana_error_new("SQL_MANY_STATEMENTS",
                               "SQL string contains more than one statement");
    if (stmt->n_args > 0 && stmt->n_named_args > 0)
        return hrana_error_new("ARGS_BOTH_POSITIONAL_AND_NAMED",
                               "Specifying both positional and named arguments is not supported");
    if (stmt->n_args > SQL_PARAMS_MAX || stmt->n_named_args > SQL_PARAMS_MAX)
        return hrana_error_new("ARGS_INVALID", "a statement takes at most %u arguments",
                               SQL_PARAMS_MAX);
    return NULL;
}

static void put_statement(struct buf *b, const struct hrana_text *text,
                          const struct hrana_stmt *stmt) ON_LOOP
{
    size_t begun = wire_begin_statement(b, 0, text->p, text->n);
    for (uint32_t i = 0; i < stmt->n_args; i++)
        wire_put_param(b, "", &stmt->args[i].value);
    for (uint32_t i = 0; i < stmt->n_named_args; i++) {
        const struct hrana_arg *a = &stmt->named_args[i];
        char *name = mem_printf("%.*s", (int)a->name.n, a->name.p);
        wire_put_param(b, name, &a->value);
        free(name);
    }
    wire_end_statement(b, begun, stmt->n_args + stmt->n_named_args);
}

/* Is it to be done once, however often it has to be sent? A COMMIT is, too. */
static bool is_numbered(const struct hrana_stream *s, enum wire_type type,
                        enum sql_kind kind) ON_LOOP
{
    if (type == WIRE_DESCRIBE)
        return false;
    if (s->in_transaction)
        return s->ask.is_commit;
    return type == WIRE_BATCH || kind == SQL_WRITE || kind == SQL_ALONE;
}

static void number(struct hrana_stream *s, struct wire_query *q) ON_LOOP
{
    struct node *n = s->channel.node;
    struct writer *w = writer_take(n->writers);
    s->ask.writer = w;
    memcpy(q->number.writer, w->id, sizeof q->number.writer);
    q->number.acked = w->number++;
    q->number.number = w->number;
    q->number.since = n->lane == NULL ? 0 : repl_db_published(lane_db(n->lane));
    q->flags |= WIRE_NUMBERED;
}

static struct wire_query query_of(const struct hrana_stream *s, uint64_t index) ON_LOOP
{
    const struct hrana_memory *m = &s->memory;
    bool takes_args = s->q->type == HRANA_EXECUTE || s->q->type == HRANA_BATCH;
    bool strong = m->unsure && s->wish.level == WIRE_SESSION;
    return (struct wire_query){.level = strong ? WIRE_STRONG : s->wish.level,
                               .bound_ms = s->wish.bound_ms,
                               .timeout_ms = s->wish.timeout_ms,
                               .min_seq = index > m->seq ? index : m->seq,
                               .last_insert_rowid = m->last_insert_rowid,
                               .flags =
                                   (uint16_t)((m->foreign_keys ? 0 : WIRE_FOREIGN_KEYS_OFF) |
                                              (s->in_transaction || s->lost ? WIRE_INSIDE : 0) |
                                              (takes_args ? WIRE_ALL_PARAMETERS : 0))};
}

/* FRAME is a request that is whole; it may be over a limit of the decoder. */
static struct hrana_error *send_frame(struct hrana_stream *s, struct buf *frame) ON_LOOP
{
    struct wire_frame f;
    struct wire_query q;
    size_t used = 0;
    enum err e = buf_status(frame);
    if (e == ERR_OK)
        e = wire_next(frame->data, frame->len, WIRE_FRAME_MAX, &f, &used);
    if (e != ERR_OK)
        return hrana_error_new("ARGS_INVALID", "a statement with its arguments is over %zu bytes",
                               (size_t)WIRE_FRAME_MAX);
    CHECK(used == frame->len);
    const uint8_t *body = f.body.p;
    size_t n = rd_left(&f.body);
    e = wire_get_query(&f, &q);
    if (e != ERR_OK)
        return hrana_error_of(e, err_text());
    struct request *r = request_of_frame(s->session, s->session->id, &f, &q, body, n, NULL, 0);
    s->ask.under_way = true;
    channel_take(&s->channel, s->session, r);
    return NULL;
}

/* A new question of the stream. */
static struct wire_id begin_ask(struct hrana_stream *s) ON_LOOP
{
    CHECK(!s->ask.under_way && s->ask.error == NULL && s->ask.writer == NULL);
    uint32_t request = s->ask.request + 1;
    s->ask = (struct hrana_ask){.request = request, .began_ns = clock_mono_ns()};
    return (struct wire_id){.stream = STREAM, .request = request};
}

static struct hrana_error *finish_ask(struct hrana_stream *s, struct buf *frame) ON_LOOP
{
    struct hrana_error *error = send_frame(s, frame);
    buf_fini(frame);
    if (error != NULL && s->ask.writer != NULL) { /* it was never sent */
        s->ask.writer->number--;
        writer_give(s->channel.node->writers, s->ask.writer);
        s->ask.writer = NULL;
    }
    return error;
}

struct hrana_error *hrana_ask_statement(struct hrana_stream *s, enum wire_type type,
                                        const struct hrana_text *text,
                                        const struct hrana_stmt *stmt)
{
    struct hrana_error *error = check(text, stmt);
    if (error != NULL)
        return error;
    struct buf b;
    struct wire_id id = begin_ask(s);
    struct wire_query q = query_of(s, stmt->replication_index);
    enum sql_kind kind = sql_classify(text->p, text->n);
    enum sql_step step = sql_step_of(text->p, text->n);
    s->ask.read_only = kind != SQL_WRITE && kind != SQL_ALONE;
    s->ask.is_commit = step == SQL_STEP_COMMIT;
    s->ask.is_rollback = step == SQL_STEP_ROLLBACK;
    if (is_numbered(s, type, kind))
        number(s, &q);
    buf_init(&b, WIRE_FRAME_MAX + WIRE_LENGTH_BYTES);
    size_t begun = wire_begin_query(&b, type, id, &q);
    put_statement(&b, text, stmt);
    wire_end_query(&b, begun, 1);
    return finish_ask(s, &b);
}

struct hrana_error *hrana_ask_batch(struct hrana_stream *s, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++) {
        struct hrana_error *error = check(&s->texts[i], &s->steps[i].stmt);
        if (error != NULL)
            return error;
    }
    struct buf b;
    struct wire_id id = begin_ask(s);
    struct wire_query q = query_of(s, s->q->batch.replication_index);
    number(s, &q);
    buf_init(&b, WIRE_FRAME_MAX + WIRE_LENGTH_BYTES);
    size_t begun = wire_begin_query(&b, WIRE_BATCH, id, &q);
    for (uint32_t i = first; i < first + n; i++)
        put_statement(&b, &s->texts[i], &s->steps[i].stmt);
    wire_end_query(&b, begun, n);
    return finish_ask(s, &b);
}

/* --- the answer --- */

/* The transaction ended, and not because the program ended it. What its own constraint did (ON
 * CONFLICT ROLLBACK, RAISE(ROLLBACK)) it knows, as programs of SQLite do. */
static bool is_lost(const struct hrana_stream *s, bool was_in) ON_LOOP
{
    const struct hrana_ask *a = &s->ask;
    return was_in && !s->in_transaction && a->code != ERR_OK && !a->is_commit && !a->is_rollback &&
           (a->sqlite_code & 0xff) != 19; /* SQLITE_CONSTRAINT */
}

static void note_state(struct hrana_stream *s, uint64_t seq, uint8_t flags) ON_LOOP
{
    bool was_in = s->in_transaction;
    s->in_transaction = (flags & WIRE_IN_TRANSACTION) != 0;
    s->memory.foreign_keys = (flags & WIRE_NO_FOREIGN_KEYS) == 0;
    if (seq > s->memory.seq)
        s->memory.seq = seq;
    if (is_lost(s, was_in)) {
        s->lost = true;
        s->time_up = s->ask.time_up;
    }
    /* Inside a transaction, the leader answers all that follows. */
    if ((flags & WIRE_ELSEWHERE) != 0 && !s->in_transaction)
        s->ask.wait_seq = seq;
}

/* Its outcome is known, so the next write may be numbered after it; or it is not. */
static void give_writer(struct hrana_stream *s) ON_LOOP
{
    struct writer *w = s->ask.writer;
    s->ask.writer = NULL;
    if (w == NULL)
        return;
    switch ((int)s->ask.code) {
    case ERR_UNKNOWN:
    case ERR_EXPIRED:
    case ERR_CLOSED:
    case ERR_PROTOCOL:
    case ERR_VERSION:
        writer_drop(w);
        return;
    default: /* done, or never to be: the session says ERR_UNKNOWN when it is in doubt */
        writer_give(s->channel.node->writers, w);
    }
}

static void take_error(struct hrana_stream *s, struct wire_frame *f) ON_LOOP
{
    struct wire_error e;
    enum err bad = wire_get_error(f, &e);
    s->ask.ended = true;
    if (bad != ERR_OK) {
        s->ask.code = bad;
        s->ask.error = hrana_error_of(bad, err_text());
        return;
    }
    s->ask.code = e.code;
    s->ask.sqlite_code = e.sqlite_code;
    s->ask.time_up = (e.flags & WIRE_TIME_UP) != 0;
    s->ask.error = hrana_error_of_wire(&e);
    note_state(s, e.seq, e.flags);
}

static void take_done(struct hrana_stream *s, struct wire_frame *f) ON_LOOP
{
    enum err bad = wire_get_done(f, &s->ask.done);
    s->ask.ended = true;
    if (bad != ERR_OK) {
        s->ask.code = bad;
        s->ask.error = hrana_error_of(bad, err_text());
        return;
    }
    s->memory.last_insert_rowid = s->ask.done.last_insert_rowid;
    if (s->wish.level == WIRE_SESSION || s->wish.level == WIRE_STRONG)
        s->memory.unsure = false;
    note_state(s, s->ask.done.seq, s->ask.done.flags);
}

/* Frames of our own session, or of the leader's, which are not trusted. */
static void on_frames(struct channel *c, struct buf *b)
{
    struct hrana_stream *s = (struct hrana_stream *)c;
    size_t at = 0;
    thread_expect_loop();
    s->telling = true;
    while (at < b->len) {
        struct wire_frame f;
        size_t used = 0;
        enum err e = wire_next(b->data + at, b->len - at, WIRE_FRAME_MAX, &f, &used);
        CHECK(e == ERR_OK && used > 0); /* whole frames: the session walked them */
        at += used;
        if (f.type == WIRE_ERROR)
            take_error(s, &f);
        else if (f.type == WIRE_DONE)
            take_done(s, &f);
        else
            hrana_run_frame(s, &f);
        s->ask.ended = s->ask.ended || f.type == WIRE_DESCRIPTION;
    }
    s->telling = false;
    buf_reset(b);
}

/* The window of the session is what bounds the bytes that wait. */
static size_t no_backlog(const struct channel *c)
{
    (void)c;
    return 0;
}

static void on_stall(struct channel *c)
{
    (void)c;
    UNREACHABLE("a channel without a backlog is never full");
}

static void answered(struct hrana_stream *s) ON_LOOP
{
    s->ask.under_way = false;
    hrana_run_go(s);
}

static bool must_wait(const struct hrana_stream *s) ON_LOOP
{
    const struct node *n = s->channel.node;
    return s->ask.wait_seq != 0 && n->lane != NULL && !s->cancelled &&
           repl_db_published(lane_db(n->lane)) < s->ask.wait_seq;
}

static void on_answered(struct channel *c)
{
    struct hrana_stream *s = (struct hrana_stream *)c;
    thread_expect_loop();
    CHECK(s->ask.under_way && s->ask.ended);
    give_writer(s);
    if (!must_wait(s)) {
        answered(s);
        return;
    }
    s->ask.wait_until_ms = clock_mono_ms() + c->node->config->leader_wait_ms;
    list_push_back(&c->node->hrana_waits, &s->waits);
}

const struct channel_outlet hrana_outlet = {on_frames, no_backlog, on_stall, on_answered};

/* --- what waits --- */

static void release(struct node *n, uint64_t now_ms) ON_LOOP
{
    struct list ready, *l;
    list_init(&ready);
    LIST_EACH(i, &n->hrana_waits) {
        const struct hrana_stream *s = LIST_ENTRY(i, struct hrana_stream, waits);
        if (must_wait(s) && now_ms <= s->ask.wait_until_ms)
            continue;
        list_remove(i);
        list_push_back(&ready, i);
    }
    while ((l = list_pop_front(&ready)) != NULL) /* one may end others */
        answered(LIST_ENTRY(l, struct hrana_stream, waits));
}

void hrana_streams_applied(struct node *n)
{
    if (!list_empty(&n->hrana_waits))
        release(n, 0);
}

void hrana_streams_timer(struct node *n, uint64_t now_ms)
{
    release(n, now_ms);
}
