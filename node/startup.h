/* Room: node. What a start finds in the data directory, and what it does about it: the table of
 * docs/STORAGE.md. Thread: main, before the loop runs; blocks. */
#ifndef NODE_STARTUP_H
#define NODE_STARTUP_H

#include "node/node.h"

/* What a fetch has left for this start: the state in which raft/ begins (or goes on). */
struct startup {
    bool complete; /* main.db.fetched says so */
    bool begun;    /* main.db.fetch has some pages, and there is no main.db */
    bool given_up; /* a recovery (lost_majority.c): main.db may be ahead of the cluster */
    struct cns_snapshot base; /* complete: members is a reference of ours */
};

/* Before consensus is opened. ERR_*: what lies there is damaged, and the sentence says what. */
MUST_USE enum err startup_look(const struct config *c, struct startup *s);
void startup_fini(struct startup *s);

/* After consensus was opened (n->cns; NULL: a node that joins, and has no log yet). Opens n->lane
 * and finds its place in the log, *applied; or leaves n->lane NULL: this node must fetch its
 * database, n->past->reason says why. ERR_*: neither, and the sentence says what to do. */
MUST_USE enum err startup_database(struct node *n, struct startup *s, uint64_t *applied) ON_LOOP;

/* Could another node's database be fetched here? */
bool startup_may_fetch(const struct node *n) ON_LOOP;

#endif
