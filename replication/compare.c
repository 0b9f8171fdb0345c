/* Room: replication. Names the pages that differ from what the log's entries say.
 * Thread: owner.
 * Owns: struct repl_compare: which pages were compared.
 * Invariants: entries come newest first, so the first version of a page that is seen is the one
 * that the database should hold. Of a transaction in several parts only those count that end in a
 * last part: an earlier leader may have left the first parts of another one with the same sequence.
 * Not here: who walks the log. */
#include "replication/database.h"

#include "base/mem.h"
#include "replication/txn_codec.h"

#include <stdio.h>
#include <stdlib.h>

#define NAMED_MAX 8 /* page numbers in the sentence */

struct repl_compare {
    struct repl_db *db;
    uint64_t seq;
    struct repl_entry last; /* the newest part that counted; seq 0: none yet */
    uint32_t pages;
    uint8_t *seen; /* one bit a page */
    uint8_t *page;
    uint32_t differ, named[NAMED_MAX];
};

struct repl_compare *repl_compare_new(struct repl_db *db)
{
    struct repl_compare *c = MEM_NEW(struct repl_compare);
    c->db = db;
    c->seq = db->position.seq;
    c->pages = digest_pages(db->digest);
    c->seen = mem_zalloc(c->pages / 8 + 1);
    c->page = mem_alloc(db->config.page_size);
    return c;
}

static void compare_page(struct repl_compare *c, uint32_t page_no) ON_OWNER
{
    uint8_t bit = (uint8_t)(1u << (page_no % 8));
    if (page_no > c->pages || (c->seen[page_no / 8] & bit) != 0)
        return;
    c->seen[page_no / 8] |= bit;
    uint64_t hash = digest_page_hash(page_no, c->page, c->db->config.page_size);
    if (page_no == digest_lock_page(c->db->config.page_size) ||
        hash == digest_get(c->db->digest, page_no))
        return;
    if (c->differ < NAMED_MAX)
        c->named[c->differ] = page_no;
    c->differ++;
}

/* Newest first: a sequence begins with its newest last part; then come the parts before it. */
static bool part_counts(const struct repl_compare *c, const struct repl_entry *h)
{
    const struct repl_entry *l = &c->last;
    if (h->seq > c->seq || h->page_size != c->db->config.page_size)
        return false;
    if (h->part + 1 == h->parts && (l->seq == 0 || h->seq < l->seq))
        return true;
    return h->seq == l->seq && h->part + 1 == l->part && h->parts == l->parts &&
           h->checksum_after == l->checksum_after;
}

enum err repl_compare_entry(struct repl_compare *c, const uint8_t *p, size_t n)
{
    struct txn_decoder d;
    bool done = false;
    uint32_t page_no;
    TRY(txn_decoder_init(&d, p, n));
    if (!part_counts(c, &d.head))
        return ERR_OK;
    c->last = d.head;
    for (;;) {
        TRY(txn_decoder_page(&d, &page_no, c->page, &done));
        if (done)
            return ERR_OK;
        compare_page(c, page_no);
    }
}

void repl_compare_end(struct repl_compare *c, char *sentence, size_t max)
{
    size_t at = (size_t)snprintf(sentence, max, "%u of the %u pages differ from the log", c->differ,
                                 c->pages);
    for (uint32_t i = 0; i < c->differ && i < NAMED_MAX && at < max; i++)
        at += (size_t)snprintf(sentence + at, max - at, "%s%u", i == 0 ? ": page " : ", ",
                               c->named[i]);
    free(c->seen);
    free(c->page);
    free(c);
}
