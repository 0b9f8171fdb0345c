/* Room: replication. The public wal-index (shared memory) of a database in WAL mode, through the
 * keeper connection's sqlite3_file: https://www.sqlite.org/walformat.html. Only the holder of the
 * WRITE lock calls the functions that change it. Thread: owner. */
#ifndef REPLICATION_WAL_INDEX_H
#define REPLICATION_WAL_INDEX_H

#include "base/err.h"
#include "replication/wal_format.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

/* Locks of sqlite3_file's xShmLock. */
#define WAL_LOCK_WRITE      0
#define WAL_LOCK_CHECKPOINT 1
#define WAL_LOCK_RECOVER    2
#define WAL_LOCK_READ(i)    (3 + (i)) /* i = 0..4 */
#define WAL_READERS         5

struct wal_index; /* maps regions as they are needed */

/* DB: the keeper's database file (SQLITE_FCNTL_FILE_POINTER), open for as long as this object. The
 * index must be valid (SQLite recovered it). */
MUST_USE enum err wal_index_open(sqlite3_file *db, uint32_t page_size, struct wal_index **out);
void wal_index_close(struct wal_index *x);

/* The published header. `salt` is in the words of struct wal_header. page_size is 0 as long as the
 * WAL is empty and nothing was ever published through this wal-index (pages is 0 then, too). */
struct wal_index_state {
    uint32_t frames, pages, page_size, salt[2];
    uint32_t chain[2];   /* aFrameCksum */
    uint32_t backfilled; /* nBackfill */
    uint32_t change;     /* iChange */
};
/* ERR_CORRUPT: the two copies differ or their checksum is wrong. */
MUST_USE enum err wal_index_read(struct wal_index *x, struct wal_index_state *out);
/* Adds frame FRAME (= published frames + 1, + 2, ..., without gaps) for PAGE_NO to the hash tables;
 * not yet visible. Old entries beyond the published frames are cleared first, as SQLite's own
 * walCleanupHash does. */
MUST_USE enum err wal_index_append(struct wal_index *x, uint32_t frame, uint32_t page_no);
/* Makes room for the frames up to LAST, so that wal_index_append cannot fail for want of it.
 * ERR_FULL: the disk is. Nothing that anybody sees changes. */
MUST_USE enum err wal_index_reserve(struct wal_index *x, uint32_t last);
/* The word nBackfill in the shared memory, valid as long as the keeper's connection: for atomic
 * loads on any thread. */
const uint32_t *wal_index_backfilled(struct wal_index *x);
/* Makes frames visible: header copy 2, barrier, copy 1. FRAMES: the new last one, all appended.
 * CHAIN: after the last frame. */
void wal_index_publish(struct wal_index *x, uint32_t frames, uint32_t pages,
                       const uint32_t chain[2]);
/* A new WAL (the caller holds READ locks 1..4 exclusively): no frames, these salts, nBackfill 0,
 * read marks as SQLite's walRestartHdr leaves them. Visible at once; the database size stays. All
 * published frames must be backfilled (checked: anything else loses pages). Also for the very first
 * WAL of a database. */
void wal_index_restart(struct wal_index *x, const uint32_t salt[2]);
/* Before frames are added to an index that outlived its writer: more frames copied than there are
 * is what a kill inside wal_index_restart leaves; then none is. The caller holds WRITE and
 * CHECKPOINT. True: it was so. */
bool wal_index_finish_restart(struct wal_index *x);
/* Newest frame <= LIMIT that holds PAGE_NO, 0 when it is in the database file. */
MUST_USE enum err wal_index_find(struct wal_index *x, uint32_t page_no, uint32_t limit,
                                 uint32_t *frame);
MUST_USE enum err wal_lock(sqlite3_file *db, int first, int n,
                           bool exclusive); /* ERR_LOCKED: busy */
void wal_unlock(sqlite3_file *db, int first, int n, bool exclusive);

#endif
