/* Room: client.   Thread: any, one at a time on one session; blocks.
 * Owns: one export: the copy, the list of nodes.
 * Invariants: the cluster's lock is not held while pages are taken or a file is written, so that
 *   other sessions of the cluster go on; what is used of DB meanwhile is constant or atomic, and DB
 *   cannot be closed.
 * Not here: the file and the rounds (image_copy.c).
 *
 * Nodes are asked in turn, followers first; the list is made anew when all have failed. Given up
 * when nobody gave a page for the session's time limit. */
#include "base/clock.h"
#include "client/handle.h"
#include "client/image_copy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX     64u
#define PAUSE_MS      200
#define FINISHES_MAX  3 /* the disk gave back something else than was written */
#define ADDRESS_BYTES URL_ADDRESS_MAX

struct node {
    char address[ADDRESS_BYTES];
    bool leads, well;
    int64_t lag;
};

struct export
{
    struct lectern *db;
    struct image_copy *copy;
    uint64_t cluster_id, min_seq, began_ms, limit_ms;
    unsigned interrupts; /* of DB, before */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    bool interrupted;
    struct node nodes[NODES_MAX];
    unsigned n_nodes;
};

/* --- the nodes -------------------------------------------------------------------------------- */

static const char *text_of(struct lectern_stmt *s, int column)
{
    const char *text = (const char *)lectern_column_text(s, column);
    return text == NULL ? "" : text;
}

static void take_row(struct export *x, struct lectern_stmt *s)
{
    struct node n = {.well = true};
    for (int i = 0; i < lectern_column_count(s); i++) {
        const char *name = lectern_column_name(s, i);
        if (name == NULL)
            continue;
        if (strcmp(name, "address") == 0)
            (void)snprintf(n.address, sizeof n.address, "%s", text_of(s, i));
        else if (strcmp(name, "role") == 0)
            n.leads = strcmp(text_of(s, i), "leader") == 0;
        else if (strcmp(name, "lag") == 0)
            n.lag = lectern_column_int64(s, i);
        else if (strcmp(name, "state") == 0)
            n.well = strcmp(text_of(s, i), "ok") == 0;
    }
    if (n.address[0] != '\0' && x->n_nodes < NODES_MAX)
        x->nodes[x->n_nodes++] = n;
}

static bool is_better(const struct node *a, const struct node *b)
{
    if (a->well != b->well)
        return a->well;
    if (a->leads != b->leads)
        return !a->leads;
    return a->lag < b->lag;
}

static void sort_nodes(struct export *x)
{
    for (unsigned i = 1; i < x->n_nodes; i++)
        for (unsigned k = i; k > 0 && is_better(&x->nodes[k], &x->nodes[k - 1]); k--) {
            struct node n = x->nodes[k];
            x->nodes[k] = x->nodes[k - 1];
            x->nodes[k - 1] = n;
        }
}

/* From whoever answers. The session's error is set. */
static int list_nodes(struct export *x)
{
    struct lectern_stmt *s = NULL;
    int code = lectern_prepare_status(x->db, &s);
    x->n_nodes = 0;
    while (code == LECTERN_OK && (code = lectern_step(s)) == LECTERN_ROW) {
        take_row(x, s);
        code = LECTERN_OK;
    }
    /* finalize would make the error of step its own, which is the same. */
    int ended = lectern_finalize(s);
    sort_nodes(x);
    return code == LECTERN_DONE ? LECTERN_OK : code != LECTERN_OK ? code : ended;
}

/* --- one export ------------------------------------------------------------------------------- */

static bool must_stop(void *arg)
{
    struct export *x = arg;
    /* Another thread's turn may have heeded it already. */
    if (atomic_load(&x->db->interrupted) || atomic_load(&x->db->interrupts) != x->interrupts)
        x->interrupted = true;
    return x->interrupted;
}

static int on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct export *x = arg;
    return x->progress == NULL ? 0 : x->progress(x->arg, done, total);
}

/* No other node helps. */
static bool is_final(enum err e)
{
    return e == ERR_OK || e == ERR_IO || e == ERR_FULL || e == ERR_CANCELLED || e == ERR_NOMEM ||
           e == ERR_LOCKED || e == ERR_MISUSE;
}

static bool is_late(const struct export *x)
{
    uint64_t last = image_copy_last_ms(x->copy);
    if (last < x->began_ms)
        last = x->began_ms;
    return clock_mono_ms() > last + x->limit_ms;
}

/* All nodes once; the last error is that of the last one. */
static enum err ask_nodes(struct export *x)
{
    enum err e = err_fail(ERR_NO_LEADER, "no node of the cluster is known");
    for (unsigned i = 0; i < x->n_nodes; i++) {
        e = image_copy_from(x->copy, x->nodes[i].address, x->cluster_id, x->min_seq);
        if (is_final(e) || is_late(x))
            return e;
    }
    return e;
}

static enum err pause_a_moment(struct export *x)
{
    uint64_t until = clock_mono_ms() + PAUSE_MS;
    cluster_lock(x->db->cluster);
    bool paused = session_pause(x->db, until);
    cluster_unlock(x->db->cluster);
    if (must_stop(x) || (!paused && clock_mono_ms() < until))
        return err_fail(ERR_CANCELLED, "the export was interrupted");
    return ERR_OK;
}

/* How it ended, E, is the session's error. */
static int end_with(struct export *x, enum err e)
{
    cluster_lock(x->db->cluster);
    int code = e == ERR_OK ? session_ok(x->db) : session_fail_err(x->db, e);
    cluster_unlock(x->db->cluster);
    return code;
}

static int give_up(struct export *x, enum err e)
{
    char why[ERR_TEXT_MAX];
    if (is_final(e))
        return end_with(x, e);
    (void)snprintf(why, sizeof why, "%s", err_text());
    cluster_lock(x->db->cluster);
    int code =
        session_fail(x->db, LECTERN_UNAVAILABLE,
                     "no node gave a page for %" PRIu64 " ms, the last one asked says: %.150s",
                     x->limit_ms, why);
    cluster_unlock(x->db->cluster);
    return code;
}

/* Until all is here. */
static int copy_all(struct export *x)
{
    for (;;) {
        int code = list_nodes(x);
        if (code != LECTERN_OK)
            return code;
        enum err e = ask_nodes(x);
        if (e == ERR_OK)
            return LECTERN_OK;
        if (is_final(e) || is_late(x))
            return give_up(x, e);
        e = pause_a_moment(x);
        if (e != ERR_OK)
            return give_up(x, e);
    }
}

static int run(struct export *x)
{
    for (unsigned tries = 1;; tries++) {
        int code = copy_all(x);
        if (code != LECTERN_OK)
            return code;
        enum err e = image_copy_finish(x->copy);
        if (e != ERR_DIVERGED || tries == FINISHES_MAX)
            return end_with(x, e == ERR_DIVERGED ? ERR_IO : e);
    }
}

/* Without the lock. */
static int export_to(struct export *x, const char *path)
{
    enum err e = image_copy_new(path, on_progress, must_stop, x, &x->copy);
    if (e != ERR_OK)
        return end_with(x, e);
    int code = list_nodes(x); /* also makes the cluster's id known */
    cluster_lock(x->db->cluster);
    x->cluster_id = cluster_id(x->db->cluster);
    cluster_unlock(x->db->cluster);
    if (code == LECTERN_OK)
        code = run(x);
    image_copy_free(x->copy);
    return code;
}

int lectern_export(lectern *db, const char *path,
                   int (*progress)(void *arg, uint64_t done, uint64_t total), void *arg)
{
    if (!session_enter(db))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = db->cluster;
    int code = LECTERN_OK;
    if (path == NULL || path[0] == '\0')
        code = session_fail(db, LECTERN_MISUSE, "no path to export to");
    else if (stream_in_transaction(db->stream))
        code = session_fail(db, LECTERN_MISUSE, "an export is no part of a transaction: end it");
    struct export *x = code == LECTERN_OK ? calloc(1, sizeof *x) : NULL;
    if (code == LECTERN_OK && x == NULL)
        code = session_is(db, LECTERN_NOMEM);
    if (x != NULL) {
        session_heed_interrupt(db); /* of what ran before */
        *x = (struct export){.db = db,
                             .min_seq = stream_position(db->stream),
                             .began_ms = clock_mono_ms(),
                             .limit_ms = db->timeout_ms,
                             .interrupts = atomic_load(&db->interrupts),
                             .progress = progress,
                             .arg = arg};
        db->calls++;
        unsigned levels = cluster_release(c);
        code = export_to(x, path);
        cluster_regain(c, levels);
        db->calls--;
        session_heed_interrupt(db); /* what ended this ends what else runs */
        free(x);
    }
    session_leave(c);
    return code;
}
