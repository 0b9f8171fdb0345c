/* Room: node/http. Hrana over a WebSocket: hello, then requests of many streams, each answered when
 * it is done. Thread: loop. */
#ifndef NODE_HTTP_HRANA_WS_H
#define NODE_HTTP_HRANA_WS_H

#include "base/thread.h"
#include "node/http/websocket.h"

extern const struct websocket_handler hrana_ws_handler;

/* Reads on from those that had too many requests under way. */
void hrana_ws_go_on(struct node *n) ON_LOOP;

#endif
