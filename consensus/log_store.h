/* Room: consensus. The log's writer, synchronous: what the disk thread does to the files.
 *
 * Appends are staged and become durable together at the next log_store_sync; term and vote, and a
 * truncation, are durable when their call returns, and so is everything asked for before them.
 * After a failure nothing is accepted any more. Thread: the loop until the log starts, then disk.
 */
#ifndef CONSENSUS_LOG_STORE_H
#define CONSENSUS_LOG_STORE_H

#include "consensus/log_index.h"
#include "consensus/log_meta.h"

struct log_store {
    char *dir;
    uint64_t cluster_id, node_id, segment_bytes;
    int lock_fd;
    struct log_files files;
    struct log_meta meta;
    struct log_index index;
    /* Where the writer stands, staged entries included. */
    struct log_segment *active; /* the index's last */
    int fd;                     /* of its file, or -1 */
    uint64_t epoch;             /* the highest ever used */
    uint64_t last, last_term, chain;
    uint64_t end;    /* offset behind the last record in `active` */
    uint64_t synced; /* `active` is durable up to here */
    uint8_t *stage;  /* bytes for [stage_at, stage_at + stage_n) of `active` */
    uint64_t stage_at;
    size_t stage_n;
    enum err failed;
    char failure[ERR_TEXT_MAX];
};

void log_store_init(struct log_store *s, const char *dir, uint64_t cluster_id, uint64_t node_id,
                    uint64_t segment_bytes, const struct cns_log_file_calls *calls);
void log_store_fini(struct log_store *s);

/* Stages items[0..n), which must continue the log (CHECKed). */
MUST_USE enum err log_store_append(struct log_store *s, const struct cns_item *items, unsigned n);
/* Makes all that is staged durable and visible to readers. */
MUST_USE enum err log_store_sync(struct log_store *s);
MUST_USE enum err log_store_set_meta(struct log_store *s, uint64_t term, uint64_t vote);
/* Drops all entries from INDEX on. */
MUST_USE enum err log_store_truncate(struct log_store *s, uint64_t index);
/* Records how far the log is synced, when that is not recorded yet: damage before that point can
 * then never be taken for a torn end. For idle moments. */
MUST_USE enum err log_store_mark(struct log_store *s);

/* For loading: begins a new active segment behind the log's end; BYTES at least, for one record. */
MUST_USE enum err log_store_new_segment(struct log_store *s, uint64_t first_index,
                                        uint64_t prev_term, uint64_t chain, uint64_t bytes);
/* Parses a segment's file name. */
bool log_store_parse_name(const char *name, uint64_t *first_index, uint64_t *epoch);

#endif
