/* Room: client. From a host's name to its addresses without blocking: the system's resolver runs on
 * a thread of its own; numeric addresses need none. Thread: the loop's. */
#ifndef CLIENT_RESOLVE_H
#define CLIENT_RESOLVE_H

#include "base/err.h"
#include "client/loop.h"

#include <netdb.h>

struct resolve;

/* Called once from loop_turn, or never after resolve_cancel. LIST: freeaddrinfo it. ERR_NOT_FOUND:
 * the name has no address; ERR_CONFIG: not an address. */
typedef void (*resolve_done)(void *ctx, enum err e, struct addrinfo *list);

/* ADDRESS: "host:port", "[v6]:port", or either part alone; port 7701 unless given. */
MUST_USE enum err resolve_start(struct loop *l, const char *address, resolve_done done, void *ctx,
                                struct resolve **out);
/* A lookup that hangs in the system's resolver goes on alone and is forgotten. */
void resolve_cancel(struct resolve *r);

#endif
