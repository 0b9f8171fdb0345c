/* Room: node. When the cluster's key (cluster_key.h) is made, taken from the leader, and saved.
 *
 *     start    DIR/key, or one of its own for the moment
 *     leader   its newest key is the cluster's: saved, and told with its gossip
 *     follower takes the leader's: saved
 *
 * Saving is another thread's: until it is done, a crash brings back the former key, and the leader
 * tells the newest again. What cannot be saved is tried again. Thread: loop, but for opening. */
#ifndef NODE_KEY_KEEPER_H
#define NODE_KEY_KEEPER_H

#include "node/node.h"

/* Fills n->keys. A damaged file is named in the log, and replaced. Blocks. Thread: main. */
struct key_keeper *key_keeper_new(struct node *n) ON_LOOP;
/* Nothing is being saved any more: the loop has ended. */
void key_keeper_free(struct key_keeper *k);
/* This node leads: called now and then. */
void key_keeper_lead(struct key_keeper *k) ON_LOOP;
/* The newest key is the cluster's, as far as can be known: a baton of this node is good at the
 * others. False only at a new node that has heard no leader yet. */
bool key_keeper_is_sure(const struct key_keeper *k) ON_LOOP;
/* The leader's: called now and then. */
void key_keeper_hear(struct key_keeper *k, const uint8_t key[CLUSTER_KEY_BYTES]) ON_LOOP;

#endif
