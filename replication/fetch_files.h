/* Room: replication. The files of a fetch and the steps between them: which name a database has,
 * and when, so that nothing is called main.db that is not whole. The database is closed. Here
 * are repl_fetch_look, install and drop of the door, too; the rest of repl_fetch_* is in fetch.c.
 * Thread: any. */
#ifndef REPLICATION_FETCH_FILES_H
#define REPLICATION_FETCH_FILES_H

#include "base/err.h"

#include <stdbool.h>

struct fetch_files {
    char *dir;
    char *db, *fetch, *fetched;           /* main.db, main.db.fetch, main.db.fetched */
    char *wal, *shm, *journal;            /* of main.db */
    char *position, *hashes;              /* beside it */
    char *db_new, *fetched_new, *pos_new; /* what a crash may have left of file_replace */
    char *hashes_new;
};

/* PATH: of main.db. */
void fetch_files_init(struct fetch_files *f, const char *path);
void fetch_files_fini(struct fetch_files *f);

/* The step from an ordinary database, or from COMPLETE, to BEGUN: main.db becomes main.db.fetch,
 * then what belonged to it is removed. The descriptor of main.db.fetch is read and write, and holds
 * SQLite's locks: nobody reads the pages while they change. When another process reads main.db, its
 * pages stay that process's and main.db.fetch begins empty. ERR_LOCKED: another process reads
 * main.db.fetch. */
MUST_USE enum err fetch_files_begin(const struct fetch_files *f, int *fd);

/* Takes the word COMPLETE back, durably, if it was given: before a page changes. */
MUST_USE enum err fetch_files_unsay(const struct fetch_files *f);

#endif
