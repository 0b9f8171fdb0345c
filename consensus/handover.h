/* Room: consensus. A planned change of leader: the other catches up while nothing new is taken,
 * then it is told to stand for election at once. libraft's own waiting is not used: it tells the
 * other as soon as any of its answers comes, caught up or not. Thread: loop. */
#ifndef CONSENSUS_HANDOVER_H
#define CONSENSUS_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

struct handover {
    uint64_t to; /* 0: none is planned */
    uint64_t deadline_ms;
    bool told;
};

enum handover_step { HANDOVER_WAIT, HANDOVER_TELL, HANDOVER_NONE };

void handover_plan(struct handover *h, uint64_t to, uint64_t deadline_ms);
void handover_drop(struct handover *h);
static inline bool handover_is_planned(const struct handover *h)
{
    return h->to != 0;
}
/* What to do now that the other's log matches ours up to MATCH of LAST; after the deadline the plan
 * is dropped. HANDOVER_TELL once only. */
enum handover_step handover_next(struct handover *h, uint64_t now_ms, uint64_t match,
                                 uint64_t last);

#endif
