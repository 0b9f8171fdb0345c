/* Room: consensus. Thread: loop. Owns: every job until it comes back.
 *
 * Invariants:
 *   1. submitted <= terms->last; the disk's queue is first in, first out, so a job always continues
 *      the log that the jobs before it leave behind.
 *   2. A truncation moves the generation; the completion of an append of an older one is void:
 *      reported to the core it would acknowledge entries that are gone (LIBRAFT.md, section 3).
 *      What such an append kept is covered by the completion of the append that replaced the rest:
 *      the core truncates only to append.
 *   3. After the first failed job nothing is reported any more.
 *
 * Not here: what the log is on the disk (log.c). */
#include "consensus/journal.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/trace.h"

#include <stdlib.h>

/* Entries of one APPEND job. */
#define JOB_ITEMS_MAX 1024u

struct job {
    struct cns_disk_job job;
    struct list mine;
    struct journal *j;
    uint64_t bytes;
    struct cns_snapshot *snapshot; /* CUT */
    struct cns_item items[];
};

struct journal {
    struct journal_config c;
    struct list jobs;
    uint64_t submitted, generation, bytes;
    uint64_t term, vote; /* of the last record handed to the disk */
    bool mute, cutting;
};

struct journal *journal_new(const struct journal_config *c)
{
    struct journal *j = MEM_NEW(struct journal);
    j->c = *c;
    list_init(&j->jobs);
    return j;
}

static void job_free(struct job *job)
{
    list_remove(&job->mine);
    for (unsigned i = 0; i < job->job.n_items; i++)
        cns_payload_unref(job->items[i].payload);
    if (job->snapshot != NULL)
        cns_payload_unref(job->snapshot->members);
    free(job->snapshot);
    free(job);
}

void journal_free(struct journal *j)
{
    if (j == NULL)
        return;
    LIST_EACH(l, &j->jobs)
        job_free(LIST_ENTRY(l, struct job, mine));
    free(j);
}

void journal_start(struct journal *j, uint64_t term, uint64_t vote)
{
    j->submitted = j->c.terms->last;
    j->term = term;
    j->vote = vote;
}

void journal_stop(struct journal *j)
{
    j->mute = true;
}

uint64_t journal_pending_bytes(const struct journal *j)
{
    return j->bytes;
}

uint64_t journal_item_cost(const struct cns_payload *p)
{
    return CACHE_ITEM_OVERHEAD + (p == NULL ? 0 : p->len);
}

static void append_done(struct journal *j, const struct job *job)
{
    CHECK(j->bytes >= job->bytes);
    j->bytes -= job->bytes;
    if (job->job.generation != j->generation)
        return; /* invariant 2 */
    uint64_t last = job->job.index + job->job.n_items - 1;
    CHECK(last <= j->submitted && j->submitted <= j->c.terms->last);
    j->c.stored(j->c.ctx, last);
}

static void job_done(struct cns_disk_job *disk_job, enum err e)
{
    struct job *job = LIST_ENTRY(disk_job, struct job, job);
    struct journal *j = job->j;
    if (disk_job->kind == CNS_DISK_CUT)
        j->cutting = false;
    if (!j->mute && e != ERR_OK) {
        j->mute = true; /* invariant 3 */
        j->c.failed(j->c.ctx, e);
    } else if (!j->mute) {
        if (disk_job->kind == CNS_DISK_META)
            outbox_release(j->c.outbox);
        else if (disk_job->kind == CNS_DISK_APPEND)
            append_done(j, job);
        else if (disk_job->kind == CNS_DISK_CUT)
            j->c.cut(j->c.ctx, job->snapshot, disk_job->index);
        j->c.dirty(j->c.ctx);
    }
    job_free(job);
}

static struct job *job_new(struct journal *j, enum cns_disk_kind kind, uint64_t index, unsigned n)
{
    struct job *job = mem_zalloc(sizeof *job + n * sizeof job->items[0]);
    job->j = j;
    job->job.kind = kind;
    job->job.index = index;
    job->job.items = job->items;
    job->job.n_items = n;
    job->job.generation = j->generation;
    job->job.done = job_done;
    list_push_back(&j->jobs, &job->mine);
    return job;
}

static void submit(struct journal *j, struct job *job)
{
    j->c.io->disk(j->c.io->ctx, &job->job);
}

void journal_meta(struct journal *j, uint64_t term, uint64_t vote)
{
    if (term == j->term && vote == j->vote)
        return; /* the same record is durable, or on its way and the outbox holds */
    j->term = term;
    j->vote = vote;
    struct job *job = job_new(j, CNS_DISK_META, 0, 0);
    job->job.term = term;
    job->job.vote = vote;
    outbox_hold(j->c.outbox);
    submit(j, job);
}

void journal_cut(struct journal *j, const struct cns_snapshot *s, uint64_t keep_bytes)
{
    CHECK(!j->cutting && s->index >= j->c.terms->first - 1 && s->index <= j->submitted);
    struct job *job = job_new(j, CNS_DISK_CUT, 0, 0);
    job->snapshot = mem_alloc(sizeof *s);
    *job->snapshot = *s;
    job->job.snapshot = job->snapshot;
    job->job.keep_bytes = keep_bytes;
    j->cutting = true;
    submit(j, job);
}

bool journal_is_cutting(const struct journal *j)
{
    return j->cutting;
}

void journal_append(struct journal *j, struct cns_item item)
{
    CHECK(item.index == j->c.terms->last + 1);
    terms_append(j->c.terms, item.term);
    cache_push(j->c.cache, item);
    j->bytes += journal_item_cost(item.payload);
}

void journal_truncate(struct journal *j, uint64_t index)
{
    trace("truncate", index, j->c.terms->last);
    for (uint64_t i = j->c.terms->last; i >= index && i > j->submitted; i--)
        j->bytes -= journal_item_cost(cache_get(j->c.cache, i)->payload);
    terms_truncate(j->c.terms, index);
    cache_truncate(j->c.cache, index);
    j->generation++;
    if (j->submitted < index)
        return;
    j->submitted = index - 1;
    submit(j, job_new(j, CNS_DISK_TRUNCATE, index, 0));
}

void journal_flush(struct journal *j)
{
    while (!j->mute && j->submitted < j->c.terms->last) {
        uint64_t left = j->c.terms->last - j->submitted;
        unsigned n = left > JOB_ITEMS_MAX ? JOB_ITEMS_MAX : (unsigned)left;
        struct job *job = job_new(j, CNS_DISK_APPEND, j->submitted + 1, n);
        for (unsigned i = 0; i < n; i++) {
            const struct cns_item *item = cache_get(j->c.cache, j->submitted + 1 + i);
            CHECK(item != NULL); /* only stored entries are evicted */
            job->items[i] = *item;
            if (item->payload != NULL)
                (void)cns_payload_ref(item->payload);
            job->bytes += journal_item_cost(item->payload);
        }
        j->submitted += n;
        submit(j, job);
    }
}
