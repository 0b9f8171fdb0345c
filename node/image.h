/* Room: node. Images for other nodes: this node's database, page by page, while it serves
 * (docs/PROTOCOL.md, section 11; node/fetch.c is the other side).
 *
 *     session -> image_run --+--> IMAGE_BEGIN without pin, IMAGE_ASK_HASHES: answered on the loop
 *                            +--> lane (LANE_IMAGE: pins the published state) -> image_opened
 *                            +--> the image thread (reads pages, closes)     -> session_answer
 *
 * An image keeps the WAL from being begun anew, so none stays long: limits in image.c. */
#ifndef NODE_IMAGE_H
#define NODE_IMAGE_H

#include "node/node.h"
#include "node/session.h"

struct images;
struct image;

struct images *images_new(struct node *n) ON_LOOP;
/* All sessions are gone: closes what is open and ends the thread. NULL is ignored. */
void images_free(struct images *is) ON_LOOP;

/* A request whose `image` is set; session_answer follows, perhaps before this returns. */
void image_run(struct session *s, struct request *r) ON_LOOP;
/* LOOP_IMAGE: the lane pinned a state, or could not. */
void image_opened(struct node *n, struct lane_image *l) ON_LOOP;
/* LOOP_IMAGE_CLOSED. */
void image_closed(struct image *image) ON_LOOP;
/* LOOP_IMAGE_READ: R goes back to its session. */
void image_was_read(struct request *r) ON_LOOP;
/* The session ends: its image goes too. */
void image_forget(struct session *s) ON_LOOP;
/* Closes images that are idle or over their limits. */
void images_timer(struct node *n, uint64_t now_ms) ON_LOOP;
/* None is open or on its way. */
bool images_none(const struct images *is) ON_LOOP;

#endif
