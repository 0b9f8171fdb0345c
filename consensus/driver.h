/* Room: consensus. One member of the group as a state machine over struct cns_io: libraft's pure
 * core, and around it all that Raft leaves to its user. No sockets, files or clock of its own:
 * member.c runs it over libuv, tests/sim over a virtual disk, network and clock.
 *
 * Calls may come in any order within a loop turn; driver_turn at its end does what they led to:
 * hands entries to the disk, sends, and calls the handler. The handler is called from driver_turn
 * (on_message from driver_receive_bytes) and may call back anything here but driver_turn and
 * driver_free. Thread: loop. */
#ifndef CONSENSUS_DRIVER_H
#define CONSENSUS_DRIVER_H

#include "consensus/io.h"
#include "consensus/message.h"

struct driver;

struct driver_config {
    uint64_t id;
    const char *address;
    unsigned election_ms, heartbeat_ms;
    struct cns_io io;
    struct cns_handler handler;
    uint64_t cache_bytes;           /* 0: LOG_CACHE_BYTES_MAX; tests make it small */
    void (*on_peers)(void *io_ctx); /* other connections are wanted (driver_members,
                                       driver_is_removed); before handler.on_members; or NULL */
};

MUST_USE enum err driver_new(const struct driver_config *c, struct driver **out) ON_LOOP;

/* A log that was cut, before driver_load: it begins at FIRST_INDEX, behind an entry of PREV_TERM (0
 * and 1: whole), and SNAPSHOT is its newest record (NULL: none). ERR_CORRUPT: they do not fit. */
MUST_USE enum err driver_begin(struct driver *d, uint64_t first_index, uint64_t prev_term,
                               const struct cns_snapshot *snapshot) ON_LOOP;
/* What the log holds, oldest first, between driver_new and driver_start; PAYLOAD only for a
 * CNS_CHANGE (borrowed). ERR_CORRUPT: no log of ours. */
MUST_USE enum err driver_load(struct driver *d, uint64_t index, uint64_t term, enum cns_kind kind,
                              struct cns_payload *payload) ON_LOOP;
/* Starts with the durable TERM and VOTE. APPLIED: consensus.h, cns_start. ERR_CONFIG: CNS_HELD and
 * the only voter, or removed from the group. */
MUST_USE enum err driver_start(struct driver *d, uint64_t term, uint64_t vote,
                               uint64_t applied) ON_LOOP;
/* Another member said for good that this one takes part no more: it stops, with its sentence. */
void driver_refused(struct driver *d, enum err code, const char *sentence) ON_LOOP;
/* No callback, message or job after this. Completions of jobs may still come. */
void driver_stop(struct driver *d) ON_LOOP;
/* No completion may come after this. Frees jobs that never completed (a simulated crash). */
void driver_free(struct driver *d) ON_LOOP;

/* The world. M is lent: its items are taken out. Time passes: call driver_tick about four times a
 * heartbeat. */
void driver_receive(struct driver *d, uint64_t from, struct cns_message *m) ON_LOOP;
void driver_receive_bytes(struct driver *d, uint64_t from, uint8_t type, const uint8_t *p,
                          size_t n) ON_LOOP;
void driver_peer(struct driver *d, uint64_t id, bool up) ON_LOOP;
void driver_tick(struct driver *d) ON_LOOP;
void driver_turn(struct driver *d) ON_LOOP;
/* driver_turn has something to do. */
bool driver_is_dirty(const struct driver *d) ON_LOOP;

/* As in consensus.h. */
MUST_USE enum err driver_propose(struct driver *d, uint64_t term,
                                 struct cns_payload *const *payloads, unsigned n,
                                 uint64_t *first_index) ON_LOOP;
void driver_applied(struct driver *d, uint64_t index) ON_LOOP;
void driver_read_index(struct driver *d, struct cns_read *r, uint64_t timeout_ms) ON_LOOP;
MUST_USE enum err driver_transfer(struct driver *d, uint64_t id) ON_LOOP;
MUST_USE enum err driver_cut(struct driver *d, uint64_t index, const uint8_t *data, size_t len,
                             uint64_t keep_bytes) ON_LOOP;
MUST_USE enum err driver_describe(const struct driver *d, uint64_t index,
                                  struct cns_snapshot *out) ON_LOOP;
MUST_USE enum err driver_change(struct driver *d, enum cns_change_kind kind, uint64_t *id,
                                const char *address, enum cns_member_role role,
                                uint64_t *index) ON_LOOP;
bool driver_get_progress(const struct driver *d, uint64_t id, struct cns_progress *out) ON_LOOP;
void driver_send(struct driver *d, uint64_t to, const uint8_t *p, size_t n) ON_LOOP;
/* All but the log's own numbers. */
void driver_get_status(const struct driver *d, struct cns_status *out) ON_LOOP;
const struct raft_configuration *driver_members(const struct driver *d) ON_LOOP;
/* As far as it is committed: members that a change takes away are still connected to until then,
 * they may lead and take the change back. */
const struct raft_configuration *driver_committed_members(const struct driver *d) ON_LOOP;
/* Members that our log does not know yet, says another member: connections to them are wanted, too,
 * since one of them may lead. False: none; else OUT is the caller's (raft_configuration_close). */
bool driver_hearsay(const struct driver *d, struct raft_configuration *out) ON_LOOP;
/* ID was a member, is none any more for good, and has heard of it (or had the time to). */
bool driver_is_removed(const struct driver *d, uint64_t id) ON_LOOP;
/* 0 when INDEX is not in the log as this member sees it. */
uint64_t driver_term_at(const struct driver *d, uint64_t index) ON_LOOP;

#endif
