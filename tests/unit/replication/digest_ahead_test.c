/* Room: tests. The hashes of unpublished pages against a plain list of transactions, also where the
 * low half of a sequence begins anew. */
#include "replication/digest_ahead.h"

#include "base/mem.h"
#include "base/rng.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

enum { PAGES = 700, DEPTH = 6 };

/* newest[k]: the database after the K-th unpublished transaction; newest[0]: the published one. */
struct model {
    uint32_t pages[DEPTH + 1];
    uint64_t hash[DEPTH + 1][PAGES + 1];
    unsigned depth;
};

static void expect_same(const struct digest_ahead *a, const struct model *m)
{
    uint64_t sum = 0;
    for (uint32_t p = 1; p <= PAGES; p++) {
        uint64_t want = p <= m->pages[m->depth] ? m->hash[m->depth][p] : 0;
        EXPECT_EQ(digest_ahead_get(a, p), want);
        sum ^= want;
    }
    EXPECT_EQ(a->checksum, sum);
    EXPECT_EQ(a->pages, m->pages[m->depth]);
    EXPECT(a->used <= a->cap);
}

static void commit(struct digest_ahead *a, struct model *m, uint64_t seq, struct rng *r)
{
    unsigned k = m->depth++;
    m->pages[k + 1] = 1 + (uint32_t)rng_below(r, PAGES);
    memcpy(m->hash[k + 1], m->hash[k], sizeof m->hash[0]);
    for (uint32_t p = m->pages[k + 1] + 1; p <= PAGES; p++)
        m->hash[k + 1][p] = 0;
    digest_ahead_resize(a, seq, m->pages[k + 1]);
    for (uint64_t n = rng_below(r, rng_once_in(r, 8) ? PAGES : 10); n > 0; n--) {
        uint32_t p = 1 + (uint32_t)rng_below(r, m->pages[k + 1]);
        m->hash[k + 1][p] = rng_u64(r);
        digest_ahead_set(a, seq, p, m->hash[k + 1][p]);
    }
}

static void publish(struct digest_ahead *a, struct model *m, struct digest *d, uint64_t seq)
{
    digest_resize(d, m->pages[1]);
    for (uint32_t p = 1; p <= m->pages[1]; p++)
        digest_set(d, p, m->hash[1][p]);
    digest_ahead_published(a, seq);
    m->depth--;
    memmove(m->pages, m->pages + 1, sizeof m->pages - sizeof m->pages[0]);
    memmove(m->hash, m->hash + 1, sizeof m->hash - sizeof m->hash[0]);
}

TEST(digest_ahead_is_the_digest_after_the_newest_transaction)
{
    struct rng r = {test_seed()};
    struct model *m = MEM_NEW(struct model);
    struct digest *d = digest_new(4096);
    struct digest_ahead a;
    uint64_t sealed = UINT64_C(0x1fffffff0), published = sealed;
    digest_set(d, 1, 77);
    m->pages[0] = 1;
    m->hash[0][1] = 77;
    digest_ahead_init(&a, d, published, 4096);
    for (uint64_t i = 0, n = test_rounds(3000); i < n; i++) {
        if (m->depth < DEPTH && (m->depth == 0 || rng_once_in(&r, 2)))
            commit(&a, m, ++sealed, &r);
        else
            publish(&a, m, d, ++published);
        if (i % 10 == 0)
            expect_same(&a, m);
    }
    digest_ahead_fini(&a);
    digest_free(d);
    free(m);
}

/* A slot that stays for longer than the low half of a sequence lasts is not taken for a new one. */
TEST(digest_ahead_forgets_in_time)
{
    struct digest *d = digest_new(4096);
    struct digest_ahead a;
    uint64_t seq = 5;
    digest_set(d, 1, 77);
    digest_ahead_init(&a, d, seq - 1, 4096);
    digest_ahead_resize(&a, seq, 2);
    digest_ahead_set(&a, seq, 1, 99);
    digest_set(d, 1, 99);
    digest_resize(d, 2);
    digest_ahead_published(&a, seq);
    for (int i = 0; i < 12; i++) {
        seq += 0x20000001u; /* as if so many had been published, none of which touched page 1 */
        digest_ahead_published(&a, seq);
        digest_set(d, 1, 100u + (unsigned)i);
        EXPECT_EQ(digest_ahead_get(&a, 1), 100u + (unsigned)i);
    }
    digest_ahead_fini(&a);
    digest_free(d);
}
