/* Room: consensus. What a peer sent, judged before libraft's core sees it: the core only asserts,
 * and Debian's build has the assertions compiled out. Thread: loop. */
#ifndef CONSENSUS_GUARD_H
#define CONSENSUS_GUARD_H

#include "consensus/message.h"

/* May M go to the core R? ERR_PROTOCOL with a sentence: it breaks a rule of Raft or of this
 * program, and is to be dropped. */
MUST_USE enum err guard_message(const struct raft *r, uint64_t from, const struct cns_message *m);

/* Terms rise by one an election: no honest member is ahead by so many, unless it was alone with a
 * lie. So one message moves our term by so many at most, and a lie cannot use up all terms. */
#define GUARD_TERM_STEP (UINT64_C(1) << 20)
/* Would M move the term of R by more? Then it may not go to the core as it is. */
bool guard_is_far(const struct raft *r, const struct raft_message *m);
/* M is far. Makes of it what moves the term by GUARD_TERM_STEP and does nothing else, so that
 * members that a lie has set apart find together again, step by step; false when a member in the
 * role of R takes no term from such a message. Entries of M are forgotten, not freed. */
MUST_USE bool guard_step(const struct raft *r, struct raft_message *m);

/* Corrects RES, the core's own answer to a pre-vote: it has the term that was asked for, even when
 * ours is higher. Then a member with the newer log and a lower term never learns why it is refused,
 * the one with the older log is refused for that, and when there are no others nobody is ever
 * elected. Told the term, the core of the asker takes it. */
void guard_tell_term(const struct raft *r, struct raft_request_vote_result *res);

/* How many of the N items of one AppendEntries may be taken at once: up to a RAFT_CHANGE that is
 * not the first (trap T1 of LIBRAFT.md). */
unsigned guard_cut(const struct cns_item *items, unsigned n);

#endif
