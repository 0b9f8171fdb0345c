/* Room: consensus. The members as they were along the log: one record for each RAFT_CHANGE above
 * the newest cut, and the one that holds at the cut. libraft's core keeps only the last two.
 * Thread: loop. */
#ifndef CONSENSUS_ROSTER_H
#define CONSENSUS_ROSTER_H

#include "consensus/io.h"

struct roster {
    struct roster_entry {
        uint64_t index;              /* of the change; they rise */
        struct cns_payload *members; /* a reference */
        uint64_t highest_id;         /* ever used, up to this change */
    } * e;
    size_t n, cap;
};

void roster_init(struct roster *r);
void roster_fini(struct roster *r);
/* The change at INDEX, behind all that are here; takes no reference from the caller. HIGHEST_ID:
 * known from elsewhere, 0: nothing. MEMBERS was checked (members_decode). */
void roster_push(struct roster *r, uint64_t index, struct cns_payload *members,
                 uint64_t highest_id);
/* The log ends before INDEX now. */
void roster_truncate(struct roster *r, uint64_t index);
/* Nobody asks for less than INDEX any more. */
void roster_cut(struct roster *r, uint64_t index);
/* The change that holds at INDEX; NULL: not known. Borrowed until the next change. */
const struct roster_entry *roster_at(const struct roster *r, uint64_t index);

#endif
