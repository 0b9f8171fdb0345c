/* Room: tests/power. A library for LD_PRELOAD: writes down everything that a process does to the
 * files below POWER_DIR, in order, into the file POWER_TRACE (appended: a restarted process goes on
 * in the same trace). replay.py makes of it what a disk may hold after a power cut.
 *
 * Thread: any. Owns: the trace. Invariants: the order of the records is an order in which the calls
 * could have happened (one lock around each call and its record; a sync has two records, so that
 * writes beside it are seen as such). Not here: memory maps. The only one is SQLite's wal-index,
 * which counts nothing after a power cut.
 *
 * A record: u8 op, u64 inode, u64 CLOCK_MONOTONIC ns, u64 a, u64 b, u32 n, n bytes (native order).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum op {
    OP_CREATE = 1, /* bytes: path */
    OP_OPEN,       /* bytes: path; a file or directory that was there */
    OP_WRITE,      /* a: offset */
    OP_RESIZE,     /* a: new size */
    OP_ALLOCATE,   /* a: offset, b: length; zeros, the size grows */
    OP_SYNC_BEGIN, /* a: number */
    OP_SYNC_END,   /* a: number; what was written before its begin is durable */
    OP_RENAME,     /* bytes: from, zero, to */
    OP_REMOVE,     /* bytes: path */
    OP_MKDIR       /* bytes: path */
};

struct __attribute__((packed)) record {
    uint8_t op;
    uint64_t inode, ns, a, b;
    uint32_t n;
};

#define FDS_MAX 65536
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace_fd = -1;
static const char *root;
static size_t root_len;
static bool watched[FDS_MAX];
static uint64_t syncs;

static void die(const char *what)
{
    (void)dprintf(2, "power recorder: %s: %s\n", what, strerror(errno));
    abort();
}

static void __attribute__((constructor)) start(void)
{
    const char *path = getenv("POWER_TRACE");
    root = getenv("POWER_DIR");
    if (path == NULL || root == NULL)
        return;
    root_len = strlen(root);
    trace_fd =
        (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (trace_fd < 0)
        die("open the trace");
}

static bool is_ours(const char *path)
{
    return trace_fd >= 0 && strncmp(path, root, root_len) == 0 &&
           (path[root_len] == '/' || path[root_len] == '\0');
}

static bool is_watched(int fd)
{
    return fd >= 0 && fd < FDS_MAX && watched[fd];
}

static uint64_t inode_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        die("fstat");
    return st.st_ino;
}

static void put(enum op op, uint64_t inode, uint64_t a, uint64_t b, const void *p, size_t n)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    struct record r = {.op = (uint8_t)op,
                       .inode = inode,
                       .ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
                       .a = a,
                       .b = b,
                       .n = (uint32_t)n};
    struct iovec v[2] = {{&r, sizeof r}, {(void *)(uintptr_t)p, n}};
    int saved = errno;
    if (syscall(SYS_writev, trace_fd, v, n > 0 ? 2 : 1) != (long)(sizeof r + n))
        die("write the trace");
    errno = saved;
}

static int record_open(const char *path, int flags, mode_t mode)
{
    struct stat st;
    (void)pthread_mutex_lock(&lock);
    bool there = stat(path, &st) == 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < FDS_MAX) {
        uint64_t inode = inode_of(fd);
        watched[fd] = true;
        put(there ? OP_OPEN : OP_CREATE, inode, 0, 0, path, strlen(path));
        if ((flags & O_TRUNC) != 0 && there)
            put(OP_RESIZE, inode, 0, 0, NULL, 0);
    }
    (void)pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        mode_t mode = 0;                                                                           \
        if ((flags & (O_CREAT | O_TMPFILE)) != 0) {                                                \
            va_list v;                                                                             \
            va_start(v, flags);                                                                    \
            mode = va_arg(v, mode_t);                                                              \
            va_end(v);                                                                             \
        }                                                                                          \
        if (is_ours(path))                                                                         \
            return record_open(path, flags, mode);                                                 \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);                              \
    }
OPEN(open)
OPEN(open64)

int close(int fd)
{
    (void)pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS_MAX)
        watched[fd] = false;
    int rc = (int)syscall(SYS_close, fd);
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

static ssize_t record_write(int fd, const void *p, size_t n, off_t offset)
{
    (void)pthread_mutex_lock(&lock);
    ssize_t got = syscall(SYS_pwrite64, fd, p, n, offset);
    if (got > 0)
        put(OP_WRITE, inode_of(fd), (uint64_t)offset, 0, p, (size_t)got);
    (void)pthread_mutex_unlock(&lock);
    return got;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
    return is_watched(fd) ? record_write(fd, p, n, offset)
                          : syscall(SYS_pwrite64, fd, p, n, offset);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t offset)
{
    return pwrite(fd, p, n, offset);
}

ssize_t write(int fd, const void *p, size_t n)
{
    if (!is_watched(fd))
        return syscall(SYS_write, fd, p, n);
    (void)pthread_mutex_lock(&lock);
    off_t at = lseek(fd, 0, SEEK_CUR);
    if ((fcntl(fd, F_GETFL) & O_APPEND) != 0)
        at = lseek(fd, 0, SEEK_END);
    ssize_t got = syscall(SYS_write, fd, p, n);
    if (got > 0)
        put(OP_WRITE, inode_of(fd), (uint64_t)at, 0, p, (size_t)got);
    (void)pthread_mutex_unlock(&lock);
    return got;
}

/* Nobody in Lectern writes its files with these: better loud than wrong. */
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t offset)
{
    if (is_watched(fd)) {
        errno = ENOSYS;
        die("pwritev is not recorded");
    }
    return syscall(SYS_pwritev, fd, v, n, offset, 0);
}

int ftruncate(int fd, off_t size)
{
    (void)pthread_mutex_lock(&lock);
    int rc = (int)syscall(SYS_ftruncate, fd, size);
    if (rc == 0 && is_watched(fd))
        put(OP_RESIZE, inode_of(fd), (uint64_t)size, 0, NULL, 0);
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

static int record_allocate(int fd, off_t offset, off_t n)
{
    (void)pthread_mutex_lock(&lock);
    int rc = (int)syscall(SYS_fallocate, fd, 0, offset, n);
    if (rc == 0 && is_watched(fd))
        put(OP_ALLOCATE, inode_of(fd), (uint64_t)offset, (uint64_t)n, NULL, 0);
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
    if (mode != 0 && is_watched(fd)) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return mode == 0 ? record_allocate(fd, offset, n)
                     : (int)syscall(SYS_fallocate, fd, mode, offset, n);
}

int fallocate64(int fd, int mode, off_t offset, off_t n)
{
    return fallocate(fd, mode, offset, n);
}

int posix_fallocate(int fd, off_t offset, off_t n)
{
    return record_allocate(fd, offset, n) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off_t offset, off_t n)
{
    return posix_fallocate(fd, offset, n);
}

static int record_sync(int fd, long call)
{
    if (!is_watched(fd))
        return (int)syscall(call, fd);
    (void)pthread_mutex_lock(&lock);
    uint64_t number = ++syncs, inode = inode_of(fd);
    put(OP_SYNC_BEGIN, inode, number, 0, NULL, 0);
    (void)pthread_mutex_unlock(&lock);
    int rc = (int)syscall(call, fd);
    (void)pthread_mutex_lock(&lock);
    if (rc == 0)
        put(OP_SYNC_END, inode, number, 0, NULL, 0);
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

int fsync(int fd)
{
    return record_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return record_sync(fd, SYS_fdatasync);
}

int rename(const char *from, const char *to)
{
    (void)pthread_mutex_lock(&lock);
    int rc = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (rc == 0 && is_ours(from)) {
        char both[8192];
        int n = snprintf(both, sizeof both, "%s%c%s", from, '\0', to);
        put(OP_RENAME, 0, 0, 0, both, (size_t)n);
    }
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

int unlink(const char *path)
{
    (void)pthread_mutex_lock(&lock);
    int rc = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (rc == 0 && is_ours(path))
        put(OP_REMOVE, 0, 0, 0, path, strlen(path));
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

int remove(const char *path)
{
    return unlink(path);
}

int mkdir(const char *path, mode_t mode)
{
    (void)pthread_mutex_lock(&lock);
    int rc = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (rc == 0 && is_ours(path))
        put(OP_MKDIR, 0, 0, 0, path, strlen(path));
    (void)pthread_mutex_unlock(&lock);
    return rc;
}
