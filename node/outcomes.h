/* Room: node. The outcomes of numbered writes, so that none is done twice: a table over the newest
 * part of the log (docs/CLIENT.md, "Exactly once").
 *
 *   outcomes_find --(none)--> run --> outcomes_note (tentative)
 *        tentative --outcomes_seal--> sealed (in an entry) --outcomes_publish--> published
 *        tentative --outcomes_undo--> gone          sealed --outcomes_lose--> gone (view closed)
 *   a follower, or a start: outcomes_apply
 *
 * Thread: owner (before the owner starts: main). */
#ifndef NODE_OUTCOMES_H
#define NODE_OUTCOMES_H

#include "base/buf.h"
#include "base/thread.h"
#include "client/wire.h"
#include "node/outcome_section.h"

#include <stdbool.h>

/* Of the table's memory: some 300,000 sessions with one write each. */
#define OUTCOMES_BYTES_MAX MIB(64)
/* Of one writer, not acknowledged: of more the lowest is told as OUTCOME_EXPIRED. */
#define WRITER_OUTCOMES_MAX 4096u
/* Numbers that were promised never to be done: the oldest ones then stand for all before them. */
#define OUTCOMES_VOIDS_MAX 4096u

struct outcomes;

enum outcome_known {
    OUTCOME_NONE,    /* surely not done: run it */
    OUTCOME_DONE,    /* *out */
    OUTCOME_VOID,    /* was promised never to be done: ERR_TXN_LOST */
    OUTCOME_EXPIRED, /* cannot be told, or acknowledged long ago: ERR_EXPIRED, not to be run */
};

/* BYTES_MAX: of its memory. */
struct outcomes *outcomes_new(size_t bytes_max);
void outcomes_free(struct outcomes *o);
/* Forgets all, and knows nothing of SEQ and before. Nothing may be tentative or sealed. */
void outcomes_begin(struct outcomes *o, uint64_t seq);
/* All numbered writes of later transactions are known, up to the newest one. */
uint64_t outcomes_covers(const struct outcomes *o);

/* OUT is borrowed until the next call that is not `const`. */
enum outcome_known outcomes_find(const struct outcomes *o, const struct wire_number *n,
                                 struct outcome *out);
/* N was done in the transaction that is open. ALWAYS: others must hear of it even if the
 * transaction wrote nothing (see outcomes_need_entry). Frames above OUTCOME_ROWS_MAX are lost. */
void outcomes_note(struct outcomes *o, const struct wire_number *n, const struct outcome *done,
                   bool always);
/* Does the section have room for one more outcome, whatever it is? */
bool outcomes_have_room(const struct outcomes *o);
/* How many tentative ones there are; and back to so many. */
unsigned outcomes_mark(const struct outcomes *o);
void outcomes_undo(struct outcomes *o, unsigned mark);
/* Is a tentative one there that needs an entry for itself? */
bool outcomes_need_entry(const struct outcomes *o);
/* Appends the section of the tentative ones; nothing when there is none. */
void outcomes_put_section(const struct outcomes *o, struct buf *section);
/* They are of the transaction SEQ, sealed with that section. */
void outcomes_seal(struct outcomes *o, uint64_t seq);
/* All up to SEQ are committed. */
void outcomes_publish(struct outcomes *o, uint64_t seq);
/* The view is gone: whatever is not published, and what was voided. */
void outcomes_lose(struct outcomes *o);

/* N, the COMMIT of a transaction, is never to be done while this node leads. SEQ: the newest
 * sequence that anybody can have seen. */
void outcomes_void(struct outcomes *o, const struct wire_number *n, uint64_t seq);
/* Must a COMMIT with this number, of a transaction that is open here, not be done? */
bool outcomes_is_void(const struct outcomes *o, const struct wire_number *n);

/* The section of the committed transaction SEQ (LEN 0: it had none); of one that is known already:
 * nothing. ERR_CORRUPT, ERR_FORMAT: not a section that this program reads; nothing happened. */
MUST_USE enum err outcomes_apply(struct outcomes *o, uint64_t seq, const uint8_t *section,
                                 size_t len);

struct outcomes_stats {
    uint64_t covers, seq; /* all after covers up to seq is known */
    uint64_t writers, outcomes, bytes;
};
void outcomes_get_stats(const struct outcomes *o, struct outcomes_stats *out);

#endif
