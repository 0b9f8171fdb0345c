/* Room: replication. The hash of every page and the rolling checksum of the database (as LTX does
 * it): the XOR over all pages of the hash of (page number, content). 8 bytes a page, in memory.
 * Thread: owner; digest_get, digest_pages, digest_page_hash, digest_lock_page: any. */
#ifndef REPLICATION_DIGEST_H
#define REPLICATION_DIGEST_H

#include "base/err.h"

#include <stdint.h>

struct digest;

struct digest *digest_new(uint32_t page_size);
void digest_free(struct digest *d);
/* base/page_hash.h: 0 for a page of zeros only. */
uint64_t digest_page_hash(uint32_t page_no, const uint8_t *page, uint32_t page_size);
/* Sets a page's hash; a page_no beyond the end makes the database that long. The lock-byte page
 * counts nothing. */
void digest_set(struct digest *d, uint32_t page_no, uint64_t hash);
/* 0: never set, or beyond the end. On another thread than the owner's: about now. */
uint64_t digest_get(const struct digest *d, uint32_t page_no);
/* The database has so many pages now: those beyond count nothing any more (also after growing
 * again). */
void digest_resize(struct digest *d, uint32_t pages);
uint32_t digest_pages(const struct digest *d);
uint64_t digest_checksum(const struct digest *d);
uint32_t digest_lock_page(uint32_t page_size); /* its number: 1 GiB / page size + 1 */

/* What the checksum would be after a transaction, without changing anything: begin, pages, end. */
struct digest_preview {
    const struct digest *digest;
    uint32_t pages;
    uint64_t checksum; /* the answer, when all pages were given */
};
/* PAGES: database size after it. */
struct digest_preview digest_preview_begin(const struct digest *d, uint32_t pages);
/* Each page at most once, page_no <= PAGES. */
void digest_preview_page(struct digest_preview *p, uint32_t page_no, uint64_t hash);

#endif
