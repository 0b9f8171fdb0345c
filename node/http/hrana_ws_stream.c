/* Room: node/http.   Thread: loop.
 * Owns: a stream of a WebSocket: its requests from the moment they came, its cursor.
 * Invariants: requests of a stream are run one after the other, as they came, and each is answered
 *   once; none begins while the client takes no answers; those of a cursor (fetch, close) are in
 * the same order. Not here: messages and the numbers that the client gives (hrana_ws.c). */
#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/http/aside.h"
#include "node/http/hrana_collect.h"
#include "node/http/hrana_cursor.h"
#include "node/http/hrana_ws_state.h"
#include "node/node.h"

#include <stdlib.h>

/* Of entries in one answer; a single row may be longer. */
#define FETCH_BYTES MIB(1)

struct hrana_ws_stream {
    struct list link;             /* of its WebSocket */
    struct aside aside;           /* writes a long reply: the next three are its own meanwhile */
    struct hrana_collect collect; /* of the running one */
    struct hrana_writer writer;
    struct buf out;
    int32_t answers; /* the number of the request */
    struct hrana_ws *ws;
    bool failed;     /* to open */
    bool has_cursor; /* as the client sees it */
    int32_t cursor_id;
    struct list queue;           /* struct hrana_ws_request */
    struct hrana_stream *stream; /* NULL: nothing was asked of it yet */
    struct hrana_ws_request *running;
    struct hrana_cursor *cursor;
    struct hrana_ws_request *cursor_request; /* its batch */
    bool going;
};

struct hrana_ws_stream *hrana_ws_stream_new(struct hrana_ws *w, bool failed)
{
    struct hrana_ws_stream *s = MEM_NEW(struct hrana_ws_stream);
    s->ws = w;
    s->failed = failed;
    list_init(&s->queue);
    list_push_back(&w->streams, &s->link);
    w->n_streams++;
    return s;
}

struct hrana_ws_stream *hrana_ws_stream_of(struct list *link)
{
    return LIST_ENTRY(link, struct hrana_ws_stream, link);
}

static void drop_cursor(struct hrana_ws_stream *s) ON_LOOP
{
    hrana_cursor_free(s->cursor);
    s->cursor = NULL;
    if (s->cursor_request != NULL)
        hrana_ws_request_free(s->ws, s->cursor_request);
    s->cursor_request = NULL;
}

static struct hrana_ws_stream *stream_of(struct aside *a)
{
    return LIST_ENTRY(a, struct hrana_ws_stream, aside);
}

static void on_left(struct aside *a)
{
    struct hrana_ws_stream *s = stream_of(a);
    thread_expect_loop();
    hrana_collect_fini(&s->collect);
    buf_fini(&s->out);
    free(s);
}

void hrana_ws_stream_free(struct hrana_ws_stream *s)
{
    struct list *l;
    list_remove(&s->link);
    s->ws->n_streams--;
    if (s->stream != NULL)
        hrana_stream_close(s->stream);
    drop_cursor(s);
    if (s->running != NULL)
        hrana_ws_request_free(s->ws, s->running);
    while ((l = list_pop_front(&s->queue)) != NULL)
        hrana_ws_request_free(s->ws, LIST_ENTRY(l, struct hrana_ws_request, link));
    if (!aside_leave(&s->aside, on_left))
        on_left(&s->aside);
}

bool hrana_ws_stream_cursor(const struct hrana_ws_stream *s, int32_t *id)
{
    *id = s->cursor_id;
    return s->has_cursor;
}

void hrana_ws_stream_set_cursor(struct hrana_ws_stream *s, bool there, int32_t id)
{
    s->has_cursor = there;
    s->cursor_id = id;
}

/* --- requests --- */

static void write_reply(struct aside *a)
{
    struct hrana_ws_stream *s = stream_of(a);
    hrana_write_response(&s->writer, s->answers, &s->collect.reply);
    hrana_reply_fini(&s->collect.reply);
}

static void on_written(struct aside *a)
{
    struct hrana_ws_stream *s = stream_of(a);
    struct hrana_ws_request *r = s->running;
    thread_expect_loop();
    s->running = NULL;
    hrana_ws_answered(s->ws, &s->out);
    buf_fini(&s->out);
    hrana_collect_fini(&s->collect);
    hrana_ws_request_free(s->ws, r);
    hrana_ws_stream_go(s);
}

static void on_reply(struct hrana_collect *c)
{
    struct hrana_ws_stream *s = c->ctx;
    thread_expect_loop();
    buf_init(&s->out, hrana_ws_answer_max(s->ws));
    s->writer = hrana_writer_of(s->ws->form, &s->out);
    s->answers = s->running->id;
    if (hrana_collect_is_long(c)) {
        aside_do(websocket_asides(s->ws->socket), &s->aside, write_reply, on_written);
    } else {
        write_reply(&s->aside);
        on_written(&s->aside);
    }
}

static void open_stream(struct hrana_ws_stream *s) ON_LOOP
{
    static const struct hrana_memory fresh = {.foreign_keys = true};
    if (s->stream == NULL)
        s->stream = hrana_stream_open(s->ws->node, &fresh);
}

static void run(struct hrana_ws_stream *s, struct hrana_ws_request *r) ON_LOOP
{
    if (s->cursor != NULL) {
        hrana_ws_say(s->ws, r,
                     hrana_error_new("CURSOR_OPEN", "the stream has a cursor: close it first"));
        return;
    }
    open_stream(s);
    s->running = r;
    hrana_collect(&s->collect, s->stream, &r->q, &s->ws->wish,
                  s->ws->node->config->http_answer_bytes, on_reply, s);
}

/* --- the cursor --- */

/* Answers FETCH_CURSOR with what there is; nothing yet, or a client that takes nothing: it waits.
 */
static void fetch(struct hrana_ws_stream *s) ON_LOOP
{
    struct hrana_ws_request *r = s->running;
    struct hrana_cursor *c = s->cursor;
    struct buf b;
    uint32_t max = r->q.max_count;
    if (max > 0 && !hrana_cursor_has_more(c) && !hrana_cursor_is_over(c))
        return;
    if (websocket_is_full(s->ws->socket))
        return; /* hrana_ws_stream_go follows */
    buf_init(&b, SIZE_MAX);
    struct hrana_writer out = hrana_writer_of(s->ws->form, &b);
    out.form->begin_fetched(&out, r->id);
    s->running = NULL; /* what comes while it is written waits for the next */
    (void)hrana_cursor_put(c, &out, max, FETCH_BYTES);
    out.form->end_fetched(&out, hrana_cursor_is_over(c) && !hrana_cursor_has_more(c));
    hrana_ws_answered(s->ws, &b);
    buf_fini(&b);
    hrana_ws_request_free(s->ws, r);
}

static void finish_close(struct hrana_ws_stream *s) ON_LOOP
{
    struct hrana_ws_request *r = s->running;
    if (!hrana_cursor_is_over(s->cursor))
        return; /* it is cancelled: that is soon */
    s->running = NULL;
    drop_cursor(s);
    hrana_ws_say(s->ws, r, NULL);
}

/* Its cursor is over, or it has none. S is gone after. */
static void end_stream(struct hrana_ws_stream *s, struct hrana_ws_request *r) ON_LOOP
{
    struct hrana_ws *w = s->ws;
    s->running = NULL;
    hrana_ws_stream_free(s);
    hrana_ws_say(w, r, NULL);
}

/* May come while frames are handed out: then the cursor is not over, and the stream not closed. */
static void on_more(void *ctx)
{
    struct hrana_ws_stream *s = ctx;
    struct hrana_ws_request *r = s->running;
    thread_expect_loop();
    if (s->going || r == NULL)
        return;
    if (r->q.type == HRANA_CLOSE_STREAM) {
        if (hrana_cursor_is_over(s->cursor))
            end_stream(s, r);
        return;
    }
    hrana_ws_stream_go(s);
}

/* False: S is gone. */
static bool close_stream(struct hrana_ws_stream *s, struct hrana_ws_request *r) ON_LOOP
{
    s->running = r;
    if (s->cursor != NULL)
        hrana_cursor_cancel(s->cursor);
    if (s->cursor != NULL && !hrana_cursor_is_over(s->cursor))
        return true;
    end_stream(s, r);
    return false;
}

static void open_cursor(struct hrana_ws_stream *s, struct hrana_ws_request *r) ON_LOOP
{
    struct hrana_reply done = {.type = HRANA_OPEN_CURSOR};
    struct buf b;
    CHECK(s->cursor == NULL); /* hrana_ws.c: one at a time */
    open_stream(s);
    s->cursor_request = r;
    s->cursor = hrana_cursor_open(s->stream, &r->q.batch, &s->ws->wish, on_more, s);
    buf_init(&b, SIZE_MAX);
    struct hrana_writer out = hrana_writer_of(s->ws->form, &b);
    hrana_write_response(&out, r->id, &done);
    hrana_ws_answered(s->ws, &b);
    buf_fini(&b);
}

static void begin_fetch(struct hrana_ws_stream *s, struct hrana_ws_request *r) ON_LOOP
{
    CHECK(s->cursor != NULL); /* hrana_ws.c: it was opened, and not closed */
    s->running = r;
    fetch(s);
}

static void close_cursor(struct hrana_ws_stream *s, struct hrana_ws_request *r) ON_LOOP
{
    CHECK(s->cursor != NULL);
    s->running = r;
    hrana_cursor_cancel(s->cursor);
    finish_close(s);
}

/* --- one after the other --- */

static struct hrana_error *not_open(enum hrana_type type)
{
    switch ((int)type) {
    case HRANA_OPEN_STREAM:
        return hrana_error_new("STREAM_TOO_MANY", "a WebSocket has at most %u streams",
                               HRANA_WS_STREAMS_MAX);
    case HRANA_CLOSE_CURSOR:
        return NULL;
    case HRANA_FETCH_CURSOR:
        return hrana_error_new("CURSOR_NOT_OPEN", "the cursor has failed to open");
    default:
        return hrana_error_new("STREAM_NOT_OPEN", "the stream has failed to open");
    }
}

/* False: S is gone. */
static bool begin(struct hrana_ws_stream *s, struct hrana_ws_request *r) ON_LOOP
{
    if (r->q.type == HRANA_CLOSE_STREAM)
        return close_stream(s, r);
    if (s->failed) {
        hrana_ws_say(s->ws, r, not_open(r->q.type));
        return true;
    }
    switch ((int)r->q.type) {
    case HRANA_OPEN_STREAM:
        hrana_ws_say(s->ws, r, NULL);
        break;
    case HRANA_OPEN_CURSOR:
        open_cursor(s, r);
        break;
    case HRANA_FETCH_CURSOR:
        begin_fetch(s, r);
        break;
    case HRANA_CLOSE_CURSOR:
        close_cursor(s, r);
        break;
    default:
        run(s, r);
        break;
    }
    return true;
}

void hrana_ws_stream_go(struct hrana_ws_stream *s)
{
    struct list *l;
    if (s->going)
        return; /* an answer came at once: the loop below sees it */
    s->going = true;
    if (s->running != NULL && s->running->q.type == HRANA_FETCH_CURSOR)
        fetch(s);
    else if (s->running != NULL && s->running->q.type == HRANA_CLOSE_CURSOR)
        finish_close(s);
    while (s->running == NULL && !websocket_is_full(s->ws->socket) &&
           (l = list_pop_front(&s->queue)) != NULL)
        if (!begin(s, LIST_ENTRY(l, struct hrana_ws_request, link)))
            return;
    s->going = false;
}

void hrana_ws_stream_take(struct hrana_ws_stream *s, struct hrana_ws_request *r)
{
    list_push_back(&s->queue, &r->link);
    hrana_ws_stream_go(s);
}
