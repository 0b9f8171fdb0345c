/* Room: consensus. Thread: loop. Owns: a reference of each cached payload.
 * Invariants: indexes in the ring rise by one; `bytes` is the sum over the ring. */
#include "consensus/cache.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdlib.h>

static uint64_t cost(const struct cns_item *item)
{
    return CACHE_ITEM_OVERHEAD + (item->payload == NULL ? 0 : item->payload->len);
}

static struct cns_item *at(const struct cache *c, size_t i)
{
    return &c->ring[(c->head + i) & (c->cap - 1)];
}

void cache_init(struct cache *c)
{
    *c = (struct cache){.cap = 64};
    c->ring = mem_alloc(c->cap * sizeof *c->ring);
}

void cache_fini(struct cache *c)
{
    for (size_t i = 0; i < c->n; i++)
        cns_payload_unref(at(c, i)->payload);
    free(c->ring);
    *c = (struct cache){0};
}

static void grow(struct cache *c)
{
    struct cns_item *ring = mem_alloc(c->cap * 2 * sizeof *ring);
    for (size_t i = 0; i < c->n; i++)
        ring[i] = *at(c, i);
    free(c->ring);
    c->ring = ring;
    c->head = 0;
    c->cap *= 2;
}

void cache_push(struct cache *c, struct cns_item item)
{
    CHECK(c->n == 0 || at(c, c->n - 1)->index + 1 == item.index);
    if (c->n == c->cap)
        grow(c);
    c->n++;
    *at(c, c->n - 1) = item;
    c->bytes += cost(&item);
}

void cache_truncate(struct cache *c, uint64_t index)
{
    while (c->n > 0 && at(c, c->n - 1)->index >= index) {
        struct cns_item *item = at(c, c->n - 1);
        c->bytes -= cost(item);
        cns_payload_unref(item->payload);
        c->n--;
    }
}

static void drop_oldest(struct cache *c)
{
    struct cns_item *item = at(c, 0);
    c->bytes -= cost(item);
    cns_payload_unref(item->payload);
    c->head = (c->head + 1) & (c->cap - 1);
    c->n--;
}

void cache_evict(struct cache *c, uint64_t max, uint64_t up_to)
{
    while (c->n > 0 && c->bytes > max && at(c, 0)->index <= up_to)
        drop_oldest(c);
}

void cache_cut(struct cache *c, uint64_t index)
{
    while (c->n > 0 && at(c, 0)->index < index)
        drop_oldest(c);
}

uint64_t cache_first(const struct cache *c)
{
    return c->n == 0 ? 0 : at(c, 0)->index;
}

const struct cns_item *cache_get(const struct cache *c, uint64_t index)
{
    if (c->n == 0)
        return NULL;
    uint64_t first = at(c, 0)->index;
    if (index < first || index - first >= c->n)
        return NULL;
    return at(c, (size_t)(index - first));
}
