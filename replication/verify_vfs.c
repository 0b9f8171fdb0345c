/* Room: replication. Thread: any: SQLite serves each file to one thread at a time.
 * Owns: the VFS's registration.
 * Invariants: what passes is what its hash says; no file is opened or closed but by the unix VFS
 *   inside, so that its bookkeeping of POSIX locks holds; nothing is ever mapped into memory
 *   (SQLite would read past us).
 * Not here: which hash is right (stored.c).
 *
 * What SQLite reads, and what is compared:
 *   main.db   a page at its place           all of it
 *             a part of one behind page 1   the whole page (SQLite 3.45 and later read the last
 *                                           page of a large value like that)
 *             100 bytes at 0 when it opens, 16 at 24 (change counter): not compared; SQLite reads
 *             page 1 whole before it uses anything else of it
 *   WAL       a page at a frame's place     all of it
 *             the header, frames with their heads: recovery, which has SQLite's own checksums
 *
 * A page that seems wrong may be one whose frame was copied a moment ago, by our checkpoint or
 * another process's: the hashes are folded (stored.c) and it is read again, once. A reader of
 * main.db cannot meet a page while it is being written: a checkpoint copies nothing that a reader
 * would look for there (it stops at the readers' marks, and is held back by mark 0). */
#include "replication/verify_vfs.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "replication/digest.h"
#include "replication/wal_format.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct verify_vfs {
    sqlite3_vfs vfs, *unix_vfs;
    const struct repl_config *config;
    struct stored *stored;
    char *name, *db_path, *wal_path; /* paths as SQLite spells them: absolute */
    uint32_t lock_page;
    _Atomic unsigned open_files;
};

struct verified_file {
    sqlite3_file base;
    struct verify_vfs *v;
    _Alignas(8) uint8_t real[]; /* the unix VFS's sqlite3_file */
};

static struct verify_vfs *vfs_of(sqlite3_file *f)
{
    return ((struct verified_file *)(void *)f)->v;
}

sqlite3_file *verify_vfs_raw(sqlite3_file *f)
{
    return (sqlite3_file *)(void *)((struct verified_file *)(void *)f)->real;
}

/* --- comparing -------------------------------------------------------------------------------- */

/* The sentence is also this thread's, for sqlite_error. */
static int damaged(const struct verify_vfs *v, const char *sentence)
{
    log_error("replication", "damage reason=\"%s\"", sentence);
    (void)err_fail(ERR_CORRUPT, "%s", sentence);
    if (v->config->on_damage != NULL)
        v->config->on_damage(v->config->ctx, sentence);
    return SQLITE_IOERR_DATA;
}

/* A page behind the end of the file is one of zeros. */
static int read_raw(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xRead(real, p, n, offset);
}

/* What the disk does not give back is as lost as what it gives back wrong: another node has it. */
static int lost(sqlite3_file *f, const char *path, sqlite3_int64 offset, int rc)
{
    sqlite3_file *real = verify_vfs_raw(f);
    const char *why = "the file is shorter than it was";
    char sentence[ERR_TEXT_MAX];
    int number = 0;
    if ((rc & 0xff) != SQLITE_IOERR)
        return rc;
    if (rc != SQLITE_IOERR_SHORT_READ)
        why = real->pMethods->xFileControl(real, SQLITE_FCNTL_LAST_ERRNO, &number) == SQLITE_OK &&
                      number != 0
                  ? strerror(number)
                  : sqlite3_errstr(rc);
    (void)snprintf(sentence, sizeof sentence, "a page in %s, at byte %lld, cannot be read: %s",
                   path, (long long)offset, why);
    return damaged(vfs_of(f), sentence);
}

static bool readable(int rc)
{
    return rc == SQLITE_OK || rc == SQLITE_IOERR_SHORT_READ;
}

/* RC: of the read. */
static int verify_db_page(sqlite3_file *f, uint8_t *page, sqlite3_int64 offset, int rc)
{
    const struct verify_vfs *v = vfs_of(f);
    const uint32_t page_size = v->config->page_size;
    const uint32_t page_no = (uint32_t)(offset / page_size) + 1;
    if (page_no == v->lock_page)
        return rc;
    uint64_t hash = digest_page_hash(page_no, page, page_size);
    if (hash == stored_page(v->stored, page_no))
        return rc;
    uint64_t wanted = stored_page_folded(v->stored, page_no);
    if (hash == wanted)
        return rc;
    rc = read_raw(f, page, (int)page_size, offset);
    if (!readable(rc))
        return lost(f, v->db_path, offset, rc);
    hash = digest_page_hash(page_no, page, page_size);
    wanted = stored_page_folded(v->stored, page_no);
    if (hash == wanted)
        return rc;
    char sentence[ERR_TEXT_MAX];
    (void)snprintf(sentence, sizeof sentence,
                   "page %u in %s, at byte %lld, is damaged: its hash is %016llx, written was "
                   "%016llx",
                   page_no, v->db_path, (long long)offset, (unsigned long long)hash,
                   (unsigned long long)wanted);
    return damaged(v, sentence);
}

static int verify_frame(sqlite3_file *f, uint32_t frame, uint8_t *page, sqlite3_int64 offset)
{
    const struct verify_vfs *v = vfs_of(f);
    const uint32_t page_size = v->config->page_size;
    char sentence[ERR_TEXT_MAX];
    uint32_t page_no = 0;
    uint64_t wanted = 0, hash = 0;
    if (!stored_frame_hash(v->stored, frame, &page_no, &wanted)) {
        (void)snprintf(sentence, sizeof sentence,
                       "frame %u in %s was asked for, which no reader needs: its wal-index (-shm) "
                       "is damaged",
                       frame, v->wal_path);
        return damaged(v, sentence);
    }
    hash = digest_page_hash(page_no, page, page_size);
    if (hash == wanted || page_no == v->lock_page)
        return SQLITE_OK;
    int rc = read_raw(f, page, (int)page_size, offset);
    if (rc != SQLITE_OK)
        return lost(f, v->wal_path, offset, rc);
    hash = digest_page_hash(page_no, page, page_size);
    if (hash == wanted)
        return SQLITE_OK;
    (void)snprintf(sentence, sizeof sentence,
                   "page %u in %s, frame %u at byte %lld, is damaged: its hash is %016llx, written "
                   "was %016llx",
                   page_no, v->wal_path, frame, (long long)offset, (unsigned long long)hash,
                   (unsigned long long)wanted);
    return damaged(v, sentence);
}

static int db_read_page(sqlite3_file *f, uint8_t *page, sqlite3_int64 offset)
{
    const struct verify_vfs *v = vfs_of(f);
    int rc = read_raw(f, page, (int)v->config->page_size, offset);
    return readable(rc) ? verify_db_page(f, page, offset, rc) : lost(f, v->db_path, offset, rc);
}

/* A part of a page behind page 1: whole pages are read and compared, and the part is taken out. */
static int db_read_part(sqlite3_file *f, uint8_t *p, int n, sqlite3_int64 offset)
{
    const int page_size = (int)vfs_of(f)->config->page_size;
    uint8_t *page = sqlite3_malloc(page_size);
    int rc = page == NULL ? SQLITE_IOERR_NOMEM : SQLITE_OK, short_read = SQLITE_OK;
    while (n > 0 && rc == SQLITE_OK) {
        const int from = (int)(offset % page_size);
        const int step = n < page_size - from ? n : page_size - from;
        rc = db_read_page(f, page, offset - from);
        if (rc == SQLITE_IOERR_SHORT_READ) {
            short_read = rc;
            rc = SQLITE_OK;
        }
        memcpy(p, page + from, (size_t)step);
        p += step, n -= step, offset += step;
    }
    sqlite3_free(page);
    return rc == SQLITE_OK ? short_read : rc;
}

static int db_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
    const struct verify_vfs *v = vfs_of(f);
    const int page_size = (int)v->config->page_size;
    if (!stored_is_armed(v->stored) || (n < page_size && offset + n <= page_size))
        return read_raw(f, p, n, offset);
    if (n == page_size && offset % page_size == 0)
        return db_read_page(f, p, offset);
    return db_read_part(f, p, n, offset);
}

static int wal_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
    const struct verify_vfs *v = vfs_of(f);
    const uint32_t page_size = v->config->page_size;
    const sqlite3_int64 in_frames = offset - WAL_HEADER_BYTES;
    const sqlite3_int64 frame_bytes = WAL_FRAME_HEADER_BYTES + page_size;
    int rc = read_raw(f, p, n, offset);
    if (n != (int)page_size || in_frames < 0 || in_frames % frame_bytes != WAL_FRAME_HEADER_BYTES ||
        !stored_is_armed(v->stored))
        return rc;
    if (rc != SQLITE_OK)
        return lost(f, v->wal_path, offset, rc);
    return verify_frame(f, (uint32_t)(in_frames / frame_bytes) + 1, p, offset);
}

/* --- the rest of a file ----------------------------------------------------------------------- */

static int file_close(sqlite3_file *f)
{
    sqlite3_file *real = verify_vfs_raw(f);
    int rc = real->pMethods->xClose(real);
    (void)atomic_fetch_sub(&vfs_of(f)->open_files, 1);
    return rc;
}

static int file_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 offset)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xWrite(real, p, n, offset);
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xTruncate(real, size);
}

static int file_sync_it(sqlite3_file *f, int flags)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xSync(real, flags);
}

static int file_size_of(sqlite3_file *f, sqlite3_int64 *size)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xFileSize(real, size);
}

static int file_lock(sqlite3_file *f, int level)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xLock(real, level);
}

static int file_unlock(sqlite3_file *f, int level)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xUnlock(real, level);
}

static int file_check_reserved(sqlite3_file *f, int *out)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xCheckReservedLock(real, out);
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    sqlite3_file *real = verify_vfs_raw(f);
    if (op == SQLITE_FCNTL_MMAP_SIZE) {
        *(sqlite3_int64 *)arg = 0;
        return SQLITE_OK;
    }
    if (op == SQLITE_FCNTL_VFSNAME) {
        *(char **)arg = sqlite3_mprintf("%s", vfs_of(f)->name);
        return SQLITE_OK;
    }
    return real->pMethods->xFileControl(real, op, arg);
}

static int file_sector(sqlite3_file *f)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xSectorSize(real);
}

static int file_characteristics(sqlite3_file *f)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xDeviceCharacteristics(real);
}

static int shm_map(sqlite3_file *f, int region, int bytes, int extend, volatile void **out)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xShmMap(real, region, bytes, extend, out);
}

static int shm_lock(sqlite3_file *f, int first, int n, int flags)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xShmLock(real, first, n, flags);
}

static void shm_barrier(sqlite3_file *f)
{
    sqlite3_file *real = verify_vfs_raw(f);
    real->pMethods->xShmBarrier(real);
}

static int shm_unmap(sqlite3_file *f, int delete_it)
{
    sqlite3_file *real = verify_vfs_raw(f);
    return real->pMethods->xShmUnmap(real, delete_it);
}

/* Version 2: no xFetch, so nothing is mapped. */
#define METHODS(read)                                                                              \
    {                                                                                              \
        .iVersion = 2, .xClose = file_close, .xRead = (read), .xWrite = file_write,                \
        .xTruncate = file_truncate, .xSync = file_sync_it, .xFileSize = file_size_of,              \
        .xLock = file_lock, .xUnlock = file_unlock, .xCheckReservedLock = file_check_reserved,     \
        .xFileControl = file_control, .xSectorSize = file_sector,                                  \
        .xDeviceCharacteristics = file_characteristics, .xShmMap = shm_map, .xShmLock = shm_lock,  \
        .xShmBarrier = shm_barrier, .xShmUnmap = shm_unmap,                                        \
    }

static const sqlite3_io_methods db_methods = METHODS(db_read);
static const sqlite3_io_methods wal_methods = METHODS(wal_read);

/* --- the VFS ---------------------------------------------------------------------------------- */

/* The other methods of the unix VFS are taken over as they are: none of them uses its argument. */
static int vfs_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *f, int flags,
                    int *out_flags)
{
    struct verify_vfs *v = vfs->pAppData;
    const bool is_db =
        (flags & SQLITE_OPEN_MAIN_DB) && name != NULL && strcmp(name, v->db_path) == 0;
    const bool is_wal = (flags & SQLITE_OPEN_WAL) && name != NULL && strcmp(name, v->wal_path) == 0;
    if (!is_db && !is_wal)
        return v->unix_vfs->xOpen(v->unix_vfs, name, f, flags, out_flags);
    struct verified_file *file = (struct verified_file *)(void *)f;
    sqlite3_file *real = (sqlite3_file *)(void *)file->real;
    f->pMethods = NULL;
    real->pMethods = NULL;
    int rc = v->unix_vfs->xOpen(v->unix_vfs, name, real, flags, out_flags);
    if (rc != SQLITE_OK) {
        if (real->pMethods != NULL)
            (void)real->pMethods->xClose(real);
        return rc;
    }
    file->v = v;
    f->pMethods = is_db ? &db_methods : &wal_methods;
    (void)atomic_fetch_add(&v->open_files, 1);
    return SQLITE_OK;
}

/* --- open, close ------------------------------------------------------------------------------ */

static void vfs_fill(struct verify_vfs *v)
{
    v->vfs = *v->unix_vfs;
    v->vfs.iVersion = 2; /* no system calls to be replaced */
    v->vfs.szOsFile = (int)sizeof(struct verified_file) + v->unix_vfs->szOsFile;
    v->vfs.pNext = NULL;
    v->vfs.zName = v->name;
    v->vfs.pAppData = v;
    v->vfs.xOpen = vfs_open;
}

enum err verify_vfs_open(const struct repl_config *config, struct stored *s,
                         struct verify_vfs **out)
{
    static atomic_ulong number;
    *out = NULL;
    sqlite3_vfs *real = sqlite3_vfs_find("unix");
    if (real == NULL || real->iVersion < 2)
        return err_fail(ERR_VERSION, "this SQLite has no unix VFS: Lectern runs on POSIX systems");
    struct verify_vfs *v = MEM_NEW(struct verify_vfs);
    v->unix_vfs = real;
    v->config = config;
    v->stored = s;
    v->lock_page = digest_lock_page(config->page_size);
    v->name = mem_printf("lectern-verify-%lu", atomic_fetch_add(&number, 1));
    v->db_path = mem_zalloc((size_t)real->mxPathname + 1);
    int rc = real->xFullPathname(real, config->path, real->mxPathname, v->db_path);
    v->wal_path = mem_printf("%s-wal", v->db_path);
    vfs_fill(v);
    if ((rc & 0xff) == SQLITE_OK)
        rc = sqlite3_vfs_register(&v->vfs, 0);
    if (rc != SQLITE_OK) {
        verify_vfs_close(v);
        return err_fail(ERR_IO, "cannot open %s: SQLite says: %s", config->path,
                        sqlite3_errstr(rc));
    }
    *out = v;
    return ERR_OK;
}

void verify_vfs_close(struct verify_vfs *v)
{
    if (v == NULL)
        return;
    CHECK(atomic_load(&v->open_files) == 0);
    (void)sqlite3_vfs_unregister(&v->vfs);
    free(v->name);
    free(v->db_path);
    free(v->wal_path);
    free(v);
}

sqlite3_vfs *verify_vfs_of(struct verify_vfs *v)
{
    return &v->vfs;
}
