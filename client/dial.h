/* Room: client. From "host:port" to a connected socket, with a deadline on every wait. Thread: any;
 * blocks. */
#ifndef CLIENT_DIAL_H
#define CLIENT_DIAL_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* What ends a wait early, with ERR_CANCELLED. */
struct dial_stop {
    int wake_fd;             /* when it is readable (it is left unread); -1: none */
    bool (*stop)(void *arg); /* when it returns true: asked a few times a second; NULL: none */
    void *arg;
};

/* Connects to ADDRESS, as resolve_split takes it. *fd is non-blocking, close-on-exec, without
 * Nagle's delay, with keep-alive. ERR_CLOSED: refused, unreachable, or no socket to be had;
 * ERR_TIMEOUT: not before DEADLINE (clock_mono_ms), names included; ERR_CANCELLED: STOP (NULL:
 * nothing) said so; ERR_CONFIG: not an address; ERR_NOT_FOUND: the name has no address; ERR_NOMEM.
 */
MUST_USE enum err dial(const char *address, uint64_t deadline, const struct dial_stop *stop,
                       int *fd);

/* Waits until FD is ready for one of EVENTS (poll's; *ready says which, POLLERR and POLLHUP count).
 * ERR_TIMEOUT at DEADLINE, ERR_CANCELLED as above. */
MUST_USE enum err dial_wait(int fd, short events, const struct dial_stop *stop, uint64_t deadline,
                            short *ready);

/* Appends what has arrived on FD to IN, at most MAX bytes, without waiting; *got: how many, 0 when
 * there is nothing yet. ERR_CLOSED: WHO closed the connection, or it broke; ERR_TOO_BIG,
 * ERR_NOMEM: IN has no room. */
MUST_USE enum err dial_receive(int fd, struct buf *in, size_t max, const char *who, size_t *got);

#endif
