/* Room: client. From an address as people write it to those that the kernel takes, without
 * blocking: the system's resolver runs on a thread of its own; numeric addresses need none. Thread:
 * the loop's, but for resolve_split. */
#ifndef CLIENT_RESOLVE_H
#define CLIENT_RESOLVE_H

#include "base/err.h"
#include "client/loop.h"

#include <netdb.h>

#define RESOLVE_DEFAULT_PORT "7701"

struct resolve_parts {
    char host[256], port[8];
};

/* "host:port", "[v6]:port", or either part alone (":port" is 127.0.0.1; a bare v6 address needs no
 * brackets). ERR_CONFIG: none of these. Thread: any. */
MUST_USE enum err resolve_split(const char *address, struct resolve_parts *out);
/* The error for what getaddrinfo said of ADDRESS; reads errno. Thread: any. */
enum err resolve_failure(const char *address, int failure);

struct resolve;

/* Called once from loop_turn; never after resolve_cancel. The lookup is freed before. LIST, in the
 * order in which they are to be tried: freeaddrinfo it. ERR_NOT_FOUND: the name has no address, or
 * nobody could tell; ERR_NOMEM. */
typedef void (*resolve_done)(void *ctx, enum err e, struct addrinfo *list);

/* ERR_CONFIG: not an address; ERR_NOMEM: also when no thread can be had; ERR_IO: no descriptor. */
MUST_USE enum err resolve_start(struct loop *l, const char *address, resolve_done done, void *ctx,
                                struct resolve **out);
/* Before `done`. A lookup that hangs in the system's resolver goes on alone and is forgotten; the
 * loop may be freed. */
void resolve_cancel(struct resolve *r);

#endif
