/* Room: client. From "host:port" to a connected socket, with a deadline on every wait. Thread: any;
 * blocks. */
#ifndef CLIENT_DIAL_H
#define CLIENT_DIAL_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

/* Connects to ADDRESS, as resolve_split takes it. *fd is non-blocking, close-on-exec, without
 * Nagle's delay, with keep-alive. ERR_CLOSED: refused, unreachable, or no socket to be had;
 * ERR_TIMEOUT: not before DEADLINE (clock_mono_ms); ERR_CANCELLED: WAKE_FD (-1: none) became
 * readable; ERR_CONFIG: not an address; ERR_NOT_FOUND: the name has no address. Looking a name up
 * takes as long as the system's resolver lets it (resolv.conf), beside the deadline. */
MUST_USE enum err dial(const char *address, uint64_t deadline, int wake_fd, int *fd);

/* Waits until FD is ready for one of EVENTS (poll's; *ready says which, POLLERR and POLLHUP count).
 * ERR_TIMEOUT at DEADLINE, ERR_CANCELLED when WAKE_FD is readable (it is left unread). */
MUST_USE enum err dial_wait(int fd, short events, int wake_fd, uint64_t deadline, short *ready);

/* Appends what has arrived on FD to IN, at most MAX bytes, without waiting; *got: how many, 0 when
 * there is nothing yet. ERR_CLOSED: WHO closed the connection, or it broke; ERR_TOO_BIG,
 * ERR_NOMEM: IN has no room. */
MUST_USE enum err dial_receive(int fd, struct buf *in, size_t max, const char *who, size_t *got);

#endif
