/* Room: replication. Checkpoints on a thread of their own, and the decision to restart the WAL.
 * Thread: owner for every function but the thread's main and what it calls; they share the fields
 *   said to be under the lock.
 * Owns: the checkpoint thread and its connection.
 * Invariants:
 *   - the CHECKPOINT lock is the owner's except from start() to reap(), so at most one checkpoint
 *     runs, and it is ours or, in that gap, one that another process slipped in;
 *   - a WAL is restarted only while the owner holds CHECKPOINT, all is settled and the read-mark
 *     locks 1..4 are held: a checkpoint and a restart never overlap (the WAL-reset bug of SQLite
 *     before 3.51.3 needs that overlap);
 *   - settled: all frames are in the database file, that was synced afterwards (whoever copied
 *     them: another process's checkpoint may have slipped in and not synced), and their hashes are
 *     in `hashes`, synced;
 *   - a full disk is no end: the checkpoint is tried again, and the WAL grows meanwhile;
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

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What a restart may cost the writers, or a follower's entries, before it is given up for now. */
#define QUIET_MAX_MS 200
/* One call of upkeep waits this long on a leader; its lane stands still between calls as well. */
#define LEADER_WAIT_MS 20
/* But the copy of the rest is waited for however slow the disk is (within reason). */
#define COPY_MAX_MS 5000
/* Between two looks at the readers: most reads end within microseconds. */
#define LOOK_NS 200000
/* Between two looks at another process's checkpoint, and lines about it. */
#define HOLD_LOOK_NS      5000000
#define HOLD_LOOKS_A_LINE 200
/* After a checkpoint that readers held back; after an attempt to restart, doubling. */
#define CHECKPOINT_PAUSE_MS  50
#define RESTART_PAUSE_MS     200
#define RESTART_PAUSE_MAX_MS 8000
/* The rest that is copied while others wait, as a part of wal_checkpoint_bytes: so little that the
 * syncs are all that takes time. When checkpoints beside the work do not come down to it, because
 * writes come as fast as that, a larger part. */
#define REST_DIVISOR      64
#define REST_DIVISOR_BUSY 4
/* This many times wal_restart_bytes, and the rest is copied while others wait, whatever it is. */
#define FAR_TOO_LONG 2

/* After a full disk, before the next try. */
#define ROOM_PAUSE_MS 250

enum checkpoint_state { CHECKPOINT_IDLE, CHECKPOINT_RUNNING, CHECKPOINT_DONE, CHECKPOINT_QUIT };

/* An error of the thread, with its sentence. */
struct failure {
    enum err code;
    char text[ERR_TEXT_MAX];
};

struct checkpointer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum checkpoint_state state; /* under lock, as all up to `conn` */
    struct failure result;       /* of the last checkpoint */
    uint32_t settled;            /* frames, when it ended; 0: not all were copied */
    bool wants_sync, syncing;
    uint64_t sync_seq;          /* published when the sync was asked for */
    bool sync_database;         /* there were no frames then: it is main.db that holds all */
    struct failure sync_result; /* the first that failed stays */
    /* The thread's, once it runs. */
    sqlite3 *conn;
    sqlite3_file *db_file, *wal_file; /* of conn */
    const char *path;
    const uint32_t *backfilled;
    struct repl_db *db; /* for database_note_durable and `stored` only */
    /* The owner's. */
    uint32_t backfilled_before; /* when the running one began */
    uint32_t synced_frames;     /* settled frames of this WAL */
    uint32_t rest_before;       /* frames not copied, when the last one of a long WAL began */
    bool full;                  /* the last one met a full disk */
    bool foreign;               /* when last asked for, CHECKPOINT was another process's */
    uint64_t checkpoint_not_before_ms;
    uint64_t restart_not_before_ms, restart_pause_ms;
    uint64_t still_since_ms; /* since when a quiet leader waits for its restart; 0: it does not */
};

/* --- the thread ------------------------------------------------------------------------------- */

static void failure_set(struct failure *f, enum err code)
{
    f->code = code;
    if (code != ERR_OK)
        (void)snprintf(f->text, sizeof f->text, "%s", err_text());
}

static enum err failure_give(const struct failure *f)
{
    return f->code == ERR_OK ? ERR_OK : err_fail(f->code, "%s", f->text);
}

/* A sync that fails is never repeated, whatever the reason: the kernel may have dropped what it
 * could not write, and call the rest clean. */
static enum err sync_it(sqlite3_file *f, const char *path)
{
    return sqlite_file_error(f->pMethods->xSync(f, SQLITE_SYNC_NORMAL), f, "sync", path);
}

/* SQLite does not say which of the two files it was: the one that remembers an error. */
static enum err checkpoint_error(const struct checkpointer *c, int rc)
{
    int of_wal = 0, number = sqlite3_system_errno(c->conn);
    enum err e = sqlite_error(rc, "checkpoint", c->path);
    if (e != ERR_IO || (rc & 0xff) != SQLITE_IOERR || number == 0)
        return e;
    (void)c->wal_file->pMethods->xFileControl(c->wal_file, SQLITE_FCNTL_LAST_ERRNO, &of_wal);
    return err_fail(ERR_IO, "cannot checkpoint %s: %s (SQLite: %d)",
                    of_wal == number ? c->db->wal_path : c->path, strerror(number), rc);
}

/* Copies, and brings `hashes` up to date. *settled: how many frames, when it was all of them. */
static enum err run_checkpoint(struct checkpointer *c, uint32_t *settled)
{
    struct stored *stored = c->db->stored;
    int rc = sqlite3_wal_checkpoint_v2(c->conn, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    *settled = 0;
    TRY(checkpoint_error(c, rc));
    const uint32_t copied = __atomic_load_n(c->backfilled, __ATOMIC_ACQUIRE);
    const bool all = copied > 0 && copied == stored_frames(stored);
    if (all)
        TRY(sync_it(c->db_file, c->path));
    TRY(stored_flush(stored));
    if (all && stored_durable(stored) >= copied)
        *settled = copied;
    return ERR_OK;
}

/* With the lock held. After a failure that is final no sync is believed: the kernel says once that
 * it could not write, and calls clean what it dropped. */
static bool has_failed(const struct checkpointer *c)
{
    const enum err e = c->result.code;
    return c->sync_result.code != ERR_OK || (e != ERR_OK && e != ERR_LOCKED && e != ERR_FULL);
}

/* With the lock held; gives it back while it syncs. */
static void run_sync(struct checkpointer *c)
{
    struct failure f = {.code = ERR_OK};
    uint64_t seq = c->sync_seq;
    bool database = c->sync_database;
    c->wants_sync = false;
    if (has_failed(c))
        return;
    c->syncing = true;
    (void)pthread_mutex_unlock(&c->lock);
    enum err e = sync_it(c->wal_file, c->db->wal_path);
    if (e == ERR_OK && database)
        e = sync_it(c->db_file, c->path);
    failure_set(&f, e);
    if (e == ERR_OK)
        database_note_durable(c->db, seq);
    (void)pthread_mutex_lock(&c->lock);
    c->syncing = false;
    c->sync_result = f;
    (void)pthread_cond_broadcast(&c->changed);
}

static void *checkpoint_main(void *arg)
{
    struct checkpointer *c = arg;
    (void)pthread_mutex_lock(&c->lock);
    while (c->state != CHECKPOINT_QUIT) {
        if (c->wants_sync) {
            run_sync(c);
            continue;
        }
        if (c->state != CHECKPOINT_RUNNING) {
            (void)pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        struct failure f = c->sync_result;
        uint32_t settled = 0;
        (void)pthread_mutex_unlock(&c->lock);
        if (f.code == ERR_OK) { /* else the WAL's next sync would succeed, and mean nothing */
            uint64_t began = clock_mono_ns();
            failure_set(&f, run_checkpoint(c, &settled));
            histogram_add_ns(&c->db->stat_checkpoint_times, clock_mono_ns() - began);
        }
        (void)pthread_mutex_lock(&c->lock);
        c->result = f;
        c->settled = settled;
        c->state = CHECKPOINT_DONE;
        (void)pthread_cond_broadcast(&c->changed);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* A connection whose checkpoint syncs the WAL before, and the database after. What it copies is
 * compared with its hash on the way (verify_vfs.h). */
static int open_connection(struct checkpointer *c)
{
    sqlite3 **conn = &c->conn;
    int rc = sqlite3_open_v2(c->path, conn, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX,
                             verify_vfs_of(c->db->verify)->zName);
    if (rc == SQLITE_OK)
        rc = sqlite3_extended_result_codes(*conn, 1);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(*conn, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_wal_autocheckpoint(*conn, 0);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(*conn, "PRAGMA synchronous=FULL; SELECT count(*) FROM sqlite_schema",
                          NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(*conn, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&c->db_file);
    if (rc == SQLITE_OK)
        rc =
            sqlite3_file_control(*conn, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&c->wal_file);
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
    c->db = db;
    c->path = db->config.path;
    c->backfilled = wal_index_backfilled(db->index);
    enum err e = sqlite_error(open_connection(c), "open", db->config.path);
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

/* Waits until no checkpoint of ours runs. */
static void checkpoint_wait(struct repl_db *db)
{
    while (!wait_idle(db->checkpointer, 1000))
        log_warn("replication", "waiting for the checkpoint of %s", db->config.path);
}

enum err checkpoint_hold(struct repl_db *db)
{
    unsigned looks = 0;
    checkpoint_wait(db);
    while (!db->holds_checkpoint) {
        enum err e = wal_lock(db->db_file, WAL_LOCK_CHECKPOINT, 1, true);
        db->holds_checkpoint = e == ERR_OK;
        if (e != ERR_OK && e != ERR_LOCKED)
            return e;
        if (e == ERR_LOCKED && looks++ % HOLD_LOOKS_A_LINE == 0)
            log_warn("replication", "waiting for another process's checkpoint of %s",
                     db->config.path);
        if (e == ERR_LOCKED)
            (void)nanosleep(&(struct timespec){.tv_nsec = HOLD_LOOK_NS}, NULL);
    }
    return ERR_OK;
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
    checkpoint_wait(db);
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

static bool wal_is_long(const struct repl_db *db)
{
    return db->frames > 0 && wal_bytes(db, db->frames) >= db->config.wal_restart_bytes;
}

/* Since when readers stand in the way of a restart that is due. */
static void note_held_back(struct repl_db *db, bool held) ON_OWNER
{
    uint64_t since = atomic_load_explicit(&db->stat_restart_held_ms, memory_order_relaxed);
    if (held != (since != 0))
        atomic_store_explicit(&db->stat_restart_held_ms, held ? clock_mono_ms() : 0,
                              memory_order_relaxed);
}

/* Takes the result of a finished checkpoint. */
static enum err take_result(struct repl_db *db, const struct failure *f, uint32_t settled) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    uint32_t backfilled;
    enum err e = failure_give(f);
    c->full = e == ERR_FULL;
    database_note_room(db, ROOM_TO_CHECKPOINT, c->full);
    if (e == ERR_LOCKED || e == ERR_FULL) { /* another process checkpoints */
        c->checkpoint_not_before_ms =
            clock_mono_ms() + (e == ERR_FULL ? ROOM_PAUSE_MS : CHECKPOINT_PAUSE_MS);
        return ERR_OK;
    }
    TRY(e);
    c->synced_frames = settled;
    TRY(read_backfilled(db, &backfilled));
    atomic_fetch_add_explicit(&db->stat_checkpoints, 1, memory_order_relaxed);
    if (backfilled <= c->backfilled_before &&
        backfilled < db->frames) { /* a reader holds it back */
        c->checkpoint_not_before_ms = clock_mono_ms() + CHECKPOINT_PAUSE_MS;
        if (wal_is_long(db))
            note_held_back(db, true);
    }
    return ERR_OK;
}

/* The result of a sync that was asked for. */
static enum err reap_sync(struct repl_db *db) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    (void)pthread_mutex_lock(&c->lock);
    struct failure f = c->sync_result;
    (void)pthread_mutex_unlock(&c->lock);
    return failure_give(&f);
}

/* *is_free: no checkpoint runs and the lock is ours again. */
static enum err reap(struct repl_db *db, bool *is_free) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    *is_free = false;
    (void)pthread_mutex_lock(&c->lock);
    enum checkpoint_state state = c->state;
    struct failure result = c->result;
    uint32_t settled = c->settled;
    (void)pthread_mutex_unlock(&c->lock);
    c->foreign = false;
    TRY(reap_sync(db));
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
    return take_result(db, &result, settled);
}

void checkpoint_wal_begun(struct repl_db *db)
{
    db->checkpointer->synced_frames = 0;
    db->checkpointer->rest_before = UINT32_MAX;
    note_held_back(db, false);
    database_note_durable(db, db->position.seq);
}

void repl_db_want_durable(struct repl_db *db)
{
    struct checkpointer *c = db->checkpointer;
    if (db->stopped || !db->position_known || repl_db_durable(db) >= db->position.seq)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->wants_sync = true;
    c->sync_seq = db->position.seq;
    c->sync_database = db->frames == 0;
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
}

/* What a reader kept in the WAL, or a full disk, must be there when `position` says so. */
enum err checkpoint_all(struct repl_db *db)
{
    bool is_free;
    CHECK(db->view == NULL || !db->holds_readers); /* a leader's is its view's */
    checkpoint_release_readers(db);                /* a follower's restart that did not come */
    checkpoint_wait(db);
    TRY(reap(db, &is_free));
    if (is_free && db->frames > 0) {
        start(db, 0);
        checkpoint_wait(db);
        TRY(reap(db, &is_free));
    }
    return sync_it(db->wal_file, db->wal_path);
}

/* --- restarting the WAL ----------------------------------------------------------------------- */

/* BACKFILLED: as the wal-index says now. Whoever copied, all is safe. */
static bool is_settled(const struct repl_db *db, uint32_t backfilled)
{
    return backfilled == db->frames && db->checkpointer->synced_frames == db->frames;
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
           is_settled(db, backfilled) && take_readers(db);
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
        const bool settled = is_settled(db, backfilled);
        *done = settled && take_readers(db);
        if (*done || (started && c->full) || clock_mono_ms() >= until_ms)
            return ERR_OK;
        bool stuck = settled || (started && backfilled <= c->backfilled_before);
        if (stuck)
            (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
        if (!settled) {
            start(db, backfilled);
            started = true;
        }
    }
}

/* An attempt to restart ended. */
static void restart_attempted(struct repl_db *db, bool done) ON_OWNER
{
    struct checkpointer *c = db->checkpointer;
    c->still_since_ms = 0;
    if (done) {
        c->restart_pause_ms = RESTART_PAUSE_MS;
        note_held_back(db, false);
        return;
    }
    if (!c->foreign && !c->full && db->holds_checkpoint)
        note_held_back(db, true);
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
        restart_attempted(db, false);
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
    restart_attempted(db, done);
    *wants_quiet = false;
    return ERR_OK;
}

static enum err restart_as_follower(struct repl_db *db) ON_OWNER
{
    bool done;
    TRY(settle(db, clock_mono_ms() + QUIET_MAX_MS, COPY_MAX_MS, &done));
    restart_attempted(db, done);
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
    const uint64_t bytes = wal_bytes(db, rest);
    const bool shrinks = rest < db->checkpointer->rest_before / 2;
    return rest <= 1 || bytes <= db->config.wal_checkpoint_bytes / REST_DIVISOR ||
           (!shrinks && bytes <= db->config.wal_checkpoint_bytes / REST_DIVISOR_BUSY);
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
    if (atomic_exchange_explicit(&db->restart_soon, false, memory_order_relaxed)) {
        c->restart_not_before_ms = c->checkpoint_not_before_ms = 0;
        c->restart_pause_ms = RESTART_PAUSE_MS;
    }
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
    if (is_free && wanted && now >= c->checkpoint_not_before_ms) {
        c->rest_before = wal_is_long(db) ? rest : UINT32_MAX;
        start(db, backfilled);
    }
    return ERR_OK;
}

void repl_db_restart_soon(struct repl_db *db)
{
    atomic_store_explicit(&db->restart_soon, true, memory_order_relaxed);
}

enum err repl_db_upkeep(struct repl_db *db, bool quiet, bool *wants_quiet)
{
    *wants_quiet = false;
    TRY(database_check(db));
    enum err e = upkeep(db, quiet, wants_quiet);
    return e == ERR_OK ? ERR_OK : database_stop(db, e);
}
