/* Room: node. The start-up check: which entry of the log does the database contain? Thread: main.
 */
#ifndef NODE_RECOVER_H
#define NODE_RECOVER_H

#include "consensus/consensus.h"
#include "node/lane.h"

/* *applied: index of the entry whose transaction is the database's newest, 0 for an empty database;
 * the node goes on from the next one. ERR_DIVERGED: the database is not what the log says at its
 * sequence (changed by another program, or damaged). ERR_NOT_FOUND: the log does not reach it. */
MUST_USE enum err recover_position(struct repl_db *db, struct cns *cns, uint64_t *applied) ON_LOOP;

#endif
