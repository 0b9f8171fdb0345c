/* Room: node/http. What a Hrana batch means: its conditions, and the two shapes that need not be
 * run step by step. Pure functions. Thread: any. */
#ifndef NODE_HTTP_HRANA_BATCH_H
#define NODE_HTTP_HRANA_BATCH_H

#include "node/http/hrana.h"

enum hrana_outcome { HRANA_NOT_RUN, HRANA_SUCCEEDED, HRANA_FAILED };

/* AUTOCOMMIT: no transaction is open now. OUTCOMES: of the steps so far. */
bool hrana_condition_holds(const struct hrana_cond *c, const enum hrana_outcome *outcomes,
                           bool autocommit);

/* A batch that begins a transaction, runs statements each of which needs the one before, commits,
 * and rolls back when that failed: one atomic thing, which may as well be run as one.
 *
 *     BEGIN ...;  s if ok(BEGIN);  s if ok(s) ...;  COMMIT if ok(s);  [ROLLBACK if not ok(COMMIT)]
 *
 * `not is_autocommit` may stand beside each condition, as drivers of version 3 write it. */
struct hrana_shape {
    uint32_t first, n; /* the statements between BEGIN and COMMIT */
    bool reads;        /* they look like reads, all of them, and a failure is rolled back */
    bool surely;       /* and none can turn out to write */
    bool read_only;    /* BEGIN READONLY: no other is allowed */
};

/* TEXTS: of the steps. False: not of that shape, or a statement in it is one that must be run for
 * itself (of a transaction, VACUUM, PRAGMA foreign_keys; none, or several). */
bool hrana_shape_of(const struct hrana_batch *b, const struct hrana_text *texts,
                    struct hrana_shape *out);

/* What B may leave, whatever becomes of it, in a stream without a transaction and texts. */
enum hrana_trace {
    HRANA_LEAVES_ANY,            /* a transaction, or other settings */
    HRANA_LEAVES_NO_TRANSACTION, /* nor other settings; but it may write: last_insert_rowid() */
    HRANA_LEAVES_NOTHING,        /* it only reads */
};
enum hrana_trace hrana_trace_of(const struct hrana_batch *b);

/* Is nothing but white space and comments behind the first statement? */
bool hrana_is_one_statement(const struct hrana_text *t);

#endif
