/* Room: replication. A transaction as bytes for the log: entries, each a part, drawn in
 * docs/FORMATS.md. The only file with <lz4.h> is txn_codec.c. Thread: any. */
#ifndef REPLICATION_TXN_CODEC_H
#define REPLICATION_TXN_CODEC_H

#include "base/buf.h"
#include "replication/replication.h"

/* Writing: begin, pages in rising order of their numbers (each once), end. Parts of at most
 * PART_MAX bytes are cut as they fill; the total number of parts is patched in and checksums set at
 * the end. */
struct txn_encoder;
/* HEAD: database_id, seq, wall_ms, checksum_before, checksum_after, pages_after, page_size are
 * used. PART_MAX: at least page_size + 128. */
struct txn_encoder *txn_encoder_new(const struct repl_entry *head, size_t part_max);
/* 0 < PAGE_NO <= pages_after. */
void txn_encoder_page(struct txn_encoder *e, uint32_t page_no, const uint8_t *page);
/* The parts (malloc'ed array of malloc'ed bytes), at least one; frees the encoder. */
struct txn_part {
    uint8_t *bytes;
    size_t len;
};
struct txn_part *txn_encoder_finish(struct txn_encoder *e, unsigned *n);
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
