/* Room: node. What the nodes tell each other beside the log: where their clients' port is, and how
 * they are. Sent by timer and at changes; best effort; outside input when received. Thread: loop.
 */
#ifndef NODE_GOSSIP_H
#define NODE_GOSSIP_H

#include "node/node.h"

#define SILENT_MS 3000 /* not heard of for so long: shown as unreachable */

#define GOSSIP_AGE_UNKNOWN UINT64_MAX

struct gossip_news {
    uint64_t id, term, leader_id, seq, checksum, commit_index, applied_index, wal_bytes, log_bytes;
    uint64_t first_index, last_index;        /* of the log */
    uint64_t snapshot_index, snapshot_age_s; /* 0: none; age: GOSSIP_AGE_UNKNOWN */
    uint64_t wal_waits_ms; /* readers have held the WAL's restart back for so long */
    uint64_t repairs;      /* databases made anew since its process began: repair.c, startup.c */
    uint64_t disk_free;    /* bytes left for its data directory; UINT64_MAX: not known */
    uint64_t replaces;     /* with wishes_to_vote: the dead member whose place it takes, 0: none */
    enum cns_role role;
    bool serving;
    bool waits_for_room; /* its disk is full, or nearly: below disk-reserve */
    bool wishes_to_vote; /* it joined, and is to be promoted when it has caught up */
    char address[256];   /* for clients */
    char http[256];      /* URL of its HTTP door; "": none, or it does not say */
    bool has_key;        /* the leader's: */
    uint8_t key[CLUSTER_KEY_BYTES];
    char version[32], sqlite[32];
    char state[ERR_TEXT_MAX]; /* "ok", how far a fetch is, or why it serves nothing */
    uint64_t heard_ms;        /* monotonic; 0: never heard of */
};

struct gossip *gossip_new(struct node *n) ON_LOOP;
void gossip_free(struct gossip *g);
/* Tells the others, now. */
void gossip_tell(struct gossip *g) ON_LOOP;
/* More was published here since the last telling. */
bool gossip_moved(const struct gossip *g) ON_LOOP;
/* A message from another node; malformed ones are dropped. True: something about leading changed.
 */
bool gossip_hear(struct gossip *g, uint64_t from, const uint8_t *p, size_t n) ON_LOOP;
/* The news of this node itself. */
void gossip_self(struct gossip *g, struct gossip_news *out) ON_LOOP;
/* How old the state here is at most (ID is this node), or on the leader the member ID's: ms since
 * the last moment of which is known that it had all that the leader had. Idle nodes tell each other
 * a few times a second: so much is the error. */
uint64_t gossip_lag_ms(struct gossip *g, uint64_t id) ON_LOOP;
/* NULL: never heard of. */
const struct gossip_news *gossip_of(const struct gossip *g, uint64_t id) ON_LOOP;

#endif
