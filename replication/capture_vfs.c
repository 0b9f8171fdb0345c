/* Room: replication. Thread: owner (a view's connections live on its thread).
 * Owns: the VFS's registration, the overlay and the private wal-index; the real database file of
 *   each connection, opened by the verifying VFS (verify_vfs.h), so that the unix VFS's lock
 *   bookkeeping knows of it, and damage is an error.
 * Invariants: no byte of the real database, WAL or wal-index is changed from here; no rollback
 *   journal is ever opened; the real WAL is read through the keeper's file, below overlay.low only.
 * Not here: what the bytes mean (view.c), how they get into the real WAL (publish.c).
 *
 * What SQLite asks for, and what it gets:
 *   main.db        real file: reads and the SHARED lock; writes are refused
 *   main.db-wal    overlay on top of the real file: writes stay in it
 *   main.db-shm    private_shm: never a file
 *   main.db-journal does not exist and cannot be made
 *   anything else  (sorter, temp tables, VACUUM's copy) the unix VFS, unchanged */
#include "replication/capture_vfs.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "replication/database.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct db_file {
    sqlite3_file base;
    struct capture *capture;
    struct private_shm_conn shm;
    _Alignas(8) uint8_t real[]; /* the unix VFS's sqlite3_file */
};

struct wal_over {
    sqlite3_file base;
    struct capture *capture;
};

static struct db_file *db_of(sqlite3_file *f)
{
    thread_expect_owner();
    return (struct db_file *)(void *)f;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
    return (sqlite3_file *)(void *)db_of(f)->real;
}

static struct capture *wal_of(sqlite3_file *f)
{
    thread_expect_owner();
    return ((struct wal_over *)(void *)f)->capture;
}

static int refuse(const char *what, const char *path, int rc)
{
    log_error("replication", "view_refused what=\"%s\" file=\"%s\"", what, path);
    return rc;
}

/* A disk that failed once is not asked again: the view can only be closed (capture_check). */
static int overlay_failed(struct capture *c, int rc)
{
    if (c->failure[0] != 0)
        return rc;
    (void)snprintf(c->failure, sizeof c->failure, "%s", err_text());
    return refuse(c->failure, c->wal_path, rc);
}

/* --- the database file ------------------------------------------------------------------------ */

static int db_close(sqlite3_file *f)
{
    struct db_file *d = db_of(f);
    private_shm_unlock_all(&d->shm);
    CHECK(d->capture->connections > 0);
    d->capture->connections--;
    sqlite3_file *real = real_of(f);
    return real->pMethods == NULL ? SQLITE_OK : real->pMethods->xClose(real);
}

/* Behind the end of the database lie pages that only the running transaction has. SQLite may read
 * one that it moved or freed a moment ago (sqlite3BtreeDropTable with auto_vacuum), and does not
 * use what is there: nothing, or what was cut off long ago. That has no hash to be compared with.
 */
static int db_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
    sqlite3_file *real = real_of(f);
    if ((uint64_t)offset >= db_of(f)->capture->db_bytes)
        real = verify_vfs_raw(real);
    return real->pMethods->xRead(real, p, n, offset);
}

static int db_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 offset)
{
    (void)p, (void)n, (void)offset;
    return refuse("write", db_of(f)->capture->db_path, SQLITE_IOERR_WRITE);
}

static int db_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    (void)size;
    return refuse("truncate", db_of(f)->capture->db_path, SQLITE_IOERR_TRUNCATE);
}

static int nothing_to_sync(sqlite3_file *f, int flags)
{
    (void)f, (void)flags;
    return SQLITE_OK;
}

static int db_size(sqlite3_file *f, sqlite3_int64 *size)
{
    sqlite3_file *real = real_of(f);
    return real->pMethods->xFileSize(real, size);
}

/* SHARED is what a WAL connection holds. More is only for rollback journals and for the checkpoint
 * of the last one that closes. */
static int db_lock(sqlite3_file *f, int level)
{
    sqlite3_file *real = real_of(f);
    return level > SQLITE_LOCK_SHARED ? SQLITE_BUSY : real->pMethods->xLock(real, level);
}

static int db_unlock(sqlite3_file *f, int level)
{
    sqlite3_file *real = real_of(f);
    return real->pMethods->xUnlock(real, level);
}

static int db_check_reserved(sqlite3_file *f, int *out)
{
    sqlite3_file *real = real_of(f);
    return real->pMethods->xCheckReservedLock(real, out);
}

/* Passes on what only asks. Those that change the file (size hints, chunks, mapping) are answered
 * here or are unknown. */
static int db_control(sqlite3_file *f, int op, void *arg)
{
    sqlite3_file *real = real_of(f);
    switch (op) {
    case SQLITE_FCNTL_PERSIST_WAL:
        *(int *)arg = 1;
        return SQLITE_OK;
    case SQLITE_FCNTL_MMAP_SIZE:
        *(sqlite3_int64 *)arg = 0;
        return SQLITE_OK;
    case SQLITE_FCNTL_VFSNAME:
        *(char **)arg = sqlite3_mprintf("%s", db_of(f)->capture->name);
        return SQLITE_OK;
    case SQLITE_FCNTL_HAS_MOVED:
    case SQLITE_FCNTL_LAST_ERRNO:
    case SQLITE_FCNTL_LOCKSTATE:
    case SQLITE_FCNTL_TEMPFILENAME:
        return real->pMethods->xFileControl(real, op, arg);
    default:
        return SQLITE_NOTFOUND;
    }
}

static int db_sector(sqlite3_file *f)
{
    sqlite3_file *real = real_of(f);
    return real->pMethods->xSectorSize(real);
}

/* POWERSAFE_OVERWRITE: else synchronous=FULL would repeat the commit frame up to a sector's end,
 * and each commit frame counts as a transaction. Batch-atomic writes would need our xWrite. */
static int db_characteristics(sqlite3_file *f)
{
    sqlite3_file *real = real_of(f);
    return (real->pMethods->xDeviceCharacteristics(real) & ~SQLITE_IOCAP_BATCH_ATOMIC) |
           SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static int shm_map(sqlite3_file *f, int region, int bytes, int extend, volatile void **out)
{
    return private_shm_map(&db_of(f)->capture->shm, region, bytes, extend, out);
}

static void after_unlock(struct capture *c)
{
    if (c->idle != NULL && !private_shm_reading(&c->shm))
        c->idle(c->idle_ctx);
}

static int shm_lock(sqlite3_file *f, int first, int n, int flags)
{
    struct db_file *d = db_of(f);
    int rc = private_shm_lock(&d->shm, first, n, flags);
    if (flags & SQLITE_SHM_UNLOCK)
        after_unlock(d->capture);
    return rc;
}

static void shm_barrier(sqlite3_file *f)
{
    (void)f;
    atomic_signal_fence(memory_order_seq_cst); /* one thread: only the compiler could reorder */
}

/* The regions stay: they hold what is committed and unpublished. */
static int shm_unmap(sqlite3_file *f, int delete_it)
{
    (void)delete_it;
    private_shm_unlock_all(&db_of(f)->shm);
    after_unlock(db_of(f)->capture);
    return SQLITE_OK;
}

/* Version 2: no memory mapping of the file. */
static const sqlite3_io_methods db_methods = {
    .iVersion = 2,
    .xClose = db_close,
    .xRead = db_read,
    .xWrite = db_write,
    .xTruncate = db_truncate,
    .xSync = nothing_to_sync,
    .xFileSize = db_size,
    .xLock = db_lock,
    .xUnlock = db_unlock,
    .xCheckReservedLock = db_check_reserved,
    .xFileControl = db_control,
    .xSectorSize = db_sector,
    .xDeviceCharacteristics = db_characteristics,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

/* --- the WAL ---------------------------------------------------------------------------------- */

static int wal_close(sqlite3_file *f)
{
    (void)f;
    return SQLITE_OK;
}

static int wal_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
    struct capture *c = wal_of(f);
    uint8_t *to = p;
    uint64_t at = (uint64_t)offset, left = (uint64_t)n;
    if (at < c->overlay.low) {
        uint64_t step = c->overlay.low - at < left ? c->overlay.low - at : left;
        int rc = c->wal_file->pMethods->xRead(c->wal_file, to, (int)step, offset);
        if (rc == SQLITE_IOERR_SHORT_READ) /* published bytes are gone */
            return refuse("read of a WAL that became shorter", c->wal_path, SQLITE_IOERR_READ);
        if (rc != SQLITE_OK)
            return rc;
        to += step, at += step, left -= step;
    }
    uint64_t held = at < c->overlay.end ? c->overlay.end - at : 0;
    if (held > left)
        held = left;
    if (held > 0 && overlay_read(&c->overlay, at, to, (size_t)held) != ERR_OK)
        return overlay_failed(c, SQLITE_IOERR_READ);
    if (held == left)
        return SQLITE_OK;
    memset(to + held, 0, (size_t)(left - held));
    return SQLITE_IOERR_SHORT_READ;
}

/* SQLite writes 32 bytes at 0 exactly when it begins a WAL. */
static int wal_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 offset)
{
    struct capture *c = wal_of(f);
    if (c->failure[0] != 0)
        return SQLITE_IOERR_WRITE;
    if (offset == 0 && n == (int)WAL_HEADER_BYTES)
        overlay_restart(&c->overlay);
    switch ((int)overlay_write(&c->overlay, (uint64_t)offset, p, (size_t)n)) {
    case ERR_OK:
        return SQLITE_OK;
    case ERR_FULL:
        return SQLITE_FULL;
    default:
        return overlay_failed(c, SQLITE_IOERR_WRITE);
    }
}

/* Only ever a hint: bytes behind the last commit count nothing. */
static int wal_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    (void)f, (void)size;
    return SQLITE_OK;
}

static int wal_size(sqlite3_file *f, sqlite3_int64 *size)
{
    *size = (sqlite3_int64)wal_of(f)->overlay.end;
    return SQLITE_OK;
}

static int wal_lock_nothing(sqlite3_file *f, int level)
{
    (void)f, (void)level;
    return SQLITE_OK;
}

static int wal_not_reserved(sqlite3_file *f, int *out)
{
    (void)f;
    *out = 0;
    return SQLITE_OK;
}

static int wal_control(sqlite3_file *f, int op, void *arg)
{
    (void)f, (void)op, (void)arg;
    return SQLITE_NOTFOUND;
}

static int wal_sector(sqlite3_file *f)
{
    (void)f;
    return 4096;
}

static int wal_characteristics(sqlite3_file *f)
{
    (void)f;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods wal_methods = {
    .iVersion = 1,
    .xClose = wal_close,
    .xRead = wal_read,
    .xWrite = wal_write,
    .xTruncate = wal_truncate,
    .xSync = nothing_to_sync,
    .xFileSize = wal_size,
    .xLock = wal_lock_nothing,
    .xUnlock = wal_lock_nothing,
    .xCheckReservedLock = wal_not_reserved,
    .xFileControl = wal_control,
    .xSectorSize = wal_sector,
    .xDeviceCharacteristics = wal_characteristics,
};

/* --- the VFS ---------------------------------------------------------------------------------- */

static struct capture *capture_of(sqlite3_vfs *v)
{
    return v->pAppData;
}

/* NAME is a file beside the database, which the view must neither see nor change. */
static bool is_beside(const struct capture *c, const char *name)
{
    size_t n = strlen(c->db_path);
    return strncmp(name, c->db_path, n) == 0 && name[n] == '-';
}

static int open_db(struct capture *c, const char *name, sqlite3_file *f, int flags, int *out_flags)
{
    struct db_file *d = (struct db_file *)(void *)f;
    sqlite3_file *real = (sqlite3_file *)(void *)d->real;
    real->pMethods = NULL;
    int rc = c->real->xOpen(c->real, name, real, flags & ~SQLITE_OPEN_CREATE, out_flags);
    if (rc != SQLITE_OK) {
        if (real->pMethods != NULL)
            real->pMethods->xClose(real);
        return rc;
    }
    d->capture = c;
    d->shm = (struct private_shm_conn){.shm = &c->shm};
    c->connections++;
    f->pMethods = &db_methods;
    return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *v, sqlite3_filename name, sqlite3_file *f, int flags,
                    int *out_flags)
{
    thread_expect_owner();
    struct capture *c = capture_of(v);
    f->pMethods = NULL;
    if ((flags & SQLITE_OPEN_MAIN_DB) && name != NULL && strcmp(name, c->db_path) == 0)
        return open_db(c, name, f, flags, out_flags);
    if ((flags & SQLITE_OPEN_WAL) && name != NULL && strcmp(name, c->wal_path) == 0) {
        ((struct wal_over *)(void *)f)->capture = c;
        f->pMethods = &wal_methods;
        if (out_flags != NULL)
            *out_flags = flags;
        return SQLITE_OK;
    }
    if (name != NULL && is_beside(c, name))
        return refuse("opening", name, SQLITE_CANTOPEN);
    return c->real->xOpen(c->real, name, f, flags, out_flags);
}

static int vfs_delete(sqlite3_vfs *v, const char *name, int sync_dir)
{
    thread_expect_owner();
    struct capture *c = capture_of(v);
    return is_beside(c, name) ? SQLITE_OK : c->real->xDelete(c->real, name, sync_dir);
}

static int vfs_access(sqlite3_vfs *v, const char *name, int flags, int *out)
{
    thread_expect_owner();
    struct capture *c = capture_of(v);
    if (!is_beside(c, name) || strcmp(name, c->db_path) == 0)
        return c->real->xAccess(c->real, name, flags, out);
    *out = strcmp(name, c->wal_path) == 0; /* the WAL is always there, a journal never */
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *v, const char *name, int n, char *out)
{
    sqlite3_vfs *real = capture_of(v)->real;
    return real->xFullPathname(real, name, n, out);
}

static void *vfs_dl_open(sqlite3_vfs *v, const char *name)
{
    sqlite3_vfs *real = capture_of(v)->real;
    return real->xDlOpen(real, name);
}

static void vfs_dl_error(sqlite3_vfs *v, int n, char *out)
{
    sqlite3_vfs *real = capture_of(v)->real;
    real->xDlError(real, n, out);
}

static void (*vfs_dl_sym(sqlite3_vfs *v, void *lib, const char *name))(void)
{
    sqlite3_vfs *real = capture_of(v)->real;
    return real->xDlSym(real, lib, name);
}

static void vfs_dl_close(sqlite3_vfs *v, void *lib)
{
    sqlite3_vfs *real = capture_of(v)->real;
    real->xDlClose(real, lib);
}

static int vfs_randomness(sqlite3_vfs *v, int n, char *out)
{
    sqlite3_vfs *real = capture_of(v)->real;
    return real->xRandomness(real, n, out);
}

static int vfs_sleep(sqlite3_vfs *v, int us)
{
    sqlite3_vfs *real = capture_of(v)->real;
    return real->xSleep(real, us);
}

static int vfs_time(sqlite3_vfs *v, double *out)
{
    sqlite3_vfs *real = capture_of(v)->real;
    return real->xCurrentTime(real, out);
}

static int vfs_time64(sqlite3_vfs *v, sqlite3_int64 *out)
{
    sqlite3_vfs *real = capture_of(v)->real;
    return real->xCurrentTimeInt64(real, out);
}

static int vfs_last_error(sqlite3_vfs *v, int n, char *out)
{
    sqlite3_vfs *real = capture_of(v)->real;
    return real->xGetLastError(real, n, out);
}

static void vfs_fill(struct capture *c)
{
    c->vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = (int)sizeof(struct db_file) + c->real->szOsFile,
        .mxPathname = c->real->mxPathname,
        .zName = c->name,
        .pAppData = c,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_path,
        .xDlOpen = vfs_dl_open,
        .xDlError = vfs_dl_error,
        .xDlSym = vfs_dl_sym,
        .xDlClose = vfs_dl_close,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_time,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_time64,
    };
}

/* --- open, connect, close --------------------------------------------------------------------- */

enum err capture_open(const struct repl_config *config, sqlite3_vfs *below, sqlite3_file *wal_file,
                      uint64_t low, struct capture **out)
{
    static atomic_ulong number;
    *out = NULL;
    struct capture *c = MEM_NEW(struct capture);
    c->real = below;
    c->wal_file = wal_file;
    c->name = mem_printf("lectern-view-%lu", atomic_fetch_add(&number, 1));
    c->db_path = mem_zalloc((size_t)c->real->mxPathname + 1);
    char *spill = mem_printf("%s" SPILL_OVERLAY, config->path);
    overlay_init(&c->overlay, low, config->txn_bytes_max, spill, config->txn_memory_max);
    spill_set_reserve(&c->overlay.bytes, config->disk_reserve);
    free(spill);
    vfs_fill(c);
    int rc = c->real->xFullPathname(c->real, config->path, c->real->mxPathname, c->db_path);
    c->wal_path = mem_printf("%s-wal", c->db_path);
    if ((rc & 0xff) == SQLITE_OK)
        rc = sqlite3_vfs_register(&c->vfs, 0);
    if (rc != SQLITE_OK) {
        capture_close(c);
        return sqlite_error(rc, "open the writer's view", config->path);
    }
    *out = c;
    return ERR_OK;
}

void capture_close(struct capture *c)
{
    CHECK(c->connections == 0);
    sqlite3_vfs_unregister(&c->vfs);
    overlay_fini(&c->overlay);
    private_shm_fini(&c->shm);
    free(c->name);
    free(c->db_path);
    free(c->wal_path);
    free(c);
}

enum err capture_check(const struct capture *c)
{
    return c->failure[0] == 0 ? ERR_OK : err_fail(ERR_IO, "%s", c->failure);
}

/* No sync: the Raft log is what makes a transaction durable. The SELECT makes the first connection
 * recover the WAL. */
static const char connection_setup[] = "PRAGMA synchronous = OFF;"
                                       "SELECT 1 FROM sqlite_schema LIMIT 1;";

enum err capture_connect(struct capture *c, sqlite3 **conn)
{
    *conn = NULL;
    sqlite3 *s;
    int rc = sqlite3_open_v2(c->db_path, &s, SQLITE_OPEN_READWRITE, c->name);
    if (rc == SQLITE_OK)
        rc = sqlite3_extended_result_codes(s, 1);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(s, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(s, SQLITE_DBCONFIG_ENABLE_FKEY, 1, (int *)NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_wal_autocheckpoint(s, 0);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(s, connection_setup, NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        enum err e = sqlite_error(rc, "connect to the writer's view", c->db_path);
        sqlite3_close(s);
        return e;
    }
    *conn = s;
    return ERR_OK;
}
