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
#include "node/channel.h"
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
    struct channel channel; /* first: a connection is its channel */
    struct list link;       /* of node.connections */
    struct framed *framed;
    uint64_t born_ms;
    bool greeted, ending; /* ending: closed when nothing waits for an answer */
    bool draining;        /* its stalled sessions are being resumed */
    bool owes_pong;       /* to `ping`, when the backlog is gone */
    bool lacks_texts;     /* for want of room some were not kept that its client thinks are */
    uint32_t ping;
    struct table streams;  /* struct session */
    struct keeper *keeper; /* statements kept; NULL: none yet */
    struct progress taken; /* of the backlog, while some are stalled */
    struct progress sent;  /* by the client, of a long frame that came in part */
};

/* A client has come to LISTENER. */
void connection_accept(struct node *n, uv_stream_t *listener) ON_LOOP;
/* The node stops: each connection closes as soon as all that came by it is answered. */
void connections_wind_down(struct node *n) ON_LOOP;
/* Closes all; what runs comes back in its time. */
void connections_close_all(struct node *n) ON_LOOP;
/* Closes connections that never said HELLO, and those whose client takes no byte for too long. */
void connections_timer(struct node *n, uint64_t now_ms) ON_LOOP;

#endif
