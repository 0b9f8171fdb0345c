/* Room: consensus. The log's calls to the file system, behind a table, so that tests can fail the
 * n-th one and know what is not synced yet. Everything that changes the disk goes through here;
 * reads do not. Thread: loop before the log starts, then disk; all of them block. */
#ifndef CONSENSUS_LOG_FILE_H
#define CONSENSUS_LOG_FILE_H

#include "base/err.h"
#include "base/histogram.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* As the system calls: -1 and errno on failure. */
struct cns_log_file_calls {
    void *ctx;
    /* A new file (an old one of that name is emptied) of BYTES zeros, space allocated. Returns its
     * descriptor, open for reading and writing. */
    int (*create)(void *ctx, const char *path, uint64_t bytes);
    ssize_t (*write)(void *ctx, int fd, const void *p, size_t n, uint64_t offset);
    int (*sync)(void *ctx, int fd);
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*remove)(void *ctx, const char *path);
    int (*sync_dir)(void *ctx, const char *dir);
};

/* The calls in use, and what the syncs cost. */
struct log_files {
    const struct cns_log_file_calls *calls;
    struct histogram syncs; /* ns */
};

void log_files_init(struct log_files *f, const struct cns_log_file_calls *calls);
MUST_USE enum err log_file_create(struct log_files *f, const char *path, uint64_t bytes, int *fd);
/* All N bytes or an error. */
MUST_USE enum err log_file_write(struct log_files *f, int fd, const char *path, const void *p,
                                 size_t n, uint64_t offset);
MUST_USE enum err log_file_sync(struct log_files *f, int fd, const char *path);
MUST_USE enum err log_file_rename(struct log_files *f, const char *from, const char *to);
MUST_USE enum err log_file_remove(struct log_files *f, const char *path);
/* Tries to remove what nobody needs; a left over is removed at the next start. err_text() stays. */
void log_file_drop(struct log_files *f, const char *path);
MUST_USE enum err log_file_sync_dir(struct log_files *f, const char *dir);

/* Eight bytes that nobody can foresee. */
MUST_USE enum err log_random(uint64_t *out);

#endif
