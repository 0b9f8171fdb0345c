/* Room: replication. Thread: any, one at a time.
 * Owns: the descriptor of the file `hashes`.
 * Invariants: the head is written once, when the file is made under another name. A block is
 *   written whole and says by its own checksum whether it is whole: a torn one costs reading the
 *   511 pages that it names, not the file.
 * Not here: which pages may be brought up to date when (stored.c).
 *
 *   0       head, 4096 bytes
 *   4096    block 0: 511 hashes, checksum; block 1; ...
 *
 * The number of pages is not in it: main.db and its WAL know it, and a head that had to follow it
 * could be torn. Integers are little-endian. */
#include "replication/hashes.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES       4096u
#define AT_BLOCK_CHECKSUM (BLOCK_BYTES - 8)
#define VERSION           1u
/* Of the head's sum; a block's seed is its number. */
#define HEAD_SEED UINT64_MAX
/* Blocks written at once when the whole file is made. */
#define CREATE_BLOCKS 64u

_Static_assert(HASHES_PER_BLOCK * 8 + 8 == BLOCK_BYTES, "a block is full");

static const uint8_t magic[8] = {'L', 'E', 'C', 'T', 'H', 'S', 'H', 0};

struct hashes_file {
    char *path;
    int fd;
    uint32_t blocks;
};

static void head_encode(uint64_t database_id, uint32_t page_size, uint8_t head[BLOCK_BYTES])
{
    memset(head, 0, BLOCK_BYTES);
    memcpy(head, magic, sizeof magic);
    set_le32(head + 8, VERSION);
    set_le32(head + 12, page_size);
    set_le64(head + 16, database_id);
    set_le64(head + AT_BLOCK_CHECKSUM, hash64(head, AT_BLOCK_CHECKSUM, HEAD_SEED));
}

static void block_encode(uint32_t block, const uint64_t hashes[HASHES_PER_BLOCK],
                         uint8_t out[BLOCK_BYTES])
{
    for (unsigned i = 0; i < HASHES_PER_BLOCK; i++)
        set_le64(out + (size_t)i * 8, hashes[i]);
    set_le64(out + AT_BLOCK_CHECKSUM, hash64(out, AT_BLOCK_CHECKSUM, block));
}

static uint64_t block_offset(uint32_t block)
{
    return (uint64_t)BLOCK_BYTES * (1 + (uint64_t)block);
}

/* --- making it -------------------------------------------------------------------------------- */

static enum err write_all(int fd, const char *path, uint32_t pages, hashes_source source, void *ctx)
{
    const uint32_t blocks = pages / HASHES_PER_BLOCK + (pages % HASHES_PER_BLOCK != 0);
    uint8_t *bytes = mem_alloc((size_t)CREATE_BLOCKS * BLOCK_BYTES);
    enum err e = ERR_OK;
    for (uint32_t first = 0, n; first < blocks && e == ERR_OK; first += n) {
        n = blocks - first < CREATE_BLOCKS ? blocks - first : CREATE_BLOCKS;
        for (uint32_t i = 0; i < n; i++) {
            uint64_t hashes[HASHES_PER_BLOCK] = {0};
            uint32_t page = (first + i) * HASHES_PER_BLOCK + 1;
            uint32_t left = pages - page + 1;
            source(ctx, page, left < HASHES_PER_BLOCK ? left : HASHES_PER_BLOCK, hashes);
            block_encode(first + i, hashes, bytes + (size_t)i * BLOCK_BYTES);
        }
        e = file_write_at(fd, path, bytes, (size_t)n * BLOCK_BYTES, block_offset(first));
    }
    free(bytes);
    return e;
}

/* fsync, not fdatasync: its time of change is part of what it says (hashes_is_current). */
static enum err sync_with_time(int fd, const char *path)
{
    return fsync(fd) != 0 ? file_error("sync", path) : ERR_OK;
}

enum err hashes_create(const char *path, uint64_t database_id, uint32_t page_size, uint32_t pages,
                       hashes_source source, void *ctx)
{
    char *temp = mem_printf("%s.new", path);
    uint8_t head[BLOCK_BYTES];
    int fd = -1;
    head_encode(database_id, page_size, head);
    enum err e = file_open(temp, O_WRONLY | O_CREAT | O_TRUNC, 0644, &fd);
    if (e == ERR_OK)
        e = file_write_at(fd, temp, head, sizeof head, 0);
    if (e == ERR_OK)
        e = write_all(fd, temp, pages, source, ctx);
    if (e == ERR_OK)
        e = sync_with_time(fd, temp);
    if (fd >= 0 && close(fd) != 0 && e == ERR_OK)
        e = file_error("close", temp);
    if (e == ERR_OK && rename(temp, path) != 0)
        e = file_error("rename", temp);
    if (e == ERR_OK)
        e = file_sync_dir_of(path);
    free(temp);
    return e;
}

/* --- reading and changing it ------------------------------------------------------------------ */

static enum err head_decode(const char *path, const uint8_t head[BLOCK_BYTES], size_t got,
                            uint64_t database_id, uint32_t page_size)
{
    if (got < BLOCK_BYTES || memcmp(head, magic, sizeof magic) != 0 ||
        get_le64(head + AT_BLOCK_CHECKSUM) != hash64(head, AT_BLOCK_CHECKSUM, HEAD_SEED))
        return err_fail(ERR_CORRUPT, "%s: its head is damaged", path);
    uint32_t version = get_le32(head + 8);
    if (version != VERSION)
        return err_fail(ERR_FORMAT,
                        "%s has format version %u, this program reads %u: use the "
                        "program version that wrote it",
                        path, version, VERSION);
    if (get_le32(head + 12) != page_size || get_le64(head + 16) != database_id)
        return err_fail(ERR_CORRUPT,
                        "%s is of database %016llx with pages of %u bytes, beside it lies %016llx "
                        "with pages of %u",
                        path, (unsigned long long)get_le64(head + 16), get_le32(head + 12),
                        (unsigned long long)database_id, page_size);
    return ERR_OK;
}

static enum err read_head(struct hashes_file *f, uint64_t database_id, uint32_t page_size)
{
    uint8_t head[BLOCK_BYTES];
    size_t got = 0;
    uint64_t bytes = 0;
    TRY(file_read_at(f->fd, f->path, head, sizeof head, 0, &got));
    TRY(head_decode(f->path, head, got, database_id, page_size));
    TRY(file_size(f->fd, f->path, &bytes));
    uint64_t blocks = bytes / BLOCK_BYTES - 1; /* the head is there */
    const uint64_t most = UINT32_MAX / HASHES_PER_BLOCK + 1;
    f->blocks = (uint32_t)(blocks < most ? blocks : most);
    return ERR_OK;
}

enum err hashes_open(const char *path, uint64_t database_id, uint32_t page_size, bool read_only,
                     struct hashes_file **out)
{
    *out = NULL;
    int fd;
    TRY(file_open(path, read_only ? O_RDONLY : O_RDWR, 0, &fd));
    struct hashes_file *f = MEM_NEW(struct hashes_file);
    f->path = mem_strdup(path);
    f->fd = fd;
    enum err e = read_head(f, database_id, page_size);
    if (e != ERR_OK) {
        hashes_close(f);
        return e;
    }
    *out = f;
    return ERR_OK;
}

void hashes_close(struct hashes_file *f)
{
    if (f == NULL)
        return;
    (void)close(f->fd);
    free(f->path);
    free(f);
}

uint32_t hashes_blocks(const struct hashes_file *f)
{
    return f->blocks;
}

enum err hashes_read_block(struct hashes_file *f, uint32_t block, uint64_t out[HASHES_PER_BLOCK],
                           bool *valid)
{
    uint8_t bytes[BLOCK_BYTES];
    size_t got = 0;
    *valid = false;
    memset(out, 0, HASHES_PER_BLOCK * sizeof *out);
    TRY(file_read_at(f->fd, f->path, bytes, sizeof bytes, block_offset(block), &got));
    if (got < BLOCK_BYTES ||
        get_le64(bytes + AT_BLOCK_CHECKSUM) != hash64(bytes, AT_BLOCK_CHECKSUM, block))
        return ERR_OK;
    for (unsigned i = 0; i < HASHES_PER_BLOCK; i++)
        out[i] = get_le64(bytes + (size_t)i * 8);
    *valid = true;
    return ERR_OK;
}

enum err hashes_write_block(struct hashes_file *f, uint32_t block,
                            const uint64_t hashes[HASHES_PER_BLOCK])
{
    uint8_t bytes[BLOCK_BYTES];
    block_encode(block, hashes, bytes);
    TRY(file_write_at(f->fd, f->path, bytes, sizeof bytes, block_offset(block)));
    if (block >= f->blocks)
        f->blocks = block + 1;
    return ERR_OK;
}

enum err hashes_sync(struct hashes_file *f)
{
    return file_sync(f->fd, f->path);
}

enum err hashes_touch(struct hashes_file *f)
{
    if (futimens(f->fd, NULL) != 0)
        return file_error("touch", f->path);
    return sync_with_time(f->fd, f->path);
}

enum err hashes_is_current(struct hashes_file *f, const char *db_path, bool *current)
{
    struct stat own, db;
    if (fstat(f->fd, &own) != 0)
        return file_error("stat", f->path);
    if (stat(db_path, &db) != 0)
        return file_error("stat", db_path);
    *current =
        db.st_mtim.tv_sec < own.st_mtim.tv_sec ||
        (db.st_mtim.tv_sec == own.st_mtim.tv_sec && db.st_mtim.tv_nsec <= own.st_mtim.tv_nsec);
    return ERR_OK;
}
