/* Room: consensus. The peer protocol's fixed parts as bytes (docs/PROTOCOL.md): the greeting,
 * its answer, and the head of a frame. Pure. Thread: any. */
#ifndef CONSENSUS_PEER_WIRE_H
#define CONSENSUS_PEER_WIRE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define PEER_PROTOCOL_VERSION 2u
#define PEER_HELLO_BYTES      64u
#define PEER_ANSWER_BYTES     192u
#define PEER_FRAME_HEAD_BYTES 32u

/* What the dialling side says first. */
struct peer_hello {
    uint32_t version;
    uint64_t cluster_id;
    uint64_t from, to; /* ids: who dials, whom it means */
    uint64_t features; /* none yet: 0 */
    uint32_t frame_max;
    uint64_t incarnation; /* of the dialling node's log directory */
};
void peer_hello_encode(uint8_t out[PEER_HELLO_BYTES], const struct peer_hello *h);
/* ERR_PROTOCOL: not a hello. Any version is decoded: the answer says which one we speak. */
MUST_USE enum err peer_hello_decode(const uint8_t *p, struct peer_hello *h);

/* What a member is to those who know it. Numbers are part of the answer. */
enum peer_standing {
    PEER_STANDING_NONE = 0,       /* nothing is held against it */
    PEER_STANDING_LOST_FILES = 1, /* it was known with another incarnation */
    PEER_STANDING_REMOVED = 2     /* it was removed from the cluster */
};

/* What the other side answers; `code` ERR_OK: welcome, frames may come. */
struct peer_answer {
    uint32_t version;
    enum err code;
    enum peer_standing standing; /* of the dialling node; NONE unless `code` is ERR_CONFIG */
    uint64_t features;
    uint32_t frame_max;
    uint64_t incarnation; /* of the answering node's log directory */
    char reason[120];     /* a sentence, zero-terminated */
};
void peer_answer_encode(uint8_t out[PEER_ANSWER_BYTES], const struct peer_answer *a);
MUST_USE enum err peer_answer_decode(const uint8_t *p, struct peer_answer *a);

enum peer_frame_type {
    PEER_FRAME_RAFT = 1, /* head: message.h's; body: the payloads */
    PEER_FRAME_BYTES = 2 /* head: one byte, the type; body: the bytes */
};
struct peer_frame_head {
    enum peer_frame_type type;
    uint32_t head_n;   /* bytes of the message's head, right behind this */
    uint32_t body_n;   /* bytes behind that */
    uint64_t sequence; /* 1, 2, ... on each connection */
};
/* The checksum covers this head and the message's head (HEAD); the message's head has those of the
 * payloads. */
void peer_frame_encode(uint8_t out[PEER_FRAME_HEAD_BYTES], const struct peer_frame_head *f,
                       const uint8_t *head);
/* Checks the limits only: what the lengths are good for before the rest is there. ERR_PROTOCOL. */
MUST_USE enum err peer_frame_decode(const uint8_t *p, struct peer_frame_head *f);
/* P: the frame's head and the message's head behind it. ERR_PROTOCOL. */
MUST_USE enum err peer_frame_verify(const uint8_t *p, const struct peer_frame_head *f);

#endif
