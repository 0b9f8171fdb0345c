/* Room: node/http.   Thread: any, one at a time.   Owns: nothing.
 * Invariants: what was begun is ended: a reply that cannot be written whole is taken back, and the
 * buffer and the writer are as they were before it.
 * Not here: the forms (hrana_json_*.c, hrana_protobuf_*.c); which codes errors have
 * (hrana_error.c). */
#include "node/http/hrana_form.h"

#include "base/check.h"
#include "node/http/hrana_error.h"

/* --- reading --- */

void hrana_reader_init(struct hrana_reader *r, const struct hrana_form *form,
                       enum hrana_version version, struct arena *arena)
{
    *r = (struct hrana_reader){
        .form = form, .version = version, .arena = arena, .state = form->reader_new(arena)};
}

void hrana_reader_fini(struct hrana_reader *r)
{
    if (r->form != NULL)
        r->form->reader_free(r->state);
    *r = (struct hrana_reader){0};
}

enum err hrana_reader_feed(struct hrana_reader *r, const void *p, size_t n)
{
    return r->form->feed(r->state, p, n);
}

enum err hrana_no_room(const struct arena *arena)
{
    return err_fail(ERR_TOO_BIG, "the message takes more than %zu bytes of memory", arena->max);
}

/* --- writing --- */

struct hrana_writer hrana_writer_of(const struct hrana_form *form, struct buf *out)
{
    return (struct hrana_writer){.form = form, .out = out, .json = json_writer_of(out)};
}

struct hrana_mark hrana_mark(const struct hrana_writer *w)
{
    return (struct hrana_mark){.writer = *w, .len = w->out->len, .failed = w->out->failed};
}

void hrana_undo(struct hrana_writer *w, const struct hrana_mark *m)
{
    CHECK(w->out == m->writer.out && w->out->len >= m->len);
    *w = m->writer;
    w->out->len = m->len;
    w->out->failed = m->failed;
}

struct hrana_error *hrana_undo_if(struct hrana_writer *w, const struct hrana_mark *m,
                                  const struct hrana_reply *r, enum err e)
{
    enum err code = e != ERR_OK ? e : w->out->failed;
    if (m->failed != ERR_OK || code == ERR_OK)
        return NULL;
    hrana_undo(w, m);
    if (code == ERR_TOO_BIG)
        return hrana_reply_untold(
            r, hrana_error_too_large(r->done, w->out->max - HRANA_ANSWER_RESERVE));
    return hrana_error_of(code, e != ERR_OK ? err_text() : err_default_text((int)code));
}

struct hrana_error *hrana_reply_untold(const struct hrana_reply *r, struct hrana_error *why)
{
    for (uint32_t i = 0; i < r->n_steps; i++) {
        if (r->steps[i].error == NULL)
            continue;
        hrana_error_free(why);
        return r->done ? hrana_error_partly(r->steps[i].error)
                       : hrana_error_short(r->steps[i].error);
    }
    return why;
}

const struct hrana_error *hrana_reply_error(const struct hrana_reply *r)
{
    if (r->error != NULL || r->type != HRANA_EXECUTE)
        return r->error;
    CHECK(r->n_steps == 1);
    return r->steps[0].error;
}

/* A long one may not fit, escaped: then with its beginning. */
static void put_error(struct hrana_writer *w, const struct hrana_mark *before,
                      const int32_t *request_id, const struct hrana_error *e)
{
    w->form->put_error(w, request_id, e);
    if (before->failed != ERR_OK || w->out->failed == ERR_OK)
        return;
    hrana_undo(w, before);
    struct hrana_error *beginning = hrana_error_short(e);
    w->form->put_error(w, request_id, beginning);
    hrana_error_free(beginning);
}

static void write_reply(struct hrana_writer *w, const int32_t *request_id,
                        const struct hrana_reply *r)
{
    const struct hrana_mark before = hrana_mark(w);
    size_t max = w->out->max, room = max - w->out->len;
    CHECK(r->type != HRANA_FETCH_CURSOR); /* form.begin_fetched */
    if (hrana_reply_error(r) != NULL) {
        put_error(w, &before, request_id, hrana_reply_error(r));
        return;
    }
    w->out->max = room < HRANA_ANSWER_RESERVE ? w->out->len : max - HRANA_ANSWER_RESERVE;
    enum err e = w->form->put_response(w, request_id, r);
    w->out->max = max;
    struct hrana_error *error = hrana_undo_if(w, &before, r, e);
    if (error != NULL)
        put_error(w, &before, request_id, error);
    hrana_error_free(error);
}

void hrana_write_reply(struct hrana_writer *w, const struct hrana_reply *r)
{
    write_reply(w, NULL, r);
}

void hrana_write_response(struct hrana_writer *w, int32_t request_id, const struct hrana_reply *r)
{
    write_reply(w, &request_id, r);
}

enum err hrana_write_step_begin(struct hrana_writer *w, uint32_t step, struct wire_frame *columns,
                                uint32_t *n_columns)
{
    const struct hrana_mark before = hrana_mark(w);
    struct rd range = {0};
    *n_columns = 0;
    if (columns != NULL)
        TRY(wire_get_columns(columns, n_columns, &range));
    enum err e = w->form->put_step_begin(w, step, *n_columns, range);
    if (e != ERR_OK)
        hrana_undo(w, &before);
    return e;
}

enum err hrana_write_row(struct hrana_writer *w, uint32_t n_columns, struct rd *values)
{
    const struct hrana_mark before = hrana_mark(w);
    enum err e = w->form->put_row(w, n_columns, values);
    if (e != ERR_OK)
        hrana_undo(w, &before);
    return e;
}
