/* Room: node. A follower's way to the leader: the requests that only the leader can run, over one
 * connection for all sessions of this node, each on a stream of its own while it has something
 * there (a request, or an open transaction). Thread: loop. */
#ifndef NODE_UPSTREAM_H
#define NODE_UPSTREAM_H

#include "node/session.h"

/* Sends R to the leader LEADER_ID at ADDRESS; inside a transaction to where that is. The answer
 * comes by session_relay and session_answer. When the leader was lost: ERR_NOT_LEADER (not sent, or
 * numbered and in doubt: run it at the next leader), ERR_UNKNOWN, ERR_ROWS_LOST (done, and part of
 * the answer is gone) or ERR_TXN_LOST; of a numbered COMMIT the next leader is asked. */
void upstream_send(struct session *s, struct request *r, uint64_t leader_id,
                   const char *address) ON_LOOP;
/* Of the current request. S may be gone afterwards. */
void upstream_cancel(struct session *s) ON_LOOP;
/* The client took some of what was relayed, or it is not wanted any more. */
void upstream_resume(struct session *s) ON_LOOP;
/* S's client takes rows that are here: its transaction there is not idle. */
void upstream_touch(struct session *s) ON_LOOP;
/* S has nothing there any more: no request, no transaction. */
void upstream_release(struct session *s) ON_LOOP;
/* S ends, whatever it has there. */
void upstream_close(struct session *s) ON_LOOP;
/* Ends waits for a leader that is gone without a word, or cannot be reached in time. */
void upstream_timer(struct node *n, uint64_t now_ms) ON_LOOP;
/* The node stops: closes the connections. Nothing is under way any more. */
void upstream_close_all(struct node *n) ON_LOOP;

#endif
