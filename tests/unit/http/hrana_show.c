/* Room: tests.   Thread: any.   Owns: nothing.
 * Not here: what is expected (hrana_json_*_test.c, hrana_protobuf_*_test.c). */
#include "tests/unit/http/hrana_show.h"

#include "base/sizes.h"
#include "tests/lib/test.h"

#include <inttypes.h>
#include <string.h>

/* Control characters as \XX. */
static void show_escaped(struct buf *out, char mark, const char *p, size_t n)
{
    buf_put_u8(out, (uint8_t)mark);
    for (size_t i = 0; i < n; i++) {
        if ((uint8_t)p[i] < 32)
            buf_printf(out, "\\%02x", (unsigned)p[i]);
        else
            buf_put_u8(out, (uint8_t)p[i]);
    }
    buf_put_u8(out, (uint8_t)mark);
}

static void show_value(struct buf *out, const struct wire_value *v)
{
    switch (v->type) {
    case WIRE_NULL:
        buf_printf(out, "null");
        break;
    case WIRE_INTEGER:
        buf_printf(out, "%" PRId64, v->integer);
        break;
    case WIRE_FLOAT:
        buf_printf(out, "%.17gf", v->real);
        break;
    case WIRE_TEXT:
        show_escaped(out, '\'', v->text.bytes, v->text.len);
        break;
    case WIRE_BLOB:
        buf_printf(out, "x");
        for (uint32_t i = 0; i < v->text.len; i++)
            buf_printf(out, "%02x", (unsigned)(uint8_t)v->text.bytes[i]);
        break;
    }
}

static void show_args(struct buf *out, const struct hrana_arg *args, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(out, i == 0 ? " (" : " ");
        if (args[i].name.p != NULL) {
            buf_put(out, args[i].name.p, args[i].name.n);
            buf_printf(out, "=");
        }
        show_value(out, &args[i].value);
    }
    if (n > 0)
        buf_printf(out, ")");
}

void show_stmt(struct buf *out, const struct hrana_stmt *s)
{
    if (s->by_id)
        buf_printf(out, "#%d", s->sql_id);
    else
        show_escaped(out, '"', s->sql.p, s->sql.n);
    show_args(out, s->args, s->n_args);
    show_args(out, s->named_args, s->n_named_args);
    if (!s->want_rows)
        buf_printf(out, " norows");
    if (s->replication_index != 0)
        buf_printf(out, " @%" PRIu64, s->replication_index);
}

static void show_condition(struct buf *out, const struct hrana_cond *c)
{
    static const char *const names[] = {"ok", "error", "not", "and", "or", "autocommit"};
    buf_printf(out, "%s", names[c->type]);
    if (c->type == HRANA_OK || c->type == HRANA_ERROR)
        buf_printf(out, "(%u)", c->step);
    if (c->type == HRANA_OK || c->type == HRANA_ERROR || c->type == HRANA_IS_AUTOCOMMIT)
        return;
    buf_printf(out, "(");
    for (uint32_t i = 0; i < c->n_parts; i++) {
        buf_printf(out, i == 0 ? "" : ",");
        show_condition(out, c->parts[i]);
    }
    buf_printf(out, ")");
}

static void show_batch(struct buf *out, const struct hrana_batch *b)
{
    buf_printf(out, " [");
    for (uint32_t i = 0; i < b->n_steps; i++) {
        buf_printf(out, i == 0 ? "" : "; ");
        if (b->steps[i].condition != NULL) {
            buf_printf(out, "if ");
            show_condition(out, b->steps[i].condition);
            buf_printf(out, ": ");
        }
        show_stmt(out, &b->steps[i].stmt);
    }
    buf_printf(out, "]");
    if (b->replication_index != 0)
        buf_printf(out, " @%" PRIu64, b->replication_index);
}

static void show_request(struct buf *out, const struct hrana_request *q)
{
    static const char *const names[] = {
        "close",       "execute",      "batch",       "sequence",    "describe",
        "store_sql",   "close_sql",    "autocommit",  "open_stream", "close_stream",
        "open_cursor", "close_cursor", "fetch_cursor"};
    buf_printf(out, "%s", names[q->type]);
    if (q->stream_id != 0 || q->cursor_id != 0)
        buf_printf(out, " s%d c%d", q->stream_id, q->cursor_id);
    if (q->type == HRANA_STORE_SQL || q->type == HRANA_CLOSE_SQL)
        buf_printf(out, " #%d", q->sql_id);
    if (q->stmt.sql.p != NULL || q->stmt.by_id) {
        buf_printf(out, " ");
        show_stmt(out, &q->stmt);
    }
    if (q->type == HRANA_BATCH || q->type == HRANA_OPEN_CURSOR)
        show_batch(out, &q->batch);
    if (q->type == HRANA_FETCH_CURSOR)
        buf_printf(out, " max %u", q->max_count);
}

void show_body(struct buf *out, const struct hrana_body *body)
{
    if (body->baton.p != NULL)
        buf_printf(out, "baton %.*s: ", (int)body->baton.n, body->baton.p);
    for (uint32_t i = 0; i < body->n_requests; i++) {
        buf_printf(out, i == 0 ? "" : " | ");
        show_request(out, &body->requests[i]);
    }
}

void show_message(struct buf *out, const struct hrana_message *m)
{
    if (m->type == HRANA_HELLO) {
        buf_printf(out, "hello");
        if (m->jwt.p != NULL)
            buf_printf(out, " %.*s", (int)m->jwt.n, m->jwt.p);
        return;
    }
    buf_printf(out, "%d ", m->request_id);
    show_request(out, &m->request);
}

static enum err decode(enum show_form form, struct hrana_reader *r, struct buf *out)
{
    static hrana_decoder *const json_only[] = {[V1_EXECUTE] = hrana_json_v1_execute,
                                               [V1_BATCH] = hrana_json_v1_batch,
                                               [OLDEST] = hrana_json_statements};
    struct hrana_body body;
    struct hrana_message m;
    if (form >= WS_1) {
        TRY(r->form->message(r, &m));
        show_message(out, &m);
        return ERR_OK;
    }
    hrana_decoder *decoder = form == CURSOR       ? r->form->cursor
                             : form <= PIPELINE_3 ? r->form->pipeline
                                                  : json_only[form];
    TRY(decoder(r, &body));
    show_body(out, &body);
    return ERR_OK;
}

enum err show_bytes(const struct hrana_form *of, enum show_form form, const void *p, size_t n,
                    size_t arena_max, struct buf *out)
{
    static const enum hrana_version versions[] = {
        [PIPELINE_2] = HRANA_2, [PIPELINE_3] = HRANA_3, [CURSOR] = HRANA_3,
        [V1_EXECUTE] = HRANA_1, [V1_BATCH] = HRANA_1,   [OLDEST] = HRANA_1,
        [WS_1] = HRANA_1,       [WS_2] = HRANA_2,       [WS_3] = HRANA_3};
    struct arena a;
    struct hrana_reader r;
    arena_init(&a, arena_max);
    hrana_reader_init(&r, of, versions[form], &a);
    enum err e = hrana_reader_feed(&r, p, n);
    if (e == ERR_OK)
        e = decode(form, &r, out);
    if (e != ERR_OK)
        buf_printf(out, "error: %s", err_text());
    buf_put_u8(out, 0);
    hrana_reader_fini(&r);
    arena_fini(&a);
    return e;
}

enum err show_json(enum show_form form, const char *text, size_t n, size_t arena_max,
                   struct buf *out)
{
    return show_bytes(&hrana_json, form, text, n, arena_max, out);
}

void expect_bytes_shown(const char *file, int line, enum show_form form, const struct buf *bytes,
                        const char *wanted)
{
    struct buf out;
    buf_init(&out, MIB(16));
    (void)show_bytes(&hrana_protobuf, form, bytes->data, bytes->len, MIB(16), &out);
    if (strcmp((const char *)out.data, wanted) != 0)
        test_fail(file, line, "%zu bytes of Protobuf\n    are shown as %s\n    wanted       %s",
                  bytes->len, (const char *)out.data, wanted);
    buf_fini(&out);
}

void expect_shown(const char *file, int line, enum show_form form, const char *text,
                  const char *wanted)
{
    struct buf out;
    buf_init(&out, MIB(16));
    enum err e = show_json(form, text, strlen(text), MIB(16), &out);
    bool error = strncmp(wanted, "error: ", 7) == 0;
    if (strcmp((const char *)out.data, wanted) != 0 || (e == ERR_PROTOCOL) != error)
        test_fail(file, line, "%s\n    is shown as %s\n    wanted      %s", text,
                  (const char *)out.data, wanted);
    buf_fini(&out);
}
