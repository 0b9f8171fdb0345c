/* Room: node. Where a request runs: readers here, the lane here, or the leader elsewhere; and what
 * it has to wait for before. Thread: loop. */
#ifndef NODE_ROUTE_H
#define NODE_ROUTE_H

#include "node/session.h"

/* Takes S->current; an answer comes by session_answer, now or later. */
void route(struct session *s, struct request *r) ON_LOOP;
/* To the writer, wherever it is. */
void route_write(struct session *s, struct request *r) ON_LOOP;
/* Something changed (leader, serving, gossip): tries again what waited for a leader. */
void route_leader_changed(struct node *n) ON_LOOP;
/* More was applied: goes on with what waited for it. */
void route_applied(struct node *n) ON_LOOP;
/* Ends waits that are too long. */
void route_timer(struct node *n, uint64_t now_ms) ON_LOOP;
/* The node fails or stops: everything that waits gets this answer. */
void route_refuse_all(struct node *n, enum err code, const char *sentence) ON_LOOP;
/* S's waiting request, if any, is taken out of all queues and answered ERR_CANCELLED. */
void route_forget(struct session *s) ON_LOOP;

#endif
