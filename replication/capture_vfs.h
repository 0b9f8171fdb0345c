/* Room: replication. The VFS of the writer's view: the database file is the real one, read only;
 * the WAL is the real one with an overlay on top; the wal-index is private.
 * Thread: owner. */
#ifndef REPLICATION_CAPTURE_VFS_H
#define REPLICATION_CAPTURE_VFS_H

#include "base/err.h"
#include "replication/overlay.h"
#include "replication/private_shm.h"
#include "replication/replication.h"

#include <sqlite3.h>

struct capture {
    struct overlay overlay;
    struct private_shm shm;
    uint64_t db_bytes;          /* of the largest sealed state that a connection may see */
    unsigned connections;       /* open database files */
    char failure[ERR_TEXT_MAX]; /* of the overlay, "" for none: nothing is written any more */
    char *db_path, *wal_path;   /* as SQLite spells them: absolute */
    sqlite3_file *wal_file;     /* borrowed: the keeper's */
    char *name;                 /* of the VFS */
    sqlite3_vfs vfs, *real;
    /* Called when no connection has a read transaction any more. */
    void (*idle)(void *ctx);
    void *idle_ctx;
};

/* Registers a VFS of its own for CONFIG's database, over BELOW (verify_vfs.h). WAL_FILE: the real
 * WAL, of which the first LOW bytes count. */
MUST_USE enum err capture_open(const struct repl_config *config, sqlite3_vfs *below,
                               sqlite3_file *wal_file, uint64_t low, struct capture **out);
/* All connections must be closed. */
void capture_close(struct capture *c);
/* ERR_IO, with its sentence, once the overlay has failed otherwise than for want of room. */
MUST_USE enum err capture_check(const struct capture *c);
/* A connection through it. The database must be in WAL mode. */
MUST_USE enum err capture_connect(struct capture *c, sqlite3 **conn);

#endif
