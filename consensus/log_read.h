/* Room: consensus. Reading stored entries back, every byte verified. Thread: any but one at a time
 * a call; blocks. */
#ifndef CONSENSUS_LOG_READ_H
#define CONSENSUS_LOG_READ_H

#include "consensus/log_index.h"

/* Entries from INDEX on: at least one, at most MAX_ITEMS and about MAX_BYTES of payloads, only
 * durable ones. The items are the caller's (cns_items_free). ERR_NOT_FOUND, ERR_CORRUPT, ERR_IO. */
MUST_USE enum err log_read(struct log_index *x, uint64_t index, unsigned max_items,
                           uint64_t max_bytes, struct cns_item **items, unsigned *n);

/* For the writer: the term of entry INDEX of SEG, and the chain after it; found from MARK on. */
MUST_USE enum err log_read_chain(const struct log_segment *seg, const struct log_mark *mark,
                                 uint64_t index, uint64_t *term, uint64_t *chain);

/* The commands, newest first, until VISIT returns false. */
MUST_USE enum err log_read_back(struct log_index *x, cns_visit visit, void *ctx);

#endif
