/* Room: consensus. Opening the log: lock, identity, term and vote, every segment verified, the torn
 * end told from damage, interrupted steps finished (docs/FORMATS.md has the rules).
 * Thread: loop, before the log starts; blocks. */
#ifndef CONSENSUS_LOG_LOAD_H
#define CONSENSUS_LOG_LOAD_H

#include "consensus/log.h"
#include "consensus/log_store.h"

/* What RAFT_START wants to know of the entries, without one record for each: runs of one term, and
 * the entries that are not commands. */
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
void log_outline_fini(struct log_outline *o);

/* S is initialised by this call (also on failure: log_store_fini it). */
MUST_USE enum err log_load(const struct cns_log_config *c, struct log_store *s,
                           struct log_outline *outline);

/* The same checks on the log in DIR, whoever's it is, without changing a byte: S says whose. What a
 * start would do about a torn end or an interrupted step is only noted in OUTLINE. On failure both
 * hold what was found until then. ERR_NOT_FOUND: there is no log. */
MUST_USE enum err log_load_look(const char *dir, struct log_store *s, struct log_outline *outline);

#endif
