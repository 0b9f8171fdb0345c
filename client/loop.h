/* Room: client. The library's own event loop: sockets, timers and a wake-up behind one descriptor
 * (epoll, which a foreign loop can watch). Nothing here blocks but loop_turn with a wait.
 * Thread: one at a time; loop_wake from any, also from a signal handler. */
#ifndef CLIENT_LOOP_H
#define CLIENT_LOOP_H

#include "base/err.h"
#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;

/* Part of its owner; zero before the first use. */
struct loop_watch {
    int fd;
    void (*ready)(struct loop_watch *w, uint32_t events); /* EPOLL... */
    bool removed, added;
    struct list link;
};

struct loop_timer {
    struct list link;
    uint64_t at_ms; /* clock_mono_ms; 0: not set */
    void (*fire)(struct loop_timer *t);
};

MUST_USE enum err loop_new(struct loop **out); /* ERR_NOMEM, ERR_IO: no descriptors left */
void loop_free(struct loop *l);
/* Readable whenever loop_turn has something to do, timers included. */
int loop_fd(const struct loop *l);
/* Handles all that is ready now and fires what is due; waits for at most WAIT_MS before that (-1:
 * for as long as it takes). ERR_IO: epoll failed. */
MUST_USE enum err loop_turn(struct loop *l, int wait_ms);
/* The current or next loop_turn returns at once. Async-signal-safe. */
void loop_wake(struct loop *l);

MUST_USE enum err loop_watch_add(struct loop *l, struct loop_watch *w, int fd, uint32_t events);
void loop_watch_change(struct loop *l, struct loop_watch *w, uint32_t events);
/* No `ready` follows, also not in this turn; does not close the descriptor. */
void loop_watch_remove(struct loop *l, struct loop_watch *w);

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ms);
void loop_timer_stop(struct loop *l, struct loop_timer *t);

#endif
