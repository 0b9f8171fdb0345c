/* Room: consensus. Committed entries on their way to the node: in index order, each once in a life
 * of the process, from the cache or else from the disk, and no faster than the node takes them.
 * Thread: loop. */
#ifndef CONSENSUS_DELIVERY_H
#define CONSENSUS_DELIVERY_H

#include "consensus/cache.h"
#include "consensus/terms.h"

struct delivery;

struct delivery_config {
    const struct cns_io *io;
    const struct cache *cache;
    const struct terms *terms;
    struct cns_handler handler;
    void *ctx;
    void (*read_failed)(void *ctx, enum err e); /* a committed entry cannot be read */
    void (*dirty)(void *ctx);                   /* call delivery_run at the end of this turn */
};

/* Entries up to FLOOR are never delivered. */
struct delivery *delivery_new(const struct delivery_config *c, uint64_t floor);
void delivery_free(struct delivery *d);

/* Delivers up to COMMIT as far as the node has room and the bytes are at hand. */
void delivery_run(struct delivery *d, uint64_t commit);
/* No on_entry after this. May be called from inside on_entry. */
void delivery_stop(struct delivery *d);
void delivery_applied(struct delivery *d, uint64_t index);
/* The highest index that the node has reported, or the floor. */
uint64_t delivery_applied_index(const struct delivery *d);

#endif
