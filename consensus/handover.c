/* Room: consensus. Thread: loop. Owns: the plan.
 *
 *      none --plan--> waiting --caught up--> told --(new leader: the driver drops it)--> none
 *                        \------deadline------/----------------------------------------->
 */
#include "consensus/handover.h"

#include "base/check.h"

void handover_plan(struct handover *h, uint64_t to, uint64_t deadline_ms)
{
    CHECK(to != 0 && h->to == 0);
    *h = (struct handover){.to = to, .deadline_ms = deadline_ms};
}

void handover_drop(struct handover *h)
{
    h->to = 0;
}

enum handover_step handover_next(struct handover *h, uint64_t now_ms, uint64_t match, uint64_t last)
{
    CHECK(match <= last);
    if (h->to == 0)
        return HANDOVER_NONE;
    if (now_ms >= h->deadline_ms) {
        handover_drop(h);
        return HANDOVER_NONE;
    }
    if (h->told || match < last)
        return HANDOVER_WAIT;
    h->told = true;
    return HANDOVER_TELL;
}
