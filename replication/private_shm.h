/* Room: replication. The wal-index of the writer's view: heap memory and a lock table shared by
 * the view's connections, in place of the -shm file: https://www.sqlite.org/walformat.html.
 * Thread: owner. */
#ifndef REPLICATION_PRIVATE_SHM_H
#define REPLICATION_PRIVATE_SHM_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct private_shm {
    uint8_t **regions; /* NULL where none was asked for */
    int n_regions;
    size_t region_bytes;               /* the same for all */
    unsigned shared[SQLITE_SHM_NLOCK]; /* connections that hold it shared */
    bool exclusive[SQLITE_SHM_NLOCK];
};

/* One connection's part. */
struct private_shm_conn {
    struct private_shm *shm;
    unsigned shared, exclusive; /* bit i: holds lock i */
};

void private_shm_fini(struct private_shm *s);

/* As sqlite3_io_methods has them; SQLITE_BUSY when another connection is in the way. A checkpoint
 * always finds its lock busy: the view never checkpoints. */
int private_shm_map(struct private_shm *s, int region, int bytes, int extend, volatile void **out);
int private_shm_lock(struct private_shm_conn *c, int first, int n, int flags);
void private_shm_unlock_all(struct private_shm_conn *c);

/* What the last commit in the view left. */
struct private_shm_state {
    uint32_t frames, pages; /* pages: 0 when the WAL says nothing */
    uint32_t chain[2];
    uint32_t salt[2];
};
/* False: nobody has initialised it yet. */
bool private_shm_read(const struct private_shm *s, struct private_shm_state *out);
/* Corrects the checksum after the last frame. Connections see a changed index and read again. */
void private_shm_set_chain(struct private_shm *s, const uint32_t chain[2]);
bool private_shm_write_locked(const struct private_shm *s);
/* A connection has a read transaction. */
bool private_shm_reading(const struct private_shm *s);
/* Says that all frames are in the database file: the next writer begins a new WAL. */
void private_shm_all_backfilled(struct private_shm *s);

#endif
