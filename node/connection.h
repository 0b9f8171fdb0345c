/* Room: node. A client's TCP connection: its handshake, and its frames on their way to the
 * sessions, one for each stream.
 *
 *   listener -> connection -> session (stream 1) -> route ...
 *                          -> session (stream 2) -> route ...
 *
 * Frames are always read: no stream's queue stops them, so that CANCEL, CREDIT and PING get
 * through. What one stream sends beyond its limits is refused in its turn (ERR_BUSY), and the
 * others keep their share. Thread: loop. */
#ifndef NODE_CONNECTION_H
#define NODE_CONNECTION_H

#include "base/sizes.h"
#include "node/framed.h"
#include "node/node.h"
#include "node/progress.h"
#include "node/table.h"

/* Requests of one connection without an answer, of all streams together; more is a client that
 * never reads. */
#define REQUESTS_MAX 65536u

struct keeper;
struct session;

struct connection {
    struct list link; /* of node.connections */
    struct node *node;
    struct framed *framed;
    uint64_t id, born_ms;
    bool greeted, ending; /* ending: the client sends no more; closed after the last answer */
    bool draining;        /* its stalled sessions are being resumed */
    bool owes_pong;       /* to `ping`, when the backlog is gone */
    bool lacks_texts;     /* for want of room some were not kept that its client thinks are */
    uint32_t ping;
    uint32_t n_requests;   /* not yet answered */
    size_t request_bytes;  /* of theirs, and of those that were closed and still run */
    size_t held_bytes;     /* of answers that wait for their streams' windows */
    struct table streams;  /* struct session */
    struct keeper *keeper; /* statements kept; NULL: none yet */
    size_t kept_bytes;     /* of them, in node.waiting */
    struct list stalled;   /* struct session, by `stall`: wait until the backlog is gone */
    struct list closed;    /* struct session, by `stall`: CLOSE came, and a request still runs */
    struct progress taken; /* of the backlog, while some are stalled */
    struct progress sent;  /* by the client, of a long frame that came in part */
};

/* A client has come to LISTENER. */
void connection_accept(struct node *n, uv_stream_t *listener) ON_LOOP;
/* Closes all; what runs comes back in its time. */
void connections_close_all(struct node *n) ON_LOOP;
/* Closes connections that never said HELLO, and those whose client takes no byte for too long. */
void connections_timer(struct node *n, uint64_t now_ms) ON_LOOP;

/* --- for its sessions --- */

/* The client does not take what was sent: nothing more is to be sent or begun. */
bool connection_is_full(const struct connection *c) ON_LOOP;
/* May it hold MORE bytes, in the room of the whole node (waiting.h)? Else ERR_BUSY. */
MUST_USE enum err connection_need_room(const struct connection *c, size_t more) ON_LOOP;
/* session_resume is called for S when it is full no more. */
void connection_stall(struct connection *c, struct session *s) ON_LOOP;
/* One of its requests is answered. C may be gone afterwards, and all of its sessions. */
void connection_answered(struct connection *c) ON_LOOP;

#endif
