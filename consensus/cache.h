/* Room: consensus. The newest entries of the log in memory, bounded by bytes; what is older is read
 * from the disk. Entries are a closed range of indexes that ends with the log's last one.
 * Thread: loop. */
#ifndef CONSENSUS_CACHE_H
#define CONSENSUS_CACHE_H

#include "consensus/io.h"

/* What an entry costs besides its payload's bytes: the item, the payload's head, malloc's own. */
#define CACHE_ITEM_OVERHEAD 128u

struct cache {
    struct cns_item *ring; /* cap is a power of two */
    size_t cap, head, n;
    uint64_t bytes; /* payloads and overhead */
};

void cache_init(struct cache *c);
void cache_fini(struct cache *c);
/* Takes the item's reference. Its index is the newest's + 1, or any when the cache is empty. */
void cache_push(struct cache *c, struct cns_item item);
/* Drops the entries from INDEX on. */
void cache_truncate(struct cache *c, uint64_t index);
/* Drops the oldest while there are more than MAX bytes, but none above UP_TO: entries that are not
 * stored have no other copy, and uncommitted ones are still counted. */
void cache_evict(struct cache *c, uint64_t max, uint64_t up_to);
/* Drops the entries before INDEX: the log begins there now. */
void cache_cut(struct cache *c, uint64_t index);
/* The oldest index here; 0 when there is none. All below it that are in the log are stored. */
uint64_t cache_first(const struct cache *c);
/* Borrowed until the next change; NULL when it is not here. */
const struct cns_item *cache_get(const struct cache *c, uint64_t index);

#endif
