/* Room: node/http. POST /v3/cursor: a batch whose rows stream. Thread: loop. */
#ifndef NODE_HTTP_HRANA_CURSOR_HTTP_H
#define NODE_HTTP_HRANA_CURSOR_HTTP_H

#include "node/http/exchange.h"

extern const struct handler hrana_cursor_handler;

#endif
