/* Room: node. Thread: owner.
 *
 * Group commit in SQL: the autocommit requests that wait are run inside one SQLite transaction, a
 * SAVEPOINT each, so that one that fails undoes only itself, and are shipped as one entry. No timer
 * forms the batches: what came while the last one was under way is the next one.
 *
 * A statement that ends the transaction (ON CONFLICT ROLLBACK, RAISE(ROLLBACK), an interrupt, a
 * full disk) would take its neighbours with it: the others are run again without it, then it alone.
 */
#include "node/lane_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/sizes.h"
#include "node/meters.h"

#define BATCH_MAX 512 /* requests of one transaction: enough to make the commit's share small */

bool lane_has_room(const struct lane *l)
{
    return l->flight_bytes < INFLIGHT_BYTES_MAX;
}

bool lane_can_run(const struct lane *l)
{
    return l->view != NULL && !l->failed && l->holder == NULL && !l->wants_quiet &&
           l->n_flights < l->config->flights_max && lane_has_room(l);
}

static struct request *head(struct list *q)
{
    return list_empty(q) ? NULL : LIST_ENTRY(q->next, struct request, letter.link);
}

static bool is_vacuum(const struct request *r)
{
    return r->kind == SQL_ALONE && !r->is_batch;
}

/* Moves the next requests that may share a transaction. */
static void take_batch(struct lane *l, struct list *batch) ON_OWNER
{
    unsigned n = 0;
    struct request *first = head(&l->queue), *r;
    while ((r = head(&l->queue)) != NULL && n < BATCH_MAX) {
        bool alone = r->alone || is_vacuum(r);
        if (n > 0 && (alone || r->foreign_keys != first->foreign_keys))
            break;
        list_remove(&r->letter.link);
        list_push_back(batch, &r->letter.link);
        n++;
        if (alone)
            break;
    }
}

static bool set_foreign_keys(struct lane *l, bool on) ON_OWNER
{
    if (l->group_foreign_keys == on)
        return true;
    int is = -1;
    int rc = sqlite3_db_config(sqlconn_handle(l->group), SQLITE_DBCONFIG_ENABLE_FKEY, (int)on, &is);
    l->group_foreign_keys = is != 0;
    return rc == SQLITE_OK && l->group_foreign_keys == on;
}

/* Does the open transaction break a deferred foreign key? It would make the COMMIT of all fail. */
static bool breaks_deferred_key(struct lane *l) ON_OWNER
{
    int broken = 0, high = 0;
    (void)sqlite3_db_status(sqlconn_handle(l->group), SQLITE_DBSTATUS_DEFERRED_FKS, &broken, &high,
                            0);
    return broken != 0;
}

enum fate { KEPT, UNDONE, ENDED };

/* One request inside the open transaction. ENDED: the transaction is gone. */
static enum fate run_one(struct lane *l, struct request *r) ON_OWNER
{
    bool wrote = false;
    if (lane_knows(l, r))
        return KEPT;
    int rc = sqlconn_exec(l->group, "SAVEPOINT request");
    enum err e = rc == SQLITE_OK ? lane_run(l, l->group, r, &wrote) : sqlconn_fail(l->group, r, rc);
    if (sqlite3_get_autocommit(sqlconn_handle(l->group)))
        return ENDED;
    if (e == ERR_OK && breaks_deferred_key(l)) {
        request_fail(r, ERR_SQL, "FOREIGN KEY constraint failed");
        r->answer.sqlite_code = SQLITE_CONSTRAINT_FOREIGNKEY;
        r->answer.statement = r->statement_at; /* the last one */
        e = ERR_SQL;
    }
    if (e != ERR_OK && sqlconn_exec(l->group, "ROLLBACK TO request") != SQLITE_OK)
        return ENDED;
    if (sqlconn_exec(l->group, "RELEASE request") != SQLITE_OK)
        return ENDED;
    if (e != ERR_OK)
        lane_note_failed(l, r);
    else if (wrote)
        lane_note_done(l, r);
    return e == ERR_OK ? KEPT : UNDONE;
}

static void roll_back(struct lane *l) ON_OWNER
{
    outcomes_undo(l->outcomes, 0);
    if (!sqlite3_get_autocommit(sqlconn_handle(l->group)))
        (void)sqlconn_exec(l->group, "ROLLBACK");
    CHECK(sqlite3_get_autocommit(sqlconn_handle(l->group)));
}

/* To be run once more, alone, ahead of everybody. */
static void again_alone(struct lane *l, struct request *r) ON_OWNER
{
    request_clear_answer(r);
    r->alone = true;
    list_remove(&r->letter.link);
    list_push_front(&l->queue, &r->letter.link);
}

/* From R on they are for the next transaction: this one's outcomes fill their section, or its
 * answers, which all wait for one commit, are as long as one may be. */
static void put_back(struct lane *l, struct list *batch, struct request *from) ON_OWNER
{
    struct list *i;
    do {
        i = batch->prev;
        list_remove(i);
        list_push_front(&l->queue, i);
    } while (i != &from->letter.link);
}

static void fail_batch(struct lane *l, struct list *batch, int rc) ON_OWNER
{
    LIST_EACH(i, batch)
        (void)sqlconn_fail(l->group, LIST_ENTRY(i, struct request, letter.link), rc);
    lane_depart(l, batch);
}

/* The transaction is over, and no statement failed. The guard lets no client's statement end it, so
 * it cannot be told what was committed: nothing is run again, and nothing is claimed. */
static bool not_by_the_rules(struct lane *l, struct list *batch) ON_OWNER
{
    roll_back(l);
    LIST_EACH(i, batch) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        request_fail(
            r, ERR_UNKNOWN,
            "another statement of the same moment ended the transaction: look whether this "
            "was written");
        r->answer.settled = true;
        lane_note_failed(l, r);
    }
    lane_depart(l, batch);
    return true;
}

/* The disk failed under R's statement, and this node leads no more: R hears why, and the others,
 * of which nothing was written either, are run by the next leader. */
static bool disk_failed(struct lane *l, struct list *batch, struct request *failed) ON_OWNER
{
    list_remove(&failed->letter.link);
    for (struct list *i = batch->prev; i != batch; i = batch->prev)
        again_alone(l, LIST_ENTRY(i, struct request, letter.link));
    list_push_back(batch, &failed->letter.link);
    roll_back(l);
    lane_depart(l, batch);
    CHECK(l->failed);
    return true;
}

/* Runs the batch in one transaction. False: a request was taken out and the rest must be run again.
 */
static bool try_batch(struct lane *l, struct list *batch, bool single) ON_OWNER
{
    int rc = sqlconn_exec(l->group, "BEGIN IMMEDIATE");
    size_t answers = 0; /* bytes */
    if (rc != SQLITE_OK) {
        fail_batch(l, batch, rc);
        return true;
    }
    LIST_EACH(i, batch) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        if (!outcomes_have_room(l->outcomes) || answers > l->config->answer_bytes_max) {
            put_back(l, batch, r);
            break;
        }
        enum fate fate = run_one(l, r);
        if (repl_view_check(l->view) != ERR_OK)
            return disk_failed(l, batch, r);
        answers += r->answer.out.len;
        if (fate != ENDED)
            continue;
        if (r->answer.code == ERR_OK)
            return not_by_the_rules(l, batch);
        roll_back(l);
        if (single) {
            lane_note_failed(l, r);
            lane_depart(l, batch); /* its own error is its answer */
            return true;
        }
        again_alone(l, r);
        return false;
    }
    rc = sqlconn_exec(l->group, "COMMIT");
    if (rc == SQLITE_OK) {
        lane_depart(l, batch);
        return true;
    }
    if (single) {
        (void)sqlconn_fail(l->group, head(batch), rc);
        roll_back(l);
        lane_note_failed(l, head(batch));
        lane_depart(l, batch);
        return true;
    }
    roll_back(l);
    /* Who is to blame cannot be told: each alone. */
    for (struct list *i = batch->prev; i != batch; i = batch->prev)
        again_alone(l, LIST_ENTRY(i, struct request, letter.link));
    return true;
}

/* VACUUM: outside any transaction. */
static void run_alone(struct lane *l, struct list *batch) ON_OWNER
{
    struct request *r = LIST_ENTRY(batch->next, struct request, letter.link);
    bool wrote;
    if (lane_knows(l, r)) {
        lane_depart(l, batch);
        return;
    }
    sqlconn_allow_vacuum(l->group, true);
    enum err e = lane_run(l, l->group, r, &wrote);
    sqlconn_allow_vacuum(l->group, false);
    roll_back(l);
    if (e == ERR_OK)
        lane_note_done(l, r);
    else
        lane_note_failed(l, r);
    lane_depart(l, batch);
}

void lane_drop_overdue(struct lane *l, struct list *queue, uint64_t now_ms)
{
    LIST_EACH(i, queue) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        bool cancelled = atomic_load_explicit(&r->cancelled, memory_order_relaxed);
        if (!cancelled && (r->deadline_ms == 0 || now_ms <= r->deadline_ms))
            continue;
        list_remove(&r->letter.link);
        request_fail(r, cancelled ? ERR_CANCELLED : ERR_TIMEOUT,
                     cancelled ? "interrupted" : "timed out while it waited for the writer");
        lane_answer(l, r);
    }
}

void lane_run_batch(struct lane *l)
{
    struct list batch;
    list_init(&batch);
    take_batch(l, &batch);
    lane_drop_overdue(l, &batch, clock_mono_ms());
    struct request *first = head(&batch);
    if (first == NULL)
        return;
    l->run_ns = clock_mono_ns();
    LIST_EACH(i, &batch)
        meters_stage(METER_STAGE_QUEUE,
                     l->run_ns - LIST_ENTRY(i, struct request, letter.link)->came_ns);
    if (!set_foreign_keys(l, first->foreign_keys)) {
        fail_batch(l, &batch, SQLITE_ERROR);
        return;
    }
    if (is_vacuum(first)) {
        run_alone(l, &batch);
        return;
    }
    while (!list_empty(&batch)) {
        bool single = batch.next == batch.prev;
        if (try_batch(l, &batch, single))
            break;
        LIST_EACH(i, &batch)
            request_clear_answer(LIST_ENTRY(i, struct request, letter.link));
    }
    CHECK(list_empty(&batch));
}
