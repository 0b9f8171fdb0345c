/* Room: base. Thread: any.
 *
 * XXH3-64 with the page number as its seed, so that equal pages at two places do not cancel in a
 * checksum that is the XOR of all (replication/digest.c). */
#include "base/page_hash.h"

#include "base/check.h"
#include "base/hash.h"

#include <stdbool.h>
#include <string.h>

#define LOCK_BYTE 0x40000000u /* SQLite's PENDING_BYTE */

uint32_t page_hash_lock_page(uint32_t page_size)
{
    CHECK(page_size >= 512);
    return LOCK_BYTE / page_size + 1;
}

/* Ends at the first word of nearly every page. */
static bool all_zero(const uint8_t *page, uint32_t page_size)
{
    uint64_t first;
    memcpy(&first, page, sizeof first);
    return first == 0 && memcmp(page, page + 8, page_size - 8) == 0;
}

uint64_t page_hash(uint32_t page_no, const uint8_t *page, uint32_t page_size)
{
    if (all_zero(page, page_size))
        return 0;
    return hash64(page, page_size, page_no);
}
