/* Room: node. The answer to STATUS: one row for each member. Thread: loop. */
#ifndef NODE_STATUS_H
#define NODE_STATUS_H

#include "node/node.h"

/* Fills R's answer. */
void status_answer(struct node *n, struct request *r) ON_LOOP;

#endif
