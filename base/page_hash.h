/* Room: base. The hash of one page of a database: what nodes compare, and what a copy made by a
 * client is compared with. Thread: any. */
#ifndef BASE_PAGE_HASH_H
#define BASE_PAGE_HASH_H

#include <stdint.h>

/* 0 for a page of zeros only: one that the database grew by and nobody wrote yet counts nothing,
 * the same whether it was never seen or read back from the end of a file. */
uint64_t page_hash(uint32_t page_no, const uint8_t *page, uint32_t page_size);
/* The page with SQLite's lock byte: never used, and in no checksum. 1 GiB / page size + 1. */
uint32_t page_hash_lock_page(uint32_t page_size);

#endif
