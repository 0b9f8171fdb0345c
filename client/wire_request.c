/* Room: client.   Thread: any.   Owns: nothing. QUERY, BATCH and DESCRIBE: statements, their
 * parameters, and what a session carries with them.
 *
 * Invariants: what wire_get_query let pass, wire_get_statement and wire_get_param can read.
 * Not here: frames, values (wire.c), answers (wire_answer.c). */
#include "client/wire.h"

#include "base/sizes.h"

#include <string.h>

/* --- writing ---------------------------------------------------------------------------------- */

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

/* --- reading ---------------------------------------------------------------------------------- */

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
    return wire_whole(&r, "request");
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
    const uint16_t known = WIRE_FORWARDED | WIRE_FOREIGN_KEYS_OFF | WIRE_NUMBERED | WIRE_RESOLVE |
                           WIRE_AGAIN | WIRE_INSIDE | WIRE_ALL_PARAMETERS;
    bool again = (q->flags & WIRE_AGAIN) != 0;
    bool numbered = (q->flags & WIRE_NUMBERED) != 0;
    bool resolve = (q->flags & WIRE_RESOLVE) != 0;
    if ((q->flags & ~known) != 0)
        return err_fail(ERR_PROTOCOL, "a request with unknown flags 0x%x", q->flags);
    if ((numbered && type == WIRE_DESCRIBE) || (again && !numbered) ||
        (resolve && (!numbered || type != WIRE_QUERY || (q->flags & WIRE_INSIDE) != 0)))
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
