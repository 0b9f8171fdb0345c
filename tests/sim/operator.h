/* Room: tests. What people and the node's own housekeeping do to a simulated cluster, at random
 * moments: logs are cut, databases lost and fetched, machines lost and replaced, members added,
 * promoted, demoted, removed. Thread: one, in the role of the loop. */
#ifndef TESTS_SIM_OPERATOR_H
#define TESTS_SIM_OPERATOR_H

#include "tests/sim/sim.h"

struct sim_operator;

struct sim_operator *sim_operator_new(struct sim *s, uint64_t seed, struct sim_stats *stats);
void sim_operator_free(struct sim_operator *o);
/* One random deed. */
void sim_operator_act(struct sim_operator *o);
/* Who needs another's database gets it, perhaps interrupted. */
void sim_operator_mend(struct sim_operator *o, bool all);
/* A change of members has got committed, or not. */
void sim_operator_look(struct sim_operator *o);

#endif
