/* Room: tests. Thread: any.
 *
 * Every changing call passes a gate, one at a time. For a loss of power each unsynced write is
 * kept with what was there before: all are undone, then some are done again, in their order: none,
 * a first part, or any subset, the last of them torn at a sector. Renames and removals whose
 * directory was not synced after them are undone likewise, and some are done again: a first part,
 * or any. */
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

enum op_kind { OP_WRITE, OP_CUT, OP_RENAME, OP_UNLINK };

struct op {
    struct op *next; /* newest first */
    enum op_kind kind;
    char path[PATH_BYTES]; /* as it was then */
    /* Rename: the new name. Rename and unlink: a second name of what had it before, or "". */
    char to[PATH_BYTES], kept[PATH_BYTES];
    ino_t inode; /* write, cut */
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
    const char *only;       /* the end of the paths that count; NULL: all */
    const char *only_fails; /* the end of the paths that fail; NULL: all */
    bool failing;
    struct rng rng;
    struct op *ops; /* not synced */
    _Atomic long *calls;
    /* The bad sector. */
    _Atomic bool spoiled;
    const char *spoiled_file;
    uint64_t spoiled_from, spoiled_to;
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

static void drop_op(struct op *o)
{
    if (o->kept[0] != 0)
        (void)syscall(SYS_unlink, o->kept);
    free(o->bytes);
    free(o->old);
    free(o);
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
    o->kind = bytes == NULL ? OP_CUT : OP_WRITE;
    o->inode = st.st_ino;
    o->offset = offset;
    o->size_before = (uint64_t)st.st_size;
    if (o->kind == OP_CUT)
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

/* Before PATH gets another name, TO, or none (NULL). */
static void note_name(const char *path, const char *to)
{
    static unsigned n;
    size_t len = strlen(path);
    if (disk.end != DISK_POWER || path[0] != '/' || ends_with(path, "-shm") ||
        len > PATH_BYTES - 30)
        return;
    struct op *o = mem_zalloc(sizeof *o);
    const char *lost = to == NULL ? path : to;
    o->kind = to == NULL ? OP_UNLINK : OP_RENAME;
    (void)snprintf(o->path, sizeof o->path, "%s", path);
    (void)snprintf(o->to, sizeof o->to, "%s", to == NULL ? "" : to);
    (void)snprintf(o->kept, sizeof o->kept, "%.250s.kept-%u", lost, n++);
    if (syscall(SYS_link, lost, o->kept) != 0)
        o->kept[0] = 0;
    o->next = disk.ops;
    disk.ops = o;
}

static bool in_directory(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && path[n] == '/' && strchr(path + n + 1, '/') == NULL;
}

/* FD is synced: what was done to that file, or to the names in that directory, is safe. */
static void note_sync(int fd)
{
    struct stat st;
    char path[PATH_BYTES];
    fd_path(fd, path);
    if (fstat(fd, &st) != 0)
        return;
    struct op **at = &disk.ops;
    while (*at != NULL) {
        struct op *o = *at;
        bool is_name = o->kind == OP_RENAME || o->kind == OP_UNLINK;
        if (is_name ? !in_directory(o->path, path) : o->inode != st.st_ino) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        drop_op(o);
    }
}

static void undo(const struct op *o)
{
    if (o->kind == OP_RENAME)
        (void)syscall(SYS_rename, o->to, o->path);
    if (o->kept[0] != 0)
        (void)syscall(SYS_rename, o->kept, o->kind == OP_RENAME ? o->to : o->path);
    if (o->kind == OP_RENAME || o->kind == OP_UNLINK)
        return;
    raw_write(o->path, o->old, o->n_old, o->offset);
    raw_cut(o->path, o->size_before);
}

static void redo(const struct op *o, bool torn)
{
    size_t n = o->n;
    if (o->kind == OP_CUT) {
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

static void redo_name(const struct op *o)
{
    if (o->kind == OP_RENAME)
        (void)syscall(SYS_rename, o->path, o->to);
    else
        (void)syscall(SYS_unlink, o->path);
}

/* Takes all unsynced operations back, and does some of them again, in their order. The files are
 * judged one by one. */
static void lose_power(void)
{
    struct op *oldest = NULL;
    uint64_t names = 0; /* that may stay, when their order counts */
    for (struct op *o = disk.ops, *next; o != NULL; o = next) {
        undo(o);
        names += o->kind == OP_RENAME || o->kind == OP_UNLINK;
        next = o->next;
        o->next = oldest;
        oldest = o;
    }
    bool in_order = rng_once_in(&disk.rng, 2); /* as most file systems do; none has to */
    if (names > 0)
        names = rng_below(&disk.rng, names + 1);
    uint64_t mood = rng_u64(&disk.rng);
    for (struct op *o = oldest; o != NULL; o = o->next) {
        if (o->kind == OP_RENAME || o->kind == OP_UNLINK) {
            if (in_order ? names > 0 : rng_once_in(&disk.rng, 2))
                redo_name(o);
            names -= names > 0;
            continue;
        }
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
    if (disk.end == DISK_FAIL || disk.end == DISK_FULL)
        disk.failing = true;
    else if (rng_once_in(&disk.rng, 2))
        die();
}

enum gate { OFF, COUNTED, FAILED };

static bool is_hit(int fd)
{
    char path[PATH_BYTES] = "";
    if (disk.only_fails == NULL)
        return true;
    if (fd >= 0)
        fd_path(fd, path);
    return ends_with(path, disk.only_fails);
}

/* FD: -1 when there is none. A disk that failed goes on failing. */
static enum gate enter(int fd)
{
    if (!atomic_load(&disk.armed))
        return OFF;
    (void)pthread_mutex_lock(&disk.gate);
    count_call(fd);
    if (!disk.failing || !is_hit(fd))
        return COUNTED;
    errno = disk.end == DISK_FULL || rng_once_in(&disk.rng, 2) ? ENOSPC : EIO;
    return FAILED;
}

static void leave(enum gate g)
{
    int kept = errno;
    if (g == COUNTED && disk.left <= 0 && (disk.end == DISK_KILL || disk.end == DISK_POWER))
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

void disk_only_fails(const char *suffix)
{
    disk.only_fails = suffix;
}

void disk_disarm(void)
{
    atomic_store(&disk.armed, false);
    while (disk.ops != NULL) {
        struct op *o = disk.ops;
        disk.ops = o->next;
        drop_op(o);
    }
}

void disk_skip_syncs(void)
{
    atomic_store(&disk.no_sync, true);
}

/* --- a bad sector ----------------------------------------------------------------------------- */

void disk_spoil(const char *suffix, uint64_t offset, uint64_t bytes)
{
    disk.spoiled_file = suffix;
    disk.spoiled_from = offset;
    disk.spoiled_to = offset + bytes;
    atomic_store(&disk.spoiled, suffix != NULL);
}

/* Does a call on these bytes meet it? */
static bool meets_spoiled(int fd, size_t n, off64_t offset)
{
    char path[PATH_BYTES];
    if (!atomic_load(&disk.spoiled) || (uint64_t)offset >= disk.spoiled_to ||
        (uint64_t)offset + n <= disk.spoiled_from)
        return false;
    fd_path(fd, path);
    return ends_with(path, disk.spoiled_file);
}

/* --- in the C library's place ----------------------------------------------------------------- */

ssize_t pread(int fd, void *p, size_t n, off_t offset);
ssize_t pread64(int fd, void *p, size_t n, off64_t offset);
ssize_t pwrite(int fd, const void *p, size_t n, off_t offset);
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset);
int fsync(int fd);
int fdatasync(int fd);
int ftruncate(int fd, off_t size);
int ftruncate64(int fd, off64_t size);
int rename(const char *from, const char *to);
int unlink(const char *path);

ssize_t pread64(int fd, void *p, size_t n, off64_t offset)
{
    if (meets_spoiled(fd, n, offset)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, p, n, offset);
}

ssize_t pread(int fd, void *p, size_t n, off_t offset)
{
    return pread64(fd, p, n, offset);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset)
{
    if (meets_spoiled(fd, n, offset)) /* the drive has others */
        atomic_store(&disk.spoiled, false);
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
    const bool fails = g == FAILED && disk.end != DISK_FULL; /* a full disk syncs what it has */
    int rc = fails ? -1 : atomic_load(&disk.no_sync) ? 0 : (int)syscall(number, fd);
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
    struct stat st;
    const bool shrinks = fstat(fd, &st) == 0 && st.st_size >= size;
    const bool fails = g == FAILED && !(disk.end == DISK_FULL && shrinks);
    int rc = fails ? -1 : (int)syscall(SYS_ftruncate, fd, size);
    leave(g);
    return rc;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

int rename(const char *from, const char *to)
{
    enum gate g = enter(-1);
    if (g == COUNTED)
        note_name(from, to);
    int rc = g == FAILED ? -1 : (int)syscall(SYS_rename, from, to);
    leave(g);
    return rc;
}

int unlink(const char *path)
{
    enum gate g = enter(-1);
    if (g == COUNTED)
        note_name(path, NULL);
    int rc = g == FAILED ? -1 : (int)syscall(SYS_unlink, path);
    leave(g);
    return rc;
}
