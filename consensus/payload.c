/* Room: consensus. Thread: any. Owns: nothing; a payload belongs to all who hold a reference.
 * Invariant: the bytes never change after cns_payload_take, so that disk, sockets and the node may
 * read them at the same time. Not here: what the bytes mean. */
#include "base/check.h"
#include "base/mem.h"
#include "consensus/io.h"

#include <stdlib.h>

struct cns_payload *cns_payload_take(uint8_t *data, size_t len)
{
    struct cns_payload *p = MEM_NEW(struct cns_payload);
    atomic_init(&p->refs, 1);
    p->data = data;
    p->len = len;
    return p;
}

struct cns_payload *cns_payload_ref(struct cns_payload *p)
{
    /* Relaxed: who adds a reference has one already, so nothing can be freed meanwhile. */
    uint32_t before = atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    CHECK(before > 0 && before < UINT32_MAX);
    return p;
}

void cns_payload_unref(struct cns_payload *p)
{
    if (p == NULL)
        return;
    /* Release: our reads are over; acquire: the last one sees that of all others. */
    uint32_t before = atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before > 1)
        return;
    free(p->data);
    free(p);
}

void cns_items_free(struct cns_item *items, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        cns_payload_unref(items[i].payload);
    free(items);
}
