/* Room: consensus. ReadIndex (Raft thesis 6.4), which libraft does not have: an index such that a
 * read is linearizable once the node has applied it, without a write to the log.
 *
 *   member:  ASK(number) ------------> leader          (a read of the leader's own skips this)
 *   leader:  notes its commit index, PROBE(term, round) to all voters
 *   voter:   CONFIRM(term, round), if its term is still that and it follows that leader
 *   leader:  a majority, itself included, confirmed this round or a later one:
 *            ANSWER(number, index) --> member
 *
 * Only confirmations that were given after the read began count: rounds rise, an old CONFIRM
 * carries an old round. Who confirms TERM after the read began had not voted in a later term
 * before: so no later leader had been elected, and nothing was committed beyond what this leader
 * knows. A leader knows that only once an entry of its own term is committed: until then reads
 * wait. One round serves all that wait. Thread: loop. */
#ifndef CONSENSUS_READ_INDEX_H
#define CONSENSUS_READ_INDEX_H

#include "consensus/outbox.h"

struct reads;

/* What this member is at the moment, given by the driver with every call. */
struct reads_view {
    uint64_t now_ms, self, term, leader_id; /* leader_id == self: we lead */
    uint64_t commit;
    bool ready; /* leading, and an entry of this term is committed */
    const struct raft_configuration *members;
};

/* FIRST_NUMBER: random, so that an answer to an earlier life of this member never fits. */
struct reads *reads_new(struct outbox *outbox, uint64_t first_number, unsigned heartbeat_ms,
                        unsigned election_ms);
void reads_free(struct reads *r); /* the reads that wait stay the caller's, uncalled */

void reads_add(struct reads *r, struct cns_read *read, uint64_t deadline_ms);
/* Harmless when it is done already. */
void reads_cancel(struct cns_read *read);
/* A CNS_BYTES_READ_INDEX message. Outside input: what does not parse or fit is ignored. */
void reads_receive(struct reads *r, const struct reads_view *v, uint64_t from, const uint8_t *p,
                   size_t n);
/* Asks, probes, answers and expires; at the end of each loop turn. May call reads' `done`. */
void reads_flush(struct reads *r, const struct reads_view *v);
/* No `done` after this; may be called from inside one. The reads that wait stay the caller's. */
void reads_stop(struct reads *r);
/* Ends all with E. */
void reads_fail(struct reads *r, enum err e);

#endif
