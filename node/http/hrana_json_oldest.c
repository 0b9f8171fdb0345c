/* Room: node/http.   Thread: any, one at a time.   Owns: nothing.
 * Invariants: a batch of one step is a statement by itself, one of more has BEGIN before the
 * statements, COMMIT and ROLLBACK behind them: both ends of this file rely on it.
 * Not here: Hrana's forms (hrana_json_read.c, hrana_json_write.c).
 *
 * The form before Hrana: {"statements":["SELECT 1",{"q":"SELECT ?","params":[1]}]} and
 * [{"results":{"columns":["1"],"rows":[[1]]}}], values bare. The JDBC driver (DBeaver) speaks it,
 * and people with curl. Source: tursodatabase/libsql, docs/http_api.md; what the driver reads. */
#include "base/check.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_frames.h"
#include "node/http/hrana_json.h"
#include "node/http/json_spot.h"

#include <string.h>

enum { AROUND = 3 }; /* BEGIN, COMMIT, ROLLBACK */

/* --- reading --- */

/* A number is whole if it is written so and fits 64 bits. */
static enum err get_value(const struct spot *s, struct arena *arena, struct wire_value *out)
{
    struct spot base64 = spot_get(s, "base64");
    switch (s->v->type) {
    case JSON_NULL:
        out->type = WIRE_NULL;
        return ERR_OK;
    case JSON_FALSE:
    case JSON_TRUE:
        out->type = WIRE_INTEGER;
        out->integer = s->v->type == JSON_TRUE;
        return ERR_OK;
    case JSON_NUMBER:
        out->type = json_int64(s->v, &out->integer) ? WIRE_INTEGER : WIRE_FLOAT;
        return out->type == WIRE_INTEGER || json_double(s->v, &out->real)
                   ? ERR_OK
                   : spot_fail(s, "is no number");
    case JSON_STRING:
        return spot_bytes(s, WIRE_TEXT, s->v->text, s->v->len, out);
    case JSON_OBJECT:
        return spot_base64(&base64, arena, out);
    case JSON_ARRAY:
        break;
    }
    return spot_fail(s, "must be null, a number, a string, true, false or {\"base64\":...}");
}

/* An array by position, an object by name. */
static enum err get_params(const struct spot *s, struct arena *arena, struct hrana_stmt *out)
{
    bool named = json_is(s->v, JSON_OBJECT);
    if (!spot_is_there(s))
        return ERR_OK;
    if (!named)
        TRY(spot_need(s, JSON_ARRAY, "an array or an object"));
    struct hrana_arg *args = arena_zeroed(arena, sizeof *args * s->v->n_children);
    if (args == NULL)
        return hrana_no_room(arena);
    for (struct spot at = spot_first(s); at.v != NULL; spot_next(&at)) {
        if (named)
            args[at.index].name = (struct hrana_text){.p = at.v->key, .n = at.v->key_len};
        TRY(get_value(&at, arena, &args[at.index].value));
    }
    if (named) {
        out->named_args = args;
        out->n_named_args = s->v->n_children;
    } else {
        out->args = args;
        out->n_args = s->v->n_children;
    }
    return ERR_OK;
}

static enum err get_statement(const struct spot *s, struct arena *arena, struct hrana_stmt *out)
{
    out->want_rows = true;
    if (json_is(s->v, JSON_STRING))
        return spot_text(s, &out->sql);
    TRY(spot_need(s, JSON_OBJECT, "a string or an object with q"));
    struct spot q = spot_get(s, "q"), params = spot_get(s, "params");
    TRY(spot_text(&q, &out->sql));
    return get_params(&params, arena, out);
}

static const struct hrana_cond *condition(struct arena *arena, enum hrana_cond_type type,
                                          uint32_t step)
{
    struct hrana_cond *c = arena_zeroed(arena, sizeof *c);
    if (c != NULL)
        *c = (struct hrana_cond){.type = type, .step = step};
    return c;
}

static struct hrana_stmt fixed(const char *sql)
{
    return (struct hrana_stmt){.sql = {.p = sql, .n = strlen(sql)}};
}

/* COMMIT has failed, or was not run: then it did not succeed, which is what ROLLBACK waits for. */
static enum err put_around(struct arena *arena, struct hrana_step *steps, uint32_t n)
{
    const struct hrana_cond **part = arena_zeroed(arena, sizeof *part);
    struct hrana_cond *failed = arena_zeroed(arena, sizeof *failed);
    for (uint32_t i = 1; i < n - 1; i++)
        steps[i].condition = condition(arena, HRANA_OK, i - 1);
    if (part != NULL)
        *part = condition(arena, HRANA_OK, n - 2);
    if (arena->failed)
        return hrana_no_room(arena);
    *failed = (struct hrana_cond){.type = HRANA_NOT, .n_parts = 1, .parts = part};
    steps[0].stmt = fixed("BEGIN");
    steps[n - 2].stmt = fixed("COMMIT");
    steps[n - 1].stmt = fixed("ROLLBACK");
    steps[n - 1].condition = failed;
    return ERR_OK;
}

static enum err get_steps(const struct spot *statements, struct arena *arena,
                          struct hrana_batch *out)
{
    uint32_t n = statements->v->n_children, first = n > 1;
    if (n > HRANA_STEPS_MAX - AROUND) {
        (void)spot_fail(statements, "has %u statements, and may have %u", n,
                        HRANA_STEPS_MAX - AROUND);
        return ERR_TOO_BIG;
    }
    out->n_steps = n > 1 ? n + AROUND : n;
    struct hrana_step *steps = arena_zeroed(arena, sizeof *steps * out->n_steps);
    if (steps == NULL)
        return hrana_no_room(arena);
    out->steps = steps;
    for (struct spot at = spot_first(statements); at.v != NULL; spot_next(&at))
        TRY(get_statement(&at, arena, &steps[first + at.index].stmt));
    return n > 1 ? put_around(arena, steps, out->n_steps) : ERR_OK;
}

enum err hrana_json_statements(struct hrana_reader *r, struct hrana_body *out)
{
    struct spot top = {0};
    struct arena *arena = r->arena;
    *out = (struct hrana_body){.n_requests = 1};
    TRY(hrana_json_root(r, &top.v));
    TRY(spot_need(&top, JSON_OBJECT, "an object"));
    struct spot statements = spot_get(&top, "statements");
    TRY(spot_need(&statements, JSON_ARRAY, "an array"));
    struct hrana_request *request = arena_zeroed(arena, sizeof *request);
    if (request == NULL)
        return hrana_no_room(arena);
    request->type = HRANA_BATCH;
    out->requests = request;
    TRY(spot_replication_index(&top, &request->batch.replication_index));
    return get_steps(&statements, arena, &request->batch);
}

/* --- writing --- */

static void put_value(struct json_writer *j, const struct wire_value *v)
{
    switch (v->type) {
    case WIRE_NULL:
        json_null(j);
        break;
    case WIRE_INTEGER:
        json_int(j, v->integer);
        break;
    case WIRE_FLOAT:
        json_real(j, v->real);
        break;
    case WIRE_TEXT:
        json_text(j, v->text.bytes, v->text.len);
        break;
    case WIRE_BLOB:
        json_begin_object(j);
        json_key(j, "base64");
        json_base64(j, v->text.bytes, v->text.len);
        json_end_object(j);
        break;
    }
}

static void put_names(struct json_writer *j, uint32_t n, struct rd columns)
{
    json_key(j, "columns");
    json_begin_array(j);
    for (uint32_t i = 0; i < n; i++) {
        size_t name_len, type_len;
        const char *name = rd_str(&columns, &name_len);
        (void)rd_str(&columns, &type_len);
        json_text(j, name, name_len);
    }
    json_end_array(j);
}

static enum err put_rows(struct json_writer *j, struct hrana_frames *f)
{
    struct rd values;
    uint32_t rows;
    json_key(j, "rows");
    json_begin_array(j);
    do {
        TRY(hrana_frames_next(f, &rows, &values));
        for (uint32_t i = 0; i < rows && j->out->failed == ERR_OK; i++) {
            json_begin_array(j);
            for (uint32_t k = 0; k < f->n_columns; k++) {
                struct wire_value v;
                TRY(wire_get_value(&values, &v));
                put_value(j, &v);
            }
            json_end_array(j);
        }
    } while (rows > 0 && j->out->failed == ERR_OK);
    json_end_array(j);
    return ERR_OK;
}

/* The driver takes rows_written for the count of changed rows. */
static enum err put_result(struct json_writer *j, const struct hrana_result *r)
{
    struct hrana_frames f;
    TRY(hrana_frames_open(&f, r));
    json_begin_object(j);
    json_key(j, "results");
    json_begin_object(j);
    put_names(j, f.n_columns, f.columns);
    TRY(put_rows(j, &f));
    json_key(j, "rows_written");
    json_uint(j, hrana_affected(&r->done, r->read_only));
    json_end_object(j);
    json_end_object(j);
    return ERR_OK;
}

static void put_failure(struct json_writer *j, const struct hrana_error *e)
{
    json_begin_object(j);
    json_key(j, "error");
    json_cstr(j, e->message);
    json_key(j, "code");
    json_cstr(j, e->code);
    json_end_object(j);
}

/* Why nothing of it is to be told but an error; NULL: there is no such reason. */
static const struct hrana_error *failed_as_a_whole(const struct hrana_reply *r)
{
    if (r->error != NULL || r->n_steps <= 1)
        return r->error;
    CHECK(r->n_steps > AROUND);
    const struct hrana_error *begin = r->steps[0].error, *commit = r->steps[r->n_steps - 2].error;
    return begin != NULL ? begin : commit;
}

static enum err put_steps(struct json_writer *j, const struct hrana_reply *r)
{
    uint32_t first = r->n_steps > 1, end = r->n_steps > 1 ? r->n_steps - 2 : r->n_steps;
    json_begin_array(j);
    for (uint32_t i = first; i < end; i++) {
        if (r->steps[i].error != NULL)
            put_failure(j, r->steps[i].error);
        else if (r->steps[i].result != NULL)
            TRY(put_result(j, r->steps[i].result));
        else
            json_null(j);
    }
    json_end_array(j);
    return ERR_OK;
}

void hrana_json_put_statements(struct hrana_writer *w, const struct hrana_reply *r,
                               struct hrana_error **error)
{
    const struct hrana_mark before = hrana_mark(w);
    const struct hrana_error *failed = failed_as_a_whole(r);
    *error = NULL;
    if (failed != NULL)
        *error = hrana_error_copy(failed);
    else
        *error = hrana_undo_if(w, &before, r, put_steps(&w->json, r));
}
