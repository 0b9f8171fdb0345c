/* Room: consensus. The term of every entry of the log, as runs: a few bytes per leadership, however
 * long the log. libraft keeps the same for itself, but does not export it. Thread: loop. */
#ifndef CONSENSUS_TERMS_H
#define CONSENSUS_TERMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct terms {
    struct terms_run {
        uint64_t first, term; /* from this index on, up to the next run */
    } * runs;
    size_t n, cap;
    uint64_t first, last; /* indexes of the log; empty: last == first - 1 */
    uint64_t prev_term;   /* of the entry before `first`; 0: there is none */
};

/* PREV_TERM: of the entry before FIRST_INDEX; 0 exactly when that is 1. */
void terms_init(struct terms *t, uint64_t first_index, uint64_t prev_term);
void terms_fini(struct terms *t);
/* The next entry, at last + 1. TERM is at least that of the entry before it. */
void terms_append(struct terms *t, uint64_t term);
/* Drops the entries from INDEX on. */
void terms_truncate(struct terms *t, uint64_t index);
/* Drops the entries before INDEX, at most last + 1. */
void terms_cut(struct terms *t, uint64_t index);
/* Of an entry of the log, or of the one before its first; 0: neither. */
uint64_t terms_at(const struct terms *t, uint64_t index);
/* The first index in the log of the run that holds INDEX, which is in the log. */
uint64_t terms_run_first(const struct terms *t, uint64_t index);

#endif
