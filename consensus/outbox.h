/* Room: consensus. What may not leave before a term or vote is durable waits here, in order.
 *
 * Raft's first duty: persist term and vote, then speak. The disk works beside the loop, so messages
 * of this and of later steps are held back until the records before them are on disk. AppendEntries
 * do not pass here: the sender makes them anew from the log and asks outbox_is_open first.
 * Thread: loop. */
#ifndef CONSENSUS_OUTBOX_H
#define CONSENSUS_OUTBOX_H

#include "base/sizes.h"
#include "consensus/io.h"

/* Held messages and bytes at most; beyond it new ones are dropped (to Raft: lost). A disk that
 * takes seconds for one record would otherwise collect answers to every heartbeat. */
#define OUTBOX_HELD_MAX       4096u
#define OUTBOX_HELD_BYTES_MAX MIB(4)

struct outbox {
    const struct cns_io *io;
    struct list held;
    unsigned n_held;
    uint64_t held_bytes;      /* of what the node sends, without the heads */
    uint64_t issued, durable; /* records of term and vote */
};

void outbox_init(struct outbox *o, const struct cns_io *io);
void outbox_fini(struct outbox *o);
/* Any message without payloads and without owned parts. */
void outbox_send(struct outbox *o, const struct raft_message *m);
void outbox_send_bytes(struct outbox *o, uint64_t to, uint8_t type, const uint8_t *p, size_t n);
/* A record of term and vote is on its way to the disk; what is sent from now on waits for it. */
void outbox_hold(struct outbox *o);
/* The oldest of these records is durable. */
void outbox_release(struct outbox *o);
bool outbox_is_open(const struct outbox *o);
/* Forgets what is held: this member stopped. */
void outbox_clear(struct outbox *o);

#endif
