/* Room: node. What SQL may not do here, and the sentence that says why (SQLite's authorizer).
 *
 * Connections are shared by clients one after the other and the files belong to replication/: so
 * nothing that changes a connection for the next client, or touches files, or the WAL, is let
 * through. Thread: the connection's. */
#ifndef NODE_GUARD_H
#define NODE_GUARD_H

#include <sqlite3.h>
#include <stdbool.h>

struct guard {
    /* The reason of the last refusal, "" when there was none since guard_reset. */
    char reason[256];
    bool vacuum; /* VACUUM attaches a temporary database of its own: let it, while set */
    /* Set while a client's text is prepared where the transaction is shared with others. */
    bool no_transaction_control;
};

void guard_install(struct guard *g, sqlite3 *conn);
void guard_reset(struct guard *g);

#endif
