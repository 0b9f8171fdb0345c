/* Room: replication. Checkpoints on a thread of their own, and the decision to restart the WAL.
 * Thread: owner for every function but the thread's main; they share `state` and `rc` under a lock.
 * Owns: the checkpoint thread and its stock connection.
 * Invariants:
 *   - the CHECKPOINT lock is the owner's except from start() to reap(), so at most one checkpoint
 *     runs, and it is ours or, in that gap, one that another process slipped in;
 *   - a WAL is restarted only while the owner holds CHECKPOINT, all is backfilled and the read-mark
 *     locks 1..4 are held: a checkpoint and a restart never overlap (the WAL-reset bug of SQLite
 *     before 3.51.3 needs that overlap);
 *   - holds_readers ends with the next published transaction, or with the view.
 * Not here: writing the new WAL (publish.c), the private wal-index (view.c).
 *
 *   WAL bytes     0 ......... wal_checkpoint_bytes ......... wal_restart_bytes ...
 *   not copied        nothing      | checkpoint beside the work | + ask for quiet, copy the small
 *                                                                 rest, take the marks, restart
 *
 * Far beyond it (FAR_TOO_LONG) the rest is copied while others wait, whatever it is.
 *
 * A reader inside the WAL holds both back. It is never waited for long: the attempt ends after
 * QUIET_MAX_MS of standing still, and the next one comes after a pause that doubles. While all is
 * copied, new readers take mark 0 and do not count; so with short reads an attempt succeeds. */
#include "replication/database.h"
#include "replication/view.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <time.h>

/* What a restart may cost the writers, or a follower's entries, before it is given up for now. */
#define QUIET_MAX_MS 200
/* One call of upkeep waits this long on a leader; its lane stands still between calls as well. */
#define LEADER_WAIT_MS 20
/* But the copy of the rest is waited for however slow the disk is (within reason). */
#define COPY_MAX_MS 5000
/* Between two looks at the readers: most reads end within microseconds. */
#define LOOK_NS 200000
/* After a checkpoint that readers held back; after an attempt to restart, doubling. */
#define CHECKPOINT_PAUSE_MS  50
#define RESTART_PAUSE_MS     200
#define RESTART_PAUSE_MAX_MS 8000
/* The rest that is copied while others wait, as a part of wal_checkpoint_bytes. */
#define REST_DIVISOR 4
/* This many times wal_restart_bytes, and the rest is copied while others wait, whatever it is. */
#define FAR_TOO_LONG 2

enum checkpoint_state { CHECKPOINT_IDLE, CHECKPOINT_RUNNING, CHECKPOINT_DONE, CHECKPOINT_QUIT };

struct checkpointer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum checkpoint_state state; /* under lock, as `rc` */
    int rc;
    sqlite3 *conn; /* the thread's, once it runs */
    /* The owner's. */
    uint32_t backfilled_before; /* when the running one began */
    bool foreign;               /* when last asked for, CHECKPOINT was another process's */
    uint64_t checkpoint_not_before_ms;
    uint64_t restart_not_before_ms, restart_pause_ms;
    uint64_t still_since_ms; /* since when a quiet leader waits for its restart; 0: it does not */
};

/* --- the thread ------------------------------------------------------------------------------- */

static void *checkpoint_main(void *arg)
{
    struct checkpointer *c = arg;
    (void)pthread_mutex_lock(&c->lock);
    while (c->state != CHECKPOINT_QUIT) {
        if (c->state != CHECKPOINT_RUNNING) {
            (void)pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&c->lock);
        int rc = sqlite3_wal_checkpoint_v2(c->conn, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        (void)pthread_mutex_lock(&c->lock);
        c->rc = rc;
        c->state = CHECKPOINT_DONE;
        (void)pthread_cond_broadcast(&c->changed);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* A stock connection whose checkpoint syncs the WAL before, and the database after. */
static int open_connection(const char *path, sqlite3 **conn)
{
    int rc = sqlite3_open_v2(path, conn, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_extended_result_codes(*conn, 1);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(*conn, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_wal_autocheckpoint(*conn, 0);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(*conn, "PRAGMA synchronous=FULL; SELECT count(*) FROM sqlite_schema",
                          NULL, NULL, NULL);
    return rc;
}

enum err checkpoint_open(struct repl_db *db)
{
    CHECK(db->checkpointer == NULL);
    struct checkpointer *c = MEM_NEW(struct checkpointer);
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&c->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&c->lock, NULL);
    c->restart_pause_ms = RESTART_PAUSE_MS;
    enum err e = sqlite_error(open_connection(db->config.path, &c->conn), "open", db->config.path);
    if (e == ERR_OK)
        e = thread_start(&c->thread, "checkpoint", checkpoint_main, c);
    if (e == ERR_OK) {
        db->checkpointer = c;
        return ERR_OK;
    }
    (void)sqlite3_close(c->conn);
    (void)pthread_cond_destroy(&c->changed);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
    return e;
}

/* Waits until no checkpoint runs, at most TIMEOUT_MS. */
static bool wait_idle(struct checkpointer *c, uint64_t timeout_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_mutex_lock(&c->lock);
    int timed_out = 0;
    while (c->state == CHECKPOINT_RUNNING && timed_out == 0)
        timed_out = pthread_cond_timedwait(&c->changed, &c->lock, &until);
    bool idle = c->state != CHECKPOINT_RUNNING;
    (void)pthread_mutex_unlock(&c->lock);
    return idle;
}

static void set_state(struct checkpointer *c, enum checkpoint_state state)
{
    (void)pthread_mutex_lock(&c->lock);
    c->state = state;
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
}

void checkpoint_close(struct repl_db *db)
{
    struct checkpointer *c = db->checkpointer;
    while (!wait_idle(c, 1000))
        log_warn("replication", "waiting for the checkpoint of %s", db->config.path);
    set_state(c, CHECKPOINT_QUIT);
    (void)pthread_join(c->thread, NULL);
    CHECK(sqlite3_close(c->conn) == SQLITE_OK);
    (void)pthread_cond_destroy(&c->changed);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
    db->checkpointer = NULL;
}

static uint64_t wal_bytes(const struct repl_db *db, uint32_t frames)
{
    return frames * (WAL_FRAME_HEADER_BYTES + (uint64_t)db->config.page_size);
}

/* --- one checkpoint --------------------------------------------------------------------------- */

/* The lock goes to the thread's connection. */
static void start(struct repl_db *db, uint32_t backfilled) ON_OWNER
{
    CHECK(db->holds_checkpoint && !db->holds_readers);
    db->checkpointer->backfilled_before = backfilled;
    wal_unlock(db->db_file, WAL_LOCK_CHECKPOINT, 1, true);
    db->holds_checkpoint = false;
    set_state(db->checkpointer, CHECKPOINT_RUNNING);
}

static enum err read_backfilled(struct repl_db *db, uint32_t *backfilled) ON_OWNER
{
    struct wal_index_state x;
    TRY(wal_index_read(db->index, &x));
    if (x.frames != db->frames || x.backfilled > x.frames)
        return err_fail(ERR_CORRUPT,
                        "the wal-index of %s says %u frames, %u backfilled; this node published "
                        "%u: another program wrote to it",
                        db->config.path, x.frames, x.backfilled, db->frames);
    *backfilled = x.backfilled;
    atomic_store_explicit(&db->stat_backfilled_bytes, wal_bytes(db, x.backfilled),
                          memory_order_relaxed);
    return ERR_OK;
}

/* Takes the result of a finished checkpoint. */
static enum err take_result(struct repl_db *db, int rc) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    uint32_t backfilled;
    if ((rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED) {
        /* Another process checkpoints. */
        c->checkpoint_not_before_ms = clock_mono_ms() + CHECKPOINT_PAUSE_MS;
        return ERR_OK;
    }
    TRY(sqlite_error(rc, "checkpoint", db->config.path));
    TRY(read_backfilled(db, &backfilled));
    atomic_fetch_add_explicit(&db->stat_checkpoints, 1, memory_order_relaxed);
    if (backfilled <= c->backfilled_before) /* a reader holds it back */
        c->checkpoint_not_before_ms = clock_mono_ms() + CHECKPOINT_PAUSE_MS;
    return ERR_OK;
}

/* *is_free: no checkpoint runs and the lock is ours again. */
static enum err reap(struct repl_db *db, bool *is_free) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    *is_free = false;
    (void)pthread_mutex_lock(&c->lock);
    enum checkpoint_state state = c->state;
    int rc = c->rc;
    (void)pthread_mutex_unlock(&c->lock);
    c->foreign = false;
    if (state == CHECKPOINT_RUNNING)
        return ERR_OK;
    if (!db->holds_checkpoint) {
        enum err e = wal_lock(db->db_file, WAL_LOCK_CHECKPOINT, 1, true);
        c->foreign = e == ERR_LOCKED;
        if (c->foreign)
            return ERR_OK; /* another process was quicker: next time */
        TRY(e);
        db->holds_checkpoint = true;
    }
    *is_free = true;
    if (state != CHECKPOINT_DONE)
        return ERR_OK;
    set_state(c, CHECKPOINT_IDLE);
    return take_result(db, rc);
}

enum err checkpoint_all(struct repl_db *db)
{
    bool is_free;
    checkpoint_release_readers(db); /* a follower's restart that did not come */
    (void)wait_idle(db->checkpointer, UINT32_MAX);
    TRY(reap(db, &is_free));
    if (is_free && db->frames > 0) {
        start(db, 0);
        (void)wait_idle(db->checkpointer, UINT32_MAX);
        TRY(reap(db, &is_free));
    }
    /* What a reader kept in the WAL must be there when `position` says so. */
    return sqlite_error(db->wal_file->pMethods->xSync(db->wal_file, SQLITE_SYNC_NORMAL), "sync",
                        db->wal_path);
}

/* --- restarting the WAL ----------------------------------------------------------------------- */

static bool wal_is_long(const struct repl_db *db)
{
    return db->frames > 0 && wal_bytes(db, db->frames) >= db->config.wal_restart_bytes;
}

static bool take_readers(struct repl_db *db) ON_OWNER
{
    CHECK(db->holds_checkpoint && !db->holds_readers);
    db->holds_readers = wal_lock(db->db_file, WAL_LOCK_READ(1), WAL_READERS - 1, true) == ERR_OK;
    return db->holds_readers;
}

void checkpoint_release_readers(struct repl_db *db)
{
    if (!db->holds_readers)
        return;
    wal_unlock(db->db_file, WAL_LOCK_READ(1), WAL_READERS - 1, true);
    db->holds_readers = false;
}

bool checkpoint_restart_ready(struct repl_db *db)
{
    uint32_t backfilled;
    CHECK(db->view == NULL);
    if (db->holds_readers)
        return true;
    return db->holds_checkpoint && wal_is_long(db) && read_backfilled(db, &backfilled) == ERR_OK &&
           backfilled == db->frames && take_readers(db);
}

/* Nobody writes: copies the small rest and takes the marks, trying again while readers that began
 * before are inside the WAL, until UNTIL_MS. One copy may last COPY_MS. *done: the marks are ours.
 */
static enum err settle(struct repl_db *db, uint64_t until_ms, uint64_t copy_ms, bool *done) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    bool started = false, is_free;
    *done = false;
    for (;;) {
        uint32_t backfilled;
        (void)wait_idle(c, copy_ms);
        TRY(reap(db, &is_free));
        if (!is_free)
            return ERR_OK;
        TRY(read_backfilled(db, &backfilled));
        *done = backfilled == db->frames && take_readers(db);
        if (*done || clock_mono_ms() >= until_ms)
            return ERR_OK;
        bool stuck = backfilled == db->frames || (started && backfilled <= c->backfilled_before);
        if (stuck)
            (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
        if (backfilled < db->frames) {
            start(db, backfilled);
            started = true;
        }
    }
}

/* An attempt to restart ended. */
static void restart_attempted(struct checkpointer *c, bool done)
{
    c->still_since_ms = 0;
    if (done) {
        c->restart_pause_ms = RESTART_PAUSE_MS;
        return;
    }
    c->restart_not_before_ms = clock_mono_ms() + c->restart_pause_ms;
    c->restart_pause_ms *= 2;
    if (c->restart_pause_ms > RESTART_PAUSE_MAX_MS)
        c->restart_pause_ms = RESTART_PAUSE_MAX_MS;
}

/* Not worth that anybody stands still: another process checkpoints, for as long as it likes, or the
 * node says quiet while a connection of the view is inside a transaction. */
static bool restart_is_hopeless(const struct repl_db *db, bool quiet) ON_OWNER
{
    return db->checkpointer->foreign || (quiet && view_in_use(db->view));
}

static enum err restart_as_leader(struct repl_db *db, bool quiet, bool *wants_quiet) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    bool done;
    if (restart_is_hopeless(db, quiet)) {
        restart_attempted(c, false);
        return ERR_OK;
    }
    *wants_quiet = true;
    if (!quiet || view_unpublished(db->view) > 0) {
        c->still_since_ms = 0;
        return ERR_OK;
    }
    uint64_t now = clock_mono_ms();
    if (c->still_since_ms == 0)
        c->still_since_ms = now;
    TRY(settle(db, now + LEADER_WAIT_MS, LEADER_WAIT_MS, &done));
    uint64_t still_ms = clock_mono_ms() - c->still_since_ms;
    if (done)
        view_allow_restart(db->view);
    else if (!c->foreign && still_ms <= (db->holds_checkpoint ? QUIET_MAX_MS : COPY_MAX_MS))
        return ERR_OK; /* our copy is on its way, or readers may still end */
    restart_attempted(c, done);
    *wants_quiet = false;
    return ERR_OK;
}

static enum err restart_as_follower(struct repl_db *db) ON_OWNER
{
    bool done;
    TRY(settle(db, clock_mono_ms() + QUIET_MAX_MS, COPY_MAX_MS, &done));
    restart_attempted(db->checkpointer, done);
    return ERR_OK;
}

/* Writes come as fast as they are copied: without a pause it would grow for ever. */
static bool wal_is_far_too_long(const struct repl_db *db)
{
    return wal_bytes(db, db->frames) >= db->config.wal_restart_bytes * FAR_TOO_LONG;
}

/* Few enough frames for others to wait until they are copied. */
static bool rest_is_small(const struct repl_db *db, uint32_t rest)
{
    return rest <= 1 || wal_bytes(db, rest) <= db->config.wal_checkpoint_bytes / REST_DIVISOR;
}

static enum err upkeep(struct repl_db *db, bool quiet, bool *wants_quiet) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    bool is_free;
    uint32_t backfilled;
    TRY(reap(db, &is_free));
    if (db->frames == 0 || db->holds_readers)
        return ERR_OK;
    uint64_t now = clock_mono_ms();
    bool hurry = c->still_since_ms != 0 || wal_is_far_too_long(db);
    if (!is_free && !hurry)
        return ERR_OK;
    TRY(read_backfilled(db, &backfilled));
    uint32_t rest = db->frames - backfilled;
    if (wal_is_long(db) && (hurry || rest_is_small(db, rest)) && now >= c->restart_not_before_ms)
        return db->view != NULL ? restart_as_leader(db, quiet, wants_quiet)
                                : restart_as_follower(db);
    bool wanted = wal_is_long(db) ? !rest_is_small(db, rest)
                                  : wal_bytes(db, rest) >= db->config.wal_checkpoint_bytes;
    if (is_free && wanted && now >= c->checkpoint_not_before_ms)
        start(db, backfilled);
    return ERR_OK;
}

enum err repl_db_upkeep(struct repl_db *db, bool quiet, bool *wants_quiet)
{
    *wants_quiet = false;
    TRY(database_check(db));
    enum err e = upkeep(db, quiet, wants_quiet);
    return e == ERR_OK ? ERR_OK : database_stop(db, e);
}
