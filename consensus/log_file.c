/* Room: consensus. Thread: loop before the log starts, then disk.
 * Owns: the counters (both threads of the log count). Invariants: a write is whole or an error.
 * Not here: what is written (log_store.c, log_meta.c). */
#include "consensus/log_file.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

static int sys_create(void *ctx, const char *path, uint64_t bytes)
{
    (void)ctx;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    /* Allocated now, so that a full disk is found here and a sync has no size to write. */
    int rc = posix_fallocate(fd, 0, (off_t)bytes);
    if (rc == 0)
        return fd;
    (void)close(fd);
    (void)unlink(path);
    errno = rc;
    return -1;
}

static ssize_t sys_write(void *ctx, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)ctx;
    return pwrite(fd, p, n, (off_t)offset);
}

static int sys_sync(void *ctx, int fd)
{
    (void)ctx;
    return fdatasync(fd);
}

static int sys_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to);
}

static int sys_remove(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path);
}

static int sys_sync_dir(void *ctx, const char *dir)
{
    (void)ctx;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return rc;
}

static const struct cns_log_file_calls system_calls = {
    .create = sys_create,
    .write = sys_write,
    .sync = sys_sync,
    .rename = sys_rename,
    .remove = sys_remove,
    .sync_dir = sys_sync_dir,
};

void log_files_init(struct log_files *f, const struct cns_log_file_calls *calls)
{
    f->calls = calls != NULL ? calls : &system_calls;
    f->syncs = (struct histogram){0};
}

enum err log_file_create(struct log_files *f, const char *path, uint64_t bytes, int *fd)
{
    *fd = f->calls->create(f->calls->ctx, path, bytes);
    return *fd < 0 ? file_error("create", path) : ERR_OK;
}

enum err log_file_write(struct log_files *f, int fd, const char *path, const void *p, size_t n,
                        uint64_t offset)
{
    const uint8_t *from = p;
    while (n > 0) {
        ssize_t done = f->calls->write(f->calls->ctx, fd, from, n, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return file_error("write", path);
        if (done == 0 || (size_t)done > n)
            return err_fail(ERR_IO, "cannot write %s at %llu: the system wrote %lld of %zu bytes",
                            path, (unsigned long long)offset, (long long)done, n);
        from += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    return ERR_OK;
}

enum err log_file_sync(struct log_files *f, int fd, const char *path)
{
    uint64_t began = clock_mono_ns();
    int rc = f->calls->sync(f->calls->ctx, fd);
    if (rc != 0)
        return file_error("sync", path);
    histogram_add_ns(&f->syncs, clock_mono_ns() - began);
    return ERR_OK;
}

enum err log_file_rename(struct log_files *f, const char *from, const char *to)
{
    return f->calls->rename(f->calls->ctx, from, to) != 0 ? file_error("rename", from) : ERR_OK;
}

enum err log_file_remove(struct log_files *f, const char *path)
{
    if (f->calls->remove(f->calls->ctx, path) != 0 && errno != ENOENT)
        return file_error("remove", path);
    return ERR_OK;
}

void log_file_drop(struct log_files *f, const char *path)
{
    (void)f->calls->remove(f->calls->ctx, path);
}

enum err log_file_sync_dir(struct log_files *f, const char *dir)
{
    return f->calls->sync_dir(f->calls->ctx, dir) != 0 ? file_error("sync directory", dir) : ERR_OK;
}

enum err log_random(uint64_t *out)
{
    if (getentropy(out, sizeof *out) != 0)
        return err_fail(ERR_IO, "the system gives no random numbers for the log");
    return ERR_OK;
}
