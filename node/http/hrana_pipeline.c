/* Room: node/http.   Thread: loop.
 * Owns: the decoded body, the stream while the requests run, the answer as far as it is written.
 * Invariants: requests run one after the other, all of them, whatever becomes of those before.
 *
 *     body -> json_read -> hrana_json -> held (baton) -> stream, request by request
 *                                                     -> reply -> hrana_json -> exchange
 *
 * A client that goes away before its answer is there takes the stream along: it could not name it
 * any more. */
#include "node/http/hrana_pipeline.h"

#include "base/check.h"
#include "base/mem.h"
#include "node/http/hrana_collect.h"
#include "node/http/hrana_held.h"
#include "node/http/hrana_json.h"
#include "node/http/hrana_post.h"
#include "node/node.h"

#include <stdlib.h>

struct pipeline {
    struct hrana_post post;
    struct hrana_stream *stream; /* NULL: closed by its client */
    uint32_t at;                 /* the request that runs */
    bool running, going, over;
    struct hrana_collect collect;
    struct buf out;
    struct json_writer json;
};

static void free_pipeline(struct pipeline *p) ON_LOOP
{
    hrana_post_fini(&p->post);
    buf_fini(&p->out);
    hrana_collect_fini(&p->collect);
    free(p);
}

static void on_begin(struct exchange *x)
{
    thread_expect_loop();
    struct pipeline *p = MEM_NEW(struct pipeline);
    if (!hrana_post_begin(&p->post, x)) {
        free(p);
        return;
    }
    buf_init(&p->out, x->node->config->http_answer_bytes + HRANA_JSON_RESERVE);
    x->state = p;
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
    bool open = p->stream != NULL;
    if (open)
        hrana_held_give(p->post.x->node->held, p->stream, baton, &url);
    p->stream = NULL;
    hrana_json_end_pipeline(&p->json, open ? baton : NULL, url);
    if (buf_status(&p->out) != ERR_OK) { /* the reserve is used up by very many errors */
        exchange_fail(p->post.x, 500, "RESPONSE_TOO_LARGE",
                      "the answer is over the size limit (http-answer-bytes)");
        return;
    }
    exchange_answer(p->post.x, 200, "application/json", &p->out);
}

/* Of a stream that its client closed in this pipeline. */
static void reply_without_stream(struct pipeline *p, const struct hrana_request *q) ON_LOOP
{
    struct hrana_reply r = {.type = q->type};
    if (q->type != HRANA_CLOSE)
        r.error = hrana_error_new("STREAM_CLOSED", "the stream was closed before this request");
    hrana_json_put_reply(&p->json, &r);
    hrana_reply_fini(&r);
}

static void on_reply(struct hrana_collect *c);

static void go(struct pipeline *p) ON_LOOP
{
    if (p->going)
        return; /* a reply came at once: the loop below sees it */
    p->going = true;
    while (!p->running && !p->over && p->at < p->post.body.n_requests) {
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
    if (!p->running && !p->over)
        answer(p); /* P is gone */
}

static void on_reply(struct hrana_collect *c)
{
    struct pipeline *p = c->ctx;
    thread_expect_loop();
    hrana_json_put_reply(&p->json, &c->reply);
    hrana_collect_fini(c);
    hrana_post_count(&p->post, p->out.len);
    p->running = false;
    p->at++;
    go(p);
}

static void end(struct exchange *x, hrana_decoder *decode) ON_LOOP
{
    struct pipeline *p = x->state;
    if (!hrana_post_end(&p->post, decode))
        return;
    const struct hrana_text *baton = &p->post.body.baton;
    struct hrana_error *error = hrana_held_take(x->node->held, baton, &p->stream);
    if (error != NULL) {
        hrana_post_fail(x, 400, error);
        return;
    }
    p->json = json_writer_of(&p->out);
    hrana_json_begin_pipeline(&p->json);
    go(p);
}

static enum err decode_2(const struct json *root, struct arena *arena, struct hrana_body *out)
{
    return hrana_json_pipeline(root, HRANA_2, arena, out);
}

static enum err decode_3(const struct json *root, struct arena *arena, struct hrana_body *out)
{
    return hrana_json_pipeline(root, HRANA_3, arena, out);
}

static void end_2(struct exchange *x)
{
    thread_expect_loop();
    end(x, decode_2);
}

static void end_3(struct exchange *x)
{
    thread_expect_loop();
    end(x, decode_3);
}

static void on_over(struct exchange *x)
{
    struct pipeline *p = x->state;
    thread_expect_loop();
    if (p == NULL)
        return; /* it was refused before it began */
    p->over = true;
    if (p->stream != NULL)
        hrana_stream_close(p->stream);
    free_pipeline(p);
}

const struct handler hrana_pipeline_2 = {
    .on_begin = on_begin, .on_body = on_body, .on_end = end_2, .on_over = on_over};
const struct handler hrana_pipeline_3 = {
    .on_begin = on_begin, .on_body = on_body, .on_end = end_3, .on_over = on_over};

static void say_yes(struct exchange *x)
{
    thread_expect_loop();
    exchange_answer(x, 200, "text/plain", NULL);
}

const struct handler hrana_is_spoken = {.on_end = say_yes};
