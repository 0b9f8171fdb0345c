/* Room: consensus. The members of the group as libraft keeps them: made, checked, shown.
 * Thread: loop. */
#ifndef CONSENSUS_MEMBERS_H
#define CONSENSUS_MEMBERS_H

#include "consensus/io.h"

/* The payload of a RAFT_CHANGE (also of the first entry of a new log). ERR_CONFIG: an id or an
 * address is missing or there twice, or there are too many. */
MUST_USE enum err members_encode(const struct cns_server *servers, unsigned n,
                                 struct cns_payload **out);
/* Decodes a RAFT_CHANGE's payload; free with raft_configuration_close. Outside input: ERR_PROTOCOL.
 */
MUST_USE enum err members_decode(const struct cns_payload *p, struct raft_configuration *out);
/* FROM with one change (consensus.h, cns_change), as a payload. The order of the others stays: the
 * core keeps its progress by position when the number of members does. */
MUST_USE enum err members_change(const struct raft_configuration *from, enum cns_change_kind kind,
                                 uint64_t id, const char *address, enum cns_member_role role,
                                 struct cns_payload **out);
enum cns_member_role members_role(const struct raft_server *s);
void members_copy(const struct raft_configuration *from, struct raft_configuration *to);
/* NULL when ID is not a member. */
const struct raft_server *members_find(const struct raft_configuration *c, uint64_t id);
unsigned members_voters(const struct raft_configuration *c);
/* ID is a voter, and the only one. */
bool members_is_lone_voter(const struct raft_configuration *c, uint64_t id);

#endif
