/* Room: replication. The database object: its state, position, page hashes and their proof.
 * Thread: owner; stats, published and reader_open as replication.h says.
 * Owns: struct repl_db, the keeper connection, the WAL's WRITE lock.
 * Invariants:
 *   - the keeper holds WRITE from open to close, so nobody else changes the WAL or its index;
 *   - `position.checksum` is the digest's checksum whenever the position is known;
 *   - once stopped, nothing is written any more and the first sentence is kept.
 * Not here: creating and opening (database_open.c), publishing, applying, checkpoints.
 *
 * The files are only ever touched through the keeper's sqlite3_file: closing a second descriptor of
 * main.db or main.db-shm would drop all POSIX locks that this process holds on it. */
#include "replication/database.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void repl_config_init(struct repl_config *c, const char *path)
{
    *c = (struct repl_config){
        .path = path,
        .page_size = PAGE_SIZE_DEFAULT,
        .txn_bytes_max = TXN_BYTES_MAX,
        .txn_accept_max = TXN_BYTES_LIMIT,
        .txn_memory_max = TXN_MEMORY_MAX,
        .entry_bytes_max = ENTRY_BYTES_MAX,
        .wal_checkpoint_bytes = WAL_CHECKPOINT_BYTES,
        .wal_restart_bytes = WAL_RESTART_BYTES,
    };
}

/* --- errors and the stopped state ------------------------------------------------------------- */

enum err sqlite_error(int rc, const char *what, const char *path)
{
    enum err code = ERR_IO;
    if (rc == SQLITE_IOERR_DATA) {
        char sentence[ERR_TEXT_MAX];
        (void)snprintf(sentence, sizeof sentence, "%s", err_text());
        return err_fail(ERR_CORRUPT, "cannot %s %s: %s", what, path, sentence);
    }
    switch (rc & 0xff) {
    case SQLITE_OK:
        return ERR_OK;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL: /* a lock that did not become free in the time that SQLite waits */
        code = ERR_LOCKED;
        break;
    case SQLITE_NOMEM:
        code = ERR_NOMEM;
        break;
    case SQLITE_FULL:
        code = ERR_FULL;
        break;
    case SQLITE_CORRUPT:
        code = ERR_CORRUPT;
        break;
    case SQLITE_NOTADB:
        code = ERR_FORMAT;
        break;
    default:
        break;
    }
    return err_fail(code, "cannot %s %s: SQLite says: %s (%d)", what, path, sqlite3_errstr(rc), rc);
}

enum err sqlite_file_error(int rc, sqlite3_file *f, const char *what, const char *path)
{
    int number = 0;
    if ((rc & 0xff) != SQLITE_IOERR || rc == SQLITE_IOERR_DATA || rc == SQLITE_IOERR_SHORT_READ ||
        f->pMethods->xFileControl(f, SQLITE_FCNTL_LAST_ERRNO, &number) != SQLITE_OK || number == 0)
        return sqlite_error(rc, what, path);
    return err_fail(ERR_IO, "cannot %s %s: %s", what, path, strerror(number));
}

enum err database_stop(struct repl_db *db, enum err code)
{
    CHECK(code != ERR_OK);
    if (!db->stopped) {
        db->stopped = true;
        db->stopped_code = code;
        (void)snprintf(db->stopped_text, sizeof db->stopped_text, "%s", err_text());
        log_error("replication", "stopped code=%s reason=\"%s\"", err_name((int)code),
                  db->stopped_text);
    }
    return code;
}

enum err database_check(const struct repl_db *db)
{
    if (!db->stopped)
        return ERR_OK;
    return err_fail(ERR_STOPPED, "%s", db->stopped_text);
}

/* --- pages ------------------------------------------------------------------------------------ */

/* Reads PAGE_NO as published and says where it lay: *frame is 0 for the database file. */
static enum err read_page_where(struct repl_db *db, uint32_t page_no, uint8_t *page,
                                uint32_t *frame) ON_OWNER
{
    uint32_t page_size = db->config.page_size;
    CHECK(page_no >= 1 && page_no <= db->pages);
    *frame = 0;
    if (db->frames > 0)
        TRY(wal_index_find(db->index, page_no, db->frames, frame));
    if (*frame > 0) {
        int rc = db->wal_file->pMethods->xRead(
            db->wal_file, page, (int)page_size,
            (sqlite3_int64)(wal_frame_offset(*frame, page_size) + WAL_FRAME_HEADER_BYTES));
        return sqlite_file_error(rc, db->wal_file, "read a page from", db->wal_path);
    }
    return database_read_stored(db, page_no, page);
}

enum err database_read_stored(void *ctx, uint32_t page_no, uint8_t *page)
{
    const struct repl_db *db = ctx;
    uint32_t page_size = db->config.page_size;
    int rc = db->db_file->pMethods->xRead(db->db_file, page, (int)page_size,
                                          (sqlite3_int64)(page_no - 1) * page_size);
    /* Behind the end of the file: SQLite fills with zeros, and so does the page hash's rule. */
    if (rc == SQLITE_IOERR_SHORT_READ)
        return ERR_OK;
    return sqlite_file_error(rc, db->db_file, "read a page from", db->config.path);
}

enum err database_read_page(struct repl_db *db, uint32_t page_no, uint8_t *page)
{
    uint32_t frame;
    return read_page_where(db, page_no, page, &frame);
}

/* ERR_CORRUPT when the page in the files is not the one that was published. */
static enum err verify_page(struct repl_db *db, uint32_t page_no, uint8_t *page) ON_OWNER
{
    uint32_t frame;
    if (page_no == digest_lock_page(db->config.page_size))
        return ERR_OK;
    TRY(read_page_where(db, page_no, page, &frame));
    uint64_t hash = digest_page_hash(page_no, page, db->config.page_size);
    if (hash == digest_get(db->digest, page_no))
        return ERR_OK;
    if (frame == 0)
        return err_fail(
            ERR_CORRUPT,
            "page %u in %s is damaged (hash %016llx, published %016llx); " REBUILD_ADVICE, page_no,
            db->config.path, (unsigned long long)hash,
            (unsigned long long)digest_get(db->digest, page_no));
    return err_fail(
        ERR_CORRUPT,
        "page %u in %s, frame %u, is damaged (hash %016llx, published %016llx); " REBUILD_ADVICE,
        page_no, db->wal_path, frame, (unsigned long long)hash,
        (unsigned long long)digest_get(db->digest, page_no));
}

/* Verifies N pages from db->scrub_next on, round and round. */
static enum err verify_some(struct repl_db *db, uint32_t n) ON_OWNER
{
    enum err e = ERR_OK;
    uint8_t *page = mem_alloc(db->config.page_size);
    for (uint32_t i = 0; i < n && e == ERR_OK; i++) {
        if (db->scrub_next < 1 || db->scrub_next > db->pages)
            db->scrub_next = 1;
        e = verify_page(db, db->scrub_next++, page);
    }
    free(page);
    return e == ERR_OK ? e : database_stop(db, e);
}

enum err repl_db_verify(struct repl_db *db)
{
    TRY(database_check(db));
    CHECK(digest_pages(db->digest) == db->pages);
    db->scrub_next = 1;
    return verify_some(db, db->pages);
}

enum err repl_db_scrub(struct repl_db *db, uint32_t pages)
{
    TRY(database_check(db));
    return verify_some(db, pages < db->pages ? pages : db->pages);
}

void database_build_digest(struct repl_db *db)
{
    struct digest *d = db->digest;
    digest_resize(d, db->pages);
    for (uint32_t n = 1; n <= db->pages; n++)
        digest_set(d, n, stored_page(db->stored, n));
    for (uint32_t f = 1; f <= db->frames; f++) {
        uint32_t page_no;
        uint64_t hash;
        if (stored_frame_hash(db->stored, f, &page_no, &hash) && page_no <= db->pages)
            digest_set(d, page_no, hash);
    }
    db->position.checksum = digest_checksum(d);
    database_note_stats(db);
}

/* --- hashing all anew ------------------------------------------------------------------------- */

#define NAMED_MAX 8 /* page numbers in a line */

struct differing {
    struct repl_db *db;
    uint32_t n, named[NAMED_MAX];
};

/* What the WAL has newer counts nothing: its stored hash may be anything. */
static void note_differing(void *ctx, uint32_t page_no)
{
    struct differing *d = ctx;
    uint32_t frame = 0;
    thread_expect_owner();
    if (d->db->frames > 0 &&
        (wal_index_find(d->db->index, page_no, d->db->frames, &frame) != ERR_OK || frame > 0))
        return;
    if (d->n < NAMED_MAX)
        d->named[d->n] = page_no;
    d->n++;
}

static void say_differing(const struct differing *d)
{
    char pages[NAMED_MAX * 12] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < d->n && i < NAMED_MAX; i++)
        at +=
            (size_t)snprintf(pages + at, sizeof pages - at, "%s%u", i == 0 ? "" : ",", d->named[i]);
    if (d->n > 0)
        log_warn("replication", "hashes differed path=%s pages=%u first=%s", d->db->config.path,
                 d->n, pages);
    else
        log_info("replication", "hashes were right path=%s", d->db->config.path);
}

enum err repl_db_rehash(struct repl_db *db)
{
    TRY(database_check(db));
    CHECK(db->view == NULL);
    struct differing differing = {.db = db};
    log_info("replication", "hashing all pages path=%s pages=%u", db->config.path, db->pages);
    enum err e = db->checkpointer == NULL ? ERR_OK : checkpoint_hold(db);
    if (e == ERR_OK)
        e = stored_rehash(db->stored, db->pages, database_read_stored, note_differing, db,
                          &differing);
    if (e != ERR_OK)
        return database_stop(db, e);
    say_differing(&differing);
    db->rehashed = true;
    database_build_digest(db);
    e = stored_flush(db->stored);
    if (e == ERR_FULL) /* the checkpoint thread tries again */
        log_warn("replication", "hashes are made later reason=\"%s\"", err_text());
    return e == ERR_OK || e == ERR_FULL ? ERR_OK : database_stop(db, e);
}

/* --- position and facts ----------------------------------------------------------------------- */

bool repl_db_position_known(const struct repl_db *db)
{
    return db->position_known;
}

struct repl_position repl_db_position(const struct repl_db *db)
{
    return db->position;
}

enum err database_note_closed(struct repl_db *db)
{
    CHECK(db->position_known);
    struct position_record r = db->record;
    r.closed = true;
    r.closed_seq = db->position.seq;
    r.closed_checksum = db->position.checksum;
    TRY(position_write(db->position_file, &r));
    db->record = r;
    return ERR_OK;
}

enum err repl_db_adopt_position(struct repl_db *db, uint64_t seq)
{
    TRY(database_check(db));
    if (db->position_known && db->position.seq == seq)
        return ERR_OK;
    if (db->position_known)
        return err_fail(ERR_MISUSE, "%s is known to be at sequence %llu; it cannot adopt %llu",
                        db->config.path, (unsigned long long)db->position.seq,
                        (unsigned long long)seq);
    CHECK(db->frames == 0);
    db->position = (struct repl_position){seq, digest_checksum(db->digest)};
    db->position_known = true;
    enum err e = database_note_closed(db);
    if (e != ERR_OK)
        return database_stop(db, e);
    log_info("replication", "position adopted seq=%llu checksum=%016llx", (unsigned long long)seq,
             (unsigned long long)db->position.checksum);
    atomic_store(&db->publishing, seq);
    atomic_store(&db->published, seq);
    return ERR_OK;
}

void database_note_stats(struct repl_db *db)
{
    uint64_t frame_bytes = WAL_FRAME_HEADER_BYTES + (uint64_t)db->config.page_size;
    atomic_store_explicit(&db->stat_checksum, db->position.checksum, memory_order_relaxed);
    atomic_store_explicit(&db->stat_wal_bytes, db->frames * frame_bytes, memory_order_relaxed);
    atomic_store_explicit(&db->stat_pages, db->pages, memory_order_relaxed);
}

void database_note_room(struct repl_db *db, enum room_for what, bool full)
{
    unsigned before = atomic_load_explicit(&db->stat_waits_for_room, memory_order_relaxed);
    unsigned now = full ? before | what : before & ~(unsigned)what;
    if (full && before == 0)
        log_warn("replication", "waiting for room reason=\"%s\"", err_text());
    if (!full && before != 0 && now == 0)
        log_info("replication", "there is room again path=%s", db->config.path);
    atomic_store_explicit(&db->stat_waits_for_room, now, memory_order_relaxed);
}

void database_note_durable(struct repl_db *db, uint64_t seq)
{
    uint64_t before = atomic_load(&db->durable);
    while (before < seq && !atomic_compare_exchange_weak(&db->durable, &before, seq))
        continue;
}

void repl_db_stats(const struct repl_db *db, struct repl_stats *out)
{
    *out = (struct repl_stats){
        .published_seq = atomic_load(&db->published),
        .checksum = atomic_load_explicit(&db->stat_checksum, memory_order_relaxed),
        .wal_bytes = atomic_load_explicit(&db->stat_wal_bytes, memory_order_relaxed),
        .wal_backfilled_bytes =
            atomic_load_explicit(&db->stat_backfilled_bytes, memory_order_relaxed),
        .wal_restarts = atomic_load_explicit(&db->stat_restarts, memory_order_relaxed),
        .checkpoints = atomic_load_explicit(&db->stat_checkpoints, memory_order_relaxed),
        .pages = atomic_load_explicit(&db->stat_pages, memory_order_relaxed),
        .page_size = db->config.page_size,
        .waits_for_room = atomic_load_explicit(&db->stat_waits_for_room, memory_order_relaxed) != 0,
    };
    uint64_t since = atomic_load_explicit(&db->stat_restart_held_ms, memory_order_relaxed);
    uint64_t now = clock_mono_ms();
    out->restart_waits_ms = since != 0 && now > since ? now - since : 0;
}

void repl_db_checkpoint_times(const struct repl_db *db, struct histogram_copy *out)
{
    histogram_collect(&db->stat_checkpoint_times, out);
}

uint64_t repl_db_durable(const struct repl_db *db)
{
    return atomic_load(&db->durable);
}

uint64_t repl_db_published(const struct repl_db *db)
{
    return atomic_load(&db->published);
}

uint64_t repl_db_published_upper(const struct repl_db *db)
{
    return atomic_load(&db->publishing);
}

/* --- readers ---------------------------------------------------------------------------------- */

static int prepare_reader(sqlite3 *c)
{
    int rc = sqlite3_extended_result_codes(c, 1);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(c, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    /* The SELECT opens the WAL now, so that what is wrong shows here and not in a request. */
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c,
                          "PRAGMA query_only=ON; PRAGMA foreign_keys=ON;"
                          "SELECT count(*) FROM sqlite_schema;",
                          NULL, NULL, NULL);
    return rc;
}

/* FULLMUTEX: a connection wanders between reader threads, and sqlite3_interrupt comes from
 * another one. */
enum err repl_reader_open(const struct repl_db *db, sqlite3 **conn)
{
    sqlite3 *c = NULL;
    *conn = NULL;
    int rc = sqlite3_open_v2(db->config.path, &c, SQLITE_OPEN_READONLY | SQLITE_OPEN_FULLMUTEX,
                             verify_vfs_of(db->verify)->zName);
    if (rc == SQLITE_OK)
        rc = prepare_reader(c);
    if (rc != SQLITE_OK) {
        (void)sqlite3_close(c);
        return sqlite_error(rc, "open for reading", db->config.path);
    }
    *conn = c;
    return ERR_OK;
}

/* --- the end ---------------------------------------------------------------------------------- */

void database_free(struct repl_db *db)
{
    CHECK(db->view == NULL);
    if (db->checkpointer != NULL)
        checkpoint_close(db);
    apply_close(db);
    checkpoint_release_readers(db);
    if (db->holds_checkpoint)
        wal_unlock(db->db_file, WAL_LOCK_CHECKPOINT, 1, true);
    if (db->holds_write)
        wal_unlock(db->db_file, WAL_LOCK_WRITE, 1, true);
    if (db->index != NULL)
        wal_index_close(db->index);
    /* NO_CKPT_ON_CLOSE: leaves the WAL as it is. */
    CHECK(sqlite3_close(db->keeper) == SQLITE_OK);
    verify_vfs_close(db->verify);
    stored_free(db->stored);
    if (db->position_file != NULL)
        position_close(db->position_file);
    if (db->digest != NULL)
        digest_free(db->digest);
    free(db->wal_path);
    free(db->position_path);
    free((char *)(uintptr_t)db->config.path); /* our own copy */
    free(db);
}

/* After the last write to main.db. For want of room the WAL keeps what `hashes` does not have. */
static enum err close_hashes(struct repl_db *db) ON_OWNER
{
    enum err e = stored_flush(db->stored);
    if (e == ERR_OK)
        e = stored_touch(db->stored);
    return e == ERR_FULL ? ERR_OK : e;
}

enum err repl_db_close(struct repl_db *db)
{
    enum err e = database_check(db);
    if (e == ERR_OK)
        e = checkpoint_all(db);
    if (e == ERR_OK)
        e = close_hashes(db);
    if (e == ERR_OK && db->position_known)
        e = database_note_closed(db);
    database_free(db);
    return e;
}
