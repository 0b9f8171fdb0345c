/* Room: consensus. Thread: a disk thread of its own; the loop and the writer ask.
 * Owns: the thread, its mailbox. Reads and the CUT stay their sender's.
 * Invariants: a read waits for one step of a chore at most; a CUT is one record, then a segment a
 *             step; a full disk delays chores, never reads.
 * Not here: what the steps do to the files (log_cut.c, log_store.c, log_read.c). */
#include "consensus/log_keeper.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "consensus/log_cut.h"
#include "consensus/log_read.h"

#include <stdio.h>

void log_keeper_init(struct log_keeper *k, struct log_store *store, struct mail *ended_reads,
                     struct mail *ended_jobs)
{
    k->store = store;
    k->ended_reads = ended_reads;
    k->ended_jobs = ended_jobs;
    mail_init(&k->reads, NULL, NULL);
    atomic_init(&k->cut, NULL);
    atomic_init(&k->wants_spare, false);
    atomic_init(&k->stop, false);
    atomic_init(&k->waits, false);
    CHECK(pthread_mutex_init(&k->text_lock, NULL) == 0);
}

void log_keeper_fini(struct log_keeper *k)
{
    mail_fini(&k->reads);
    (void)pthread_mutex_destroy(&k->text_lock);
}

/* --- the thread ------------------------------------------------------------------------------- */

static void run_read(struct log_keeper *k, struct cns_disk_read *r)
{
    r->result =
        log_read(&k->store->index, r->index, r->max_items, r->max_bytes, &r->items, &r->n_items);
    if (r->result == ERR_OK)
        return;
    CHECK(pthread_mutex_lock(&k->text_lock) == 0);
    (void)snprintf(k->read_failure, sizeof k->read_failure, "%s", err_text());
    CHECK(pthread_mutex_unlock(&k->text_lock) == 0);
}

/* What the keeper does when no read waits: one step a turn. */
struct chores {
    struct cns_disk_job *cut;  /* under way */
    bool recorded;             /* its record is durable */
    uint64_t cut_at, spare_at; /* not before: the disk was full */
};

static void end_cut(struct log_keeper *k, struct chores *c, enum err e)
{
    c->cut->result = e;
    c->cut->index = log_index_first(&k->store->index);
    mail_send(k->ended_jobs, &c->cut->link);
    c->cut = NULL;
    c->recorded = false;
    c->cut_at = 0;
    atomic_store(&k->waits, false);
}

/* Returns the milliseconds until there is something to do for the cut. */
static uint64_t cut_turn(struct log_keeper *k, struct chores *c, uint64_t now, bool stop)
{
    bool more = false;
    enum err e;
    if (c->cut == NULL)
        c->cut = atomic_exchange(&k->cut, NULL);
    if (c->cut == NULL)
        return UINT64_MAX;
    if (now < c->cut_at && !stop)
        return c->cut_at - now;
    if (c->recorded)
        e = log_cut_step(k->store, c->cut->keep_bytes, &more);
    else {
        e = log_cut_record(k->store, c->cut->snapshot);
        if (log_store_is_full(k->store, e) && !stop) {
            c->cut_at = now + LOG_ROOM_RETRY_MS;
            atomic_store(&k->waits, true);
            return LOG_ROOM_RETRY_MS;
        }
        more = c->recorded = e == ERR_OK;
    }
    if (e != ERR_OK || !more)
        end_cut(k, c, e);
    return more ? 0 : UINT64_MAX;
}

/* The same for the spare. It is not needed, so a full disk is no trouble of its own. */
static uint64_t spare_turn(struct log_keeper *k, struct chores *c, uint64_t now)
{
    if (!atomic_load(&k->wants_spare))
        return UINT64_MAX;
    if (now < c->spare_at)
        return c->spare_at - now;
    enum err e = log_store_make_spare(k->store);
    if (log_store_is_full(k->store, e)) {
        c->spare_at = now + 5 * LOG_ROOM_RETRY_MS;
        return 5 * LOG_ROOM_RETRY_MS;
    }
    if (e != ERR_OK)
        log_error("consensus", "log_spare_failed reason=\"%s\"", err_text());
    atomic_store(&k->wants_spare, false);
    return UINT64_MAX;
}

static uint64_t chores_turn(struct log_keeper *k, struct chores *c, bool stop)
{
    uint64_t now = clock_mono_ms();
    uint64_t cut = cut_turn(k, c, now, stop);
    uint64_t spare = stop ? UINT64_MAX : spare_turn(k, c, now);
    return cut < spare ? cut : spare;
}

static void *keeper_main(void *arg)
{
    struct log_keeper *k = arg;
    struct chores c = {0};
    uint64_t timeout = UINT64_MAX;
    thread_become(THREAD_DISK);
    for (;;) {
        struct list batch;
        list_init(&batch);
        bool stop = atomic_load(&k->stop);
        mail_wait(&k->reads, &batch, stop ? 0 : timeout);
        bool idle = list_empty(&batch);
        for (struct list *it; (it = list_pop_front(&batch)) != NULL;) {
            run_read(k, LIST_ENTRY(it, struct cns_disk_read, link));
            mail_send(k->ended_reads, it);
        }
        timeout = chores_turn(k, &c, stop);
        if (idle && stop && timeout == UINT64_MAX)
            break;
    }
    (void)log_store_drop_spare(k->store); /* it would be made anew anyway */
    k->ends(k->ctx);
    return NULL;
}

enum err log_keeper_start(struct log_keeper *k, void (*ends)(void *ctx), void *ctx)
{
    k->ends = ends;
    k->ctx = ctx;
    return thread_start(&k->thread, "log-keeper", keeper_main, k);
}

/* --- what others ask for ---------------------------------------------------------------------- */

void log_keeper_read(struct log_keeper *k, struct cns_disk_read *read)
{
    mail_send(&k->reads, &read->link);
}

void log_keeper_cut(struct log_keeper *k, struct cns_disk_job *job)
{
    atomic_store(&k->cut, job);
    mail_nudge(&k->reads);
}

void log_keeper_want_spare(struct log_keeper *k)
{
    if (!atomic_exchange(&k->wants_spare, true))
        mail_nudge(&k->reads);
}

bool log_keeper_waits(const struct log_keeper *k)
{
    return atomic_load(&k->waits);
}

void log_keeper_tell_failure(struct log_keeper *k, enum err e)
{
    CHECK(pthread_mutex_lock(&k->text_lock) == 0);
    (void)err_fail(e, "%s", k->read_failure);
    CHECK(pthread_mutex_unlock(&k->text_lock) == 0);
}

void log_keeper_stop(struct log_keeper *k)
{
    atomic_store(&k->stop, true);
    mail_nudge(&k->reads);
}

void log_keeper_join(struct log_keeper *k)
{
    (void)pthread_join(k->thread, NULL);
}
