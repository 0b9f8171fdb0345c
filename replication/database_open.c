/* Room: replication. Creates a database, or opens one and finds out what its files contain.
 * Thread: owner.
 * Owns: nothing beyond the calls; the object is database.c's.
 * Invariants:
 *   - a new database is the same bytes on every node (genesis), whatever its SQLite version;
 *   - a crash during creation leaves nothing, or a genesis without `position`: finished next time;
 *   - the sequence is never guessed. It is what `position` says for this WAL's salts plus the WAL's
 *     commits; without a WAL, what it says for exactly this checksum; else it is unknown.
 * Not here: the format of the WAL (wal_format.c) and of `position` (position.c).
 *
 * SQLite itself recovers the WAL when the keeper first reads. We then take the locks, scan the WAL
 * with our own code and compare: two independent readers of the same bytes must agree before we
 * append to them. */
#include "replication/database.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* --- creation --------------------------------------------------------------------------------- */

/* A constant in the header, so that all nodes begin with the same bytes; informational only. */
#define GENESIS_SQLITE_VERSION 3040001u

/* Page 1 of an empty database in WAL mode: https://www.sqlite.org/fileformat2.html section 1.3. */
static uint8_t *genesis_page(uint32_t page_size)
{
    uint8_t *p = mem_zalloc(page_size);
    memcpy(p, "SQLite format 3", 16);
    p[16] = (uint8_t)(page_size >> 8); /* 65536 is written as 1 */
    p[17] = (uint8_t)(page_size >> 16);
    p[18] = p[19] = 2; /* write and read version: WAL */
    p[21] = 64;        /* payload fractions: fixed by the format */
    p[22] = p[23] = 32;
    set_be32(p + 24, 1); /* change counter */
    set_be32(p + 28, 1); /* pages */
    set_be32(p + 44, 4); /* schema format */
    set_be32(p + 56, 1); /* UTF-8 */
    set_be32(p + 92, 1); /* version-valid-for: the change counter */
    set_be32(p + 96, GENESIS_SQLITE_VERSION);
    p[100] = 0x0d; /* sqlite_schema: a leaf of a table, no cells */
    p[105] = (uint8_t)(page_size >> 8);
    p[106] = (uint8_t)page_size; /* cells begin at the end; 65536 is written as 0 */
    return p;
}

/* Size of PATH, 0 when there is no such file. */
static enum err size_of(const char *path, bool *exists, uint64_t *size)
{
    struct stat st;
    *exists = stat(path, &st) == 0;
    *size = *exists ? (uint64_t)st.st_size : 0;
    return *exists || errno == ENOENT ? ERR_OK : file_error("stat", path);
}

/* ERR_CORRUPT unless main.db is a genesis that a crashed creation left. No connection of this
 * process is open on it: a database that is open has its `position`. */
static enum err check_genesis(const struct repl_db *db, const uint8_t *genesis, uint64_t wal_bytes)
{
    struct buf b;
    buf_init(&b, db->config.page_size);
    enum err e = file_read_all(db->config.path, &b);
    bool same = e == ERR_OK && wal_bytes == 0 && b.len == db->config.page_size &&
                memcmp(b.data, genesis, b.len) == 0;
    buf_fini(&b);
    if (same)
        return ERR_OK;
    if (e != ERR_OK && e != ERR_TOO_BIG)
        return e;
    return err_fail(ERR_CORRUPT,
                    "%s exists, but %s beside it does not: not a database of this program, or its "
                    "position was lost; remove the database and let the node fetch it again",
                    db->config.path, db->position_path);
}

static enum err create_files(struct repl_db *db) ON_OWNER
{
    bool exists, wal_exists;
    uint64_t bytes, wal_bytes;
    TRY(size_of(db->config.path, &exists, &bytes));
    TRY(size_of(db->wal_path, &wal_exists, &wal_bytes));
    if (!exists && wal_bytes > 0)
        return err_fail(ERR_CORRUPT, "%s exists without its database %s; restore it or remove both",
                        db->wal_path, db->config.path);

    uint32_t page_size = db->config.page_size;
    uint8_t *genesis = genesis_page(page_size);
    uint64_t checksum = digest_page_hash(1, genesis, page_size);
    enum err e = exists ? check_genesis(db, genesis, wal_bytes)
                        : file_replace(db->config.path, genesis, page_size);
    free(genesis);
    TRY(e);
    db->record = (struct position_record){
        .database_id = db->config.database_id,
        .page_size = page_size,
        .closed = true,
        .closed_seq = 0,
        .closed_checksum = checksum,
    };
    TRY(position_create(db->position_path, &db->record, &db->position_file));
    log_info("replication", "database created path=%s page_size=%u checksum=%016llx",
             db->config.path, page_size, (unsigned long long)checksum);
    return ERR_OK;
}

static enum err open_position(struct repl_db *db) ON_OWNER
{
    enum err e = position_open(db->position_path, &db->position_file, &db->record);
    if (e == ERR_NOT_FOUND)
        return create_files(db);
    TRY(e);
    bool exists;
    uint64_t bytes;
    TRY(size_of(db->config.path, &exists, &bytes));
    if (!exists)
        return err_fail(ERR_CORRUPT, "%s exists without its database %s; " REBUILD_ADVICE,
                        db->position_path, db->config.path);
    if (db->record.database_id != db->config.database_id)
        return err_fail(ERR_FORMAT,
                        "%s belongs to cluster %llu, this node to cluster %llu (cluster-id)",
                        db->config.path, (unsigned long long)db->record.database_id,
                        (unsigned long long)db->config.database_id);
    db->config.page_size = db->record.page_size;
    return ERR_OK;
}

/* --- the keeper and its locks ----------------------------------------------------------------- */

static enum err keeper_pragma(struct repl_db *db, const char *sql, char *out, size_t n) ON_OWNER
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db->keeper, sql, -1, &s, NULL);
    if (rc == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
        (void)snprintf(out, n, "%s", (const char *)sqlite3_column_text(s, 0));
    if (rc == SQLITE_OK)
        rc = sqlite3_finalize(s);
    return sqlite_error(rc, "read", db->config.path);
}

/* Others may hold a lock for a moment: a backup that checkpoints, a reader that recovers. */
#define LOCK_WAIT_MS 3000
#define LOCK_LOOK_NS 5000000

/* The first read makes SQLite recover the WAL and open the shared memory. */
static int keeper_first_read(sqlite3 *c)
{
    int keep = 1;
    int rc = sqlite3_extended_result_codes(c, 1);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(c, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_wal_autocheckpoint(c, 0);
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(c, "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(c, LOCK_WAIT_MS);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(c, 0);
    return rc;
}

static enum err open_keeper(struct repl_db *db) ON_OWNER
{
    char text[32] = "";
    int rc =
        sqlite3_open_v2(db->config.path, &db->keeper, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                        verify_vfs_of(db->verify)->zName);
    if (rc == SQLITE_OK)
        rc = keeper_first_read(db->keeper);
    if ((rc & 0xff) == SQLITE_BUSY)
        return err_fail(ERR_LOCKED,
                        "another process holds %s, and this one may not even read it (%s); stop it "
                        "and start again",
                        db->config.path, sqlite3_errstr(sqlite3_extended_errcode(db->keeper)));
    if ((rc & 0xff) == SQLITE_NOTADB) /* our position lies beside it: it was one */
        return err_fail(ERR_CORRUPT,
                        "%s is damaged: its first page is not that of a database; " REBUILD_ADVICE,
                        db->config.path);
    TRY(sqlite_error(rc, "open", db->config.path));
    TRY(keeper_pragma(db, "PRAGMA journal_mode", text, sizeof text));
    if (strcmp(text, "wal") != 0)
        return err_fail(ERR_FORMAT,
                        "%s is in journal mode %s: another program changed it; " REBUILD_ADVICE,
                        db->config.path, text);
    TRY(keeper_pragma(db, "PRAGMA page_size", text, sizeof text));
    if (strtoul(text, NULL, 10) != db->config.page_size)
        return err_fail(ERR_CORRUPT, "%s has pages of %s bytes, %s says %u", db->config.path, text,
                        db->position_path, db->config.page_size);
    sqlite3_file *file = NULL, *wal = NULL;
    rc = sqlite3_file_control(db->keeper, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&file);
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(db->keeper, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&wal);
    TRY(sqlite_error(rc, "find the files of", db->config.path));
    if (wal == NULL || wal->pMethods == NULL)
        return err_fail(ERR_IO, "SQLite did not open %s", db->wal_path);
    db->db_file = verify_vfs_raw(file);
    db->wal_file = verify_vfs_raw(wal);
    db->verified_wal = wal;
    return ERR_OK;
}

/* ERR_LOCKED: still held when UNTIL_MS has come. */
static enum err take_lock(struct repl_db *db, int lock, uint64_t until_ms, bool *held) ON_OWNER
{
    enum err e;
    while ((e = wal_lock(db->db_file, lock, 1, true)) == ERR_LOCKED && clock_mono_ms() < until_ms)
        (void)nanosleep(&(struct timespec){.tv_nsec = LOCK_LOOK_NS}, NULL);
    *held = e == ERR_OK;
    return e;
}

static enum err take_locks(struct repl_db *db) ON_OWNER
{
    uint64_t until_ms = clock_mono_ms() + LOCK_WAIT_MS;
    enum err e = take_lock(db, WAL_LOCK_WRITE, until_ms, &db->holds_write);
    if (e == ERR_LOCKED)
        return err_fail(ERR_LOCKED,
                        "another process writes to %s (it holds the lock WRITE of its wal-index); "
                        "stop it and start again",
                        db->config.path);
    TRY(e);
    e = take_lock(db, WAL_LOCK_CHECKPOINT, until_ms, &db->holds_checkpoint);
    if (e == ERR_LOCKED)
        return err_fail(ERR_LOCKED,
                        "another process checkpoints %s (it holds the lock CHECKPOINT of its "
                        "wal-index); wait for it or stop it, and start again",
                        db->config.path);
    return e;
}

/* --- what the files contain ------------------------------------------------------------------- */

static enum err pages_of_file(struct repl_db *db) ON_OWNER
{
    sqlite3_int64 bytes = 0;
    uint32_t page_size = db->config.page_size;
    int rc = db->db_file->pMethods->xFileSize(db->db_file, &bytes);
    TRY(sqlite_error(rc, "ask the size of", db->config.path));
    if (bytes <= 0 || bytes % page_size != 0 || bytes / page_size > UINT32_MAX - 1)
        return err_fail(ERR_CORRUPT, "%s has %lld bytes, not a number of whole pages of %u",
                        db->config.path, (long long)bytes, page_size);
    db->pages = (uint32_t)(bytes / page_size);
    return ERR_OK;
}

/* --- a wal-index that outlived its writer ------------------------------------------------------
 *
 * While another process has the database open, the shared memory survives our crash, and SQLite
 * does not recover it. Then the WAL may hold what the index does not show yet:
 *   - a transaction whose frames were written and whose header was not: same salts, fewer frames;
 *   - a new WAL (its header, perhaps its first transaction) beside an index of the old one, all of
 *     which is in the database file, or beside one that is empty;
 *   - a new WAL and its first transaction beside an index of the new salts without frames, whose
 *     nBackfill is still the old one's: killed inside wal_index_restart. It must go before frames
 *     are added, which would count as copied else.
 * All were committed before they were written: the index is brought up to the WAL. */

struct missing {
    struct wal_index *index;
    uint32_t from, to; /* frames to add */
    enum err result;
};

static void add_missing(void *ctx, uint32_t frame, const struct wal_frame *f, const uint8_t *page)
{
    struct missing *m = ctx;
    (void)page;
    if (frame >= m->from && frame <= m->to && m->result == ERR_OK)
        m->result = wal_index_append(m->index, frame, f->page_no);
}

/* All of the index's WAL is in the database file: it shows an empty one instead, of these salts. */
static enum err empty_index(struct repl_db *db, const uint32_t salt[2]) ON_OWNER
{
    TRY(wal_lock(db->db_file, WAL_LOCK_READ(1), WAL_READERS - 1, true));
    wal_index_restart(db->index, salt);
    wal_unlock(db->db_file, WAL_LOCK_READ(1), WAL_READERS - 1, true);
    return ERR_OK;
}

static enum err add_frames(struct repl_db *db, const struct wal_scan *scan, uint32_t from) ON_OWNER
{
    struct wal_scan again;
    struct missing m = {.index = db->index, .from = from, .to = scan->frames};
    TRY(wal_scan_file(db->wal_file, &again, add_missing, &m));
    TRY(m.result);
    wal_index_publish(db->index, scan->frames, scan->pages_after, scan->chain.s);
    return ERR_OK;
}

/* What this cannot explain is left for the caller to refuse. */
static enum err bring_up_index(struct repl_db *db, const struct wal_scan *scan,
                               struct wal_index_state *x) ON_OWNER
{
    bool same_wal = scan->has_header && x->salt[0] == scan->header.salt[0] &&
                    x->salt[1] == scan->header.salt[1];
    bool all_copied = x->frames == x->backfilled;
    bool agree = x->frames == scan->frames && (same_wal || scan->frames == 0);
    if (agree || (same_wal && x->frames > scan->frames) || (!same_wal && !all_copied))
        return ERR_OK;
    log_info("replication", "wal-index outlived its writer frames=%u wal_frames=%u same_wal=%d",
             x->frames, scan->frames, same_wal);
    if (!same_wal) {
        static const uint32_t none[2];
        TRY(empty_index(db, scan->has_header ? scan->header.salt : none));
        x->frames = 0;
    }
    if (scan->frames > x->frames)
        TRY(add_frames(db, scan, x->frames + 1));
    return wal_index_read(db->index, x);
}

/* Each page behind the end of the database file must be in the WAL, but for the lock-byte page;
 * else the file was cut short. Before anything is made as large as the WAL says. */
static enum err check_growth(struct repl_db *db, const struct wal_scan *scan) ON_OWNER
{
    sqlite3_int64 bytes = 0;
    int rc = db->db_file->pMethods->xFileSize(db->db_file, &bytes);
    TRY(sqlite_error(rc, "ask the size of", db->config.path));
    uint64_t in_file = (uint64_t)bytes / db->config.page_size;
    if (scan->pages_after > in_file + scan->frames + 1)
        return err_fail(ERR_CORRUPT,
                        "%s says that the database has %u pages, but %s has %llu and the WAL %u "
                        "frames; " REBUILD_ADVICE,
                        db->wal_path, scan->pages_after, db->config.path,
                        (unsigned long long)in_file, scan->frames);
    uint32_t lock_page = digest_lock_page(db->config.page_size), frame;
    for (uint64_t page = in_file + 1; page <= scan->pages_after; page++) {
        TRY(wal_index_find(db->index, (uint32_t)page, scan->frames, &frame));
        if (frame == 0 && page != lock_page)
            return err_fail(ERR_CORRUPT,
                            "%s was cut short: it has %lld bytes, and page %llu is neither in it "
                            "nor in the WAL; " REBUILD_ADVICE,
                            db->config.path, (long long)bytes, (unsigned long long)page);
    }
    return ERR_OK;
}

struct frame_hasher {
    struct repl_db *db;
    const struct wal_scan *scan;
};

/* A WAL of another page size is refused later. */
static void hash_frame(void *ctx, uint32_t frame, const struct wal_frame *f, const uint8_t *page)
{
    const struct frame_hasher *h = ctx;
    const uint32_t page_size = h->scan->header.page_size;
    if (page_size == h->db->config.page_size)
        stored_frame(h->db->stored, frame, f->page_no,
                     digest_page_hash(f->page_no, page, page_size));
}

/* Our own scan of the WAL against the wal-index that SQLite built from it. */
static enum err load_wal(struct repl_db *db, struct wal_scan *scan) ON_OWNER
{
    struct wal_index_state x;
    TRY(wal_index_open(db->db_file, db->config.page_size, &db->index));
    TRY(wal_scan_file(db->wal_file, scan, hash_frame,
                      &(struct frame_hasher){.db = db, .scan = scan}));
    if (wal_index_finish_restart(db->index))
        log_info("replication", "wal-index outlived its writer, which was restarting it path=%s",
                 db->config.path);
    TRY(wal_index_read(db->index, &x));
    TRY(bring_up_index(db, scan, &x));
    if (x.frames != scan->frames)
        return err_fail(ERR_CORRUPT, "%s holds %u valid frames, its wal-index says %u",
                        db->wal_path, scan->frames, x.frames);
    if (scan->has_header)
        db->wal = scan->header;
    db->frames = scan->frames;
    db->has_wal = scan->frames > 0;
    if (!db->has_wal)
        return pages_of_file(db);
    if (scan->header.page_size != db->config.page_size || x.salt[0] != scan->header.salt[0] ||
        x.salt[1] != scan->header.salt[1] || x.chain[0] != scan->chain.s[0] ||
        x.chain[1] != scan->chain.s[1] || x.pages != scan->pages_after)
        return err_fail(ERR_CORRUPT,
                        "%s (salts %08x %08x, checksum %08x %08x, %u pages) and its wal-index "
                        "(salts %08x %08x, checksum %08x %08x, %u pages) do not agree",
                        db->wal_path, scan->header.salt[0], scan->header.salt[1], scan->chain.s[0],
                        scan->chain.s[1], scan->pages_after, x.salt[0], x.salt[1], x.chain[0],
                        x.chain[1], x.pages);
    TRY(check_growth(db, scan));
    db->chain = scan->chain;
    db->pages = scan->pages_after;
    return ERR_OK;
}

/* Without a word the node would be behind, and nobody would know that a disk damages files. */
static enum err tell_rest(struct repl_db *db, const struct wal_scan *scan,
                          enum wal_rest *rest) ON_OWNER
{
    char sentence[ERR_TEXT_MAX];
    TRY(wal_look_behind(db->wal_file, scan, rest));
    if (*rest == WAL_REST_NONE)
        return ERR_OK;
    wal_rest_sentence(sentence, sizeof sentence, db->wal_path, scan, *rest);
    log_warn("replication",
             "wal_not_whole reason=\"%s\" what=\"what does not count is taken from this node's "
             "log, or else from another node\"",
             sentence);
    return ERR_OK;
}

/* The hashes of all pages, without reading main.db where the file `hashes` can be believed: when
 * the WAL counts, it is ours, and when it does not, main.db is what we left. */
static enum err load_hashes(struct repl_db *db) ON_OWNER
{
    sqlite3_int64 bytes = 0;
    uint32_t read = 0;
    bool current = true;
    int rc = db->db_file->pMethods->xFileSize(db->db_file, &bytes);
    TRY(sqlite_error(rc, "ask the size of", db->config.path));
    uint64_t in_file = (uint64_t)bytes / db->config.page_size;
    uint32_t pages = in_file < db->pages ? (uint32_t)in_file : db->pages;
    TRY(stored_load(db->stored, pages, database_read_stored, db, &read));
    if (!db->has_wal)
        TRY(stored_is_current(db->stored, db->config.path, &current));
    if (!current && read < pages) {
        log_warn("replication", "written by another program, all pages are read path=%s",
                 db->config.path);
        TRY(stored_rehash(db->stored, pages, database_read_stored, NULL, db, NULL));
    }
    stored_set_frames(db->stored, db->frames);
    stored_arm(db->stored, wal_index_backfilled(db->index));
    db->digest = digest_new(db->config.page_size);
    database_build_digest(db);
    return ERR_OK;
}

static void know(struct repl_db *db, uint64_t seq) ON_OWNER
{
    db->position = (struct repl_position){seq, digest_checksum(db->digest)};
    db->position_known = true;
}

/* The WAL has transactions: only its salts tell what came before them. */
static enum err position_of_wal(struct repl_db *db, const struct wal_scan *scan) ON_OWNER
{
    const struct position_record *r = &db->record;
    for (unsigned i = 0; i < r->n_wals; i++) {
        if (r->wals[i].salt[0] != scan->header.salt[0] ||
            r->wals[i].salt[1] != scan->header.salt[1])
            continue;
        /* After a clean stop nothing may have been added, lost or changed. Before that is said,
         * `hashes` is not believed. */
        const bool closed_here = r->closed && r->wals[i].seq + scan->commits == r->closed_seq;
        if (closed_here && db->position.checksum != r->closed_checksum)
            TRY(repl_db_rehash(db));
        know(db, r->wals[i].seq + scan->commits);
        if (r->closed &&
            (db->position.seq != r->closed_seq || db->position.checksum != r->closed_checksum))
            return err_fail(ERR_CORRUPT,
                            "%s was left at sequence %llu, checksum %016llx, and is now at %llu, "
                            "%016llx: it is damaged, or another program wrote to it while this "
                            "node was stopped",
                            db->config.path, (unsigned long long)r->closed_seq,
                            (unsigned long long)r->closed_checksum,
                            (unsigned long long)db->position.seq,
                            (unsigned long long)db->position.checksum);
        return ERR_OK;
    }
    return err_fail(ERR_CORRUPT,
                    "%s (salts %08x %08x) was not begun by this program: another one wrote to %s "
                    "while this node was stopped; remove this node's data and let it fetch the "
                    "database again",
                    db->wal_path, scan->header.salt[0], scan->header.salt[1], db->config.path);
}

/* No transaction in the WAL: the content is known if it is one that was noted. */
static void look_for_content(struct repl_db *db) ON_OWNER
{
    const struct position_record *r = &db->record;
    uint64_t checksum = digest_checksum(db->digest);
    if (r->closed && r->closed_checksum == checksum) {
        know(db, r->closed_seq);
        return;
    }
    for (unsigned i = 0; i < r->n_wals && !db->position_known; i++)
        if (r->wals[i].checksum == checksum)
            know(db, r->wals[i].seq);
}

static enum err position_of_content(struct repl_db *db, enum wal_rest rest) ON_OWNER
{
    look_for_content(db);
    if (!db->position_known) {
        TRY(repl_db_rehash(db));
        look_for_content(db);
    }
    if (!db->position_known)
        log_warn("replication", "position unknown path=%s checksum=%016llx reason=\"%s\"",
                 db->config.path, (unsigned long long)digest_checksum(db->digest),
                 rest == WAL_REST_NONE ? "the WAL is gone: another program opened the database "
                                         "while this node was stopped"
                                       : "the WAL is damaged, and the database has a part of it");
    return ERR_OK;
}

/* A full disk is no reason not to open: the checkpoint thread tries again. */
static enum err make_hashes(struct repl_db *db) ON_OWNER
{
    enum err e = stored_flush(db->stored);
    if (e == ERR_FULL)
        log_warn("replication", "%s: later", err_text());
    return e == ERR_FULL ? ERR_OK : e;
}

static enum err open_files(struct repl_db *db) ON_OWNER
{
    struct wal_scan scan;
    enum wal_rest rest;
    TRY(open_position(db));
    char *hashes_path = file_beside(db->config.path, "hashes");
    db->stored = stored_new(hashes_path, db->config.database_id, db->config.page_size);
    free(hashes_path);
    TRY(verify_vfs_open(&db->config, db->stored, &db->verify));
    TRY(open_keeper(db));
    TRY(take_locks(db));
    TRY(load_wal(db, &scan));
    TRY(tell_rest(db, &scan, &rest));
    TRY(load_hashes(db));
    TRY(db->has_wal ? position_of_wal(db, &scan) : position_of_content(db, rest));
    TRY(make_hashes(db));
    TRY(checkpoint_open(db));
    atomic_store(&db->publishing, db->position.seq);
    atomic_store(&db->published, db->position.seq);
    database_note_stats(db);
    log_info("replication", "database opened path=%s seq=%llu known=%d pages=%u wal_frames=%u",
             db->config.path, (unsigned long long)db->position.seq, db->position_known, db->pages,
             db->frames);
    return ERR_OK;
}

static bool page_size_valid(uint32_t n)
{
    return n >= 512 && n <= PAGE_SIZE_MAX && (n & (n - 1)) == 0;
}

enum err repl_db_open(const struct repl_config *c, struct repl_db **out)
{
    *out = NULL;
    if (!page_size_valid(c->page_size))
        return err_fail(ERR_CONFIG, "page size %u is not a power of two from 512 to %u",
                        c->page_size, PAGE_SIZE_MAX);
    struct repl_db *db = MEM_NEW(struct repl_db);
    db->config = *c;
    db->config.path = mem_strdup(c->path);
    db->wal_path = mem_printf("%s-wal", c->path);
    db->position_path = file_beside(c->path, "position");
    enum err e = open_files(db);
    if (e != ERR_OK) {
        database_free(db);
        return e;
    }
    *out = db;
    return ERR_OK;
}
