/* Room: consensus. Thread: loop. Owns: nothing. Not here: changing the members (a later issue: a
 * RAFT_CHANGE is submitted alone, with the whole new configuration). */
#include "consensus/members.h"

#include "base/check.h"
#include "base/mem.h"
#include "consensus/message.h"

#include <string.h>

enum err members_encode(const struct cns_server *servers, unsigned n, struct cns_payload **out)
{
    struct raft_configuration c;
    struct raft_buffer buf;
    if (n == 0)
        return err_fail(ERR_CONFIG, "a cluster needs at least one member");
    raft_configuration_init(&c);
    for (unsigned i = 0; i < n; i++) {
        int rv = servers[i].id == 0 || servers[i].address == NULL
                     ? RAFT_BADID
                     : raft_configuration_add(&c, servers[i].id, servers[i].address, RAFT_VOTER);
        if (rv != 0) {
            raft_configuration_close(&c);
            return err_fail(ERR_CONFIG, "member %u of the cluster (id %llu, address %s): %s", i + 1,
                            (unsigned long long)servers[i].id,
                            servers[i].address == NULL ? "none" : servers[i].address,
                            raft_strerror(rv));
        }
    }
    int rv = raft_configuration_encode(&c, &buf);
    raft_configuration_close(&c);
    if (rv != 0)
        return err_fail(ERR_NOMEM, "cannot encode the members: %s", raft_strerror(rv));
    uint8_t *data = mem_alloc(buf.len);
    memcpy(data, buf.base, buf.len);
    *out = cns_payload_take(data, buf.len);
    raft_free(buf.base);
    return cns_message_check_members(data, buf.len);
}

enum err members_decode(const struct cns_payload *p, struct raft_configuration *out)
{
    if (p == NULL)
        return err_fail(ERR_PROTOCOL, "a change of members without members");
    /* libraft's own decoder does not check where the bytes end. */
    TRY(cns_message_check_members(p->data, p->len));
    struct raft_buffer buf = {.base = p->data, .len = p->len};
    int rv = raft_configuration_decode(&buf, out);
    if (rv != 0)
        return err_fail(ERR_PROTOCOL, "a change of members does not decode: %s", raft_strerror(rv));
    return ERR_OK;
}

void members_copy(const struct raft_configuration *from, struct raft_configuration *to)
{
    raft_configuration_init(to);
    for (unsigned i = 0; i < from->n; i++) {
        const struct raft_server *s = &from->servers[i];
        int rv = raft_configuration_add(to, s->id, s->address, s->role);
        CHECK(rv == 0); /* it was valid where it came from */
    }
}

const struct raft_server *members_find(const struct raft_configuration *c, uint64_t id)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id)
            return &c->servers[i];
    return NULL;
}

unsigned members_voters(const struct raft_configuration *c)
{
    unsigned n = 0;
    for (unsigned i = 0; i < c->n; i++)
        n += c->servers[i].role == RAFT_VOTER;
    return n;
}
