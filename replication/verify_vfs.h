/* Room: replication. A VFS over the unix one that compares what is read with its hash: a page from
 * main.db with what main.db should hold, a page from the WAL with its frame's (stored.h). A page
 * that differs is SQLITE_IOERR_DATA for who reads it, never content. All connections of this
 * process on the database use it; locks and shared memory are the unix VFS's own.
 * Thread: any; open and close: owner. */
#ifndef REPLICATION_VERIFY_VFS_H
#define REPLICATION_VERIFY_VFS_H

#include "replication/replication.h"
#include "replication/stored.h"

#include <sqlite3.h>

struct verify_vfs;

/* CONFIG (with the database's page size) and S are borrowed. Nothing is compared before stored_arm.
 */
MUST_USE enum err verify_vfs_open(const struct repl_config *config, struct stored *s,
                                  struct verify_vfs **out);
/* All its files must be closed. */
void verify_vfs_close(struct verify_vfs *v);
/* Registered: for sqlite3_open_v2 by its name, or under another VFS (szOsFile, xOpen). It compares
 * in files that are opened as SQLITE_OPEN_MAIN_DB and SQLITE_OPEN_WAL under the database's names;
 * all others are the unix VFS's. */
sqlite3_vfs *verify_vfs_of(struct verify_vfs *v);
/* The unix VFS's file in one that this VFS opened, for reading what is there. */
sqlite3_file *verify_vfs_raw(sqlite3_file *f);

#endif
