/* Room: client. The asking side of an image: one connection to one node, requests one at a time
 * (wire_image.h). A node that fetches another's database uses it. Thread: one; blocks. */
#ifndef CLIENT_IMAGE_CLIENT_H
#define CLIENT_IMAGE_CLIENT_H

#include "base/err.h"
#include "client/dial.h"
#include "client/wire_image.h"

#include <stddef.h>
#include <stdint.h>

/* One address to accept and to say WELCOME; and one answer: a node that is stopped or gone without
 * a word must not hold the fetching for long. Milliseconds. */
#define IMAGE_CONNECT_MS 3000u
#define IMAGE_ANSWER_MS  10000u

struct image_client;

/* Connects to "host:port", which must belong to CLUSTER_ID. STOP (NULL: nothing) ends this and
 * every later wait with ERR_CANCELLED. All errors: the connection is of no more use, close it.
 * ERR_BUSY: too many images there; ERR_NOT_LEADER, ERR_STOPPED: it has nothing to give now;
 * ERR_CLOSED, ERR_TIMEOUT: not reachable; ERR_CONFIG: another cluster's. */
MUST_USE enum err image_client_open(const char *address, const char *name, uint64_t cluster_id,
                                    const struct dial_stop *stop, struct image_client **out);
/* C may be NULL. */
void image_client_close(struct image_client *c);
/* The node at the other end. */
uint64_t image_client_node(const struct image_client *c);
/* Bytes received, in all. */
uint64_t image_client_bytes(const struct image_client *c);

/* IMAGE->record is borrowed until the next call. */
MUST_USE enum err image_client_begin(struct image_client *c, bool pin, struct wire_image *image);
/* N hashes from page FIRST on, into OUT. */
MUST_USE enum err image_client_hashes(struct image_client *c, uint32_t first, uint32_t n,
                                      uint64_t *out);
/* Pages of PAGE_SIZE; those that the image does not have are left out. P is borrowed until the next
 * call. */
MUST_USE enum err image_client_pages(struct image_client *c, const uint32_t *page_nos, uint32_t n,
                                     uint32_t page_size, struct wire_image_pages *p);

#endif
