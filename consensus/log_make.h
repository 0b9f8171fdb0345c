/* Room: consensus. A new log: bootstrapped with its first entries, or behind another node's state.
 * Thread: loop, before the log starts; blocks. */
#ifndef CONSENSUS_LOG_MAKE_H
#define CONSENSUS_LOG_MAKE_H

#include "consensus/log.h"
#include "consensus/log_outline.h"
#include "consensus/log_store.h"

/* Makes the log of S, whose directory has no segments. */
MUST_USE enum err log_make(const struct cns_log_config *c, struct log_store *s,
                           struct log_outline *outline);

#endif
