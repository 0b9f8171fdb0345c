/* Room: replication. Thread: owner; digest_get and digest_pages: any.
 * Owns: 8 bytes a page.
 * Invariants: `checksum` is the XOR of hashes[1..pages]; a page never set, the lock-byte page and
 *   everything beyond `pages` is zero in the array, so that growing again finds zeros.
 * Not here: reading pages (database.c).
 *
 * The idea of a rolling checksum over pages is LTX's (github.com/superfly/ltx): replacing a page
 * costs two XORs, whatever the size of the database. The hash is base/page_hash.h's. */
#include "replication/digest.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/page_hash.h"
#include "replication/hash_array.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct digest {
    struct hash_array *hashes;
    _Atomic uint32_t pages; /* relaxed: no other value depends on it */
    uint32_t lock_page;
    uint64_t checksum;
};

struct digest *digest_new(uint32_t page_size)
{
    struct digest *d = MEM_NEW(struct digest);
    d->hashes = hash_array_new();
    d->lock_page = digest_lock_page(page_size);
    return d;
}

void digest_free(struct digest *d)
{
    if (d == NULL)
        return;
    hash_array_free(d->hashes);
    free(d);
}

uint32_t digest_lock_page(uint32_t page_size)
{
    return page_hash_lock_page(page_size);
}

uint64_t digest_page_hash(uint32_t page_no, const uint8_t *page, uint32_t page_size)
{
    return page_hash(page_no, page, page_size);
}

static uint32_t pages_of(const struct digest *d)
{
    return atomic_load_explicit(&d->pages, memory_order_relaxed);
}

void digest_set(struct digest *d, uint32_t page_no, uint64_t hash)
{
    CHECK(page_no != 0);
    if (page_no > pages_of(d))
        digest_resize(d, page_no);
    if (page_no == d->lock_page)
        return;
    d->checksum ^= hash_array_get(d->hashes, page_no) ^ hash;
    hash_array_set(d->hashes, page_no, hash);
}

uint64_t digest_get(const struct digest *d, uint32_t page_no)
{
    CHECK(page_no != 0);
    return page_no <= pages_of(d) ? hash_array_get(d->hashes, page_no) : 0;
}

void digest_resize(struct digest *d, uint32_t pages)
{
    uint32_t before = pages_of(d);
    atomic_store_explicit(&d->pages, pages, memory_order_relaxed);
    for (uint32_t i = pages; i < before; i++) {
        d->checksum ^= hash_array_get(d->hashes, i + 1);
        hash_array_set(d->hashes, i + 1, 0);
    }
}

uint32_t digest_pages(const struct digest *d)
{
    return pages_of(d);
}

uint64_t digest_checksum(const struct digest *d)
{
    return d->checksum;
}

struct digest_preview digest_preview_begin(const struct digest *d, uint32_t pages)
{
    struct digest_preview p = {.digest = d, .pages = pages, .checksum = d->checksum};
    for (uint32_t i = pages; i < pages_of(d); i++)
        p.checksum ^= hash_array_get(d->hashes, i + 1);
    return p;
}

void digest_preview_page(struct digest_preview *p, uint32_t page_no, uint64_t hash)
{
    CHECK(page_no != 0 && page_no <= p->pages);
    if (page_no != p->digest->lock_page)
        p->checksum ^= digest_get(p->digest, page_no) ^ hash;
}
