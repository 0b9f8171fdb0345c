/* Room: consensus. Everything of the outside world that the driver (driver.c) needs, behind one
 * table: the log on disk, the peers, the time. In production it is log.c + transport.c over libuv
 * (member.c puts them together); in tests and in the simulation a virtual disk, network and clock.
 * The driver is the same code in both.
 *
 * All on the loop thread. Completions never come from inside the call that asks for them. */
#ifndef CONSENSUS_IO_H
#define CONSENSUS_IO_H

#include "base/list.h"
#include "consensus/consensus.h"

#include <raft.h>

/* One entry with its place in the log. */
struct cns_item {
    uint64_t index, term;
    enum cns_kind kind;
    struct cns_payload *payload; /* one reference held by the item; RAFT_CHANGE: the encoded
                                    members; a barrier: NULL */
};

/* A job for the disk. The driver owns it and its items until done; jobs are done strictly first in,
 * first out, and `done` is called in that order. The disk may sync several jobs at once. A CUT
 * alone stands outside of that order, so that it delays no commit: it may end after jobs that came
 * later, or before earlier ones (all entries up to its snapshot's index are stored when it is asked
 * for). One CUT at a time. */
enum cns_disk_kind {
    CNS_DISK_META,     /* term and vote, one synced record */
    CNS_DISK_APPEND,   /* items, consecutive indexes, right behind the log's end; synced */
    CNS_DISK_TRUNCATE, /* drop all entries from `index` on; durable before any later append is */
    CNS_DISK_CUT       /* the record `snapshot` durable, then whole segments up to snapshot->index
                          dropped while `keep_bytes` of log remain; `index` out: the log's first */
};
struct cns_disk_job {
    struct list link; /* the disk's */
    enum cns_disk_kind kind;
    uint64_t term, vote;    /* META */
    uint64_t index;         /* TRUNCATE: first dropped; APPEND: first appended */
    struct cns_item *items; /* APPEND; borrowed from the job's owner */
    unsigned n_items;
    const struct cns_snapshot *snapshot; /* CUT; borrowed from the job's owner */
    uint64_t keep_bytes;                 /* CUT */
    uint64_t generation;                 /* the driver's: a completion of an older one is stale */
    enum err result;
    void *ctx;
    void (*done)(struct cns_disk_job *job,
                 enum err e); /* any error is final: the disk accepts no more */
};

/* Reads entries back (a slow follower, or after a restart). Up to MAX_BYTES of payloads, at least
 * one entry; the callee allocates the items (free with cns_items_free). Runs beside the jobs, not
 * ordered with them: the driver asks only for what is stored and not truncated. */
struct cns_disk_read {
    struct list link; /* the disk's */
    uint64_t index, max_bytes;
    unsigned max_items;
    struct cns_item *items; /* out */
    unsigned n_items;       /* out */
    enum err result;
    void *ctx;
    void (*done)(struct cns_disk_read *read, enum err e);
};

/* A message to a peer: libraft's struct for the head, our items for the payloads of APPEND_ENTRIES
 * (its own entries array is not used then). The callee copies what it needs before it returns: it
 * takes references of payloads, and copies the rest. */
struct cns_io {
    void *ctx;
    void (*disk)(void *ctx, struct cns_disk_job *job);
    void (*disk_read)(void *ctx, struct cns_disk_read *read);
    /* Best effort: may be dropped when the peer is away or its queue is full. */
    void (*send)(void *ctx, uint64_t to, const struct raft_message *m, const struct cns_item *items,
                 unsigned n_items);
    /* Bytes queued towards a peer, UINT64_MAX when it is not connected: the driver's flow control.
     */
    uint64_t (*queued)(void *ctx, uint64_t to);
    /* ReadIndex and the node's own messages: small, opaque to the transport. */
    void (*send_bytes)(void *ctx, uint64_t to, uint8_t type, const uint8_t *p, size_t n);
    uint64_t (*now_ms)(void *ctx); /* monotonic */
    uint64_t (*random)(void *ctx);
};

/* Types of send_bytes. */
enum cns_bytes_type {
    CNS_BYTES_NODE = 1,
    CNS_BYTES_READ_INDEX = 2,
    CNS_BYTES_BEHIND = 3,
    CNS_BYTES_COMMITTED = 4,
    CNS_BYTES_MEMBERS = 5
};

/* Unrefs the payloads, frees the array (payload.c, with cns_payload_*). */
void cns_items_free(struct cns_item *items, unsigned n);

#endif
