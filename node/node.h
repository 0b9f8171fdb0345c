/* Room: node. One node: the loop's objects, put together. The files of this room that run on the
 * loop share this struct; nothing here is global. Thread: loop. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/mail.h"
#include "base/thread.h"
#include "consensus/consensus.h"
#include "node/config.h"
#include "node/lane.h"
#include "node/readers.h"
#include "node/request.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct gossip;
struct listener;

enum node_stage { NODE_STARTING, NODE_SERVING, NODE_HANDING_OVER, NODE_LEAVING, NODE_ENDED };

struct node {
    const struct config *config;
    uv_loop_t loop;
    uv_async_t wake; /* of `mail` */
    uv_timer_t timer;
    uv_prepare_t before_sleep;
    uv_check_t after_sleep;
    uv_signal_t sigterm, sigint;
    struct mail mail; /* from the lane and the readers */

    struct cns *cns;
    struct lane *lane; /* the default database's; more databases: more lanes */
    struct readers *readers;
    struct listener *listener;
    struct gossip *gossip;
    uint64_t ticks; /* of the timer */

    enum cns_role role;
    uint64_t term, leader_id;
    uint64_t
        serving_term; /* the lane takes writes of this term; serving when it is the leader's term */
    uint64_t applied_index;
    uint64_t vouched_ms; /* the state applied here was the newest at this time (monotonic), or 0 */
    bool failed;         /* the database or the log stopped: nothing is served, only STATUS */
    char failure[ERR_TEXT_MAX];

    struct list proposals; /* struct lane_proposal: wait for room */
    struct list sessions;
    uint64_t next_session_id;
    unsigned n_connections;
    uint64_t n_in_lane;      /* requests that the lane has */
    struct list wait_leader; /* struct request: until there is a leader to run them */
    struct list wait_seq;    /* struct request: until this node has published a sequence */
    struct list confirms;    /* confirm.c: answers that wait for a majority's word */
    struct list wait_reads;  /* struct strong_read: ReadIndex rounds and their index */

    enum node_stage stage;
    uint64_t stage_since_ms;
    bool lane_started, lane_stopped, cns_stopped, closed;
};

/* Opens everything; the caller then runs the loop until it ends. ERR_*: nothing is left open. */
MUST_USE enum err node_open(struct node *n, const struct config *config) ON_LOOP;
/* Runs until the node was told to stop (SIGTERM, SIGINT) and has. */
void node_run(struct node *n) ON_LOOP;
void node_close(struct node *n);
/* The cluster's leader is here and its lane takes writes. */
bool node_is_serving(const struct node *n) ON_LOOP;
/* The database or the log failed: serve nothing any more. */
void node_fail(struct node *n, const char *sentence) ON_LOOP;

#endif
