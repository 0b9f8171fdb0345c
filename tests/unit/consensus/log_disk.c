/* Room: tests. Thread: the test's. */
#include "tests/unit/consensus/log_disk.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "tests/lib/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct name *name_find(struct name *all, const char *name)
{
    for (unsigned i = 0; i < NAMES; i++)
        if (strcmp(all[i].name, name) == 0)
            return &all[i];
    return NULL;
}

static void name_set(struct name *all, const char *name, unsigned inode)
{
    struct name *it = name_find(all, name);
    if (it == NULL)
        it = name_find(all, "");
    EXPECT(it != NULL);
    (void)snprintf(it->name, sizeof it->name, "%s", name);
    it->inode = inode;
}

static void name_drop(struct name *all, const char *name)
{
    struct name *it = name_find(all, name);
    if (it != NULL)
        it->name[0] = 0;
}

static const char *base_name(const char *path)
{
    return strrchr(path, '/') + 1;
}

static struct op *record(struct disk *d, enum op_kind kind)
{
    EXPECT(d->n_ops < OPS);
    struct op *op = &d->ops[d->n_ops++];
    *op = (struct op){.kind = kind};
    return op;
}

static unsigned inode_of(struct disk *d, int fd)
{
    char link[64], path[512];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    EXPECT(n > 0);
    path[n] = 0;
    struct name *it = name_find(d->live, base_name(path));
    EXPECT(it != NULL);
    return it->inode;
}

static int disk_create(void *ctx, const char *path, uint64_t bytes)
{
    struct disk *d = ctx;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    EXPECT(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 && d->n_inodes < INODES);
    struct op *op = record(d, OP_CREATE);
    op->inode = d->n_inodes++;
    op->n = bytes;
    (void)snprintf(op->name, sizeof op->name, "%s", base_name(path));
    name_set(d->live, op->name, op->inode);
    return fd;
}

static ssize_t disk_write(void *ctx, int fd, const void *p, size_t n, uint64_t offset)
{
    struct op *op = record(ctx, OP_WRITE);
    op->inode = inode_of(ctx, fd);
    op->offset = offset;
    op->n = n;
    op->data = mem_alloc(n);
    memcpy(op->data, p, n);
    return pwrite(fd, p, n, (off_t)offset);
}

static int disk_sync(void *ctx, int fd)
{
    struct disk *d = ctx;
    unsigned inode = inode_of(d, fd);
    bool fails = d->fail_sync > 0 && --d->fail_sync == 0;
    record(d, fails ? OP_SYNC_FAILED : OP_SYNC)->inode = inode;
    if (fails)
        errno = EIO;
    return fails ? -1 : 0;
}

static int disk_rename(void *ctx, const char *from, const char *to)
{
    struct disk *d = ctx;
    struct op *op = record(d, OP_RENAME);
    (void)snprintf(op->name, sizeof op->name, "%s", base_name(from));
    (void)snprintf(op->to, sizeof op->to, "%s", base_name(to));
    struct name *it = name_find(d->live, op->name);
    EXPECT(it != NULL);
    op->inode = it->inode;
    it->name[0] = 0;
    name_set(d->live, op->to, op->inode);
    return rename(from, to);
}

static int disk_remove(void *ctx, const char *path)
{
    struct disk *d = ctx;
    struct op *op = record(d, OP_REMOVE);
    (void)snprintf(op->name, sizeof op->name, "%s", base_name(path));
    name_drop(d->live, op->name);
    return unlink(path);
}

static int disk_sync_dir(void *ctx, const char *dir)
{
    struct disk *d = ctx;
    if (strcmp(base_name(dir), "..") == 0)
        return 0;
    if (d->fail_sync > 0 && --d->fail_sync == 0) { /* the names stay as undecided as they were */
        errno = EIO;
        return -1;
    }
    (void)record(d, OP_SYNC_DIR);
    return 0;
}

void disk_begin(struct disk *d, const char *dir)
{
    memset(d, 0, sizeof *d);
    d->calls = (struct cns_log_file_calls){.ctx = d,
                                           .create = disk_create,
                                           .write = disk_write,
                                           .sync = disk_sync,
                                           .rename = disk_rename,
                                           .remove = disk_remove,
                                           .sync_dir = disk_sync_dir};
    EXPECT_OK(file_make_dirs(dir));
    DIR *it = opendir(dir);
    for (struct dirent *e; (e = readdir(it)) != NULL;) {
        if (e->d_name[0] == '.' || strcmp(e->d_name, "lock") == 0)
            continue;
        char *path = mem_printf("%s/%s", dir, e->d_name);
        buf_init(&d->contents[d->n_start], MIB(1));
        EXPECT_OK(file_read_all(path, &d->contents[d->n_start]));
        name_set(d->start, e->d_name, d->n_start++);
        free(path);
    }
    (void)closedir(it);
    memcpy(d->live, d->start, sizeof d->live);
    d->n_inodes = d->n_start;
}

void disk_end(struct disk *d)
{
    for (unsigned i = 0; i < d->n_ops; i++)
        free(d->ops[i].data);
    for (unsigned i = 0; i < d->n_start; i++)
        buf_fini(&d->contents[i]);
}

struct inode {
    uint8_t *data;
    uint64_t n;
};

static void apply_write(struct inode *f, const struct op *op, enum leaves leaves, struct rng *r)
{
    for (uint64_t at = 0; at < op->n;) {
        uint64_t n = 512 - (op->offset + at) % 512;
        if (n > op->n - at)
            n = op->n - at;
        if (leaves == LEAVES_ALL || rng_once_in(r, 2))
            memcpy(f->data + op->offset + at, op->data + at, n);
        at += n;
    }
}

/* What becomes of the write (or creation) of call I on INODE at a crash behind the first K calls. A
 * failed sync drops what it should have written, for good, though the live file still shows it: the
 * kernel counts those pages as clean. */
static enum leaves fate(const struct disk *d, unsigned inode, unsigned i, unsigned k,
                        enum leaves leaves)
{
    for (unsigned at = i + 1; at < k; at++) {
        const struct op *op = &d->ops[at];
        if (op->inode == inode && op->kind == OP_SYNC)
            return LEAVES_ALL;
        if (op->inode == inode && op->kind == OP_SYNC_FAILED)
            return leaves == LEAVES_ALL ? LEAVES_ALL : LEAVES_NOTHING;
    }
    return leaves;
}

static struct inode build_inode(const struct disk *d, unsigned inode, unsigned k,
                                enum leaves leaves, struct rng *r)
{
    struct inode f = {.data = mem_zalloc(MIB(1))};
    if (inode < d->n_start) {
        f.n = d->contents[inode].len;
        if (f.n > 0)
            memcpy(f.data, d->contents[inode].data, f.n);
    }
    for (unsigned i = 0; i < k; i++) {
        const struct op *op = &d->ops[i];
        if (op->inode != inode)
            continue;
        enum leaves left = fate(d, inode, i, k, leaves);
        if (op->kind == OP_CREATE)
            f.n = left == LEAVES_ALL || (left == LEAVES_PARTS && rng_once_in(r, 2)) ? op->n : 0;
        else if (op->kind == OP_WRITE && left != LEAVES_NOTHING)
            apply_write(&f, op, left, r);
    }
    return f;
}

/* The names after a crash: all changes before the last sync of the directory, a prefix of those
 * after it (a journal keeps their order), and any of the later removals (in case that it does not).
 */
static void build_names(const struct disk *d, unsigned k, enum leaves leaves, struct rng *r,
                        struct name *names)
{
    unsigned synced = 0, until = k;
    for (unsigned i = 0; i < k; i++)
        if (d->ops[i].kind == OP_SYNC_DIR)
            synced = i + 1;
    if (leaves == LEAVES_NOTHING)
        until = synced;
    else if (leaves == LEAVES_PARTS)
        until = synced + (unsigned)rng_below(r, k - synced + 1);
    memcpy(names, d->start, NAMES * sizeof *names);
    for (unsigned i = 0; i < until; i++) {
        const struct op *op = &d->ops[i];
        if (op->kind == OP_CREATE)
            name_set(names, op->name, op->inode);
        if (op->kind == OP_REMOVE || op->kind == OP_RENAME)
            name_drop(names, op->name);
        if (op->kind == OP_RENAME)
            name_set(names, op->to, op->inode);
    }
    for (unsigned i = until; i < k && leaves == LEAVES_PARTS; i++)
        if (d->ops[i].kind == OP_REMOVE && rng_once_in(r, 2))
            name_drop(names, d->ops[i].name);
}

void disk_clear_dir(const char *dir)
{
    EXPECT_OK(file_make_dirs(dir));
    DIR *it = opendir(dir);
    for (struct dirent *e; (e = readdir(it)) != NULL;)
        if (e->d_name[0] != '.') {
            char *path = mem_printf("%s/%s", dir, e->d_name);
            EXPECT(unlink(path) == 0);
            free(path);
        }
    (void)closedir(it);
}

void disk_crash(const struct disk *d, unsigned k, enum leaves leaves, struct rng *r,
                const char *dir)
{
    struct name names[NAMES];
    disk_clear_dir(dir);
    build_names(d, k, leaves, r, names);
    for (unsigned i = 0; i < NAMES; i++) {
        if (names[i].name[0] == 0)
            continue;
        struct inode f = build_inode(d, names[i].inode, k, leaves, r);
        char *path = mem_printf("%s/%s", dir, names[i].name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        EXPECT(fd >= 0 && write(fd, f.data, f.n) == (ssize_t)f.n);
        (void)close(fd);
        free(path);
        free(f.data);
    }
}
