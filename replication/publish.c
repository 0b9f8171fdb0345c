/* Room: replication. Makes a transaction's frames visible: one piece of code for the leader, which
 * copies what its writer's view made, and for the follower, which built the frames itself.
 * Thread: owner.
 * Owns: nothing beyond the calls.
 * Invariants:
 *   - the checksum after the transaction is proved before anything of it is written;
 *   - `position` knows a new WAL's salts, durably, before its header is written, and the header is
 *     durable before its first frame is: else a power cut could leave the old header before a part
 *     of the old frames, which would then count (SQLite's ticket ff5be73dee);
 *   - frames are written, then their hashes are known (stored.c), then they are in the wal-index'
 *     tables, then its header shows them: a crash between any two leaves the state before or, with
 *     the last frame on disk, after;
 *   - a full disk is met before a commit frame is written or not at all (`prepare`): the same call
 *     can be made again, over what it left behind the published frames;
 *   - `publishing` moves before the index header, `published` after it.
 * Not here: who decides to begin a new WAL (checkpoint.c), the layout of the index (wal_index.c).
 *
 * Nothing is synced per transaction: the Raft log is the durability, a checkpoint syncs the WAL.
 *
 * A new WAL is written over the old one, whose frames are all in the database file and their hashes
 * in `hashes`, both synced (checkpoint.c).
 * Readers cannot be inside the old one: we hold the read-mark locks 1..4, so they are at mark 0 and
 * read the database file only. Old frames behind the new ones do not count: their salts differ. */
#include "replication/database.h"
#include "replication/txn.h"
#include "replication/view.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "base/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A WAL file that a huge transaction or a long reader made longer than this many times
 * wal_restart_bytes is cut when the next WAL begins. */
#define WAL_KEEP_FACTOR 3

/* SQLite's unix VFS is only made for writes of a page: it masks the length with 0x1ffff, and a
 * multiple of 128 KiB is then reported as a full disk. */
#define WRITE_BYTES KIB(64)

enum err database_write_wal(struct repl_db *db, const uint8_t *p, size_t n, uint64_t offset)
{
    int rc = SQLITE_OK, number = 0;
    while (n > 0 && rc == SQLITE_OK) {
        size_t some = n < WRITE_BYTES ? n : WRITE_BYTES;
        rc = db->wal_file->pMethods->xWrite(db->wal_file, p, (int)some, (sqlite3_int64)offset);
        p += some;
        n -= some;
        offset += some;
    }
    if (rc == SQLITE_IOERR_WRITE &&
        db->wal_file->pMethods->xFileControl(db->wal_file, SQLITE_FCNTL_LAST_ERRNO, &number) ==
            SQLITE_OK &&
        number == EDQUOT)
        rc = SQLITE_FULL; /* as a full disk: SQLite knows ENOSPC only */
    return sqlite_file_error(rc, db->wal_file, "write to", db->wal_path);
}

/* ERR_DIVERGED unless the transaction leads from this database to the checksum that it names. */
static enum err prove(const struct repl_db *db, const struct publish_frames *p) ON_OWNER
{
    struct digest_preview preview = digest_preview_begin(db->digest, p->pages_after);
    for (uint32_t i = 0; i < p->n_pages; i++)
        digest_preview_page(&preview, p->pages[i].page_no, p->pages[i].hash);
    if (preview.checksum == p->checksum_after)
        return ERR_OK;
    return err_fail(
        ERR_DIVERGED,
        "transaction %llu leads to checksum %016llx here, its leader says %016llx; " REBUILD_ADVICE,
        (unsigned long long)p->seq, (unsigned long long)preview.checksum,
        (unsigned long long)p->checksum_after);
}

/* Before the first WAL: whoever wrote the database file, or removed its WAL, may not have synced
 * it. Before a later one the checkpoint thread did. */
static enum err sync_database(struct repl_db *db) ON_OWNER
{
    int rc = db->db_file->pMethods->xSync(db->db_file, SQLITE_SYNC_NORMAL);
    return sqlite_file_error(rc, db->db_file, "sync", db->config.path);
}

/* Durable before the new WAL's header is: whichever of the two a crash leaves, the salts found in
 * the WAL are known. The slot that is kept is that of the WAL in the file, and not always the
 * newest one: a crash may have come between a record and its WAL. */
static enum err note_new_wal(struct repl_db *db, const struct wal_header *h) ON_OWNER
{
    struct position_record r = db->record;
    const struct position_wal *old = r.wals;
    if (r.n_wals == 2 && memcmp(r.wals[1].salt, db->wal.salt, sizeof db->wal.salt) == 0)
        old = &db->record.wals[1];
    r.closed = false;
    r.wals[1] = *old;
    r.wals[0] = (struct position_wal){
        .salt = {h->salt[0], h->salt[1]},
        .seq = db->position.seq,
        .checksum = db->position.checksum,
    };
    r.n_wals = r.n_wals > 0 ? 2 : 1;
    TRY(position_write(db->position_file, &r));
    db->record = r;
    return ERR_OK;
}

/* `closed` promises that nothing came after it: taken back before the first transaction is added
 * to a WAL that was open at the clean stop. */
static enum err note_not_closed(struct repl_db *db) ON_OWNER
{
    if (!db->record.closed)
        return ERR_OK;
    struct position_record r = db->record;
    r.closed = false;
    TRY(position_write(db->position_file, &r));
    db->record = r;
    return ERR_OK;
}

/* Gives the disk space of a huge WAL back, once its successor has begun: what is cut off has other
 * salts than the header, and counts nothing before or after. */
static enum err cut_wal_file(struct repl_db *db) ON_OWNER
{
    const sqlite3_int64 keep = (sqlite3_int64)(db->config.wal_restart_bytes * WAL_KEEP_FACTOR);
    const sqlite3_int64 end = (sqlite3_int64)wal_frame_offset(db->frames + 1, db->config.page_size);
    sqlite3_int64 bytes = 0;
    int rc = db->wal_file->pMethods->xFileSize(db->wal_file, &bytes);
    if (rc == SQLITE_OK && bytes > keep && bytes > end)
        rc = db->wal_file->pMethods->xTruncate(db->wal_file, end);
    return sqlite_file_error(rc, db->wal_file, "shorten", db->wal_path);
}

static enum err begin_wal(struct repl_db *db, const struct publish_frames *p) ON_OWNER
{
    CHECK(p->first_frame == 1 && (db->holds_readers || !db->has_wal));
    uint8_t bytes[WAL_HEADER_BYTES];
    struct wal_header h = p->header;
    wal_header_encode(&h, bytes);
    CHECK(memcmp(h.chain.s, p->header.chain.s, sizeof h.chain.s) == 0); /* the frames' beginning */
    if (!db->has_wal)
        TRY(sync_database(db));
    TRY(note_new_wal(db, &h));
    TRY(database_write_wal(db, bytes, sizeof bytes, 0));
    int rc = db->wal_file->pMethods->xSync(db->wal_file, SQLITE_SYNC_NORMAL);
    return sqlite_file_error(rc, db->wal_file, "sync", db->wal_path);
}

/* Where PAGE_NO is in the transaction's pages, which rise; n_pages when it is not. */
static uint32_t find_page(const struct publish_frames *p, uint32_t page_no)
{
    uint32_t low = 0, high = p->n_pages;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (p->pages[middle].page_no < page_no)
            low = middle + 1;
        else
            high = middle;
    }
    return low < p->n_pages && p->pages[low].page_no == page_no ? low : p->n_pages;
}

/* Tells the hash of each frame that can be read: the newest of its page, unless that is cut off. */
static void note_hashes(struct repl_db *db, const struct publish_frames *p) ON_OWNER
{
    uint8_t *seen = mem_zalloc(p->n_pages + 1);
    for (uint32_t i = p->n_frames; i-- > 0;) {
        uint32_t at = find_page(p, p->frame_page[i]);
        bool newest = at < p->n_pages && !seen[at];
        stored_frame(db->stored, p->first_frame + i, newest ? p->frame_page[i] : 0,
                     newest ? p->pages[at].hash : 0);
        seen[at] = 1;
    }
    free(seen);
    stored_set_frames(db->stored, p->first_frame + p->n_frames - 1);
}

/* The index moves: from here on readers may see the transaction. In a new WAL nothing is copied
 * before its frames have hashes: else they would be folded as if they were. */
static enum err show(struct repl_db *db, const struct publish_frames *p) ON_OWNER
{
    atomic_store(&db->publishing, p->seq);
    if (p->new_wal) {
        stored_restart(db->stored);
        wal_index_restart(db->index, p->header.salt);
        checkpoint_wal_begun(db);
    }
    note_hashes(db, p);
    for (uint32_t i = 0; i < p->n_frames; i++)
        TRY(wal_index_append(db->index, p->first_frame + i, p->frame_page[i]));
    wal_index_publish(db->index, p->first_frame + p->n_frames - 1, p->pages_after, p->chain);
    return ERR_OK;
}

static void account(struct repl_db *db, const struct publish_frames *p) ON_OWNER
{
    if (p->new_wal) {
        if (db->has_wal)
            atomic_fetch_add_explicit(&db->stat_restarts, 1, memory_order_relaxed);
        db->wal = p->header;
        db->chain = p->header.chain;
        db->has_wal = true;
        atomic_store_explicit(&db->stat_backfilled_bytes, 0, memory_order_relaxed);
    }
    db->chain.s[0] = p->chain[0];
    db->chain.s[1] = p->chain[1];
    db->frames = p->first_frame + p->n_frames - 1;
    db->pages = p->pages_after;
    digest_resize(db->digest, p->pages_after);
    for (uint32_t i = 0; i < p->n_pages; i++)
        digest_set(db->digest, p->pages[i].page_no, p->pages[i].hash);
    CHECK(digest_checksum(db->digest) == p->checksum_after);
    db->position = (struct repl_position){p->seq, p->checksum_after};
    database_note_stats(db);
    atomic_store(&db->published, p->seq);
}

/* The header of a new WAL is there and there was no room for its frames: it begins without them, as
 * a crash would have left it. What frames were written over is not read any more. */
static void begin_empty(struct repl_db *db, const struct publish_frames *p) ON_OWNER
{
    stored_restart(db->stored);
    wal_index_restart(db->index, p->header.salt);
    checkpoint_wal_begun(db);
    if (db->has_wal)
        atomic_fetch_add_explicit(&db->stat_restarts, 1, memory_order_relaxed);
    atomic_store_explicit(&db->stat_backfilled_bytes, 0, memory_order_relaxed);
    db->wal = p->header;
    db->has_wal = false;
    db->frames = 0;
    database_note_stats(db);
    checkpoint_release_readers(db);
}

/* All that can meet a full disk. Nothing of it counts yet: a commit frame is last in `write`. */
static enum err prepare(struct repl_db *db, const struct publish_frames *p, bool *begun) ON_OWNER
{
    TRY(prove(db, p));
    TRY(wal_index_reserve(db->index, p->first_frame + p->n_frames - 1));
    TRY(p->new_wal ? begin_wal(db, p) : note_not_closed(db));
    *begun = p->new_wal;
    return p->write(db, p->ctx);
}

enum err publish_frames(struct repl_db *db, const struct publish_frames *p)
{
    CHECK(db->position_known && db->holds_write);
    CHECK(p->seq == db->position.seq + 1 && p->n_frames > 0 && p->pages_after > 0);
    CHECK(p->new_wal || (db->has_wal && p->first_frame == db->frames + 1));
    bool begun = false;
    enum err e = prepare(db, p, &begun);
    database_note_room(db, ROOM_TO_PUBLISH, e == ERR_FULL);
    if (e == ERR_FULL && begun)
        begin_empty(db, p);
    if (e == ERR_FULL)
        return e;
    if (e == ERR_OK)
        e = show(db, p);
    if (e == ERR_OK) {
        account(db, p);
        if (p->new_wal)
            e = cut_wal_file(db);
    }
    trace("publish", p->seq, db->frames);
    /* The read-mark locks stay: what lies in the WAL file is not what the index says any more, and
     * so all readers stay at mark 0. */
    if (e != ERR_OK)
        return database_stop(db, e);
    /* The new WAL has begun, or SQLite chose to go on in the old one: readers may use it now. */
    checkpoint_release_readers(db);
    return ERR_OK;
}

/* --- the leader's transaction ----------------------------------------------------------------- */

static enum err copy_piece(void *ctx, const uint8_t *p, size_t n, uint64_t offset)
{
    thread_expect_owner();
    return database_write_wal(ctx, p, n, offset);
}

/* The bytes of T in the WAL file: from its first frame, or from the new WAL's header (which is
 * there already, the same). */
static uint64_t bytes_of(const struct repl_db *db, const struct repl_txn *t, uint64_t *offset)
{
    uint32_t page_size = db->config.page_size;
    *offset = t->new_wal ? 0 : wal_frame_offset(t->first_frame, page_size);
    return wal_frame_offset(t->first_frame + t->n_frames, page_size) - *offset;
}

static enum err copy_overlay(struct repl_db *db, void *ctx) ON_OWNER
{
    const struct repl_txn *t = ctx;
    uint64_t offset, n = bytes_of(db, t, &offset);
    return view_each(t->view, offset, n, copy_piece, db);
}

enum err repl_db_publish(struct repl_db *db, struct repl_txn *t)
{
    enum err e = database_check(db);
    if (e == ERR_OK) {
        CHECK(t->view == db->view);
        e = publish_frames(db, &(struct publish_frames){
                                   .new_wal = t->new_wal,
                                   .header = t->header,
                                   .first_frame = t->first_frame,
                                   .n_frames = t->n_frames,
                                   .frame_page = t->frame_page,
                                   .pages_after = t->pages_after,
                                   .chain = t->chain,
                                   .write = copy_overlay,
                                   .ctx = t,
                                   .pages = t->pages,
                                   .n_pages = t->n_pages,
                                   .seq = t->seq,
                                   .checksum_after = t->checksum_after,
                               });
    }
    if (e == ERR_OK) {
        uint64_t offset, n = bytes_of(db, t, &offset);
        view_forget(t->view, offset, n);
        view_published(t->view, t);
    }
    if (e != ERR_FULL)
        repl_txn_free(t);
    return e;
}
