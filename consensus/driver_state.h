/* Room: consensus. What the parts of the driver share: driver.c (life, the end of a turn),
 * driver_step.c (an event through the core), driver_receive.c (what comes from peers),
 * driver_calls.c (what the node asks), driver_members.c (who belongs to the group). Nobody else
 * includes this. Thread: loop. */
#ifndef CONSENSUS_DRIVER_STATE_H
#define CONSENSUS_DRIVER_STATE_H

#include "consensus/cache.h"
#include "consensus/delivery.h"
#include "consensus/driver.h"
#include "consensus/entries.h"
#include "consensus/handover.h"
#include "consensus/journal.h"
#include "consensus/outbox.h"
#include "consensus/read_index.h"
#include "consensus/roster.h"
#include "consensus/sender.h"
#include "consensus/terms.h"

enum life { NEW, RUNNING, FAILED, STOPPED };

/* A role that the node does not know yet, and the commit index before it. */
struct role_event {
    enum cns_role role;
    uint64_t term, leader_id, commit;
};

/* A leader's word that its log begins behind ours, until the node is told. */
struct behind {
    uint64_t leader_id, first; /* first 0: none */
};

struct driver {
    struct driver_config c;
    char *address;
    struct raft r;
    enum life life;
    bool in_step, in_turn, dirty;
    bool held; /* CNS_HELD: no delivery, no candidacy */

    struct terms terms;
    struct cache cache;
    struct roster roster;
    struct outbox outbox;
    struct journal *journal;
    struct sender *sender;
    struct delivery *delivery;
    struct reads *reads;

    const struct cns_item *src; /* where the entries of the step that runs come from */
    unsigned n_src;

    /* The record that this life began with: the core knows nothing below it. 0: none. */
    uint64_t origin_index, origin_term;
    uint64_t snapshot_index; /* of the newest durable record */

    uint64_t commit;
    uint64_t leader_term;           /* of the last leader that we followed */
    uint64_t led_ms;                /* its last AppendEntries */
    uint64_t lead_term, lead_first; /* the last leadership, and its first entry */
    bool leading;
    uint64_t inflight_bytes; /* proposed by this leadership and not committed */
    bool want_room;
    uint64_t beat_ms;               /* the leader's last heartbeat */
    uint64_t far_ms;                /* the last step towards a far term; 0: none yet */
    uint64_t refused_ms, n_refused; /* the last line, messages refused without one since */
    struct handover handover;
    struct behind behind;
    /* What another member says who belongs to the group, as of a later change than our log has;
     * good for making connections only. NULL: nothing. */
    struct cns_payload *hearsay;
    uint64_t hearsay_index;
    uint64_t said_ms; /* held: the last word on what is committed; 0: none yet */

    /* The changes that the core goes by, the newest and the newest committed (note_members). */
    uint64_t changed, changed_term, committed_change;
    bool members_moved; /* the node is to be told */

    struct role_event told; /* the last one queued */
    struct role_event *roles;
    unsigned n_roles, roles_cap;
    enum err failure;
    char sentence[ERR_TEXT_MAX];
    bool failure_told;
    uint64_t elections;

    struct entries entries; /* of one step; before the start: the loaded log */
};

uint64_t driver_now_ms(const struct driver *d);

/* --- driver_step.c --- */

/* One event through the core. False: the core did not take it, or this member does not run. (True
 * also when the member failed by what came of it.) */
bool driver_step(struct driver *d, struct raft_event *e);
/* Mute from now on: no vote, no acknowledgement, no message. The thread's sentence says why. */
void driver_fail(struct driver *d, enum err e);

/* --- driver_members.c --- */

/* After a step: changes that got committed, members that are others now. */
void driver_note_members(struct driver *d);
/* The sender serves the members of now, and those that are being removed. */
void driver_set_receivers(struct driver *d);
/* The change that the core takes for uncommitted is committed, whatever the commit index says. */
void driver_confirm_change(struct driver *d);

/* Tells TO (0: all) who belongs to the group, as far as it is committed. */
void driver_tell_members(struct driver *d, uint64_t to);
void driver_hear_members(struct driver *d, const uint8_t *p, size_t n);

/* --- driver.c --- */

bool driver_is_handing_over(const struct driver *d);
/* Bytes that wait for the disk or for a majority. */
uint64_t driver_busy_bytes(const struct driver *d);
struct reads_view driver_view(const struct driver *d);

#endif
