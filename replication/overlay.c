/* Room: replication. Thread: owner.
 * Owns: the chunks.
 * Invariants: low <= sealed <= end; the chunks hold [low, end) without a gap, because SQLite writes
 *   a WAL from front to back, and goes back only to the end of the last commit.
 * Not here: which bytes are frames (view.c), the real file (capture_vfs.c). */
#include "replication/overlay.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

/* Sixty frames of 4 KiB pages: publication frees memory in steps of this. */
#define CHUNK KIB(256)

void overlay_init(struct overlay *o, uint64_t low, uint64_t unsealed_max)
{
    *o = (struct overlay){.low = low, .sealed = low, .end = low, .unsealed_max = unsealed_max};
    o->first = (size_t)(low / CHUNK);
}

static void chunk_free(struct overlay *o, uint8_t *chunk)
{
    if (o->n_spare < sizeof o->spare / sizeof o->spare[0])
        o->spare[o->n_spare++] = chunk;
    else
        free(chunk);
}

/* Keeps the first KEEP chunks. */
static void chunks_shorten(struct overlay *o, size_t keep)
{
    while (o->count > keep)
        chunk_free(o, o->chunks[--o->count]);
}

void overlay_fini(struct overlay *o)
{
    chunks_shorten(o, 0);
    while (o->n_spare > 0)
        free(o->spare[--o->n_spare]);
    free(o->chunks);
    *o = (struct overlay){0};
}

static void chunk_append(struct overlay *o)
{
    if (o->count == o->cap) {
        o->cap = o->cap == 0 ? 16 : o->cap * 2;
        o->chunks = mem_realloc(o->chunks, o->cap * sizeof *o->chunks);
    }
    o->chunks[o->count++] = o->n_spare > 0 ? o->spare[--o->n_spare] : mem_alloc(CHUNK);
}

/* Where OFFSET lies, and how many bytes follow it in its chunk. */
static uint8_t *place(const struct overlay *o, uint64_t offset, uint64_t *left)
{
    size_t i = (size_t)(offset / CHUNK);
    CHECK(i >= o->first && i - o->first < o->count);
    *left = CHUNK - offset % CHUNK;
    return o->chunks[i - o->first] + offset % CHUNK;
}

enum err overlay_write(struct overlay *o, uint64_t offset, const void *p, size_t n)
{
    if (offset < o->sealed || offset > o->end)
        return err_fail(ERR_MISUSE,
                        "write of %zu bytes at WAL offset %llu: only %llu to %llu is open; close "
                        "the view",
                        n, (unsigned long long)offset, (unsigned long long)o->sealed,
                        (unsigned long long)o->end);
    if (offset + n - o->sealed > o->unsealed_max)
        return err_fail(ERR_FULL, "the transaction is over %llu bytes: cut it into smaller ones",
                        (unsigned long long)o->unsealed_max);
    o->rewritten |= offset < o->end;
    while (n > 0 && (offset + n - 1) / CHUNK >= o->first + o->count)
        chunk_append(o);
    const uint8_t *from = p;
    while (n > 0) {
        uint64_t left;
        uint8_t *to = place(o, offset, &left);
        size_t step = n < left ? n : (size_t)left;
        memcpy(to, from, step);
        from += step;
        offset += step;
        n -= step;
    }
    if (offset > o->end)
        o->end = offset;
    return ERR_OK;
}

const uint8_t *overlay_piece(const struct overlay *o, uint64_t offset, uint64_t *n)
{
    CHECK(offset >= o->low && offset <= o->end && *n <= o->end - offset);
    uint64_t left;
    const uint8_t *p = place(o, offset, &left);
    if (*n > left)
        *n = left;
    return p;
}

void overlay_read(const struct overlay *o, uint64_t offset, void *p, size_t n)
{
    uint8_t *to = p;
    while (n > 0) {
        uint64_t step = n;
        const uint8_t *from = overlay_piece(o, offset, &step);
        memcpy(to, from, (size_t)step);
        to += step;
        offset += step;
        n -= (size_t)step;
    }
}

const uint8_t *overlay_peek(const struct overlay *o, uint64_t offset, size_t n, uint8_t *scratch)
{
    uint64_t step = n;
    const uint8_t *p = overlay_piece(o, offset, &step);
    if (step == n)
        return p;
    overlay_read(o, offset, scratch, n);
    return scratch;
}

void overlay_seal(struct overlay *o, uint64_t sealed)
{
    CHECK(sealed >= o->sealed && sealed <= o->end);
    o->sealed = sealed;
    o->rewritten = false;
}

void overlay_drop_unsealed(struct overlay *o)
{
    o->end = o->sealed;
    o->rewritten = false;
    chunks_shorten(o, (size_t)((o->end + CHUNK - 1) / CHUNK) - o->first);
}

void overlay_forget(struct overlay *o, uint64_t n)
{
    CHECK(n <= o->sealed - o->low);
    o->low += n;
    size_t gone = (size_t)(o->low / CHUNK) - o->first;
    if (gone > o->count)
        gone = o->count;
    for (size_t i = 0; i < gone; i++)
        chunk_free(o, o->chunks[i]);
    o->count -= gone;
    if (gone > 0)
        memmove(o->chunks, o->chunks + gone, o->count * sizeof *o->chunks);
    o->first = (size_t)(o->low / CHUNK);
}

void overlay_restart(struct overlay *o)
{
    CHECK(o->low == o->sealed);
    chunks_shorten(o, 0);
    o->low = o->sealed = o->end = 0;
    o->first = 0;
}
