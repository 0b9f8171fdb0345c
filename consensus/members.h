/* Room: consensus. The members of the group as libraft keeps them: made, checked, shown.
 * Thread: loop. */
#ifndef CONSENSUS_MEMBERS_H
#define CONSENSUS_MEMBERS_H

#include "consensus/io.h"

/* The payload of the first entry of a new log: SERVERS, all voters. ERR_CONFIG: an id or an address
 * is missing or there twice. */
MUST_USE enum err members_encode(const struct cns_server *servers, unsigned n,
                                 struct cns_payload **out);
/* Decodes a RAFT_CHANGE's payload; free with raft_configuration_close. Outside input: ERR_PROTOCOL.
 */
MUST_USE enum err members_decode(const struct cns_payload *p, struct raft_configuration *out);
void members_copy(const struct raft_configuration *from, struct raft_configuration *to);
/* NULL when ID is not a member. */
const struct raft_server *members_find(const struct raft_configuration *c, uint64_t id);
unsigned members_voters(const struct raft_configuration *c);

#endif
