/* Room: consensus. Frames that wait to be written to one peer: heads and small payloads copied,
 * large payloads by reference; handed out as pieces for writev, taken off by bytes written.
 * Thread: loop. */
#ifndef CONSENSUS_PEER_QUEUE_H
#define CONSENSUS_PEER_QUEUE_H

#include "base/list.h"
#include "consensus/io.h"
#include "consensus/peer_wire.h"

/* Pieces of one write: enough for a batch of entries, small enough for the stack. */
#define PEER_QUEUE_PIECES 128u

struct peer_queue {
    struct list frames;
    size_t skip;       /* bytes of the first frame that are written */
    uint64_t bytes;    /* that are not written */
    uint64_t sequence; /* of the last frame put */
};

void peer_queue_init(struct peer_queue *q);
/* Drops all; the next frame is number 1 again. */
void peer_queue_clear(struct peer_queue *q);

/* Puts a frame: HEAD, and behind it the payloads of ITEMS or the N bytes at P. False: it would be
 * over a frame's or the queue's limit, and nothing was put. */
bool peer_queue_put(struct peer_queue *q, enum peer_frame_type type, const uint8_t *head,
                    size_t head_n, const struct cns_item *items, unsigned n_items, const uint8_t *p,
                    size_t n);
/* The front as pieces, valid until taken; *bytes: how many they are together. */
unsigned peer_queue_pieces(const struct peer_queue *q, uv_buf_t bufs[PEER_QUEUE_PIECES],
                           size_t *bytes);
/* N bytes of the front have been written. */
void peer_queue_written(struct peer_queue *q, size_t n);

#endif
