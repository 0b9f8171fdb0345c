/* Room: node/http. The HTTP door of a node: the table of its paths, and its listener. Thread: loop.
 */
#ifndef NODE_HTTP_DOOR_H
#define NODE_HTTP_DOOR_H

#include "base/err.h"
#include "base/thread.h"
#include "node/http/http_listener.h"
#include "node/http/router.h"

/* All paths of a node. */
extern const struct router door_router;

/* Opens the door of N as its configuration says; *OUT is NULL when it says that there is none. */
MUST_USE enum err door_open(struct node *n, struct http_listener **out) ON_LOOP;

#endif
