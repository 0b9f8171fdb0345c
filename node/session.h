/* Room: node. A client's session: its connection, its requests one after the other, and what it
 * carries from one to the next (an open transaction, foreign_keys, last_insert_rowid, the newest
 * sequence seen).
 *
 *   listener -> session -> route -> lane | readers | upstream -> session_answer -> client
 *
 * A session outlives its connection until its running request came back. Thread: loop. */
#ifndef NODE_SESSION_H
#define NODE_SESSION_H

#include "base/sizes.h"
#include "node/framed.h"
#include "node/node.h"

/* Sent ahead on one connection, before it is read no further; one request may be above it. */
#define SESSION_PENDING_MAX       64
#define SESSION_PENDING_BYTES_MAX MIB(1)

struct image;
struct upstream;

/* Who has `current`. */
enum session_at { AT_NOBODY, AT_ROUTE, AT_LANE, AT_READER, AT_BLOCKED, AT_UPSTREAM, AT_IMAGE };

enum session_home { HOME_NONE, HOME_LANE, HOME_UPSTREAM };

struct session {
    struct list link;
    struct node *node;
    uint64_t id;
    struct framed *framed; /* NULL: the client is gone */
    bool greeted, ending;  /* ending: the client sends no more; closed after the last answer */
    uint64_t born_ms;
    struct list pending;
    unsigned n_pending;
    size_t pending_bytes;
    struct request *current;
    enum session_at at;
    enum session_home home; /* where the open transaction lives */
    bool foreign_keys, forwarded;
    int64_t last_insert_rowid;
    uint64_t seen_seq;
    struct upstream *upstream;
    struct image *image; /* that another node fetches pages from (image.c), or NULL */
    bool pinned_image;   /* it asked for a pinned one: no other will do */
    uint64_t give_up_ms; /* of `current`: the wait for a leader or a sequence ends */
    /* AT_BLOCKED: what the client had not taken when it last took something, and when that was. */
    size_t blocked_backlog;
    uint64_t blocked_ms;
    bool overdue; /* the deadline of `current` passed while it was blocked */
};

/* Listens on config->listen. */
MUST_USE enum err listener_open(struct node *n, struct listener **out) ON_LOOP;
void listener_close(struct listener *l) ON_LOOP; /* no new connections */
/* Closes all clients' connections; what runs comes back in its time. */
void sessions_close_all(struct node *n) ON_LOOP;
/* Closes connections that never said HELLO; ends what waits too long for a client that takes
 * nothing, or for a reader. */
void sessions_timer(struct node *n, uint64_t now_ms) ON_LOOP;

/* A request of this session is answered (by the lane, a reader or the router): sends it, goes on.
 */
void session_answer(struct session *s, struct request *r) ON_LOOP;
/* Some rows; R goes on when the client has taken them. */
void session_rows(struct session *s, struct request *r) ON_LOOP;
/* Frames of the leader's answer to a forwarded request, as they are; false when the client is slow:
 * stop reading until upstream_resume. */
bool session_relay(struct session *s, struct wire_frame *f) ON_LOOP;
/* The forwarded request is answered; DONE or ERROR was relayed. */
void session_relayed(struct session *s, bool in_transaction) ON_LOOP;

#endif
