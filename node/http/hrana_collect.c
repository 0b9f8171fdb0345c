/* Room: node/http.   Thread: loop.   Owns: the reply, until its caller empties it.
 * Invariants: what is collected is taken at once, so the stream never waits for us. What is
 *   collected is in node.waiting.
 *
 * When rows are beyond the limit all of the reply is forgotten at once, so that the room goes to
 * the answers that are left: of many that grow side by side only as many fail as there is no room
 * for. The request is run to its end all the same, and if it did something the error says so. */
#include "node/http/hrana_collect.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "node/http/aside.h"
#include "node/http/hrana_form.h"
#include "node/http/hrana_state.h"

#include <stdlib.h>
#include <string.h>

/* A step without rows takes as long to write as so many bytes of rows. */
#define STEP_BYTES 64u

static void free_result(struct hrana_result *r)
{
    if (r == NULL)
        return;
    buf_fini(&r->frames);
    free(r);
}

static void free_steps(struct hrana_reply *r)
{
    for (uint32_t i = 0; i < r->n_steps; i++) {
        free_result(r->steps[i].result);
        hrana_error_free(r->steps[i].error);
    }
    free(r->steps);
    r->steps = NULL;
}

void hrana_reply_fini(struct hrana_reply *r)
{
    if (r->steps != NULL)
        free_steps(r);
    hrana_error_free(r->error);
    if (r->description.max != 0)
        buf_fini(&r->description);
    *r = (struct hrana_reply){0};
}

void hrana_collect_fini(struct hrana_collect *c)
{
    hrana_reply_fini(&c->reply);
    if (c->waiting != NULL)
        waiting_set(c->waiting, &c->counted, 0);
}

bool hrana_collect_is_long(const struct hrana_collect *c)
{
    return c->bytes + c->reply.n_steps * STEP_BYTES >= ASIDE_MIN;
}

static struct hrana_result *result_of(struct hrana_collect *c, uint32_t step) ON_LOOP
{
    struct hrana_step_reply *s = &c->reply.steps[step];
    CHECK(step < c->reply.n_steps);
    if (s->result == NULL) {
        s->result = MEM_NEW(struct hrana_result);
        buf_init(&s->result->frames, c->max + WIRE_FRAME_MAX);
    }
    return s->result;
}

static void drop_result(struct hrana_collect *c, uint32_t step) ON_LOOP
{
    struct hrana_step_reply *s = &c->reply.steps[step];
    if (s->result == NULL)
        return;
    waiting_set(c->waiting, &c->counted, c->counted - s->result->frames.len);
    free_result(s->result);
    s->result = NULL;
}

static void put_frame(struct buf *b, const struct wire_frame *f) ON_LOOP
{
    buf_put(b, f->body.p - WIRE_HEAD_BYTES, hrana_rows_bytes(f)); /* with its head */
}

static void put_result(struct hrana_collect *c, uint32_t step, const struct wire_frame *f) ON_LOOP
{
    struct buf *frames = &result_of(c, step)->frames;
    size_t before = frames->len;
    put_frame(frames, f);
    waiting_set(c->waiting, &c->counted, c->counted + frames->len - before);
}

static bool is_full(const struct hrana_collect *c) ON_LOOP
{
    return c->too_large || c->no_room;
}

/* N bytes more. False: the reply is larger than it may be, or than there is room for. */
static bool has_room(struct hrana_collect *c, size_t n) ON_LOOP
{
    if (is_full(c))
        return false;
    c->bytes += n;
    c->too_large = c->bytes > c->max;
    c->no_room = !waiting_has_room(c->waiting, c->counted, n);
    for (uint32_t i = 0; i < c->reply.n_steps && is_full(c); i++)
        drop_result(c, i);
    return !is_full(c);
}

/* COLUMNS or ROWS. What comes when there is no room is taken all the same. */
static void take_frame(struct hrana_collect *c, uint32_t step, const struct wire_frame *f) ON_LOOP
{
    if (has_room(c, hrana_rows_bytes(f)))
        put_result(c, step, f);
}

static void on_columns(void *ctx, uint32_t step, struct wire_frame *f)
{
    struct hrana_collect *c = ctx;
    thread_expect_loop();
    take_frame(c, step, f);
}

static void on_rows(void *ctx, uint32_t step, struct wire_frame *f)
{
    struct hrana_collect *c = ctx;
    thread_expect_loop();
    take_frame(c, step, f);
    hrana_stream_took(c->stream, hrana_rows_bytes(f));
}

/* A batch of many errors, each with a long text in it, is as long as one of rows: beyond the limit
 * they are kept with their beginnings. */
static void on_step_error(void *ctx, uint32_t step, struct hrana_error *e)
{
    struct hrana_collect *c = ctx;
    struct hrana_step_reply *s = &c->reply.steps[step];
    thread_expect_loop();
    size_t n = strlen(e->message);
    c->wrote = c->wrote && c->stream->in_transaction;
    drop_result(c, step);
    hrana_error_free(s->error);
    s->error = e;
    if (n <= HRANA_ERROR_SHORT || has_room(c, 2 * n)) /* some of it is to be escaped */
        return;
    s->error = hrana_error_short(e);
    hrana_error_free(e);
}

static struct hrana_error *no_answer(const struct hrana_collect *c) ON_LOOP
{
    uint64_t max = c->stream->channel.node->config->http_answer_bytes;
    bool done = c->reply.done;
    return hrana_reply_untold(&c->reply, c->too_large ? hrana_error_too_large(done, max)
                                                      : hrana_error_no_room(done));
}

/* What a step wrote is done when no transaction is open behind it, and it was not rolled back. */
static void on_step(void *ctx, uint32_t step, const struct wire_done *d, bool read_only)
{
    struct hrana_collect *c = ctx;
    thread_expect_loop();
    c->wrote = c->wrote || !read_only;
    if (!c->stream->in_transaction) {
        const struct hrana_ask *a = &c->stream->ask;
        bool commits_older = a->is_commit && !c->was_autocommit;
        c->reply.done = c->reply.done || commits_older || (c->wrote && !a->is_rollback);
        c->wrote = false;
    }
    if (is_full(c))
        return;
    struct hrana_result *r = result_of(c, step);
    r->done = *d;
    r->read_only = read_only;
    r->took_us = (clock_mono_ns() - c->stream->ask.began_ns) / 1000;
}

static void on_description(void *ctx, struct wire_frame *f)
{
    struct hrana_collect *c = ctx;
    thread_expect_loop();
    buf_init(&c->reply.description, WIRE_FRAME_MAX + WIRE_LENGTH_BYTES);
    put_frame(&c->reply.description, f);
}

static void on_restart(void *ctx)
{
    struct hrana_collect *c = ctx;
    thread_expect_loop();
    for (uint32_t i = 0; i < c->reply.n_steps; i++) {
        drop_result(c, i);
        hrana_error_free(c->reply.steps[i].error);
        c->reply.steps[i] = (struct hrana_step_reply){0};
    }
    CHECK(c->counted == 0);
    c->bytes = 0;
    c->too_large = c->no_room = c->wrote = c->reply.done = false;
}

static void on_over(void *ctx, struct hrana_error *error)
{
    struct hrana_collect *c = ctx;
    thread_expect_loop();
    c->reply.is_autocommit = hrana_stream_is_autocommit(c->stream);
    bool stays = c->wrote || c->reply.is_autocommit != c->was_autocommit;
    c->reply.done = c->reply.done || (stays && !c->stream->fleeting) ||
                    (error == NULL && c->q->type == HRANA_SEQUENCE);
    c->reply.error = error == NULL && is_full(c) ? no_answer(c) : error;
    c->reply.replication_index = hrana_stream_memory(c->stream).seq;
    if (c->q->type == HRANA_EXECUTE && c->reply.error == NULL && c->reply.steps[0].error != NULL) {
        c->reply.error = c->reply.steps[0].error; /* the only statement's is the request's */
        c->reply.steps[0].error = NULL;
    }
    c->on_reply(c);
}

void hrana_collect(struct hrana_collect *c, struct hrana_stream *s, const struct hrana_request *q,
                   const struct hrana_wish *wish, size_t max,
                   void (*on_reply)(struct hrana_collect *c), void *ctx)
{
    static const struct hrana_events template = {.on_columns = on_columns,
                                                 .on_rows = on_rows,
                                                 .on_step = on_step,
                                                 .on_step_error = on_step_error,
                                                 .on_description = on_description,
                                                 .on_restart = on_restart,
                                                 .on_over = on_over};
    struct hrana_events events = template;
    *c = (struct hrana_collect){.stream = s, .q = q, .max = max, .on_reply = on_reply, .ctx = ctx};
    c->waiting = &s->channel.node->waiting;
    c->was_autocommit = hrana_stream_is_autocommit(s);
    c->reply.type = q->type;
    c->reply.n_steps = q->type == HRANA_BATCH ? q->batch.n_steps : q->type == HRANA_EXECUTE;
    c->reply.steps = mem_zalloc((c->reply.n_steps + 1) * sizeof *c->reply.steps);
    events.ctx = c;
    hrana_stream_run(s, q, wish, &events);
}
