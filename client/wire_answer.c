/* Room: client.   Thread: any.   Owns: nothing. Answers: COLUMNS, ROWS, STEP, DESCRIPTION, DONE and
 * ERROR.
 *
 * Invariants: rows are checked to their last value before anyone reads one; an ERROR never reads as
 * "no error".
 * Not here: frames, values (wire.c), requests (wire_request.c). */
#include "client/wire.h"

#include "base/sizes.h"

/* --- writing ---------------------------------------------------------------------------------- */

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

enum err wire_get_step(struct wire_frame *f, struct wire_step *s)
{
    s->changes = (int64_t)rd_u64(&f->body);
    s->last_insert_rowid = (int64_t)rd_u64(&f->body);
    return wire_whole(&f->body, "STEP");
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
    TRY(wire_whole(r, "DESCRIPTION"));
    if (d->n_params > SQL_PARAMS_MAX || d->n_columns > SQL_COLUMNS_MAX)
        return err_fail(ERR_PROTOCOL, "a statement of %u parameters and %u columns", d->n_params,
                        d->n_columns);
    return ERR_OK;
}

enum err wire_get_columns(struct wire_frame *f, uint32_t *n, struct rd *columns)
{
    *n = rd_u32(&f->body);
    take_texts(&f->body, *n, 2, columns);
    TRY(wire_whole(&f->body, "COLUMNS"));
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
    return wire_whole(&r, "ROWS");
}

enum err wire_get_done(struct wire_frame *f, struct wire_done *d)
{
    struct rd *r = &f->body;
    *d = (struct wire_done){0};
    d->seq = rd_u64(r);
    d->changes = (int64_t)rd_u64(r);
    d->last_insert_rowid = (int64_t)rd_u64(r);
    d->flags = rd_u8(r);
    return wire_whole(r, "DONE");
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
    TRY(wire_whole(r, "ERROR"));
    /* A newer server may know codes that we do not; "ok" is not an error. */
    e->code = code == ERR_OK ? ERR_PROTOCOL : err_from_wire(code);
    return ERR_OK;
}
