/* Room: base. Thread: any; blocks.
 *
 * Without base/mem.h, for liblectern uses it: no memory is ERR_NOMEM. */
#include "base/file.h"

#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum err file_error(const char *what, const char *path)
{
    int e = errno;
    enum err code = e == ENOSPC || e == EDQUOT ? ERR_FULL : e == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    return err_fail(code, "cannot %s %s: %s", what, path, strerror(e));
}

enum err file_open(const char *path, int flags, mode_t mode, int *fd)
{
    *fd = open(path, flags | O_CLOEXEC, mode);
    return *fd < 0 ? file_error("open", path) : ERR_OK;
}

enum err file_write_at(int fd, const char *path, const void *p, size_t n, uint64_t offset)
{
    const uint8_t *from = p;
    while (n > 0) {
        ssize_t done = pwrite(fd, from, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return file_error("write", path);
        from += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    return ERR_OK;
}

enum err file_read_at(int fd, const char *path, void *p, size_t n, uint64_t offset, size_t *got)
{
    uint8_t *to = p;
    *got = 0;
    while (*got < n) {
        ssize_t done = pread(fd, to + *got, n - *got, (off_t)(offset + *got));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return file_error("read", path);
        if (done == 0)
            break;
        *got += (size_t)done;
    }
    return ERR_OK;
}

enum err file_size(int fd, const char *path, uint64_t *size)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return file_error("stat", path);
    *size = (uint64_t)st.st_size;
    return ERR_OK;
}

enum err file_sync(int fd, const char *path)
{
    return fdatasync(fd) != 0 ? file_error("sync", path) : ERR_OK;
}

enum err file_sync_dir(const char *dir)
{
    int fd;
    TRY(file_open(dir, O_RDONLY | O_DIRECTORY, 0, &fd));
    enum err e = fsync(fd) != 0 ? file_error("sync directory", dir) : ERR_OK;
    (void)close(fd);
    return e;
}

enum err file_read_all(const char *path, struct buf *out)
{
    int fd;
    TRY(file_open(path, O_RDONLY, 0, &fd));
    uint64_t size = 0;
    size_t got = 0;
    enum err e = file_size(fd, path, &size);
    if (e == ERR_OK && size > 0) {
        size_t start = out->len;
        void *to = buf_extend(out, (size_t)size);
        if (to == NULL)
            e = err_fail(ERR_TOO_BIG, "%s has %llu bytes, more than is read at once", path,
                         (unsigned long long)size);
        else
            e = file_read_at(fd, path, to, (size_t)size, 0, &got);
        if (to != NULL)
            out->len = start + got;
    }
    (void)close(fd);
    return e;
}

/* The directory part of PATH, to be freed; NULL without memory. */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

enum err file_sync_dir_of(const char *path)
{
    char *dir = dir_of(path);
    if (dir == NULL)
        return err_fail(ERR_NOMEM, "out of memory");
    enum err e = file_sync_dir(dir);
    free(dir);
    return e;
}

char *file_beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *beside;
    int n = asprintf(&beside, "%.*s%s", slash == NULL ? 0 : (int)(slash - path + 1), path, name);
    CHECK(n >= 0); /* as base/mem.h has it: this one is not for the library */
    return beside;
}

bool file_is_there(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static enum err replace(const char *path, const void *p, size_t n, mode_t mode)
{
    char *temp;
    int fd = -1;
    if (asprintf(&temp, "%s.new", path) < 0)
        return err_fail(ERR_NOMEM, "out of memory");
    enum err e = file_open(temp, O_WRONLY | O_CREAT | O_TRUNC, mode, &fd);
    if (e == ERR_OK && fchmod(fd, mode) != 0) /* one of an earlier crash may be there */
        e = file_error("chmod", temp);
    if (e == ERR_OK)
        e = file_write_at(fd, temp, p, n, 0);
    if (e == ERR_OK)
        e = file_sync(fd, temp);
    if (fd >= 0 && close(fd) != 0 && e == ERR_OK)
        e = file_error("close", temp);
    if (e == ERR_OK && rename(temp, path) != 0)
        e = file_error("rename", temp);
    if (e == ERR_OK)
        e = file_sync_dir_of(path);
    free(temp);
    return e;
}

enum err file_replace(const char *path, const void *p, size_t n)
{
    return replace(path, p, n, 0644);
}

enum err file_replace_secret(const char *path, const void *p, size_t n)
{
    return replace(path, p, n, 0600);
}

/* mkdir, durable: a directory is in its parent only once that is synced. */
static enum err make_dir(const char *path)
{
    if (mkdir(path, 0755) != 0)
        return errno == EEXIST ? ERR_OK : file_error("make directory", path);
    return file_sync_dir_of(path);
}

enum err file_make_dirs(const char *path)
{
    char *part = strdup(path);
    enum err e = ERR_OK;
    if (part == NULL)
        return err_fail(ERR_NOMEM, "out of memory");
    for (char *slash = part + 1; e == ERR_OK && *slash != 0; slash++) {
        if (*slash != '/')
            continue;
        *slash = 0;
        e = make_dir(part);
        *slash = '/';
    }
    if (e == ERR_OK)
        e = make_dir(part);
    free(part);
    return e;
}
