/* Room: node. At a start: what the node's own log says of the numbered writes that its database
 * contains. Thread: main. */
#ifndef NODE_REPLAY_H
#define NODE_REPLAY_H

#include "consensus/consensus.h"
#include "node/outcomes.h"

/* Read of the log's end: about as much as `log-keep` leaves in it, a tenth of a second. */
#define REPLAY_BYTES_MAX MIB(64)

/* Fills O with the outcomes of the log's transactions up to SEQ, whose last entry is the one at
 * APPLIED: between recover_position and cns_start. O then covers what the log still has of them,
 * and at most its newest BYTES_MAX. ERR_FORMAT: written by a newer version. */
MUST_USE enum err replay_outcomes(struct outcomes *o, struct cns *cns, uint64_t applied,
                                  uint64_t seq, uint64_t bytes_max) ON_LOOP;

/* The same from any log: SCAN calls VISIT as cns_scan_back does. */
typedef enum err (*replay_scan)(void *log, cns_visit visit, void *ctx);
MUST_USE enum err replay_from(struct outcomes *o, replay_scan scan, void *log, uint64_t applied,
                              uint64_t seq, uint64_t bytes_max);

#endif
