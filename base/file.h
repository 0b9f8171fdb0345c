/* Room: base. Files, whole or not at all. Every failure names the file and errno's text; ENOSPC and
 * EDQUOT are ERR_FULL, ENOENT is ERR_NOT_FOUND, the rest ERR_IO. Thread: any, but they block: never
 * the loop after start-up. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The error for errno after WHAT (for example "write") on PATH. */
enum err file_error(const char *what, const char *path);
/* open(2) with O_CLOEXEC. */
MUST_USE enum err file_open(const char *path, int flags, mode_t mode, int *fd);
MUST_USE enum err file_write_at(int fd, const char *path, const void *p, size_t n, uint64_t offset);
/* Reads up to N bytes, fewer only at the end of the file. */
MUST_USE enum err file_read_at(int fd, const char *path, void *p, size_t n, uint64_t offset,
                               size_t *got);
MUST_USE enum err file_size(int fd, const char *path, uint64_t *size);
MUST_USE enum err file_sync(int fd, const char *path);
MUST_USE enum err file_sync_dir(const char *dir);
/* Syncs the directory that holds PATH's name. */
MUST_USE enum err file_sync_dir_of(const char *path);
/* The path of NAME in the directory that holds PATH; to be freed. Aborts without memory. */
char *file_beside(const char *path, const char *name);
/* There is something of that name, and it can be looked at. */
bool file_is_there(const char *path);
/* Appends the whole file; ERR_TOO_BIG when it does not fit OUT's maximum. */
MUST_USE enum err file_read_all(const char *path, struct buf *out);
/* Replaces PATH by N bytes so that a crash leaves the old or the new content: temporary file, sync,
 * rename, sync of the directory. */
MUST_USE enum err file_replace(const char *path, const void *p, size_t n);
/* The same, for its owner's eyes only: mode 0600 from the first byte on. */
MUST_USE enum err file_replace_secret(const char *path, const void *p, size_t n);
/* mkdir -p. */
MUST_USE enum err file_make_dirs(const char *path);

#endif
