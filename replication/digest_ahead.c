/* Room: replication. Thread: owner.
 * Owns: the hashes of unpublished pages.
 * Invariants: `checksum` is the XOR of digest_ahead_get over all pages; memory is bounded by what
 *   is unpublished, because old entries leave when the table would have to grow; no slot is so old
 *   that the low half of its sequence could be mistaken for a new one's.
 * Not here: the hashes of published pages (digest.c). */
#include "replication/digest_ahead.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdlib.h>

#define FIRST_CAP    256        /* a power of two */
#define REBUILD_SEQS 0x40000000 /* transactions published with the same table, at most */

void digest_ahead_init(struct digest_ahead *a, const struct digest *published, uint64_t seq,
                       uint32_t page_size)
{
    *a = (struct digest_ahead){.published = published,
                               .published_seq = seq,
                               .rebuilt_seq = seq,
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

static bool is_ahead(const struct digest_ahead *a, const struct ahead_page *s)
{
    return s->page_no != 0 && (int32_t)(s->seq - (uint32_t)a->published_seq) > 0;
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
    if (is_ahead(a, s))
        return s->hash;
    return page_no <= digest_pages(a->published) ? digest_get(a->published, page_no) : 0;
}

/* Makes a table of which at most a half is used, without what was published meanwhile. */
static void rebuild(struct digest_ahead *a)
{
    struct ahead_page *old = a->slots;
    size_t old_cap = a->cap, live = 0;
    for (size_t i = 0; i < old_cap; i++)
        live += is_ahead(a, &old[i]);
    a->cap = FIRST_CAP;
    while (a->cap < live * 2)
        a->cap *= 2;
    a->slots = mem_zalloc(a->cap * sizeof *a->slots);
    a->used = live;
    a->rebuilt_seq = a->published_seq;
    for (size_t i = 0; i < old_cap; i++)
        if (is_ahead(a, &old[i]))
            *slot_of(a, old[i].page_no) = old[i];
    free(old);
}

static void put(struct digest_ahead *a, uint64_t seq, uint32_t page_no, uint64_t hash)
{
    CHECK(seq > a->published_seq);
    a->newest_seq = seq;
    a->checksum ^= digest_ahead_get(a, page_no) ^ hash;
    struct ahead_page *s = slot_of(a, page_no);
    if (s->page_no == 0 && ++a->used > a->cap / 4 * 3) {
        rebuild(a);
        a->used++;
        s = slot_of(a, page_no);
    }
    *s = (struct ahead_page){.page_no = page_no, .hash = hash, .seq = (uint32_t)seq};
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
    bool after_large = seq >= a->newest_seq && a->cap > 16 * FIRST_CAP; /* nothing to copy */
    if (after_large || seq - a->rebuilt_seq >= REBUILD_SEQS)
        rebuild(a);
}
