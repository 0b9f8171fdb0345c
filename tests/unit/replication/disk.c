/* Room: tests. Thread: any.
 *
 * Every changing call passes a gate, one at a time. For a loss of power each unsynced write is
 * kept with what was there before: all are undone, then some are done again, in their order: none,
 * a first part, or any subset, the last of them torn at a sector. */
#include "tests/unit/replication/disk.h"

#include "base/mem.h"
#include "base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SECTOR     512
#define PATH_BYTES 300

/* --- losing power ------------------------------------------------------------------------------
 */

struct op {
    struct op *next; /* newest first */
    char path[PATH_BYTES];
    bool cut; /* else a write */
    uint64_t offset, size_before;
    size_t n, n_old;
    uint8_t *bytes, *old; /* old: what was there, up to the end of the file then */
};

static struct {
    _Atomic bool no_sync;
    _Atomic bool armed;
    pthread_mutex_t gate;
    long left; /* calls before the end */
    enum disk_end end;
    const char *only; /* the end of the paths that count; NULL: all */
    bool failing;
    struct rng rng;
    struct op *ops; /* not synced */
    _Atomic long *calls;
} disk = {.gate = PTHREAD_MUTEX_INITIALIZER};

static void fd_path(int fd, char path[PATH_BYTES])
{
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_BYTES - 1);
    path[n > 0 ? n : 0] = 0;
}

static bool ends_with(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n >= m && strcmp(path + n - m, suffix) == 0;
}

static void raw_write(const char *path, const uint8_t *p, size_t n, uint64_t offset)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return; /* removed since */
    (void)syscall(SYS_pwrite64, fd, p, n, offset);
    (void)close(fd);
}

static void raw_cut(const char *path, uint64_t size)
{
    if (syscall(SYS_truncate, path, size) != 0 && errno != ENOENT)
        _exit(1);
}

/* Before bytes [offset, offset + n) of FD change; BYTES is NULL for a cut to `offset`. */
static void note_op(int fd, const uint8_t *bytes, size_t n, uint64_t offset)
{
    struct stat st;
    struct op *o = mem_zalloc(sizeof *o);
    fd_path(fd, o->path);
    if (disk.end != DISK_POWER || ends_with(o->path, "-shm") || fstat(fd, &st) != 0) {
        free(o);
        return;
    }
    o->cut = bytes == NULL;
    o->offset = offset;
    o->size_before = (uint64_t)st.st_size;
    if (o->cut)
        n = o->size_before > offset ? (size_t)(o->size_before - offset) : 0;
    o->n = n;
    o->old = mem_zalloc(n + 1);
    ssize_t got = pread(fd, o->old, n, (off_t)offset);
    if (got < 0) { /* opened for writing only: a new file */
        got = 0;
    }
    o->n_old = (size_t)got;
    if (bytes != NULL) {
        o->bytes = mem_alloc(n + 1);
        memcpy(o->bytes, bytes, n);
    }
    o->next = disk.ops;
    disk.ops = o;
}

static void note_sync(int fd)
{
    char path[PATH_BYTES];
    fd_path(fd, path);
    struct op **at = &disk.ops;
    while (*at != NULL) {
        struct op *o = *at;
        if (strcmp(o->path, path) != 0) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        free(o->bytes);
        free(o->old);
        free(o);
    }
}

static void undo(const struct op *o)
{
    raw_write(o->path, o->old, o->n_old, o->offset);
    raw_cut(o->path, o->size_before);
}

static void redo(const struct op *o, bool torn)
{
    size_t n = o->n;
    if (o->cut) {
        raw_cut(o->path, o->offset);
        return;
    }
    if (torn) {
        uint64_t end = o->offset + rng_below(&disk.rng, n + 1);
        end -= end % SECTOR;
        n = end > o->offset ? (size_t)(end - o->offset) : 0;
    }
    raw_write(o->path, o->bytes, n, o->offset);
}

/* Takes all unsynced operations back, and does some of them again, in their order. The files are
 * judged one by one. */
static void lose_power(void)
{
    struct op *oldest = NULL;
    for (struct op *o = disk.ops, *next; o != NULL; o = next) {
        undo(o);
        next = o->next;
        o->next = oldest;
        oldest = o;
    }
    uint64_t mood = rng_u64(&disk.rng);
    for (struct op *o = oldest; o != NULL; o = o->next) {
        size_t len = strlen(o->path);
        uint64_t how = (mood >> (len % 8 * 8)) % 4; /* main.db, its WAL and position differ */
        if (how == 0)
            continue;
        if (how == 1 && rng_once_in(&disk.rng, 6)) { /* a first part: from here on nothing */
            redo(o, true);
            mood &= ~(0xffull << (len % 8 * 8));
        } else if (how < 3 || !rng_once_in(&disk.rng, 3)) {
            redo(o, how == 2 && rng_once_in(&disk.rng, 4));
        }
    }
}

/* With the gate held: other threads wait there until the process is gone. */
_Noreturn static void die(void)
{
    if (disk.end == DISK_POWER)
        lose_power();
    _exit(DISK_DIED);
}

static void count_call(int fd)
{
    char path[PATH_BYTES] = "";
    if (disk.only != NULL && fd >= 0)
        fd_path(fd, path);
    if (disk.only != NULL && !ends_with(path, disk.only))
        return;
    (void)atomic_fetch_add(disk.calls, 1);
    if (--disk.left > 0)
        return;
    if (disk.end == DISK_FAIL)
        disk.failing = true;
    else if (rng_once_in(&disk.rng, 2))
        die();
}

enum gate { OFF, COUNTED, FAILED };

/* FD: -1 when there is none. A disk that failed goes on failing. */
static enum gate enter(int fd)
{
    if (!atomic_load(&disk.armed))
        return OFF;
    (void)pthread_mutex_lock(&disk.gate);
    count_call(fd);
    if (!disk.failing)
        return COUNTED;
    errno = rng_once_in(&disk.rng, 2) ? ENOSPC : EIO;
    return FAILED;
}

static void leave(enum gate g)
{
    int kept = errno;
    if (g == COUNTED && disk.left <= 0)
        die();
    if (g != OFF)
        (void)pthread_mutex_unlock(&disk.gate);
    errno = kept;
}

void disk_arm(enum disk_end end, long n, uint64_t seed, _Atomic long *calls)
{
    disk.end = end;
    disk.left = n;
    disk.failing = false;
    disk.rng.state = seed;
    disk.calls = calls;
    atomic_store(&disk.armed, true);
}

void disk_count_only(const char *suffix)
{
    disk.only = suffix;
}

void disk_disarm(void)
{
    atomic_store(&disk.armed, false);
}

void disk_skip_syncs(void)
{
    atomic_store(&disk.no_sync, true);
}

/* --- in the C library's place ----------------------------------------------------------------- */

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset);
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset);
int fsync(int fd);
int fdatasync(int fd);
int ftruncate64(int fd, off64_t size);
int rename(const char *from, const char *to);
int unlink(const char *path);

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset)
{
    enum gate g = enter(fd);
    if (g == COUNTED)
        note_op(fd, p, n, (uint64_t)offset);
    ssize_t done = g == FAILED ? -1 : syscall(SYS_pwrite64, fd, p, n, offset);
    leave(g);
    return done;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
    return pwrite64(fd, p, n, offset);
}

static int sync_fd(int fd, long number)
{
    enum gate g = enter(fd);
    if (g == COUNTED)
        note_sync(fd);
    int rc = g == FAILED ? -1 : atomic_load(&disk.no_sync) ? 0 : (int)syscall(number, fd);
    leave(g);
    return rc;
}

int fsync(int fd)
{
    return sync_fd(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_fd(fd, SYS_fdatasync);
}

int ftruncate64(int fd, off64_t size)
{
    enum gate g = enter(fd);
    if (g == COUNTED)
        note_op(fd, NULL, 0, (uint64_t)size);
    int rc = g == FAILED ? -1 : (int)syscall(SYS_ftruncate, fd, size);
    leave(g);
    return rc;
}

/* The directory is synced after each by the code under test; its loss is not simulated. */
int rename(const char *from, const char *to)
{
    enum gate g = enter(-1);
    int rc = g == FAILED ? -1 : (int)syscall(SYS_rename, from, to);
    leave(g);
    return rc;
}

int unlink(const char *path)
{
    enum gate g = enter(-1);
    int rc = g == FAILED ? -1 : (int)syscall(SYS_unlink, path);
    leave(g);
    return rc;
}
