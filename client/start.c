/* Room: client.   Thread: under the cluster's lock.   Owns: nothing.
 *
 * The same statements and sessions, driven by a foreign event loop. A started statement's rows and
 * its end are told by face_turn (run.c), outside of the library's own loop, so that a callback may
 * do anything but poll.
 *
 * Invariants: on_end comes once, unless the statement was reset or finalized before.
 * Not here: batches (batch.c). */
#include "base/clock.h"
#include "client/codes.h"
#include "client/statement.h"

#include <stdlib.h>

/* --- clusters --- */

int lectern_cluster_open(const char *text, lectern_cluster **out)
{
    if (out == NULL)
        return LECTERN_MISUSE;
    *out = NULL;
    if (text == NULL)
        return LECTERN_MISUSE;
    struct url *url = malloc(sizeof *url);
    if (url == NULL)
        return LECTERN_NOMEM;
    struct lectern_cluster *c = NULL;
    enum err e = url_parse(text, url);
    if (e == ERR_OK)
        e = cluster_new(url, &c);
    free(url);
    if (e == ERR_OK) {
        e = face_new(c);
        if (e != ERR_OK)
            cluster_free(c);
    }
    if (e == ERR_CONFIG || e == ERR_NOT_FOUND)
        return LECTERN_CANTOPEN;
    if (e != ERR_OK)
        return code_primary(code_of(e, 0));
    *out = c;
    return LECTERN_OK;
}

/* Sessions that were closed while something of theirs ran; it was cancelled and ends soon. */
static bool only_closing(const struct face *f)
{
    LIST_EACH(l, &f->sessions) {
        if (!LIST_ENTRY(l, struct lectern, link)->closing)
            return false;
    }
    return true;
}

int lectern_cluster_close(lectern_cluster *c)
{
    if (c == NULL)
        return LECTERN_OK;
    cluster_lock(c);
    struct face *f = face_of(c);
    bool busy = face_is_in_use(f) || !only_closing(f);
    while (!busy && !list_empty(&f->sessions))
        busy = face_turn_alone(c) != ERR_OK || !only_closing(f);
    if (!busy)
        face_free(c);
    cluster_unlock(c);
    if (busy)
        return LECTERN_BUSY;
    cluster_free(c);
    return LECTERN_OK;
}

int lectern_open_session(lectern_cluster *c, lectern **out)
{
    if (out == NULL)
        return LECTERN_MISUSE;
    *out = NULL;
    if (c == NULL)
        return LECTERN_MISUSE;
    struct lectern *db = session_alloc();
    if (db == NULL)
        return LECTERN_NOMEM;
    cluster_lock(c);
    enum err e = session_join(db, c);
    if (e == ERR_OK)
        *out = db;
    else
        session_free(db);
    cluster_unlock(c);
    return code_primary(code_of(e, 0));
}

lectern_cluster *lectern_cluster_of(lectern *db)
{
    return db == NULL || db->magic != SESSION_ALIVE ? NULL : db->cluster;
}

int lectern_fd(lectern_cluster *c)
{
    return c == NULL ? -1 : loop_fd(cluster_loop(c));
}

/* Until anything was done, by this thread or another. */
static enum err poll_waiting(struct lectern_cluster *c, int wait_ms)
{
    struct waiter w;
    waiter_begin(&w, c);
    w.any = true;
    enum err e = waiter_wait(&w, wait_ms < 0 ? WAIT_FOR_EVER : clock_mono_ms() + (unsigned)wait_ms);
    waiter_end(&w);
    return e;
}

int lectern_poll(lectern_cluster *c, int wait_ms)
{
    if (c == NULL)
        return LECTERN_MISUSE;
    cluster_lock(c);
    int code = LECTERN_MISUSE;
    if (!face_tells_here(face_of(c)))
        code = code_primary(code_of(wait_ms == 0 ? face_turn(c) : poll_waiting(c, wait_ms), 0));
    cluster_unlock(c);
    return code;
}

/* --- statements --- */

/* One row to the program. False: the statement is no longer what it was: reset or finalized. */
static bool tell_row(struct lectern_stmt *s, struct run *r)
{
    if (s->row_callback == NULL)
        return true;
    run_pin(r);
    struct lectern_cluster *c = s->handle.db->cluster;
    lectern_on_row row = s->row_callback;
    void *arg = s->callback_arg;
    unsigned levels = cluster_release(c);
    int stop = row(arg, s);
    cluster_regain(c, levels);
    if (!run_unpin(r))
        return false;
    if (stop != 0 && !r->stopped) {
        r->stopped = true;
        run_cancel(r);
    }
    return true;
}

static void tell_end(struct lectern_stmt *s)
{
    struct lectern *db = s->handle.db;
    bool stopped = s->run != NULL && s->run->stopped;
    int code = s->state == STATEMENT_HALTED ? code_primary(s->last.code) : statement_end(s);
    if (stopped && (code == LECTERN_INTERRUPT || code == LECTERN_DONE)) {
        code = session_fail(db, LECTERN_ABORT, "%s", "");
        last_error_set(&s->last, LECTERN_ABORT);
    }
    s->started = false;
    s->state = STATEMENT_READY; /* to be bound and started again at once */
    lectern_on_end end = s->end_callback;
    if (end == NULL)
        return;
    struct lectern_cluster *c = db->cluster;
    void *arg = s->callback_arg;
    unsigned levels = cluster_release(c);
    end(arg, s, code); /* S and DB may be gone after */
    cluster_regain(c, levels);
}

static void on_ready(struct run *r)
{
    struct lectern_stmt *s = r->owner;
    if (s->kind != CALL_READ && !r->ended)
        return; /* its rows are told when it is known that they are true */
    run_extend(r);
    int code = LECTERN_ROW;
    while (!r->stopped && (code = statement_next_row(s)) == LECTERN_ROW)
        if (!tell_row(s, r))
            return;
    if (s->state == STATEMENT_HALTED || r->ended) /* HALTED: failed here, and R is released */
        tell_end(s);
}

int lectern_start(lectern_stmt *s, lectern_on_row row, lectern_on_end end, void *arg)
{
    if (!statement_enter(s))
        return LECTERN_MISUSE;
    struct lectern *db = s->handle.db;
    struct lectern_cluster *c = db->cluster;
    int code;
    if (s->started || s->state == STATEMENT_RUN) {
        code = session_fail(db, LECTERN_MISUSE, "the statement runs already");
    } else if (s->prefetched) {
        code = session_fail(db, LECTERN_MISUSE, "the rows of a batch are here: step them");
    } else {
        session_heed_interrupt(db); /* of what ran before */
        s->row_callback = row;
        s->end_callback = end;
        s->callback_arg = arg;
        code = statement_begin(s, on_ready);
        s->started = code == LECTERN_OK;
        if (!s->started)
            s->state = STATEMENT_READY;
        else
            code = session_ok(db);
    }
    session_leave(c);
    return code;
}
