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
    cns_payload_unref(k->record.members);
    k->record = (struct cns_snapshot){0};
}

uint64_t sim_disk_last(const struct sim_disk *k)
{
    return k->base + k->n;
}

const struct cns_item *sim_disk_entry(const struct sim_disk *k, uint64_t index)
{
    return index > k->base && index <= sim_disk_last(k) ? &k->entries[index - k->base - 1] : NULL;
}

static void set_record(struct sim_disk *k, const struct cns_snapshot *s)
{
    (void)cns_payload_ref(s->members);
    cns_payload_unref(k->record.members);
    k->record = *s;
}

static void drop_head(struct sim_disk *k, uint64_t first)
{
    unsigned old = (unsigned)(first - 1 - k->base);
    if (old == 0)
        return;
    CHECK(old <= k->n);
    k->base_term = k->entries[old - 1].term;
    k->base = first - 1;
    for (unsigned i = 0; i < old; i++)
        cns_payload_unref(k->entries[i].payload);
    for (unsigned i = old; i < k->n; i++)
        k->entries[i - old] = k->entries[i];
    k->n -= old;
}

void sim_disk_install(struct sim_member *m, const struct cns_snapshot *s)
{
    struct sim_disk *k = &m->disk;
    const struct cns_item *e = sim_disk_entry(k, s->index);
    uint64_t term = e != NULL ? e->term : s->index == k->base ? k->base_term : 0;
    CHECK(m->d == NULL && s->index >= k->base);
    if (s->term > k->term) { /* as if a message of that term had come */
        k->term = s->term;
        k->vote = 0;
    }
    set_record(k, s);
    if (term == s->term)
        return; /* what follows may be committed, and counted on us */
    while (k->n > 0)
        cns_payload_unref(k->entries[--k->n].payload);
    k->base = s->index;
    k->base_term = s->term;
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
    put(k, (struct cns_item){sim_disk_last(k) + 1, term, kind, payload});
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
        if (job->index != sim_disk_last(k) + 1)
            sim_fail(m->sim, "member %llu: append at %llu does not continue a log up to %llu",
                     (unsigned long long)m->id, (unsigned long long)job->index,
                     (unsigned long long)sim_disk_last(k));
        for (unsigned i = 0; i < n_items; i++) {
            CHECK(job->items[i].index == sim_disk_last(k) + 1 && job->items[i].term <= k->term);
            put(k, job->items[i]);
        }
        break;
    case CNS_DISK_TRUNCATE:
        if (sim_disk_entry(k, job->index) == NULL || job->index <= k->record.index)
            sim_fail(m->sim, "member %llu: truncates a log from %llu to %llu at %llu",
                     (unsigned long long)m->id, (unsigned long long)k->base + 1,
                     (unsigned long long)sim_disk_last(k), (unsigned long long)job->index);
        while (sim_disk_last(k) >= job->index)
            cns_payload_unref(k->entries[--k->n].payload);
        break;
    case CNS_DISK_CUT:
    default:
        UNREACHABLE("a cut is not in the queue");
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

/* The real one has a thread of its own for it: it may end long after later jobs. The record, and
 * then whole segments: some of the oldest entries. */
static void cut(struct sim_member *m, struct cns_disk_job *job, bool wholly)
{
    struct sim_disk *k = &m->disk;
    const struct cns_snapshot *s = job->snapshot;
    const struct cns_item *e = sim_disk_entry(k, s->index);
    if (s->index > sim_disk_last(k) || s->index < k->base || s->index > m->database ||
        (e == NULL ? k->base_term : e->term) != s->term)
        sim_fail(m->sim, "member %llu: cuts its log from %llu to %llu at %llu, durable is %llu",
                 (unsigned long long)m->id, (unsigned long long)k->base + 1,
                 (unsigned long long)sim_disk_last(k), (unsigned long long)s->index,
                 (unsigned long long)m->database);
    if (s->index >= k->record.index)
        set_record(k, s);
    if (wholly)
        drop_head(k, k->base + 1 + rng_below(sim_rng(m->sim), s->index - k->base + 1));
    job->index = k->base + 1;
}

void sim_disk_cut_event(struct sim_member *m)
{
    struct sim_disk *k = &m->disk;
    struct cns_disk_job *job = k->cut;
    if (k->held) {
        sim_post(m->sim, 5000, SIM_CUT, m->id, 0, 0, NULL);
        return;
    }
    k->cut = NULL;
    if (k->jobs >= k->fail_after) {
        job->done(job, err_fail(k->fail_with, "the virtual disk failed at a cut"));
        return;
    }
    cut(m, job, true);
    job->done(job, ERR_OK);
}

void sim_disk_submit(struct sim_member *m, struct cns_disk_job *job)
{
    if (job->kind == CNS_DISK_CUT) {
        CHECK(m->disk.cut == NULL);
        m->disk.cut = job;
        sim_post(m->sim, delay(m) * (1 + rng_below(sim_rng(m->sim), 20)), SIM_CUT, m->id, 0, 0,
                 NULL);
        return;
    }
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
    if (sim_disk_entry(k, want->index) == NULL)
        return;
    uint64_t bytes = 0;
    unsigned left = (unsigned)(sim_disk_last(k) - want->index + 1);
    if (left > want->max_items)
        left = want->max_items;
    r->items = mem_alloc(left * sizeof *r->items);
    for (unsigned i = 0; i < left; i++) {
        struct cns_item item = k->entries[want->index - k->base - 1 + i];
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
    if (k->cut != NULL && rng_once_in(sim_rng(m->sim), 2))
        cut(m, k->cut, rng_once_in(sim_rng(m->sim), 2));
    k->cut = NULL;
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
    m->holds++;
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
