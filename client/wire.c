/* Room: client.   Thread: any.   Owns: nothing; values and frames borrow from the caller's bytes.
 *
 * Invariants: no getter reads outside the frame that wire_next measured; what a getter returned is
 * whole and of a known type; a frame with bytes left over is refused, so that both sides agree on
 * where everything lies; a frame above WIRE_FRAME_MAX is never written.
 *
 * Not here: sockets (connection.c, the server's listener), and what a message means. */
#include "client/wire.h"

#include "base/check.h"
#include "base/sizes.h"

#include <string.h>

#define HEAD_AFTER_LENGTH (WIRE_HEAD_BYTES - WIRE_LENGTH_BYTES)

static const struct wire_id THE_CONNECTION = {0};

/* --- writing ---------------------------------------------------------------------------------- */

size_t wire_begin(struct buf *b, enum wire_type type, struct wire_id id)
{
    size_t begun = b->len;
    buf_put_u32(b, 0); /* the length: wire_end knows it */
    buf_put_u8(b, (uint8_t)type);
    buf_put_u32(b, id.stream);
    buf_put_u32(b, id.request);
    return begun;
}

void wire_end(struct buf *b, size_t begun)
{
    if (b->failed != ERR_OK) { /* the frames before this one are whole */
        b->len = begun < b->len ? begun : b->len;
        return;
    }
    CHECK(begun + WIRE_HEAD_BYTES <= b->len);
    size_t length = b->len - begun - WIRE_LENGTH_BYTES;
    if (length > WIRE_FRAME_MAX) {
        b->len = begun;
        b->failed = ERR_TOO_BIG;
        return;
    }
    buf_patch_u32(b, begun, (uint32_t)length);
}

void wire_put_hello(struct buf *b, const char *client, const char *database)
{
    size_t begun = wire_begin(b, WIRE_HELLO, THE_CONNECTION);
    buf_put_u32(b, WIRE_MAGIC);
    buf_put_u16(b, WIRE_VERSION);
    buf_put_cstr(b, client);
    buf_put_cstr(b, database);
    wire_end(b, begun);
}

void wire_put_welcome(struct buf *b, const struct wire_welcome *w)
{
    size_t begun = wire_begin(b, WIRE_WELCOME, THE_CONNECTION);
    buf_put_u16(b, w->version);
    buf_put_u64(b, w->node_id);
    buf_put_u64(b, w->cluster_id);
    buf_put_u64(b, w->seq);
    buf_put_str(b, w->server, w->server_len);
    buf_put_str(b, w->sqlite, w->sqlite_len);
    wire_end(b, begun);
}

size_t wire_begin_query(struct buf *b, enum wire_type type, struct wire_id id,
                        const struct wire_query *q)
{
    size_t begun = wire_begin(b, type, id);
    buf_put_u8(b, (uint8_t)q->level);
    buf_put_u16(b, q->flags);
    buf_put_u32(b, q->bound_ms);
    buf_put_u32(b, q->timeout_ms);
    buf_put_u64(b, q->min_seq);
    buf_put_u64(b, (uint64_t)q->last_insert_rowid);
    if ((q->flags & WIRE_NUMBERED) != 0) {
        buf_put(b, q->number.writer, WIRE_WRITER_BYTES);
        buf_put_u64(b, q->number.number);
        buf_put_u64(b, q->number.acked);
        buf_put_u64(b, q->number.since);
    }
    buf_put_u32(b, 0); /* the number of statements: wire_end_query knows it */
    return begun;
}

/* Where the number of statements lies behind the beginning of a frame. */
static size_t count_offset(const struct buf *b, size_t begun)
{
    uint16_t flags = get_le16(b->data + begun + WIRE_HEAD_BYTES + 1);
    size_t numbered = (flags & WIRE_NUMBERED) != 0 ? WIRE_WRITER_BYTES + 3 * 8 : 0;
    return begun + WIRE_HEAD_BYTES + 1 + 2 + 4 + 4 + 8 + 8 + numbered;
}

size_t wire_begin_statement(struct buf *b, uint32_t keep, const char *sql, size_t sql_len)
{
    buf_put_u32(b, keep);
    buf_put_str(b, sql, sql_len);
    size_t begun = b->len;
    buf_put_u32(b, 0); /* the number of parameters: wire_end_statement knows it */
    return begun;
}

void wire_put_param(struct buf *b, const char *name, const struct wire_value *v)
{
    buf_put_cstr(b, name == NULL ? "" : name);
    wire_put_value(b, v);
}

void wire_end_statement(struct buf *b, size_t begun, uint32_t n_params)
{
    if (b->failed == ERR_OK)
        buf_patch_u32(b, begun, n_params);
}

void wire_end_query(struct buf *b, size_t begun, uint32_t n_statements)
{
    if (b->failed == ERR_OK)
        buf_patch_u32(b, count_offset(b, begun), n_statements);
    wire_end(b, begun);
}

static void put_bare(struct buf *b, enum wire_type type, struct wire_id id)
{
    wire_end(b, wire_begin(b, type, id));
}

static void put_number(struct buf *b, enum wire_type type, struct wire_id id, uint32_t number)
{
    size_t begun = wire_begin(b, type, id);
    buf_put_u32(b, number);
    wire_end(b, begun);
}

void wire_put_status(struct buf *b, struct wire_id id)
{
    put_bare(b, WIRE_STATUS, id);
}

void wire_put_cancel(struct buf *b, struct wire_id id)
{
    put_bare(b, WIRE_CANCEL, id);
}

void wire_put_credit(struct buf *b, uint32_t stream, uint32_t bytes)
{
    put_number(b, WIRE_CREDIT, (struct wire_id){.stream = stream}, bytes);
}

void wire_put_close(struct buf *b, uint32_t stream)
{
    put_bare(b, WIRE_CLOSE, (struct wire_id){.stream = stream});
}

void wire_put_forget(struct buf *b, uint32_t keep)
{
    put_number(b, WIRE_FORGET, THE_CONNECTION, keep);
}

void wire_put_ping(struct buf *b, uint32_t request)
{
    put_bare(b, WIRE_PING, (struct wire_id){.request = request});
}

void wire_put_pong(struct buf *b, uint32_t request, const struct wire_pong *p)
{
    size_t begun = wire_begin(b, WIRE_PONG, (struct wire_id){.request = request});
    buf_put_u64(b, p->seq);
    buf_put_u64(b, p->leader_id);
    buf_put_u8(b, p->serves);
    wire_end(b, begun);
}

void wire_put_step(struct buf *b, struct wire_id id, const struct wire_step *s)
{
    size_t begun = wire_begin(b, WIRE_STEP, id);
    buf_put_u64(b, (uint64_t)s->changes);
    buf_put_u64(b, (uint64_t)s->last_insert_rowid);
    wire_end(b, begun);
}

void wire_put_description(struct buf *b, struct wire_id id, const struct wire_description *d)
{
    size_t begun = wire_begin(b, WIRE_DESCRIPTION, id);
    buf_put_u32(b, d->used);
    buf_put_u8(b, d->flags);
    buf_put_u32(b, d->n_params);
    buf_put(b, d->params.p, rd_left(&d->params));
    buf_put_u32(b, d->n_columns);
    buf_put(b, d->columns.p, rd_left(&d->columns));
    wire_end(b, begun);
}

void wire_put_done(struct buf *b, struct wire_id id, const struct wire_done *d)
{
    size_t begun = wire_begin(b, WIRE_DONE, id);
    buf_put_u64(b, d->seq);
    buf_put_u64(b, (uint64_t)d->changes);
    buf_put_u64(b, (uint64_t)d->last_insert_rowid);
    buf_put_u8(b, d->flags);
    wire_end(b, begun);
}

void wire_put_error(struct buf *b, struct wire_id id, const struct wire_error *e)
{
    size_t begun = wire_begin(b, WIRE_ERROR, id);
    buf_put_u32(b, (uint32_t)e->code);
    buf_put_u32(b, (uint32_t)e->sqlite_code);
    buf_put_u32(b, (uint32_t)e->offset);
    buf_put_u64(b, e->seq);
    buf_put_u8(b, e->flags);
    buf_put_u32(b, e->statement);
    buf_put_str(b, e->message, e->message_len);
    wire_end(b, begun);
}

void wire_put_error_v1(struct buf *b, const struct wire_error *e)
{
    size_t begun = b->len;
    buf_put_u32(b, 0);
    buf_put_u8(b, WIRE_ERROR);
    buf_put_u32(b, 0); /* the request; version 1 has no streams */
    buf_put_u32(b, (uint32_t)e->code);
    buf_put_u32(b, (uint32_t)e->sqlite_code);
    buf_put_u32(b, (uint32_t)e->offset);
    buf_put_u64(b, e->seq);
    buf_put_u8(b, e->flags);
    buf_put_str(b, e->message, e->message_len);
    wire_end(b, begun);
}

void wire_put_value(struct buf *b, const struct wire_value *v)
{
    buf_put_u8(b, (uint8_t)v->type);
    switch (v->type) {
    case WIRE_NULL:
        return;
    case WIRE_INTEGER:
        buf_put_u64(b, (uint64_t)v->integer);
        return;
    case WIRE_FLOAT:
        buf_put_f64(b, v->real);
        return;
    case WIRE_TEXT:
    case WIRE_BLOB:
        buf_put_str(b, v->text.bytes, v->text.len);
        return;
    }
    UNREACHABLE("a value of an unknown type");
}

void wire_put_columns(struct buf *b, struct wire_id id, const char *const *names, uint32_t n)
{
    size_t begun = wire_begin(b, WIRE_COLUMNS, id);
    buf_put_u32(b, n);
    for (uint32_t i = 0; i < n; i++) {
        buf_put_cstr(b, names[i]);
        buf_put_cstr(b, "");
    }
    wire_end(b, begun);
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool known_type(uint8_t type)
{
    return (type >= WIRE_HELLO && type <= WIRE_PING) ||
           (type >= WIRE_IMAGE_BEGIN && type <= WIRE_IMAGE_ASK_PAGES) ||
           (type >= WIRE_WELCOME && type <= WIRE_PONG) ||
           (type >= WIRE_IMAGE && type <= WIRE_IMAGE_PAGES);
}

/* Stream 0 is the connection's own; only an ERROR may be about either. */
static bool on_its_stream(const struct wire_frame *f)
{
    bool connections = f->type == WIRE_HELLO || f->type == WIRE_WELCOME || f->type == WIRE_PING ||
                       f->type == WIRE_PONG || f->type == WIRE_FORGET;
    return f->type == WIRE_ERROR || connections == (f->id.stream == 0);
}

enum err wire_next(const uint8_t *p, size_t n, size_t max, struct wire_frame *f, size_t *used)
{
    *used = 0;
    if (n < WIRE_LENGTH_BYTES)
        return ERR_OK;
    size_t length = get_le32(p);
    if (length > max)
        return err_fail(ERR_TOO_BIG, "a frame of %zu bytes, the limit is %zu", length, max);
    if (length < HEAD_AFTER_LENGTH)
        return err_fail(ERR_PROTOCOL, "a frame of %zu bytes has no room for its head", length);
    /* The type is judged as soon as it is there: garbage need not arrive in full. */
    if (n > WIRE_LENGTH_BYTES && !known_type(p[WIRE_LENGTH_BYTES]))
        return err_fail(ERR_PROTOCOL, "a frame of unknown type %u", p[WIRE_LENGTH_BYTES]);
    if (n - WIRE_LENGTH_BYTES < length)
        return ERR_OK;
    f->type = (enum wire_type)p[WIRE_LENGTH_BYTES];
    f->id.stream = get_le32(p + WIRE_LENGTH_BYTES + 1);
    f->id.request = get_le32(p + WIRE_LENGTH_BYTES + 5);
    f->body = rd_of(p + WIRE_HEAD_BYTES, length - HEAD_AFTER_LENGTH);
    if (!on_its_stream(f))
        return err_fail(ERR_PROTOCOL, "a frame of type %d on stream %u", (int)f->type,
                        f->id.stream);
    *used = WIRE_LENGTH_BYTES + length;
    return ERR_OK;
}

/* A body was read: nothing may be missing, and nothing may be left. */
static enum err whole(const struct rd *r, const char *what)
{
    if (r->failed)
        return err_fail(ERR_PROTOCOL, "a %s that ends too early", what);
    if (rd_left(r) != 0)
        return err_fail(ERR_PROTOCOL, "a %s with %zu bytes too many", what, rd_left(r));
    return ERR_OK;
}

enum err wire_get_hello(struct wire_frame *f, struct wire_hello *h)
{
    struct rd *r = &f->body;
    *h = (struct wire_hello){0};
    /* Version 1 had no stream in its head: its magic lies where our number of the request is. */
    bool v1 = f->id.request == WIRE_MAGIC;
    h->magic = v1 ? WIRE_MAGIC : rd_u32(r);
    h->version = rd_u16(r);
    if (r->failed || h->magic != WIRE_MAGIC || v1 != (h->version == 1)) {
        h->version = 0;
        return err_fail(ERR_PROTOCOL, "not a HELLO of Lectern's native protocol");
    }
    if (h->version != WIRE_VERSION) /* what follows may look different there */
        return err_fail(ERR_VERSION, "the client speaks version %u of the protocol, we speak %u",
                        h->version, WIRE_VERSION);
    h->client = rd_str(r, &h->client_len);
    h->database = rd_str(r, &h->database_len);
    return whole(r, "HELLO");
}

enum err wire_get_welcome(struct wire_frame *f, struct wire_welcome *w)
{
    struct rd *r = &f->body;
    *w = (struct wire_welcome){0};
    w->version = rd_u16(r);
    if (!r->failed && w->version != WIRE_VERSION)
        return err_fail(ERR_VERSION, "the server speaks version %u of the protocol, we speak %u",
                        w->version, WIRE_VERSION);
    w->node_id = rd_u64(r);
    w->cluster_id = rd_u64(r);
    w->seq = rd_u64(r);
    w->server = rd_str(r, &w->server_len);
    w->sqlite = rd_str(r, &w->sqlite_len);
    return whole(r, "WELCOME");
}

/* All of them, so that nobody after us meets bad bytes. What is over a limit ends the check: the
 * request fails whatever stands behind, and where the frame ends is known. */
static enum err check_statements(struct rd r, uint32_t n)
{
    if (n > BATCH_STATEMENTS_MAX)
        return err_fail(ERR_TOO_BIG, "a batch of %u statements, the limit is %u", n,
                        BATCH_STATEMENTS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        struct wire_statement s;
        TRY(wire_get_statement(&r, &s));
        if (s.sql_len > SQL_TEXT_MAX)
            return err_fail(ERR_TOO_BIG, "a statement of %zu bytes, the limit is %llu", s.sql_len,
                            SQL_TEXT_MAX);
        if (s.n_params > SQL_PARAMS_MAX)
            return err_fail(ERR_TOO_BIG, "a statement with %u parameters, the limit is %u",
                            s.n_params, SQL_PARAMS_MAX);
    }
    return whole(&r, "request");
}

static void get_number(struct rd *r, struct wire_number *n)
{
    const uint8_t *writer = rd_bytes(r, WIRE_WRITER_BYTES);
    if (writer != NULL)
        memcpy(n->writer, writer, WIRE_WRITER_BYTES);
    n->number = rd_u64(r);
    n->acked = rd_u64(r);
    n->since = rd_u64(r);
}

static enum err check_flags(const struct wire_query *q, enum wire_type type)
{
    const uint16_t known =
        WIRE_FORWARDED | WIRE_FOREIGN_KEYS_OFF | WIRE_NUMBERED | WIRE_RESOLVE | WIRE_AGAIN;
    bool again = (q->flags & WIRE_AGAIN) != 0;
    bool numbered = (q->flags & WIRE_NUMBERED) != 0;
    bool resolve = (q->flags & WIRE_RESOLVE) != 0;
    if ((q->flags & ~known) != 0)
        return err_fail(ERR_PROTOCOL, "a request with unknown flags 0x%x", q->flags);
    if ((numbered && type == WIRE_DESCRIBE) || (again && !numbered) ||
        (resolve && (!numbered || type != WIRE_QUERY)))
        return err_fail(ERR_PROTOCOL, "a request with flags 0x%x, which it cannot have", q->flags);
    if (numbered && q->number.acked >= q->number.number)
        return err_fail(ERR_PROTOCOL, "a request whose number is answered already");
    return ERR_OK;
}

enum err wire_get_query(struct wire_frame *f, struct wire_query *q)
{
    struct rd *r = &f->body;
    *q = (struct wire_query){0};
    uint8_t level = rd_u8(r);
    q->flags = rd_u16(r);
    q->bound_ms = rd_u32(r);
    q->timeout_ms = rd_u32(r);
    q->min_seq = rd_u64(r);
    q->last_insert_rowid = (int64_t)rd_u64(r);
    if ((q->flags & WIRE_NUMBERED) != 0)
        get_number(r, &q->number);
    q->n_statements = rd_u32(r);
    if (r->failed)
        return err_fail(ERR_PROTOCOL, "a request that ends too early");
    if (level > WIRE_STRONG)
        return err_fail(ERR_PROTOCOL, "a request of unknown read level %u", level);
    TRY(check_flags(q, f->type));
    q->level = (enum wire_level)level;
    if (q->n_statements == 0 || (f->type != WIRE_BATCH && q->n_statements != 1))
        return err_fail(ERR_PROTOCOL, "a request of %u statements", q->n_statements);
    q->statements = *r;
    return check_statements(*r, q->n_statements);
}

enum err wire_get_statement(struct rd *r, struct wire_statement *s)
{
    s->keep = rd_u32(r);
    s->sql = rd_str(r, &s->sql_len);
    s->n_params = rd_u32(r);
    s->params = *r;
    if (r->failed)
        return err_fail(ERR_PROTOCOL, "a statement that ends too early");
    for (uint32_t i = 0; i < s->n_params; i++) {
        const char *name;
        size_t name_len;
        struct wire_value v;
        TRY(wire_get_param(r, &name, &name_len, &v));
    }
    s->params.end = r->p;
    return ERR_OK;
}

enum err wire_get_param(struct rd *r, const char **name, size_t *name_len, struct wire_value *v)
{
    *name = rd_str(r, name_len);
    return wire_get_value(r, v);
}

enum err wire_get_value(struct rd *r, struct wire_value *v)
{
    size_t len;
    uint8_t type = rd_u8(r);
    *v = (struct wire_value){.type = WIRE_NULL};
    if (!r->failed && type > WIRE_BLOB) {
        r->failed = true;
        return err_fail(ERR_PROTOCOL, "a value of unknown type %u", type);
    }
    switch ((enum wire_value_type)type) {
    case WIRE_NULL:
        break;
    case WIRE_INTEGER:
        v->integer = (int64_t)rd_u64(r);
        break;
    case WIRE_FLOAT:
        v->real = rd_f64(r);
        break;
    case WIRE_TEXT:
    case WIRE_BLOB:
        v->text.bytes = rd_str(r, &len);
        v->text.len = (uint32_t)len; /* it came as u32 */
        break;
    }
    if (r->failed) {
        *v = (struct wire_value){.type = WIRE_NULL};
        return err_fail(ERR_PROTOCOL, "a value that ends too early");
    }
    v->type = (enum wire_value_type)type;
    return ERR_OK;
}

enum err wire_get_credit(struct wire_frame *f, uint32_t *bytes)
{
    *bytes = rd_u32(&f->body);
    return whole(&f->body, "CREDIT");
}

enum err wire_get_forget(struct wire_frame *f, uint32_t *keep)
{
    *keep = rd_u32(&f->body);
    return whole(&f->body, "FORGET");
}

enum err wire_get_nothing(struct wire_frame *f)
{
    return whole(&f->body, "frame without a body");
}

enum err wire_get_pong(struct wire_frame *f, struct wire_pong *p)
{
    p->seq = rd_u64(&f->body);
    p->leader_id = rd_u64(&f->body);
    p->serves = rd_u8(&f->body);
    return whole(&f->body, "PONG");
}

enum err wire_get_step(struct wire_frame *f, struct wire_step *s)
{
    s->changes = (int64_t)rd_u64(&f->body);
    s->last_insert_rowid = (int64_t)rd_u64(&f->body);
    return whole(&f->body, "STEP");
}

/* Takes N times EACH texts, and leaves their range in OUT. */
static void take_texts(struct rd *r, uint32_t n, unsigned each, struct rd *out)
{
    size_t len;
    *out = *r;
    for (uint64_t i = 0; i < (uint64_t)n * each && !r->failed; i++)
        (void)rd_str(r, &len);
    out->end = r->p;
}

enum err wire_get_description(struct wire_frame *f, struct wire_description *d)
{
    struct rd *r = &f->body;
    d->used = rd_u32(r);
    d->flags = rd_u8(r);
    d->n_params = rd_u32(r);
    take_texts(r, d->n_params, 1, &d->params);
    d->n_columns = rd_u32(r);
    take_texts(r, d->n_columns, 2, &d->columns);
    TRY(whole(r, "DESCRIPTION"));
    if (d->n_params > SQL_PARAMS_MAX || d->n_columns > SQL_COLUMNS_MAX)
        return err_fail(ERR_PROTOCOL, "a statement of %u parameters and %u columns", d->n_params,
                        d->n_columns);
    return ERR_OK;
}

enum err wire_get_columns(struct wire_frame *f, uint32_t *n, struct rd *columns)
{
    *n = rd_u32(&f->body);
    take_texts(&f->body, *n, 2, columns);
    TRY(whole(&f->body, "COLUMNS"));
    if (*n == 0 || *n > SQL_COLUMNS_MAX)
        return err_fail(ERR_PROTOCOL, "an answer of %u columns", *n);
    return ERR_OK;
}

enum err wire_get_rows(struct wire_frame *f, uint32_t n_columns, uint32_t *rows, struct rd *values)
{
    struct rd r = f->body;
    *rows = rd_u32(&r);
    *values = r;
    if (r.failed || n_columns == 0)
        return err_fail(ERR_PROTOCOL, "ROWS that nobody announced, or without a head");
    for (uint64_t i = 0; i < (uint64_t)*rows * n_columns; i++) {
        struct wire_value v;
        TRY(wire_get_value(&r, &v));
    }
    return whole(&r, "ROWS");
}

enum err wire_get_done(struct wire_frame *f, struct wire_done *d)
{
    struct rd *r = &f->body;
    *d = (struct wire_done){0};
    d->seq = rd_u64(r);
    d->changes = (int64_t)rd_u64(r);
    d->last_insert_rowid = (int64_t)rd_u64(r);
    d->flags = rd_u8(r);
    return whole(r, "DONE");
}

/* The answer of a server of version 1 to our HELLO: its code lies where our number of the request
 * is. */
static bool is_error_v1(const struct wire_frame *f)
{
    struct rd r = f->body;
    size_t len;
    (void)rd_bytes(&r, 4 + 4 + 8 + 1); /* SQLite's code, offset, seq, flags */
    (void)rd_str(&r, &len);
    return f->id.stream == 0 && f->id.request != 0 && !r.failed && rd_left(&r) == 0;
}

enum err wire_get_error(struct wire_frame *f, struct wire_error *e)
{
    struct rd *r = &f->body;
    bool v1 = is_error_v1(f);
    *e = (struct wire_error){0};
    uint32_t code = rd_u32(r);
    e->sqlite_code = (int32_t)rd_u32(r);
    e->offset = (int32_t)rd_u32(r);
    e->seq = rd_u64(r);
    e->flags = rd_u8(r);
    e->statement = rd_u32(r);
    e->message = rd_str(r, &e->message_len);
    if (v1 && (r->failed || rd_left(r) != 0))
        return err_fail(ERR_VERSION, "the server speaks version 1 of the protocol, we speak %u",
                        WIRE_VERSION);
    TRY(whole(r, "ERROR"));
    /* A newer server may know codes that we do not; "ok" is not an error. */
    e->code = code == ERR_OK ? ERR_PROTOCOL : err_from_wire(code);
    return ERR_OK;
}
