/* Room: replication. The writer's view: the leader runs ahead on what is not published yet.
 * Thread: owner.
 * Owns: struct repl_view: the VFS with the overlay and the private wal-index, the position of the
 *   newest sealed transaction, the hashes of unpublished pages.
 * Invariants:
 *   - overlay.sealed is the end of frame `frames`, overlay.low the end of the published ones;
 *   - `ahead` describes the database after transaction `seq`;
 *   - after a failed seal nothing is sealed any more: the view can only be closed;
 *   - what an open read transaction of the view relies on is not overwritten in the database file
 *     by a checkpoint: see "the pin".
 * Not here: the files as SQLite sees them (capture_vfs.c), publishing (publish.c).
 *
 * A commit in the view wrote frames into the overlay. Sealing reads them back, verifies SQLite's
 * chain of checksums, and makes of the newest content of each page an entry for the log:
 *
 *   published frames | sealed, unpublished | committed now | rolled back, ignored
 *                    ^ overlay.low         ^ overlay.sealed, frames
 *
 * Bytes behind the last commit are what a spilled and rolled back transaction left; the next one
 * overwrites them. */
#include "replication/view.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "base/trace.h"
#include "replication/capture_vfs.h"
#include "replication/database.h"
#include "replication/digest_ahead.h"

#include <stdlib.h>
#include <string.h>

/* A sealed transaction goes to the real WAL in pieces of this. */
#define COPY_BYTES KIB(64)

struct repl_view {
    struct repl_db *db;
    struct capture *capture;
    /* After the newest sealed transaction. */
    uint64_t seq;
    uint32_t frames; /* 0: the next one begins a WAL */
    struct wal_header header;
    struct wal_chain chain;
    struct digest_ahead ahead;
    unsigned unpublished; /* sealed and not published */
    unsigned txns;        /* made and not freed */
    bool failed;
    sqlite3 *pin;
    bool pinned;
    uint8_t *scratch; /* one frame */
};

/* --- the pin ----------------------------------------------------------------------------------
 *
 * A read transaction of the view that stays open while another connection of the view commits sees
 * an old state. Pages that did not change in the WAL up to that state are read from the database
 * file. The checkpointer does not know the private read marks, so it could copy newer frames into
 * the file under the reader. Therefore, when a transaction is sealed while somebody reads, an
 * ordinary read transaction on the published files is opened, which holds the checkpointer back at
 * a state that is not newer than the reader's; it ends when the view has no readers. */

static enum err pin_take(struct repl_view *v)
{
    int rc = SQLITE_OK;
    const char *path = v->db->config.path;
    if (v->pin == NULL) {
        rc = sqlite3_open_v2(path, &v->pin, SQLITE_OPEN_READONLY, "unix");
        if (rc == SQLITE_OK)
            rc = sqlite3_db_config(v->pin, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    }
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(v->pin, "BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        return sqlite_error(rc, "hold back checkpoints of", path);
    v->pinned = true;
    return ERR_OK;
}

static void pin_drop(struct repl_view *v)
{
    if (!v->pinned)
        return;
    v->pinned = false;
    CHECK(sqlite3_exec(v->pin, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
}

static uint64_t newest_bytes(const struct repl_view *v)
{
    return (uint64_t)v->ahead.pages * v->db->config.page_size;
}

static void nobody_reads(void *ctx)
{
    struct repl_view *v = ctx;
    pin_drop(v);
    v->capture->db_bytes = newest_bytes(v);
}

/* --- open, connect, close --------------------------------------------------------------------- */

/* SQLite's recovery of the WAL, through our eyes, must find exactly what was published. */
static enum err prove_recovery(const struct repl_view *v) ON_OWNER
{
    const struct repl_db *db = v->db;
    sqlite3 *conn;
    TRY(capture_connect(v->capture, &conn));
    struct private_shm_state s = {0};
    bool valid = private_shm_read(&v->capture->shm, &s);
    CHECK(sqlite3_close(conn) == SQLITE_OK);
    if (valid && s.frames == db->frames &&
        (s.frames == 0 || (s.pages == db->pages && memcmp(s.salt, db->wal.salt, 8) == 0 &&
                           memcmp(s.chain, db->chain.s, 8) == 0)))
        return ERR_OK;
    return err_fail(ERR_CORRUPT,
                    "%s: SQLite finds %u frames and %u pages, published are %u frames and %u "
                    "pages; run `lecternd check` on this node's data",
                    db->wal_path, s.frames, s.pages, db->frames, db->pages);
}

enum err repl_view_open(struct repl_db *db, struct repl_view **view)
{
    *view = NULL;
    CHECK(db->view == NULL);
    TRY(database_check(db));
    if (!db->position_known)
        return err_fail(ERR_MISUSE, "%s: its sequence is unknown, nothing can be written",
                        db->config.path);
    checkpoint_release_readers(db); /* a restart that was prepared and did not come */
    uint64_t low = db->frames == 0 ? 0 : wal_frame_offset(db->frames + 1, db->config.page_size);
    struct capture *capture;
    TRY(capture_open(&db->config, verify_vfs_of(db->verify), db->verified_wal, low, &capture));
    struct repl_view *v = MEM_NEW(struct repl_view);
    *v = (struct repl_view){.db = db,
                            .capture = capture,
                            .seq = db->position.seq,
                            .frames = db->frames,
                            .header = db->wal,
                            .chain = db->chain};
    capture->db_bytes = (uint64_t)db->pages * db->config.page_size;
    capture->idle = nobody_reads;
    capture->idle_ctx = v;
    v->scratch = mem_alloc(WAL_FRAME_HEADER_BYTES + db->config.page_size);
    digest_ahead_init(&v->ahead, db->digest, v->seq, db->config.page_size);
    db->view = v;
    enum err e = prove_recovery(v);
    if (e != ERR_OK) {
        repl_view_close(v);
        return e;
    }
    *view = v;
    return ERR_OK;
}

enum err repl_view_connect(struct repl_view *view, sqlite3 **conn)
{
    return capture_connect(view->capture, conn);
}

enum err repl_view_check(const struct repl_view *view)
{
    return capture_check(view->capture);
}

uint64_t repl_view_seq(const struct repl_view *view)
{
    return view->seq;
}

void repl_view_close(struct repl_view *v)
{
    CHECK(v->db->view == v && v->txns == 0 && v->capture->connections == 0);
    pin_drop(v);
    CHECK(sqlite3_close(v->pin) == SQLITE_OK);
    v->db->view = NULL;
    checkpoint_release_readers(v->db);
    capture_close(v->capture);
    digest_ahead_fini(&v->ahead);
    free(v->scratch);
    free(v);
}

/* --- sealing ---------------------------------------------------------------------------------- */

static const uint8_t *frame_at(const struct repl_view *v, uint32_t frame)
{
    uint32_t page_size = v->db->config.page_size;
    return overlay_peek(&v->capture->overlay, wal_frame_offset(frame, page_size),
                        WAL_FRAME_HEADER_BYTES + page_size, v->scratch);
}

static enum err damaged(const struct repl_view *v, uint32_t frame, const char *what)
{
    return err_fail(ERR_CORRUPT,
                    "%s: frame %u of the writer's view, after transaction %llu: %s; the view must "
                    "be closed",
                    v->db->config.path, frame, (unsigned long long)v->seq, what);
}

/* Decides which frames T has, and verifies the header when they begin a WAL. */
static enum err find_frames(const struct repl_view *v, const struct private_shm_state *s,
                            struct repl_txn *t)
{
    const struct overlay *o = &v->capture->overlay;
    t->new_wal = v->frames == 0 || memcmp(s->salt, v->header.salt, 8) != 0;
    t->header = v->header;
    t->first_frame = t->new_wal ? 1 : v->frames + 1;
    if (s->frames < t->first_frame)
        return damaged(v, s->frames, "the WAL became shorter");
    t->n_frames = s->frames - t->first_frame + 1;
    if (o->end < wal_frame_offset(s->frames + 1, v->db->config.page_size))
        return damaged(v, s->frames, "the commit is longer than what was written");
    if (!t->new_wal)
        return ERR_OK;
    CHECK(v->unpublished == 0);
    uint8_t head[WAL_HEADER_BYTES];
    if (o->low != 0)
        return damaged(v, 1, "the WAL has other salts but no new header");
    TRY(overlay_read(o, 0, head, sizeof head));
    if (!wal_header_decode(head, &t->header) || memcmp(t->header.salt, s->salt, 8) != 0 ||
        t->header.page_size != v->db->config.page_size)
        return damaged(v, 1, "the new WAL's header is not valid");
    return ERR_OK;
}

/* Verifies each frame and notes its page. */
static enum err read_frames(const struct repl_view *v, const struct private_shm_state *s,
                            struct repl_txn *t, uint64_t *refs)
{
    struct wal_chain chain = t->new_wal ? t->header.chain : v->chain;
    for (uint32_t i = 0; i < t->n_frames; i++) {
        uint32_t frame = t->first_frame + i;
        const uint8_t *p = frame_at(v, frame);
        struct wal_frame f;
        if (p == NULL)
            return ERR_IO;
        if (!wal_frame_decode(&t->header, &chain, p, p + WAL_FRAME_HEADER_BYTES, &f))
            return damaged(v, frame, "salts or checksum are wrong");
        bool last = i == t->n_frames - 1;
        if (!last && f.pages_after != 0)
            return err_fail(ERR_MISUSE,
                            "%s: more than one commit since transaction %llu: each must be sealed "
                            "before the next; the view must be closed",
                            v->db->config.path, (unsigned long long)v->seq);
        t->frame_page[i] = f.page_no;
        refs[i] = (uint64_t)f.page_no << 32 | i;
        if (last)
            t->pages_after = f.pages_after;
    }
    if (t->pages_after == 0 || t->pages_after != s->pages || memcmp(chain.s, s->chain, 8) != 0)
        return damaged(v, s->frames, "it is not the commit that the wal-index names");
    memcpy(t->chain, chain.s, sizeof t->chain);
    return ERR_OK;
}

/* Computes the checksums of T's frames again, in the overlay, and corrects the wal-index.
 *
 * SQLite writes a page that spills twice in a transaction over its first frame and leaves the
 * checksums to the commit, from the first such frame on (walRewriteChecksums). A ROLLBACK TO that
 * takes the WAL back behind that frame does not take this note back (sqlite3WalSavepointUndo,
 * 3.40.1): frames are then committed without salts and checksum, and the index names a wrong one.
 * Stock SQLite loses such a transaction, and all that follow, when it recovers the WAL after a
 * crash. The pages and the frames' heads are right. */
static enum err rechain(struct repl_view *v, struct private_shm_state *s, const struct repl_txn *t)
{
    struct overlay *o = &v->capture->overlay;
    struct wal_chain chain = t->new_wal ? t->header.chain : v->chain;
    for (uint32_t i = 0; i < t->n_frames; i++) {
        uint32_t frame = t->first_frame + i;
        const uint8_t *p = frame_at(v, frame);
        if (p == NULL)
            return ERR_IO;
        struct wal_frame f = {.page_no = get_be32(p), .pages_after = get_be32(p + 4)};
        uint32_t salt[2] = {get_be32(p + 8), get_be32(p + 12)};
        bool left_to_commit = salt[0] == 0 && salt[1] == 0;
        if (f.page_no == 0 || !(left_to_commit || memcmp(salt, t->header.salt, sizeof salt) == 0))
            return damaged(v, frame, "it is not a frame of this WAL");
        uint8_t head[WAL_FRAME_HEADER_BYTES];
        wal_frame_encode(&t->header, &chain, &f, p + WAL_FRAME_HEADER_BYTES, head);
        TRY(overlay_write(o, wal_frame_offset(frame, t->header.page_size), head, sizeof head));
    }
    memcpy(s->chain, chain.s, sizeof s->chain);
    private_shm_set_chain(&v->capture->shm, chain.s);
    log_info("replication", "wal_rechained seq=%llu frames=%u sqlite=%s",
             (unsigned long long)v->seq + 1, t->n_frames, sqlite3_libversion());
    return ERR_OK;
}

static int compare_refs(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Leaves in REFS the newest frame of each page that the database still has, by page number. */
static uint32_t newest_of_each(uint64_t *refs, uint32_t n, uint32_t pages_after)
{
    uint32_t kept = 0;
    qsort(refs, n, sizeof *refs, compare_refs);
    for (uint32_t i = 0; i < n; i++) {
        bool newest = i + 1 == n || refs[i] >> 32 != refs[i + 1] >> 32;
        if (newest && refs[i] >> 32 <= pages_after)
            refs[kept++] = refs[i];
    }
    return kept;
}

/* A page that the database grew by must be in a frame: its content on other nodes would be
 * whatever their file had there. In WAL mode SQLite 3.40 writes them all, also those that it freed
 * again (PGHDR_DONT_WRITE is for rollback journals); should another version not do so, it is said
 * here and not found out by a follower. */
static enum err prove_growth(const struct repl_view *v, const struct repl_txn *t,
                             const uint64_t *refs, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && refs[i] >> 32 <= v->ahead.pages)
        i++;
    for (uint32_t p = v->ahead.pages + 1; p <= t->pages_after; p++) {
        if (i < n && refs[i] >> 32 == p)
            i++;
        else if (p != v->ahead.lock_page)
            return err_fail(ERR_MISUSE,
                            "%s: page %u was added and not written: this version of SQLite (%s) "
                            "cannot be replicated; the view must be closed",
                            v->db->config.path, p, sqlite3_libversion());
    }
    return ERR_OK;
}

/* Hashes the pages, and decides how the entries are cut. */
static enum err take_pages(struct repl_view *v, struct repl_txn *t, const uint64_t *refs)
{
    const struct repl_config *c = &v->db->config;
    t->seq = v->seq + 1;
    t->checksum_before = v->ahead.checksum;
    t->pages = mem_alloc((t->n_pages > 0 ? t->n_pages : 1) * sizeof *t->pages);
    digest_ahead_resize(&v->ahead, t->seq, t->pages_after);
    for (uint32_t i = 0; i < t->n_pages; i++) {
        struct txn_page *p = &t->pages[i];
        *p = (struct txn_page){.page_no = (uint32_t)(refs[i] >> 32),
                               .frame = t->first_frame + (uint32_t)refs[i]};
        const uint8_t *page = view_page(v, p->frame);
        if (page == NULL)
            return ERR_IO;
        p->hash = digest_page_hash(p->page_no, page, c->page_size);
        digest_ahead_set(&v->ahead, t->seq, p->page_no, p->hash);
    }
    t->checksum_after = v->ahead.checksum;
    CHECK(t->section_len <= OUTCOMES_SECTION_MAX && t->section_len < c->entry_bytes_max);
    t->part_pages = txn_part_pages(c->page_size, c->entry_bytes_max - t->section_len);
    t->n_parts = t->n_pages == 0 ? 1 : (t->n_pages - 1) / t->part_pages + 1;
    return ERR_OK;
}

static void advance(struct repl_view *v, const struct repl_txn *t)
{
    v->seq = t->seq;
    v->frames = t->first_frame + t->n_frames - 1;
    v->header = t->header;
    if (newest_bytes(v) > v->capture->db_bytes || !private_shm_reading(&v->capture->shm))
        v->capture->db_bytes = newest_bytes(v);
    if (t->new_wal)
        v->chain = t->header.chain;
    memcpy(v->chain.s, t->chain, sizeof v->chain.s);
    v->unpublished++;
    overlay_seal(&v->capture->overlay, wal_frame_offset(v->frames + 1, v->db->config.page_size));
}

static enum err seal_steps(struct repl_view *v, struct private_shm_state *s,
                           struct repl_txn *t) ON_OWNER
{
    if (private_shm_write_locked(&v->capture->shm))
        return err_fail(ERR_MISUSE,
                        "%s: a write began before the commit was sealed; the view must "
                        "be closed",
                        v->db->config.path);
    TRY(find_frames(v, s, t));
    t->frame_page = mem_alloc(t->n_frames * sizeof *t->frame_page);
    uint64_t *refs = mem_alloc(t->n_frames * sizeof *refs);
    enum err e = read_frames(v, s, t, refs);
    if (e == ERR_CORRUPT && v->capture->overlay.rewritten) {
        e = rechain(v, s, t);
        if (e == ERR_OK)
            e = read_frames(v, s, t, refs);
    }
    if (e == ERR_OK) {
        t->n_pages = newest_of_each(refs, t->n_frames, t->pages_after);
        e = prove_growth(v, t, refs, t->n_pages);
    }
    if (e == ERR_OK && !v->pinned && private_shm_reading(&v->capture->shm))
        e = pin_take(v);
    if (e == ERR_OK)
        e = take_pages(v, t, refs);
    if (e == ERR_OK)
        advance(v, t);
    free(refs);
    return e;
}

static struct repl_txn *txn_new(struct repl_view *v, uint64_t wall_ms, const uint8_t *section,
                                size_t len)
{
    struct repl_txn *t = MEM_NEW(struct repl_txn);
    t->view = v;
    t->wall_ms = wall_ms;
    if (len > 0) {
        t->section = mem_alloc(len);
        t->section_len = len;
        memcpy(t->section, section, len);
    }
    v->txns++;
    return t;
}

enum err repl_view_seal(struct repl_view *v, uint64_t wall_ms, const uint8_t *section, size_t len,
                        struct repl_txn **txn)
{
    *txn = NULL;
    TRY(database_check(v->db));
    if (v->failed)
        return err_fail(ERR_MISUSE, "%s: the writer's view failed before and must be closed",
                        v->db->config.path);
    enum err whole = repl_view_check(v);
    v->failed = whole != ERR_OK;
    TRY(whole);
    struct private_shm_state s;
    CHECK(private_shm_read(&v->capture->shm, &s)); /* prove_recovery made it valid */
    /* A restarted WAL without a commit has no frames. */
    bool nothing = s.frames == 0 ||
                   (s.frames == v->frames && memcmp(s.salt, v->header.salt, sizeof s.salt) == 0);
    if (!nothing) {
        struct repl_txn *t = txn_new(v, wall_ms, section, len);
        enum err e = seal_steps(v, &s, t);
        if (e != ERR_OK) {
            v->failed = true;
            repl_txn_free(t);
            return e;
        }
        trace("seal", t->seq, t->n_frames);
        *txn = t;
    }
    if (!private_shm_write_locked(&v->capture->shm))
        overlay_drop_unsealed(&v->capture->overlay);
    return ERR_OK;
}

/* --- for publish.c and checkpoint.c ----------------------------------------------------------- */

void view_entry_head(const struct repl_view *v, const struct repl_txn *t, struct repl_entry *head)
{
    *head = (struct repl_entry){
        .database_id = v->db->config.database_id,
        .seq = t->seq,
        .wall_ms = t->wall_ms,
        .checksum_before = t->checksum_before,
        .checksum_after = t->checksum_after,
        .parts = t->n_parts,
        .pages_after = t->pages_after,
        .page_size = v->db->config.page_size,
    };
}

const uint8_t *view_page(const struct repl_view *v, uint32_t frame)
{
    const uint8_t *p = frame_at(v, frame);
    return p == NULL ? NULL : p + WAL_FRAME_HEADER_BYTES;
}

enum err view_each(struct repl_view *v, uint64_t offset, uint64_t n, view_write write, void *ctx)
{
    const struct overlay *o = &v->capture->overlay;
    uint8_t *copy = mem_alloc(COPY_BYTES);
    enum err e = ERR_OK;
    CHECK(offset + n <= o->sealed);
    while (n > 0 && e == ERR_OK) {
        size_t step = n < COPY_BYTES ? (size_t)n : COPY_BYTES;
        const uint8_t *p = overlay_peek(o, offset, step, copy);
        e = p == NULL ? ERR_IO : write(ctx, p, step, offset);
        offset += step;
        n -= step;
    }
    free(copy);
    return e;
}

void view_forget(struct repl_view *v, uint64_t offset, uint64_t n)
{
    CHECK(offset == v->capture->overlay.low); /* published in the order of the seals */
    overlay_forget(&v->capture->overlay, n);
}

void view_published(struct repl_view *v, const struct repl_txn *t)
{
    CHECK(v->unpublished > 0 && t->seq == v->ahead.published_seq + 1);
    v->unpublished--;
    digest_ahead_published(&v->ahead, t->seq);
}

void view_txn_freed(struct repl_view *v)
{
    CHECK(v->txns > 0);
    v->txns--;
}

unsigned view_unpublished(const struct repl_view *v)
{
    return v->unpublished;
}

bool view_in_use(const struct repl_view *v)
{
    return private_shm_write_locked(&v->capture->shm) || private_shm_reading(&v->capture->shm);
}

void view_allow_restart(struct repl_view *v)
{
    CHECK(v->unpublished == 0 && v->frames == v->db->frames);
    struct private_shm_state s;
    CHECK(private_shm_read(&v->capture->shm, &s));
    CHECK(s.frames == 0 || s.frames == v->frames);
    private_shm_all_backfilled(&v->capture->shm);
}
