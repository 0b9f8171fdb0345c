/* Room: consensus. Opening the log: lock, identity, term and vote, every segment verified, the torn
 * end told from damage, interrupted steps finished (docs/FORMATS.md has the rules).
 * Thread: loop, before the log starts; blocks. */
#ifndef CONSENSUS_LOG_LOAD_H
#define CONSENSUS_LOG_LOAD_H

#include "consensus/log.h"
#include "consensus/log_outline.h"
#include "consensus/log_store.h"

/* S is initialised by this call (also on failure: log_store_fini it). */
MUST_USE enum err log_load(const struct cns_log_config *c, struct log_store *s,
                           struct log_outline *outline);

/* The same checks on the log in DIR, whoever's it is, without changing a byte: S says whose. What a
 * start would do about a torn end or an interrupted step is only noted in OUTLINE. On failure both
 * hold what was found until then. ERR_NOT_FOUND: there is no log. */
MUST_USE enum err log_load_look(const char *dir, struct log_store *s, struct log_outline *outline);

#endif
