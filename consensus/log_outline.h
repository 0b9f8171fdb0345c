/* Room: consensus. What RAFT_START wants to know of the entries, without one record for each: runs
 * of one term, and the entries that are not commands. From loading until the log starts. Thread:
 * one at a time. */
#ifndef CONSENSUS_LOG_OUTLINE_H
#define CONSENSUS_LOG_OUTLINE_H

#include "consensus/log_segment.h"

struct log_run {
    uint64_t first_index, term;
};
struct log_outline {
    uint64_t first_index, prev_term; /* PREV_TERM: of the entry before it, 0 when it is entry 1 */
    struct log_run *runs;
    size_t n_runs, cap_runs;
    struct cns_item *others; /* barriers; changes with their payload */
    size_t n_others, cap_others;
    bool made;
    bool torn;       /* the last write was torn, and dropped */
    bool unfinished; /* an installation was interrupted, and finished */
};
/* The term of entry INDEX, which is in the log or right before its first one. */
uint64_t log_outline_term(const struct log_outline *o, uint64_t index);
/* The next entry; what is kept of R is copied. */
void log_outline_add(struct log_outline *o, const struct log_record *r);
void log_outline_fini(struct log_outline *o);

#endif
