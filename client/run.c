/* Room: client.   Thread: under the cluster's lock.   Owns: runs, their items; the face.
 *
 * loop_turn calls note_*: they only copy, count and put the run on the face's list `ready`. When
 * the turn is over, settle() does what follows: credit, cancels, accounts. Only then, and never one
 * inside the other, are programs called back, without the lock: they may do anything but
 * lectern_poll, and what is freed meanwhile is not looked at again (pins).
 *
 * Invariants: a call is freed only after its end; an item's bytes of the window are given back
 * exactly once; a session is freed after its last run.
 *
 * One session's runs go one after the other. A SELECT of which the program has fetched only a part
 * would stop all that come after it for ever: so as long as another run waits behind it, it is
 * gathered in memory, up to RUN_HELD_MAX; what waits is refused beyond that.
 *
 * Not here: retries (call.c), what rows are (statement.c), threads beside each other (wait.c). */
#include "client/run.h"

#include "base/check.h"
#include "base/clock.h"
#include "client/codes.h"
#include "client/handle.h"

#include <stdlib.h>
#include <string.h>

#define NEVER_MS (UINT64_MAX / 2)

struct face *face_of(struct lectern_cluster *c)
{
    return cluster_face(c);
}

enum err face_new(struct lectern_cluster *c)
{
    struct face *f = calloc(1, sizeof *f);
    if (f == NULL)
        return err_fail(ERR_NOMEM, "no memory for a cluster");
    list_init(&f->sessions);
    list_init(&f->ready);
    list_init(&f->to_tell);
    turns_init(&f->turns);
    cluster_set_face(c, f);
    return ERR_OK;
}

void face_free(struct lectern_cluster *c)
{
    free(face_of(c));
    cluster_set_face(c, NULL);
}

static struct face *face_of_run(const struct run *r)
{
    return face_of(r->db->cluster);
}

static struct run *run_of_ready(struct list *l)
{
    return LIST_ENTRY(l, struct run, ready);
}

/* --- during loop_turn: noted down --- */

static void note(struct run *r)
{
    if (list_empty(&r->ready))
        list_push_back(&face_of_run(r)->ready, &r->ready);
}

/* NULL: no memory, which the run remembers. */
static struct item *add_item(struct run *r, enum item_kind kind, struct rd bytes)
{
    note(r);
    size_t len = rd_left(&bytes);
    struct item *i = r->no_memory || r->owner == NULL ? NULL : malloc(sizeof *i + len + 1);
    if (i == NULL) {
        r->no_memory = r->no_memory || r->owner != NULL;
        return NULL;
    }
    *i = (struct item){.kind = kind, .len = len};
    if (len != 0)
        memcpy(i->bytes, bytes.p, len);
    i->bytes[len] = 0;
    list_push_back(&r->items, &i->link);
    return i;
}

static void note_columns(void *ctx, uint32_t n, struct rd columns)
{
    struct item *i = add_item(ctx, ITEM_COLUMNS, columns);
    if (i != NULL)
        i->n = n;
}

static void note_rows(void *ctx, uint32_t rows, struct rd values, uint32_t frame_bytes)
{
    struct run *r = ctx;
    struct item *i = add_item(r, ITEM_ROWS, values);
    if (i == NULL) {
        r->owed += frame_bytes;
        return;
    }
    i->n = rows;
    i->frame_bytes = frame_bytes;
    r->held += i->len;
    r->rows_seen = true;
}

static void note_step(void *ctx, const struct wire_step *step)
{
    struct item *i = add_item(ctx, ITEM_STEP, rd_of(NULL, 0));
    if (i != NULL)
        i->step = *step;
}

static void note_description(void *ctx, const struct wire_description *d)
{
    size_t params = rd_left(&d->params), columns = rd_left(&d->columns);
    struct run *r = ctx;
    note(r);
    struct item *i = r->owner == NULL ? NULL : malloc(sizeof *i + params + columns + 1);
    if (i == NULL) {
        r->no_memory = r->owner != NULL;
        return;
    }
    *i = (struct item){.kind = ITEM_DESCRIPTION, .len = params + columns, .description = *d};
    if (params != 0)
        memcpy(i->bytes, d->params.p, params);
    if (columns != 0)
        memcpy(i->bytes + params, d->columns.p, columns);
    i->description.params = rd_of(i->bytes, params);
    i->description.columns = rd_of(i->bytes + params, columns);
    list_push_back(&r->items, &i->link);
}

static void drop_items(struct run *r)
{
    for (struct list *l; (l = list_pop_front(&r->items)) != NULL;) {
        struct item *i = LIST_ENTRY(l, struct item, link);
        r->owed += i->frame_bytes;
        r->held -= i->kind == ITEM_ROWS ? i->len : 0;
        free(i);
    }
}

static void note_restart(void *ctx)
{
    struct run *r = ctx;
    drop_items(r);
    r->held = 0;
    r->no_memory = false;
    note(r);
}

static void note_end(void *ctx, const struct call_end *end)
{
    struct run *r = ctx;
    r->ended = true;
    r->err = end->code;
    r->code = end->time_up ? LECTERN_TXN_TIMEOUT : code_of(end->code, end->sqlite_code);
    r->offset = end->code == ERR_OK ? -1 : end->offset;
    r->statement = end->statement;
    r->changes = end->changes;
    r->last_insert_rowid = end->last_insert_rowid;
    if (r->code == LECTERN_UNAVAILABLE && r->rows_seen)
        r->code = LECTERN_IOERR; /* a read that broke off amid its rows */
    if (end->code != ERR_OK && end->message_len != 0)
        r->message = strndup(end->message, end->message_len);
    note(r);
}

/* --- the life of a run --- */

enum err run_new(struct lectern *db, enum wire_type type, enum call_kind kind, void *owner,
                 struct run **out)
{
    struct run *r = calloc(1, sizeof *r);
    if (r == NULL)
        return err_fail(ERR_NOMEM, "no memory for a request");
    *r = (struct run){.db = db, .owner = owner, .kind = kind, .offset = -1};
    struct call_events events = {
        .ctx = r,
        .on_columns = note_columns,
        .on_rows = note_rows,
        .on_step = note_step,
        .on_description = note_description,
        .on_restart = note_restart,
        .on_end = note_end,
    };
    enum err e = call_new(db->stream, type, kind, &events, &r->call);
    if (e != ERR_OK) {
        free(r);
        return e;
    }
    list_init(&r->link);
    list_init(&r->ready);
    list_init(&r->items);
    db->n_runs++;
    *out = r;
    return ERR_OK;
}

static bool started(const struct run *r)
{
    return !list_empty(&r->link);
}

static void run_free(struct run *r)
{
    CHECK(r->ended || !started(r));
    CHECK(r->pins == 0);
    drop_items(r);
    if (r->owed != 0)
        call_took(r->call, r->owed);
    list_remove(&r->link);
    list_remove(&r->ready);
    call_free(r->call);
    free(r->message);
    r->db->n_runs--;
    free(r);
}

static uint64_t deadline(const struct run *r)
{
    return clock_mono_ms() + r->db->timeout_ms;
}

static bool others_wait(const struct run *r)
{
    return started(r) && r->link.next != &r->db->runs;
}

static uint32_t credit_of(struct item *i)
{
    uint32_t bytes = i->frame_bytes;
    i->frame_bytes = 0;
    return bytes;
}

/* Gives back the window of what is held, so that the node goes on. */
static void gather(struct run *r)
{
    uint32_t bytes = r->taken == NULL ? 0 : credit_of(r->taken);
    LIST_EACH(l, &r->items) {
        bytes += credit_of(LIST_ENTRY(l, struct item, link));
    }
    if (bytes != 0)
        call_took(r->call, bytes);
}

static void refuse_waiting(struct run *r)
{
    for (struct list *l = r->link.next; l != &r->db->runs; l = l->next) {
        struct run *next = LIST_ENTRY(l, struct run, link);
        next->refused = true;
        run_cancel(next);
    }
}

/* Does more of R's answer have to come than its reader asks for? */
static bool gathers(const struct run *r)
{
    return r->kind != CALL_READ || others_wait(r);
}

static void keep_moving(struct run *r)
{
    if (r->owed != 0) {
        call_took(r->call, r->owed);
        r->owed = 0;
    }
    if (r->ended || !gathers(r))
        return;
    /* The answer of a write is bounded (call_answer.c), and its end is wanted before its rows. */
    if (r->kind == CALL_READ && r->held > RUN_HELD_MAX)
        refuse_waiting(r);
    else
        gather(r);
}

void run_start(struct run *r)
{
    struct lectern *db = r->db;
    list_push_back(&db->runs, &r->link);
    call_start(r->call, deadline(r));
    LIST_EACH(l, &db->runs) {
        struct run *before = LIST_ENTRY(l, struct run, link);
        if (before != r)
            keep_moving(before);
    }
}

void run_cancel(struct run *r)
{
    if (r->ended || r->cancelled || !started(r))
        return;
    r->cancelled = true;
    call_cancel(r->call);
}

void run_pin(struct run *r)
{
    r->pins++;
}

bool run_unpin(struct run *r)
{
    CHECK(r->pins > 0);
    r->pins--;
    bool owned = r->owner != NULL;
    if (!owned)
        note(r);
    return owned;
}

static bool wait_for(struct run *r, bool end)
{
    if (r->ended || (!end && !list_empty(&r->items)))
        return true;
    struct lectern *db = r->db;
    run_extend(r);
    run_pin(r);
    db->calls++; /* a callback may finalize the statement, but not close the session */
    struct waiter w;
    waiter_begin(&w, db->cluster);
    r->waiter = &w;
    enum err e = face_turn(db->cluster); /* sends it, even if another thread turns the loop */
    while (e == ERR_OK && !r->ended && r->owner != NULL && (end || list_empty(&r->items)))
        e = waiter_wait(&w, WAIT_FOR_EVER);
    if (e != ERR_OK && !r->ended) {
        r->code = LECTERN_IOERR;
        run_cancel(r);
    }
    r->waiter = NULL;
    waiter_end(&w);
    db->calls--;
    /* While the program does something else with its rows, no time limit runs. */
    if (!r->ended && r->owner != NULL)
        call_set_deadline(r->call, NEVER_MS);
    return run_unpin(r);
}

bool run_wait(struct run *r)
{
    return wait_for(r, false);
}

bool run_wait_end(struct run *r)
{
    return wait_for(r, true);
}

void run_extend(struct run *r)
{
    if (!r->ended)
        call_set_deadline(r->call, deadline(r));
}

struct item *run_first(const struct run *r)
{
    return list_empty(&r->items) ? NULL : LIST_ENTRY(r->items.next, struct item, link);
}

void run_take(struct run *r, struct item *i)
{
    list_remove(&i->link);
    r->held -= i->kind == ITEM_ROWS ? i->len : 0;
    r->taken = i;
}

void run_keep(struct run *r, struct item *i)
{
    run_take(r, i);
    r->taken = NULL;
}

void run_used(struct run *r, struct item *i)
{
    if (r != NULL && i->frame_bytes != 0)
        call_took(r->call, i->frame_bytes);
    if (r != NULL && r->taken == i)
        r->taken = NULL;
    free(i);
}

void run_release(struct run *r)
{
    r->owner = NULL;
    r->on_ready = NULL;
    drop_items(r);
    if (r->pins == 0 && (r->ended || !started(r))) {
        run_free(r);
        return;
    }
    if (!r->ended) {
        keep_moving(r);
        run_cancel(r);
    }
    note(r);
    if (r->waiter != NULL)
        waiter_wake(r->waiter);
}

/* --- after loop_turn --- */

static void account(struct run *r)
{
    struct lectern *db = r->db;
    list_remove(&r->link);
    if (r->refused && r->code == LECTERN_INTERRUPT) {
        r->code = LECTERN_BUSY;
        free(r->message);
        r->message = strdup("an open SELECT of this session has more rows left than are kept in "
                            "memory (64 MiB): fetch them, reset it, or use another session");
    } else if (r->no_memory && (r->code == LECTERN_INTERRUPT || r->code == LECTERN_OK)) {
        bool done = r->code == LECTERN_OK && r->kind != CALL_READ;
        r->code = done ? LECTERN_ROWS_LOST : LECTERN_NOMEM;
        free(r->message);
        r->message = NULL;
    }
    if (r->code == LECTERN_OK && r->counts) {
        session_changed(db, r->changes);
    } else if (code_primary(r->code) == LECTERN_CONSTRAINT && r->counts) {
        db->changes = 0; /* as SQLite: it has run, and is undone */
    }
    if (r->code == LECTERN_OK && r->kind == CALL_COMMIT && !stream_in_transaction(db->stream))
        db->committed_in_body = true;
    if (code_primary(r->code) == LECTERN_TXN_LOST && db->in_body)
        db->lost_in_body = true;
}

static void settle_run(struct run *r)
{
    if (r->ended && started(r))
        account(r);
    keep_moving(r);
    if (r->waiter != NULL)
        waiter_wake(r->waiter);
    if (r->owner == NULL) {
        if (r->ended && r->pins == 0)
            run_free(r);
        return;
    }
    if (r->no_memory && r->kind == CALL_READ)
        run_cancel(r);
    if (r->on_ready != NULL)
        list_push_back(&face_of_run(r)->to_tell, &r->ready);
}

static void settle(struct face *f)
{
    if (atomic_exchange(&f->interrupted, false)) {
        LIST_EACH(l, &f->sessions) {
            session_heed_interrupt(LIST_ENTRY(l, struct lectern, link));
        }
        turns_wake_all(&f->turns);
    }
    for (struct list *l; (l = list_pop_front(&f->ready)) != NULL;) {
        struct lectern *db = run_of_ready(l)->db;
        settle_run(run_of_ready(l));
        if (db->closing && db->n_runs == 0 && !db->owns_cluster)
            session_free(db);
    }
}

static void tell(struct face *f)
{
    if (f->telling || list_empty(&f->to_tell))
        return; /* from a callback that waits, or beside one: its own turn goes on with the list */
    turns_hand_on(&f->turns);
    f->telling = true;
    f->teller = pthread_self();
    for (struct list *l; (l = list_pop_front(&f->to_tell)) != NULL;) {
        struct run *r = run_of_ready(l);
        /* What came while it lay here, in the turns of callbacks and of other threads. */
        if (r->ended && started(r))
            account(r);
        if (r->on_ready != NULL)
            r->on_ready(r);
        else
            note(r); /* released */
        settle(f);
    }
    f->telling = false;
}

static enum err turn(struct lectern_cluster *c, int wait_ms)
{
    struct face *f = face_of(c);
    CHECK(!f->turning);
    f->turning = true;
    enum err e = loop_turn(cluster_loop(c), wait_ms);
    f->turning = false;
    settle(f);
    tell(f);
    turns_turned(&f->turns);
    return e;
}

enum err face_turn(struct lectern_cluster *c)
{
    return turn(c, 0);
}

enum err face_turn_alone(struct lectern_cluster *c)
{
    return turn(c, face_is_behind(c) ? 0 : -1);
}

bool face_is_behind(struct lectern_cluster *c)
{
    const struct face *f = face_of(c);
    return !list_empty(&f->ready) || atomic_load(&f->interrupted);
}

bool face_tells_here(const struct face *f)
{
    return f->telling && pthread_equal(f->teller, pthread_self()) != 0;
}

bool face_is_in_use(const struct face *f)
{
    return f->telling || f->turns.waiters != 0;
}
