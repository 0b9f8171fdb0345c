/* Room: tests. The overlay against a flat copy of the file; the private wal-index's locks against
 * SQLite's rules. */
#include "replication/overlay.h"
#include "replication/private_shm.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK KIB(256) /* as in overlay.c: the edges are what this looks for */

static void put(struct overlay *o, uint8_t *flat, uint64_t offset, size_t n, struct rng *r)
{
    uint8_t *p = mem_alloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)rng_u64(r);
    EXPECT_OK(overlay_write(o, offset, p, n));
    memcpy(flat + offset, p, n);
    free(p);
}

static void expect_same(const struct overlay *o, const uint8_t *flat, uint64_t offset, size_t n)
{
    uint8_t *p = mem_alloc(n + 1), *scratch = mem_alloc(n + 1);
    EXPECT_OK(overlay_read(o, offset, p, n));
    EXPECT(memcmp(p, flat + offset, n) == 0);
    if (n > 0)
        EXPECT(memcmp(overlay_peek(o, offset, n, scratch), flat + offset, n) == 0);
    free(p);
    free(scratch);
}

TEST(overlay_holds_what_was_written)
{
    struct rng r = {test_seed()};
    uint64_t size = 12 * CHUNK;
    uint8_t *flat = mem_zalloc((size_t)size);
    uint64_t low = rng_below(&r, 2 * CHUNK);
    struct overlay o;
    overlay_init(&o, low, 3 * CHUNK, test_path("spill"), KIB(4) << rng_below(&r, 12));
    for (uint64_t i = 0, rounds = test_rounds(20000); i < rounds; i++) {
        uint64_t n = rng_below(&r, rng_once_in(&r, 20) ? CHUNK : 5000);
        switch (rng_below(&r, 6)) {
        case 0:
        case 1: /* go on at the end, or write again inside the running transaction */
        {
            uint64_t at =
                rng_once_in(&r, 3) ? o.sealed + rng_below(&r, o.end - o.sealed + 1) : o.end;
            if (at + n <= size && at + n - o.sealed <= o.unsealed_max)
                put(&o, flat, at, (size_t)n, &r);
            break;
        }
        case 2:
            overlay_seal(&o, o.sealed + rng_below(&r, o.end - o.sealed + 1));
            break;
        case 3:
            overlay_forget(&o, rng_below(&r, o.sealed - o.low + 1));
            break;
        case 4:
            if (rng_once_in(&r, 4))
                overlay_drop_unsealed(&o);
            break;
        default:
            if (o.low == o.sealed && (o.end + CHUNK > size || rng_once_in(&r, 50)))
                overlay_restart(&o);
            if (o.end + CHUNK > size) {
                overlay_drop_unsealed(&o);
                overlay_forget(&o, o.sealed - o.low);
            }
        }
        EXPECT(o.low <= o.sealed && o.sealed <= o.end);
        uint64_t at = o.low + rng_below(&r, o.end - o.low + 1);
        expect_same(&o, flat, at, (size_t)rng_below(&r, o.end - at + 1));
        EXPECT(o.bytes.count <= (o.end - o.low) / o.bytes.chunk + 2);
        EXPECT((o.bytes.count - o.bytes.filed) * o.bytes.chunk <= o.bytes.memory_max);
        EXPECT((o.bytes.fd >= 0) == (o.bytes.filed > 0));
    }
    overlay_fini(&o);
    free(flat);
}

TEST(overlay_refuses_what_sqlite_never_does)
{
    struct overlay o;
    uint8_t byte[64] = {1};
    overlay_init(&o, 1000, 4096, test_path("spill"), MIB(1));
    EXPECT_ERR(ERR_MISUSE, overlay_write(&o, 999, byte, 1));  /* published */
    EXPECT_ERR(ERR_MISUSE, overlay_write(&o, 1001, byte, 1)); /* a gap */
    EXPECT_OK(overlay_write(&o, 1000, byte, 64));
    overlay_seal(&o, 1064);
    EXPECT_ERR(ERR_MISUSE, overlay_write(&o, 1063, byte, 1)); /* sealed */
    EXPECT_EQ(o.end, 1064);
    overlay_fini(&o);
}

TEST(overlay_bounds_one_transaction)
{
    struct overlay o;
    uint8_t page[4096] = {0};
    overlay_init(&o, 0, 4096, test_path("spill"), MIB(1));
    EXPECT_OK(overlay_write(&o, 0, page, 4096));
    EXPECT_ERR(ERR_FULL, overlay_write(&o, 4096, page, 1));
    EXPECT_OK(overlay_write(&o, 0, page, 4096)); /* in place */
    overlay_seal(&o, 4096);
    EXPECT_OK(overlay_write(&o, 4096, page, 4096)); /* the next transaction has its own bound */
    EXPECT_ERR(ERR_FULL, overlay_write(&o, 8192, page, 1));
    overlay_drop_unsealed(&o);
    EXPECT_EQ(o.end, 4096);
    EXPECT_OK(overlay_write(&o, 4096, page, 4096));
    overlay_fini(&o);
}

TEST(private_locks_follow_sqlites_rules)
{
    const int shared = SQLITE_SHM_LOCK | SQLITE_SHM_SHARED;
    const int exclusive = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    const int release = SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE;
    struct private_shm s = {0};
    struct private_shm_conn a = {.shm = &s}, b = {.shm = &s};

    EXPECT_EQ(private_shm_lock(&a, 0, 1, exclusive), SQLITE_OK);
    EXPECT(private_shm_write_locked(&s));
    EXPECT_EQ(private_shm_lock(&b, 0, 1, exclusive), SQLITE_BUSY);
    EXPECT_EQ(private_shm_lock(&b, 0, 1, shared), SQLITE_BUSY);
    EXPECT_EQ(private_shm_lock(&a, 0, 1, release), SQLITE_OK);
    EXPECT_EQ(private_shm_lock(&b, 0, 1, exclusive), SQLITE_OK);
    EXPECT_EQ(private_shm_lock(&b, 0, 1, release), SQLITE_OK);

    EXPECT_EQ(private_shm_lock(&a, 4, 1, shared), SQLITE_OK);
    EXPECT_EQ(private_shm_lock(&a, 4, 1, shared), SQLITE_OK); /* has it already */
    EXPECT_EQ(private_shm_lock(&b, 4, 1, shared), SQLITE_OK);
    EXPECT(private_shm_reading(&s));
    EXPECT_EQ(private_shm_lock(&a, 5, 1, exclusive), SQLITE_OK);
    /* A range is taken whole or not at all. */
    EXPECT_EQ(private_shm_lock(&b, 5, 3, exclusive), SQLITE_BUSY);
    EXPECT(!s.exclusive[6] && !s.exclusive[7]);
    EXPECT_EQ(private_shm_lock(&b, 4, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED), SQLITE_OK);
    EXPECT_EQ(s.shared[4], 1);
    private_shm_unlock_all(&a);
    EXPECT(!private_shm_reading(&s) && !s.exclusive[5]);
    EXPECT_EQ(private_shm_lock(&b, 4, 4, exclusive), SQLITE_OK);
    private_shm_unlock_all(&b);

    EXPECT_EQ(private_shm_lock(&a, 1, 1, exclusive), SQLITE_BUSY); /* a checkpoint */
    EXPECT_EQ(private_shm_lock(&a, 1, 2, exclusive), SQLITE_OK);   /* the recovery */
    private_shm_unlock_all(&a);
    private_shm_fini(&s);
}

TEST(private_regions_stay_where_they_are)
{
    struct private_shm s = {0};
    volatile void *first, *again, *third;
    EXPECT_EQ(private_shm_map(&s, 0, 32768, 0, &first), SQLITE_OK);
    EXPECT(first == NULL);
    EXPECT_EQ(private_shm_map(&s, 0, 32768, 1, &first), SQLITE_OK);
    EXPECT_EQ(private_shm_map(&s, 2, 32768, 1, &third), SQLITE_OK);
    EXPECT_EQ(private_shm_map(&s, 0, 32768, 0, &again), SQLITE_OK);
    EXPECT(first != NULL && again == first && third != NULL);
    EXPECT_EQ(private_shm_map(&s, 1, 32768, 0, &again), SQLITE_OK);
    EXPECT(again == NULL);
    struct private_shm_state state;
    EXPECT(!private_shm_read(&s, &state)); /* not initialised */
    private_shm_fini(&s);
}
