/* Room: consensus. Messages between the members' nodes over TCP (docs/PROTOCOL.md).
 *
 * Best effort: a message may be lost, never altered, duplicated or reordered within a connection.
 * Each node dials each of its peers and sends on that connection; what it receives comes on the
 * connections that the peers dialled. Thread: loop. Nothing blocks except the resolving of the
 * listen address in cns_transport_open. */
#ifndef CONSENSUS_TRANSPORT_H
#define CONSENSUS_TRANSPORT_H

#include "base/thread.h"
#include "consensus/message.h"

struct cns_transport;

struct cns_transport_config {
    uint64_t cluster_id, id; /* both > 0 */
    uint64_t incarnation;    /* of our own log directory (log.h), > 0; sent with every greeting */
    const char *dir;         /* DATA/raft: the file `peers` there remembers who is who; NULL:
                                nothing is remembered beyond this process (tests) */
    const char *listen;      /* host:port, [v6]:port; port 0: any free one */
    void *ctx;
    /* M is lent for the call: take items, conf or data out by clearing the fields (message.h);
     * server_id and server_address are the sender's. */
    void (*on_message)(void *ctx, uint64_t from, struct cns_message *m);
    void (*on_bytes)(void *ctx, uint64_t from, uint8_t type, const uint8_t *p, size_t n);
    /* Our connection towards ID is ready, or gone. May be NULL. */
    void (*on_peer)(void *ctx, uint64_t id, bool up);
    /* The member ID says that we are not who we were: our incarnation is not the one that it knows
     * for our id (our files were lost: we must come back under a new id), or we were removed.
     * CODE is ERR_CONFIG, SENTENCE is for people. Told again at each attempt to connect, which go
     * on. May be NULL. */
    void (*on_refused)(void *ctx, uint64_t id, enum err code, const char *sentence);
};

/* Listens. ERR_CONFIG: the address does not parse or resolve; ERR_IO: it cannot be bound. Reads
 * DIR/peers: ERR_CORRUPT, ERR_FORMAT, ERR_CONFIG (of another directory) as peer_book.h says. */
MUST_USE enum err cns_transport_open(uv_loop_t *loop, const struct cns_transport_config *c,
                                     struct cns_transport **out) ON_LOOP;
/* The port it listens on. */
unsigned cns_transport_port(const struct cns_transport *t) ON_LOOP;

/* Adds a peer and dials it for as long as it is there, or gives it a new address (dials anew).
 * Only peers may connect to us. Our own id is ignored. ERR_CONFIG: the address does not parse, or
 * the id was removed before. A member may be added, moved and removed at any time, in a callback
 * too; on_peer(down) may come before this returns. */
MUST_USE enum err cns_transport_set_peer(struct cns_transport *t, uint64_t id,
                                         const char *address) ON_LOOP;
/* The member was removed from the cluster, for good: only for a removal that is committed. Closes
 * both connections; on_peer(down) comes if it was up. From now on, and after a restart, the id is
 * refused and cannot be set again. Our own id is ignored. */
void cns_transport_remove_peer(struct cns_transport *t, uint64_t id) ON_LOOP;

/* Queues a message: takes references of the payloads, copies the rest. Dropped, silently, when TO
 * is unknown, not connected, or its queue is full. All of one loop turn go out together. */
void cns_transport_send(struct cns_transport *t, uint64_t to, const struct raft_message *m,
                        const struct cns_item *items, unsigned n_items) ON_LOOP;
/* Small opaque bytes; at most CNS_TRANSPORT_BYTES_MAX (larger ones are dropped with a log line). */
#define CNS_TRANSPORT_BYTES_MAX MIB(1)
void cns_transport_send_bytes(struct cns_transport *t, uint64_t to, uint8_t type, const uint8_t *p,
                              size_t n) ON_LOOP;
/* Bytes that wait to be written to the kernel; UINT64_MAX when not connected. */
uint64_t cns_transport_queued(const struct cns_transport *t, uint64_t to) ON_LOOP;

/* ID was removed from the cluster, as this process or one before heard: it is no peer again. */
bool cns_transport_removed(const struct cns_transport *t, uint64_t id) ON_LOOP;
/* ID was connected once, in this process or before: its log directory is known. */
bool cns_transport_met(const struct cns_transport *t, uint64_t id) ON_LOOP;

/* Closes all; no callback but DONE comes after this call. DONE in the loop's time, T is freed. */
void cns_transport_close(struct cns_transport *t, void (*done)(void *ctx), void *ctx) ON_LOOP;

#endif
