/* Room: node. Who the node is: from DIR/node, from --cluster, or new, from a running cluster's
 * leader (--join). And the wish of one that joined, to vote when it has caught up. Thread: main
 * before the loop runs, then the loop. */
#ifndef NODE_JOIN_H
#define NODE_JOIN_H

#include "base/thread.h"
#include "node/config.h"
#include "node/identity.h"

struct node;

/* Fills OUT and C's id, cluster_id and database_id. With --join and no DIR/node: asks the leader
 * for an id (again and again, with a line in the log, until SIGTERM or SIGINT: ERR_CANCELLED) and
 * writes DIR/node before it returns. So: OUT->joined with no DIR/raft means: fetch an image of
 * OUT->since or later from OUT->contacts, and begin as OUT->id. A bootstrapped node (not joined,
 * not begun) has no DIR/node yet: identity_note_begun writes it when its log is there. ERR_CONFIG:
 * the flags contradict what is there, or the log of a node that had begun is gone. Blocks. */
MUST_USE enum err join_prepare(struct config *c, struct identity *out) ON_LOOP;

/* This node joined, and was not given a log yet: it begins with a fetched state. */
bool join_has_no_log(const struct node *n);
/* This node joined, has the log, has no vote yet and wants one: told to the leader by gossip. */
bool join_wishes_to_vote(const struct node *n) ON_LOOP;
/* Call now and then: a wish that came true is crossed out in DIR/node, so that a later demotion
 * stays. Does not block. */
void join_look(struct node *n) ON_LOOP;

#endif
