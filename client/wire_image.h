/* Room: client. The frames with which one node fetches the database of another: docs/PROTOCOL.md,
 * section 11. Requests like the others: in order, one at a time, each answered by its frame and
 * DONE, or by ERROR.
 *
 *     IMAGE_BEGIN   ->  IMAGE         which state this is; pinned: pages come from it alone
 *     IMAGE_HASHES  ->  IMAGE_HASHES  of a range of pages, as they are about now
 *     IMAGE_PAGES   ->  IMAGE_PAGES   those of the pages asked for that the image has
 *
 * Decoders trust nothing: counts are checked against the length of the frame and the limits. */
#ifndef CLIENT_WIRE_IMAGE_H
#define CLIENT_WIRE_IMAGE_H

#include "base/sizes.h"
#include "client/wire.h"

/* Hashes in one answer: half a megabyte, 256 MiB of pages of 4 KiB. */
#define WIRE_IMAGE_HASHES_MAX 65536u
/* Bytes of pages in one answer: small enough that a heartbeat is not late behind it. */
#define WIRE_IMAGE_PAGES_BYTES_MAX MIB(1)
/* The record of a pinned image: index, term and members, as the server's consensus encodes it. */
#define WIRE_IMAGE_RECORD_MAX KIB(60)

/* IMAGE: what there is to fetch. */
struct wire_image {
    uint64_t database_id, seq, checksum;
    uint32_t pages, page_size;
    uint64_t index;        /* of the log, this state's or an earlier one */
    const uint8_t *record; /* pinned: opaque here; empty otherwise. Borrowed */
    size_t record_len;
};

struct wire_image_pages {
    uint32_t n, page_size;
    struct rd pages; /* n times: u32 number, page_size bytes */
};

/* The most pages of PAGE_SIZE that one request may ask for. */
unsigned wire_image_pages_max(uint32_t page_size);

/* --- writing ---------------------------------------------------------------------------------- */

void wire_put_image_begin(struct buf *b, struct wire_id id, bool pin);
void wire_put_image_ask_hashes(struct buf *b, struct wire_id id, uint32_t first, uint32_t n);
void wire_put_image_ask_pages(struct buf *b, struct wire_id id, const uint32_t *page_nos,
                              uint32_t n);
void wire_put_image(struct buf *b, struct wire_id id, const struct wire_image *image);
void wire_put_image_hashes(struct buf *b, struct wire_id id, uint32_t first, const uint64_t *hashes,
                           uint32_t n);
/* PAGES: n times PAGE_SIZE bytes, in the order of PAGE_NOS. */
void wire_put_image_pages(struct buf *b, struct wire_id id, const uint32_t *page_nos, uint32_t n,
                          const uint8_t *pages, uint32_t page_size);

/* --- reading: ERR_PROTOCOL for all that is not exactly so --------------------------------------
 */

MUST_USE enum err wire_get_image_begin(struct wire_frame *f, bool *pin);
MUST_USE enum err wire_get_image_ask_hashes(struct wire_frame *f, uint32_t *first, uint32_t *n);
/* At most what fits one answer with the smallest pages; rising numbers from 1. PAGE_NOS: the body,
 * n times u32. */
MUST_USE enum err wire_get_image_ask_pages(struct wire_frame *f, struct rd *page_nos, uint32_t *n);
MUST_USE enum err wire_get_image(struct wire_frame *f, struct wire_image *image);
/* HASHES: n times u64. */
MUST_USE enum err wire_get_image_hashes(struct wire_frame *f, uint32_t *first, uint32_t *n,
                                        struct rd *hashes);
MUST_USE enum err wire_get_image_pages(struct wire_frame *f, struct wire_image_pages *p);
/* Gives each page to TAKE, whose error ends it. The pages must be some of the N that were ASKED
 * for, each at most once and in their order: ERR_PROTOCOL. */
MUST_USE enum err
wire_each_image_page(struct wire_image_pages *p, const uint32_t *asked, uint32_t n,
                     enum err (*take)(void *ctx, uint32_t page_no, const uint8_t *page), void *ctx);

#endif
