/* Room: client. A database copied from other nodes into a file of its own: the file's side of
 * lectern_export. Thread: one at a time; blocks.
 *
 *     image_copy_new --> image_copy_from, one node after the other until one gives it all
 *                    --> image_copy_finish: read back, synced, named --> image_copy_free
 *
 * What one node gave stays, and is compared with what the next one has. */
#ifndef CLIENT_IMAGE_COPY_H
#define CLIENT_IMAGE_COPY_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct image_copy;

/* Bytes of the database: those that are here, and all. Anything but 0 ends it: ERR_CANCELLED. */
typedef int (*image_copy_progress)(void *arg, uint64_t done, uint64_t total);
/* Asked a few times a second: true ends it: ERR_CANCELLED. */
typedef bool (*image_copy_stop)(void *arg);

/* Makes PATH.partial, locked; PATH must not exist. PATH is copied. ERR_IO, ERR_FULL; ERR_LOCKED:
 * another export writes to it; ERR_MISUSE: PATH is there; ERR_NOMEM. */
MUST_USE enum err image_copy_new(const char *path, image_copy_progress progress,
                                 image_copy_stop stop, void *arg, struct image_copy **out);
/* Removes PATH.partial unless it was finished. C may be NULL. */
void image_copy_free(struct image_copy *c);

/* Takes from the node at ADDRESS of the cluster CLUSTER_ID what is not here yet, until all is here:
 * a state of MIN_SEQ or later. ERR_IO, ERR_FULL: our own disk, no other node helps; ERR_CANCELLED;
 * ERR_NOMEM; all else: this node cannot now. */
MUST_USE enum err image_copy_from(struct image_copy *c, const char *address, uint64_t cluster_id,
                                  uint64_t min_seq);
/* When pages last came, clock_mono_ms; 0: never. */
uint64_t image_copy_last_ms(const struct image_copy *c);
/* Reads all back, makes it an ordinary database file, durable, under its name. ERR_DIVERGED: the
 * disk gave back something else: image_copy_from again mends it. */
MUST_USE enum err image_copy_finish(struct image_copy *c);

#endif
