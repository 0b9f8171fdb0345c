/* Room: consensus. The Raft log on disk: term and vote, entries, truncation (docs/FORMATS.md).
 *
 * Everything that is reported as done is durable. Jobs are done first in, first out on a thread of
 * their own; all that wait are written together and synced once (group commit). Reads, and a CUT,
 * run beside them on a second thread. Any failed job is final: the log accepts no more (a disk that
 * lied once cannot be asked again), every later job ends with the same error.
 *
 * A full disk is no failure: room is allocated before the first byte that needs it, so a job that
 * finds none waits with those behind it (state.waits) and goes on by itself. Closed meanwhile, they
 * end with ERR_FULL.
 *
 * Life: cns_log_open (loads, blocks) -> cns_log_state, cns_log_each, cns_log_scan_back ->
 * cns_log_start -> cns_log_submit ... -> cns_log_close. */
#ifndef CONSENSUS_LOG_H
#define CONSENSUS_LOG_H

#include "consensus/io.h"
#include "consensus/log_file.h"

struct cns_log;

struct cns_log_config {
    const char *dir;              /* made when missing; held locked until closed */
    uint64_t cluster_id, node_id; /* both > 0; must be what the directory was made with */
    /* What a new directory starts with: this term, no vote, and these entries from index 1 (the
     * RAFT_CHANGE with the first members). Unused when the directory has a log. Borrowed. */
    uint64_t first_term;
    const struct cns_item *first_items;
    unsigned n_first_items;
    const struct cns_snapshot *base; /* a new directory begins behind this instead; or NULL */
    uint64_t segment_bytes;          /* 0: LOG_SEGMENT_BYTES; tests make them small */
    const struct cns_log_file_calls *calls; /* NULL: the system's; tests inject failures */
};

/* What is durable. Valid as a snapshot of the moment. An empty log has last_index = first_index
 * - 1.
 */
struct cns_log_state {
    uint64_t term, vote;
    uint64_t first_index, last_index, last_term;
    uint64_t bytes, segments; /* on disk, preallocated space included */
    bool made;                /* this open made the directory */
    uint64_t prev_term;       /* of the entry before first_index; 0: there is none */
    uint64_t snapshot_index;  /* of the newest record; 0: none */
    uint64_t incarnation; /* random, made with the directory: tells it from one that replaced it */
    bool waits;           /* the disk is full: jobs wait, nothing is lost; tried again by itself */
};

/* ERR_LOCKED: another process has it. ERR_CONFIG: it belongs to another cluster or node.
 * ERR_FORMAT: written by a newer version. ERR_CORRUPT: damaged beyond a torn end; the sentence
 * names file, offset and index. ERR_IO, ERR_FULL. */
MUST_USE enum err cns_log_open(const struct cns_log_config *c, struct cns_log **out) ON_LOOP;

void cns_log_get_state(struct cns_log *l, struct cns_log_state *out) ON_LOOP;
/* Adds how long the syncs took to OUT. Any thread. */
void cns_log_sync_times(const struct cns_log *l, struct histogram_copy *out);

/* The newest snapshot record; false: none. OUT->members stays the log's, until the next cut. */
bool cns_log_snapshot(const struct cns_log *l, struct cns_snapshot *out) ON_LOOP;
/* cns_install: blocks; before cns_log_start only. Term and vote stay, but a record of a higher term
 * raises the term. ERR_MISUSE: S is older than what this log begins behind; ERR_DIVERGED. After any
 * error but these two the log must be closed; the next open finishes what was begun. */
MUST_USE enum err cns_log_install(struct cns_log *l, const struct cns_snapshot *s) ON_LOOP;

/* Calls VISIT for every entry, oldest first, without touching the disk: what RAFT_START needs.
 * PAYLOAD only for CNS_CHANGE (borrowed for the call), NULL otherwise. Before cns_log_start only.
 */
typedef void (*cns_log_visit)(void *ctx, uint64_t index, uint64_t term, enum cns_kind kind,
                              struct cns_payload *payload);
void cns_log_each(struct cns_log *l, cns_log_visit visit, void *ctx) ON_LOOP;

/* cns_scan_back: the commands, newest first, until VISIT returns false. Memory: one stretch of the
 * log (at most 64 entries or about an entry's maximum). Blocks; before cns_log_start only. */
MUST_USE enum err cns_log_scan_back(struct cns_log *l, cns_visit visit, void *ctx) ON_LOOP;

/* Starts the two threads; completions come on LOOP. */
MUST_USE enum err cns_log_start(struct cns_log *l, uv_loop_t *loop) ON_LOOP;

/* Takes the job until its `done`. An APPEND must continue the log exactly (CHECKed); its items'
 * payloads must stay until done. */
void cns_log_submit(struct cns_log *l, struct cns_disk_job *job) ON_LOOP;

/* Reads entries from read->index on, as far as they are durable. ERR_NOT_FOUND: the index is not
 * (or, after a truncation or a cut meanwhile, no longer) in the log. ERR_CORRUPT names the entry. A
 * failed read does not stop the log: the caller judges. */
void cns_log_submit_read(struct cns_log *l, struct cns_disk_read *read) ON_LOOP;

/* Finishes all submitted jobs and reads (their `done` comes first), then DONE, and frees. Before
 * cns_log_start there is nothing to wait for: DONE is called before it returns. */
void cns_log_close(struct cns_log *l, void (*done)(void *ctx), void *ctx) ON_LOOP;

#endif
