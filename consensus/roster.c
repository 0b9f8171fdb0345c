/* Room: consensus. Thread: loop. Owns: a reference of each change's payload.
 * Invariants: indexes rise strictly; highest_id never falls from one entry to the next.
 * Not here: what the members are now (libraft's core), or whether a change is committed. */
#include "consensus/roster.h"

#include "base/check.h"
#include "base/mem.h"
#include "consensus/members.h"

#include <stdlib.h>

void roster_init(struct roster *r)
{
    *r = (struct roster){0};
}

void roster_fini(struct roster *r)
{
    for (size_t i = 0; i < r->n; i++)
        cns_payload_unref(r->e[i].members);
    free(r->e);
    *r = (struct roster){0};
}

void roster_push(struct roster *r, uint64_t index, struct cns_payload *members, uint64_t highest_id)
{
    struct raft_configuration conf;
    uint64_t highest = highest_id;
    CHECK(r->n == 0 || r->e[r->n - 1].index < index);
    if (r->n > 0 && r->e[r->n - 1].highest_id > highest)
        highest = r->e[r->n - 1].highest_id;
    enum err e = members_decode(members, &conf);
    CHECK(e == ERR_OK); /* checked when it came in */
    for (unsigned i = 0; i < conf.n; i++)
        if (conf.servers[i].id > highest)
            highest = conf.servers[i].id;
    raft_configuration_close(&conf);
    if (r->n == r->cap) {
        r->cap = r->cap == 0 ? 8 : r->cap * 2;
        r->e = mem_realloc(r->e, r->cap * sizeof *r->e);
    }
    r->e[r->n++] = (struct roster_entry){index, cns_payload_ref(members), highest};
}

void roster_truncate(struct roster *r, uint64_t index)
{
    while (r->n > 0 && r->e[r->n - 1].index >= index)
        cns_payload_unref(r->e[--r->n].members);
}

void roster_cut(struct roster *r, uint64_t index)
{
    size_t old = 0;
    while (old + 1 < r->n && r->e[old + 1].index <= index)
        cns_payload_unref(r->e[old++].members);
    for (size_t i = old; i < r->n; i++)
        r->e[i - old] = r->e[i];
    r->n -= old;
}

const struct roster_entry *roster_at(const struct roster *r, uint64_t index)
{
    size_t i = r->n;
    while (i > 0 && r->e[i - 1].index > index)
        i--;
    return i == 0 ? NULL : &r->e[i - 1];
}
