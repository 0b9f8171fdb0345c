/* Room: node/http.   Thread: loop.
 * Owns: a WebSocket that speaks Hrana: its streams, stored texts, requests.
 * Invariants: each request is answered once, or the WebSocket ends; what a request refers to by
 *   number is looked up when it comes, so a close_sql or close_stream behind it changes nothing for
 *   it; no message is read within a callback of a stream (hrana_ws_go_on).
 * Not here: how messages are read (hrana_ws_read.c), how a stream runs its requests
 * (hrana_ws_stream.c), the form of messages (hrana_form.h).
 *
 * A stream is a struct and a number until something is asked of it, so a client may open one for
 * each of its calls, as drivers do. When the socket ends, its streams do: an open transaction is
 * rolled back. */
#include "node/http/hrana_ws.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/http/aside.h"
#include "node/http/hrana_collect.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_json.h"
#include "node/http/hrana_post.h"
#include "node/http/hrana_protobuf.h"
#include "node/http/hrana_wish.h"
#include "node/http/hrana_ws_state.h"
#include "node/node.h"
#include "node/waiting.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void hrana_ws_count(struct hrana_ws *w, size_t more, size_t less)
{
    CHECK(w->bytes + more >= less);
    w->bytes = w->bytes + more - less;
    waiting_set(&w->node->waiting, &w->counted, w->bytes);
}

/* --- stored texts --- */

static size_t text_bytes(const struct hrana_ws_text *t)
{
    return sizeof *t + t->n;
}

static void unref(struct hrana_ws *w, struct hrana_ws_text *t) ON_LOOP
{
    if (--t->refs > 0)
        return;
    hrana_ws_count(w, 0, text_bytes(t));
    free(t);
}

static void store(struct hrana_ws *w, const struct hrana_request *q) ON_LOOP
{
    struct hrana_ws_text *t = mem_alloc(sizeof *t + q->stmt.sql.n);
    t->refs = 1;
    t->n = q->stmt.sql.n;
    if (t->n > 0)
        memcpy(t->text, q->stmt.sql.p, t->n);
    table_put(&w->texts, (uint32_t)q->sql_id, t);
    hrana_ws_count(w, text_bytes(t), 0);
}

static void forget(struct hrana_ws *w, int32_t id) ON_LOOP
{
    struct hrana_ws_text *t = table_take(&w->texts, (uint32_t)id);
    if (t != NULL)
        unref(w, t);
}

/* Puts the text in the place of its number; one that is not there is for the stream to say. */
static void resolve(struct hrana_ws *w, struct hrana_ws_request *r, struct hrana_stmt *stmt) ON_LOOP
{
    struct hrana_ws_text *t = stmt->by_id ? table_get(&w->texts, (uint32_t)stmt->sql_id) : NULL;
    if (t == NULL)
        return;
    stmt->by_id = false;
    stmt->sql = (struct hrana_text){.p = t->text, .n = t->n};
    t->refs++;
    r->texts[r->n_texts++] = t;
}

/* False: there is no room for it. */
static bool resolve_all(struct hrana_ws *w, struct hrana_ws_request *r) ON_LOOP
{
    struct hrana_batch *b = &r->q.batch;
    struct hrana_step *steps = NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_steps; i++)
        n += b->steps[i].stmt.by_id;
    if (n > 0) {
        steps = arena_take(&r->arena, b->n_steps * sizeof *steps);
        if (steps != NULL)
            memcpy(steps, b->steps, b->n_steps * sizeof *steps);
        b->steps = steps;
    }
    r->texts = arena_zeroed(&r->arena, (n + 1) * sizeof *r->texts);
    if (r->arena.failed)
        return false;
    resolve(w, r, &r->q.stmt);
    for (uint32_t i = 0; n > 0 && i < b->n_steps; i++)
        resolve(w, r, &steps[i].stmt);
    return true;
}

/* --- answers --- */

static size_t request_bytes(const struct hrana_ws_request *r)
{
    return sizeof *r + r->arena.used;
}

void hrana_ws_request_free(struct hrana_ws *w, struct hrana_ws_request *r)
{
    for (uint32_t i = 0; i < r->n_texts; i++)
        unref(w, r->texts[i]);
    hrana_ws_count(w, 0, request_bytes(r));
    aside_free(websocket_asides(w->socket), &r->arena, &w->node->waiting);
    free(r);
}

static void send_message(struct hrana_ws *w, struct buf *b) ON_LOOP
{
    if (w->form->binary)
        websocket_send_binary(w->socket, b);
    else
        websocket_send_text(w->socket, b);
}

void hrana_ws_read_on(struct hrana_ws *w)
{
    if (w->reading != NULL)
        return;
    if (w->ends && w->n_flight == 0) {
        websocket_close(w->socket, WEBSOCKET_GOING_AWAY, "this node stops");
    } else if (!w->ends && w->paused && w->n_flight <= HRANA_WS_FLIGHT_MAX / 2) {
        list_remove(&w->later);
        list_push_back(&w->node->hrana_sockets, &w->later);
    }
}

size_t hrana_ws_answer_max(const struct hrana_ws *w)
{
    return w->node->config->http_answer_bytes + HRANA_ANSWER_RESERVE;
}

void hrana_ws_answered(struct hrana_ws *w, struct buf *b)
{
    CHECK(w->n_flight > 0 && buf_status(b) == ERR_OK);
    w->n_flight--;
    send_message(w, b);
    hrana_ws_read_on(w);
}

void hrana_ws_answer(struct hrana_ws *w, struct hrana_ws_request *r, struct hrana_reply *reply)
{
    struct buf b;
    buf_init(&b, hrana_ws_answer_max(w));
    struct hrana_writer out = hrana_writer_of(w->form, &b);
    reply->type = r->q.type;
    hrana_write_response(&out, r->id, reply);
    hrana_ws_answered(w, &b);
    buf_fini(&b);
    hrana_reply_fini(reply);
    hrana_ws_request_free(w, r);
}

void hrana_ws_say(struct hrana_ws *w, struct hrana_ws_request *r, struct hrana_error *error)
{
    struct hrana_reply reply = {.error = error};
    hrana_ws_answer(w, r, &reply);
}

/* --- requests --- */

bool hrana_ws_break(struct hrana_ws *w, enum websocket_code code, const char *format, ...)
{
    va_list args;
    char why[124];
    va_start(args, format);
    (void)vsnprintf(why, sizeof why, format, args);
    va_end(args);
    w->broken = true;
    websocket_close(w->socket, code, why);
    return false;
}

static bool breaks(struct hrana_ws *w, const char *what, int32_t id, const char *why) ON_LOOP
{
    return hrana_ws_break(w, WEBSOCKET_POLICY, "%s %" PRId32 " %s", what, id, why);
}

/* Each of the following returns false if the client breaks the protocol: R is the caller's then. */

static bool store_sql(struct hrana_ws *w, struct hrana_ws_request *r) ON_LOOP
{
    struct hrana_error *error = NULL;
    if (r->q.type == HRANA_CLOSE_SQL)
        forget(w, r->q.sql_id);
    else if (table_get(&w->texts, (uint32_t)r->q.sql_id) != NULL)
        return breaks(w, "SQL text", r->q.sql_id, "is stored already");
    else if (w->texts.n == HRANA_STORED_MAX)
        error = hrana_error_new("SQL_STORE_TOO_MANY", "a WebSocket stores at most %u SQL texts",
                                HRANA_STORED_MAX);
    else if (r->q.stmt.sql.n > SQL_TEXT_MAX)
        error = hrana_error_new("SQL_TOO_LONG", "a statement's text is at most %zu bytes",
                                (size_t)SQL_TEXT_MAX);
    else
        store(w, &r->q);
    hrana_ws_say(w, r, error);
    return true;
}

static bool open_stream(struct hrana_ws *w, struct hrana_ws_request *r) ON_LOOP
{
    uint32_t id = (uint32_t)r->q.stream_id;
    if (table_get(&w->by_id, id) != NULL)
        return breaks(w, "stream", r->q.stream_id, "is open already");
    if (w->n_streams >= 2 * HRANA_WS_STREAMS_MAX)
        return hrana_ws_break(w, WEBSOCKET_POLICY, "too many streams: at most %u are served",
                              HRANA_WS_STREAMS_MAX);
    struct hrana_ws_stream *s = hrana_ws_stream_new(w, w->n_streams >= HRANA_WS_STREAMS_MAX);
    table_put(&w->by_id, id, s);
    hrana_ws_stream_take(s, r);
    return true;
}

/* A request of the stream that it names; one that names a cursor belongs to the cursor's. */
static struct hrana_ws_stream *stream_of(struct hrana_ws *w, const struct hrana_request *q) ON_LOOP
{
    struct hrana_ws_stream *s;
    if (q->type == HRANA_FETCH_CURSOR || q->type == HRANA_CLOSE_CURSOR) {
        s = table_get(&w->cursors, (uint32_t)q->cursor_id);
        if (s == NULL)
            (void)breaks(w, "cursor", q->cursor_id, "is not open");
    } else {
        s = table_get(&w->by_id, (uint32_t)q->stream_id);
        if (s == NULL)
            (void)breaks(w, "stream", q->stream_id, "is not open");
    }
    return s;
}

static bool note_cursor(struct hrana_ws *w, struct hrana_ws_stream *s,
                        const struct hrana_request *q) ON_LOOP
{
    int32_t id;
    bool has = hrana_ws_stream_cursor(s, &id);
    switch ((int)q->type) {
    case HRANA_OPEN_CURSOR:
        if (has)
            return breaks(w, "stream", q->stream_id, "has a cursor already");
        if (table_get(&w->cursors, (uint32_t)q->cursor_id) != NULL)
            return breaks(w, "cursor", q->cursor_id, "is open already");
        table_put(&w->cursors, (uint32_t)q->cursor_id, s);
        hrana_ws_stream_set_cursor(s, true, q->cursor_id);
        return true;
    case HRANA_CLOSE_CURSOR:
        (void)table_take(&w->cursors, (uint32_t)q->cursor_id);
        hrana_ws_stream_set_cursor(s, false, 0);
        return true;
    case HRANA_CLOSE_STREAM: /* from now on its numbers are free */
        if (has)
            (void)table_take(&w->cursors, (uint32_t)id);
        (void)table_take(&w->by_id, (uint32_t)q->stream_id);
        return true;
    default:
        return true;
    }
}

static bool take_request(struct hrana_ws *w, struct hrana_ws_request *r) ON_LOOP
{
    switch ((int)r->q.type) {
    case HRANA_STORE_SQL:
    case HRANA_CLOSE_SQL:
        return store_sql(w, r);
    case HRANA_OPEN_STREAM:
        return open_stream(w, r);
    default:
        break;
    }
    struct hrana_ws_stream *s = stream_of(w, &r->q);
    if (s == NULL || !note_cursor(w, s, &r->q))
        return false;
    hrana_ws_stream_take(s, r);
    return true;
}

/* --- messages --- */

static bool say_hello(struct hrana_ws *w) ON_LOOP
{
    struct buf b;
    if (w->greeted && w->version < HRANA_2)
        return hrana_ws_break(w, WEBSOCKET_POLICY, "a second hello is for hrana2 and higher");
    w->greeted = true; /* there is no authentication yet: all are who they say */
    buf_init(&b, 64);
    struct hrana_writer out = hrana_writer_of(w->form, &b);
    out.form->put_hello(&out, NULL);
    send_message(w, &b);
    buf_fini(&b);
    return true;
}

/* False: it is the end; R is the caller's. */
static bool take_message(struct hrana_ws *w, const struct hrana_message *m,
                         struct hrana_ws_request *r) ON_LOOP
{
    if (!w->greeted)
        return hrana_ws_break(w, WEBSOCKET_POLICY, "the first message is to be hello");
    r->id = m->request_id;
    r->q = m->request;
    if (!resolve_all(w, r))
        return hrana_ws_break(w, WEBSOCKET_TOO_BIG, "a message takes too much memory");
    if (!waiting_has_room(&w->node->waiting, w->counted, request_bytes(r)))
        return hrana_ws_break(w, WEBSOCKET_TRY_AGAIN,
                              "this node has no memory for more requests now");
    hrana_ws_count(w, request_bytes(r), 0);
    w->n_flight++;
    if (w->n_flight >= HRANA_WS_FLIGHT_MAX && !w->paused) {
        w->paused = true;
        websocket_pause(w->socket);
    }
    if (m->refused != NULL) {
        hrana_ws_say(w, r, hrana_error_new(HRANA_PROTOCOL_ERROR, "%s", m->refused));
        return true;
    }
    if (take_request(w, r))
        return true;
    w->n_flight--;
    hrana_ws_count(w, 0, request_bytes(r));
    return false;
}

void hrana_ws_take(struct hrana_ws *w, const struct hrana_message *m, struct hrana_ws_request *r)
{
    bool taken = false;
    if (m->type == HRANA_HELLO)
        (void)say_hello(w);
    else
        taken = take_message(w, m, r);
    if (taken)
        return;
    for (uint32_t i = 0; i < r->n_texts; i++)
        unref(w, r->texts[i]);
    aside_free(websocket_asides(w->socket), &r->arena, &w->node->waiting);
    free(r);
}

static void on_message(struct websocket *socket, bool text, const uint8_t *p, size_t n)
{
    thread_expect_loop();
    hrana_ws_read(websocket_state(socket), text, p, n);
}

/* --- the socket --- */

static bool on_ask(struct exchange *x, void **state)
{
    struct hrana_wish wish;
    thread_expect_loop();
    if (hrana_wish_of(x, &wish) != ERR_OK) {
        exchange_fail(x, 400, HRANA_PROTOCOL_ERROR, err_text());
        return false;
    }
    struct hrana_ws *w = MEM_NEW(struct hrana_ws);
    w->node = x->node;
    w->wish = wish;
    list_init(&w->streams);
    list_init(&w->later);
    list_init(&w->behind);
    table_init(&w->by_id);
    table_init(&w->cursors);
    table_init(&w->texts);
    *state = w;
    return true;
}

/* A client that names none speaks the last. */
static const char *const protocols[] = {"hrana3-protobuf", "hrana3", "hrana2", "hrana1", NULL};
static const struct {
    const struct hrana_form *form;
    enum hrana_version version;
} spoken[] = {{&hrana_protobuf, HRANA_3},
              {&hrana_json, HRANA_3},
              {&hrana_json, HRANA_2},
              {&hrana_json, HRANA_1}};
enum { SPOKEN = sizeof spoken / sizeof spoken[0] };
_Static_assert(SPOKEN == sizeof protocols / sizeof protocols[0] - 1, "one for each protocol");

static void on_open(struct websocket *socket)
{
    thread_expect_loop();
    struct hrana_ws *w = websocket_state(socket);
    const char *protocol = websocket_protocol(socket);
    size_t i = 0;
    while (i + 1 < SPOKEN && strcmp(protocol, protocols[i]) != 0)
        i++;
    w->socket = socket;
    w->form = spoken[i].form;
    w->version = spoken[i].version;
}

static void on_drain(struct websocket *socket)
{
    thread_expect_loop();
    struct hrana_ws *w = websocket_state(socket);
    LIST_EACH(i, &w->streams) /* each may end itself, no other one */
        hrana_ws_stream_go(hrana_ws_stream_of(i));
}

static void on_wind_down(struct websocket *socket)
{
    thread_expect_loop();
    struct hrana_ws *w = websocket_state(socket);
    w->ends = true;
    list_remove(&w->later);
    websocket_pause(socket);
    hrana_ws_read_on(w);
}

static void on_over(struct websocket *socket)
{
    void *text;
    uint32_t id;
    thread_expect_loop();
    struct hrana_ws *w = websocket_state(socket);
    list_remove(&w->later);
    hrana_ws_read_end(w);
    LIST_EACH(i, &w->streams)
        hrana_ws_stream_free(hrana_ws_stream_of(i));
    while ((text = table_any(&w->texts, &id)) != NULL)
        forget(w, (int32_t)id);
    CHECK(w->bytes == 0 && w->n_streams == 0);
    table_fini(&w->by_id);
    table_fini(&w->cursors);
    table_fini(&w->texts);
    free(w);
}

void hrana_ws_go_on(struct node *n)
{
    struct list *l, now;
    list_init(&now);
    list_splice(&now, &n->hrana_sockets);
    while ((l = list_pop_front(&now)) != NULL) { /* one may end others */
        struct hrana_ws *w = LIST_ENTRY(l, struct hrana_ws, later);
        w->paused = false;
        websocket_resume(w->socket); /* W may be gone */
    }
}

const struct websocket_handler hrana_ws_handler = {.protocols = protocols,
                                                   .on_ask = on_ask,
                                                   .on_open = on_open,
                                                   .on_message = on_message,
                                                   .on_drain = on_drain,
                                                   .on_wind_down = on_wind_down,
                                                   .on_over = on_over};
