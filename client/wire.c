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

#define TYPE_AND_REQUEST (WIRE_HEAD_BYTES - WIRE_LENGTH_BYTES)

/* --- writing ---------------------------------------------------------------------------------- */

size_t wire_begin(struct buf *b, enum wire_type type, uint32_t request)
{
    size_t begun = b->len;
    buf_put_u32(b, 0); /* the length: wire_end knows it */
    buf_put_u8(b, (uint8_t)type);
    buf_put_u32(b, request);
    return begun;
}

void wire_end(struct buf *b, size_t begun)
{
    if (b->failed != ERR_OK)
        return;
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
    size_t begun = wire_begin(b, WIRE_HELLO, 0);
    buf_put_u32(b, WIRE_MAGIC);
    buf_put_u16(b, WIRE_VERSION);
    buf_put_cstr(b, client);
    buf_put_cstr(b, database);
    wire_end(b, begun);
}

void wire_put_welcome(struct buf *b, uint32_t request, uint64_t node_id, uint64_t cluster_id,
                      const char *server, const char *sqlite)
{
    size_t begun = wire_begin(b, WIRE_WELCOME, request);
    buf_put_u16(b, WIRE_VERSION);
    buf_put_u64(b, node_id);
    buf_put_u64(b, cluster_id);
    buf_put_cstr(b, server);
    buf_put_cstr(b, sqlite);
    wire_end(b, begun);
}

/* Where n_params lies behind a query's head: level, flags, bound, timeout, min_seq, rowid, sql. */
static size_t params_offset(size_t sql_len)
{
    return WIRE_HEAD_BYTES + 1 + 1 + 4 + 4 + 8 + 8 + 4 + sql_len;
}

size_t wire_begin_query(struct buf *b, uint32_t request, const struct wire_query *q)
{
    size_t begun = wire_begin(b, WIRE_QUERY, request);
    buf_put_u8(b, (uint8_t)q->level);
    buf_put_u8(b, q->flags);
    buf_put_u32(b, q->bound_ms);
    buf_put_u32(b, q->timeout_ms);
    buf_put_u64(b, q->min_seq);
    buf_put_u64(b, (uint64_t)q->last_insert_rowid);
    buf_put_str(b, q->sql, q->sql_len);
    buf_put_u32(b, 0); /* the number of parameters: wire_end_query knows it */
    return begun;
}

void wire_put_param(struct buf *b, const char *name, const struct wire_value *v)
{
    buf_put_cstr(b, name == NULL ? "" : name);
    wire_put_value(b, v);
}

void wire_end_query(struct buf *b, size_t begun, uint32_t n_params)
{
    if (b->failed == ERR_OK) {
        size_t sql_len = get_le32(b->data + begun + params_offset(0) - 4);
        buf_patch_u32(b, begun + params_offset(sql_len), n_params);
    }
    wire_end(b, begun);
}

void wire_put_status(struct buf *b, uint32_t request)
{
    wire_end(b, wire_begin(b, WIRE_STATUS, request));
}

void wire_put_cancel(struct buf *b, uint32_t request)
{
    wire_end(b, wire_begin(b, WIRE_CANCEL, request));
}

void wire_put_done(struct buf *b, uint32_t request, const struct wire_done *d)
{
    size_t begun = wire_begin(b, WIRE_DONE, request);
    buf_put_u64(b, d->seq);
    buf_put_u64(b, (uint64_t)d->changes);
    buf_put_u64(b, (uint64_t)d->last_insert_rowid);
    buf_put_u8(b, d->flags);
    wire_end(b, begun);
}

void wire_put_error(struct buf *b, uint32_t request, const struct wire_error *e)
{
    size_t begun = wire_begin(b, WIRE_ERROR, request);
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

void wire_put_columns(struct buf *b, uint32_t request, const char *const *names, uint32_t n)
{
    size_t begun = wire_begin(b, WIRE_COLUMNS, request);
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
    return (type >= WIRE_HELLO && type <= WIRE_CLUSTER) ||
           (type >= WIRE_IMAGE_BEGIN && type <= WIRE_IMAGE_ASK_PAGES) ||
           (type >= WIRE_WELCOME && type <= WIRE_ERROR) ||
           (type >= WIRE_IMAGE && type <= WIRE_IMAGE_PAGES);
}

enum err wire_next(const uint8_t *p, size_t n, size_t max, struct wire_frame *f, size_t *used)
{
    *used = 0;
    if (n < WIRE_LENGTH_BYTES)
        return ERR_OK;
    size_t length = get_le32(p);
    if (length > max)
        return err_fail(ERR_TOO_BIG, "a frame of %zu bytes, the limit is %zu", length, max);
    if (length < TYPE_AND_REQUEST)
        return err_fail(ERR_PROTOCOL, "a frame of %zu bytes has no room for its head", length);
    /* The type is judged as soon as it is there: garbage need not arrive in full. */
    if (n > WIRE_LENGTH_BYTES && !known_type(p[WIRE_LENGTH_BYTES]))
        return err_fail(ERR_PROTOCOL, "a frame of unknown type %u", p[WIRE_LENGTH_BYTES]);
    if (n - WIRE_LENGTH_BYTES < length)
        return ERR_OK;
    f->type = (enum wire_type)p[WIRE_LENGTH_BYTES];
    f->request = get_le32(p + WIRE_LENGTH_BYTES + 1);
    f->body = rd_of(p + WIRE_HEAD_BYTES, length - TYPE_AND_REQUEST);
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
    h->magic = rd_u32(r);
    h->version = rd_u16(r);
    if (r->failed || h->magic != WIRE_MAGIC)
        return err_fail(ERR_PROTOCOL, "not a HELLO of Lectern's native protocol");
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
    w->server = rd_str(r, &w->server_len);
    w->sqlite = rd_str(r, &w->sqlite_len);
    return whole(r, "WELCOME");
}

/* Walks the parameters once, so that everybody after us may rely on them. */
static enum err check_params(struct rd r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const char *name;
        size_t name_len;
        struct wire_value v;
        TRY(wire_get_param(&r, &name, &name_len, &v));
    }
    return whole(&r, "QUERY");
}

enum err wire_get_query(struct wire_frame *f, struct wire_query *q)
{
    struct rd *r = &f->body;
    *q = (struct wire_query){0};
    uint8_t level = rd_u8(r);
    q->flags = rd_u8(r);
    q->bound_ms = rd_u32(r);
    q->timeout_ms = rd_u32(r);
    q->min_seq = rd_u64(r);
    q->last_insert_rowid = (int64_t)rd_u64(r);
    q->sql = rd_str(r, &q->sql_len);
    q->n_params = rd_u32(r);
    if (r->failed)
        return err_fail(ERR_PROTOCOL, "a QUERY that ends too early");
    if (level > WIRE_STRONG)
        return err_fail(ERR_PROTOCOL, "a QUERY of unknown read level %u", level);
    if ((q->flags & ~(WIRE_FORWARDED | WIRE_FOREIGN_KEYS_OFF)) != 0)
        return err_fail(ERR_PROTOCOL, "a QUERY with unknown flags 0x%x", q->flags);
    q->level = (enum wire_level)level;
    if (q->sql_len > SQL_TEXT_MAX)
        return err_fail(ERR_TOO_BIG, "a statement of %zu bytes, the limit is %llu", q->sql_len,
                        SQL_TEXT_MAX);
    if (q->n_params > SQL_PARAMS_MAX)
        return err_fail(ERR_TOO_BIG, "a statement with %u parameters, the limit is %u", q->n_params,
                        SQL_PARAMS_MAX);
    q->params = *r;
    return check_params(*r, q->n_params);
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

enum err wire_get_error(struct wire_frame *f, struct wire_error *e)
{
    struct rd *r = &f->body;
    *e = (struct wire_error){0};
    uint32_t code = rd_u32(r);
    e->sqlite_code = (int32_t)rd_u32(r);
    e->offset = (int32_t)rd_u32(r);
    e->seq = rd_u64(r);
    e->flags = rd_u8(r);
    e->message = rd_str(r, &e->message_len);
    TRY(whole(r, "ERROR"));
    /* A newer server may know codes that we do not; "ok" is not an error. */
    e->code = code == ERR_OK ? ERR_PROTOCOL : err_from_wire(code);
    return ERR_OK;
}
