/* Room: node. One stream of a client's connection: a session, with its requests one after the
 * other, its window, and its open transaction.
 *
 *   connection -> session -> route -> lane | readers | upstream -> session_answer -> client
 *
 * It keeps nothing else that SQL can see: foreign_keys, last_insert_rowid and the newest sequence
 * travel with each request (docs/CLIENT.md). A session outlives its stream until its running
 * request came back. Thread: loop. */
#ifndef NODE_SESSION_H
#define NODE_SESSION_H

#include "base/sizes.h"
#include "node/node.h"
#include "node/progress.h"

struct channel;
struct image;
struct upstream;

/* Who has `current`. BLOCKED: nobody, its reader's statement is parked until the client takes rows.
 * SENDING: nobody, it is answered and waits for the client to take the rest. */
enum session_at {
    AT_NOBODY,
    AT_ROUTE,
    AT_LANE,
    AT_READER,
    AT_BLOCKED,
    AT_UPSTREAM,
    AT_IMAGE,
    AT_SENDING,
};

enum session_home { HOME_NONE, HOME_LANE, HOME_UPSTREAM, HOME_SNAPSHOT };

struct session {
    struct list link; /* of node.sessions */
    struct node *node;
    uint64_t id;             /* of this node, given once */
    struct channel *channel; /* NULL: the stream has ended */
    struct list pending;
    struct request *current;
    size_t request_bytes;       /* of `pending` and `current` */
    struct channel *counted_at; /* its stream was closed; `current` still takes room there */
    uint32_t n_pending;
    uint32_t stream;
    enum session_at at;
    enum session_home home; /* where the open transaction lives */
    bool foreign_keys;      /* as the last request had it: for answers to those that do not say */
    bool pinned_image;      /* it asked for a pinned one: no other will do */
    bool sending;           /* send_some() is at work: it sees new credit by itself */
    bool beginning;         /* next() is at work on it: it is not to be freed */
    enum err ended;         /* `current` was, for its client takes too little; ERR_OK: no */
    int64_t last_insert_rowid; /* the same */
    uint64_t seen_seq;         /* by the requests before: those sent ahead see what they did */
    struct upstream *upstream;
    struct snapshot *snapshot; /* HOME_SNAPSHOT: the read transaction; NULL: it was ended, */
    char *snapshot_lost;       /* for this reason, which the client is still to hear; */
    bool snapshot_time_up;     /* it is a limit of time */
    uint64_t snapshot_began_ms, snapshot_used_ms;
    bool snapshot_lasts; /* this node drives it: the times of a client's transaction are not its */
    uint64_t touched_ms; /* the transaction was last told to be in use without a request */
    struct list snapped; /* of node.snapshots */
    struct image *image; /* that another node fetches pages from (image.c), or NULL */
    uint64_t give_up_ms; /* of `current`: the wait for a leader or a sequence ends */
    int64_t window;    /* bytes of ROWS that the client still takes; may be below 0 by one frame */
    uint64_t credited; /* bytes that the client has given in all */
    size_t held;       /* of the answer, waiting for the window */
    size_t counted;    /* of all that it keeps, in node.waiting */
    uint64_t blocked_ms;   /* when it came to AT_BLOCKED */
    struct progress takes; /* `credited`, since it waits for its client */
    struct list watch;     /* of node.watched: waits for its client */
    struct list stall;     /* of channel.stalled: waits for the connection's backlog; or of
                              channel.closed */
};

/* --- for the connection --- */

struct session *session_new(struct channel *c, uint32_t stream) ON_LOOP;
/* The stream ends: what waits is dropped, what runs is cancelled, a transaction rolled back. S may
 * be gone afterwards. */
void session_end(struct session *s) ON_LOOP;
/* A request came. S may be gone afterwards, as after all below. */
void session_take(struct session *s, struct request *r) ON_LOOP;
void session_cancel(struct session *s, uint32_t request) ON_LOOP;
/* ERR_PROTOCOL: more credit than can be counted. */
MUST_USE enum err session_credit(struct session *s, uint32_t bytes) ON_LOOP;
/* The connection's backlog is gone. */
void session_resume(struct session *s) ON_LOOP;

/* --- for those that run its requests --- */

/* R is answered: sends it as the window lets it, then goes on with the next. */
void session_answer(struct session *s, struct request *r) ON_LOOP;
/* Rolls back S's open transaction, if any, wherever it is. Nothing of S runs there. */
void session_leave_transaction(struct session *s) ON_LOOP;
/* Some rows of a reader; R goes on when the client has taken them. */
void session_rows(struct session *s, struct request *r) ON_LOOP;
/* Frames of the leader were added to the current request's answer: what its client does not take
 * waits here, not at the leader. */
void session_relay(struct session *s) ON_LOOP;
/* Ends what waits too long for a client that takes nothing. */
void sessions_timer(struct node *n, uint64_t now_ms) ON_LOOP;

#endif
