/* Room: consensus. Thread: loop.
 * Owns: the frames, one reference of each payload that they point to.
 * Invariants: `bytes` is what the frames hold beyond `skip`, at most PEER_QUEUE_BYTES_MAX; sequence
 *             numbers have no gap: a frame that is refused takes none.
 * Not here: sockets (peer_out.c), what a head says (message.c). */
#include "consensus/peer_queue.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

/* Payloads up to this, together, are copied behind the head: one piece is cheaper than many. */
#define INLINE_BYTES KIB(4)

struct frame {
    struct list link;
    size_t bytes;    /* all of it on the wire */
    size_t inline_n; /* of them in inline_bytes: heads, small payloads */
    unsigned n_payloads;
    struct cns_payload **payloads; /* behind the inline bytes, one reference each */
    uint8_t inline_bytes[];
};

static void frame_free(struct frame *f)
{
    for (unsigned i = 0; i < f->n_payloads; i++)
        cns_payload_unref(f->payloads[i]);
    free(f->payloads);
    free(f);
}

static uint64_t payload_bytes(const struct cns_item *items, unsigned n)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++)
        sum += items[i].payload == NULL ? 0 : items[i].payload->len;
    return sum;
}

static void reference_payloads(struct frame *f, const struct cns_item *items, unsigned n)
{
    f->payloads = mem_alloc(n * sizeof(struct cns_payload *));
    for (unsigned i = 0; i < n; i++)
        if (items[i].payload != NULL && items[i].payload->len > 0)
            f->payloads[f->n_payloads++] = cns_payload_ref(items[i].payload);
}

static void copy_payloads(uint8_t *to, const struct cns_item *items, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        size_t len = items[i].payload == NULL ? 0 : items[i].payload->len;
        if (len > 0)
            memcpy(to, items[i].payload->data, len);
        to += len;
    }
}

static struct frame *frame_new(const struct peer_frame_head *h, const uint8_t *head,
                               const struct cns_item *items, unsigned n_items, const uint8_t *p)
{
    bool copied = n_items == 0 || h->body_n <= INLINE_BYTES;
    size_t inline_n = PEER_FRAME_HEAD_BYTES + (size_t)h->head_n + (copied ? h->body_n : 0);
    struct frame *f = mem_alloc(sizeof *f + inline_n);
    *f = (struct frame){.bytes = PEER_FRAME_HEAD_BYTES + (size_t)h->head_n + h->body_n,
                        .inline_n = inline_n};
    uint8_t *to = f->inline_bytes;
    peer_frame_encode(to, h, head);
    memcpy(to + PEER_FRAME_HEAD_BYTES, head, h->head_n);
    to += PEER_FRAME_HEAD_BYTES + h->head_n;
    if (!copied)
        reference_payloads(f, items, n_items);
    else if (n_items > 0)
        copy_payloads(to, items, n_items);
    else if (h->body_n > 0)
        memcpy(to, p, h->body_n);
    list_init(&f->link);
    return f;
}

void peer_queue_init(struct peer_queue *q)
{
    *q = (struct peer_queue){.skip = 0};
    list_init(&q->frames);
}

void peer_queue_clear(struct peer_queue *q)
{
    for (struct list *it; (it = list_pop_front(&q->frames)) != NULL;)
        frame_free(LIST_ENTRY(it, struct frame, link));
    peer_queue_init(q);
}

bool peer_queue_put(struct peer_queue *q, enum peer_frame_type type, const uint8_t *head,
                    size_t head_n, const struct cns_item *items, unsigned n_items, const uint8_t *p,
                    size_t n)
{
    CHECK(n_items == 0 || n == 0);
    uint64_t body_n = n + payload_bytes(items, n_items);
    uint64_t bytes = PEER_FRAME_HEAD_BYTES + head_n + body_n;
    if (bytes > PEER_FRAME_MAX || q->bytes + bytes > PEER_QUEUE_BYTES_MAX)
        return false;
    struct peer_frame_head h = {
        .type = type,
        .head_n = (uint32_t)head_n,
        .body_n = (uint32_t)body_n,
        .sequence = ++q->sequence,
    };
    struct frame *f = frame_new(&h, head, items, n_items, p);
    list_push_back(&q->frames, &f->link);
    q->bytes += bytes;
    return true;
}

/* Adds the pieces of F from SKIP on to BUFS; returns how many there are now. */
static unsigned frame_pieces(const struct frame *f, size_t skip, uv_buf_t *bufs, unsigned n)
{
    for (unsigned i = 0; i <= f->n_payloads && n < PEER_QUEUE_PIECES; i++) {
        const uint8_t *p = i == 0 ? f->inline_bytes : f->payloads[i - 1]->data;
        size_t len = i == 0 ? f->inline_n : f->payloads[i - 1]->len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        /* libuv's type serves reading too, and is not const; writing only looks. */
        union {
            const uint8_t *from;
            char *to;
        } piece = {.from = p + skip};
        bufs[n++] = uv_buf_init(piece.to, (unsigned)(len - skip));
        skip = 0;
    }
    return n;
}

unsigned peer_queue_pieces(const struct peer_queue *q, uv_buf_t bufs[PEER_QUEUE_PIECES],
                           size_t *bytes)
{
    unsigned n = 0;
    size_t skip = q->skip;
    for (struct list *it = q->frames.next; it != &q->frames && n < PEER_QUEUE_PIECES;
         it = it->next) {
        n = frame_pieces(LIST_ENTRY(it, struct frame, link), skip, bufs, n);
        skip = 0;
    }
    *bytes = 0;
    for (unsigned i = 0; i < n; i++)
        *bytes += bufs[i].len;
    return n;
}

void peer_queue_written(struct peer_queue *q, size_t n)
{
    CHECK(n <= q->bytes);
    q->bytes -= n;
    q->skip += n;
    while (!list_empty(&q->frames)) {
        struct frame *f = LIST_ENTRY(q->frames.next, struct frame, link);
        if (q->skip < f->bytes)
            break;
        q->skip -= f->bytes;
        list_remove(&f->link);
        frame_free(f);
    }
    CHECK(!list_empty(&q->frames) || (q->skip == 0 && q->bytes == 0));
}
