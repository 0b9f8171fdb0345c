/* Room: tests/cluster. A library for LD_PRELOAD: lets a node's disk fail. While the file that
 * FAULT_PLAN names is there, its lines say which calls fail, and how:
 *
 *     ERRNO CALLS PATTERN        EIO ws *.seg        EROFS wsn *node2*
 *
 * CALLS: w writes, sizes and space; s syncs; r reads; n opening to write, new and other names.
 * PATTERN: of fnmatch, for the whole path.
 *
 * Thread: any. Owns: nothing. Invariants: without a plan, every call does what it always does.
 * Not here: memory maps (SQLite's wal-index). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define PLAN_MAX 4096

static int number_of(const char *name)
{
    return strcmp(name, "EROFS") == 0 ? EROFS : strcmp(name, "ENOSPC") == 0 ? ENOSPC : EIO;
}

/* The plan's text; false: there is none now. */
static bool read_plan(char *text)
{
    const char *path = getenv("FAULT_PLAN");
    int saved = errno;
    if (path == NULL)
        return false;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        errno = saved;
        return false;
    }
    long n = syscall(SYS_read, fd, text, PLAN_MAX - 1);
    (void)syscall(SYS_close, fd);
    errno = saved;
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* The errno with which CALL fails for PATH; 0: it does not. Takes PLAN to pieces. */
static int judge(char *plan, char call, const char *path)
{
    char *line, *rest = plan;
    while ((line = strsep(&rest, "\n")) != NULL) {
        const char *name = strsep(&line, " "), *calls = strsep(&line, " ");
        if (line != NULL && strchr(calls, call) != NULL && fnmatch(line, path, 0) == 0)
            return number_of(name);
    }
    return 0;
}

/* True: the call fails, and errno is set. */
static bool path_fails(char call, const char *path)
{
    char plan[PLAN_MAX];
    int number = read_plan(plan) ? judge(plan, call, path) : 0;
    if (number != 0)
        errno = number;
    return number != 0;
}

static bool fd_fails(char call, int fd)
{
    char plan[PLAN_MAX], link[64], path[1024];
    int saved = errno;
    if (!read_plan(plan))
        return false;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    int number = judge(plan, call, path);
    errno = number != 0 ? number : saved;
    return number != 0;
}

/* --- the calls -------------------------------------------------------------------------------- */

static int open_if_allowed(const char *path, int flags, mode_t mode)
{
    bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0;
    if (changes && path_fails('n', path))
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* The mode is there only when a file may be made. */
#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;             \
        va_end(args);                                                                              \
        return open_if_allowed(path, flags, mode);                                                 \
    }
OPEN(open)
OPEN(open64)

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
    return fd_fails('w', fd) ? -1 : syscall(SYS_pwrite64, fd, p, n, offset);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t offset)
{
    return pwrite(fd, p, n, offset);
}

ssize_t write(int fd, const void *p, size_t n)
{
    return fd_fails('w', fd) ? -1 : syscall(SYS_write, fd, p, n);
}

ssize_t pread(int fd, void *p, size_t n, off_t offset)
{
    return fd_fails('r', fd) ? -1 : syscall(SYS_pread64, fd, p, n, offset);
}

ssize_t pread64(int fd, void *p, size_t n, off_t offset)
{
    return pread(fd, p, n, offset);
}

int ftruncate(int fd, off_t size)
{
    return fd_fails('w', fd) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
    return fd_fails('w', fd) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, n);
}

int posix_fallocate(int fd, off_t offset, off_t n)
{
    int saved = errno, rc = fallocate(fd, 0, offset, n) == 0 ? 0 : errno;
    errno = saved;
    return rc;
}

int fsync(int fd)
{
    return fd_fails('s', fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fd_fails('s', fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int rename(const char *from, const char *to)
{
    return path_fails('n', to) ? -1 : (int)syscall(SYS_rename, from, to);
}

int unlink(const char *path)
{
    return path_fails('n', path) ? -1 : (int)syscall(SYS_unlink, path);
}
