/* Room: node. One node: the loop's objects, put together. The files of this room that run on the
 * loop share this struct; nothing here is global. Thread: loop. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/mail.h"
#include "base/thread.h"
#include "consensus/consensus.h"
#include "node/cluster_key.h"
#include "node/config.h"
#include "node/identity.h"
#include "node/lane.h"
#include "node/readers.h"
#include "node/request.h"
#include "node/waiting.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct disk_watch;
struct fetch;
struct gossip;
struct hrana_held;
struct key_keeper;
struct http_listener;
struct images;
struct listener;
struct writer_pool;

/* A stop is heard between SERVING and ENDED. HANDING_OVER: all is served, while another node takes
 * the lead. FINISHING: nothing new is taken, what was taken is answered. PARTING: all is
 * answered, and no connection is taken; what still comes by the others is refused, for who finds
 * one closed does not know whether he was heard. LEAVING: nothing is answered. */
enum node_stage {
    NODE_STARTING,
    NODE_SERVING,
    NODE_HANDING_OVER,
    NODE_FINISHING,
    NODE_PARTING,
    NODE_LEAVING,
    NODE_ENDED
};

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
    struct http_listener *door; /* NULL: it has none, or it is closed */
    struct gossip *gossip;
    struct images *images;
    struct disk_watch *disk;
    struct fetch *fetch; /* this node has no database, and fetches one: nothing is served */
    struct node_past *past;
    uint64_t ticks; /* of the timer */

    enum cns_role role;
    uint64_t term, leader_id;
    uint64_t
        serving_term; /* the lane takes writes of this term; serving when it is the leader's term */
    uint64_t applied_index;
    uint64_t vouched_ms; /* the state applied here was the newest at this time (monotonic), or 0 */
    bool began_empty;    /* no entry was applied before this start */
    bool accepted;       /* a leader was heard, or this node led: the others know it */
    bool refused;        /* they do not, for good: it ends with this failure */
    bool failed;         /* the database or the log stopped: nothing is served, only STATUS */
    char failure[ERR_TEXT_MAX];

    struct list proposals;   /* struct lane_proposal: wait for room */
    struct list connections; /* connection.c: of clients */
    struct waiting waiting;  /* of all of them together */
    uint64_t next_connection_id;
    unsigned n_connections;
    struct list sessions;        /* session.c: their streams */
    struct list snapshots;       /* struct session, by `snapped`: have a read transaction */
    struct list hrana_waits;     /* struct hrana_stream: answers that wait until more is applied */
    struct list hrana_cancels;   /* struct hrana_stream: to be cancelled before the loop sleeps */
    struct list hrana_rests;     /* struct hrana_stream: go on in the next turn of the loop */
    uint64_t hrana_spent_ns;     /* by streams, in this turn */
    struct list hrana_sockets;   /* struct hrana_ws: to be read again, likewise */
    struct writer_pool *writers; /* of what Hrana streams write */
    struct hrana_held *held;     /* Hrana streams at rest */
    unsigned n_dumps;            /* under way over HTTP (http/dump.c) */
    struct cluster_keys keys;    /* batons are signed with them */
    struct key_keeper *key_keeper;
    struct list watched; /* struct session, by `watch`: wait for their clients */
    uint64_t next_session_id;
    struct list leader_links; /* upstream.c: connections to a leader elsewhere */
    uint64_t n_in_lane;       /* requests that the lane has */
    struct list wait_leader;  /* struct request: until there is a leader to run them */
    struct list wait_seq;     /* struct request: until this node has published a sequence */
    struct list confirms;     /* confirm.c: answers that wait for a majority's word */
    struct list wait_admin;   /* struct request: changes of the members (admin.c) */
    struct list wait_reads;   /* struct strong_read: ReadIndex rounds and their index */

    enum node_stage stage;
    uint64_t stage_since_ms;
    bool lane_started, lane_stopped, cns_stopped, closed;
    bool cutting;           /* a cut of the log is on its way through the lane */
    uint64_t log_after_cut; /* the least bytes of the log since then */
    bool again;             /* it ends to be opened anew in this process: main.c */
    uint64_t repair_ms;     /* the repair waits until then (monotonic); 0: there is none to come */
};

/* What outlives a node that is opened anew in the same process. */
struct node_past {
    struct identity who;   /* join_prepare filled it; the loop may change it (join_look) */
    uint64_t voter_index;  /* join_look: when this entry is applied, it is a voter for good; 0 */
    bool writes_identity;  /* join_look has its pool at it */
    uint64_t repairs;      /* databases fetched because the own one was damaged */
    uint64_t repaired_ms;  /* the last one was finished (monotonic), 0: never */
    unsigned repairs_fast; /* that many came within a minute of the one before */
    bool damaged;          /* the database is: it is to be fetched whatever its files look like */
    bool alone;            /* nobody is left to fetch it from (lost_majority.c) */
    uint64_t index_min;    /* a state before this entry is of no use to the log */
    char reason[ERR_TEXT_MAX];
};

/* Opens everything; the caller then runs the loop until it ends. ERR_*: nothing is left open. */
MUST_USE enum err node_open(struct node *n, const struct config *config,
                            struct node_past *past) ON_LOOP;
/* Runs until the node was told to stop (SIGTERM, SIGINT) and has, or wants to be opened again
 * (n->again). */
void node_run(struct node *n) ON_LOOP;
void node_close(struct node *n) ON_LOOP;
/* The cluster's leader is here and its lane takes writes. */
bool node_is_serving(const struct node *n) ON_LOOP;
/* The database or the log failed with CODE: serve nothing any more. A damaged database is repaired
 * from another node where that is possible. */
void node_fail(struct node *n, enum err code, const char *sentence) ON_LOOP;
/* Stops politely, and is opened again in this process. */
void node_restart(struct node *n) ON_LOOP;
/* The same, to fetch the database: for REASON. */
void node_refetch(struct node *n, uint64_t index_min, const char *reason) ON_LOOP;

#endif
