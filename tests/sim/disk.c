/* Room: tests. The virtual disk: first in, first out, durable only when an event says so.
 * Owns: the durable entries. It checks the driver's side of the contract in io.h. */
#include "base/check.h"
#include "base/mem.h"
#include "tests/sim/sim.h"

#include <stdlib.h>

void sim_disk_init(struct sim_disk *k)
{
    *k = (struct sim_disk){.fail_after = UINT64_MAX};
    list_init(&k->queue);
}

void sim_disk_fini(struct sim_disk *k)
{
    cns_items_free(k->entries, k->n);
    k->entries = NULL;
    k->n = k->cap = 0;
}

static void put(struct sim_disk *k, struct cns_item item)
{
    if (k->n == k->cap) {
        k->cap = k->cap == 0 ? 64 : k->cap * 2;
        k->entries = mem_realloc(k->entries, k->cap * sizeof *k->entries);
    }
    if (item.payload != NULL)
        (void)cns_payload_ref(item.payload);
    k->entries[k->n++] = item;
}

void sim_disk_put(struct sim *s, uint64_t id, uint64_t term, enum cns_kind kind,
                  struct cns_payload *payload)
{
    struct sim_disk *k = &sim_member(s, id)->disk;
    put(k, (struct cns_item){k->n + 1, term, kind, payload});
}

static void apply(struct sim_member *m, const struct cns_disk_job *job, unsigned n_items)
{
    struct sim_disk *k = &m->disk;
    switch (job->kind) {
    case CNS_DISK_META:
        if (job->term < k->term)
            sim_fail(m->sim, "member %llu: term falls from %llu to %llu", (unsigned long long)m->id,
                     (unsigned long long)k->term, (unsigned long long)job->term);
        if (job->term == k->term && k->vote != 0 && job->vote != k->vote)
            sim_fail(m->sim, "member %llu votes twice in term %llu", (unsigned long long)m->id,
                     (unsigned long long)job->term);
        k->term = job->term;
        k->vote = job->vote;
        break;
    case CNS_DISK_APPEND:
        if (job->index != k->n + 1)
            sim_fail(m->sim, "member %llu: append at %llu does not continue a log of %u",
                     (unsigned long long)m->id, (unsigned long long)job->index, k->n);
        for (unsigned i = 0; i < n_items; i++) {
            CHECK(job->items[i].index == k->n + 1 && job->items[i].term <= k->term);
            put(k, job->items[i]);
        }
        break;
    case CNS_DISK_TRUNCATE:
        if (job->index == 0 || job->index > k->n)
            sim_fail(m->sim, "member %llu: truncates a log of %u at %llu",
                     (unsigned long long)m->id, k->n, (unsigned long long)job->index);
        while (k->n >= job->index)
            cns_payload_unref(k->entries[--k->n].payload);
        break;
    }
}

static uint64_t delay(struct sim_member *m)
{
    const struct sim_options *o = sim_opts(m->sim);
    return o->disk_us_min + rng_below(sim_rng(m->sim), o->disk_us_max - o->disk_us_min + 1) +
           m->disk.extra_us;
}

static void schedule(struct sim_member *m)
{
    struct sim_disk *k = &m->disk;
    if (k->scheduled || k->held || list_empty(&k->queue))
        return;
    k->scheduled = true;
    sim_post(m->sim, delay(m), SIM_DISK, m->id, 0, 0, NULL);
}

void sim_disk_submit(struct sim_member *m, struct cns_disk_job *job)
{
    CHECK(job->kind != CNS_DISK_APPEND || job->n_items > 0);
    list_push_back(&m->disk.queue, &job->link);
    schedule(m);
}

void sim_disk_event(struct sim_member *m)
{
    struct sim_disk *k = &m->disk;
    k->scheduled = false;
    if (k->held)
        return;
    /* Group commit: what waits is synced together; completions come one by one. */
    struct list batch;
    list_init(&batch);
    list_splice(&batch, &k->queue);
    struct list *l;
    uint64_t life = m->life;
    while (m->d != NULL && m->life == life && (l = list_pop_front(&batch)) != NULL) {
        struct cns_disk_job *job = LIST_ENTRY(l, struct cns_disk_job, link);
        enum err e = k->jobs >= k->fail_after ? k->fail_with : ERR_OK;
        if (e == ERR_OK) {
            k->jobs++;
            k->metas += job->kind == CNS_DISK_META;
            k->appends += job->kind == CNS_DISK_APPEND;
            k->truncates += job->kind == CNS_DISK_TRUNCATE;
            apply(m, job, job->n_items);
        } else {
            (void)err_fail(e, "the virtual disk of member %llu failed", (unsigned long long)m->id);
        }
        job->done(job, e);
    }
    schedule(m);
}

/* A read that is under way: what it found, until the member hears of it. */
struct sim_read {
    struct cns_disk_read *read;
    bool looked;
    struct cns_item *items;
    unsigned n;
};

/* The real one runs on a thread of its own: jobs (a truncation, too) may end between its look at
 * the files and its answer. */
void sim_disk_submit_read(struct sim_member *m, struct cns_disk_read *read)
{
    CHECK(read->index > 0 && read->max_items > 0);
    m->disk.reads++;
    struct sim_read *r = MEM_NEW(struct sim_read);
    r->read = read;
    sim_post(m->sim, delay(m) / 2 + 1, SIM_READ, m->id, 0, 0, r);
}

void sim_disk_read_drop(void *read)
{
    struct sim_read *r = read;
    cns_items_free(r->items, r->n);
    free(r);
}

static void look(const struct sim_disk *k, struct sim_read *r)
{
    const struct cns_disk_read *want = r->read;
    r->looked = true;
    if (want->index > k->n)
        return;
    uint64_t bytes = 0;
    unsigned left = k->n - (unsigned)want->index + 1;
    if (left > want->max_items)
        left = want->max_items;
    r->items = mem_alloc(left * sizeof *r->items);
    for (unsigned i = 0; i < left; i++) {
        struct cns_item item = k->entries[want->index - 1 + i];
        uint64_t len = item.payload == NULL ? 0 : item.payload->len;
        if (i > 0 && bytes + len > want->max_bytes)
            break;
        bytes += len;
        if (item.payload != NULL)
            (void)cns_payload_ref(item.payload);
        r->items[r->n++] = item;
    }
}

void sim_disk_read_event(struct sim_member *m, void *read)
{
    struct sim_read *r = read;
    if (!r->looked) {
        look(&m->disk, r);
        sim_post(m->sim, delay(m) / 2 + 1, SIM_READ, m->id, 0, 0, r);
        return;
    }
    struct cns_disk_read *want = r->read;
    want->items = r->items;
    want->n_items = r->n;
    free(r);
    want->done(want, want->n_items > 0
                         ? ERR_OK
                         : err_fail(ERR_NOT_FOUND, "entry %llu is not in the virtual log",
                                    (unsigned long long)want->index));
}

void sim_disk_crash(struct sim_member *m, unsigned jobs, unsigned part)
{
    struct sim_disk *k = &m->disk;
    struct list *l;
    while ((l = list_pop_front(&k->queue)) != NULL) {
        struct cns_disk_job *job = LIST_ENTRY(l, struct cns_disk_job, link);
        if (jobs > 0) {
            jobs--;
            apply(m, job, job->n_items);
        } else {
            if (part > 0 && job->kind == CNS_DISK_APPEND)
                apply(m, job, part < job->n_items ? part : job->n_items);
            break;
        }
    }
    while (list_pop_front(&k->queue) != NULL)
        ;
    k->scheduled = false;
    k->held = false;
    k->extra_us = 0;
    k->fail_after = UINT64_MAX;
}

void sim_disk_hold(struct sim *s, uint64_t id, bool on)
{
    struct sim_member *m = sim_member(s, id);
    m->disk.held = on;
    schedule(m);
}

void sim_disk_slow(struct sim *s, uint64_t id, uint64_t extra_us)
{
    sim_member(s, id)->disk.extra_us = extra_us;
}

void sim_disk_fail(struct sim *s, uint64_t id, uint64_t after_jobs, enum err e)
{
    struct sim_disk *k = &sim_member(s, id)->disk;
    k->fail_after = k->jobs + after_jobs;
    k->fail_with = e;
}
