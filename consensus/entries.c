/* Room: consensus. Thread: loop. Owns: the array; of a loaded log also the blocks with members.
 *
 * The core looks into a payload for RAFT_CHANGE only, and frees `batch` of the first entry in some
 * cases (LIBRAFT.md, section 3, ownership at v0.22.1). So a batch is a small block of its own that
 * holds nothing, and the payloads stay ours whatever the core does. */
#include "consensus/entries.h"

#include "base/check.h"
#include "consensus/members.h"

#include <string.h>

static struct raft_entry *push(struct entries *a)
{
    if (a->n == a->cap) {
        a->cap = a->cap == 0 ? 64 : a->cap * 2;
        a->e = raft_realloc(a->e, a->cap * sizeof *a->e);
        CHECK(a->e != NULL);
    }
    struct raft_entry *e = &a->e[a->n++];
    *e = (struct raft_entry){0};
    return e;
}

void entries_fini(struct entries *a)
{
    for (unsigned i = 0; i < a->n; i++)
        raft_free(a->e[i].batch);
    raft_free(a->e);
    *a = (struct entries){0};
}

enum err entries_load(struct entries *a, uint64_t term, enum cns_kind kind,
                      const struct cns_payload *payload)
{
    void *block = NULL;
    if (kind == CNS_CHANGE) {
        struct raft_configuration conf;
        TRY(members_decode(payload, &conf));
        raft_configuration_close(&conf);
        block = raft_malloc(payload->len);
        CHECK(block != NULL);
        memcpy(block, payload->data, payload->len);
    }
    struct raft_entry *e = push(a);
    e->term = term;
    e->type = (enum raft_entry_type)kind;
    e->batch = e->buf.base = block;
    e->buf.len = block == NULL ? 0 : payload->len;
    return ERR_OK;
}

void *entries_batch(struct entries *a, const struct cns_item *items, unsigned n)
{
    a->n = 0;
    if (n == 0)
        return NULL;
    void *block = raft_malloc(8);
    CHECK(block != NULL);
    for (unsigned i = 0; i < n; i++) {
        struct raft_entry *e = push(a);
        e->term = items[i].term;
        e->type = (enum raft_entry_type)items[i].kind;
        e->batch = block;
        if (items[i].payload != NULL)
            e->buf = (struct raft_buffer){items[i].payload->data, items[i].payload->len};
    }
    a->n = 0; /* the blocks are not ours to free */
    return block;
}
