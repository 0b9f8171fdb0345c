/* Room: node/http.   Thread: any, one at a time.   Owns: nothing.
 * Not here: what is taken back when it cannot be written whole (hrana_form.c); the oldest form
 * (hrana_json_oldest.c); which codes errors have (hrana_error.c). */
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

/* Some drivers take no result without them. Read counts the rows of the answer alone. */
static void put_statistics(struct json_writer *j, uint64_t rows, uint64_t written, uint64_t us)
{
    json_key(j, "rows_read");
    json_uint(j, rows);
    json_key(j, "rows_written");
    json_uint(j, written);
    json_key(j, "query_duration_ms");
    json_real(j, (double)us / 1000);
}

/* --- results --- */

/* A buffer that is full takes no more rows: it would be a long way to the same error. */
static enum err put_result(struct json_writer *j, const struct hrana_result *r, uint64_t seq)
{
    struct hrana_frames f;
    struct rd values;
    uint32_t rows;
    uint64_t total = 0;
    TRY(hrana_frames_open(&f, r));
    json_begin_object(j);
    TRY(put_columns(j, f.n_columns, f.columns));
    json_key(j, "rows");
    json_begin_array(j);
    do {
        TRY(hrana_frames_next(&f, &rows, &values));
        total += rows;
        for (uint32_t i = 0; i < rows && j->out->failed == ERR_OK; i++)
            TRY(put_row(j, f.n_columns, &values));
    } while (rows > 0 && j->out->failed == ERR_OK);
    json_end_array(j);
    put_written(j, &r->done, r->read_only);
    put_replication_index(j, seq > r->done.seq ? seq : r->done.seq);
    put_statistics(j, total, hrana_affected(&r->done, r->read_only), r->took_us);
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
    struct wire_description d;
    TRY(hrana_frames_description(frame, &d));
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

/* The `result` of those that have one. */
static enum err put_payload(struct json_writer *j, const struct hrana_reply *r)
{
    if (r->type == HRANA_EXECUTE) {
        CHECK(r->n_steps == 1 && r->steps[0].result != NULL);
        return put_result(j, r->steps[0].result, r->replication_index);
    }
    return r->type == HRANA_BATCH ? put_batch_result(j, r) : put_description(j, &r->description);
}

static bool has_payload(const struct hrana_reply *r)
{
    return r->type == HRANA_EXECUTE || r->type == HRANA_BATCH || r->type == HRANA_DESCRIBE;
}

/* What stands around a response or an error: a pipeline's, or a WebSocket's with its number. */
static void begin_wrap(struct json_writer *j, const int32_t *request_id, bool ok)
{
    json_begin_object(j);
    if (request_id == NULL) {
        put_type(j, ok ? "ok" : "error");
    } else {
        put_type(j, ok ? "response_ok" : "response_error");
        json_key(j, "request_id");
        json_int(j, *request_id);
    }
    json_key(j, ok ? "response" : "error");
}

static enum err put_response(struct hrana_writer *w, const int32_t *request_id,
                             const struct hrana_reply *r)
{
    struct json_writer *j = &w->json;
    begin_wrap(j, request_id, true);
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
    json_end_object(j);
    return ERR_OK;
}

static void put_wrapped_error(struct hrana_writer *w, const int32_t *request_id,
                              const struct hrana_error *e)
{
    begin_wrap(&w->json, request_id, false);
    put_error(&w->json, e);
    json_end_object(&w->json);
}

static void begin_pipeline(struct hrana_writer *w)
{
    json_begin_object(&w->json);
    json_key(&w->json, "results");
    json_begin_array(&w->json);
}

static void put_baton(struct json_writer *j, const char *baton, const char *base_url)
{
    json_key(j, "baton");
    put_cstr_or_null(j, baton);
    json_key(j, "base_url");
    put_cstr_or_null(j, base_url);
}

static void end_pipeline(struct hrana_writer *w, const char *baton, const char *base_url)
{
    json_end_array(&w->json);
    put_baton(&w->json, baton, base_url);
    json_end_object(&w->json);
}

static void put_hello(struct hrana_writer *w, const struct hrana_error *error)
{
    struct json_writer *j = &w->json;
    json_begin_object(j);
    put_type(j, error == NULL ? "hello_ok" : "hello_error");
    if (error != NULL) {
        json_key(j, "error");
        put_error(j, error);
    }
    json_end_object(j);
}

void hrana_json_put_v1(struct hrana_writer *w, const struct hrana_reply *r,
                       struct hrana_error **error)
{
    const struct hrana_mark before = hrana_mark(w);
    const struct hrana_error *failed = hrana_reply_error(r);
    *error = NULL;
    if (failed != NULL) {
        *error = hrana_error_copy(failed);
        return;
    }
    CHECK(r->type == HRANA_EXECUTE || r->type == HRANA_BATCH);
    json_begin_object(&w->json);
    json_key(&w->json, "result");
    enum err e = put_payload(&w->json, r);
    json_end_object(&w->json);
    *error = hrana_undo_if(w, &before, r, e);
}

/* --- cursors --- */

/* Over HTTP each entry is a line. */
static void end_entry(struct hrana_writer *w)
{
    json_end_object(&w->json);
    if (!w->apart)
        return;
    buf_put_u8(w->out, '\n');
    w->json.comma = false;
}

static struct json_writer *begin_entry(struct hrana_writer *w, const char *type)
{
    json_begin_object(&w->json);
    put_type(&w->json, type);
    return &w->json;
}

static void begin_cursor(struct hrana_writer *w, const char *baton, const char *base_url)
{
    w->apart = true;
    json_begin_object(&w->json);
    put_baton(&w->json, baton, base_url);
    end_entry(w);
}

static void begin_fetched(struct hrana_writer *w, int32_t request_id)
{
    struct json_writer *j = &w->json;
    begin_wrap(j, &request_id, true);
    json_begin_object(j);
    put_type(j, type_name(HRANA_FETCH_CURSOR));
    json_key(j, "entries");
    json_begin_array(j);
}

static void end_fetched(struct hrana_writer *w, bool done)
{
    json_end_array(&w->json);
    json_key(&w->json, "done");
    json_bool(&w->json, done);
    json_end_object(&w->json);
    json_end_object(&w->json);
}

static enum err put_step_begin(struct hrana_writer *w, uint32_t step, uint32_t n_columns,
                               struct rd columns)
{
    struct json_writer *j = begin_entry(w, "step_begin");
    json_key(j, "step");
    json_uint(j, step);
    TRY(put_columns(j, n_columns, columns));
    end_entry(w);
    return ERR_OK;
}

static enum err put_row_entry(struct hrana_writer *w, uint32_t n_columns, struct rd *values)
{
    struct json_writer *j = begin_entry(w, "row");
    json_key(j, "row");
    TRY(put_row(j, n_columns, values));
    end_entry(w);
    return ERR_OK;
}

static void put_step_end(struct hrana_writer *w, const struct wire_done *d, bool read_only)
{
    put_written(begin_entry(w, "step_end"), d, read_only);
    end_entry(w);
}

static void put_step_error(struct hrana_writer *w, uint32_t step, const struct hrana_error *e)
{
    struct json_writer *j = begin_entry(w, "step_error");
    json_key(j, "step");
    json_uint(j, step);
    json_key(j, "error");
    put_error(j, e);
    end_entry(w);
}

static void put_cursor_error(struct hrana_writer *w, const struct hrana_error *e)
{
    struct json_writer *j = begin_entry(w, "error");
    json_key(j, "error");
    put_error(j, e);
    end_entry(w);
}

const struct hrana_form hrana_json = {.content_type = "application/json",
                                      .reader_new = hrana_json_reader_new,
                                      .reader_free = hrana_json_reader_free,
                                      .feed = hrana_json_feed,
                                      .pipeline = hrana_json_pipeline,
                                      .cursor = hrana_json_cursor,
                                      .message = hrana_json_message,
                                      .begin_pipeline = begin_pipeline,
                                      .end_pipeline = end_pipeline,
                                      .put_hello = put_hello,
                                      .begin_cursor = begin_cursor,
                                      .begin_fetched = begin_fetched,
                                      .end_fetched = end_fetched,
                                      .put_step_end = put_step_end,
                                      .put_step_error = put_step_error,
                                      .put_cursor_error = put_cursor_error,
                                      .put_response = put_response,
                                      .put_error = put_wrapped_error,
                                      .put_step_begin = put_step_begin,
                                      .put_row = put_row_entry};
