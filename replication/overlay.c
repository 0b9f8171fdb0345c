/* Room: replication. Thread: owner.
 * Owns: the bytes, in its spill.
 * Invariants: low <= sealed <= end; the spill holds [low, end) without a gap, because SQLite writes
 *   a WAL from front to back, and goes back only to the end of the last commit.
 * Not here: which bytes are frames (view.c), the real file (capture_vfs.c), memory or file
 *   (spill.c). */
#include "replication/overlay.h"

#include "base/check.h"

void overlay_init(struct overlay *o, uint64_t low, uint64_t unsealed_max, const char *path,
                  uint64_t memory_max)
{
    *o = (struct overlay){.low = low, .sealed = low, .end = low, .unsealed_max = unsealed_max};
    spill_init(&o->bytes, path, memory_max);
}

void overlay_fini(struct overlay *o)
{
    spill_fini(&o->bytes);
    *o = (struct overlay){.bytes.fd = -1};
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
        return err_fail(ERR_FULL,
                        "the transaction changes more than %llu bytes, the limit of "
                        "transaction-bytes: cut it into smaller ones, or raise the limit on all "
                        "nodes",
                        (unsigned long long)o->unsealed_max);
    TRY(spill_write(&o->bytes, offset, p, n));
    o->rewritten |= offset < o->end;
    if (offset + n > o->end)
        o->end = offset + n;
    return ERR_OK;
}

enum err overlay_read(const struct overlay *o, uint64_t offset, void *p, size_t n)
{
    CHECK(offset >= o->low && offset <= o->end && n <= o->end - offset);
    return spill_read(&o->bytes, offset, p, n);
}

const uint8_t *overlay_peek(const struct overlay *o, uint64_t offset, size_t n, uint8_t *scratch)
{
    CHECK(n > 0 && offset >= o->low && offset <= o->end && n <= o->end - offset);
    uint64_t step = n;
    const uint8_t *p = spill_piece(&o->bytes, offset, &step);
    if (step == n && p != NULL)
        return p;
    return overlay_read(o, offset, scratch, n) == ERR_OK ? scratch : NULL;
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
    spill_drop_from(&o->bytes, o->end);
}

void overlay_forget(struct overlay *o, uint64_t n)
{
    CHECK(n <= o->sealed - o->low);
    o->low += n;
    spill_drop_before(&o->bytes, o->low);
}

void overlay_restart(struct overlay *o)
{
    CHECK(o->low == o->sealed);
    spill_empty(&o->bytes);
    o->low = o->sealed = o->end = 0;
    o->rewritten = false;
}
