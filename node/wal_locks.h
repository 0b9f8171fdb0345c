/* Room: node. Which other processes have read locks on the database's shared memory (`-shm`): from
 * /proc/locks, since asking the file itself would drop our own locks. Thread: any; blocks. */
#ifndef NODE_WAL_LOCKS_H
#define NODE_WAL_LOCKS_H

#include "base/err.h"

struct wal_lock_owner {
    long pid;         /* 0: in another container, whose processes we cannot see */
    char command[32]; /* its name; "?" when it is not told */
};

/* Fills OWNERS, at most MAX of them; *n is how many were found. Our own process is not among them.
 * ERR_NOT_FOUND, ERR_IO: /proc or the file cannot be read. */
MUST_USE enum err wal_locks_of_others(const char *shm_path, struct wal_lock_owner *owners,
                                      unsigned max, unsigned *n);

#endif
