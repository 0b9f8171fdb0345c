/* Room: consensus. Its door: the only header of this room that node/ includes.
 *
 * Bytes and order, no SQLite. A struct cns is one member of one Raft group: libraft's pure core,
 * our log on disk, our transport, our timer, on one libuv loop. The node proposes payloads when it
 * leads and gets every committed entry, in order, on every node.
 *
 * Threads: everything ON_LOOP except payload references. Nothing here blocks the loop after
 * cns_open.
 *
 * A member that cannot persist its term, vote or entries stops taking part at once (no vote, no
 * acknowledgement), calls on_failed, and never goes on. */
#ifndef CONSENSUS_CONSENSUS_H
#define CONSENSUS_CONSENSUS_H

#include "base/err.h"
#include "base/list.h"
#include "base/thread.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct cns;

/* --- payloads: the bytes of one entry, shared between the log's cache, the transport and the node
 * --- */

struct cns_payload {
    _Atomic uint32_t refs;
    size_t len;
    uint8_t *data; /* malloc'ed */
};

/* Takes DATA (malloc'ed); one reference. Any thread. */
struct cns_payload *cns_payload_take(uint8_t *data, size_t len);
struct cns_payload *cns_payload_ref(struct cns_payload *p);
void cns_payload_unref(struct cns_payload *p);

/* --- what the node is told ---------------------------------------------------------------------
 */

enum cns_role { CNS_FOLLOWER, CNS_CANDIDATE, CNS_LEADER, CNS_STOPPED };
enum cns_kind { CNS_COMMAND = 1, CNS_BARRIER, CNS_CHANGE };

struct cns_entry {
    uint64_t index, term;
    enum cns_kind kind;
    struct cns_payload *payload; /* borrowed for the call; NULL unless a command */
};

struct cns_handler {
    void *ctx;
    /* A committed entry; indexes rise by one from cns_start's `applied` + 1. Not called while more
     * than INFLIGHT_BYTES_MAX of payloads are delivered and not yet reported by cns_applied. */
    void (*on_entry)(void *ctx, const struct cns_entry *e);
    /* Role, term or known leader changed. A leader may serve when a barrier of its own term has
     * come through on_entry. Order with on_entry is exact: entries delivered before a change of
     * role were committed before it was known. */
    void (*on_role)(void *ctx, enum cns_role role, uint64_t term, uint64_t leader_id);
    /* Room again after cns_propose answered ERR_BUSY. */
    void (*on_room)(void *ctx);
    /* Bytes that another member's node sent with cns_send. Outside input. */
    void (*on_message)(void *ctx, uint64_t from, const uint8_t *p, size_t n);
    /* This member stopped: CODE and SENTENCE say why. */
    void (*on_failed)(void *ctx, enum err code, const char *sentence);
};

/* --- one member ---------------------------------------------------------------------------------
 */

struct cns_server {
    uint64_t id;         /* > 0 */
    const char *address; /* host:port of its peer listener */
};

struct cns_config {
    const char *dir; /* DATA/raft; made when missing */
    uint64_t cluster_id;
    uint64_t id;
    const char *listen; /* host:port for peers */
    const struct cns_server
        *servers; /* the bootstrap members, all voters, the same on every node */
    unsigned n_servers;
    unsigned election_ms, heartbeat_ms;
    struct cns_handler handler;
};

/* Loads the log (blocks; before the loop runs). A new directory is bootstrapped with the servers.
 * ERR_CORRUPT: a segment or the term record is damaged beyond a torn end. ERR_CONFIG: the directory
 * belongs to another cluster or node id. ERR_LOCKED: another process has it. */
MUST_USE enum err cns_open(const struct cns_config *c, struct cns **out) ON_LOOP;

/* Calls VISIT for the log's commands from the newest to the oldest until it returns false. Between
 * cns_open and cns_start only: how the node finds which entries its files contain. */
typedef bool (*cns_visit)(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n);
MUST_USE enum err cns_scan_back(struct cns *c, cns_visit visit, void *ctx) ON_LOOP;

/* Starts taking part. APPLIED: entries up to this index are not delivered (0: deliver from the
 * first). It is a floor for delivery only: it proves nothing about commitment. */
MUST_USE enum err cns_start(struct cns *c, uv_loop_t *loop, uint64_t applied) ON_LOOP;
/* Stops, closes sockets and files, then calls DONE and frees. In the loop's time. */
void cns_stop(struct cns *c, void (*done)(void *ctx), void *ctx) ON_LOOP;

/* Proposes N commands of this leader's TERM, in order, all or none; takes over one reference of
 * each, on success only. *first_index: where the first one will be. ERR_NOT_LEADER: not the leader
 * of TERM; ERR_BUSY: too many bytes in flight, on_room will tell. An accepted proposal may still be
 * lost with the leadership: only on_entry says that it is committed. */
MUST_USE enum err cns_propose(struct cns *c, uint64_t term, struct cns_payload *const *payloads,
                              unsigned n, uint64_t *first_index) ON_LOOP;

/* The node has done with all entries up to INDEX (published, on the leader too). */
void cns_applied(struct cns *c, uint64_t index) ON_LOOP;

/* ReadIndex, from any member: finds an index such that serving a read once it is applied is
 * linearizable. One round of the leader serves all that wait. The caller owns R until DONE; ERR_OK
 * with the index, ERR_NO_LEADER or ERR_TIMEOUT. cns_read_cancel: DONE will not be called. */
struct cns_read {
    struct list link; /* the room's */
    uint64_t id, deadline_ms, index;
    void *ctx;
    void (*done)(struct cns_read *r, enum err e, uint64_t index);
};
void cns_read_index(struct cns *c, struct cns_read *r, uint64_t timeout_ms) ON_LOOP;
void cns_read_cancel(struct cns *c, struct cns_read *r) ON_LOOP;

/* Hands leadership to the member ID (0: the most advanced one). */
MUST_USE enum err cns_transfer(struct cns *c, uint64_t id) ON_LOOP;

/* Sends bytes to another member's node, or all others (TO = 0): best effort, may be lost. */
void cns_send(struct cns *c, uint64_t to, const uint8_t *p, size_t n) ON_LOOP;

struct cns_status {
    enum cns_role role;
    uint64_t term, leader_id, commit_index, last_index, applied_index, stored_index;
    uint64_t log_bytes, log_segments, cache_bytes, inflight_bytes;
    uint64_t elections, sync_count, sync_ns_sum, sync_ns_max;
};
void cns_get_status(const struct cns *c, struct cns_status *out) ON_LOOP;
/* The members as known now; valid until the next call. */
const struct cns_server *cns_members(const struct cns *c, unsigned *n) ON_LOOP;

#endif
