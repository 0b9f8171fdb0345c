/* Room: client. The library's own event loop: sockets, timers, tasks and a wake-up behind one
 * descriptor (epoll, which a foreign loop can watch). Nothing here blocks but loop_turn with a
 * wait, and nothing that can be called twice for the same thing allocates.
 * Thread: one at a time; loop_wake from any, also from a signal handler. */
#ifndef CLIENT_LOOP_H
#define CLIENT_LOOP_H

#include "base/err.h"
#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h> /* EPOLLIN, ... */

struct loop;

/* Watches, timers and tasks are parts of their owners: `ready`, `fire` and `run` are the owner's,
 * all else is zero at first and the loop's afterwards. From their own callbacks, and from those of
 * others, they may be changed, removed and freed. */
struct loop_watch {
    void (*ready)(struct loop_watch *w, uint32_t events); /* EPOLL... */
    int fd;
    bool added;
};

struct loop_timer {
    void (*fire)(struct loop_timer *t); /* once for each loop_timer_set */
    uint64_t at_ms;                     /* clock_mono_ms; 0: not set */
    uint64_t number;
    struct loop_timer *child, *next, *prev; /* of the heap */
};

struct loop_task {
    void (*run)(struct loop_task *t);
    struct list link;
    bool waiting;
};

MUST_USE enum err loop_new(struct loop **out); /* ERR_NOMEM, ERR_IO: no descriptors left */
/* All watches, timers and tasks are removed before. NULL is allowed. */
void loop_free(struct loop *l);
/* Readable whenever loop_turn has something to do, timers and tasks included. */
int loop_fd(const struct loop *l);
/* Runs the waiting tasks, handles the descriptors that are ready, fires the timers that are due,
 * and runs the tasks that came up. If no task was waiting, it waits for descriptors and timers at
 * most WAIT_MS (-1: for as long as it takes), less when a signal comes. Not from a callback.
 * ERR_IO: epoll failed. */
MUST_USE enum err loop_turn(struct loop *l, int wait_ms);
/* The current or next loop_turn returns at once. Async-signal-safe. */
void loop_wake(struct loop *l);

/* ERR_NOMEM, ERR_IO. */
MUST_USE enum err loop_watch_add(struct loop *l, struct loop_watch *w, int fd, uint32_t events);
void loop_watch_change(struct loop *l, struct loop_watch *w, uint32_t events);
/* No `ready` follows, also not in this turn. Does not close the descriptor: do that after. One that
 * is not added is left alone. */
void loop_watch_remove(struct loop *l, struct loop_watch *w);

/* Also when it is set already. A time that has passed is now. Equal times: in the order of their
 * setting. */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ms);
/* One that is not set is left alone. */
void loop_timer_stop(struct loop *l, struct loop_timer *t);

/* Runs T once, at the end of this turn or at the beginning of the next: to do for many what was
 * caused by each. Once is enough however often it is called before. */
void loop_task_defer(struct loop *l, struct loop_task *t);
void loop_task_cancel(struct loop_task *t);

#endif
