/* Room: replication. Thread: owner.
 * Owns: the chunks and the file.
 * Invariants: the chunks follow each other without a gap; at most memory_max bytes of them are in
 *   memory (at least one chunk); chunk number N lies at N * chunk of the file, which is sparse; the
 *   file is there only while a chunk lies in it.
 * Not here: what the bytes are (overlay.c: a WAL's; apply.c: entries).
 *
 * The oldest chunk goes first: what was written last is read again soonest. pread and pwrite, no
 * mapping: mapped pages would count as this process's memory, those of the page cache do not.
 * Nothing is synced: after a crash nobody needs the file. */
#include "replication/spill.h"

#include "base/check.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Sixty frames of 4 KiB pages: memory is freed in steps of this; smaller ones where the bound is.
 */
#define CHUNK_MAX KIB(256)
#define CHUNK_MIN KIB(4)

void spill_init(struct spill *s, const char *path, uint64_t memory_max)
{
    *s = (struct spill){.path = mem_strdup(path), .memory_max = memory_max, .fd = -1};
    for (s->chunk = CHUNK_MAX; s->chunk > CHUNK_MIN && s->chunk * 4 > memory_max;)
        s->chunk /= 2;
    (void)unlink(path);
}

void spill_set_reserve(struct spill *s, uint64_t reserve)
{
    s->reserve = reserve;
}

void spill_fini(struct spill *s)
{
    spill_empty(s);
    while (s->n_spare > 0)
        free(s->spare[--s->n_spare]);
    free(s->chunks);
    free(s->path);
    *s = (struct spill){.fd = -1};
}

/* --- the file --------------------------------------------------------------------------------- */

static enum err file_need(struct spill *s)
{
    if (s->fd >= 0)
        return ERR_OK;
    TRY(file_open(s->path, O_RDWR | O_CREAT | O_TRUNC, 0600, &s->fd));
    if (unlink(s->path) == 0)
        return ERR_OK;
    enum err e = file_error("remove", s->path);
    (void)close(s->fd);
    s->fd = -1;
    return e;
}

static void file_close(struct spill *s)
{
    CHECK(s->filed == 0);
    if (s->fd >= 0)
        (void)close(s->fd);
    s->fd = -1;
}

/* Gives the room of the file's first N chunks back; where the file system cannot, with the file. */
static void file_forget(struct spill *s, size_t n)
{
    if (s->filed == 0)
        file_close(s);
    else
        (void)fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)((s->first - n) * s->chunk), (off_t)(n * s->chunk));
}

static enum err file_read(const struct spill *s, uint64_t offset, void *p, size_t n)
{
    size_t got;
    TRY(file_read_at(s->fd, s->path, p, n, offset, &got));
    if (got == n)
        return ERR_OK;
    return err_fail(ERR_IO, "cannot read %s: it became shorter", s->path);
}

/* --- chunks ----------------------------------------------------------------------------------- */

static void chunk_free(struct spill *s, uint8_t *chunk)
{
    if (s->n_spare < sizeof s->spare / sizeof s->spare[0])
        s->spare[s->n_spare++] = chunk;
    else
        free(chunk);
}

/* A statement had better fail than its commit meet a full disk. */
static enum err look_for_room(const struct spill *s)
{
    struct statvfs v;
    if (s->reserve == 0 || fstatvfs(s->fd, &v) != 0)
        return ERR_OK;
    const uint64_t left = (uint64_t)v.f_bavail * v.f_frsize, size = (s->filed + 1) * s->chunk;
    if (left / 2 >= size && left - 2 * size >= s->reserve)
        return ERR_OK;
    return err_fail(ERR_FULL,
                    "the transaction is too large for the disk of %s: %llu MiB are left for its "
                    "log, its WAL and the reserve of %llu MiB (disk-reserve)",
                    s->path, (unsigned long long)(left >> 20),
                    (unsigned long long)(s->reserve >> 20));
}

/* Moves the oldest chunk that is in memory to the file. */
static enum err chunk_file(struct spill *s)
{
    uint8_t *chunk = s->chunks[s->filed];
    TRY(file_need(s));
    enum err e = look_for_room(s);
    if (e == ERR_OK)
        e = file_write_at(s->fd, s->path, chunk, s->chunk, (s->first + s->filed) * s->chunk);
    if (e != ERR_OK) {
        if (s->filed == 0)
            file_close(s);
        return e;
    }
    chunk_free(s, chunk);
    s->chunks[s->filed++] = NULL;
    return ERR_OK;
}

static enum err chunk_append(struct spill *s)
{
    while (s->count > s->filed && (s->count - s->filed + 1) * s->chunk > s->memory_max)
        TRY(chunk_file(s));
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 16 : s->cap * 2;
        s->chunks = mem_realloc(s->chunks, s->cap * sizeof *s->chunks);
    }
    s->chunks[s->count++] = s->n_spare > 0 ? s->spare[--s->n_spare] : mem_alloc(s->chunk);
    return ERR_OK;
}

/* The index of OFFSET's chunk; *left: how many of its bytes follow. */
static size_t locate(const struct spill *s, uint64_t offset, uint64_t *left)
{
    size_t number = (size_t)(offset / s->chunk);
    CHECK(number >= s->first && number - s->first < s->count);
    *left = s->chunk - offset % s->chunk;
    return number - s->first;
}

/* --- bytes ------------------------------------------------------------------------------------ */

enum err spill_write(struct spill *s, uint64_t offset, const void *p, size_t n)
{
    if (s->count == 0)
        s->first = (size_t)(offset / s->chunk);
    CHECK(offset / s->chunk >= s->first && offset / s->chunk <= s->first + s->count);
    while (n > 0 && (offset + n - 1) / s->chunk >= s->first + s->count)
        TRY(chunk_append(s));
    const uint8_t *from = p;
    while (n > 0) {
        uint64_t left;
        size_t i = locate(s, offset, &left), step = n < left ? n : (size_t)left;
        if (i < s->filed)
            TRY(file_write_at(s->fd, s->path, from, step, offset));
        else
            memcpy(s->chunks[i] + offset % s->chunk, from, step);
        from += step;
        offset += step;
        n -= step;
    }
    return ERR_OK;
}

const uint8_t *spill_piece(const struct spill *s, uint64_t offset, uint64_t *n)
{
    uint64_t left;
    size_t i = locate(s, offset, &left);
    if (*n > left)
        *n = left;
    return i < s->filed ? NULL : s->chunks[i] + offset % s->chunk;
}

enum err spill_read(const struct spill *s, uint64_t offset, void *p, size_t n)
{
    uint8_t *to = p;
    while (n > 0) {
        uint64_t step = n;
        const uint8_t *from = spill_piece(s, offset, &step);
        if (from != NULL)
            memcpy(to, from, (size_t)step);
        else
            TRY(file_read(s, offset, to, (size_t)step));
        to += step;
        offset += step;
        n -= (size_t)step;
    }
    return ERR_OK;
}

void spill_drop_before(struct spill *s, uint64_t offset)
{
    size_t number = (size_t)(offset / s->chunk);
    if (s->count == 0 || number <= s->first)
        return;
    size_t gone = number - s->first < s->count ? number - s->first : s->count;
    size_t unfiled = gone < s->filed ? gone : s->filed;
    for (size_t i = unfiled; i < gone; i++)
        chunk_free(s, s->chunks[i]);
    s->count -= gone;
    s->first += gone;
    s->filed -= unfiled;
    memmove(s->chunks, s->chunks + gone, s->count * sizeof *s->chunks);
    if (unfiled > 0)
        file_forget(s, unfiled);
}

void spill_drop_from(struct spill *s, uint64_t end)
{
    size_t keep = (size_t)((end + s->chunk - 1) / s->chunk);
    keep = keep > s->first ? keep - s->first : 0;
    while (s->count > keep && s->count > s->filed)
        chunk_free(s, s->chunks[--s->count]);
    if (s->count <= keep)
        return;
    s->count = s->filed = keep;
    if (keep == 0)
        file_close(s);
    else /* the rest is written again, or goes with the file */
        (void)ftruncate(s->fd, (off_t)((s->first + keep) * s->chunk));
}

void spill_empty(struct spill *s)
{
    spill_drop_from(s, 0);
}
