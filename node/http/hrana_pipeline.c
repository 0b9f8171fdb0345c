/* Room: node/http.   Thread: loop.
 * Owns: the decoded body, the stream while the requests run, the answer as far as it is written.
 * Invariants: requests run one after the other, all of them, whatever becomes of those before.
 *
 *     body -> form -> held (baton) -> stream, request by request -> reply -> form -> exchange
 *
 * The loop is for all: requests that are answered at once are run a few at a time, in the
 * connection's turns; what is long is read and written beside the loop.
 *
 * A client that goes away before its answer is there takes the stream along: it could not name it
 * any more. */
#include "node/http/hrana_pipeline.h"

#include "base/check.h"
#include "base/mem.h"
#include "node/http/hrana_collect.h"
#include "node/http/hrana_held.h"
#include "node/http/hrana_form.h"
#include "node/http/hrana_json.h"
#include "node/http/hrana_post.h"
#include "node/http/hrana_protobuf.h"
#include "node/node.h"

#include <stdlib.h>
#include <string.h>

/* So many requests are run before the loop looks at the clock. */
#define AT_ONCE_MAX 16u

struct pipeline {
    struct hrana_post post;
    struct hrana_stream *stream; /* NULL: closed by its client */
    uint32_t at;                 /* the request that runs */
    bool running, going;
    bool done; /* something of it */
    struct hrana_collect collect;
    struct buf out;
    struct hrana_writer writer;
};

static struct pipeline *pipeline_of(struct hrana_post *post)
{
    return LIST_ENTRY(post, struct pipeline, post);
}

static void free_pipeline(struct hrana_post *post)
{
    struct pipeline *p = pipeline_of(post);
    thread_expect_loop();
    hrana_post_fini(&p->post);
    buf_fini(&p->out);
    hrana_collect_fini(&p->collect);
    free(p);
}

static void begin(struct exchange *x, const struct hrana_form *form,
                  enum hrana_version version) ON_LOOP
{
    struct pipeline *p = MEM_NEW(struct pipeline);
    if (!hrana_post_begin(&p->post, x, form, version)) {
        free(p);
        return;
    }
    buf_init(&p->out, x->node->config->http_answer_bytes + HRANA_ANSWER_RESERVE);
    p->writer = hrana_writer_of(form, &p->out);
    x->state = p;
}

static void begin_2(struct exchange *x)
{
    thread_expect_loop();
    begin(x, &hrana_json, HRANA_2);
}

static void begin_3(struct exchange *x)
{
    thread_expect_loop();
    begin(x, &hrana_json, HRANA_3);
}

static void begin_3_protobuf(struct exchange *x)
{
    thread_expect_loop();
    begin(x, &hrana_protobuf, HRANA_3);
}

static void on_body(struct exchange *x, const uint8_t *bytes, size_t n)
{
    struct pipeline *p = x->state;
    thread_expect_loop();
    hrana_post_feed(&p->post, bytes, n);
}

/* --- the answer --- */

static void answer(struct pipeline *p) ON_LOOP
{
    char baton[BATON_TEXT_MAX];
    const char *url = NULL;
    size_t end = BATON_TEXT_MAX + 6 * strlen(p->post.x->node->config->http_url) + 64;
    if (p->out.len + end > p->out.max || buf_status(&p->out) != ERR_OK) {
        /* Very many errors used up the reserve. Its client never hears the stream's next baton. */
        uint64_t max = p->post.x->node->config->http_answer_bytes;
        hrana_post_fail(p->post.x, 500, hrana_error_too_large(p->done, max));
        return;
    }
    bool open = p->stream != NULL && hrana_post_give(&p->post, p->stream, baton, &url);
    p->stream = NULL;
    p->writer.form->end_pipeline(&p->writer, open ? baton : NULL, url);
    CHECK(buf_status(&p->out) == ERR_OK);
    exchange_answer(p->post.x, 200, p->writer.form->content_type, &p->out);
}

/* Of a stream that its client closed in this pipeline. */
static void reply_without_stream(struct pipeline *p, const struct hrana_request *q) ON_LOOP
{
    struct hrana_reply r = {.type = q->type};
    if (q->type != HRANA_CLOSE)
        r.error = hrana_error_new("STREAM_CLOSED", "the stream was closed before this request");
    hrana_write_reply(&p->writer, &r);
    hrana_reply_fini(&r);
}

static void on_reply(struct hrana_collect *c);

static void go(struct pipeline *p) ON_LOOP
{
    unsigned left = AT_ONCE_MAX;
    if (p->going)
        return; /* a reply came at once: the loop below sees it */
    p->going = true;
    for (; !p->running && left > 0 && p->at < p->post.body.n_requests; left--) {
        const struct hrana_request *q = &p->post.body.requests[p->at];
        if (q->type == HRANA_CLOSE && p->stream != NULL) {
            hrana_stream_close(p->stream);
            p->stream = NULL;
        }
        if (p->stream == NULL) {
            reply_without_stream(p, q);
            p->at++;
            continue;
        }
        size_t max = p->post.x->node->config->http_answer_bytes;
        p->running = true;
        hrana_collect(&p->collect, p->stream, q, &p->post.wish,
                      max > p->out.len ? max - p->out.len : 0, on_reply, p);
    }
    p->going = false;
    if (p->running)
        return;
    if (p->at < p->post.body.n_requests)
        exchange_again(p->post.x);
    else
        answer(p); /* P is gone */
}

static void on_turn(struct exchange *x)
{
    thread_expect_loop();
    go(x->state);
}

static void write_reply(struct hrana_post *post)
{
    struct pipeline *p = pipeline_of(post);
    hrana_write_reply(&p->writer, &p->collect.reply);
    hrana_reply_fini(&p->collect.reply);
}

static void on_written(struct hrana_post *post)
{
    struct pipeline *p = pipeline_of(post);
    thread_expect_loop();
    hrana_collect_fini(&p->collect);
    hrana_post_count(&p->post, p->out.len);
    p->running = false;
    p->at++;
    go(p);
}

static void on_reply(struct hrana_collect *c)
{
    struct pipeline *p = c->ctx;
    thread_expect_loop();
    p->done = p->done || c->reply.done;
    if (hrana_collect_is_long(c)) {
        hrana_post_aside(&p->post, write_reply, on_written);
    } else {
        write_reply(&p->post);
        on_written(&p->post);
    }
}

static void on_read(struct hrana_post *post)
{
    struct pipeline *p = pipeline_of(post);
    struct exchange *x = post->x;
    thread_expect_loop();
    const struct hrana_text *baton = &p->post.body.baton;
    struct hrana_error *error = hrana_held_take(x->node->held, baton, &p->stream);
    if (error != NULL) {
        hrana_post_fail(x, 400, error);
        return;
    }
    p->writer.form->begin_pipeline(&p->writer);
    go(p);
}

static void on_end(struct exchange *x)
{
    struct pipeline *p = x->state;
    thread_expect_loop();
    hrana_post_end(&p->post, p->writer.form->pipeline, on_read);
}

static void on_over(struct exchange *x)
{
    struct pipeline *p = x->state;
    thread_expect_loop();
    if (p == NULL)
        return; /* it was refused before it began */
    if (p->stream != NULL)
        hrana_stream_close(p->stream);
    hrana_post_over(&p->post, free_pipeline);
}

const struct handler hrana_pipeline_2 = {.on_begin = begin_2,
                                         .on_body = on_body,
                                         .on_end = on_end,
                                         .on_turn = on_turn,
                                         .on_over = on_over};
const struct handler hrana_pipeline_3 = {.on_begin = begin_3,
                                         .on_body = on_body,
                                         .on_end = on_end,
                                         .on_turn = on_turn,
                                         .on_over = on_over};
const struct handler hrana_pipeline_3_protobuf = {.on_begin = begin_3_protobuf,
                                                  .on_body = on_body,
                                                  .on_end = on_end,
                                                  .on_turn = on_turn,
                                                  .on_over = on_over};

static void say_yes(struct exchange *x)
{
    thread_expect_loop();
    exchange_answer(x, 200, "text/plain", NULL);
}

const struct handler hrana_is_spoken = {.on_end = say_yes};
