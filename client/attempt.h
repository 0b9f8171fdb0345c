/* Room: client. From an address as people write it to a connected socket, without blocking: the
 * addresses of the name, one after the other, until one is what the owner wants. Thread: the
 * loop's.
 */
#ifndef CLIENT_ATTEMPT_H
#define CLIENT_ATTEMPT_H

#include "base/err.h"
#include "client/loop.h"

struct attempt;

/* From loop_turn, or from attempt_next. From both, attempt_free is right. */
struct attempt_events {
    void *ctx;
    /* FD is the owner's: non-blocking, close-on-exec, without Nagle's delay, with keep-alive. What
     * comes next on it should come until UNTIL_MS: others are to be tried after it. */
    void (*on_connected)(void *ctx, int fd, uint64_t until_ms);
    /* No address is left, or the time is over; err_text names the address. ERR_CLOSED: refused or
     * unreachable; ERR_TIMEOUT; ERR_NOT_FOUND: the name; ERR_NOMEM; ERR_IO. Or E of attempt_next.
     */
    void (*on_failed)(void *ctx, enum err e);
};

/* UNTIL_MS: clock_mono_ms, for all addresses together, each of which gets its share; a second more
 * where the loop was not turned in that time. ERR_CONFIG: not an address; ERR_NOMEM; ERR_IO: no
 * descriptor. */
MUST_USE enum err attempt_new(struct loop *l, const char *address, uint64_t until_ms,
                              const struct attempt_events *events, struct attempt **out);
/* After on_connected: that was not the right one, because of E and err_text; try the next. */
void attempt_next(struct attempt *a, enum err e);
/* NULL is allowed. */
void attempt_free(struct attempt *a);

#endif
