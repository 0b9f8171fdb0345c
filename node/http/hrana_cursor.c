/* Room: node/http.   Thread: loop.   Owns: what the batch told and nobody has taken yet.
 * Invariants: rows are counted as taken (hrana_stream_took) when they are written, so the session's
 *   window bounds those that wait; all else that waits is bounded by HELD_MAX, above which no
 *   further step begins.
 * Not here: who takes (hrana_cursor_http.c, hrana_ws_stream.c), the form of entries (hrana_form.h).
 *
 * What was taken cannot be taken back, so there is no on_restart: hrana_run.c runs a batch in a way
 * that needs none. */
#include "node/http/hrana_cursor.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

#define HELD_MAX MIB(1)

enum event_type { EVENT_COLUMNS, EVENT_ROWS, EVENT_STEP, EVENT_STEP_ERROR, EVENT_FAILURE };

struct event {
    struct list link; /* of a cursor */
    enum event_type type;
    uint32_t step;
    struct wire_done done;     /* STEP */
    bool read_only;            /* STEP */
    struct hrana_error *error; /* STEP_ERROR, FAILURE */
    bool opened;               /* ROWS: its values were looked at */
    uint32_t rows;             /* ROWS: not yet written */
    struct rd values;
    struct wire_frame frame; /* COLUMNS, ROWS: its body is `body` */
    size_t n;
    uint8_t body[];
};

struct hrana_cursor {
    struct hrana_stream *stream;
    struct hrana_request request;
    struct list events; /* struct event */
    size_t held;        /* bytes of them, without those of rows */
    bool paused;        /* the stream, because of them */
    bool begun;         /* the step's step_begin was written */
    uint32_t n_columns; /* of the step */
    bool broken;        /* an answer that cannot be read: nothing follows */
    bool cancelled;
    bool over;
    void (*on_more)(void *ctx);
    void *ctx;
};

/* --- what the batch tells --- */

static struct event *add(struct hrana_cursor *c, enum event_type type, uint32_t step,
                         const struct wire_frame *f) ON_LOOP
{
    size_t n = f == NULL ? 0 : rd_left(&f->body);
    struct event *e = mem_zalloc(sizeof *e + n);
    e->type = type;
    e->step = step;
    e->n = n;
    if (f != NULL) {
        memcpy(e->body, f->body.p, n);
        e->frame = *f;
        e->frame.body = rd_of(e->body, n);
    }
    list_push_back(&c->events, &e->link);
    hrana_stream_keep(c->stream, sizeof *e + n, 0);
    if (type != EVENT_ROWS)
        c->held += sizeof *e + n;
    if (c->held > HELD_MAX && !c->paused) {
        c->paused = true;
        hrana_stream_pause(c->stream);
    }
    return e;
}

static void free_event(struct event *e) ON_LOOP
{
    list_remove(&e->link);
    hrana_error_free(e->error);
    free(e);
}

/* Returns the bytes of rows in it: the stream's window wants them back. */
static size_t drop(struct hrana_cursor *c, struct event *e) ON_LOOP
{
    size_t n = sizeof *e + e->n, rows = e->type == EVENT_ROWS ? WIRE_HEAD_BYTES + e->n : 0;
    if (e->type != EVENT_ROWS)
        c->held -= n;
    hrana_stream_keep(c->stream, 0, n);
    free_event(e);
    return rows;
}

static size_t drop_all(struct hrana_cursor *c) ON_LOOP
{
    size_t rows = 0;
    LIST_EACH(i, &c->events)
        rows += drop(c, LIST_ENTRY(i, struct event, link));
    return rows;
}

static void drop_rest(struct hrana_cursor *c) ON_LOOP
{
    size_t rows = drop_all(c);
    hrana_stream_took(c->stream, rows);
}

/* Who takes rows takes what stands between them; without rows, when it is much. */
static void tell_much(struct hrana_cursor *c) ON_LOOP
{
    if (c->paused)
        c->on_more(c->ctx);
}

static void on_columns(void *ctx, uint32_t step, struct wire_frame *f)
{
    struct hrana_cursor *c = ctx;
    thread_expect_loop();
    (void)add(c, EVENT_COLUMNS, step, f);
    tell_much(c);
}

static void on_rows(void *ctx, uint32_t step, struct wire_frame *f)
{
    struct hrana_cursor *c = ctx;
    thread_expect_loop();
    if (c->broken || c->cancelled) {
        hrana_stream_took(c->stream, hrana_rows_bytes(f));
        return;
    }
    (void)add(c, EVENT_ROWS, step, f);
    c->on_more(c->ctx);
}

static void on_step(void *ctx, uint32_t step, const struct wire_done *d, bool read_only)
{
    struct hrana_cursor *c = ctx;
    thread_expect_loop();
    struct event *e = add(c, EVENT_STEP, step, NULL);
    e->done = *d;
    e->read_only = read_only;
    tell_much(c);
}

static void on_step_error(void *ctx, uint32_t step, struct hrana_error *error)
{
    struct hrana_cursor *c = ctx;
    thread_expect_loop();
    add(c, EVENT_STEP_ERROR, step, NULL)->error = error;
    tell_much(c);
}

static void on_over(void *ctx, struct hrana_error *error)
{
    struct hrana_cursor *c = ctx;
    thread_expect_loop();
    c->over = true;
    if (error != NULL)
        add(c, EVENT_FAILURE, 0, NULL)->error = error;
    if (c->broken || c->cancelled)
        drop_rest(c);
    c->on_more(c->ctx);
}

static void nothing(void *ctx)
{
    (void)ctx;
}

struct hrana_cursor *hrana_cursor_open(struct hrana_stream *s, const struct hrana_batch *batch,
                                       const struct hrana_wish *wish, void (*on_more)(void *ctx),
                                       void *ctx)
{
    struct hrana_cursor *c = MEM_NEW(struct hrana_cursor);
    const struct hrana_events events = {.ctx = c,
                                        .on_columns = on_columns,
                                        .on_rows = on_rows,
                                        .on_step = on_step,
                                        .on_step_error = on_step_error,
                                        .on_over = on_over};
    c->stream = s;
    c->request = (struct hrana_request){.type = HRANA_BATCH, .batch = *batch};
    list_init(&c->events);
    c->on_more = nothing; /* its owner does not know it yet */
    c->ctx = ctx;
    hrana_stream_run(s, &c->request, wish, &events);
    c->on_more = on_more;
    return c;
}

void hrana_cursor_free(struct hrana_cursor *c)
{
    if (c == NULL)
        return;
    LIST_EACH(i, &c->events) /* its stream, where they were counted, may be gone */
        free_event(LIST_ENTRY(i, struct event, link));
    free(c);
}

/* --- taking --- */

/* The next row of E; false: it has no more. */
static enum err put_row(struct hrana_cursor *c, struct hrana_writer *out, struct event *e,
                        bool *put) ON_LOOP
{
    *put = false;
    if (!e->opened)
        TRY(wire_get_rows(&e->frame, c->n_columns, &e->rows, &e->values));
    e->opened = true;
    if (e->rows == 0)
        return ERR_OK;
    TRY(hrana_write_row(out, c->n_columns, &e->values));
    e->rows--;
    *put = true;
    return ERR_OK;
}

/* A step that has no columns begins when it ends. */
static bool begins(struct hrana_cursor *c, struct hrana_writer *out, const struct event *e) ON_LOOP
{
    if (c->begun)
        return false;
    enum err none = hrana_write_step_begin(out, e->step, NULL, &c->n_columns);
    CHECK(none == ERR_OK);
    c->begun = true;
    return true;
}

/* Writes at most one entry of E. *DONE: E has no more. */
static enum err put_event(struct hrana_cursor *c, struct hrana_writer *out, struct event *e,
                          bool *put, bool *done) ON_LOOP
{
    *put = *done = true;
    switch (e->type) {
    case EVENT_COLUMNS:
        c->begun = true;
        return hrana_write_step_begin(out, e->step, &e->frame, &c->n_columns);
    case EVENT_ROWS:
        TRY(put_row(c, out, e, put));
        *done = e->rows == 0;
        return ERR_OK;
    case EVENT_STEP:
        *done = !begins(c, out, e);
        if (*done) {
            out->form->put_step_end(out, &e->done, e->read_only);
            c->begun = false;
        }
        return ERR_OK;
    case EVENT_STEP_ERROR:
        out->form->put_step_error(out, e->step, e->error);
        c->begun = false;
        return ERR_OK;
    case EVENT_FAILURE:
        out->form->put_cursor_error(out, e->error);
        return ERR_OK;
    }
    UNREACHABLE("all events are above");
}

/* An answer of another node that cannot be read is the end of the cursor. */
static void give_up(struct hrana_cursor *c, struct hrana_writer *out) ON_LOOP
{
    struct hrana_error *error = hrana_error_of(ERR_PROTOCOL, err_text());
    out->form->put_cursor_error(out, error);
    hrana_error_free(error);
    c->broken = true;
}

uint32_t hrana_cursor_put(struct hrana_cursor *c, struct hrana_writer *out, uint32_t max_count,
                          size_t max_bytes)
{
    uint32_t count = 0;
    size_t took = 0;
    while (count < max_count && out->out->len < max_bytes && !list_empty(&c->events) &&
           !c->broken) {
        struct event *e = LIST_ENTRY(c->events.next, struct event, link);
        bool put, done;
        if (put_event(c, out, e, &put, &done) != ERR_OK) {
            give_up(c, out);
            put = true;
            break;
        }
        count += put;
        if (!done)
            continue;
        took += drop(c, e);
    }
    if (c->broken) {
        took += drop_all(c);
        count++;
    }
    if (count > 0)
        hrana_stream_took(c->stream, took);
    if (!c->over && c->paused && c->held <= HELD_MAX / 2) {
        c->paused = false;
        hrana_stream_resume(c->stream);
    }
    if (!c->over && c->broken)
        hrana_stream_cancel(c->stream);
    return count;
}

bool hrana_cursor_has_more(const struct hrana_cursor *c)
{
    return !list_empty(&c->events);
}

bool hrana_cursor_is_over(const struct hrana_cursor *c)
{
    return c->over;
}

void hrana_cursor_cancel(struct hrana_cursor *c)
{
    c->cancelled = true;
    drop_rest(c);
    if (!c->over)
        hrana_stream_cancel(c->stream);
}
