/* Room: node. The start-up check: which entry of the log does the database contain? Thread: main.
 */
#ifndef NODE_RECOVER_H
#define NODE_RECOVER_H

#include "consensus/consensus.h"
#include "node/lane.h"

struct recovered {
    uint64_t applied; /* index of the entry whose transaction is the database's newest, 0: none */
    bool behind;      /* the log begins behind the database's sequence: entries are missing */
    bool not_ours;    /* with an error: no entry explains the content, and no file of ours does */
};

/* The node goes on from the entry after OUT->applied. ERR_DIVERGED: the database is not what the
 * log says at its sequence (damaged, or changed by another program); the sentence names the pages.
 * ERR_NOT_FOUND: the log does not reach it. */
MUST_USE enum err recover_position(struct repl_db *db, struct cns *cns,
                                   struct recovered *out) ON_LOOP;

#endif
