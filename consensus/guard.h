/* Room: consensus. What a peer sent, judged before libraft's core sees it: the core only asserts,
 * and Debian's build has the assertions compiled out. Thread: loop. */
#ifndef CONSENSUS_GUARD_H
#define CONSENSUS_GUARD_H

#include "consensus/message.h"

/* May M go to the core R? ERR_PROTOCOL with a sentence: it breaks a rule of Raft or of this
 * program, and is to be dropped. */
MUST_USE enum err guard_message(const struct raft *r, uint64_t from, const struct cns_message *m);

/* How many of the N items of one AppendEntries may be taken at once: up to a RAFT_CHANGE that is
 * not the first (trap T1 of LIBRAFT.md). */
unsigned guard_cut(const struct cns_item *items, unsigned n);

#endif
