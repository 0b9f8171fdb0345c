/* Room: node. How many bytes of memory wait in a node for others: requests that are not answered,
 * frames that came in part, answers that their clients do not take. One sum over all connections,
 * with one limit (waiting-bytes): a limit of each connection alone is none when there are ten
 * thousand.
 *
 * What a connection holds decides how much of the room it sees:
 *   up to WAITING_SHARE        all, and beyond the limit: one request always has a place
 *   up to WAITING_MODEST       all of it
 *   more                       three quarters: the greedy leave a quarter to the others
 * Who is refused lets go at once of what it holds, so that the others have it: of many that grow
 * side by side only as many fail as there is no room for.
 * Thread: loop. */
#ifndef NODE_WAITING_H
#define NODE_WAITING_H

#include "base/sizes.h"
#include "base/thread.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAITING_SHARE  KIB(128)
#define WAITING_MODEST MIB(1)
/* A frame, alone, is below three quarters of it. */
#define WAITING_LIMIT_MIN MIB(128)
#define WAITING_LIMIT_MAX MIB(1048576)

struct waiting {
    size_t bytes, limit;
    size_t last; /* the limit, and a share for each of the connections that may be there */
};

void waiting_init(struct waiting *w, size_t limit, size_t connections_max) ON_LOOP;
/* *COUNTED bytes of somebody are in the sum: from now on NOW of them. */
void waiting_set(struct waiting *w, size_t *counted, size_t now) ON_LOOP;
/* May somebody who holds OWN bytes of the sum hold MORE? */
bool waiting_has_room(const struct waiting *w, size_t own, size_t more) ON_LOOP;

#endif
