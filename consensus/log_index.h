/* Room: consensus. Where entries lie: the live segments and, inside each, a sparse list of marks
 * (one in 64 entries or 64 KiB), so that memory is a small fraction of the log's length.
 *
 * Thread: one writer (the disk thread; the loop before start), one that drops the oldest (the
 * keeper's), any reader. The lock guards the
 * lists; bytes once durable in a segment's file never change. Files are opened for each read, so
 * that a long log does not use up the descriptors. */
#ifndef CONSENSUS_LOG_INDEX_H
#define CONSENSUS_LOG_INDEX_H

#include "consensus/log_segment.h"

#include <pthread.h>

/* Entry INDEX begins at OFFSET; CHAIN is the chain before it. */
struct log_mark {
    uint64_t index, offset, chain;
};

struct log_segment {
    _Atomic unsigned refs;
    char *path;
    struct log_segment_head head;
    uint64_t size; /* of the file */
    uint64_t last; /* last entry that counts here; first_index - 1 when there is none */
    uint64_t end;  /* of the records that count: rather too little after a truncation */
    struct log_mark *marks;
    unsigned n_marks, cap_marks;
};

struct log_index {
    pthread_mutex_t lock;
    struct log_segment **segments; /* by first index; one reference each */
    unsigned n, cap;
    uint64_t last, last_term; /* of the last durable entry */
    uint64_t cuts;            /* truncations so far */
};

void log_index_init(struct log_index *x);
void log_index_fini(struct log_index *x);

/* Takes over PATH (malloc'ed); one reference. */
struct log_segment *log_segment_new(char *path, const struct log_segment_head *head, uint64_t size);
struct log_segment *log_segment_ref(struct log_segment *s);
void log_segment_unref(struct log_segment *s);

/* --- the writer --------------------------------------------------------------------------------
 */

/* While loading: puts S behind the others; takes the caller's reference. */
void log_index_add(struct log_index *x, struct log_segment *s);
/* An entry was put at OFFSET of the last segment, up to END. Not visible to readers until
 * published. */
void log_index_note(struct log_index *x, uint64_t index, uint64_t offset, uint64_t end,
                    uint64_t chain);
/* All entries up to LAST, which is of LAST_TERM, are durable. */
void log_index_publish(struct log_index *x, uint64_t last, uint64_t last_term);
/* S, new and empty, is the newest from now on: entries from its first index on do not count any
 * more. Takes the caller's reference, and at once the segments out that begin at DEAD_FROM (S's
 * first index, or 0: all) or later: readers see the log before or after, never without a segment.
 * Returns them: unref each, free the array. */
struct log_segment **log_index_begin(struct log_index *x, struct log_segment *s, uint64_t dead_from,
                                     unsigned *n_dead);
/* Takes out the oldest segment when all of its entries are at or below INDEX, it is not the newest,
 * and at least KEEP_BYTES of records lie behind it; NULL: nothing (more) to drop. Unref it. */
struct log_segment *log_index_drop_oldest(struct log_index *x, uint64_t index, uint64_t keep_bytes);

/* --- readers -----------------------------------------------------------------------------------
 */

/* The last durable entry. */
uint64_t log_index_last(struct log_index *x);
/* The first entry, or the one that will be. */
uint64_t log_index_first(struct log_index *x);

/* The segment of the durable entry INDEX, referenced, the last mark at or before it, and the last
 * durable entry of that segment; NULL: no such entry. */
struct log_segment *log_index_find(struct log_index *x, uint64_t index, struct log_mark *mark,
                                   uint64_t *last);

#endif
