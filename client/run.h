/* Room: client. A call as the public interface sees it. What a call tells during loop_turn is only
 * noted down here; its owner (a statement, a batch) looks at it afterwards, when everything is
 * allowed again: waiting, closing, callbacks of the program.
 *
 *   run_new --> run_start --> items come --> ended
 *                  |             run_wait: until there is an item, or the end
 *                  +-- run_release: the owner is gone; the run ends and frees itself
 *
 * Thread: under the cluster's lock. */
#ifndef CLIENT_RUN_H
#define CLIENT_RUN_H

#include "base/list.h"
#include "base/sizes.h"
#include "client/stream.h"
#include "client/wait.h"

#include <stdatomic.h>

/* Of one session, in memory, while another of its statements wants its turn. */
#define RUN_HELD_MAX MIB(64)

/* What the public calls keep for a cluster. */
struct face {
    struct list sessions;    /* struct lectern, all of it */
    struct list ready;       /* runs that something came for */
    struct list to_tell;     /* runs whose program is to be called back */
    atomic_bool interrupted; /* some session was */
    bool turning, telling;
    pthread_t teller; /* whose callbacks run, while TELLING */
    struct turns turns;
};

enum item_kind { ITEM_COLUMNS, ITEM_ROWS, ITEM_STEP, ITEM_DESCRIPTION };

/* Something that came, in the order in which it came. */
struct item {
    struct list link;
    enum item_kind kind;
    uint32_t n;           /* columns, rows */
    uint32_t frame_bytes; /* ROWS: of the window, not given back yet */
    struct wire_step step;
    struct wire_description description; /* its ranges point into `bytes` */
    size_t len;
    uint8_t bytes[]; /* LEN, and one more to write behind */
};

struct run {
    struct lectern *db;
    struct call *call;
    struct list link;  /* session's runs; itself: ended, or not started */
    struct list ready; /* of the face */
    struct list items;
    struct item *taken;              /* last, and not used up yet; NULL: none */
    void *owner;                     /* NULL: released */
    void (*on_ready)(struct run *r); /* without waiting: something came. NULL: somebody waits */
    struct waiter *waiter;           /* NULL: nobody waits for it */
    unsigned pins;
    uint64_t held; /* bytes of ROWS here */
    uint32_t owed; /* bytes of ROWS that could not be kept: to be given back all the same */
    enum call_kind kind;
    bool counts; /* its changes are the session's */
    bool ended, interrupted, refused, no_memory, cancelled, rows_seen, stopped;
    /* Once ended. */
    enum err err;
    int code, offset; /* extended */
    uint32_t statement;
    int64_t changes, last_insert_rowid;
    char *message; /* NULL: none, or no memory for it */
};

struct face *face_of(struct lectern_cluster *c);
/* ERR_NOMEM. */
MUST_USE enum err face_new(struct lectern_cluster *c);
void face_free(struct lectern_cluster *c);
/* Turns the loop once without waiting and does what follows from it; calls programs back, without
 * the lock, unless that is going on already. ERR_IO. */
MUST_USE enum err face_turn(struct lectern_cluster *c);
/* The same, and waits for the next event, with the lock: for those who end the cluster. */
MUST_USE enum err face_turn_alone(struct lectern_cluster *c);
/* Something was noted down outside of a turn. */
bool face_is_behind(struct lectern_cluster *c);
/* This thread is in a callback of C's. */
bool face_tells_here(const struct face *f);
/* A thread waits on C, or is in a callback: C must stay. */
bool face_is_in_use(const struct face *f);

MUST_USE enum err run_new(struct lectern *db, enum wire_type type, enum call_kind kind, void *owner,
                          struct run **out);
void run_start(struct run *r);
/* Until an item is there, or the end (or the loop failed: neither). False: R was released
 * meanwhile, by a callback, and is not to be looked at again; nor is its owner. */
MUST_USE bool run_wait(struct run *r);
MUST_USE bool run_wait_end(struct run *r);
/* The time limit begins anew. */
void run_extend(struct run *r);
struct item *run_first(const struct run *r);
/* Takes I out of R: one at a time, to be given back with run_used before R is released. */
void run_take(struct run *r, struct item *i);
/* Takes I, of what is over, for good. */
void run_keep(struct run *r, struct item *i);
/* I is used up, freed, and the node may send as much again. R: NULL when it is over. */
void run_used(struct run *r, struct item *i);
void run_cancel(struct run *r);
/* The owner needs it no more. Not to be used after. */
void run_release(struct run *r);
/* Around a callback of the program. */
void run_pin(struct run *r);
/* False: it was released meanwhile, with its owner. */
bool run_unpin(struct run *r);

#endif
