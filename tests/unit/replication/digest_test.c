/* Room: tests. replication/digest: against a plain array and a XOR from scratch. */
#include "base/mem.h"
#include "base/rng.h"
#include "replication/digest.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

#define PAGE  512u
#define PAGES 4000u

static uint64_t from_scratch(const uint64_t *model, uint32_t pages, uint32_t lock)
{
    uint64_t sum = 0;
    for (uint32_t i = 1; i <= pages; i++)
        if (i != lock)
            sum ^= model[i];
    return sum;
}

TEST(digest_hashes_number_and_content)
{
    uint8_t a[PAGE], b[PAGE];
    memset(a, 1, sizeof a);
    memcpy(b, a, sizeof b);
    EXPECT(digest_page_hash(1, a, PAGE) == digest_page_hash(1, b, PAGE));
    EXPECT(digest_page_hash(1, a, PAGE) != digest_page_hash(2, a, PAGE));
    for (uint32_t bit = 0; bit < PAGE * 8; bit++) {
        b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        EXPECT(digest_page_hash(1, a, PAGE) != digest_page_hash(1, b, PAGE));
        b[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

TEST(digest_counts_a_page_of_zeros_as_none)
{
    uint8_t page[PAGE] = {0};
    EXPECT_EQ(digest_page_hash(7, page, PAGE), 0);
    for (uint32_t i = 0; i < PAGE; i++) {
        page[i] = 1;
        EXPECT(digest_page_hash(7, page, PAGE) != 0);
        page[i] = 0;
    }
}

TEST(digest_knows_the_lock_byte_page)
{
    EXPECT_EQ(digest_lock_page(512), 2097153);
    EXPECT_EQ(digest_lock_page(4096), 262145);
    EXPECT_EQ(digest_lock_page(65536), 16385);
    struct digest *d = digest_new(65536);
    digest_set(d, 16385, 77);
    EXPECT_EQ(digest_checksum(d), 0);
    EXPECT_EQ(digest_pages(d), 16385);
    struct digest_preview p = digest_preview_begin(d, 16386);
    digest_preview_page(&p, 16385, 77);
    digest_preview_page(&p, 16386, 5);
    EXPECT_EQ(p.checksum, 5);
    digest_free(d);
}

/* A transaction as replication makes them: a new size, some pages, previewed and then done. */
static void random_transaction(struct digest *d, uint64_t *model, uint32_t *pages, struct rng *r)
{
    uint32_t after = rng_once_in(r, 3) ? (uint32_t)rng_below(r, PAGES) + 1 : *pages;
    struct digest_preview p = digest_preview_begin(d, after);
    const uint64_t before = digest_checksum(d);
    static struct {
        uint32_t page_no;
        uint64_t hash;
    } set[50];
    static uint8_t used[PAGES + 1];
    unsigned n = (unsigned)rng_below(r, 50);
    memset(used, 0, sizeof used);
    for (unsigned i = 0; i < n; i++) {
        uint32_t page_no = (uint32_t)rng_below(r, after) + 1;
        if (used[page_no]++) {
            n = i;
            break;
        }
        set[i].page_no = page_no;
        set[i].hash = rng_u64(r);
        digest_preview_page(&p, page_no, set[i].hash);
    }
    EXPECT_EQ(digest_checksum(d), before);
    for (uint32_t i = after; i < *pages; i++)
        model[i + 1] = 0;
    digest_resize(d, after);
    *pages = after;
    for (unsigned i = 0; i < n; i++) {
        digest_set(d, set[i].page_no, set[i].hash);
        model[set[i].page_no] = set[i].hash;
    }
    EXPECT_EQ(digest_pages(d), after);
    EXPECT_EQ(digest_checksum(d), from_scratch(model, after, digest_lock_page(PAGE)));
    EXPECT_EQ(p.checksum, digest_checksum(d));
}

TEST(digest_equals_a_plain_xor_over_random_transactions)
{
    struct rng r = {test_seed()};
    struct digest *d = digest_new(PAGE);
    uint64_t *model = mem_zalloc((PAGES + 1) * sizeof *model);
    uint32_t pages = 0;
    digest_set(d, ++pages, model[1] = rng_u64(&r));
    for (uint64_t i = 0, n = test_rounds(5000); i < n; i++)
        random_transaction(d, model, &pages, &r);
    for (uint32_t i = 1; i <= pages; i++)
        EXPECT_EQ(digest_get(d, i), model[i]);
    EXPECT_EQ(digest_get(d, pages + 1), 0);
    free(model);
    digest_free(d);
}
