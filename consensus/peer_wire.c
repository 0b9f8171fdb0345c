/* Room: consensus. Thread: any. Owns: nothing.
 * Invariants: what is decoded is within its limits.
 * Not here: messages (message.c), connections (peer_in.c, peer_out.c). */
#include "consensus/peer_wire.h"

#include "base/buf.h"
#include "base/hash.h"
#include "base/sizes.h"
#include "consensus/message.h"

#include <string.h>

#define HELLO_MAGIC  "LecPeer?"
#define ANSWER_MAGIC "LecPeer!"
#define FRAME_MAGIC  0x4d46u /* "FM" */

_Static_assert(CNS_MESSAGE_HEAD_MAX + APPEND_BYTES_MAX < PEER_FRAME_MAX, "a full message fits");

void peer_hello_encode(uint8_t out[PEER_HELLO_BYTES], const struct peer_hello *h)
{
    memset(out, 0, PEER_HELLO_BYTES);
    memcpy(out, HELLO_MAGIC, 8);
    set_le32(out + 8, h->version);
    set_le32(out + 12, h->frame_max);
    set_le64(out + 16, h->cluster_id);
    set_le64(out + 24, h->from);
    set_le64(out + 32, h->to);
    set_le64(out + 40, h->features);
    set_le64(out + 48, h->incarnation);
    set_le64(out + 56, hash64(out, 56, 0));
}

enum err peer_hello_decode(const uint8_t *p, struct peer_hello *h)
{
    if (memcmp(p, HELLO_MAGIC, 8) != 0)
        return err_fail(ERR_PROTOCOL, "this port is for the peers of a Lectern cluster");
    if (hash64(p, 56, 0) != get_le64(p + 56))
        return err_fail(ERR_PROTOCOL, "a greeting that fails its checksum");
    *h = (struct peer_hello){
        .version = get_le32(p + 8),
        .frame_max = get_le32(p + 12),
        .cluster_id = get_le64(p + 16),
        .from = get_le64(p + 24),
        .to = get_le64(p + 32),
        .features = get_le64(p + 40),
        .incarnation = get_le64(p + 48),
    };
    return ERR_OK;
}

void peer_answer_encode(uint8_t out[PEER_ANSWER_BYTES], const struct peer_answer *a)
{
    memset(out, 0, PEER_ANSWER_BYTES);
    memcpy(out, ANSWER_MAGIC, 8);
    set_le32(out + 8, a->version);
    set_le32(out + 12, a->frame_max);
    set_le32(out + 16, (uint32_t)a->code);
    set_le32(out + 20, (uint32_t)a->standing);
    set_le64(out + 24, a->features);
    memcpy(out + 32, a->reason, strnlen(a->reason, sizeof a->reason - 1));
    set_le64(out + 152, a->incarnation);
    set_le64(out + 184, hash64(out, 184, 0));
}

enum err peer_answer_decode(const uint8_t *p, struct peer_answer *a)
{
    uint32_t standing = get_le32(p + 20);
    if (memcmp(p, ANSWER_MAGIC, 8) != 0 || hash64(p, 184, 0) != get_le64(p + 184))
        return err_fail(ERR_PROTOCOL, "what answers there is not a Lectern peer");
    *a = (struct peer_answer){
        .version = get_le32(p + 8),
        .frame_max = get_le32(p + 12),
        .code = err_from_wire(get_le32(p + 16)),
        .features = get_le64(p + 24),
        .incarnation = get_le64(p + 152),
    };
    /* A number of a later version counts as a refusal like any other. */
    if (a->code == ERR_CONFIG &&
        (standing == PEER_STANDING_LOST_FILES || standing == PEER_STANDING_REMOVED))
        a->standing = (enum peer_standing)standing;
    memcpy(a->reason, p + 32, sizeof a->reason - 1);
    for (char *c = a->reason; *c != 0; c++) /* it will be logged */
        if (*c < ' ' || *c > '~' || *c == '"')
            *c = '.';
    return ERR_OK;
}

/* All of the head but the checksum, then the message's head. */
static uint64_t frame_hash(const uint8_t *p, const uint8_t *head, size_t n)
{
    return hash64(head, n, hash64(p, PEER_FRAME_HEAD_BYTES - 8, 0));
}

void peer_frame_encode(uint8_t out[PEER_FRAME_HEAD_BYTES], const struct peer_frame_head *f,
                       const uint8_t *head)
{
    set_le16(out, FRAME_MAGIC);
    set_le16(out + 2, (uint16_t)f->type);
    set_le32(out + 4, f->head_n);
    set_le32(out + 8, f->body_n);
    set_le32(out + 12, 0);
    set_le64(out + 16, f->sequence);
    set_le64(out + 24, frame_hash(out, head, f->head_n));
}

enum err peer_frame_decode(const uint8_t *p, struct peer_frame_head *f)
{
    uint16_t type = get_le16(p + 2);
    uint32_t head_n = get_le32(p + 4), body_n = get_le32(p + 8);
    if (get_le16(p) != FRAME_MAGIC || get_le32(p + 12) != 0)
        return err_fail(ERR_PROTOCOL, "a frame that does not begin like one");
    if (type != PEER_FRAME_RAFT && type != PEER_FRAME_BYTES)
        return err_fail(ERR_PROTOCOL, "a frame of unknown type %u", type);
    if (head_n == 0 || head_n > CNS_MESSAGE_HEAD_MAX ||
        body_n > PEER_FRAME_MAX - PEER_FRAME_HEAD_BYTES - head_n)
        return err_fail(ERR_PROTOCOL, "a frame of %u and %u bytes, over the limit", head_n, body_n);
    *f = (struct peer_frame_head){
        .type = (enum peer_frame_type)type,
        .head_n = head_n,
        .body_n = body_n,
        .sequence = get_le64(p + 16),
    };
    return ERR_OK;
}

enum err peer_frame_verify(const uint8_t *p, const struct peer_frame_head *f)
{
    if (frame_hash(p, p + PEER_FRAME_HEAD_BYTES, f->head_n) != get_le64(p + 24))
        return err_fail(ERR_PROTOCOL, "a frame that fails its checksum");
    return ERR_OK;
}
