/* Room: consensus. Arrays of libraft's struct raft_entry, as its core wants them: the loaded log
 * for RAFT_START, and the entries of one step. Thread: loop. */
#ifndef CONSENSUS_ENTRIES_H
#define CONSENSUS_ENTRIES_H

#include "consensus/io.h"

struct entries {
    struct raft_entry *e; /* raft_malloc'ed */
    unsigned n, cap;
};

/* Frees the array, and the blocks that entries_load made. */
void entries_fini(struct entries *a);
/* Appends the entry of a loaded log. ERR_PROTOCOL: a RAFT_CHANGE that does not decode. */
MUST_USE enum err entries_load(struct entries *a, uint64_t term, enum cns_kind kind,
                               const struct cns_payload *payload);
/* The N items as one batch for a step; returns the block that the core frees, or that
 * update.entries gives back. The array is good until the next call. NULL when N is 0. */
void *entries_batch(struct entries *a, const struct cns_item *items, unsigned n);

#endif
