/* Room: replication. Thread: owner.
 * Owns: the regions and the lock table.
 * Invariants: a lock is held by any number shared or by one exclusively; all holders are on one
 *   thread, so nobody ever waits and the memory needs no barrier.
 * Not here: the public wal-index in the -shm file (wal_index.c). */
#include "replication/private_shm.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "replication/wal_index.h"

#include <stdlib.h>
#include <string.h>

/* Layout of the first region, in native byte order: two copies of the header, then WalCkptInfo. */
#define HEADER_BYTES          48u
#define HEADER_INIT           12u /* one byte: 1 when valid */
#define HEADER_FRAMES         16u
#define HEADER_PAGES          20u
#define HEADER_CHAIN          24u
#define HEADER_SALT           32u
#define HEADER_CHECKSUM       40u /* over the bytes before it */
#define BACKFILLED_AT         (2u * HEADER_BYTES)
#define BACKFILL_ATTEMPTED_AT (BACKFILLED_AT + 32u)

_Static_assert(WAL_LOCK_READ(WAL_READERS) == SQLITE_SHM_NLOCK, "the locks are SQLite's");

void private_shm_fini(struct private_shm *s)
{
    for (int i = 0; i < s->n_regions; i++)
        free(s->regions[i]);
    free(s->regions);
    *s = (struct private_shm){0};
}

int private_shm_map(struct private_shm *s, int region, int bytes, int extend, volatile void **out)
{
    CHECK(region >= 0 && bytes > 0);
    CHECK(s->region_bytes == 0 || s->region_bytes == (size_t)bytes);
    s->region_bytes = (size_t)bytes;
    *out = NULL;
    if (region < s->n_regions && s->regions[region] != NULL) {
        *out = s->regions[region];
        return SQLITE_OK;
    }
    if (!extend)
        return SQLITE_OK;
    if (region >= s->n_regions) {
        s->regions = mem_realloc(s->regions, (size_t)(region + 1) * sizeof *s->regions);
        while (s->n_regions <= region)
            s->regions[s->n_regions++] = NULL;
    }
    *out = s->regions[region] = mem_zalloc((size_t)bytes);
    return SQLITE_OK;
}

static int lock_shared(struct private_shm_conn *c, int i)
{
    if (c->shared & (1u << i))
        return SQLITE_OK;
    if (c->shm->exclusive[i])
        return SQLITE_BUSY;
    c->shm->shared[i]++;
    c->shared |= 1u << i;
    return SQLITE_OK;
}

static int lock_exclusive(struct private_shm_conn *c, int first, int n)
{
    for (int i = first; i < first + n; i++)
        if (c->shm->exclusive[i] || c->shm->shared[i] > 0)
            return SQLITE_BUSY;
    for (int i = first; i < first + n; i++) {
        c->shm->exclusive[i] = true;
        c->exclusive |= 1u << i;
    }
    return SQLITE_OK;
}

static void unlock(struct private_shm_conn *c, int i)
{
    unsigned bit = 1u << i;
    if (c->shared & bit) {
        CHECK(c->shm->shared[i] > 0);
        c->shm->shared[i]--;
    }
    if (c->exclusive & bit)
        c->shm->exclusive[i] = false;
    c->shared &= ~bit;
    c->exclusive &= ~bit;
}

int private_shm_lock(struct private_shm_conn *c, int first, int n, int flags)
{
    CHECK(first >= 0 && n >= 1 && first + n <= SQLITE_SHM_NLOCK);
    if (flags & SQLITE_SHM_UNLOCK) {
        for (int i = first; i < first + n; i++)
            unlock(c, i);
        return SQLITE_OK;
    }
    if (flags & SQLITE_SHM_SHARED) {
        CHECK(n == 1);
        return lock_shared(c, first);
    }
    /* Alone it is a checkpoint's; together with the next one it is the recovery's. */
    if (first == WAL_LOCK_CHECKPOINT && n == 1)
        return SQLITE_BUSY;
    return lock_exclusive(c, first, n);
}

void private_shm_unlock_all(struct private_shm_conn *c)
{
    for (int i = 0; i < SQLITE_SHM_NLOCK; i++)
        unlock(c, i);
}

bool private_shm_read(const struct private_shm *s, struct private_shm_state *out)
{
    if (s->n_regions == 0 || s->regions[0] == NULL || s->regions[0][HEADER_INIT] != 1)
        return false;
    const uint8_t *h = s->regions[0];
    CHECK(memcmp(h, h + HEADER_BYTES, HEADER_BYTES) == 0);
    memcpy(&out->frames, h + HEADER_FRAMES, 4);
    memcpy(&out->pages, h + HEADER_PAGES, 4);
    memcpy(out->chain, h + HEADER_CHAIN, 8);
    out->salt[0] = get_be32(h + HEADER_SALT); /* as in the file; the rest is native */
    out->salt[1] = get_be32(h + HEADER_SALT + 4);
    return true;
}

void private_shm_set_chain(struct private_shm *s, const uint32_t chain[2])
{
    struct private_shm_state state;
    CHECK(private_shm_read(s, &state) && !private_shm_write_locked(s));
    uint8_t *h = s->regions[0];
    uint32_t a = 0, b = 0;
    memcpy(h + HEADER_CHAIN, chain, 8);
    for (const uint8_t *p = h; p < h + HEADER_CHECKSUM; p += 8) { /* as the WAL's own */
        a += get_le32(p) + b;
        b += get_le32(p + 4) + a;
    }
    memcpy(h + HEADER_CHECKSUM, &a, 4);
    memcpy(h + HEADER_CHECKSUM + 4, &b, 4);
    memcpy(h + HEADER_BYTES, h, HEADER_BYTES);
}

bool private_shm_write_locked(const struct private_shm *s)
{
    return s->exclusive[WAL_LOCK_WRITE];
}

bool private_shm_reading(const struct private_shm *s)
{
    for (int i = 0; i < WAL_READERS; i++)
        if (s->shared[WAL_LOCK_READ(i)] > 0)
            return true;
    return false;
}

void private_shm_all_backfilled(struct private_shm *s)
{
    struct private_shm_state state;
    CHECK(private_shm_read(s, &state));
    CHECK(!private_shm_write_locked(s) && !private_shm_reading(s));
    memcpy(s->regions[0] + BACKFILLED_AT, &state.frames, 4);
    memcpy(s->regions[0] + BACKFILL_ATTEMPTED_AT, &state.frames, 4);
}
