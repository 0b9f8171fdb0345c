/* Room: client. Threads that wait on one cluster: one of them, the turner, waits for the
 * descriptors and turns the loop for all; the others sleep until what they wait for is there, or
 * until they are the turner's heir. Nobody holds the cluster's lock while waiting.
 *
 *     struct waiter w;
 *     waiter_begin(&w, cluster);
 *     while (e == ERR_OK && !there)
 *         e = waiter_wait(&w, until_ms);
 *     waiter_end(&w);
 *
 * Thread: under the cluster's lock, which waiter_wait gives away meanwhile, all levels of it. */
#ifndef CLIENT_WAIT_H
#define CLIENT_WAIT_H

#include "base/err.h"
#include "base/list.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* As the time until which to wait: for as long as it takes. */
#define WAIT_FOR_EVER UINT64_MAX

struct lectern_cluster;

/* One call that waits; on its stack. */
struct waiter {
    struct lectern_cluster *cluster;
    struct list link;    /* of the turns, while it waits */
    pthread_cond_t wake; /* unless it is the turner, which poll(2) holds */
    bool any;            /* whatever was done by anybody ends its wait: lectern_poll */
};

/* A part of the cluster's face. */
struct turns {
    struct list waiting;   /* struct waiter */
    struct waiter *turner; /* of them; NULL: nobody */
    bool called;           /* the turner is to come back */
    unsigned waiters;      /* begun and not ended: the cluster must stay */
    unsigned pollers;      /* of them: any */
};

void turns_init(struct turns *t);
void waiter_begin(struct waiter *w, struct lectern_cluster *c);
/* Until something was done that may concern W, UNTIL_MS (of clock_mono_ms), or a signal: the caller
 * looks whether that was it. May call programs back. ERR_IO: the loop is broken. */
MUST_USE enum err waiter_wait(struct waiter *w, uint64_t until_ms);
void waiter_end(struct waiter *w);
/* What W waits for may be there. W need not be waiting. */
void waiter_wake(struct waiter *w);
void turns_wake_all(struct turns *t);
/* The loop was turned, by anybody. */
void turns_turned(struct turns *t);
/* The calling thread turns the loop no more, or is away in a function of the program: another does.
 */
void turns_hand_on(struct turns *t);

#endif
