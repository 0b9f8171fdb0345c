/* Room: client. The request that changes the members of the cluster: docs/PROTOCOL.md, section 12.
 *
 *     CLUSTER  ->  COLUMNS ROWS DONE     done: committed, and applied by the node that did it
 *              ->  ERROR                 the sentence says what to do
 *
 * Any node takes it and passes it on to the leader. One row: id, cluster_id, database_id,
 * index (of the log, applied), text.
 * The decoder trusts nothing. Thread: any. */
#ifndef CLIENT_WIRE_CLUSTER_H
#define CLIENT_WIRE_CLUSTER_H

#include "client/wire.h"

#define WIRE_ADDRESS_MAX 256u /* of host:port, with its final zero */

enum wire_cluster_op {
    WIRE_CLUSTER_ADD = 1,    /* a member at `address`; id: the dead member that it replaces, or 0 */
    WIRE_CLUSTER_REMOVE = 2, /* id */
    WIRE_CLUSTER_ROLE = 3,   /* id, role */
    WIRE_CLUSTER_TRANSFER = 4, /* leadership, to id or (0) to the most advanced voter */
};

enum wire_member_role { WIRE_VOTER = 0, WIRE_STANDBY = 1, WIRE_SPARE = 2 };

/* Flags of CLUSTER. */
enum {
    WIRE_CLUSTER_FORWARDED = 1, /* from another node: do not forward again */
    WIRE_CLUSTER_FORCE = 2, /* also when it may cost the majority, or the member is far behind */
};

struct wire_cluster {
    enum wire_cluster_op op;
    enum wire_member_role role;
    uint8_t flags;
    uint32_t timeout_ms; /* 0: the server's default */
    uint64_t id;
    char address[WIRE_ADDRESS_MAX]; /* of the peer listener; ADD only, else "" */
};

void wire_put_cluster(struct buf *b, struct wire_id id, const struct wire_cluster *c);
/* ERR_PROTOCOL: an unknown operation, role or flag, an address that is too long or holds anything
 * but printable ASCII without blanks. */
MUST_USE enum err wire_get_cluster(struct wire_frame *f, struct wire_cluster *c);

#endif
