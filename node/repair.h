/* Room: node. A node that cannot use its database fetches another one's: when, from whom, and how
 * often. The fetching itself is fetch.c, what a start finds is startup.c. Thread: loop. */
#ifndef NODE_REPAIR_H
#define NODE_REPAIR_H

#include "node/node.h"

/* This node was opened without a database: fetches one. */
MUST_USE enum err repair_begin(struct node *n) ON_LOOP;
/* LOOP_FETCHED. */
void repair_ended(struct node *n) ON_LOOP;
/* The database failed while the node served: is it to be fetched, and when? */
void repair_damage(struct node *n, enum err code, const char *sentence) ON_LOOP;
/* The leader's log begins at FIRST, and ours ends before it. */
void repair_behind(struct node *n, uint64_t leader_id, uint64_t first) ON_LOOP;
void repair_timer(struct node *n, uint64_t now_ms) ON_LOOP;

#endif
