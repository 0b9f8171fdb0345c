/* Room: node/http.   Thread: any, one at a time.   Owns: nothing.
 * Invariants: what was begun is ended: a reply that cannot be written whole is taken back, and the
 * buffer and the writer are as they were before it.
 * Not here: the oldest form (hrana_json_oldest.c); which codes errors have (hrana_error.c).
 *
 * Not told, though the specification of Hrana 3 has them: rows_read, rows_written,
 * query_duration_ms. SQLite counts none of the first two, and all drivers do without. */
#include "base/check.h"
#include "base/sizes.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_frames.h"
#include "node/http/hrana_json.h"

#include <string.h>

/* --- pieces --- */

static void put_type(struct json_writer *j, const char *type)
{
    json_key(j, "type");
    json_cstr(j, type);
}

static void put_error(struct json_writer *j, const struct hrana_error *e)
{
    json_begin_object(j);
    json_key(j, "message");
    json_cstr(j, e->message);
    json_key(j, "code");
    json_cstr(j, e->code);
    json_end_object(j);
}

static void put_text_or_null(struct json_writer *j, const char *p, size_t n)
{
    if (n == 0)
        json_null(j);
    else
        json_text(j, p, n);
}

static void put_cstr_or_null(struct json_writer *j, const char *text)
{
    if (text == NULL)
        json_null(j);
    else
        json_cstr(j, text);
}

static void put_replication_index(struct json_writer *j, uint64_t seq)
{
    json_key(j, "replication_index");
    if (seq == 0)
        json_null(j);
    else
        json_uint_text(j, seq);
}

/* An object as far as it is the same for all values of a type: what rows are made of, in one piece.
 */
static void begin_value(struct json_writer *j, const char *head, size_t n)
{
    if (j->comma)
        buf_put_u8(j->out, ',');
    buf_put(j->out, head, n);
    j->comma = false;
}

#define BEGIN_VALUE(j, head) begin_value(j, head, sizeof(head) - 1)

static void put_value(struct json_writer *j, const struct wire_value *v)
{
    switch (v->type) {
    case WIRE_NULL:
        BEGIN_VALUE(j, "{\"type\":\"null\"");
        break;
    case WIRE_INTEGER:
        BEGIN_VALUE(j, "{\"type\":\"integer\",\"value\":");
        json_int_text(j, v->integer);
        break;
    case WIRE_FLOAT:
        BEGIN_VALUE(j, "{\"type\":\"float\",\"value\":");
        json_real(j, v->real);
        break;
    case WIRE_TEXT:
        BEGIN_VALUE(j, "{\"type\":\"text\",\"value\":");
        json_text(j, v->text.bytes, v->text.len);
        break;
    case WIRE_BLOB:
        BEGIN_VALUE(j, "{\"type\":\"blob\",\"base64\":");
        json_base64(j, v->text.bytes, v->text.len);
        break;
    }
    json_end_object(j);
}

/* "cols":[...], of a description as well. NAME and TYPE "": null. */
static enum err put_columns(struct json_writer *j, uint32_t n, struct rd columns)
{
    json_key(j, "cols");
    json_begin_array(j);
    for (uint32_t i = 0; i < n; i++) {
        size_t name_len, type_len;
        const char *name = rd_str(&columns, &name_len), *type = rd_str(&columns, &type_len);
        if (columns.failed)
            return err_fail(ERR_PROTOCOL, "a column of an answer is cut short");
        json_begin_object(j);
        json_key(j, "name");
        json_text(j, name, name_len);
        json_key(j, "decltype");
        put_text_or_null(j, type, type_len);
        json_end_object(j);
    }
    json_end_array(j);
    return ERR_OK;
}

static enum err put_row(struct json_writer *j, uint32_t n_columns, struct rd *values)
{
    json_begin_array(j);
    for (uint32_t i = 0; i < n_columns; i++) {
        struct wire_value v;
        TRY(wire_get_value(values, &v));
        put_value(j, &v);
    }
    json_end_array(j);
    return ERR_OK;
}

static void put_written(struct json_writer *j, const struct wire_done *d, bool read_only)
{
    json_key(j, "affected_row_count");
    json_uint(j, hrana_affected(d, read_only));
    json_key(j, "last_insert_rowid");
    if (hrana_has_rowid(d, read_only))
        json_int_text(j, d->last_insert_rowid);
    else
        json_null(j);
}

/* --- results --- */

/* A buffer that is full takes no more rows: it would be a long way to the same error. */
static enum err put_result(struct json_writer *j, const struct hrana_result *r, uint64_t seq)
{
    struct hrana_frames f;
    struct rd values;
    uint32_t rows;
    TRY(hrana_frames_open(&f, r));
    json_begin_object(j);
    TRY(put_columns(j, f.n_columns, f.columns));
    json_key(j, "rows");
    json_begin_array(j);
    do {
        TRY(hrana_frames_next(&f, &rows, &values));
        for (uint32_t i = 0; i < rows && j->out->failed == ERR_OK; i++)
            TRY(put_row(j, f.n_columns, &values));
    } while (rows > 0 && j->out->failed == ERR_OK);
    json_end_array(j);
    put_written(j, &r->done, r->read_only);
    put_replication_index(j, seq > r->done.seq ? seq : r->done.seq);
    json_end_object(j);
    return ERR_OK;
}

static enum err put_batch_result(struct json_writer *j, const struct hrana_reply *r)
{
    json_begin_object(j);
    json_key(j, "step_results");
    json_begin_array(j);
    for (uint32_t i = 0; i < r->n_steps; i++) {
        if (r->steps[i].result == NULL)
            json_null(j);
        else
            TRY(put_result(j, r->steps[i].result, 0));
    }
    json_end_array(j);
    json_key(j, "step_errors");
    json_begin_array(j);
    for (uint32_t i = 0; i < r->n_steps; i++) {
        if (r->steps[i].error == NULL)
            json_null(j);
        else
            put_error(j, r->steps[i].error);
    }
    json_end_array(j);
    put_replication_index(j, r->replication_index);
    json_end_object(j);
    return ERR_OK;
}

static enum err put_params(struct json_writer *j, uint32_t n, struct rd params)
{
    json_key(j, "params");
    json_begin_array(j);
    for (uint32_t i = 0; i < n; i++) {
        size_t len;
        const char *name = rd_str(&params, &len);
        if (params.failed)
            return err_fail(ERR_PROTOCOL, "a parameter of a description is cut short");
        json_begin_object(j);
        json_key(j, "name");
        put_text_or_null(j, name, len);
        json_end_object(j);
    }
    json_end_array(j);
    return ERR_OK;
}

static enum err put_description(struct json_writer *j, const struct buf *frame)
{
    struct wire_frame f;
    struct wire_description d;
    size_t used;
    if (wire_next(frame->data, frame->len, WIRE_FRAME_MAX, &f, &used) != ERR_OK)
        return ERR_PROTOCOL;
    if (used == 0 || used != frame->len || f.type != WIRE_DESCRIPTION)
        return err_fail(ERR_PROTOCOL, "a description is not one frame");
    TRY(wire_get_description(&f, &d));
    json_begin_object(j);
    TRY(put_params(j, d.n_params, d.params));
    TRY(put_columns(j, d.n_columns, d.columns));
    json_key(j, "is_explain");
    json_bool(j, (d.flags & WIRE_STATEMENT_EXPLAIN) != 0);
    json_key(j, "is_readonly");
    json_bool(j, (d.flags & WIRE_STATEMENT_READONLY) != 0);
    json_end_object(j);
    return ERR_OK;
}

/* --- replies --- */

static const char *type_name(enum hrana_type type)
{
    static const char *const names[] = {
        [HRANA_CLOSE] = "close",
        [HRANA_EXECUTE] = "execute",
        [HRANA_BATCH] = "batch",
        [HRANA_SEQUENCE] = "sequence",
        [HRANA_DESCRIBE] = "describe",
        [HRANA_STORE_SQL] = "store_sql",
        [HRANA_CLOSE_SQL] = "close_sql",
        [HRANA_GET_AUTOCOMMIT] = "get_autocommit",
        [HRANA_OPEN_STREAM] = "open_stream",
        [HRANA_CLOSE_STREAM] = "close_stream",
        [HRANA_OPEN_CURSOR] = "open_cursor",
        [HRANA_CLOSE_CURSOR] = "close_cursor",
        [HRANA_FETCH_CURSOR] = "fetch_cursor",
    };
    CHECK((size_t)type < sizeof names / sizeof names[0]);
    return names[type];
}

static const struct hrana_error *error_of(const struct hrana_reply *r)
{
    if (r->error != NULL || r->type != HRANA_EXECUTE)
        return r->error;
    CHECK(r->n_steps == 1);
    return r->steps[0].error;
}

/* The `result` of those that have one. */
static enum err put_payload(struct json_writer *j, const struct hrana_reply *r)
{
    if (r->type == HRANA_EXECUTE) {
        CHECK(r->steps[0].result != NULL);
        return put_result(j, r->steps[0].result, r->replication_index);
    }
    return r->type == HRANA_BATCH ? put_batch_result(j, r) : put_description(j, &r->description);
}

static bool has_payload(const struct hrana_reply *r)
{
    return r->type == HRANA_EXECUTE || r->type == HRANA_BATCH || r->type == HRANA_DESCRIBE;
}

static enum err put_response(struct json_writer *j, const struct hrana_reply *r)
{
    CHECK(r->type != HRANA_FETCH_CURSOR); /* hrana_json_begin_fetched */
    json_begin_object(j);
    put_type(j, type_name(r->type));
    if (has_payload(r)) {
        json_key(j, "result");
        TRY(put_payload(j, r));
    }
    if (r->type == HRANA_GET_AUTOCOMMIT) {
        json_key(j, "is_autocommit");
        json_bool(j, r->is_autocommit);
    }
    json_end_object(j);
    return ERR_OK;
}

/* What stands around a response or an error: a pipeline's, or a WebSocket's with its number. */
struct wrap {
    const char *ok, *error;
    bool numbered;
    int32_t request_id;
};

static void begin_wrap(struct json_writer *j, const struct wrap *w, bool ok)
{
    json_begin_object(j);
    put_type(j, ok ? w->ok : w->error);
    if (w->numbered) {
        json_key(j, "request_id");
        json_int(j, w->request_id);
    }
    json_key(j, ok ? "response" : "error");
}

static void put_wrapped_error(struct json_writer *j, const struct wrap *w,
                              const struct hrana_error *e)
{
    begin_wrap(j, w, false);
    put_error(j, e);
    json_end_object(j);
}

/* E: what writing said. NULL: all is well, or the buffer was marked before: nothing can be told.
 * Otherwise what was written since WAS and LEN is taken back. */
static struct hrana_error *take_back(struct json_writer *j, struct json_writer was, size_t len,
                                     enum err before, enum err e)
{
    if (before != ERR_OK || (e == ERR_OK && j->out->failed == ERR_OK))
        return NULL;
    enum err code = e != ERR_OK ? e : j->out->failed;
    *j = was;
    j->out->len = len;
    j->out->failed = ERR_OK;
    if (code == ERR_TOO_BIG)
        return hrana_error_of(code, "Response is too large");
    return hrana_error_of(code, e != ERR_OK ? err_text() : err_default_text((int)code));
}

static void put_wrapped(struct json_writer *j, const struct wrap *w, const struct hrana_reply *r)
{
    const struct json_writer was = *j;
    size_t len = j->out->len;
    enum err before = j->out->failed;
    if (error_of(r) != NULL) {
        put_wrapped_error(j, w, error_of(r));
        return;
    }
    size_t max = j->out->max;
    j->out->max = max - len < HRANA_JSON_RESERVE ? len : max - HRANA_JSON_RESERVE;
    begin_wrap(j, w, true);
    enum err e = put_response(j, r);
    json_end_object(j);
    j->out->max = max;
    struct hrana_error *error = take_back(j, was, len, before, e);
    if (error != NULL)
        put_wrapped_error(j, w, error);
    hrana_error_free(error);
}

void hrana_json_begin_pipeline(struct json_writer *j)
{
    json_begin_object(j);
    json_key(j, "results");
    json_begin_array(j);
}

void hrana_json_put_reply(struct json_writer *j, const struct hrana_reply *r)
{
    static const struct wrap w = {.ok = "ok", .error = "error"};
    put_wrapped(j, &w, r);
}

static void put_baton(struct json_writer *j, const char *baton, const char *base_url)
{
    json_key(j, "baton");
    put_cstr_or_null(j, baton);
    json_key(j, "base_url");
    put_cstr_or_null(j, base_url);
}

void hrana_json_end_pipeline(struct json_writer *j, const char *baton, const char *base_url)
{
    json_end_array(j);
    put_baton(j, baton, base_url);
    json_end_object(j);
}

void hrana_json_put_response(struct json_writer *j, int32_t request_id, const struct hrana_reply *r)
{
    const struct wrap w = {
        .ok = "response_ok", .error = "response_error", .numbered = true, .request_id = request_id};
    put_wrapped(j, &w, r);
}

void hrana_json_put_hello(struct json_writer *j, const struct hrana_error *error)
{
    json_begin_object(j);
    put_type(j, error == NULL ? "hello_ok" : "hello_error");
    if (error != NULL) {
        json_key(j, "error");
        put_error(j, error);
    }
    json_end_object(j);
}

void hrana_json_put_v1(struct json_writer *j, const struct hrana_reply *r,
                       struct hrana_error **error)
{
    const struct json_writer was = *j;
    size_t len = j->out->len;
    enum err before = j->out->failed;
    const struct hrana_error *failed = error_of(r);
    *error = NULL;
    if (failed != NULL) {
        *error = hrana_error_new(failed->code, "%s", failed->message);
        return;
    }
    CHECK(r->type == HRANA_EXECUTE || r->type == HRANA_BATCH);
    json_begin_object(j);
    json_key(j, "result");
    enum err e = put_payload(j, r);
    json_end_object(j);
    *error = take_back(j, was, len, before, e);
}

/* --- cursors --- */

static void end_entry(struct hrana_entries *c)
{
    json_end_object(&c->j);
    if (!c->lines)
        return;
    buf_put_u8(c->j.out, '\n');
    c->j.comma = false;
}

static void begin_entry(struct hrana_entries *c, const char *type)
{
    json_begin_object(&c->j);
    put_type(&c->j, type);
}

void hrana_json_begin_cursor(struct hrana_entries *c, struct buf *out, const char *baton,
                             const char *base_url)
{
    *c = (struct hrana_entries){.j = json_writer_of(out), .lines = true};
    json_begin_object(&c->j);
    put_baton(&c->j, baton, base_url);
    end_entry(c);
}

void hrana_json_begin_fetched(struct hrana_entries *c, struct buf *out, int32_t request_id)
{
    const struct wrap w = {.ok = "response_ok", .numbered = true, .request_id = request_id};
    *c = (struct hrana_entries){.j = json_writer_of(out)};
    begin_wrap(&c->j, &w, true);
    json_begin_object(&c->j);
    put_type(&c->j, "fetch_cursor");
    json_key(&c->j, "entries");
    json_begin_array(&c->j);
}

void hrana_json_end_fetched(struct hrana_entries *c, bool done)
{
    json_end_array(&c->j);
    json_key(&c->j, "done");
    json_bool(&c->j, done);
    json_end_object(&c->j);
    json_end_object(&c->j);
}

static enum err undo(struct hrana_entries *c, struct json_writer was, size_t len, enum err e)
{
    c->j = was;
    c->j.out->len = len;
    return e;
}

enum err hrana_json_put_step_begin(struct hrana_entries *c, uint32_t step,
                                   struct wire_frame *columns, uint32_t *n_columns)
{
    const struct json_writer was = c->j;
    size_t len = c->j.out->len;
    struct rd range = {0};
    *n_columns = 0;
    if (columns != NULL)
        TRY(wire_get_columns(columns, n_columns, &range));
    begin_entry(c, "step_begin");
    json_key(&c->j, "step");
    json_uint(&c->j, step);
    enum err e = put_columns(&c->j, *n_columns, range);
    if (e != ERR_OK)
        return undo(c, was, len, e);
    end_entry(c);
    return ERR_OK;
}

enum err hrana_json_put_row(struct hrana_entries *c, uint32_t n_columns, struct rd *values)
{
    const struct json_writer was = c->j;
    size_t len = c->j.out->len;
    begin_entry(c, "row");
    json_key(&c->j, "row");
    enum err e = put_row(&c->j, n_columns, values);
    if (e != ERR_OK)
        return undo(c, was, len, e);
    end_entry(c);
    return ERR_OK;
}

void hrana_json_put_step_end(struct hrana_entries *c, const struct wire_done *d, bool read_only)
{
    begin_entry(c, "step_end");
    put_written(&c->j, d, read_only);
    end_entry(c);
}

void hrana_json_put_step_error(struct hrana_entries *c, uint32_t step, const struct hrana_error *e)
{
    begin_entry(c, "step_error");
    json_key(&c->j, "step");
    json_uint(&c->j, step);
    json_key(&c->j, "error");
    put_error(&c->j, e);
    end_entry(c);
}

void hrana_json_put_cursor_error(struct hrana_entries *c, const struct hrana_error *e)
{
    begin_entry(c, "error");
    json_key(&c->j, "error");
    put_error(&c->j, e);
    end_entry(c);
}
