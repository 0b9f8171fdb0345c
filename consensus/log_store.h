/* Room: consensus. The log's writer, synchronous: what the disk thread does to the files.
 *
 * Appends are staged and become durable together at the next log_store_sync; term and vote, and a
 * truncation, are durable when their call returns, and so is everything asked for before them.
 * A full disk is no failure as long as nothing has changed: ERR_FULL with log_store_refuse() well
 * means "the same call again, later". After any other error nothing is accepted any more.
 *
 * Thread: the loop until the log starts. Then the writer has all of this, but for what the keeper
 * does beside it: the snapshot record, dropping the oldest segments (log_cut.h), the spare. The
 * index and `lock` guard what both touch. */
#ifndef CONSENSUS_LOG_STORE_H
#define CONSENSUS_LOG_STORE_H

#include "consensus/log_index.h"
#include "consensus/log_meta.h"
#include "consensus/log_snapshot.h"

struct log_store {
    char *dir;
    uint64_t cluster_id, node_id, segment_bytes;
    uint64_t incarnation;
    int lock_fd;
    bool read_only; /* for log_load_look: no call that changes anything is made */
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
    struct log_snapshot snapshot; /* the keeper's: what is durable as raft/snapshot */
    pthread_mutex_t lock;         /* for what follows */
    int spare_fd;                 /* of spare.new, the next segment's file; -1: there is none */
    enum err failed;
    char failure[ERR_TEXT_MAX];
};

void log_store_init(struct log_store *s, const char *dir, uint64_t cluster_id, uint64_t node_id,
                    uint64_t segment_bytes, const struct cns_log_file_calls *calls);
void log_store_fini(struct log_store *s);

/* How often what met a full disk tries again. */
#define LOG_ROOM_RETRY_MS 200
/* E is of a call that may be tried again. Thread: any. */
bool log_store_is_full(struct log_store *s, enum err e);
/* ERR_OK, or the first failure, with its sentence. Thread: any. */
MUST_USE enum err log_store_refuse(struct log_store *s);
/* Remembers E (with err_text()) when it is an error and the first one; returns E. Thread: any. */
enum err log_store_failed(struct log_store *s, enum err e);

/* Stages items[0..n), which must continue the log (CHECKed). After ERR_FULL some may be staged: go
 * on with the one behind `last`. */
MUST_USE enum err log_store_append(struct log_store *s, const struct cns_item *items, unsigned n);
/* Makes all that is staged durable and visible to readers. */
MUST_USE enum err log_store_sync(struct log_store *s);
MUST_USE enum err log_store_set_meta(struct log_store *s, uint64_t term, uint64_t vote);
/* Drops all entries from INDEX on. */
MUST_USE enum err log_store_truncate(struct log_store *s, uint64_t index);
/* Records how far the log is synced, when that is not recorded yet: damage before that point can
 * then never be taken for a torn end. For idle moments. */
MUST_USE enum err log_store_mark(struct log_store *s);

/* The active segment is nearly used up, and there is no spare. */
bool log_store_wants_spare(struct log_store *s);
/* Makes the file of the next segment ahead of need, so that no commit waits for its space.
 * ERR_FULL: there is no room, and no harm. Thread: the keeper. */
MUST_USE enum err log_store_make_spare(struct log_store *s);
/* Gives the spare's space back; true: there was one. */
bool log_store_drop_spare(struct log_store *s);
/* Bytes of the spare. Thread: any. */
uint64_t log_store_spare_bytes(struct log_store *s);

/* For loading and log_cut.c: begins a new active segment behind the log's end, or anywhere (then a
 * truncation); BYTES at least, for one record. */
MUST_USE enum err log_store_new_segment(struct log_store *s, uint64_t first_index,
                                        uint64_t prev_term, uint64_t chain, uint64_t bytes);
/* The same behind entry FIRST_INDEX - 1 of another history: all segments that are there go. */
MUST_USE enum err log_store_begin_anew(struct log_store *s, uint64_t first_index,
                                       uint64_t prev_term);
/* Parses a segment's file name. */
bool log_store_parse_name(const char *name, uint64_t *first_index, uint64_t *epoch);

#endif
