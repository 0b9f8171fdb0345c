/* Room: node/http.   Thread: any, one at a time.   Owns: nothing.
 * Not here: the bytes of tags and lengths (protobuf_write.c); what is taken back when it cannot be
 * written whole (hrana_form.c); which codes errors have (hrana_error.c).
 *
 * The schema is that of the specification of Hrana 3, and of a statement's result replication_index
 * and what follows it as libSQL's server has them (libsql-hrana/src/proto.rs), which has none of a
 * batch's. 0, false and "" are written as well, as libSQL's client does: every decoder takes them.
 */
#include "base/check.h"
#include "node/http/hrana_frames.h"
#include "node/http/hrana_protobuf.h"
#include "node/http/protobuf_write.h"

/* --- pieces: messages in field TAG --- */

static void put_error(struct buf *out, uint32_t tag, const struct hrana_error *e)
{
    size_t error = protobuf_begin(out, tag);
    protobuf_put_cstr(out, 1, e->message);
    protobuf_put_cstr(out, 2, e->code);
    protobuf_end(out, error);
}

static void put_empty(struct buf *out, uint32_t tag)
{
    protobuf_put_bytes(out, tag, NULL, 0);
}

static void put_value(struct buf *out, uint32_t tag, const struct wire_value *v)
{
    size_t value = protobuf_begin(out, tag);
    switch (v->type) {
    case WIRE_NULL:
        put_empty(out, 1);
        break;
    case WIRE_INTEGER:
        protobuf_put_sint(out, 2, v->integer);
        break;
    case WIRE_FLOAT:
        protobuf_put_double(out, 3, v->real);
        break;
    case WIRE_TEXT:
        protobuf_put_text(out, 4, v->text.bytes, v->text.len);
        break;
    case WIRE_BLOB:
        protobuf_put_bytes(out, 5, v->text.bytes, v->text.len);
        break;
    }
    protobuf_end(out, value);
}

/* Col of a result, and DescribeCol, which looks the same. A declared type "": there is none. */
static enum err put_columns(struct buf *out, uint32_t tag, uint32_t n, struct rd columns)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t name_len, type_len;
        const char *name = rd_str(&columns, &name_len), *type = rd_str(&columns, &type_len);
        if (columns.failed)
            return err_fail(ERR_PROTOCOL, "a column of an answer is cut short");
        size_t column = protobuf_begin(out, tag);
        protobuf_put_text(out, 1, name, name_len);
        if (type_len > 0)
            protobuf_put_text(out, 2, type, type_len);
        protobuf_end(out, column);
    }
    return ERR_OK;
}

static enum err put_row(struct buf *out, uint32_t tag, uint32_t n_columns, struct rd *values)
{
    size_t row = protobuf_begin(out, tag);
    for (uint32_t i = 0; i < n_columns; i++) {
        struct wire_value v;
        TRY(wire_get_value(values, &v));
        put_value(out, 1, &v);
    }
    protobuf_end(out, row);
    return ERR_OK;
}

/* affected_row_count in field TAG, last_insert_rowid in the next. */
static void put_written(struct buf *out, uint32_t tag, const struct wire_done *d, bool read_only)
{
    protobuf_put_uint(out, tag, hrana_affected(d, read_only));
    if (hrana_has_rowid(d, read_only))
        protobuf_put_sint(out, tag + 1, d->last_insert_rowid);
}

/* --- results: messages in field TAG --- */

/* A buffer that is full takes no more rows: it would be a long way to the same error. */
static enum err put_result(struct buf *out, uint32_t tag, const struct hrana_result *r,
                           uint64_t seq)
{
    struct hrana_frames f;
    struct rd values;
    uint32_t rows;
    uint64_t total = 0;
    TRY(hrana_frames_open(&f, r));
    size_t result = protobuf_begin(out, tag);
    TRY(put_columns(out, 1, f.n_columns, f.columns));
    do {
        TRY(hrana_frames_next(&f, &rows, &values));
        total += rows;
        for (uint32_t i = 0; i < rows && out->failed == ERR_OK; i++)
            TRY(put_row(out, 2, f.n_columns, &values));
    } while (rows > 0 && out->failed == ERR_OK);
    put_written(out, 3, &r->done, r->read_only);
    if (seq < r->done.seq)
        seq = r->done.seq;
    if (seq > 0)
        protobuf_put_uint(out, 5, seq);
    protobuf_put_uint(out, 6, total); /* rows_read, rows_written: as in JSON */
    protobuf_put_uint(out, 7, hrana_affected(&r->done, r->read_only));
    protobuf_put_double(out, 8, (double)r->took_us / 1000);
    protobuf_end(out, result);
    return ERR_OK;
}

/* Two maps, by the steps' numbers. */
static enum err put_batch_result(struct buf *out, uint32_t tag, const struct hrana_reply *r)
{
    size_t batch = protobuf_begin(out, tag);
    for (uint32_t i = 0; i < r->n_steps; i++) {
        const struct hrana_step_reply *step = &r->steps[i];
        if (step->result == NULL && step->error == NULL)
            continue;
        size_t entry = protobuf_begin(out, step->result != NULL ? 1 : 2);
        protobuf_put_uint(out, 1, i);
        if (step->result != NULL)
            TRY(put_result(out, 2, step->result, 0));
        else
            put_error(out, 2, step->error);
        protobuf_end(out, entry);
    }
    protobuf_end(out, batch);
    return ERR_OK;
}

static enum err put_params(struct buf *out, uint32_t tag, uint32_t n, struct rd params)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t len;
        const char *name = rd_str(&params, &len);
        if (params.failed)
            return err_fail(ERR_PROTOCOL, "a parameter of a description is cut short");
        size_t param = protobuf_begin(out, tag);
        if (len > 0)
            protobuf_put_text(out, 1, name, len);
        protobuf_end(out, param);
    }
    return ERR_OK;
}

static enum err put_description(struct buf *out, uint32_t tag, const struct buf *frame)
{
    struct wire_description d;
    TRY(hrana_frames_description(frame, &d));
    size_t description = protobuf_begin(out, tag);
    TRY(put_params(out, 1, d.n_params, d.params));
    TRY(put_columns(out, 2, d.n_columns, d.columns));
    protobuf_put_uint(out, 3, (d.flags & WIRE_STATEMENT_EXPLAIN) != 0);
    protobuf_put_uint(out, 4, (d.flags & WIRE_STATEMENT_READONLY) != 0);
    protobuf_end(out, description);
    return ERR_OK;
}

/* --- replies --- */

static uint32_t tag_of(enum hrana_type type, bool websocket)
{
    /* In StreamResponse and in ResponseOkMsg; 0: it is not there. */
    static const struct {
        uint8_t http, websocket;
    } tags[] = {
        [HRANA_CLOSE] = {1, 0},        [HRANA_EXECUTE] = {2, 4},
        [HRANA_BATCH] = {3, 5},        [HRANA_SEQUENCE] = {4, 9},
        [HRANA_DESCRIBE] = {5, 10},    [HRANA_STORE_SQL] = {6, 11},
        [HRANA_CLOSE_SQL] = {7, 12},   [HRANA_GET_AUTOCOMMIT] = {8, 13},
        [HRANA_OPEN_STREAM] = {0, 2},  [HRANA_CLOSE_STREAM] = {0, 3},
        [HRANA_OPEN_CURSOR] = {0, 6},  [HRANA_CLOSE_CURSOR] = {0, 7},
        [HRANA_FETCH_CURSOR] = {0, 8},
    };
    CHECK((size_t)type < sizeof tags / sizeof tags[0]);
    uint32_t tag = websocket ? tags[type].websocket : tags[type].http;
    CHECK(tag != 0);
    return tag;
}

/* What is in a response: of each type the same over HTTP and over a WebSocket. */
static enum err put_payload(struct buf *out, const struct hrana_reply *r)
{
    switch ((int)r->type) {
    case HRANA_EXECUTE:
        CHECK(r->n_steps == 1 && r->steps[0].result != NULL);
        return put_result(out, 1, r->steps[0].result, r->replication_index);
    case HRANA_BATCH:
        return put_batch_result(out, 1, r);
    case HRANA_DESCRIBE:
        return put_description(out, 1, &r->description);
    case HRANA_GET_AUTOCOMMIT:
        protobuf_put_uint(out, 1, r->is_autocommit);
        return ERR_OK;
    default:
        return ERR_OK;
    }
}

static size_t begin_message(struct buf *out, uint32_t tag, int32_t request_id)
{
    size_t message = protobuf_begin(out, tag);
    protobuf_put_int32(out, 1, request_id);
    return message;
}

/* ServerMsg.response_ok; PipelineRespBody.results with StreamResult.ok. */
static enum err put_response(struct hrana_writer *w, const int32_t *request_id,
                             const struct hrana_reply *r)
{
    bool websocket = request_id != NULL;
    size_t result = websocket ? 0 : protobuf_begin(w->out, 3);
    size_t ok = websocket ? begin_message(w->out, 3, *request_id) : protobuf_begin(w->out, 1);
    size_t response = protobuf_begin(w->out, tag_of(r->type, websocket));
    TRY(put_payload(w->out, r));
    protobuf_end(w->out, response);
    protobuf_end(w->out, ok);
    if (!websocket)
        protobuf_end(w->out, result);
    return ERR_OK;
}

/* ServerMsg.response_error; PipelineRespBody.results: the error has the same tag in both. */
static void put_wrapped_error(struct hrana_writer *w, const int32_t *request_id,
                              const struct hrana_error *e)
{
    size_t wrap =
        request_id != NULL ? begin_message(w->out, 4, *request_id) : protobuf_begin(w->out, 3);
    put_error(w->out, 2, e);
    protobuf_end(w->out, wrap);
}

/* Nothing is around the fields of the outermost message. */
static void begin_pipeline(struct hrana_writer *w)
{
    (void)w;
}

static void put_baton(struct buf *out, const char *baton, const char *base_url)
{
    if (baton != NULL)
        protobuf_put_cstr(out, 1, baton);
    if (base_url != NULL)
        protobuf_put_cstr(out, 2, base_url);
}

static void end_pipeline(struct hrana_writer *w, const char *baton, const char *base_url)
{
    put_baton(w->out, baton, base_url);
}

static void put_hello(struct hrana_writer *w, const struct hrana_error *error)
{
    if (error == NULL) {
        put_empty(w->out, 1);
        return;
    }
    size_t hello = protobuf_begin(w->out, 2);
    put_error(w->out, 1, error);
    protobuf_end(w->out, hello);
}

/* --- cursors --- */

static void begin_cursor(struct hrana_writer *w, const char *baton, const char *base_url)
{
    w->apart = true;
    size_t head = protobuf_begin(w->out, 0);
    put_baton(w->out, baton, base_url);
    protobuf_end(w->out, head);
}

/* ServerMsg.response_ok with fetch_cursor: open until end_fetched. */
static void begin_fetched(struct hrana_writer *w, int32_t request_id)
{
    w->open[0] = begin_message(w->out, 3, request_id);
    w->open[1] = protobuf_begin(w->out, tag_of(HRANA_FETCH_CURSOR, true));
}

static void end_fetched(struct hrana_writer *w, bool done)
{
    protobuf_put_uint(w->out, 2, done);
    protobuf_end(w->out, w->open[1]);
    protobuf_end(w->out, w->open[0]);
}

/* CursorEntry: over HTTP by itself, otherwise one of `entries`. */
static size_t begin_entry(struct hrana_writer *w)
{
    return protobuf_begin(w->out, w->apart ? 0 : 1);
}

static enum err put_step_begin(struct hrana_writer *w, uint32_t step, uint32_t n_columns,
                               struct rd columns)
{
    size_t entry = begin_entry(w), begin = protobuf_begin(w->out, 1);
    protobuf_put_uint(w->out, 1, step);
    TRY(put_columns(w->out, 2, n_columns, columns));
    protobuf_end(w->out, begin);
    protobuf_end(w->out, entry);
    return ERR_OK;
}

static enum err put_row_entry(struct hrana_writer *w, uint32_t n_columns, struct rd *values)
{
    size_t entry = begin_entry(w);
    TRY(put_row(w->out, 4, n_columns, values));
    protobuf_end(w->out, entry);
    return ERR_OK;
}

static void put_step_end(struct hrana_writer *w, const struct wire_done *d, bool read_only)
{
    size_t entry = begin_entry(w), end = protobuf_begin(w->out, 2);
    put_written(w->out, 1, d, read_only);
    protobuf_end(w->out, end);
    protobuf_end(w->out, entry);
}

static void put_step_error(struct hrana_writer *w, uint32_t step, const struct hrana_error *e)
{
    size_t entry = begin_entry(w), error = protobuf_begin(w->out, 3);
    protobuf_put_uint(w->out, 1, step);
    put_error(w->out, 2, e);
    protobuf_end(w->out, error);
    protobuf_end(w->out, entry);
}

static void put_cursor_error(struct hrana_writer *w, const struct hrana_error *e)
{
    size_t entry = begin_entry(w);
    put_error(w->out, 5, e);
    protobuf_end(w->out, entry);
}

const struct hrana_form hrana_protobuf = {.content_type = "application/x-protobuf",
                                          .binary = true,
                                          .reader_new = hrana_protobuf_reader_new,
                                          .reader_free = hrana_protobuf_reader_free,
                                          .feed = hrana_protobuf_feed,
                                          .pipeline = hrana_protobuf_pipeline,
                                          .cursor = hrana_protobuf_cursor,
                                          .message = hrana_protobuf_message,
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
