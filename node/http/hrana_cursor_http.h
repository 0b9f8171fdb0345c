/* Room: node/http. POST /v3/cursor, /v3-protobuf/cursor: a batch whose rows stream. Thread: loop.
 */
#ifndef NODE_HTTP_HRANA_CURSOR_HTTP_H
#define NODE_HTTP_HRANA_CURSOR_HTTP_H

#include "node/http/exchange.h"

extern const struct handler hrana_cursor_json, hrana_cursor_protobuf;

#endif
