/* Room: client. A session as a program holds it: `lectern` of the public header. Its stream, its
 * statements and batches, its last error. Thread: under its cluster's lock. */
#ifndef CLIENT_HANDLE_H
#define CLIENT_HANDLE_H

#include "base/list.h"
#include "client/run.h"

#include <stdatomic.h>

#define SESSION_ALIVE 0x53534553u
#define SESSION_DEAD  0x44414544u
/* Statements and batches that were finalized: their shells stay so long that a use after it is
 * LECTERN_MISUSE and no crash. */
#define GRAVES_MAX 32

struct lectern {
    uint32_t magic;
    bool owns_cluster;
    bool closing;               /* closed; freed when the last run ended */
    bool in_body, lost_in_body; /* lectern_transaction: its transaction is lost, nothing runs */
    bool committed_in_body;     /* by the function itself */
    unsigned calls;             /* that wait now: not to be closed */
    struct lectern_cluster *cluster; /* NULL: lectern_open failed early */
    struct stream *stream;
    struct list link; /* of the face */
    struct list statements, batches;
    struct list runs; /* started and not ended, in their order */
    unsigned n_runs;  /* not freed */
    struct list graves;
    unsigned n_graves;
    atomic_bool interrupted;
    atomic_uint interrupts; /* heeded */
    uint64_t timeout_ms;
    enum wire_level level;
    uint32_t bound_ms;
    int64_t changes, total_changes;
    /* The last error. */
    int code, offset; /* extended */
    char *message;    /* NULL: the code's own text */
    char short_message[256];
    char *info; /* what lectern_info told last; NULL: nothing */
};

/* The first part of a statement and of a batch: what is left of them in the grave. */
struct handle {
    _Atomic uint32_t magic; /* looked at before the lock is had */
    struct list link;
    struct lectern *db;
};

/* Every public call, first: false when DB is no session, else the lock is held. */
bool session_enter(struct lectern *db);
void session_leave(struct lectern_cluster *c);
/* The same for a statement or batch with this MAGIC; of one that was finalized the session's error
 * says so. */
bool handle_enter(struct handle *h, uint32_t magic, uint32_t dead);
/* Its owner freed all but the shell. */
void handle_bury(struct handle *h, uint32_t magic);

/* Each sets what lectern_errcode and its like tell, and returns the primary code. */
int session_ok(struct lectern *db);
int session_is(struct lectern *db, int code); /* ROW, DONE */
int session_fail(struct lectern *db, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* E with err_text. */
int session_fail_err(struct lectern *db, enum err e);
/* How R ended; OK: session_ok. */
int session_ended(struct lectern *db, const struct run *r);

/* A statement that counts was done. */
void session_changed(struct lectern *db, int64_t rows);

/* An error put aside: of a statement, for its reset; over what is done because of it. */
struct last_error {
    int code, offset; /* extended */
    char *message;    /* NULL: the code's own text, or no memory for another */
};
/* Takes the session's out; copies it; puts E back, or takes it for the session's. */
void session_save_error(struct lectern *db, struct last_error *e);
void session_copy_error(const struct lectern *db, struct last_error *e);
int session_restore_error(struct lectern *db, struct last_error *e);
/* To CODE, with the code's own text. */
void last_error_set(struct last_error *e, int code);

/* All of them at once; false: lost_in_body, which is then the session's error. */
bool session_may_run(struct lectern *db);
/* Turns the loop until then. False: interrupted, or the loop failed. */
bool session_pause(struct lectern *db, uint64_t until_ms);
/* Somebody asked to stop: all that runs is cancelled. */
void session_heed_interrupt(struct lectern *db);
/* A session without a cluster yet; NULL: no memory. */
struct lectern *session_alloc(void);
/* DB's parameters are those of C's URL. */
MUST_USE enum err session_join(struct lectern *db, struct lectern_cluster *c);
/* Closed, and its last run is gone. */
void session_free(struct lectern *db);

#endif
