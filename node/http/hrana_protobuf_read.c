/* Room: node/http.   Thread: any, one at a time.   Owns: what came so far, in the reader's arena.
 * Invariants: what is handed out is whole: counts fit their arrays, a condition names steps before
 * its own and nests no deeper than messages do (PROTOBUF_DEPTH_MAX), which bounds the recursion
 * here. Texts and blobs lie where they came.
 * Not here: fields and their wire types (protobuf_read.c); what is wrong with one statement alone
 * (hrana_stream.c).
 *
 * The schema is hrana.ws, hrana.http and hrana of the specification of Hrana 3, as proto3: a number
 * or a text that is not `optional` there and does not come is 0 or "". replication_index is not in
 * it; its tags are those of libSQL's server (libsql-hrana/src/proto.rs). */
#include "node/http/hrana_protobuf.h"

#include "base/check.h"
#include "base/mem.h"
#include "node/http/protobuf_read.h"

#include <stdlib.h>
#include <string.h>

/* --- bytes, as they come --- */

#define PIECE_MIN 16384u /* the first is as long as what came with it: mostly that is all */

struct piece {
    struct piece *next;
    size_t n, room;
    uint8_t bytes[];
};

struct pieces {
    struct arena *arena;
    struct piece *first, *last;
    size_t n;
    uint32_t work; /* looks at fields that are left */
};

void *hrana_protobuf_reader_new(struct arena *arena)
{
    struct pieces *all = MEM_NEW(struct pieces);
    all->arena = arena;
    all->work = PROTOBUF_WORK_MAX;
    return all;
}

void hrana_protobuf_reader_free(void *state)
{
    free(state);
}

static enum err add_piece(struct pieces *all, size_t n)
{
    size_t room = all->first == NULL || n > PIECE_MIN ? n : PIECE_MIN;
    struct piece *p = arena_take(all->arena, sizeof *p + room);
    if (p == NULL)
        return hrana_no_room(all->arena);
    *p = (struct piece){.room = room};
    if (all->first == NULL)
        all->first = p;
    else
        all->last->next = p;
    all->last = p;
    return ERR_OK;
}

enum err hrana_protobuf_feed(void *state, const void *p, size_t n)
{
    struct pieces *all = state;
    const uint8_t *from = p;
    while (n > 0) {
        if (all->last == NULL || all->last->n == all->last->room)
            TRY(add_piece(all, n));
        struct piece *to = all->last;
        size_t some = to->room - to->n < n ? to->room - to->n : n;
        memcpy(to->bytes + to->n, from, some);
        to->n += some;
        all->n += some;
        from += some;
        n -= some;
    }
    return ERR_OK;
}

/* The message is complete: it lies in one piece. */
static enum err open_top(struct hrana_reader *r, struct protobuf *top)
{
    struct pieces *all = r->state;
    CHECK(r->form == &hrana_protobuf);
    if (all->first == all->last) {
        *top = protobuf_of(all->n > 0 ? all->first->bytes : NULL, all->n, &all->work);
        return ERR_OK;
    }
    uint8_t *bytes = arena_take(r->arena, all->n), *to = bytes;
    if (bytes == NULL)
        return hrana_no_room(r->arena);
    for (const struct piece *p = all->first; p != NULL; p = p->next) {
        memcpy(to, p->bytes, p->n);
        to += p->n;
    }
    *top = protobuf_of(bytes, all->n, &all->work);
    return ERR_OK;
}

/* --- values --- */

/* *N zeroed things of SIZE bytes each at *OUT, one for each field TAG that is to come. */
static enum err new_array(struct arena *arena, const struct protobuf *m, uint32_t tag, size_t size,
                          uint32_t *n, void **out)
{
    *n = protobuf_count(m, tag);
    *out = arena_zeroed(arena, size * *n);
    return *out == NULL ? hrana_no_room(arena) : ERR_OK;
}

static enum err get_bytes(struct protobuf *m, bool text, struct wire_value *out)
{
    struct hrana_text t;
    TRY(text ? protobuf_text(m, "text", &t) : protobuf_bytes(m, "blob", &t));
    CHECK(t.n <= UINT32_MAX); /* so are Protobuf's lengths */
    out->type = text ? WIRE_TEXT : WIRE_BLOB;
    out->text.bytes = t.p;
    out->text.len = (uint32_t)t.n;
    return ERR_OK;
}

static enum err get_value(struct protobuf *m, struct wire_value *out)
{
    struct hrana_text nothing;
    bool has = false;
    while (protobuf_next(m)) {
        switch (m->tag) {
        case 1:
            TRY(protobuf_bytes(m, "null", &nothing));
            out->type = WIRE_NULL;
            break;
        case 2:
            TRY(protobuf_sint64(m, "integer", &out->integer));
            out->type = WIRE_INTEGER;
            break;
        case 3:
            TRY(protobuf_double(m, "float", &out->real));
            out->type = WIRE_FLOAT;
            break;
        case 4:
        case 5:
            TRY(get_bytes(m, m->tag == 4, out));
            break;
        default:
            continue;
        }
        has = true;
    }
    TRY(m->status);
    return has ? ERR_OK : protobuf_fail(m, NULL, "holds no type of a value that is known here");
}

/* --- statements --- */

static enum err get_arg(struct protobuf *stmt, uint32_t index, struct hrana_arg *out)
{
    struct protobuf value;
    TRY(protobuf_item(stmt, "args", index, &value));
    return get_value(&value, &out->value);
}

static enum err get_named_arg(struct protobuf *stmt, uint32_t index, struct hrana_arg *out)
{
    struct protobuf m, value;
    TRY(protobuf_item(stmt, "named_args", index, &m));
    out->name = (struct hrana_text){.p = ""};
    while (protobuf_next(&m)) {
        if (m.tag == 1) {
            TRY(protobuf_text(&m, "name", &out->name));
        } else if (m.tag == 2) {
            TRY(protobuf_message(&m, "value", &value));
            TRY(get_value(&value, &out->value));
        }
    }
    TRY(m.status);
    return m.seen != 0 ? ERR_OK : protobuf_fail(&m, "value", "is missing");
}

/* The newest of those that a request names. */
static enum err get_replication_index(struct protobuf *m, uint64_t *out)
{
    uint64_t v;
    TRY(protobuf_uint64(m, "replication_index", &v));
    if (v > *out)
        *out = v;
    return ERR_OK;
}

static enum err get_sql_id(struct protobuf *m, struct hrana_stmt *out)
{
    out->by_id = true;
    return protobuf_int32(m, "sql_id", &out->sql_id);
}

static enum err check_sql(const struct protobuf *m, const struct hrana_stmt *stmt)
{
    if (stmt->sql.p != NULL && stmt->by_id)
        return protobuf_fail(m, NULL, "has both sql and sql_id, and may have one of them");
    if (stmt->sql.p == NULL && !stmt->by_id)
        return protobuf_fail(m, NULL, "has neither sql nor sql_id");
    return ERR_OK;
}

/* Both kinds, of which one is in use: M is looked at once for both. */
static enum err new_args(struct arena *arena, const struct protobuf *m, struct hrana_stmt *out,
                         struct hrana_arg **args, struct hrana_arg **named)
{
    struct protobuf ahead = *m;
    while (protobuf_next(&ahead)) {
        out->n_args += ahead.tag == 3;
        out->n_named_args += ahead.tag == 4;
    }
    out->args = *args = arena_zeroed(arena, sizeof **args * out->n_args);
    out->named_args = *named = arena_zeroed(arena, sizeof **named * out->n_named_args);
    return arena->failed ? hrana_no_room(arena) : ERR_OK;
}

static enum err get_stmt(struct arena *arena, struct protobuf *m, struct hrana_stmt *out)
{
    uint32_t n_args = 0, n_named = 0;
    struct hrana_arg *args, *named;
    TRY(new_args(arena, m, out, &args, &named));
    out->want_rows = true;
    while (protobuf_next(m)) {
        switch (m->tag) {
        case 1:
            TRY(protobuf_text(m, "sql", &out->sql));
            break;
        case 2:
            TRY(get_sql_id(m, out));
            break;
        case 3:
            TRY(get_arg(m, n_args, &args[n_args]));
            n_args++;
            break;
        case 4:
            TRY(get_named_arg(m, n_named, &named[n_named]));
            n_named++;
            break;
        case 5:
            TRY(protobuf_bool(m, "want_rows", &out->want_rows));
            break;
        case 6:
            TRY(get_replication_index(m, &out->replication_index));
            break;
        default:
            break;
        }
    }
    TRY(m->status);
    CHECK(n_args == out->n_args && n_named == out->n_named_args);
    return check_sql(m, out);
}

/* --- batches --- */

static enum err get_condition(struct arena *arena, struct protobuf *m, uint32_t own,
                              const struct hrana_cond **out);

static enum err get_step_number(struct protobuf *m, const char *name, uint32_t own, uint32_t *out)
{
    TRY(protobuf_uint32(m, name, out));
    return *out < own ? ERR_OK
                      : protobuf_fail(m, name, "must be that of a step before this one, %u", own);
}

static enum err get_not(struct arena *arena, struct protobuf *m, uint32_t own, struct hrana_cond *c)
{
    struct protobuf part;
    const struct hrana_cond **parts = arena_zeroed(arena, sizeof *parts);
    if (parts == NULL)
        return hrana_no_room(arena);
    TRY(protobuf_message(m, "not", &part));
    c->n_parts = 1;
    c->parts = parts;
    return get_condition(arena, &part, own, parts);
}

static enum err get_parts(struct arena *arena, struct protobuf *m, const char *name, uint32_t own,
                          struct hrana_cond *c)
{
    struct protobuf list, part;
    uint32_t i = 0;
    void *to;
    TRY(protobuf_message(m, name, &list));
    TRY(new_array(arena, &list, 1, sizeof(struct hrana_cond *), &c->n_parts, &to));
    const struct hrana_cond **parts = to;
    c->parts = parts;
    while (protobuf_next(&list)) {
        if (list.tag != 1)
            continue;
        TRY(protobuf_item(&list, "conds", i, &part));
        TRY(get_condition(arena, &part, own, &parts[i]));
        i++;
    }
    return list.status;
}

static enum err get_condition(struct arena *arena, struct protobuf *m, uint32_t own,
                              const struct hrana_cond **out)
{
    static const enum hrana_cond_type types[] = {
        [1] = HRANA_OK,  [2] = HRANA_ERROR, [3] = HRANA_NOT,
        [4] = HRANA_AND, [5] = HRANA_OR,    [6] = HRANA_IS_AUTOCOMMIT};
    struct hrana_text nothing;
    bool has = false;
    struct hrana_cond *c = arena_zeroed(arena, sizeof *c);
    if (c == NULL)
        return hrana_no_room(arena);
    *out = c;
    while (protobuf_next(m)) {
        if (m->tag >= sizeof types / sizeof types[0])
            continue;
        *c = (struct hrana_cond){.type = types[m->tag]};
        has = true;
        switch (m->tag) {
        case 1:
        case 2:
            TRY(get_step_number(m, m->tag == 1 ? "step_ok" : "step_error", own, &c->step));
            break;
        case 3:
            TRY(get_not(arena, m, own, c));
            break;
        case 4:
        case 5:
            TRY(get_parts(arena, m, m->tag == 4 ? "and" : "or", own, c));
            break;
        default:
            TRY(protobuf_bytes(m, "is_autocommit", &nothing));
            break;
        }
    }
    TRY(m->status);
    return has ? ERR_OK : protobuf_fail(m, NULL, "holds no type of a condition that is known here");
}

static enum err get_step(struct arena *arena, struct protobuf *m, uint32_t own,
                         struct hrana_step *out)
{
    struct protobuf part;
    bool has = false;
    while (protobuf_next(m)) {
        if (m->tag == 1) {
            TRY(protobuf_message(m, "condition", &part));
            TRY(get_condition(arena, &part, own, &out->condition));
        } else if (m->tag == 2) {
            TRY(protobuf_message(m, "stmt", &part));
            TRY(get_stmt(arena, &part, &out->stmt));
            has = true;
        }
    }
    TRY(m->status);
    return has ? ERR_OK : protobuf_fail(m, "stmt", "is missing");
}

static enum err get_batch(struct arena *arena, struct protobuf *m, struct hrana_batch *out)
{
    struct protobuf step;
    uint32_t i = 0, n = protobuf_count(m, 1);
    if (n > HRANA_STEPS_MAX) {
        (void)protobuf_fail(m, "steps", "has %u steps, and may have %u", n, HRANA_STEPS_MAX);
        return ERR_TOO_BIG;
    }
    struct hrana_step *steps = arena_zeroed(arena, sizeof *steps * n);
    if (steps == NULL)
        return hrana_no_room(arena);
    out->n_steps = n;
    out->steps = steps;
    while (protobuf_next(m)) {
        if (m->tag == 1) {
            TRY(protobuf_item(m, "steps", i, &step));
            TRY(get_step(arena, &step, i, &steps[i]));
            i++;
        } else if (m->tag == 2) {
            TRY(get_replication_index(m, &out->replication_index));
        }
    }
    return m->status;
}

/* --- requests --- */

/* What a request is made of. */
enum part {
    NOTHING,
    STREAM_ID,
    CURSOR_ID,
    STMT,
    BATCH,
    SQL,
    SQL_ID,
    STORED_ID,
    STORED_SQL,
    MAX_COUNT,
    INDEX,
};

/* A request over HTTP and the same over a WebSocket differ in stream_id alone, which is first. */
static const struct kind {
    const char *name;
    enum hrana_type type;
    uint8_t http, websocket; /* its tag in StreamRequest and in RequestMsg; 0: it is not there */
    uint8_t parts[4];        /* enum part: of tags 1 to 4 over a WebSocket */
} kinds[] = {
    {"close", HRANA_CLOSE, 1, 0, {NOTHING}},
    {"execute", HRANA_EXECUTE, 2, 4, {STREAM_ID, STMT, INDEX}},
    {"batch", HRANA_BATCH, 3, 5, {STREAM_ID, BATCH}},
    {"sequence", HRANA_SEQUENCE, 4, 9, {STREAM_ID, SQL, SQL_ID, INDEX}},
    {"describe", HRANA_DESCRIBE, 5, 10, {STREAM_ID, SQL, SQL_ID, INDEX}},
    {"store_sql", HRANA_STORE_SQL, 6, 11, {STORED_ID, STORED_SQL}},
    {"close_sql", HRANA_CLOSE_SQL, 7, 12, {STORED_ID}},
    {"get_autocommit", HRANA_GET_AUTOCOMMIT, 8, 13, {STREAM_ID}},
    {"open_stream", HRANA_OPEN_STREAM, 0, 2, {STREAM_ID}},
    {"close_stream", HRANA_CLOSE_STREAM, 0, 3, {STREAM_ID}},
    {"open_cursor", HRANA_OPEN_CURSOR, 0, 6, {STREAM_ID, CURSOR_ID, BATCH}},
    {"close_cursor", HRANA_CLOSE_CURSOR, 0, 7, {CURSOR_ID}},
    {"fetch_cursor", HRANA_FETCH_CURSOR, 0, 8, {CURSOR_ID, MAX_COUNT}},
};

/* TAG is not 0. */
static const struct kind *kind_of(uint32_t tag, bool websocket)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (tag == (websocket ? kinds[i].websocket : kinds[i].http))
            return &kinds[i];
    return NULL;
}

static enum part part_of(const struct kind *k, uint32_t tag, bool websocket)
{
    size_t at = tag - 1 + (!websocket && k->parts[0] == STREAM_ID);
    return at < sizeof k->parts ? (enum part)k->parts[at] : NOTHING;
}

static enum err get_part(struct arena *arena, struct protobuf *m, enum part part,
                         struct hrana_request *out)
{
    struct protobuf inner;
    switch (part) {
    case NOTHING:
        return ERR_OK;
    case STREAM_ID:
        return protobuf_int32(m, "stream_id", &out->stream_id);
    case CURSOR_ID:
        return protobuf_int32(m, "cursor_id", &out->cursor_id);
    case STMT:
        TRY(protobuf_message(m, "stmt", &inner));
        return get_stmt(arena, &inner, &out->stmt);
    case BATCH:
        TRY(protobuf_message(m, "batch", &inner));
        return get_batch(arena, &inner, &out->batch);
    case SQL:
    case STORED_SQL:
        return protobuf_text(m, "sql", &out->stmt.sql);
    case SQL_ID:
        return get_sql_id(m, &out->stmt);
    case STORED_ID:
        return protobuf_int32(m, "sql_id", &out->sql_id);
    case MAX_COUNT:
        return protobuf_uint32(m, "max_count", &out->max_count);
    case INDEX:
        return get_replication_index(m, &out->stmt.replication_index);
    }
    UNREACHABLE("all parts are above");
}

/* M has no more fields: is there what must be? */
static enum err check_request(const struct protobuf *m, const struct hrana_request *q)
{
    switch ((int)q->type) {
    case HRANA_EXECUTE:
        return m->seen != 0 ? ERR_OK : protobuf_fail(m, "stmt", "is missing");
    case HRANA_BATCH:
    case HRANA_OPEN_CURSOR:
        return m->seen != 0 ? ERR_OK : protobuf_fail(m, "batch", "is missing");
    case HRANA_SEQUENCE:
    case HRANA_DESCRIBE:
        return check_sql(m, &q->stmt);
    default:
        return ERR_OK;
    }
}

static enum err get_kind(struct arena *arena, struct protobuf *m, const struct kind *k,
                         bool websocket, struct hrana_request *out)
{
    *out = (struct hrana_request){.type = k->type};
    if (k->type == HRANA_STORE_SQL)
        out->stmt.sql.p = "";
    while (protobuf_next(m))
        TRY(get_part(arena, m, part_of(k, m->tag, websocket), out));
    TRY(m->status);
    return check_request(m, out);
}

/* StreamRequest, or RequestMsg with its *REQUEST_ID; NULL: it is the former. */
static enum err get_request(struct arena *arena, struct protobuf *m, int32_t *request_id,
                            struct hrana_request *out)
{
    bool websocket = request_id != NULL;
    struct protobuf inner;
    while (protobuf_next(m)) {
        const struct kind *k = kind_of(m->tag, websocket);
        if (websocket && m->tag == 1) {
            TRY(protobuf_int32(m, "request_id", request_id));
        } else if (k != NULL) {
            TRY(protobuf_message(m, k->name, &inner));
            TRY(get_kind(arena, &inner, k, websocket, out));
        }
    }
    TRY(m->status);
    return m->seen != 0 ? ERR_OK
                        : protobuf_fail(m, NULL, "holds no type of a request that is known here");
}

/* --- bodies and messages --- */

enum err hrana_protobuf_pipeline(struct hrana_reader *r, struct hrana_body *out)
{
    struct protobuf top, request;
    uint32_t i = 0;
    void *to;
    *out = (struct hrana_body){0};
    TRY(open_top(r, &top));
    TRY(new_array(r->arena, &top, 2, sizeof(struct hrana_request), &out->n_requests, &to));
    struct hrana_request *requests = to;
    out->requests = requests;
    while (protobuf_next(&top)) {
        if (top.tag == 1) {
            TRY(protobuf_text(&top, "baton", &out->baton));
        } else if (top.tag == 2) {
            TRY(protobuf_item(&top, "requests", i, &request));
            TRY(get_request(r->arena, &request, NULL, &requests[i]));
            i++;
        }
    }
    return top.status;
}

enum err hrana_protobuf_cursor(struct hrana_reader *r, struct hrana_body *out)
{
    struct protobuf top, batch;
    *out = (struct hrana_body){.n_requests = 1};
    TRY(open_top(r, &top));
    struct hrana_request *request = arena_zeroed(r->arena, sizeof *request);
    if (request == NULL)
        return hrana_no_room(r->arena);
    request->type = HRANA_OPEN_CURSOR;
    out->requests = request;
    while (protobuf_next(&top)) {
        if (top.tag == 1) {
            TRY(protobuf_text(&top, "baton", &out->baton));
        } else if (top.tag == 2) {
            TRY(protobuf_message(&top, "batch", &batch));
            TRY(get_batch(r->arena, &batch, &request->batch));
        }
    }
    TRY(top.status);
    return top.seen != 0 ? ERR_OK : protobuf_fail(&top, "batch", "is missing");
}

static enum err get_hello(struct protobuf *m, struct hrana_text *jwt)
{
    while (protobuf_next(m))
        if (m->tag == 1)
            TRY(protobuf_text(m, "jwt", jwt));
    return m->status;
}

enum err hrana_protobuf_message(struct hrana_reader *r, struct hrana_message *out)
{
    struct protobuf top, inner;
    *out = (struct hrana_message){0};
    TRY(open_top(r, &top));
    while (protobuf_next(&top)) {
        if (top.tag == 1) {
            TRY(protobuf_message(&top, "hello", &inner));
            out->type = HRANA_HELLO;
            TRY(get_hello(&inner, &out->jwt));
        } else if (top.tag == 2) {
            TRY(protobuf_message(&top, "request", &inner));
            out->type = HRANA_REQUEST;
            TRY(get_request(r->arena, &inner, &out->request_id, &out->request));
        }
    }
    TRY(top.status);
    return top.seen != 0
               ? ERR_OK
               : protobuf_fail(&top, NULL, "holds no type of a message that is known here");
}
