/* Room: consensus. A connection that somebody dialled to us: the greeting is judged, then frames
 * are received. Before the greeting holds, it may be anybody: it costs one small struct, and has
 * little time. Thread: loop. */
#ifndef CONSENSUS_PEER_IN_H
#define CONSENSUS_PEER_IN_H

#include "base/list.h"
#include "base/thread.h"
#include "consensus/peer_wire.h"

#include <stdbool.h>
#include <uv.h>

struct peer_in;

struct peer_in_handler {
    void *ctx;
    /* Judges a greeting: ERR_OK lets it in, another code refuses with the sentence that was set;
     * fills the answer's standing and incarnation. False: not yet, peer_in_judge_again will come
     * (the connection's time runs on). */
    bool (*judge)(void *ctx, const struct peer_hello *hello, struct peer_answer *answer);
    /* It was let in; IN is the newest connection of peer FROM. */
    void (*on_greeted)(void *ctx, struct peer_in *in, uint64_t from);
    /* A verified frame; borrowed. The handler may close IN. An error closes it with its sentence.
     */
    enum err (*on_frame)(void *ctx, struct peer_in *in, uint64_t from,
                         const struct peer_frame_head *f, const uint8_t *head, const uint8_t *body);
    /* A line for the log about somebody not let in, or a bad frame: the handler limits the rate. */
    void (*on_refused)(void *ctx, const char *address, uint64_t from, const char *reason);
    /* It is gone; freed after this. */
    void (*on_closed)(void *ctx, struct peer_in *in);
};

/* Accepts from LISTENER. ERR_IO: nothing was made. H is borrowed until on_closed. */
MUST_USE enum err peer_in_accept(uv_stream_t *listener, const struct peer_in_handler *h,
                                 struct peer_in **out) ON_LOOP;
/* No more frames; on_closed in the loop's time. Twice is harmless. */
void peer_in_close(struct peer_in *in) ON_LOOP;
/* Judges a greeting that waits for it; otherwise nothing. */
void peer_in_judge_again(struct peer_in *in) ON_LOOP;
/* Who it is; 0 before the greeting. */
uint64_t peer_in_from(const struct peer_in *in) ON_LOOP;
/* The handler's list. */
struct list *peer_in_link(struct peer_in *in);
struct peer_in *peer_in_of(struct list *link);

#endif
