/* Room: node. Read transactions (BEGIN READONLY), as sessions have them: each is a snapshot of the
 * reader pool (readers.h), on the node that the client talks to, leader or not.
 *
 *     BEGIN READONLY -> route (as a read of its level) -> readers: snapshot -> HOME_SNAPSHOT
 *     statement      -> readers, in the snapshot        COMMIT, ROLLBACK -> HOME_NONE
 *
 * One that nobody uses for transaction-idle-timeout, that is older than transaction-timeout (both
 * but for GET /dump, whose client's patience is the connection's business), or that holds the WAL
 * back for too long (reader_watch.h) is ended when no statement of it runs; its client hears
 * ERR_TXN_LOST at its next request. Thread: loop. */
#ifndef NODE_READ_TXN_H
#define NODE_READ_TXN_H

#include "node/session.h"

/* Does R, outside of a transaction, begin one? */
bool read_txn_begins(const struct request *r);
/* R of S, whose home is the snapshot. */
void read_txn_route(struct session *s, struct request *r) ON_LOOP;
/* R came back from its reader. */
void read_txn_note(struct session *s, struct request *r) ON_LOOP;
/* Ends it; nothing of S runs in it. */
void read_txn_leave(struct session *s) ON_LOOP;
/* Ends those that are too old, or not used. */
void read_txns_timer(struct node *n, uint64_t now_ms) ON_LOOP;

#endif
