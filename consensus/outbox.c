/* Room: consensus. Thread: loop. Owns: the held messages.
 * Invariants: durable <= issued; whatever is held waits for a record that is not durable; messages
 * leave in the order in which they came. */
#include "consensus/outbox.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct held {
    struct list link;
    uint64_t after; /* leaves when so many records are durable */
    bool is_bytes;
    struct raft_message m;
    uint64_t to;
    uint8_t type;
    size_t n;
    uint8_t bytes[];
};

void outbox_init(struct outbox *o, const struct cns_io *io)
{
    *o = (struct outbox){.io = io};
    list_init(&o->held);
}

void outbox_clear(struct outbox *o)
{
    struct list *l;
    while ((l = list_pop_front(&o->held)) != NULL)
        free(LIST_ENTRY(l, struct held, link));
    o->n_held = 0;
    o->held_bytes = 0;
}

void outbox_fini(struct outbox *o)
{
    outbox_clear(o);
}

bool outbox_is_open(const struct outbox *o)
{
    return o->issued == o->durable;
}

static struct held *hold(struct outbox *o, size_t n)
{
    if (o->n_held >= OUTBOX_HELD_MAX || o->held_bytes + n > OUTBOX_HELD_BYTES_MAX)
        return NULL;
    struct held *h = mem_zalloc(sizeof *h + n);
    h->after = o->issued;
    h->n = n;
    list_push_back(&o->held, &h->link);
    o->n_held++;
    o->held_bytes += n;
    return h;
}

void outbox_send(struct outbox *o, const struct raft_message *m)
{
    CHECK(m->type != RAFT_APPEND_ENTRIES && m->type != RAFT_INSTALL_SNAPSHOT);
    if (outbox_is_open(o)) {
        o->io->send(o->io->ctx, m->server_id, m, NULL, 0);
        return;
    }
    struct held *h = hold(o, 0);
    if (h == NULL)
        return;
    h->m = *m;
    h->m.server_address = ""; /* the core's own may be freed by the next step */
}

void outbox_send_bytes(struct outbox *o, uint64_t to, uint8_t type, const uint8_t *p, size_t n)
{
    if (outbox_is_open(o)) {
        o->io->send_bytes(o->io->ctx, to, type, p, n);
        return;
    }
    struct held *h = hold(o, n);
    if (h == NULL)
        return;
    h->is_bytes = true;
    h->to = to;
    h->type = type;
    if (n > 0)
        memcpy(h->bytes, p, n);
}

void outbox_hold(struct outbox *o)
{
    o->issued++;
}

void outbox_release(struct outbox *o)
{
    CHECK(o->durable < o->issued);
    o->durable++;
    LIST_EACH(l, &o->held) {
        struct held *h = LIST_ENTRY(l, struct held, link);
        if (h->after > o->durable)
            break;
        list_remove(l);
        o->n_held--;
        o->held_bytes -= h->n;
        if (h->is_bytes)
            o->io->send_bytes(o->io->ctx, h->to, h->type, h->bytes, h->n);
        else
            o->io->send(o->io->ctx, h->m.server_id, &h->m, NULL, 0);
        free(h);
    }
}
