/* Room: node/http. The Hrana streams that live in this node between two requests, because they have
 * a transaction open or texts stored; and batons, with which clients name any stream.
 *
 *     request + baton -> hrana_held_take -> stream -> ... -> hrana_held_give -> baton
 *
 * A stream with a transaction is kept for as long as its client is to hear how that ended; one with
 * texts only until HELD_IDLE_MS pass without a request, or others need the place. A stream that has
 * neither is closed: its baton says all there is to know of it, and any node opens it again.
 * Thread: loop. */
#ifndef NODE_HTTP_HRANA_HELD_H
#define NODE_HTTP_HRANA_HELD_H

#include "node/http/baton.h"
#include "node/http/hrana_stream.h"

struct hrana_held;

struct hrana_held *hrana_held_new(struct node *n) ON_LOOP;
/* Closes all that rest: their clients come too late. */
void hrana_held_clear(struct hrana_held *h) ON_LOOP;
/* Closes all. */
void hrana_held_free(struct hrana_held *h) ON_LOOP;
/* The stream that BATON names; without one (NULL) a new one. An error: nothing was taken. */
struct hrana_error *hrana_held_take(struct hrana_held *h, const struct hrana_text *baton,
                                    struct hrana_stream **out) ON_LOOP;
/* S rests: writes the baton under which it, or another that is as good, is to be had. *BASE_URL:
 * here, when it is had nowhere else; NULL: at any node. */
void hrana_held_give(struct hrana_held *h, struct hrana_stream *s, char baton[BATON_TEXT_MAX],
                     const char **base_url) ON_LOOP;
/* Writes the baton that S will have when BATCH was run on it and it is given, for whoever has to
 * tell it before. */
void hrana_held_reserve(struct hrana_held *h, struct hrana_stream *s,
                        const struct hrana_batch *batch, char baton[BATON_TEXT_MAX],
                        const char **base_url) ON_LOOP;
void hrana_held_timer(struct hrana_held *h, uint64_t now_ms) ON_LOOP;
size_t hrana_held_count(const struct hrana_held *h) ON_LOOP;

#endif
