/* Room: node/http.   Thread: loop.
 * Owns: the decoded body, the stream and its cursor while the answer is under way.
 * Invariants: no more than one piece is written ahead of what the client takes; the stream is at
 *   rest, under the baton of the first line, before the last piece goes out.
 *
 *     body -> batch -> hrana_cursor -> pieces -> exchange
 *                          ^--- on_drain: the client took some
 *
 * The baton stands before all rows, when nobody knows what becomes of the stream: so a place is
 * reserved for it (hrana_held.h). A client that goes away takes the stream along. */
#include "node/http/hrana_cursor_http.h"

#include "base/check.h"
#include "base/mem.h"
#include "node/http/hrana_cursor.h"
#include "node/http/hrana_held.h"
#include "node/http/hrana_json.h"
#include "node/http/hrana_post.h"
#include "node/http/hrana_protobuf.h"
#include "node/node.h"

#include <stdlib.h>

/* Of an answer; a single row may be longer. */
#define PIECE_BYTES 65536u

struct cursor_answer {
    struct hrana_post post; /* first */
    struct hrana_stream *stream;
    struct hrana_cursor *cursor;
    struct hrana_writer writer;
    struct buf out;
    bool flushing;
};

static struct cursor_answer *answer_of(struct hrana_post *post)
{
    return LIST_ENTRY(post, struct cursor_answer, post);
}

static void begin(struct exchange *x, const struct hrana_form *form) ON_LOOP
{
    struct cursor_answer *a = MEM_NEW(struct cursor_answer);
    if (!hrana_post_begin(&a->post, x, form, HRANA_3)) {
        free(a);
        return;
    }
    buf_init(&a->out, SIZE_MAX);
    a->writer = hrana_writer_of(form, &a->out);
    x->state = a;
}

static void begin_json(struct exchange *x)
{
    thread_expect_loop();
    begin(x, &hrana_json);
}

static void begin_protobuf(struct exchange *x)
{
    thread_expect_loop();
    begin(x, &hrana_protobuf);
}

static void on_body(struct exchange *x, const uint8_t *bytes, size_t n)
{
    struct cursor_answer *a = x->state;
    thread_expect_loop();
    hrana_post_feed(&a->post, bytes, n);
}

static void finish(struct cursor_answer *a) ON_LOOP
{
    char baton[BATON_TEXT_MAX]; /* the one that was told already */
    struct exchange *x = a->post.x;
    const char *url;
    hrana_cursor_free(a->cursor);
    a->cursor = NULL;
    (void)hrana_post_give(&a->post, a->stream, baton, &url);
    a->stream = NULL;
    exchange_finish(x); /* A is gone */
}

/* Writes what the client takes. */
static void flush(struct cursor_answer *a) ON_LOOP
{
    struct exchange *x = a->post.x;
    if (a->flushing)
        return; /* what was taken made more: the loop below sees it */
    a->flushing = true;
    while (hrana_cursor_has_more(a->cursor) && !exchange_is_full(x)) {
        (void)hrana_cursor_put(a->cursor, &a->writer, UINT32_MAX, PIECE_BYTES);
        CHECK(buf_status(&a->out) == ERR_OK);
        exchange_put(x, &a->out);
    }
    a->flushing = false;
    if (hrana_cursor_is_over(a->cursor) && !hrana_cursor_has_more(a->cursor))
        finish(a);
}

static void on_more(void *ctx)
{
    thread_expect_loop();
    flush(ctx);
}

static void on_drain(struct exchange *x)
{
    struct cursor_answer *a = x->state;
    thread_expect_loop();
    if (a->cursor != NULL)
        flush(a);
}

static void on_read(struct hrana_post *post)
{
    struct cursor_answer *a = answer_of(post);
    struct exchange *x = post->x;
    char baton[BATON_TEXT_MAX];
    const char *url;
    thread_expect_loop();
    const struct hrana_body *body = &a->post.body;
    struct hrana_error *error = hrana_held_take(x->node->held, &body->baton, &a->stream);
    if (error != NULL) {
        hrana_post_fail(x, 400, error);
        return;
    }
    const struct hrana_batch *batch = &body->requests[0].batch;
    hrana_stream_follow_client(a->stream);
    hrana_held_reserve(x->node->held, a->stream, batch, baton, &url);
    exchange_begin(x, 200, a->writer.form->content_type);
    a->writer.form->begin_cursor(&a->writer, baton, url);
    exchange_put(x, &a->out);
    a->cursor = hrana_cursor_open(a->stream, batch, &a->post.wish, on_more, a);
    flush(a);
}

static void on_end(struct exchange *x)
{
    struct cursor_answer *a = x->state;
    thread_expect_loop();
    hrana_post_end(&a->post, a->writer.form->cursor, on_read);
}

static void free_answer(struct hrana_post *post)
{
    struct cursor_answer *a = answer_of(post);
    thread_expect_loop();
    hrana_post_fini(&a->post);
    buf_fini(&a->out);
    free(a);
}

static void on_over(struct exchange *x)
{
    struct cursor_answer *a = x->state;
    thread_expect_loop();
    if (a == NULL)
        return; /* it was refused before it began */
    if (a->stream != NULL)
        hrana_stream_close(a->stream);
    hrana_cursor_free(a->cursor);
    hrana_post_over(&a->post, free_answer);
}

const struct handler hrana_cursor_json = {.on_begin = begin_json,
                                          .on_body = on_body,
                                          .on_end = on_end,
                                          .on_drain = on_drain,
                                          .on_over = on_over};
const struct handler hrana_cursor_protobuf = {.on_begin = begin_protobuf,
                                              .on_body = on_body,
                                              .on_end = on_end,
                                              .on_drain = on_drain,
                                              .on_over = on_over};
