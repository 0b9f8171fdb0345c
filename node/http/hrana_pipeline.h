/* Room: node/http. Hrana over HTTP as JSON: POST /v2/pipeline, /v3/pipeline. Thread: loop. */
#ifndef NODE_HTTP_HRANA_PIPELINE_H
#define NODE_HTTP_HRANA_PIPELINE_H

#include "node/http/exchange.h"

extern const struct handler hrana_pipeline_2, hrana_pipeline_3;
/* GET /v2, /v3: yes, it is spoken. */
extern const struct handler hrana_is_spoken;

#endif
