/* Room: node. What the files of upstream.h share: a connection to a leader, and the places of
 * sessions on it. Private to upstream*.c. Thread: loop. */
#ifndef NODE_UPSTREAM_STATE_H
#define NODE_UPSTREAM_STATE_H

#include "base/buf.h"
#include "node/framed.h"
#include "node/table.h"
#include "node/upstream.h"

enum link_state { CONNECTING, GREETING, READY };

struct leader_link {
    struct list link; /* of node.leader_links */
    struct node *node;
    struct framed *framed;
    enum link_state state;
    uint64_t leader_id, since_ms, deposed_ms; /* deposed_ms: another leads, since; 0 */
    uint64_t owner;                /* the client's connection whose own it is; 0: all share it */
    uint64_t bytes_read, heard_ms; /* so many bytes had come at that time */
    uint64_t pinged_ms;            /* 0: no PING is under way */
    uint64_t ping_at, bytes_taken; /* its place among the bytes sent; how many were taken then */
    struct list places;            /* struct upstream */
    uint32_t n_places;             /* so many may want a stream */
    struct table streams;          /* those with a stream: struct session */
    uint32_t n_streams;            /* open at the leader */
    uint32_t newest;               /* number given to a stream */
    uint32_t *idle;                /* streams without a session: a stack */
    uint32_t n_idle, idle_size;
    uint32_t n_spare;  /* that many were idle all the time since */
    uint64_t spare_ms; /* this moment */
};

/* A session's place. */
struct upstream {
    struct list link; /* of leader_link.places */
    struct leader_link *at;
    struct session *session;
    uint32_t stream; /* 0: none yet */
    bool sent;       /* its current request is at the leader */
    bool answered;   /* part of the answer is here */
    uint32_t took;   /* bytes of ROWS that came and were not given back as credit */
};

/* --- upstream_link.c --- */

/* A connection to the leader LEADER_ID with room for one more place: OWNER's own, or (0) the one
 * that all share; opened when there is none. NULL: too many clients have one of their own. */
struct leader_link *upstream_link_to(struct node *n, uint64_t leader_id, uint64_t owner,
                                     const char *address) ON_LOOP;
/* Sends the frames in B, and frees it. */
void upstream_put(struct leader_link *l, struct buf *b) ON_LOOP;
void upstream_take_stream(struct leader_link *l, struct upstream *u) ON_LOOP;
void upstream_give_stream(struct leader_link *l, uint32_t stream) ON_LOOP;

/* --- upstream.c --- */

/* The current request of S, which has a place, on a connection that is ready. S may be answered. */
void upstream_send_request(struct session *s) ON_LOOP;

/* --- upstream_answer.c --- */

/* F is of the answer to the current request of S. ERR_PROTOCOL and others: the leader sends what it
 * must not. */
MUST_USE enum err upstream_take_frame(struct session *s, struct wire_frame *f) ON_LOOP;
/* The leader is lost to S, which has no place any more: the fate of its current request, which was
 * at the leader (SENT) with a part of its answer here (ANSWERED), or waited for the connection. */
void upstream_answer_lost(struct session *s, bool sent, bool answered) ON_LOOP;

#endif
