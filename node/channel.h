/* Room: node. What the sessions of one client share: where their frames go, and the room that their
 * requests and answers take in the node.
 *
 *   connection (native protocol)  \
 *   Hrana stream, WebSocket        > channel -> session ...
 *
 * Whoever has the bytes on their way to the client embeds one and gives the outlet. Thread: loop.
 */
#ifndef NODE_CHANNEL_H
#define NODE_CHANNEL_H

#include "base/buf.h"
#include "base/list.h"
#include "base/thread.h"
#include "node/meters.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct channel;
struct node;
struct request;
struct session;

struct channel_outlet { /* all on the loop */
    /* Takes what B holds: whole frames of one session. */
    void (*send)(struct channel *c, struct buf *b);
    /* Bytes sent that the client has not taken yet. */
    size_t (*backlog)(const struct channel *c);
    /* The first session waits for the backlog: channel_drain is to be called when it is gone. */
    void (*on_stall)(struct channel *c);
    /* A request is answered, of which there are c->n_requests left. It may end C. */
    void (*on_answered)(struct channel *c);
};

struct channel {
    struct node *node;
    const struct channel_outlet *outlet;
    uint64_t id;          /* of this node, given once */
    enum meter_door door; /* the client's */
    uint32_t n_sessions;  /* open ones */
    uint32_t n_requests;  /* not yet answered */
    size_t request_bytes; /* of theirs, and of those that were closed and still run */
    size_t held_bytes;    /* of answers that wait for their streams' windows */
    bool no_credit;       /* its client says nothing more: no session gets credit */
    bool judged;          /* its owner ends a client that takes too little: no session does */
    size_t kept_bytes;    /* what its owner keeps for its client, in node.waiting */
    struct list stalled;  /* struct session, by `stall`: wait until the backlog is gone */
    struct list closed;   /* struct session, by `stall`: ended, and a request still runs */
};

void channel_init(struct channel *c, struct node *n, const struct channel_outlet *outlet) ON_LOOP;
/* Its sessions were ended; what still runs of them is counted nowhere from now on. */
void channel_fini(struct channel *c) ON_LOOP;
/* The backlog is gone, or less: the sessions that waited go on, those that waited longest first. */
void channel_drain(struct channel *c) ON_LOOP;
/* Gives R to S, and counts it. */
void channel_take(struct channel *c, struct session *s, struct request *r) ON_LOOP;

/* --- for its sessions --- */

/* Sends what B holds. */
void channel_send(struct channel *c, struct buf *b) ON_LOOP;
/* The client does not take what was sent: nothing more is to be sent or begun. */
bool channel_is_full(const struct channel *c) ON_LOOP;
/* May it hold MORE bytes, in the room of the whole node (waiting.h)? Else ERR_BUSY. */
MUST_USE enum err channel_need_room(const struct channel *c, size_t more) ON_LOOP;
/* session_resume is called for S when it is full no more. */
void channel_stall(struct channel *c, struct session *s) ON_LOOP;
/* One of its requests is answered. C may be gone afterwards, and all of its sessions. */
void channel_answered(struct channel *c) ON_LOOP;

#endif
