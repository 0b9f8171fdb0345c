/* Room: node. The outcomes of numbered writes, so that none is done twice: a table over the newest
 * part of the log (docs/CLIENT.md, "Exactly once").
 *
 *   outcomes_find --(not found)--> run --> outcomes_note (tentative)
 *        tentative --outcomes_seal--> sealed (in an entry) --outcomes_publish--> published
 *        tentative --outcomes_undo--> gone          sealed --outcomes_lose--> gone (view closed)
 *   a follower, or a start: outcomes_apply
 *
 * Thread: owner (before the owner starts: main). */
#ifndef NODE_OUTCOMES_H
#define NODE_OUTCOMES_H

#include "base/buf.h"
#include "base/thread.h"
#include "base/sizes.h"
#include "client/wire.h"

#include <stdbool.h>

/* Of one answer's frames that are kept (RETURNING): larger ones are told by ERR_ROWS_LOST. */
#define OUTCOME_ROWS_MAX KIB(4)
/* Of the table's memory. */
#define OUTCOMES_BYTES_MAX MIB(64)

struct outcomes;

struct outcome {
    int64_t changes, last_insert_rowid;
    bool rows_lost;        /* it had rows, too many to keep */
    const uint8_t *frames; /* COLUMNS, ROWS, STEP as they were answered, ids to be patched; borrowed
                              until the next call */
    size_t frames_len;
};

enum outcome_known {
    OUTCOME_NONE,    /* surely not done: run it */
    OUTCOME_DONE,    /* *out */
    OUTCOME_VOID,    /* was promised never to be done: ERR_TXN_LOST */
    OUTCOME_EXPIRED, /* cannot be told, or acknowledged long ago: ERR_EXPIRED, not to be run */
};

struct outcomes *outcomes_new(void);
void outcomes_free(struct outcomes *o);
/* Knows nothing of SEQ and before. */
void outcomes_begin(struct outcomes *o, uint64_t seq);
uint64_t outcomes_covers(const struct outcomes *o);

enum outcome_known outcomes_find(const struct outcomes *o, const struct wire_number *n,
                                 struct outcome *out);
/* N was done in the transaction that is open. */
void outcomes_note(struct outcomes *o, const struct wire_number *n, const struct outcome *done);
/* N is never to be done while this node leads. */
void outcomes_void(struct outcomes *o, const struct wire_number *n);
/* How many tentative ones there are; and back to so many. */
unsigned outcomes_mark(const struct outcomes *o);
void outcomes_undo(struct outcomes *o, unsigned mark);
/* The tentative ones are of the transaction SEQ that is being sealed: appends its section. */
void outcomes_seal(struct outcomes *o, uint64_t seq, struct buf *section);
/* All up to SEQ are committed. */
void outcomes_publish(struct outcomes *o, uint64_t seq);
/* The view is gone: whatever is not published, and what was voided. */
void outcomes_lose(struct outcomes *o);

/* The section of the committed transaction SEQ; of one that is known already: nothing.
 * ERR_CORRUPT: bytes that are no section. */
MUST_USE enum err outcomes_apply(struct outcomes *o, uint64_t seq, const uint8_t *section,
                                 size_t len);

#endif
