/* Room: node. Changes of the members: a CLUSTER request on the leader, and the leader's care for
 * members that joined and want to vote. Thread: loop. */
#ifndef NODE_ADMIN_H
#define NODE_ADMIN_H

#include "client/wire_cluster.h"
#include "node/session.h"

/* A request's own part: `request.cluster`. */
struct admin_request;

/* A copy of W; freed with free(). */
struct admin_request *admin_request_new(const struct wire_cluster *w);
/* To be sent to another node: WIRE_CLUSTER_FORWARDED is set, and what remains of the time. */
void admin_forward(const struct request *r, struct wire_cluster *out) ON_LOOP;
/* Milliseconds that R has. */
uint64_t admin_patience_ms(const struct request *r);
/* A change is on its way through the log. */
bool admin_has_begun(const struct request *r);
/* R's session stands here and this node leads: begins it. It is answered by session_answer when
 * what it asks for is committed and applied here; ERR_NOT_LEADER: run it at the next leader. */
void admin_run(struct session *s, struct request *r) ON_LOOP;
/* Something moved (an entry was applied, the leader changed, time): those that wait go on. */
void admin_look(struct node *n, uint64_t now_ms) ON_LOOP;
void admin_refuse_all(struct node *n, enum err code, const char *sentence) ON_LOOP;
/* On the leader, now and then: promotes members that wish it and have caught up, one at a time,
 * each in the place of a dead one if it says so. */
void admin_tend(struct node *n, uint64_t now_ms) ON_LOOP;

#endif
