/* Room: consensus. Our connection towards one peer: dials for as long as it lives, greets, and
 * writes frames from a bounded queue. Nothing is ever received on it but the answer to the
 * greeting. Thread: loop. */
#ifndef CONSENSUS_PEER_OUT_H
#define CONSENSUS_PEER_OUT_H

#include "base/list.h"
#include "base/thread.h"
#include "consensus/io.h"
#include "consensus/peer_wire.h"

struct peer_out;

struct peer_out_config {
    uv_loop_t *loop;
    uint64_t cluster_id, self, peer, incarnation; /* ours */
    void *ctx;
    void (*on_change)(void *ctx, uint64_t peer, bool up);
    /* Judges who answered our greeting: ERR_OK, or an error with its sentence. False: not yet,
     * peer_out_judge_again will come (the attempt's time runs on). */
    bool (*judge)(void *ctx, uint64_t peer, uint64_t incarnation, enum err *code);
    /* The peer holds against us what STANDING says. */
    void (*on_refused)(void *ctx, uint64_t peer, enum peer_standing standing);
};

/* Dials at once. ADDRESS is copied; ERR_CONFIG when it does not parse. */
MUST_USE enum err peer_out_open(const struct peer_out_config *c, const char *address,
                                struct peer_out **out) ON_LOOP;
/* Another address: what is queued is dropped, dials anew. ERR_CONFIG leaves all as it was. */
MUST_USE enum err peer_out_set_address(struct peer_out *o, const char *address) ON_LOOP;
/* Judges an answer that waits for it; otherwise nothing. */
void peer_out_judge_again(struct peer_out *o) ON_LOOP;
/* No more callbacks; CLOSED in the loop's time, then it is freed. */
void peer_out_close(struct peer_out *o, void (*closed)(void *ctx), void *ctx) ON_LOOP;

/* Queues a frame: HEAD, and behind it the payloads of ITEMS (references are taken) or the N bytes
 * at P (copied). False: dropped, because not connected or the queue is full. */
bool peer_out_send(struct peer_out *o, enum peer_frame_type type, const uint8_t *head,
                   size_t head_n, const struct cns_item *items, unsigned n_items, const uint8_t *p,
                   size_t n) ON_LOOP;
/* Writes what is queued, as far as the kernel takes it; the rest follows by itself. */
void peer_out_flush(struct peer_out *o) ON_LOOP;
/* Bytes queued; UINT64_MAX when not connected. */
uint64_t peer_out_queued(const struct peer_out *o) ON_LOOP;

#endif
