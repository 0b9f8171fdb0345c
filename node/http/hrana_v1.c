/* Room: node/http.   Thread: loop.
 * Owns: the decoded body, the stream while its request runs, the answer.
 * Invariants: nothing of a request stays behind: a transaction that it leaves open is rolled back.
 * Not here: the forms themselves (hrana_json_write.c, hrana_json_oldest.c). */
#include "node/http/hrana_v1.h"

#include "base/mem.h"
#include "node/http/hrana_collect.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_json.h"
#include "node/http/hrana_post.h"
#include "node/node.h"

#include <stdlib.h>

typedef void writer(struct hrana_writer *w, const struct hrana_reply *r,
                    struct hrana_error **error);

struct call {
    struct hrana_post post;
    struct hrana_stream *stream;
    struct hrana_collect collect;
    writer *write;
    struct hrana_error *error; /* of writing */
    bool done;                 /* as of the reply, which is gone when it is written */
    struct buf out;
};

static struct call *call_of(struct hrana_post *post)
{
    return LIST_ENTRY(post, struct call, post);
}

static void on_begin(struct exchange *x)
{
    thread_expect_loop();
    struct call *c = MEM_NEW(struct call);
    if (!hrana_post_begin(&c->post, x, &hrana_json, HRANA_1)) {
        free(c);
        return;
    }
    buf_init(&c->out, x->node->config->http_answer_bytes + HRANA_ANSWER_RESERVE);
    x->state = c;
}

static void on_body(struct exchange *x, const uint8_t *bytes, size_t n)
{
    struct call *c = x->state;
    thread_expect_loop();
    hrana_post_feed(&c->post, bytes, n);
}

static void write_reply(struct hrana_post *post)
{
    struct call *c = call_of(post);
    struct hrana_writer w = hrana_writer_of(&hrana_json, &c->out);
    c->write(&w, &c->collect.reply, &c->error);
    hrana_reply_fini(&c->collect.reply);
}

static void on_written(struct hrana_post *post)
{
    struct call *c = call_of(post);
    struct exchange *x = post->x;
    struct hrana_error *error = c->error;
    thread_expect_loop();
    c->error = NULL;
    if (error == NULL && buf_status(&c->out) != ERR_OK)
        error = hrana_error_too_large(c->done, x->node->config->http_answer_bytes);
    if (error != NULL)
        hrana_post_fail(x, hrana_error_status(error), error);
    else
        exchange_answer(x, 200, "application/json", &c->out);
}

static void on_reply(struct hrana_collect *collect)
{
    struct call *c = collect->ctx;
    thread_expect_loop();
    hrana_stream_close(c->stream);
    c->stream = NULL;
    c->done = collect->reply.done;
    if (hrana_collect_is_long(collect)) {
        hrana_post_aside(&c->post, write_reply, on_written);
    } else {
        write_reply(&c->post);
        on_written(&c->post);
    }
}

static void on_read(struct hrana_post *post)
{
    static const struct hrana_memory fresh = {.foreign_keys = true};
    struct call *c = call_of(post);
    thread_expect_loop();
    c->stream = hrana_stream_open(post->node, &fresh);
    hrana_stream_ends(c->stream);
    hrana_collect(&c->collect, c->stream, &post->body.requests[0], &post->wish,
                  post->node->config->http_answer_bytes, on_reply, c);
}

static void end(struct exchange *x, hrana_decoder *decode, writer *write) ON_LOOP
{
    struct call *c = x->state;
    c->write = write;
    hrana_post_end(&c->post, decode, on_read);
}

static void end_execute(struct exchange *x)
{
    thread_expect_loop();
    end(x, hrana_json_v1_execute, hrana_json_put_v1);
}

static void end_batch(struct exchange *x)
{
    thread_expect_loop();
    end(x, hrana_json_v1_batch, hrana_json_put_v1);
}

static void end_statements(struct exchange *x)
{
    thread_expect_loop();
    end(x, hrana_json_statements, hrana_json_put_statements);
}

static void free_call(struct hrana_post *post)
{
    struct call *c = call_of(post);
    thread_expect_loop();
    hrana_collect_fini(&c->collect);
    hrana_error_free(c->error);
    hrana_post_fini(&c->post);
    buf_fini(&c->out);
    free(c);
}

static void on_over(struct exchange *x)
{
    struct call *c = x->state;
    thread_expect_loop();
    if (c == NULL)
        return; /* it was refused before it began */
    if (c->stream != NULL)
        hrana_stream_close(c->stream);
    hrana_post_over(&c->post, free_call);
}

const struct handler hrana_v1_execute = {
    .on_begin = on_begin, .on_body = on_body, .on_end = end_execute, .on_over = on_over};
const struct handler hrana_v1_batch = {
    .on_begin = on_begin, .on_body = on_body, .on_end = end_batch, .on_over = on_over};
const struct handler hrana_statements = {
    .on_begin = on_begin, .on_body = on_body, .on_end = end_statements, .on_over = on_over};
