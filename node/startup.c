/* Room: node. Thread: main.
 * Owns: nothing beyond its calls.
 *
 *   fetched, COMPLETE                      consensus goes on behind its state, it becomes main.db
 *   main.db good, the log reaches it       ordinary start
 *   missing, damaged, too old, or a fetch
 *     was begun, or a recovery given up
 *                -- log begins with 1      an empty database, built from the own log
 *                -- log begins later       fetched from another node
 *   not ours, or another cluster's         refused; nothing is touched
 *
 * Invariants: a database is given up only when it is this node's own (its `position` lies beside
 * it, or it is the place of one that this node's log tells of) and all that it held comes again
 * from the log or from another node. A crash anywhere here leads back to the same table. Not here:
 * fetching (fetch.c); the check against the log (recover.c). */
#include "node/startup.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/lost_majority.h"
#include "node/record.h"
#include "node/recover.h"
#include "node/replay.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *database_path(const struct config *c)
{
    return mem_printf("%s/main.db", c->data);
}

/* --- what a fetch has left -------------------------------------------------------------------- */

static enum err look_at_fetch(const char *path, struct startup *s)
{
    enum repl_fetch_state state;
    struct repl_image_head head;
    struct lane_mark m;
    uint8_t *note = mem_alloc(REPL_FETCH_NOTE_MAX);
    size_t len = 0;
    enum err e = repl_fetch_look(path, &state, &head, note, &len);
    s->begun = e == ERR_OK && state == REPL_FETCH_BEGUN;
    s->complete = e == ERR_OK && state == REPL_FETCH_COMPLETE;
    if (s->complete)
        e = record_get(note, len, &s->base);
    free(note);
    if (e != ERR_OK || !s->complete)
        return e;
    TRY(note_decode(&s->base, &m));
    if (m.seq != head.seq || m.checksum != head.checksum || m.pages != head.pages ||
        m.page_size != head.page_size)
        return err_fail(ERR_CORRUPT, "%s.fetched tells of two different states", path);
    return ERR_OK;
}

enum err startup_look(const struct config *c, struct startup *s)
{
    *s = (struct startup){0};
    TRY(file_make_dirs(c->data));
    char *path = database_path(c);
    enum err e = look_at_fetch(path, s);
    /* The word COMPLETE is damaged: the pages are still of use, and are verified anyway. */
    if (e == ERR_CORRUPT) {
        log_warn("startup", "fetch-begins-again reason=\"%s\"", err_text());
        startup_fini(s);
        *s = (struct startup){.begun = true};
        e = ERR_OK;
    }
    s->given_up = lost_majority_given_up(c->data);
    free(path);
    return e;
}

void startup_fini(struct startup *s)
{
    if (s->base.members != NULL)
        cns_payload_unref(s->base.members);
    s->base.members = NULL;
}

/* The database of a recovery that was given up is gone. In a recovery it is about to be made. */
static enum err forget_recovery(const struct node *n)
{
    return n->past->alone ? ERR_OK : lost_majority_forget(n->config->data);
}

/* Consensus first: if we die in between, COMPLETE is still there and both are done again. */
static enum err install(struct node *n, struct startup *s, const char *path) ON_LOOP
{
    TRY(cns_install(n->cns, &s->base));
    TRY(repl_fetch_install(path));
    TRY(forget_recovery(n));
    log_info("startup", "installed index=%" PRIu64 " term=%" PRIu64, s->base.index, s->base.term);
    return ERR_OK;
}

/* --- without a usable database ---------------------------------------------------------------- */

/* Is there anybody to fetch from? A node that joins was told of somebody. */
static bool has_others(const struct node *n) ON_LOOP
{
    unsigned members = 0;
    if (n->past->alone)
        return false;
    if (n->cns == NULL)
        return true;
    (void)cns_members(n->cns, &members);
    return members > 1;
}

bool startup_may_fetch(const struct node *n)
{
    return n->config->repair != 0 && has_others(n);
}

static enum err open_lane(struct node *n) ON_LOOP
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    enum err e = lane_open(n->config, &n->mail, &n->lane);
    thread_become(THREAD_LOOP);
    return e;
}

static void close_lane(struct node *n) ON_LOOP
{
    char sentence[ERR_TEXT_MAX]; /* closing may say something of its own */
    (void)snprintf(sentence, sizeof sentence, "%s", err_text());
    lane_close(n->lane);
    n->lane = NULL;
    (void)err_fail(ERR_CORRUPT, "%s", sentence);
}

/* All that the database held is in the log: it is applied again, as Raft commits it. */
static enum err build_from_log(struct node *n, const char *reason, uint64_t *applied) ON_LOOP
{
    log_warn("startup", "rebuild reason=\"%s\" what=\"an empty database is built from the log\"",
             reason);
    char *path = database_path(n->config);
    enum err e = repl_fetch_drop(path);
    free(path);
    TRY(e);
    TRY(forget_recovery(n));
    TRY(open_lane(n));
    n->past->repairs++;
    n->past->repaired_ms = clock_mono_ms();
    n->past->damaged = false;
    *applied = 0;
    return ERR_OK;
}

/* REASON: why there is no usable database. A fetch that was BEGUN is gone on with, and a log that
 * is BEHIND the leader's (past->index_min) is of no use to build from. */
static enum err without_database(struct node *n, const char *reason, bool begun,
                                 uint64_t *applied) ON_LOOP
{
    struct cns_snapshot snapshot;
    bool whole_log =
        n->cns != NULL && cns_first_index(n->cns) == 1 && !cns_snapshot_get(n->cns, &snapshot);
    bool wanted = begun || n->past->index_min > 0; /* no damage, or decided already */
    if (whole_log && !(wanted && has_others(n)))
        return build_from_log(n, reason, applied);
    if (!(wanted && has_others(n)) && !startup_may_fetch(n))
        return err_fail(ERR_CORRUPT, "%.300s. %s", reason,
                        has_others(n) ? "It is not repaired from another node: --repair=0"
                                      : "There is nobody to fetch the database from");
    uint64_t first = n->cns == NULL ? 0 : cns_first_index(n->cns);
    if (first > 0 && n->past->index_min < first - 1)
        n->past->index_min = first - 1;
    if (reason != n->past->reason)
        (void)snprintf(n->past->reason, sizeof n->past->reason, "%s", reason);
    log_warn("startup", "fetch reason=\"%s\" index_min=%" PRIu64, n->past->reason,
             n->past->index_min);
    return ERR_OK;
}

/* --- the table -------------------------------------------------------------------------------- */

/* Did repl_db_open refuse files that are this node's own, and damaged? */
static bool is_damage(const struct node *n, enum err e) ON_LOOP
{
    struct cns_status st;
    char *position = mem_printf("%s/position", n->config->data);
    bool noted = file_is_there(position);
    free(position);
    cns_get_status(n->cns, &st);
    return (e == ERR_CORRUPT || e == ERR_DIVERGED) &&
           (noted || st.snapshot_index > 0 || st.last_index > 2);
}

/* main.db is gone, or its place was never filled: an empty one is begun by lane_open. */
static enum err try_database(struct node *n, uint64_t *applied) ON_LOOP
{
    struct recovered r = {0};
    char reason[ERR_TEXT_MAX];
    enum err e = open_lane(n);
    if (e == ERR_OK) {
        e = recover_position(lane_db(n->lane), n->cns, &r);
        thread_become(THREAD_LOOP);
    }
    if (e == ERR_OK && !r.behind)
        e = replay_outcomes(lane_outcomes(n->lane), n->cns, r.applied,
                            repl_db_published(lane_db(n->lane)), REPLAY_BYTES_MAX);
    if (e == ERR_OK && !r.behind) {
        *applied = r.applied;
        return ERR_OK;
    }
    if (e == ERR_OK)
        (void)err_fail(ERR_DIVERGED, "the database is older than the beginning of this node's log");
    bool give_up = e == ERR_OK || is_damage(n, e);
    (void)snprintf(reason, sizeof reason, "%s", err_text());
    if (n->lane != NULL)
        close_lane(n);
    if (!give_up || (r.not_ours && !startup_may_fetch(n)))
        return err_fail(e, "%s", reason);
    return without_database(n, reason, false, applied);
}

/* It holds whatever the log ended with, and the cluster may have taken some of that back. */
static void doubt_database(struct node *n) ON_LOOP
{
    struct node_past *past = n->past;
    if (past->damaged)
        return;
    past->damaged = true;
    (void)snprintf(
        past->reason, sizeof past->reason,
        "`lecternd recover` was begun on %s and not ended, so the database may hold what "
        "the cluster has taken back",
        n->config->data);
}

enum err startup_database(struct node *n, struct startup *s, uint64_t *applied)
{
    char *path = database_path(n->config);
    enum err e = ERR_OK;
    *applied = 0;
    if (s->given_up && !s->complete && !n->past->alone)
        doubt_database(n);
    if (s->complete && n->cns != NULL)
        e = install(n, s, path);
    if (e == ERR_OK && s->begun)
        e = without_database(
            n, n->past->reason[0] != 0 ? n->past->reason : "a fetch was begun and not finished",
            true, applied);
    else if (e == ERR_OK && n->past->damaged && !s->complete)
        e = without_database(n, n->past->reason, false, applied);
    else if (e == ERR_OK && n->cns == NULL)
        e = without_database(n, "this node joins the cluster", true, applied);
    else if (e == ERR_OK)
        e = try_database(n, applied);
    free(path);
    return e;
}
