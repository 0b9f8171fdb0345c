/* Room: consensus. Replication to the peers: what the leader sends to whom, how much and when.
 *
 * libraft's core also says what to send, but it knows no bytes: it floods (T9), it lets an isolated
 * write wait for the next heartbeat (T4), and it repeats everything for a peer that is silent. So
 * the core is asked only for what is true (term, commit index, how far each peer's log matches),
 * and every AppendEntries of this member is made here, from the log, at the end of a loop turn.
 * Thread: loop. */
#ifndef CONSENSUS_SENDER_H
#define CONSENSUS_SENDER_H

#include "consensus/cache.h"
#include "consensus/outbox.h"
#include "consensus/terms.h"

struct sender;

struct sender_config {
    const struct cns_io *io;
    const struct cache *cache;
    const struct terms *terms;
    const struct outbox *outbox;
    uint64_t self;
    unsigned heartbeat_ms;
    void *ctx;
    void (*read_failed)(void *ctx, enum err e); /* an entry that must be there cannot be read */
    /* PEER's next entry is no longer in our log: tell it (at most once a second). */
    void (*behind)(void *ctx, uint64_t peer);
    void (*left)(void *ctx);  /* somebody who was kept to hear of its removal is kept no more */
    void (*dirty)(void *ctx); /* call sender_flush at the end of this turn */
};

struct sender *sender_new(const struct sender_config *c);
void sender_free(struct sender *s);

/* The members that get entries: all but this one and spares. Those of OLD that are none any more
 * since the entry CHANGE (0: there are none) still get them, so that they hear of it: until they
 * have been told that CHANGE is committed, and for a while at most. */
void sender_set_members(struct sender *s, const struct raft_configuration *conf,
                        const struct raft_configuration *old, uint64_t change);
/* PEER is no member, and is to hear of that. */
bool sender_keeps(const struct sender *s, uint64_t peer);
/* The log will be cut at INDEX or before it (the record is on its way), or was: `terms` says. */
void sender_cut(struct sender *s, uint64_t index);
void sender_cut_done(struct sender *s);
/* Leads TERM from now on; its own first entry is (or will be) at FIRST. */
void sender_lead(struct sender *s, uint64_t term, uint64_t first);
void sender_stop_leading(struct sender *s);
/* The core's knowledge, before a flush: commit index, and up to where the log may be read back from
 * the disk. */
void sender_set_marks(struct sender *s, uint64_t commit, uint64_t stored);
/* PEER accepted or (REJECTED > 0) refused what follows the entry REJECTED; LAST is its hint, MATCH
 * how far the core knows its log to match. */
void sender_on_result(struct sender *s, uint64_t peer, uint64_t rejected, uint64_t last,
                      uint64_t match);
/* Time for a heartbeat to everybody. */
void sender_beat(struct sender *s);
/* The connection towards PEER is new: whatever was sent before may be lost. */
void sender_peer_up(struct sender *s, uint64_t peer, uint64_t match);
/* Sends what each peer may get now. */
void sender_flush(struct sender *s);
/* When PEER was last heard by this leader (or the beginning of the leadership), in io.now_ms; 0:
 * not leading, or no such peer. */
uint64_t sender_heard_ms(const struct sender *s, uint64_t peer);
/* As above, without the beginning: 0 when it has not answered yet. */
uint64_t sender_answered_ms(const struct sender *s, uint64_t peer);
/* How far PEER's log is known to match, for one that the core does not know (sender_keeps). */
uint64_t sender_match(const struct sender *s, uint64_t peer);

#endif
