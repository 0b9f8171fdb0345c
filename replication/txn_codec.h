/* Room: replication. A transaction as bytes for the log: entries, each a part, drawn in
 * docs/FORMATS.md. The only file with <lz4.h> is txn_codec.c. Thread: any. */
#ifndef REPLICATION_TXN_CODEC_H
#define REPLICATION_TXN_CODEC_H

#include "base/buf.h"
#include "replication/replication.h"

/* A transaction is cut by the number of its pages: every part but the last holds as many as surely
 * fit PART_MAX bytes, however badly they pack. So the number of parts is known before one is made,
 * each can be made alone, and made again with the same bytes. PART_MAX: at least page_size + 128,
 * without the section, which is in the last part only.
 */
uint32_t txn_part_pages(uint32_t page_size, uint64_t part_max);

/* Writing one part: begin, pages in rising order of their numbers, finish. */
struct txn_encoder;
/* HEAD: all fields are used; its section is copied. PAGES: how many will come, at most. */
struct txn_encoder *txn_encoder_new(const struct repl_entry *head, uint32_t pages);
/* 0 < PAGE_NO <= pages_after. */
void txn_encoder_page(struct txn_encoder *e, uint32_t page_no, const uint8_t *page);
/* The part's bytes (malloc'ed); frees the encoder. */
uint8_t *txn_encoder_finish(struct txn_encoder *e, size_t *len);
/* Instead of finish: drops everything. */
void txn_encoder_free(struct txn_encoder *e);

/* Reading: repl_entry_read (of replication.h, implemented in txn_codec.c) verifies head and
 * checksum; then the pages one by one. PAGE is page_size bytes, filled in. Returns ERR_CORRUPT for
 * anything out of place (PAGE may be half filled then); *done = true behind the last page (nothing
 * was filled in then). Pages rise over the parts of a transaction, too: who reads part after part
 * sets last_page_no of the next decoder to that of the one before, and it is checked. head.part
 * counts from 0. */
struct txn_decoder {
    struct repl_entry head;
    struct rd pages;
    uint32_t n_pages, last_page_no;
};
MUST_USE enum err txn_decoder_init(struct txn_decoder *d, const uint8_t *p, size_t n);
MUST_USE enum err txn_decoder_page(struct txn_decoder *d, uint32_t *page_no, uint8_t *page,
                                   bool *done);

#endif
