/* Room: node. A follower's connection to the leader for one client session: forwards its writes and
 * its transactions, and relays the answers as they come. Thread: loop. */
#ifndef NODE_UPSTREAM_H
#define NODE_UPSTREAM_H

#include "node/session.h"

/* Sends R to the leader LEADER_ID at ADDRESS, over the session's connection (opened when missing or
 * when it leads to another node). An answer comes by session_relay and session_relayed, or, when
 * the leader was lost, by session_answer with ERR_NOT_LEADER (surely not run), ERR_UNKNOWN or
 * ERR_TXN_LOST. */
void upstream_send(struct session *s, struct request *r, uint64_t leader_id,
                   const char *address) ON_LOOP;
/* Of the current request. S may be gone afterwards. */
void upstream_cancel(struct session *s) ON_LOOP;
/* Ends waits for a leader that is gone without a word, or cannot be reached in the request's time.
 */
void upstream_timer(struct session *s, uint64_t now_ms) ON_LOOP;
/* The client took what was relayed. */
void upstream_resume(struct session *s) ON_LOOP;
void upstream_close(struct session *s) ON_LOOP;

#endif
