/* Room: consensus. The driver's side of the disk: what was handed to it, what came back, and which
 * of that still counts. Thread: loop. */
#ifndef CONSENSUS_JOURNAL_H
#define CONSENSUS_JOURNAL_H

#include "consensus/cache.h"
#include "consensus/outbox.h"
#include "consensus/terms.h"

struct journal;

struct journal_config {
    const struct cns_io *io;
    struct cache *cache;
    struct terms *terms;
    struct outbox *outbox; /* held while a record of term and vote is not durable */
    void *ctx;
    /* Entries up to INDEX are stored. Not for appends that a truncation has overtaken. */
    void (*stored)(void *ctx, uint64_t index);
    /* The record S is durable, the log on the disk begins at FIRST. S is lent. */
    void (*cut)(void *ctx, const struct cns_snapshot *s, uint64_t first);
    void (*failed)(void *ctx, enum err e); /* final */
    void (*dirty)(void *ctx);
};

struct journal *journal_new(const struct journal_config *c);
/* Frees jobs that never came back (a simulated crash). */
void journal_free(struct journal *j);
/* What is durable at the start: all of `terms`, and this record. */
void journal_start(struct journal *j, uint64_t term, uint64_t vote);
/* No callback from now on; jobs still come back and are freed. */
void journal_stop(struct journal *j);

/* One synced record; the outbox holds until it is durable. */
void journal_meta(struct journal *j, uint64_t term, uint64_t vote);
/* A new entry at the end of log and cache; takes the item's reference. */
void journal_append(struct journal *j, struct cns_item item);
/* Drops the entries from INDEX on, in log, cache and on the disk. */
void journal_truncate(struct journal *j, uint64_t index);
/* Hands all new entries to the disk, as one job. */
void journal_flush(struct journal *j);
/* Asks for a cut; takes over the reference of S->members. One at a time. */
void journal_cut(struct journal *j, const struct cns_snapshot *s, uint64_t keep_bytes);
bool journal_is_cutting(const struct journal *j);
/* What cached entries that are not known to be stored cost (CACHE_ITEM_OVERHEAD included). */
uint64_t journal_pending_bytes(const struct journal *j);
uint64_t journal_item_cost(const struct cns_payload *p);

#endif
