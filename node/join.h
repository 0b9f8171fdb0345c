/* Room: node. Who the node is at this start, before its loop runs: from DIR/node, from --cluster,
 * or new, from a running cluster's leader (--join). Thread: main, the loop's later. */
#ifndef NODE_JOIN_H
#define NODE_JOIN_H

#include "base/thread.h"
#include "node/config.h"
#include "node/identity.h"

/* Fills OUT and C's id, cluster_id and database_id. With --join and no DIR/node: asks the leader
 * for an id (again and again, with a line in the log, until SIGTERM or SIGINT: ERR_CANCELLED) and
 * writes DIR/node before it returns. So: OUT->joined with no DIR/raft means: fetch an image from
 * OUT->contacts, and begin as OUT->id. A bootstrapped node (not joined, not begun) has no DIR/node
 * yet: identity_note_begun writes it when its log is there. ERR_CONFIG: the flags contradict what
 * is there, or the log of a node that had begun is gone. Blocks. */
MUST_USE enum err join_prepare(struct config *c, struct identity *out) ON_LOOP;

#endif
