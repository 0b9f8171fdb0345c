/* Room: consensus. Where the log begins: the snapshot record renewed, old segments dropped, a log
 * begun anew behind another node's state. Thread: loop before the log starts; then the keeper. */
#ifndef CONSENSUS_LOG_CUT_H
#define CONSENSUS_LOG_CUT_H

#include "consensus/log_load.h"

/* Makes S the durable record; the log must have its entry (CHECKed as far as it is known). One that
 * is older than the present record changes nothing. ERR_FULL: nothing changed, try again. */
MUST_USE enum err log_cut_record(struct log_store *s, const struct cns_snapshot *snapshot);

/* Removes the oldest segment, durably, when the record covers all of it and KEEP_BYTES of records
 * remain; never the active one. *more: one went, there may be another. */
MUST_USE enum err log_cut_step(struct log_store *s, uint64_t keep_bytes, bool *more);

/* cns_log_install. Before the log starts only. */
MUST_USE enum err log_cut_install(struct log_store *s, struct log_outline *outline,
                                  const struct cns_snapshot *snapshot);

#endif
