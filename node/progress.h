/* Room: node. Does the other side go on, or does it only keep us waiting? A byte now and then is no
 * progress: PROGRESS_BYTES within PROGRESS_MS are. The time is the caller's. Thread: loop. */
#ifndef NODE_PROGRESS_H
#define NODE_PROGRESS_H

#include "base/sizes.h"

#include <stdbool.h>
#include <stdint.h>

/* A quarter of a stream's first window (WIRE_WINDOW): clients give credit in halves of it. */
#define PROGRESS_BYTES KIB(64)
#define PROGRESS_MS    10000

/* All zero: nobody is waited for. */
struct progress {
    uint64_t done, since_ms; /* the mark, and when it was reached */
};

/* From now on; DONE counts what the other side does, and only grows. */
void progress_begin(struct progress *p, uint64_t done, uint64_t now_ms);
/* True: too little in too long a time. */
bool progress_stopped(struct progress *p, uint64_t done, uint64_t now_ms);

#endif
