/* Room: client.   Thread: any.   Owns: nothing. Not here: what the operations mean (node/admin.c).
 */
#include "client/wire_cluster.h"

#include <string.h>

void wire_put_cluster(struct buf *b, struct wire_id id, const struct wire_cluster *c)
{
    size_t begun = wire_begin(b, WIRE_CLUSTER, id);
    buf_put_u8(b, (uint8_t)c->op);
    buf_put_u8(b, (uint8_t)c->role);
    buf_put_u8(b, c->flags);
    buf_put_u32(b, c->timeout_ms);
    buf_put_u64(b, c->id);
    buf_put_cstr(b, c->address);
    wire_end(b, begun);
}

static bool take_address(struct rd *r, char *out)
{
    size_t n;
    const char *s = rd_str(r, &n);
    if (r->failed || n >= WIRE_ADDRESS_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' || s[i] == ',')
            return false;
    memcpy(out, n == 0 ? "" : s, n);
    out[n] = 0;
    return true;
}

enum err wire_get_cluster(struct wire_frame *f, struct wire_cluster *c)
{
    struct rd *r = &f->body;
    *c = (struct wire_cluster){.op = WIRE_CLUSTER_ADD};
    uint8_t op = rd_u8(r), role = rd_u8(r);
    c->flags = rd_u8(r);
    c->timeout_ms = rd_u32(r);
    c->id = rd_u64(r);
    bool addressed = take_address(r, c->address);
    if (!addressed || r->failed || rd_left(r) != 0 || op < WIRE_CLUSTER_ADD ||
        op > WIRE_CLUSTER_TRANSFER || role > WIRE_SPARE ||
        (c->flags & ~(WIRE_CLUSTER_FORWARDED | WIRE_CLUSTER_FORCE)) != 0 ||
        (c->address[0] != 0) != (op == WIRE_CLUSTER_ADD))
        return err_fail(ERR_PROTOCOL, "a CLUSTER request that makes no sense");
    c->op = (enum wire_cluster_op)op;
    c->role = (enum wire_member_role)role;
    return ERR_OK;
}
