/* Room: node. Where clients connect. Thread: loop. */
#ifndef NODE_LISTENER_H
#define NODE_LISTENER_H

#include "node/node.h"

/* Listens on config->listen: each client becomes a connection (connection.h). */
MUST_USE enum err listener_open(struct node *n, struct listener **out) ON_LOOP;
void listener_close(struct listener *l) ON_LOOP; /* no new connections */

#endif
