/* What the other end keeps: against a plain table, and at its limits. */
#include "client/kept_set.h"
#include "client/wire.h"

#include "base/rng.h"
#include "tests/lib/fail_alloc.h"
#include "tests/lib/test.h"

TEST(kept_set_agrees_with_a_plain_table)
{
    enum { N = 300 };
    struct kept_set s = {0};
    bool has[N] = {0};
    struct rng r = {test_seed()};
    uint64_t n = 0, bytes = 0;
    for (uint64_t round = test_rounds(100000); round > 0; round--) {
        uint32_t keep = (uint32_t)rng_below(&r, N);
        EXPECT_EQ(kept_set_has(&s, keep), has[keep]);
        if (rng_once_in(&r, 2)) {
            EXPECT_EQ(kept_set_remove(&s, keep), has[keep]);
            n -= has[keep];
            bytes -= has[keep] ? keep * 10 : 0;
            has[keep] = false;
        } else if (!has[keep]) {
            EXPECT(kept_set_add(&s, keep, keep * 10));
            n++;
            bytes += keep * 10;
            has[keep] = true;
        }
        EXPECT(s.n == n && s.bytes == bytes);
    }
    kept_set_fini(&s);
}

TEST(kept_set_is_bounded)
{
    struct kept_set s = {0};
    for (uint32_t i = 1; i <= WIRE_KEPT_MAX; i++)
        EXPECT(kept_set_add(&s, i, 1));
    EXPECT(!kept_set_add(&s, WIRE_KEPT_MAX + 1, 0));
    EXPECT(kept_set_remove(&s, 7));
    EXPECT(!kept_set_add(&s, 7, WIRE_KEPT_BYTES_MAX - WIRE_KEPT_MAX + 2));
    EXPECT(!kept_set_add(&s, 7, SIZE_MAX));
    EXPECT(kept_set_add(&s, 7, WIRE_KEPT_BYTES_MAX - WIRE_KEPT_MAX + 1));
    EXPECT_EQ(s.bytes, WIRE_KEPT_BYTES_MAX);
    EXPECT(kept_set_remove(&s, 1) && !kept_set_add(&s, 1, 2) && kept_set_add(&s, 1, 1));
    kept_set_fini(&s);
    EXPECT(!kept_set_has(&s, 7) && !kept_set_remove(&s, 7));
}

TEST(kept_set_without_memory_keeps_nothing)
{
    struct kept_set s = {0};
    fail_alloc_at(1);
    bool added = kept_set_add(&s, 1, 1);
    EXPECT_EQ(fail_alloc_end(), !added);
    EXPECT_EQ(kept_set_has(&s, 1), added);
    EXPECT(added || kept_set_add(&s, 1, 1));
    kept_set_fini(&s);
}
