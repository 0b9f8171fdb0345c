/* Room: client.   Thread: any.   Owns: nothing; values and frames borrow from the caller's bytes.
 *
 * Invariants: no getter reads outside the frame that wire_next measured; what a getter returned is
 * whole and of a known type; a frame with bytes left over is refused, so that both sides agree on
 * where everything lies; a frame above WIRE_FRAME_MAX is never written.
 *
 * Here are frames, values, and what the connection itself says. Not here: statements
 * (wire_request.c), their answers (wire_answer.c); sockets; what a message means. */
#include "client/wire.h"

#include "base/check.h"
#include "base/sizes.h"

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

enum err wire_whole(const struct rd *r, const char *what)
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
    return wire_whole(r, "HELLO");
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
    return wire_whole(r, "WELCOME");
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
    return wire_whole(&f->body, "CREDIT");
}

enum err wire_get_forget(struct wire_frame *f, uint32_t *keep)
{
    *keep = rd_u32(&f->body);
    return wire_whole(&f->body, "FORGET");
}

enum err wire_get_nothing(struct wire_frame *f)
{
    return wire_whole(&f->body, "frame without a body");
}

enum err wire_get_pong(struct wire_frame *f, struct wire_pong *p)
{
    p->seq = rd_u64(&f->body);
    p->leader_id = rd_u64(&f->body);
    p->serves = rd_u8(&f->body);
    return wire_whole(&f->body, "PONG");
}
