/* Room: node/http. The forms without streams: POST /v1/execute, POST /v1/batch, and POST / as it
 * was before Hrana. Each request is a stream of its own. Thread: loop. */
#ifndef NODE_HTTP_HRANA_V1_H
#define NODE_HTTP_HRANA_V1_H

#include "node/http/exchange.h"

extern const struct handler hrana_v1_execute;
extern const struct handler hrana_v1_batch;
extern const struct handler hrana_statements; /* POST / */

#endif
