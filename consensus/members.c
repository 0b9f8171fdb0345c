/* Room: consensus. Thread: loop. Owns: nothing. Not here: which change is allowed when
 * (driver_members.c). */
#include "consensus/members.h"

#include "base/check.h"
#include "base/mem.h"
#include "consensus/message.h"

#include <string.h>

static int core_role(enum cns_member_role role)
{
    switch (role) {
    case CNS_VOTER:
        return RAFT_VOTER;
    case CNS_STANDBY:
        return RAFT_STANDBY;
    case CNS_SPARE:
        return RAFT_SPARE;
    default:
        return -1;
    }
}

enum cns_member_role members_role(const struct raft_server *s)
{
    return s->role == RAFT_VOTER ? CNS_VOTER : s->role == RAFT_STANDBY ? CNS_STANDBY : CNS_SPARE;
}

static enum err encode(const struct raft_configuration *c, struct cns_payload **out)
{
    struct raft_buffer buf;
    int rv = raft_configuration_encode(c, &buf);
    if (rv != 0)
        return err_fail(ERR_NOMEM, "cannot encode the members: %s", raft_strerror(rv));
    enum err e = cns_message_check_members(buf.base, buf.len);
    if (e == ERR_OK) {
        uint8_t *data = mem_alloc(buf.len);
        memcpy(data, buf.base, buf.len);
        *out = cns_payload_take(data, buf.len);
    } else {
        e = err_fail(ERR_CONFIG, "these members cannot be: %s", err_text());
    }
    raft_free(buf.base);
    return e;
}

enum err members_encode(const struct cns_server *servers, unsigned n, struct cns_payload **out)
{
    struct raft_configuration c;
    if (n == 0)
        return err_fail(ERR_CONFIG, "a cluster needs at least one member");
    raft_configuration_init(&c);
    for (unsigned i = 0; i < n; i++) {
        const struct cns_server *s = &servers[i];
        int rv = s->id == 0 || s->address == NULL
                     ? RAFT_BADID
                     : raft_configuration_add(&c, s->id, s->address, core_role(s->role));
        if (rv != 0) {
            raft_configuration_close(&c);
            return err_fail(ERR_CONFIG, "member %u of the cluster (id %llu, address %s): %s", i + 1,
                            (unsigned long long)s->id, s->address == NULL ? "none" : s->address,
                            raft_strerror(rv));
        }
    }
    enum err e = encode(&c, out);
    raft_configuration_close(&c);
    return e;
}

static enum err add(struct raft_configuration *c, uint64_t id, const char *address,
                    enum cns_member_role role)
{
    int rv = id == 0 || address == NULL || address[0] == '\0'
                 ? RAFT_BADID
                 : raft_configuration_add(c, id, address, core_role(role));
    if (rv == 0)
        return ERR_OK;
    return err_fail(ERR_CONFIG, "member %llu at %s cannot be added: %s", (unsigned long long)id,
                    address == NULL ? "no address" : address, raft_strerror(rv));
}

enum err members_change(const struct raft_configuration *from, enum cns_change_kind kind,
                        uint64_t id, const char *address, enum cns_member_role role,
                        struct cns_payload **out)
{
    struct raft_configuration to;
    enum err e = ERR_OK;
    if (core_role(role) < 0)
        return err_fail(ERR_MISUSE, "%d is no role of a member", (int)role);
    if (kind != CNS_ADD && members_find(from, id) == NULL)
        return err_fail(ERR_NOT_FOUND, "there is no member %llu", (unsigned long long)id);
    raft_configuration_init(&to);
    for (unsigned i = 0; i < from->n; i++) {
        const struct raft_server *s = &from->servers[i];
        if (s->id == id && kind == CNS_REMOVE)
            continue;
        int rv =
            raft_configuration_add(&to, s->id, s->address,
                                   s->id == id && kind == CNS_SET_ROLE ? core_role(role) : s->role);
        CHECK(rv == 0); /* it was valid where it came from */
    }
    if (kind == CNS_ADD)
        e = add(&to, id, address, role);
    if (e == ERR_OK && members_voters(&to) == 0)
        e = err_fail(ERR_CONFIG, "member %llu is the last voter", (unsigned long long)id);
    if (e == ERR_OK)
        e = encode(&to, out);
    raft_configuration_close(&to);
    return e;
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

bool members_is_lone_voter(const struct raft_configuration *c, uint64_t id)
{
    const struct raft_server *s = members_find(c, id);
    return s != NULL && s->role == RAFT_VOTER && members_voters(c) == 1;
}
