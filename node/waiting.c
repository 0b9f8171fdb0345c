/* Room: node. Thread: loop. Owns: nothing but a sum.
 * Invariant: the sum is that of all *counted* given to waiting_set. */
#include "node/waiting.h"

#include "base/check.h"

void waiting_init(struct waiting *w, size_t limit, size_t connections_max)
{
    *w = (struct waiting){.limit = limit, .last = limit + connections_max * WAITING_SHARE};
}

void waiting_set(struct waiting *w, size_t *counted, size_t now)
{
    CHECK(w->bytes >= *counted);
    w->bytes = w->bytes - *counted + now;
    *counted = now;
}

bool waiting_has_room(const struct waiting *w, size_t own, size_t more)
{
    size_t limit = w->limit / 4 * 3;
    if (own + more <= WAITING_SHARE)
        limit = w->last;
    else if (own + more <= WAITING_MODEST)
        limit = w->limit;
    return w->bytes + more <= limit;
}
