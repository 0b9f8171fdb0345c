/* Room: node. Thread: loop. Owns: nothing. */
#include "node/progress.h"

void progress_begin(struct progress *p, uint64_t done, uint64_t now_ms)
{
    *p = (struct progress){done, now_ms};
}

bool progress_stopped(struct progress *p, uint64_t done, uint64_t now_ms)
{
    if (done - p->done >= PROGRESS_BYTES)
        progress_begin(p, done, now_ms);
    return now_ms > p->since_ms + PROGRESS_MS;
}
