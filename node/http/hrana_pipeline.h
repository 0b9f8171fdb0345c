/* Room: node/http. Hrana over HTTP: POST /v2/pipeline, /v3/pipeline, /v3-protobuf/pipeline.
 * Thread: loop. */
#ifndef NODE_HTTP_HRANA_PIPELINE_H
#define NODE_HTTP_HRANA_PIPELINE_H

#include "node/http/exchange.h"

extern const struct handler hrana_pipeline_2, hrana_pipeline_3, hrana_pipeline_3_protobuf;
/* GET /v2, /v3, /v3-protobuf: yes, it is spoken. */
extern const struct handler hrana_is_spoken;

#endif
