/* Room: consensus. Thread: loop, and two of its own, both of role disk: the writer (jobs) and the
 * keeper (reads, cuts, the spare), so that neither a slow follower's reading nor a cut delays a
 * commit.
 * Owns: the store, the threads, the mailboxes. Jobs and reads stay their sender's.
 * Invariants: `done` of jobs in the order of submission, but for a CUT; a job ends well only when
 *             all before it are durable; after one failed, all fail.
 * Not here: the keeper (log_keeper.c), bytes and files (log_store.c, log_load.c).
 *
 *     loop: submit --jobs--> writer: append, append, ... one sync --ended_jobs--> loop: done, done
 *     loop: submit_read --reads--> keeper --ended_reads--> loop: done
 *     loop: submit a CUT --cut--> keeper: the record, then a segment a turn --ended_jobs--> loop
 *
 * Group commit needs no timer: while one sync runs, jobs queue, and the next batch takes them all.
 *
 * A full disk stops the job that meets it before anything of it that needs room is written. It
 * waits where it is, those behind it wait in the box, and it is tried again until there is room. */
#include "consensus/log.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mail.h"
#include "base/mem.h"
#include "consensus/log_cut.h"
#include "consensus/log_keeper.h"
#include "consensus/log_load.h"
#include "consensus/log_read.h"
#include "consensus/log_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Quiet for so long: how far the log is synced is recorded (two small synced writes), which closes
 * the gap in which damage to the last batch could be taken for a torn end. */
#define IDLE_MARK_MS 250

struct cns_log {
    struct log_store store; /* the writer's and the keeper's once started */
    struct log_outline outline;
    uint64_t term, vote;          /* the loop's: what ended META jobs said */
    struct cns_snapshot snapshot; /* the loop's: the record as the last CUT left it */
    bool started, closing, made, cutting;

    uv_async_t wake;
    uv_prepare_t before_poll; /* the ends of a turn, as in transport.c */
    uv_check_t after_poll;
    unsigned open_handles;
    struct list submitted; /* of this turn */
    pthread_t writer;
    struct log_keeper keeper;
    struct mail jobs;                    /* to the writer */
    struct mail ended_jobs, ended_reads; /* back, from both */
    _Atomic bool stop;
    _Atomic unsigned threads;  /* that still run */
    _Atomic bool writer_waits; /* for room on the disk */

    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* --- before the start ------------------------------------------------------------------------- */

enum err cns_log_open(const struct cns_log_config *c, struct cns_log **out)
{
    struct cns_log *l = MEM_NEW(struct cns_log);
    enum err e = log_load(c, &l->store, &l->outline);
    if (e != ERR_OK) {
        log_outline_fini(&l->outline);
        log_store_fini(&l->store);
        free(l);
        return e;
    }
    l->term = l->store.meta.now.term;
    l->vote = l->store.meta.now.vote;
    l->snapshot = log_snapshot_copy(&l->store.snapshot.s);
    l->made = l->outline.made;
    atomic_init(&l->writer_waits, false);
    log_keeper_init(&l->keeper, &l->store, &l->ended_reads, &l->ended_jobs);
    *out = l;
    return ERR_OK;
}

void cns_log_get_state(struct cns_log *l, struct cns_log_state *out)
{
    struct log_index *x = &l->store.index;
    *out = (struct cns_log_state){.term = l->term,
                                  .vote = l->vote,
                                  .made = l->made,
                                  .incarnation = l->store.incarnation,
                                  .snapshot_index = l->snapshot.index,
                                  .waits = atomic_load(&l->writer_waits) ||
                                           log_keeper_waits(&l->keeper)};
    out->bytes = log_store_spare_bytes(&l->store);
    CHECK(pthread_mutex_lock(&x->lock) == 0);
    out->first_index = x->segments[0]->head.first_index;
    out->prev_term = x->segments[0]->head.prev_term;
    out->last_index = x->last;
    out->last_term = x->last_term;
    out->segments = x->n;
    for (unsigned i = 0; i < x->n; i++)
        out->bytes += x->segments[i]->size;
    CHECK(pthread_mutex_unlock(&x->lock) == 0);
}

void cns_log_sync_times(const struct cns_log *l, struct histogram_copy *out)
{
    histogram_collect(&l->store.files.syncs, out);
}

bool cns_log_snapshot(const struct cns_log *l, struct cns_snapshot *out)
{
    *out = l->snapshot;
    return l->snapshot.index > 0;
}

enum err cns_log_install(struct cns_log *l, const struct cns_snapshot *snapshot)
{
    CHECK(!l->started);
    TRY(log_cut_install(&l->store, &l->outline, snapshot));
    log_snapshot_drop(&l->snapshot);
    l->snapshot = log_snapshot_copy(snapshot);
    l->term = l->store.meta.now.term;
    l->vote = l->store.meta.now.vote;
    return ERR_OK;
}

void cns_log_each(struct cns_log *l, cns_log_visit visit, void *ctx)
{
    CHECK(!l->started);
    const struct log_outline *o = &l->outline;
    size_t run = 0, other = 0;
    for (uint64_t i = o->first_index; i <= l->store.last; i++) {
        while (run + 1 < o->n_runs && o->runs[run + 1].first_index <= i)
            run++;
        enum cns_kind kind = CNS_COMMAND;
        struct cns_payload *payload = NULL;
        if (other < o->n_others && o->others[other].index == i) {
            kind = o->others[other].kind;
            payload = o->others[other++].payload;
        }
        visit(ctx, i, o->runs[run].term, kind, payload);
    }
}

enum err cns_log_scan_back(struct cns_log *l, cns_visit visit, void *ctx)
{
    CHECK(!l->started);
    return log_read_back(&l->store.index, visit, ctx);
}

/* --- the writer ------------------------------------------------------------------------------- */

static void post(struct cns_log *l, struct list *jobs, enum err e)
{
    for (struct list *it; (it = list_pop_front(jobs)) != NULL;) {
        LIST_ENTRY(it, struct cns_disk_job, link)->result = e;
        mail_send(&l->ended_jobs, it);
    }
}

/* AGAIN: the job met a full disk before. */
static enum err run_job(struct log_store *s, struct cns_disk_job *job, bool again)
{
    unsigned staged = 0;
    switch (job->kind) {
    case CNS_DISK_META:
        return log_store_set_meta(s, job->term, job->vote);
    case CNS_DISK_TRUNCATE:
        return log_store_truncate(s, job->index);
    case CNS_DISK_APPEND:
        if (again)
            staged = (unsigned)(s->last + 1 - job->index);
        return log_store_append(s, job->items + staged, job->n_items - staged);
    case CNS_DISK_CUT: /* the keeper's */
    default:
        UNREACHABLE("a disk job of unknown kind");
    }
}

/* LOG_ROOM_RETRY_MS later; what comes meanwhile is put into BATCH. True: the log is being closed.
 */
static bool pause_writer(struct cns_log *l, struct list *batch)
{
    uint64_t until = clock_mono_ms() + LOG_ROOM_RETRY_MS;
    for (uint64_t now; (now = clock_mono_ms()) < until && !atomic_load(&l->stop);)
        mail_wait(&l->jobs, batch, until - now);
    return atomic_load(&l->stop);
}

/* JOB met a full disk, E, before it changed anything but what is in memory. */
static enum err wait_for_room(struct cns_log *l, struct cns_disk_job *job, struct list *batch,
                              enum err e)
{
    log_warn("consensus", "log_waits_for_room reason=\"%s\"", err_text());
    atomic_store(&l->writer_waits, true);
    while (log_store_is_full(&l->store, e)) {
        if (pause_writer(l, batch))
            e = log_store_failed(
                &l->store,
                err_fail(ERR_FULL, "%s: the disk is full, and was until the end", l->store.dir));
        else
            e = run_job(&l->store, job, true);
    }
    atomic_store(&l->writer_waits, false);
    if (e == ERR_OK)
        log_info("consensus", "log_has_room");
    return e;
}

/* Does the jobs of BATCH in order and posts each as it becomes durable. */
static void run_batch(struct cns_log *l, struct list *batch)
{
    struct list waiting; /* done but not synced */
    enum err e = ERR_OK;
    list_init(&waiting);
    while (e == ERR_OK && !list_empty(batch)) {
        struct list *it = list_pop_front(batch);
        struct cns_disk_job *job = LIST_ENTRY(it, struct cns_disk_job, link);
        e = run_job(&l->store, job, false);
        if (log_store_is_full(&l->store, e)) {
            post(l, &waiting, ERR_OK); /* room is only asked for when all before it is synced */
            e = wait_for_room(l, job, batch, e);
        }
        list_push_back(&waiting, it);
        if (e == ERR_OK && job->kind != CNS_DISK_APPEND)
            post(l, &waiting, ERR_OK); /* synced, and all before it */
    }
    if (e == ERR_OK)
        e = log_store_sync(&l->store);
    list_splice(&waiting, batch); /* when one failed, the rest fails too */
    post(l, &waiting, e);
    if (e == ERR_OK && log_store_wants_spare(&l->store))
        log_keeper_want_spare(&l->keeper);
}

static void thread_ends(void *arg)
{
    struct cns_log *l = arg;
    (void)atomic_fetch_sub(&l->threads, 1);
    (void)uv_async_send(&l->wake);
}

static void *writer_main(void *arg)
{
    struct cns_log *l = arg;
    thread_become(THREAD_DISK);
    bool marked = true;
    for (;;) {
        struct list batch;
        list_init(&batch);
        bool stop = atomic_load(&l->stop); /* before the look into the box */
        mail_wait(&l->jobs, &batch, stop ? 0 : marked ? UINT64_MAX : IDLE_MARK_MS);
        if (!list_empty(&batch)) {
            run_batch(l, &batch);
            marked = false;
        } else if (stop || !marked) {
            /* A failure here is seen by the next job; all that was reported is durable anyway. */
            if (log_store_refuse(&l->store) == ERR_OK && log_store_mark(&l->store) != ERR_OK)
                log_error("consensus", "log_mark_failed reason=\"%s\"", err_text());
            marked = true;
        }
        if (list_empty(&batch) && stop)
            break;
    }
    thread_ends(l);
    return NULL;
}

/* --- the loop --------------------------------------------------------------------------------- */

static void job_ended(struct cns_log *l, struct cns_disk_job *job)
{
    if (job->kind == CNS_DISK_CUT)
        l->cutting = false;
    if (job->result != ERR_OK) { /* the sentence crosses the threads by hand */
        if (log_store_refuse(&l->store) == ERR_OK)
            (void)err_fail(job->result, "%s: the disk is full, and was until the end",
                           l->store.dir);
    } else if (job->kind == CNS_DISK_META) {
        l->term = job->term;
        l->vote = job->vote;
    } else if (job->kind == CNS_DISK_CUT && job->snapshot->index >= l->snapshot.index) {
        struct cns_snapshot copy = log_snapshot_copy(job->snapshot);
        log_snapshot_drop(&l->snapshot);
        l->snapshot = copy;
    }
    job->done(job, job->result);
}

static void read_ended(struct cns_log *l, struct cns_disk_read *r)
{
    if (r->result != ERR_OK)
        log_keeper_tell_failure(&l->keeper, r->result);
    r->done(r, r->result);
}

static void free_log(struct cns_log *l)
{
    void (*closed)(void *ctx) = l->closed;
    void *ctx = l->closed_ctx;
    log_outline_fini(&l->outline);
    log_store_fini(&l->store);
    log_snapshot_drop(&l->snapshot);
    log_keeper_fini(&l->keeper);
    free(l);
    if (closed != NULL)
        closed(ctx);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct cns_log *l = h->data;
    if (--l->open_handles > 0)
        return;
    CHECK(list_empty(&l->submitted));
    mail_fini(&l->jobs);
    mail_fini(&l->ended_jobs);
    mail_fini(&l->ended_reads);
    free_log(l);
}

static void on_wake(uv_async_t *h)
{
    thread_expect_loop();
    struct cns_log *l = h->data;
    struct list ended;
    bool all_ended = atomic_load(&l->threads) == 0; /* before the boxes are emptied */
    list_init(&ended);
    mail_take(&l->ended_jobs, &ended);
    for (struct list *it; (it = list_pop_front(&ended)) != NULL;)
        job_ended(l, LIST_ENTRY(it, struct cns_disk_job, link));
    mail_take(&l->ended_reads, &ended);
    for (struct list *it; (it = list_pop_front(&ended)) != NULL;)
        read_ended(l, LIST_ENTRY(it, struct cns_disk_read, link));
    if (!all_ended || uv_is_closing((uv_handle_t *)h))
        return;
    (void)pthread_join(l->writer, NULL);
    log_keeper_join(&l->keeper);
    uv_close((uv_handle_t *)&l->wake, on_handle_closed);
    uv_close((uv_handle_t *)&l->before_poll, on_handle_closed);
    uv_close((uv_handle_t *)&l->after_poll, on_handle_closed);
}

static void on_before_poll(uv_prepare_t *h)
{
    struct cns_log *l = h->data;
    mail_send_all(&l->jobs, &l->submitted);
}

static void on_after_poll(uv_check_t *h)
{
    struct cns_log *l = h->data;
    mail_send_all(&l->jobs, &l->submitted);
}

static void wake_loop(void *arg)
{
    (void)uv_async_send(arg);
}

static void start_turn_ends(struct cns_log *l, uv_loop_t *loop)
{
    CHECK(uv_prepare_init(loop, &l->before_poll) == 0 &&
          uv_check_init(loop, &l->after_poll) == 0); /* cannot fail */
    l->before_poll.data = l;
    l->after_poll.data = l;
    CHECK(uv_prepare_start(&l->before_poll, on_before_poll) == 0 &&
          uv_check_start(&l->after_poll, on_after_poll) == 0);
}

enum err cns_log_start(struct cns_log *l, uv_loop_t *loop)
{
    CHECK(!l->started && !l->closing);
    int rc = uv_async_init(loop, &l->wake, on_wake);
    if (rc != 0)
        return err_fail(ERR_IO, "cannot make the log's wake-up handle: %s", uv_strerror(rc));
    l->wake.data = l;
    start_turn_ends(l, loop);
    l->open_handles = 3;
    list_init(&l->submitted);
    mail_init(&l->jobs, NULL, NULL);
    mail_init(&l->ended_jobs, wake_loop, &l->wake);
    mail_init(&l->ended_reads, wake_loop, &l->wake);
    log_outline_fini(&l->outline);
    l->started = true;
    atomic_init(&l->stop, false);
    atomic_init(&l->threads, 2);
    /* A process that cannot start a thread at start-up is not worth half a state. */
    if (thread_start(&l->writer, "log-writer", writer_main, l) != ERR_OK ||
        log_keeper_start(&l->keeper, thread_ends, l) != ERR_OK)
        UNREACHABLE("cannot start the log's threads");
    return ERR_OK;
}

void cns_log_submit(struct cns_log *l, struct cns_disk_job *job)
{
    CHECK(l->started && !l->closing && job->done != NULL);
    job->result = ERR_OK;
    if (job->kind != CNS_DISK_CUT) {
        list_push_back(&l->submitted, &job->link);
        return;
    }
    CHECK(!l->cutting);
    l->cutting = true;
    log_keeper_cut(&l->keeper, job);
}

void cns_log_submit_read(struct cns_log *l, struct cns_disk_read *read)
{
    CHECK(l->started && !l->closing && read->done != NULL);
    read->items = NULL;
    read->n_items = 0;
    log_keeper_read(&l->keeper, read);
}

void cns_log_close(struct cns_log *l, void (*done)(void *ctx), void *ctx)
{
    CHECK(!l->closing);
    l->closing = true;
    l->closed = done;
    l->closed_ctx = ctx;
    if (!l->started) {
        free_log(l);
        return;
    }
    mail_send_all(&l->jobs, &l->submitted);
    atomic_store(&l->stop, true);
    mail_nudge(&l->jobs);
    log_keeper_stop(&l->keeper);
}
