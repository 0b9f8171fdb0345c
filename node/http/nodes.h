/* Room: node/http. GET /nodes: all members as JSON, as this node knows them: what STATUS tells, and
 * more. Thread: loop. */
#ifndef NODE_HTTP_NODES_H
#define NODE_HTTP_NODES_H

#include "node/http/exchange.h"

extern const struct handler nodes_handler;

#endif
