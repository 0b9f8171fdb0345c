/* Room: node/http. Hrana 3 as Protobuf, both ways (hrana_form.h). Thread: any, one at a time. */
#ifndef NODE_HTTP_HRANA_PROTOBUF_H
#define NODE_HTTP_HRANA_PROTOBUF_H

#include "node/http/hrana_form.h"

extern const struct hrana_form hrana_protobuf;

/* --- reading: parts of hrana_protobuf --- */

void *hrana_protobuf_reader_new(struct arena *arena);
void hrana_protobuf_reader_free(void *state);
MUST_USE enum err hrana_protobuf_feed(void *state, const void *p, size_t n);
/* POST /v3-protobuf/pipeline. */
MUST_USE enum err hrana_protobuf_pipeline(struct hrana_reader *r, struct hrana_body *out);
/* POST /v3-protobuf/cursor. */
MUST_USE enum err hrana_protobuf_cursor(struct hrana_reader *r, struct hrana_body *out);
/* A message over a WebSocket. */
MUST_USE enum err hrana_protobuf_message(struct hrana_reader *r, struct hrana_message *out);

#endif
