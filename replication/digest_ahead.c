/* Room: replication. Thread: owner.
 * Owns: the hashes of unpublished pages.
 * Invariants: `checksum` is the XOR of digest_ahead_get over all pages; memory is bounded by what
 *   is unpublished, because old entries leave when the table would have to grow.
 * Not here: the hashes of published pages (digest.c). */
#include "replication/digest_ahead.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdlib.h>

#define FIRST_CAP 256 /* a power of two */

void digest_ahead_init(struct digest_ahead *a, const struct digest *published, uint64_t seq,
                       uint32_t page_size)
{
    *a = (struct digest_ahead){.published = published,
                               .published_seq = seq,
                               .lock_page = digest_lock_page(page_size),
                               .pages = digest_pages(published),
                               .checksum = digest_checksum(published),
                               .cap = FIRST_CAP};
    a->slots = mem_zalloc(a->cap * sizeof *a->slots);
}

void digest_ahead_fini(struct digest_ahead *a)
{
    free(a->slots);
    *a = (struct digest_ahead){0};
}

/* The slot of PAGE_NO, or the free one where it would go. */
static struct ahead_page *slot_of(const struct digest_ahead *a, uint32_t page_no)
{
    size_t i = (page_no * 2654435761u) & (a->cap - 1);
    while (a->slots[i].page_no != 0 && a->slots[i].page_no != page_no)
        i = (i + 1) & (a->cap - 1);
    return &a->slots[i];
}

uint64_t digest_ahead_get(const struct digest_ahead *a, uint32_t page_no)
{
    CHECK(page_no > 0);
    const struct ahead_page *s = slot_of(a, page_no);
    if (s->page_no != 0 && s->seq > a->published_seq)
        return s->hash;
    return page_no <= digest_pages(a->published) ? digest_get(a->published, page_no) : 0;
}

/* Makes a table where at most a quarter is used, without what was published meanwhile. */
static void rebuild(struct digest_ahead *a)
{
    struct ahead_page *old = a->slots;
    size_t old_cap = a->cap, live = 0;
    for (size_t i = 0; i < old_cap; i++)
        live += old[i].page_no != 0 && old[i].seq > a->published_seq;
    a->cap = FIRST_CAP;
    while (a->cap < live * 4)
        a->cap *= 2;
    a->slots = mem_zalloc(a->cap * sizeof *a->slots);
    a->used = live;
    for (size_t i = 0; i < old_cap; i++)
        if (old[i].page_no != 0 && old[i].seq > a->published_seq)
            *slot_of(a, old[i].page_no) = old[i];
    free(old);
}

static void put(struct digest_ahead *a, uint64_t seq, uint32_t page_no, uint64_t hash)
{
    CHECK(seq > a->published_seq);
    a->newest_seq = seq;
    a->checksum ^= digest_ahead_get(a, page_no) ^ hash;
    struct ahead_page *s = slot_of(a, page_no);
    if (s->page_no == 0 && ++a->used > a->cap / 2) {
        rebuild(a);
        a->used++;
        s = slot_of(a, page_no);
    }
    *s = (struct ahead_page){.page_no = page_no, .hash = hash, .seq = seq};
}

void digest_ahead_resize(struct digest_ahead *a, uint64_t seq, uint32_t pages)
{
    for (uint32_t p = pages + 1; p <= a->pages; p++)
        if (digest_ahead_get(a, p) != 0)
            put(a, seq, p, 0);
    a->pages = pages;
}

void digest_ahead_set(struct digest_ahead *a, uint64_t seq, uint32_t page_no, uint64_t hash)
{
    CHECK(page_no > 0 && page_no <= a->pages);
    if (page_no != a->lock_page)
        put(a, seq, page_no, hash);
}

void digest_ahead_published(struct digest_ahead *a, uint64_t seq)
{
    CHECK(seq > a->published_seq);
    a->published_seq = seq;
    if (seq >= a->newest_seq && a->cap > 16 * FIRST_CAP)
        rebuild(a); /* after a large transaction: nothing is left to copy */
}
