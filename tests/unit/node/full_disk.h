/* Room: tests. A disk that fills up and has room again: this program's own pwrite stands before the
 * C library's, for SQLite's calls as well. Thread: any. */
#ifndef TESTS_UNIT_NODE_FULL_DISK_H
#define TESTS_UNIT_NODE_FULL_DISK_H

#include <stdbool.h>

/* From now on writes to all files fail with ENOSPC, or succeed again. */
void full_disk(bool full);

#endif
