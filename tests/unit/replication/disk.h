/* Room: tests. A disk that dies, loses what was not synced, or fails: this program's own pwrite,
 * fdatasync, ... stand before the C library's, for SQLite's calls as well. Off until disk_arm.
 * Thread: arm and disarm: one, with no other thread at the files; the calls: any. */
#ifndef TESTS_UNIT_REPLICATION_DISK_H
#define TESTS_UNIT_REPLICATION_DISK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define DISK_DIED 42 /* exit status */

enum disk_end {
    DISK_KILL,  /* the process ends; what was written is in the files */
    DISK_POWER, /* of what was written since a file's last sync, any part is lost */
    DISK_FAIL,  /* this call and all later ones fail, with ENOSPC or EIO */
    DISK_FULL,  /* this write and all later ones fail with ENOSPC, until it is disarmed */
};

/* Counts in *CALLS from now on, and ends before or just after call number N. SEED: of what is lost.
 */
void disk_arm(enum disk_end end, long n, uint64_t seed, _Atomic long *calls);
/* From the next disk_arm on only writes and syncs of files whose path ends so count; NULL: all do.
 */
void disk_count_only(const char *suffix);
/* DISK_FAIL and DISK_FULL from the next disk_arm on: only files whose path ends so are hit; NULL:
 * all are. */
void disk_only_fails(const char *suffix);
void disk_disarm(void);
/* From now on reads of BYTES from OFFSET on, of files whose path ends so, fail with EIO until those
 * bytes are written: a bad sector. SUFFIX lives on; NULL: no more. */
void disk_spoil(const char *suffix, uint64_t offset, uint64_t bytes);
/* Syncs are promised and not done: for tests that end processes, not machines. For good. */
void disk_skip_syncs(void);

#endif
