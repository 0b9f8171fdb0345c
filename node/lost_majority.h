/* Room: node. `lecternd recover`: a cluster whose majority is lost for good goes on from one node.
 *
 * Explicit, offline, and never automatic: what only the lost majority had acknowledged is gone. */
#ifndef NODE_LOST_MAJORITY_H
#define NODE_LOST_MAJORITY_H

#include "base/err.h"
#include "base/thread.h"

#include <stdbool.h>

/* ARGV[0] is "recover". Returns the exit status: 0 done, 1 not, 2 wrong settings. */
int lost_majority_main(int argc, char **argv) ON_LOOP;
/* A recovery of DIR was begun and must be ended before the node may start. */
bool lost_majority_unfinished(const char *dir);
/* One was begun and not decided: the database of DIR may be ahead of what its cluster knows. */
bool lost_majority_given_up(const char *dir);
/* That database is gone, or right. */
MUST_USE enum err lost_majority_forget(const char *dir);

#endif
