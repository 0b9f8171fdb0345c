/* Room: node/http.   Thread: loop.
 * Owns: the session (through its channel), the stored texts.
 * Invariants: a stream that is busy is not freed under its own feet: `closing` waits for the end of
 *   hrana_run_go.
 * Not here: how a request is run (hrana_run.c), how statements are asked (hrana_ask.c). */
#include "node/http/hrana_stream.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/http/hrana_state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define STREAM 1u

struct hrana_stream *hrana_stream_open(struct node *n, const struct hrana_memory *memory)
{
    struct hrana_stream *s = MEM_NEW(struct hrana_stream);
    channel_init(&s->channel, n, &hrana_outlet);
    s->channel.door = METER_HTTP;
    s->session = session_new(&s->channel, STREAM);
    s->memory = *memory;
    list_init(&s->stored);
    list_init(&s->waits);
    list_init(&s->later);
    list_init(&s->rests);
    return s;
}

static void free_request(struct hrana_stream *s) ON_LOOP
{
    free(s->texts);
    free(s->outcomes);
    s->texts = NULL;
    s->outcomes = NULL;
    s->q = NULL;
}

void hrana_stream_close(struct hrana_stream *s)
{
    struct list *l;
    CHECK(!s->telling); /* no event but on_over closes */
    s->closing = true;
    if (s->busy)
        return;
    list_remove(&s->waits);
    list_remove(&s->later);
    list_remove(&s->rests);
    session_end(s->session);
    if (s->ask.writer != NULL) /* what becomes of its write nobody hears */
        writer_drop(s->ask.writer);
    hrana_error_free(s->ask.error);
    free_request(s);
    while ((l = list_pop_front(&s->stored)) != NULL)
        free(LIST_ENTRY(l, struct hrana_stored, link));
    channel_fini(&s->channel);
    free(s);
}

void hrana_stream_run(struct hrana_stream *s, const struct hrana_request *q,
                      const struct hrana_wish *wish, const struct hrana_events *events)
{
    CHECK(s->q == NULL && !s->closing && !s->ask.under_way);
    s->q = q;
    s->wish = *wish;
    s->events = *events;
    s->cancelled = s->paused = false;
    hrana_run_begin(s);
}

void hrana_stream_follow_client(struct hrana_stream *s)
{
    s->channel.judged = true;
}

void hrana_stream_ends(struct hrana_stream *s)
{
    s->fleeting = true;
}

void hrana_stream_take_time(struct hrana_stream *s)
{
    s->session->snapshot_lasts = true;
}

void hrana_over(struct hrana_stream *s, struct hrana_error *error)
{
    struct hrana_events events = s->events;
    free_request(s);
    events.on_over(events.ctx, error);
}

void hrana_stream_cancel(struct hrana_stream *s)
{
    s->cancelled = true;
    s->paused = false;
    if (s->q == NULL)
        return;
    if (!s->ask.under_way) {
        hrana_run_go(s); /* it was paused */
    } else if (!list_empty(&s->waits)) {
        list_remove(&s->waits);
        s->ask.under_way = false;
        hrana_run_go(s);
    } else if (s->telling) { /* from within the session's own call */
        list_remove(&s->later);
        list_push_back(&s->channel.node->hrana_cancels, &s->later);
    } else {
        session_cancel(s->session, s->ask.request);
    }
}

void hrana_streams_go_on(struct node *n)
{
    struct list *l;
    while ((l = list_pop_front(&n->hrana_cancels)) != NULL) {
        struct hrana_stream *s = LIST_ENTRY(l, struct hrana_stream, later);
        if (s->q != NULL && s->cancelled)
            hrana_stream_cancel(s);
    }
    n->hrana_spent_ns = 0;
    while (n->hrana_spent_ns < HRANA_TURN_NS && (l = list_pop_front(&n->hrana_rests)) != NULL)
        hrana_run_go(LIST_ENTRY(l, struct hrana_stream, rests)); /* or rests again, as the last */
    n->hrana_spent_ns = 0; /* for those who ask in this turn: they need not wait for these */
}

void hrana_stream_pause(struct hrana_stream *s)
{
    s->paused = !s->cancelled;
}

void hrana_stream_resume(struct hrana_stream *s)
{
    s->paused = false;
    if (s->q != NULL)
        hrana_run_go(s);
}

void hrana_stream_took(struct hrana_stream *s, size_t n)
{
    do {
        uint32_t some = n > WIRE_WINDOW ? WIRE_WINDOW : (uint32_t)n;
        enum err e = session_credit(s->session, some);
        CHECK(e == ERR_OK); /* no more than the session sent */
        n -= some;
    } while (n > 0);
}

void hrana_stream_keep(struct hrana_stream *s, size_t more, size_t less)
{
    struct channel *c = &s->channel;
    CHECK(c->kept_bytes + more >= less);
    waiting_set(&c->node->waiting, &c->kept_bytes, c->kept_bytes + more - less);
}

bool hrana_stream_is_autocommit(const struct hrana_stream *s)
{
    return !s->in_transaction && !s->lost;
}

bool hrana_stream_is_bare(const struct hrana_stream *s)
{
    return hrana_stream_is_autocommit(s) && s->n_stored == 0;
}

struct hrana_memory hrana_stream_memory(const struct hrana_stream *s)
{
    return s->memory;
}

/* --- stored texts --- */

static struct hrana_stored *find(const struct hrana_stream *s, int32_t id) ON_LOOP
{
    LIST_EACH(i, &s->stored) {
        struct hrana_stored *t = LIST_ENTRY(i, struct hrana_stored, link);
        if (t->id == id)
            return t;
    }
    return NULL;
}

struct hrana_error *hrana_text_of(const struct hrana_stream *s, const struct hrana_stmt *stmt,
                                  struct hrana_text *out)
{
    if (!stmt->by_id) {
        *out = stmt->sql.p == NULL ? (struct hrana_text){"", 0} : stmt->sql;
        return NULL;
    }
    const struct hrana_stored *t = find(s, stmt->sql_id);
    if (t == NULL)
        return hrana_error_new("SQL_NOT_FOUND", "SQL text %" PRId32 " not found", stmt->sql_id);
    *out = (struct hrana_text){t->text, t->n};
    return NULL;
}

static void drop(struct hrana_stream *s, struct hrana_stored *t) ON_LOOP
{
    list_remove(&t->link);
    s->n_stored--;
    hrana_stream_keep(s, 0, sizeof *t + t->n);
    free(t);
}

struct hrana_error *hrana_store(struct hrana_stream *s, int32_t id, const struct hrana_text *sql)
{
    struct channel *c = &s->channel;
    if (find(s, id) != NULL)
        return hrana_error_new("SQL_STORE_EXISTS", "SQL text %" PRId32 " is stored already", id);
    if (s->n_stored == HRANA_STORED_MAX)
        return hrana_error_new("SQL_STORE_TOO_MANY", "a stream stores at most %u SQL texts",
                               HRANA_STORED_MAX);
    if (sql->n > SQL_TEXT_MAX)
        return hrana_error_new("SQL_TOO_LONG", "a statement's text is at most %zu bytes",
                               (size_t)SQL_TEXT_MAX);
    if (channel_need_room(c, sizeof(struct hrana_stored) + sql->n) != ERR_OK)
        return hrana_error_of(ERR_BUSY, err_text());
    struct hrana_stored *t = mem_alloc(sizeof *t + sql->n);
    t->id = id;
    t->n = sql->n;
    if (sql->n > 0)
        memcpy(t->text, sql->p, sql->n);
    list_push_front(&s->stored, &t->link);
    s->n_stored++;
    hrana_stream_keep(s, sizeof *t + t->n, 0);
    return NULL;
}

void hrana_forget(struct hrana_stream *s, int32_t id)
{
    struct hrana_stored *t = find(s, id);
    if (t != NULL)
        drop(s, t);
}
