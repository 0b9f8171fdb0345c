/* Room: node/http.   Thread: any, one at a time.   Owns: nothing: all goes to the message's arena.
 * Invariants: what is handed out is whole: counts fit their arrays, a condition names steps before
 * its own and nests no deeper than JSON does (JSON_DEPTH_MAX), which bounds the recursion here.
 * Not here: JSON's grammar (json_read.c); what is wrong with one statement alone (hrana_stream.c).
 */
#include "node/http/hrana_json.h"
#include "node/http/json_spot.h"

#include "base/check.h"

#include <math.h>
#include <string.h>

struct reading {
    struct arena *arena;
    enum hrana_version version;
};

/* --- values --- */

/* A string by the book; a number where it is exact: up to 2^53 as a double, beyond as digits. */
static bool whole(const struct json *v, int64_t *out)
{
    double d;
    if (json_int64(v, out))
        return true;
    if (!json_double(v, &d) || !(fabs(d) <= 9007199254740992.0) || d != trunc(d))
        return false;
    *out = (int64_t)d;
    return true;
}

static enum err get_value(const struct reading *r, const struct spot *s, struct wire_value *out)
{
    struct spot type, value, base64;
    TRY(spot_type(s, &type));
    value = spot_get(s, "value");
    base64 = spot_get(s, "base64");
    if (spot_is_word(&type, "null")) {
        out->type = WIRE_NULL;
        return ERR_OK;
    }
    if (spot_is_word(&type, "integer")) {
        out->type = WIRE_INTEGER;
        return whole(value.v, &out->integer)
                   ? ERR_OK
                   : spot_fail(&value, "must be a whole number of 64 bits in a string");
    }
    if (spot_is_word(&type, "float")) {
        out->type = WIRE_FLOAT;
        return json_double(value.v, &out->real) ? ERR_OK : spot_fail(&value, "must be a number");
    }
    if (spot_is_word(&type, "text")) {
        TRY(spot_need(&value, JSON_STRING, "a string"));
        return spot_bytes(&value, WIRE_TEXT, value.v->text, value.v->len, out);
    }
    if (spot_is_word(&type, "blob"))
        return spot_base64(&base64, r->arena, out);
    return spot_unknown(&type, "type of a value");
}

/* --- statements --- */

static enum err get_args(const struct reading *r, const struct spot *stmt, struct hrana_stmt *out)
{
    struct spot args = spot_get(stmt, "args");
    void *to;
    TRY(spot_array(&args, r->arena, sizeof(struct hrana_arg), &out->n_args, &to));
    struct hrana_arg *arg = to;
    out->args = arg;
    if (out->n_args == 0)
        return ERR_OK;
    for (struct spot at = spot_first(&args); at.v != NULL; spot_next(&at))
        TRY(get_value(r, &at, &arg[at.index].value));
    return ERR_OK;
}

static enum err get_named_args(const struct reading *r, const struct spot *stmt,
                               struct hrana_stmt *out)
{
    struct spot args = spot_get(stmt, "named_args");
    void *to;
    TRY(spot_array(&args, r->arena, sizeof(struct hrana_arg), &out->n_named_args, &to));
    struct hrana_arg *arg = to;
    out->named_args = arg;
    if (out->n_named_args == 0)
        return ERR_OK;
    for (struct spot at = spot_first(&args); at.v != NULL; spot_next(&at)) {
        TRY(spot_need(&at, JSON_OBJECT, "an object"));
        struct spot name = spot_get(&at, "name"), value = spot_get(&at, "value");
        TRY(spot_text(&name, &arg[at.index].name));
        TRY(get_value(r, &value, &arg[at.index].value));
    }
    return ERR_OK;
}

/* `sql` or `sql_id` of a statement, a sequence or a description. */
static enum err get_sql(const struct reading *r, const struct spot *s, struct hrana_stmt *out)
{
    struct spot sql = spot_get(s, "sql"), id = spot_get(s, "sql_id");
    if (spot_is_there(&sql) && spot_is_there(&id))
        return spot_fail(s, "has both sql and sql_id, and may have one of them");
    if (!spot_is_there(&sql) && !spot_is_there(&id))
        return spot_fail(s, "has neither sql nor sql_id");
    if (!spot_is_there(&id))
        return spot_text(&sql, &out->sql);
    if (r->version < HRANA_2)
        return spot_fail(&id, "is only supported in protocol version hrana2 and higher");
    out->by_id = true;
    return spot_int32(&id, &out->sql_id);
}

/* want_rows: Hrana 1 and 2 want it there, 3 does not; all servers take true for nothing. */
static enum err get_stmt(const struct reading *r, const struct spot *s, struct hrana_stmt *out)
{
    TRY(spot_need(s, JSON_OBJECT, "an object"));
    TRY(get_sql(r, s, out));
    TRY(get_args(r, s, out));
    TRY(get_named_args(r, s, out));
    TRY(spot_replication_index(s, &out->replication_index));
    struct spot want_rows = spot_get(s, "want_rows");
    if (spot_is_there(&want_rows) && !json_is(want_rows.v, JSON_TRUE) &&
        !json_is(want_rows.v, JSON_FALSE))
        return spot_fail(&want_rows, "must be true or false");
    out->want_rows = !json_is(want_rows.v, JSON_FALSE);
    return ERR_OK;
}

/* --- batches --- */

static enum err get_condition(const struct reading *r, const struct spot *s, uint32_t own,
                              const struct hrana_cond **out);

static enum err get_parts(const struct reading *r, const struct spot *conds, uint32_t own,
                          struct hrana_cond *c)
{
    TRY(spot_need(conds, JSON_ARRAY, "an array"));
    const struct hrana_cond **parts = arena_zeroed(r->arena, sizeof *parts * conds->v->n_children);
    if (parts == NULL)
        return hrana_no_room(r->arena);
    for (struct spot at = spot_first(conds); at.v != NULL; spot_next(&at))
        TRY(get_condition(r, &at, own, &parts[at.index]));
    c->parts = parts;
    c->n_parts = conds->v->n_children;
    return ERR_OK;
}

static enum err get_not(const struct reading *r, const struct spot *s, uint32_t own,
                        struct hrana_cond *c)
{
    struct spot part = spot_get(s, "cond");
    const struct hrana_cond **parts = arena_zeroed(r->arena, sizeof *parts);
    if (parts == NULL)
        return hrana_no_room(r->arena);
    c->parts = parts;
    c->n_parts = 1;
    return get_condition(r, &part, own, parts);
}

static enum err get_step_number(const struct spot *s, uint32_t own, uint32_t *out)
{
    struct spot step = spot_get(s, "step");
    TRY(spot_uint32(&step, out));
    if (*out >= own)
        return spot_fail(&step, "must be that of a step before this one, %u", own);
    return ERR_OK;
}

static enum err get_condition(const struct reading *r, const struct spot *s, uint32_t own,
                              const struct hrana_cond **out)
{
    struct spot type, conds = spot_get(s, "conds");
    TRY(spot_type(s, &type));
    struct hrana_cond *c = arena_zeroed(r->arena, sizeof *c);
    if (c == NULL)
        return hrana_no_room(r->arena);
    *out = c;
    bool ok = spot_is_word(&type, "ok"), all = spot_is_word(&type, "and");
    if (ok || spot_is_word(&type, "error")) {
        c->type = ok ? HRANA_OK : HRANA_ERROR;
        return get_step_number(s, own, &c->step);
    }
    if (all || spot_is_word(&type, "or")) {
        c->type = all ? HRANA_AND : HRANA_OR;
        return get_parts(r, &conds, own, c);
    }
    if (spot_is_word(&type, "not")) {
        c->type = HRANA_NOT;
        return get_not(r, s, own, c);
    }
    if (!spot_is_word(&type, "is_autocommit"))
        return spot_unknown(&type, "type of a condition");
    c->type = HRANA_IS_AUTOCOMMIT;
    return r->version >= HRANA_3
               ? ERR_OK
               : spot_fail(&type, "is_autocommit is only supported in protocol version hrana3 and "
                                  "higher");
}

static enum err get_step(const struct reading *r, const struct spot *s, struct hrana_step *out)
{
    TRY(spot_need(s, JSON_OBJECT, "an object"));
    struct spot condition = spot_get(s, "condition"), stmt = spot_get(s, "stmt");
    if (spot_is_there(&condition))
        TRY(get_condition(r, &condition, s->index, &out->condition));
    return get_stmt(r, &stmt, &out->stmt);
}

static enum err too_many_steps(const struct spot *steps)
{
    (void)spot_fail(steps, "has %u steps, and may have %u", steps->v->n_children, HRANA_STEPS_MAX);
    return ERR_TOO_BIG;
}

static enum err get_batch(const struct reading *r, const struct spot *s, struct hrana_batch *out)
{
    void *to;
    TRY(spot_need(s, JSON_OBJECT, "an object"));
    struct spot steps = spot_get(s, "steps");
    TRY(spot_need(&steps, JSON_ARRAY, "an array"));
    if (steps.v->n_children > HRANA_STEPS_MAX)
        return too_many_steps(&steps);
    TRY(spot_array(&steps, r->arena, sizeof(struct hrana_step), &out->n_steps, &to));
    struct hrana_step *step = to;
    for (struct spot at = spot_first(&steps); at.v != NULL; spot_next(&at))
        TRY(get_step(r, &at, &step[at.index]));
    out->steps = step;
    return spot_replication_index(s, &out->replication_index);
}

/* --- requests --- */

enum { STREAM = 1, CURSOR = 2 }; /* the numbers that a request has over a WebSocket */

/* From which version on a request is allowed, over HTTP and over a WebSocket; 0: never. */
static const struct kind {
    const char *name;
    enum hrana_type type;
    int http, websocket, numbers;
} kinds[] = {
    {"execute", HRANA_EXECUTE, 2, 1, STREAM},
    {"batch", HRANA_BATCH, 2, 1, STREAM},
    {"close", HRANA_CLOSE, 2, 0, 0},
    {"store_sql", HRANA_STORE_SQL, 2, 2, 0},
    {"close_sql", HRANA_CLOSE_SQL, 2, 2, 0},
    {"sequence", HRANA_SEQUENCE, 2, 2, STREAM},
    {"describe", HRANA_DESCRIBE, 2, 2, STREAM},
    {"get_autocommit", HRANA_GET_AUTOCOMMIT, 3, 3, STREAM},
    {"open_stream", HRANA_OPEN_STREAM, 0, 1, STREAM},
    {"close_stream", HRANA_CLOSE_STREAM, 0, 1, STREAM},
    {"open_cursor", HRANA_OPEN_CURSOR, 0, 3, STREAM | CURSOR},
    {"close_cursor", HRANA_CLOSE_CURSOR, 0, 3, CURSOR},
    {"fetch_cursor", HRANA_FETCH_CURSOR, 0, 3, CURSOR},
};

static enum err get_kind(const struct reading *r, const struct spot *s, bool websocket,
                         const struct kind **out)
{
    struct spot type;
    TRY(spot_type(s, &type));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct kind *k = &kinds[i];
        int least = websocket ? k->websocket : k->http;
        if (least == 0 || !spot_is_word(&type, k->name))
            continue;
        *out = k;
        return (int)r->version >= least
                   ? ERR_OK
                   : spot_fail(&type, "%s is only supported in protocol version hrana%d and higher",
                               k->name, least);
    }
    return spot_unknown(&type, "type of a request");
}

static enum err get_numbers(const struct spot *s, const struct kind *k, struct hrana_request *out)
{
    struct spot stream = spot_get(s, "stream_id"), cursor = spot_get(s, "cursor_id");
    if ((k->numbers & STREAM) != 0)
        TRY(spot_int32(&stream, &out->stream_id));
    return (k->numbers & CURSOR) != 0 ? spot_int32(&cursor, &out->cursor_id) : ERR_OK;
}

static enum err get_store_sql(const struct spot *s, struct hrana_request *out)
{
    struct spot id = spot_get(s, "sql_id"), sql = spot_get(s, "sql");
    TRY(spot_int32(&id, &out->sql_id));
    return spot_text(&sql, &out->stmt.sql);
}

static enum err get_request(const struct reading *r, const struct spot *s, bool websocket,
                            struct hrana_request *out)
{
    const struct kind *k = NULL; /* for gcc, which does not see that TRY leaves */
    TRY(get_kind(r, s, websocket, &k));
    out->type = k->type;
    if (websocket)
        TRY(get_numbers(s, k, out));
    struct spot stmt = spot_get(s, "stmt"), batch = spot_get(s, "batch"),
                id = spot_get(s, "sql_id"), max = spot_get(s, "max_count");
    switch (k->type) {
    case HRANA_EXECUTE:
        TRY(get_stmt(r, &stmt, &out->stmt));
        return spot_replication_index(s, &out->stmt.replication_index);
    case HRANA_BATCH:
    case HRANA_OPEN_CURSOR:
        return get_batch(r, &batch, &out->batch);
    case HRANA_SEQUENCE:
    case HRANA_DESCRIBE:
        TRY(get_sql(r, s, &out->stmt));
        return spot_replication_index(s, &out->stmt.replication_index);
    case HRANA_STORE_SQL:
        return get_store_sql(s, out);
    case HRANA_CLOSE_SQL:
        return spot_int32(&id, &out->sql_id);
    case HRANA_FETCH_CURSOR:
        return spot_uint32(&max, &out->max_count);
    case HRANA_CLOSE:
    case HRANA_GET_AUTOCOMMIT:
    case HRANA_OPEN_STREAM:
    case HRANA_CLOSE_STREAM:
    case HRANA_CLOSE_CURSOR:
        break;
    }
    return ERR_OK;
}

/* --- bodies and messages --- */

void *hrana_json_reader_new(struct arena *arena)
{
    return json_reader_new(arena);
}

void hrana_json_reader_free(void *state)
{
    json_reader_free(state);
}

enum err hrana_json_feed(void *state, const void *p, size_t n)
{
    return json_feed(state, p, n);
}

enum err hrana_json_root(struct hrana_reader *r, const struct json **root)
{
    CHECK(r->form == &hrana_json);
    return json_end(r->state, root);
}

/* A body or message, which is to be an object. */
static enum err open_top(struct hrana_reader *r, struct reading *reading, struct spot *top)
{
    *reading = (struct reading){.arena = r->arena, .version = r->version};
    *top = (struct spot){0};
    TRY(hrana_json_root(r, &top->v));
    return spot_need(top, JSON_OBJECT, "an object");
}

/* A body of a single request of TYPE, which *REQUEST is. */
static enum err open_single(struct hrana_reader *r, enum hrana_type type, struct reading *reading,
                            struct spot *top, struct hrana_body *out,
                            struct hrana_request **request)
{
    *out = (struct hrana_body){.n_requests = 1};
    TRY(open_top(r, reading, top));
    *request = arena_zeroed(r->arena, sizeof **request);
    if (*request == NULL)
        return hrana_no_room(r->arena);
    (*request)->type = type;
    out->requests = *request;
    return ERR_OK;
}

enum err hrana_json_pipeline(struct hrana_reader *from, struct hrana_body *out)
{
    struct reading r;
    struct spot top;
    void *to;
    *out = (struct hrana_body){0};
    TRY(open_top(from, &r, &top));
    struct spot baton = spot_get(&top, "baton"), requests = spot_get(&top, "requests");
    TRY(spot_maybe_text(&baton, &out->baton));
    TRY(spot_need(&requests, JSON_ARRAY, "an array"));
    TRY(spot_array(&requests, r.arena, sizeof(struct hrana_request), &out->n_requests, &to));
    struct hrana_request *request = to;
    for (struct spot at = spot_first(&requests); at.v != NULL; spot_next(&at))
        TRY(get_request(&r, &at, false, &request[at.index]));
    out->requests = request;
    return ERR_OK;
}

enum err hrana_json_cursor(struct hrana_reader *from, struct hrana_body *out)
{
    struct reading r;
    struct spot top;
    struct hrana_request *request;
    TRY(open_single(from, HRANA_OPEN_CURSOR, &r, &top, out, &request));
    struct spot baton = spot_get(&top, "baton"), batch = spot_get(&top, "batch");
    TRY(spot_maybe_text(&baton, &out->baton));
    return get_batch(&r, &batch, &request->batch);
}

enum err hrana_json_v1_execute(struct hrana_reader *from, struct hrana_body *out)
{
    struct reading r;
    struct spot top;
    struct hrana_request *request;
    TRY(open_single(from, HRANA_EXECUTE, &r, &top, out, &request));
    struct spot stmt = spot_get(&top, "stmt");
    return get_stmt(&r, &stmt, &request->stmt);
}

enum err hrana_json_v1_batch(struct hrana_reader *from, struct hrana_body *out)
{
    struct reading r;
    struct spot top;
    struct hrana_request *request;
    TRY(open_single(from, HRANA_BATCH, &r, &top, out, &request));
    struct spot batch = spot_get(&top, "batch");
    return get_batch(&r, &batch, &request->batch);
}

/* Half of a surrogate pair somewhere in it (json_end) is the fault of its request alone. */
enum err hrana_json_message(struct hrana_reader *from, struct hrana_message *out)
{
    struct reading r;
    struct spot top, type;
    *out = (struct hrana_message){0};
    enum err e = open_top(from, &r, &top);
    if (e != ERR_OK && !json_is(top.v, JSON_OBJECT))
        return e;
    const char *refused = e == ERR_OK ? NULL : arena_copy(r.arena, err_text(), strlen(err_text()));
    if (e != ERR_OK && refused == NULL)
        return hrana_no_room(r.arena);
    TRY(spot_type(&top, &type));
    struct spot jwt = spot_get(&top, "jwt"), id = spot_get(&top, "request_id"),
                request = spot_get(&top, "request");
    if (spot_is_word(&type, "hello")) {
        out->type = HRANA_HELLO;
        return spot_maybe_text(&jwt, &out->jwt); /* nobody reads it */
    }
    if (!spot_is_word(&type, "request"))
        return spot_unknown(&type, "type of a message");
    out->type = HRANA_REQUEST;
    TRY(spot_int32(&id, &out->request_id));
    out->refused = refused;
    return refused != NULL ? ERR_OK : get_request(&r, &request, true, &out->request);
}
