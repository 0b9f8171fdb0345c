/* Room: consensus. Thread: loop. Owns: the read that is under way, and what it brought.
 *
 * Invariants: `delivered` rises by one for each on_entry; `bytes` is the sum of the payloads that
 * are delivered and not reported, and no entry is delivered while it is above INFLIGHT_BYTES_MAX.
 *
 * The floor may lie above everything that the log knows (a log restored from an older copy); then
 * nothing happens until the commit index has passed it. */
#include "consensus/delivery.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>

/* One read for delivery: a few entries ahead, not a second cache. */
#define READ_BYTES MIB(1)
#define READ_ITEMS 1024u

struct debt {
    uint64_t index, bytes;
};

struct delivery {
    struct delivery_config c;
    uint64_t delivered, applied;
    struct debt *debts; /* delivered, not reported, with bytes; a ring, cap is a power of two */
    size_t cap, head, n;
    uint64_t bytes;
    bool stopped, running, reading;
    struct cns_disk_read read;
    struct cns_item *items; /* read, not delivered yet: from items[pos] on */
    unsigned n_items, pos;
};

struct delivery *delivery_new(const struct delivery_config *c, uint64_t floor)
{
    struct delivery *d = MEM_NEW(struct delivery);
    d->c = *c;
    d->delivered = d->applied = floor;
    return d;
}

void delivery_free(struct delivery *d)
{
    if (d == NULL)
        return;
    cns_items_free(d->items, d->n_items);
    free(d->debts);
    free(d);
}

void delivery_stop(struct delivery *d)
{
    d->stopped = true;
}

uint64_t delivery_applied_index(const struct delivery *d)
{
    return d->applied;
}

void delivery_applied(struct delivery *d, uint64_t index)
{
    CHECK(index <= d->delivered);
    if (index <= d->applied)
        return;
    d->applied = index;
    while (d->n > 0 && d->debts[d->head].index <= index) {
        d->bytes -= d->debts[d->head].bytes;
        d->head = (d->head + 1) & (d->cap - 1);
        d->n--;
    }
    d->c.dirty(d->c.ctx);
}

static void owe(struct delivery *d, uint64_t index, uint64_t bytes)
{
    if (d->n == d->cap) {
        size_t cap = d->cap == 0 ? 64 : d->cap * 2;
        struct debt *debts = mem_alloc(cap * sizeof *debts);
        for (size_t i = 0; i < d->n; i++)
            debts[i] = d->debts[(d->head + i) & (d->cap - 1)];
        free(d->debts);
        d->debts = debts;
        d->cap = cap;
        d->head = 0;
    }
    d->debts[(d->head + d->n++) & (d->cap - 1)] = (struct debt){index, bytes};
    d->bytes += bytes;
}

static void read_done(struct cns_disk_read *read, enum err e)
{
    struct delivery *d = read->ctx;
    d->reading = false;
    if (e != ERR_OK) {
        d->c.read_failed(d->c.ctx, e);
        return;
    }
    CHECK(d->items == NULL && read->n_items > 0 && read->n_items <= read->max_items);
    for (unsigned i = 0; i < read->n_items; i++) {
        const struct cns_item *item = &read->items[i];
        if (item->index == read->index + i && item->term == terms_at(d->c.terms, item->index))
            continue;
        cns_items_free(read->items, read->n_items);
        d->c.read_failed(d->c.ctx, err_fail(ERR_CORRUPT, "the disk has another entry %llu",
                                            (unsigned long long)read->index + i));
        return;
    }
    d->items = read->items;
    d->n_items = read->n_items;
    d->pos = 0;
    d->c.dirty(d->c.ctx);
}

/* Never beyond the commit index (what is read ahead could be truncated before it is delivered), and
 * never what the cache holds (the disk may still have the entry that it replaces). */
static void start_read(struct delivery *d, uint64_t commit)
{
    if (d->reading)
        return;
    uint64_t cached = cache_first(d->c.cache);
    uint64_t last = cached > 0 && cached <= commit ? cached - 1 : commit;
    CHECK(last > d->delivered);
    uint64_t n = last - d->delivered;
    d->reading = true;
    d->read = (struct cns_disk_read){.index = d->delivered + 1,
                                     .max_bytes = READ_BYTES,
                                     .max_items = n < READ_ITEMS ? (unsigned)n : READ_ITEMS,
                                     .ctx = d,
                                     .done = read_done};
    d->c.io->disk_read(d->c.io->ctx, &d->read);
}

/* The next entry to deliver with a reference, or false: not at hand yet. */
static bool take(struct delivery *d, uint64_t commit, struct cns_item *out)
{
    uint64_t index = d->delivered + 1;
    if (d->items != NULL && d->pos == d->n_items) {
        cns_items_free(d->items, d->n_items);
        d->items = NULL;
        d->n_items = 0;
    }
    if (d->items != NULL) {
        CHECK(d->items[d->pos].index == index);
        *out = d->items[d->pos];
        d->items[d->pos++].payload = NULL;
        return true;
    }
    const struct cns_item *item = cache_get(d->c.cache, index);
    if (item == NULL) {
        start_read(d, commit);
        return false;
    }
    *out = *item;
    if (out->payload != NULL)
        (void)cns_payload_ref(out->payload);
    return true;
}

void delivery_run(struct delivery *d, uint64_t commit)
{
    if (d->running)
        return;
    d->running = true;
    struct cns_item item;
    while (!d->stopped && d->delivered < commit && d->bytes <= INFLIGHT_BYTES_MAX &&
           take(d, commit, &item)) {
        d->delivered = item.index;
        bool command = item.kind == CNS_COMMAND;
        if (command)
            owe(d, item.index, item.payload->len);
        struct cns_entry e = {item.index, item.term, item.kind, command ? item.payload : NULL};
        d->c.handler.on_entry(d->c.handler.ctx, &e);
        cns_payload_unref(item.payload);
    }
    d->running = false;
}
