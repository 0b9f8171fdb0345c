/* Room: node/http. GET /metrics: the node in numbers, for Prometheus. docs/METRICS.md has each
 * name; a test compares the two. Thread: loop. */
#ifndef NODE_HTTP_METRICS_H
#define NODE_HTTP_METRICS_H

#include "base/buf.h"
#include "base/thread.h"
#include "node/http/exchange.h"

/* All of N's metrics, appended to OUT. */
void metrics_put(struct node *n, struct buf *out) ON_LOOP;

extern const struct handler metrics_handler;

#endif
