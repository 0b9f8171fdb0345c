/* Room: node/http. What load balancers and supervisors ask, each one line of text.
 *
 *   GET /health   200 as long as the node answers at all
 *   GET /livez    the same
 *   GET /readyz   200, or 503 and why clients should go elsewhere; the query may say
 *                   noleader      a node without a leader will do (it answers reads of level `any`)
 *                   writes        only one through which writes are done now
 *                   max_lag=MS    how old its state may be (READY_LAG_MS)
 *   GET /leader   200 on the node that runs the writes, else 503 and where that is
 *
 * Thread: loop. */
#ifndef NODE_HTTP_HEALTH_H
#define NODE_HTTP_HEALTH_H

#include "base/thread.h"
#include "node/http/exchange.h"

/* A state older than this is not ready. */
#define READY_LAG_MS 10000u

struct ready_wish {
    bool noleader, writes;
    uint64_t max_lag_ms;
};

/* Why N is not ready, into WHY (ERR_TEXT_MAX); false: it is. */
bool health_is_unready(struct node *n, const struct ready_wish *wish, char *why) ON_LOOP;

extern const struct handler health_alive, health_ready, health_leader;

#endif
