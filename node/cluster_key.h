/* Room: node. The cluster's secret key, with which batons are signed (node/http/baton.h): 32 random
 * bytes, made by the first leader that knows none, kept in DIR/key, told by leaders with their
 * gossip.
 *
 *     leader, no key  -> make one -> file, gossip
 *     follower        -> the leader's is another one: take it, keep the former for reading
 *
 * Two leaders that did not know of each other may both make one: the later leader's wins, and what
 * the other signed meanwhile is still read by those who have both. Nothing but the life of an idle
 * stream hangs on it. Thread: loop, but for loading. */
#ifndef NODE_CLUSTER_KEY_H
#define NODE_CLUSTER_KEY_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLUSTER_KEY_BYTES 32u
#define CLUSTER_KEYS_KEPT 4u

struct cluster_keys {
    unsigned n;                                         /* 0: none is known yet */
    uint8_t keys[CLUSTER_KEYS_KEPT][CLUSTER_KEY_BYTES]; /* the newest first */
};

/* Reads DIR/key; without such a file there is none. ERR_CORRUPT: not such a file. Blocks. */
MUST_USE enum err cluster_keys_load(const char *dir, struct cluster_keys *out);
/* Replaces the file (mode 0600). Blocks: never on the loop. */
MUST_USE enum err cluster_keys_save(const char *dir, const struct cluster_keys *keys);
/* A new one, if there is none. True: there is now; save it. */
bool cluster_keys_make(struct cluster_keys *keys);
/* The leader's. True: it was not the newest known here; save it. */
bool cluster_keys_take(struct cluster_keys *keys, const uint8_t key[CLUSTER_KEY_BYTES]);

#endif
