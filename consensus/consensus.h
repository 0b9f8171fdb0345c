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
#include "base/histogram.h"
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

/* --- snapshots ----------------------------------------------------------------------------------
 *
 * What Raft knows as the snapshot is a small record: the node's files are the snapshot. DATA is the
 * node's own word on where its files are at INDEX; consensus keeps it and gives it back. */

#define CNS_SNAPSHOT_DATA_MAX 256u

struct cns_snapshot {
    uint64_t index, term;   /* of the last entry that it stands for */
    uint64_t members_index; /* of the entry that made these members */
    uint64_t highest_id;    /* the highest member id ever used: ids are never given out again */
    struct cns_payload *members; /* encoded as the payload of a CNS_CHANGE */
    size_t data_len;
    uint8_t data[CNS_SNAPSHOT_DATA_MAX];
};

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
    /* This member stopped: CODE and SENTENCE say why. ERR_CONFIG: another member refused this one
     * for good (it lost its files and came back under its old id, or was removed). */
    void (*on_failed)(void *ctx, enum err code, const char *sentence);
    /* The log of the leader LEADER_ID begins at FIRST, ours ends before FIRST - 1: the entries
     * between are gone, the node must fetch another one's state at FIRST - 1 or later, and restart
     * this member from it (cns_install). May be told again. */
    void (*on_behind)(void *ctx, uint64_t leader_id, uint64_t first);
    /* The members changed (also at the start, and when a change is taken back). */
    void (*on_members)(void *ctx);
};

/* --- one member ---------------------------------------------------------------------------------
 */

enum cns_member_role {
    CNS_VOTER,   /* counts for majorities */
    CNS_STANDBY, /* gets the log, does not count */
    CNS_SPARE    /* a name in the list, gets nothing */
};

struct cns_server {
    uint64_t id;         /* > 0 */
    const char *address; /* host:port of its peer listener */
    enum cns_member_role role;
};

struct cns_config {
    const char *dir; /* DATA/raft; made when missing */
    uint64_t cluster_id;
    uint64_t id;
    const char *listen; /* host:port for peers */
    const struct cns_server
        *servers; /* the bootstrap members, all voters, the same on every node; their addresses win
                     over those in the log, so a member can move */
    unsigned n_servers;
    const struct cns_snapshot *base; /* a new directory begins with this state instead of a
                                        bootstrap: a node that joined; NULL: none */
    uint64_t segment_bytes;          /* of the log; 0: LOG_SEGMENT_BYTES */
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

/* What the log begins behind; false: it begins with its first entry. Between cns_open and cns_start
 * only; OUT->members stays this room's. */
bool cns_snapshot_get(const struct cns *c, struct cns_snapshot *out) ON_LOOP;
/* Index of the first entry in the log. Between cns_open and cns_start. */
uint64_t cns_first_index(const struct cns *c) ON_LOOP;
/* The node's files now hold the state of S, which another member had committed: the log goes on
 * behind it. A log that has that entry (index and term) is kept, any other is emptied: nothing in
 * it is committed and missing in S. Durable when it returns; doing it twice is harmless. Between
 * cns_open and cns_start only; blocks. */
MUST_USE enum err cns_install(struct cns *c, const struct cns_snapshot *s) ON_LOOP;

/* Starts taking part. APPLIED: entries up to this index are not delivered (0: deliver from the
 * first). It is a floor for delivery only: it proves nothing about commitment.
 * CNS_HELD: the node has no state (it fetches one): this member votes, stores and acknowledges
 * honestly, and delivers nothing and stands for no election; ends with cns_stop. */
#define CNS_HELD UINT64_MAX
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

/* The node's files hold all entries up to INDEX, whatever happens to the power; DATA says where
 * they are there. Makes the record of it durable, and then drops the log's oldest segments as long
 * as none of their entries is above INDEX and KEEP_BYTES of log remain for members that are behind.
 * Costs the loop nothing, and commits go on. INDEX: at most what was reported with cns_applied.
 * ERR_BUSY: the last cut is still on its way. */
MUST_USE enum err cns_cut(struct cns *c, uint64_t index, const uint8_t *data, size_t len,
                          uint64_t keep_bytes) ON_LOOP;

/* The state at INDEX as a record for another node (cns_install, base): fills all but data; the
 * caller unrefs OUT->members. INDEX: applied here, and not below the newest cut. ERR_NOT_FOUND: it
 * is no longer known. */
MUST_USE enum err cns_describe(const struct cns *c, uint64_t index,
                               struct cns_snapshot *out) ON_LOOP;

/* Changes the members, on the leader only, one at a time: *index is the entry's; it is done when
 * on_entry brings a CNS_CHANGE of that index. ADD: a new member with ADDRESS and ROLE; *id = 0 gets
 * the next free id. REMOVE, SET_ROLE: *id. ERR_NOT_LEADER; ERR_BUSY: another change is under way,
 * or the leader's first entry is not committed yet; ERR_NOT_FOUND: no such member; ERR_CONFIG: an
 * id or address that is there already, or used before; the last voter; or the leader itself (hand
 * over first: cns_transfer). */
enum cns_change_kind { CNS_ADD, CNS_REMOVE, CNS_SET_ROLE };
MUST_USE enum err cns_change(struct cns *c, enum cns_change_kind kind, uint64_t *id,
                             const char *address, enum cns_member_role role,
                             uint64_t *index) ON_LOOP;

/* How far another member is, on the leader. False: not the leader, or no such member. */
struct cns_progress {
    uint64_t match;    /* its log holds the leader's up to here */
    uint64_t heard_ms; /* its last answer, monotonic ms; 0: none in this leadership */
};
bool cns_get_progress(const struct cns *c, uint64_t id, struct cns_progress *out) ON_LOOP;

/* The member ID was connected to this one once, in this process or before: it has or had a log. */
bool cns_was_met(const struct cns *c, uint64_t id) ON_LOOP;

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
    uint64_t elections;
    uint64_t first_index, snapshot_index; /* the log's first entry; the newest record's, 0: none */
    bool log_waits;                       /* the disk is full: the log waits for room */
};
void cns_get_status(const struct cns *c, struct cns_status *out) ON_LOOP;
/* Adds how long the syncs of the log took, since it was opened, to OUT. */
void cns_sync_times(const struct cns *c, struct histogram_copy *out) ON_LOOP;
/* SERVERS as the payload of a CNS_CHANGE, for a snapshot that is made by hand. ERR_CONFIG: an id or
 * an address is missing or there twice. Any thread. */
MUST_USE enum err cns_encode_members(const struct cns_server *servers, unsigned n,
                                     struct cns_payload **out);
/* The members as known now (before cns_start: as the log has them); valid until the next call. */
const struct cns_server *cns_members(const struct cns *c, unsigned *n) ON_LOOP;

/* --- a stopped node's log -----------------------------------------------------------------------
 */

struct cns_report {
    uint64_t cluster_id, id, incarnation; /* incarnation 0: of an older format, without one */
    uint64_t term, vote;
    uint64_t first_index, last_index, last_term; /* what is whole */
    uint64_t bytes, segments;
    struct cns_snapshot snapshot; /* index 0: none; the caller unrefs its members */
    bool torn;       /* the last write was torn, never acknowledged: the next start drops it */
    bool unfinished; /* an installation was interrupted: the next start finishes it */
    enum err
        damage; /* ERR_OK, or ERR_CORRUPT or ERR_IO: then the rest is what was found before it */
    char sentence[ERR_TEXT_MAX]; /* about the damage: file, offset, entry */
    enum err peers; /* ERR_OK, or why a start refuses the file `peers`; the log may be whole */
    char peers_sentence[ERR_TEXT_MAX]; /* what is wrong with it, and the way out */
};
/* Verifies every byte of the log in DIR (DATA/raft), and changes none. VISIT, unless NULL, then
 * gets the commands as cns_scan_back does, when nothing is damaged. ERR_NOT_FOUND: there is no log;
 * ERR_LOCKED: the node runs; ERR_FORMAT: written by a newer version. Thread: any; blocks. */
MUST_USE enum err cns_check(const char *dir, cns_visit visit, void *ctx, struct cns_report *out);

#endif
