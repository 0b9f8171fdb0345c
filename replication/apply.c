/* Room: replication. The follower: puts ordered entries into the database.
 * Thread: owner.
 * Owns: struct applier: copies of the parts of a transaction that was cut, and reused memory.
 * Invariants:
 *   - transactions are applied in the order 1, 2, 3, ...: one that is there is skipped, a gap
 *     stops;
 *   - all pages of a transaction are unpacked and hashed, the checksums before and after and the
 *     pages that the database grows by are proved, before a byte of it is written: a written commit
 *     frame would count after a restart;
 *   - memory: one transaction's packed parts (bytes_max), 20 bytes a page, 1 MiB of frames.
 * Not here: the bytes of an entry (txn_codec.c), making frames visible (publish.c).
 *
 * Two passes. The first unpacks every page, hashes it, and keeps the pages as far as they fit in
 * `frames`: nearly always all. The second builds the frames, with this WAL's own salts and chain,
 * and writes them; pages that did not fit are unpacked again. */
#include "replication/database.h"
#include "replication/txn.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

/* Frames built and written in one piece. */
#define FRAMES_BYTES MIB(1)
/* What an entry holds beside its pages (a page's head is smaller than the frame's that
 * txn_bytes_max counts): at most this. */
#define PART_EXTRA_BYTES 96u

struct part {
    uint8_t *bytes;
    size_t n;
};

struct applier {
    struct part *parts; /* our copies */
    unsigned n_parts, parts_cap;
    uint64_t parts_bytes;
    struct repl_entry head; /* of parts[0] */
    /* Reused. */
    uint8_t *frames;
    size_t frames_cap;
    struct txn_page *pages;
    uint32_t *frame_page;
    uint32_t n_pages, pages_cap;
};

/* One transaction on its way through the two passes. */
struct applying {
    struct applier *a;
    const struct repl_entry *head;
    const struct part *parts;
    unsigned n_parts;
    uint32_t n_kept; /* pages in a->frames; the others are unpacked again */
    struct wal_header wal;
    struct wal_chain chain;
    uint32_t first_frame;
};

static struct applier *applier(struct repl_db *db) ON_OWNER
{
    if (db->applier == NULL)
        db->applier = MEM_NEW(struct applier);
    return db->applier;
}

void repl_db_apply_reset(struct repl_db *db)
{
    struct applier *a = db->applier;
    if (a == NULL)
        return;
    for (unsigned i = 0; i < a->n_parts; i++)
        free(a->parts[i].bytes);
    a->n_parts = 0;
    a->parts_bytes = 0;
}

void apply_close(struct repl_db *db)
{
    repl_db_apply_reset(db);
    if (db->applier == NULL)
        return;
    free(db->applier->parts);
    free(db->applier->frames);
    free(db->applier->pages);
    free(db->applier->frame_page);
    free(db->applier);
    db->applier = NULL;
}

/* --- pass 1: unpack, hash, prove -------------------------------------------------------------- */

static void note_page(struct applier *a, uint32_t page_no, uint64_t hash)
{
    if (a->n_pages == a->pages_cap) {
        a->pages_cap = a->pages_cap == 0 ? 64 : a->pages_cap * 2;
        a->pages = mem_realloc(a->pages, a->pages_cap * sizeof *a->pages);
        a->frame_page = mem_realloc(a->frame_page, a->pages_cap * sizeof *a->frame_page);
    }
    a->pages[a->n_pages] = (struct txn_page){page_no, hash};
    a->frame_page[a->n_pages++] = page_no;
}

static size_t frame_bytes(const struct applying *t)
{
    return WAL_FRAME_HEADER_BYTES + (size_t)t->head->page_size;
}

static uint8_t *frame_at(const struct applying *t, uint32_t i)
{
    return t->a->frames + i * frame_bytes(t);
}

/* How many frames fit; at least one. */
static uint32_t frames_max(const struct applying *t)
{
    uint64_t n = FRAMES_BYTES / frame_bytes(t);
    return n == 0 ? 1 : (uint32_t)n;
}

/* Room for frame I (< frames_max) in `frames`. */
static void reserve_frame(struct applying *t, uint32_t i)
{
    struct applier *a = t->a;
    size_t need = (i + 1) * frame_bytes(t);
    if (need <= a->frames_cap)
        return;
    a->frames_cap = need * 2;
    a->frames = mem_realloc(a->frames, a->frames_cap);
}

static enum err scan_part(struct applying *t, const struct part *part, uint8_t *scratch)
{
    struct applier *a = t->a;
    struct txn_decoder d;
    bool done = false;
    TRY(txn_decoder_init(&d, part->bytes, part->n));
    if (a->n_pages > 0)
        d.last_page_no = a->pages[a->n_pages - 1].page_no;
    for (;;) {
        bool keep = t->n_kept == a->n_pages && t->n_kept < frames_max(t);
        if (keep)
            reserve_frame(t, t->n_kept);
        uint8_t *page = keep ? frame_at(t, t->n_kept) + WAL_FRAME_HEADER_BYTES : scratch;
        uint32_t page_no;
        TRY(txn_decoder_page(&d, &page_no, page, &done));
        if (done)
            return ERR_OK;
        note_page(a, page_no, digest_page_hash(page_no, page, t->head->page_size));
        t->n_kept += keep;
    }
}

static enum err scan_parts(struct applying *t)
{
    enum err e = ERR_OK;
    uint8_t *scratch = mem_alloc(t->head->page_size);
    t->a->n_pages = 0;
    for (unsigned i = 0; i < t->n_parts && e == ERR_OK; i++)
        e = scan_part(t, &t->parts[i], scratch);
    free(scratch);
    if (e == ERR_OK && t->a->n_pages == 0)
        return err_fail(ERR_CORRUPT, "transaction %llu holds no page",
                        (unsigned long long)t->head->seq);
    return e;
}

static enum err not_grown(const struct applying *t, uint32_t pages_before)
{
    return err_fail(ERR_CORRUPT,
                    "transaction %llu makes a database of %u pages of one of %u, and does not hold "
                    "all the pages between: no leader makes such an entry",
                    (unsigned long long)t->head->seq, t->head->pages_after, pages_before);
}

/* The leader's rule (prove_growth in view.c): a page that the database grows by is in the
 * transaction, but for the lock-byte page. Else its content would be anything here, and a forged
 * size would cost memory at this and at every later start. Pages rise. */
static enum err prove_growth(const struct repl_db *db, const struct applying *t) ON_OWNER
{
    const struct applier *a = t->a;
    uint32_t before = db->pages, after = t->head->pages_after, i = a->n_pages;
    if (after <= before)
        return ERR_OK;
    if (after - before - 1 > a->n_pages) /* at most one is not there */
        return not_grown(t, before);
    for (uint32_t p = after; p > before; p--) {
        if (i > 0 && a->pages[i - 1].page_no == p)
            i--;
        else if (p != digest_lock_page(db->config.page_size))
            return not_grown(t, before);
    }
    return ERR_OK;
}

/* --- pass 2: frames --------------------------------------------------------------------------- */

/* Makes the frame headers for the N pages that lie in `frames` and writes them as the transaction's
 * frames FIRST (from 0) and on. */
static enum err write_batch(struct repl_db *db, struct applying *t, uint32_t first,
                            uint32_t n) ON_OWNER
{
    for (uint32_t i = 0; i < n; i++) {
        bool last = first + i + 1 == t->a->n_pages;
        struct wal_frame f = {t->a->frame_page[first + i], last ? t->head->pages_after : 0};
        uint8_t *at = frame_at(t, i);
        wal_frame_encode(&t->wal, &t->chain, &f, at + WAL_FRAME_HEADER_BYTES, at);
    }
    size_t bytes = n * frame_bytes(t);
    uint64_t offset = wal_frame_offset(t->first_frame + first, t->head->page_size);
    return database_write_wal(db, frame_at(t, 0), bytes, offset);
}

/* Unpacks again from page number T->n_kept (counted from 0) on, and writes batch by batch. */
static enum err write_rest(struct repl_db *db, struct applying *t) ON_OWNER
{
    uint32_t seen = 0, first = t->n_kept, n = 0;
    for (unsigned i = 0; i < t->n_parts; i++) {
        struct txn_decoder d;
        bool done = false;
        uint32_t page_no;
        TRY(txn_decoder_init(&d, t->parts[i].bytes, t->parts[i].n));
        for (;;) {
            TRY(txn_decoder_page(&d, &page_no, frame_at(t, n) + WAL_FRAME_HEADER_BYTES, &done));
            if (done)
                break;
            CHECK(page_no == t->a->frame_page[seen]); /* the same bytes as in pass 1 */
            if (seen++ < t->n_kept || ++n < frames_max(t))
                continue;
            TRY(write_batch(db, t, first, n));
            first += n;
            n = 0;
        }
    }
    CHECK(seen == t->a->n_pages && first + n == seen);
    return n > 0 ? write_batch(db, t, first, n) : ERR_OK;
}

static enum err write_frames(struct repl_db *db, void *ctx) ON_OWNER
{
    struct applying *t = ctx;
    TRY(write_batch(db, t, 0, t->n_kept));
    return t->n_kept < t->a->n_pages ? write_rest(db, t) : ERR_OK;
}

/* A header for the next WAL, as SQLite makes it: salt 0 counts, salt 1 is random. */
static struct wal_header next_wal_header(const struct repl_db *db)
{
    struct wal_header h = {
        .page_size = db->config.page_size,
        .checkpoint_seq = db->wal.checkpoint_seq + 1,
        .salt = {db->wal.salt[0] + 1},
    };
    sqlite3_randomness((int)sizeof h.salt[1], &h.salt[1]);
    if (db->wal.page_size == 0) { /* there never was one */
        h.checkpoint_seq = 0;
        sqlite3_randomness((int)sizeof h.salt[0], &h.salt[0]);
    }
    uint8_t bytes[WAL_HEADER_BYTES];
    wal_header_encode(&h, bytes); /* sets the chain */
    return h;
}

static enum err apply_parts(struct repl_db *db, const struct repl_entry *head,
                            const struct part *parts, unsigned n_parts) ON_OWNER
{
    struct applying t = {.a = applier(db), .head = head, .parts = parts, .n_parts = n_parts};
    TRY(scan_parts(&t));
    TRY(prove_growth(db, &t));
    bool new_wal = !db->has_wal || checkpoint_restart_ready(db);
    t.wal = new_wal ? next_wal_header(db) : db->wal;
    t.chain = new_wal ? t.wal.chain : db->chain;
    t.first_frame = new_wal ? 1 : db->frames + 1;
    if (t.first_frame > UINT32_MAX - t.a->n_pages)
        return err_fail(ERR_TOO_BIG, "%s is full: %u frames", db->wal_path, db->frames);
    return publish_frames(db, &(struct publish_frames){
                                  .new_wal = new_wal,
                                  .header = t.wal,
                                  .first_frame = t.first_frame,
                                  .n_frames = t.a->n_pages,
                                  .frame_page = t.a->frame_page,
                                  .pages_after = head->pages_after,
                                  .chain = t.chain.s,
                                  .write = write_frames,
                                  .ctx = &t,
                                  .pages = t.a->pages,
                                  .n_pages = t.a->n_pages,
                                  .seq = head->seq,
                                  .checksum_after = head->checksum_after,
                              });
}

/* --- entries ---------------------------------------------------------------------------------- */

static enum err check_identity(const struct repl_db *db, const struct repl_entry *h)
{
    if (h->database_id != db->config.database_id)
        return err_fail(ERR_DIVERGED,
                        "transaction %llu is for database %016llx, this is %016llx: the node was "
                        "joined to another cluster",
                        (unsigned long long)h->seq, (unsigned long long)h->database_id,
                        (unsigned long long)db->config.database_id);
    if (h->page_size != db->config.page_size)
        return err_fail(ERR_DIVERGED, "transaction %llu has pages of %u bytes, %s has %u",
                        (unsigned long long)h->seq, h->page_size, db->config.path,
                        db->config.page_size);
    return ERR_OK;
}

/* An entry of the past proves that the files are what the log says: after a restart the log comes
 * again from before the position. */
static enum err check_known(const struct repl_db *db, const struct repl_entry *h)
{
    if (h->seq < db->position.seq || h->checksum_after == db->position.checksum)
        return ERR_OK;
    return err_fail(
        ERR_DIVERGED,
        "at transaction %llu %s has checksum %016llx, the log says %016llx; " REBUILD_ADVICE,
        (unsigned long long)h->seq, db->config.path, (unsigned long long)db->position.checksum,
        (unsigned long long)h->checksum_after);
}

static enum err check_next(const struct repl_db *db, const struct repl_entry *h)
{
    if (h->seq != db->position.seq + 1)
        return err_fail(ERR_DIVERGED,
                        "the log goes on with transaction %llu, but %s ends at %llu: entries are "
                        "missing between them",
                        (unsigned long long)h->seq, db->config.path,
                        (unsigned long long)db->position.seq);
    if (h->checksum_before != db->position.checksum)
        return err_fail(ERR_DIVERGED,
                        "before transaction %llu %s has checksum %016llx, its leader had "
                        "%016llx; " REBUILD_ADVICE,
                        (unsigned long long)h->seq, db->config.path,
                        (unsigned long long)db->position.checksum,
                        (unsigned long long)h->checksum_before);
    return ERR_OK;
}

/* Part 0 begins anew, whatever an earlier leader left unfinished; any other must be the next of
 * what is collected. */
static enum err check_order(const struct applier *a, const struct repl_entry *h)
{
    const struct repl_entry *f = &a->head;
    if (h->part == 0)
        return ERR_OK;
    if (a->n_parts == 0 || h->part != a->n_parts)
        return err_fail(ERR_CORRUPT, "part %u of %u of transaction %llu came where part %u belongs",
                        h->part, h->parts, (unsigned long long)h->seq, a->n_parts);
    if (h->parts != f->parts || h->seq != f->seq || h->wall_ms != f->wall_ms ||
        h->checksum_before != f->checksum_before || h->checksum_after != f->checksum_after ||
        h->pages_after != f->pages_after)
        return err_fail(ERR_CORRUPT,
                        "part %u of %u of transaction %llu is not of the same "
                        "transaction as the parts before it",
                        h->part, h->parts, (unsigned long long)h->seq);
    return ERR_OK;
}

/* A part is cut where the next page does not fit: two that follow each other are together longer
 * than entry_bytes_max. So many can a transaction within txn_bytes_max have, and so many bytes. */
static uint64_t parts_max(const struct repl_config *c)
{
    uint64_t half = c->entry_bytes_max / 2;
    return c->txn_bytes_max / (half > PART_EXTRA_BYTES ? half - PART_EXTRA_BYTES : 1) + 2;
}

static uint64_t bytes_max(const struct repl_config *c)
{
    return c->txn_bytes_max + parts_max(c) * PART_EXTRA_BYTES;
}

/* Keeps a copy of one part of several. */
static enum err collect(struct repl_db *db, const struct repl_entry *h, const uint8_t *p,
                        size_t n) ON_OWNER
{
    struct applier *a = applier(db);
    TRY(check_order(a, h));
    if (h->part == 0) {
        repl_db_apply_reset(db);
        a->head = *h;
    }
    a->parts_bytes += n;
    if (h->parts > parts_max(&db->config) || a->parts_bytes > bytes_max(&db->config))
        return err_fail(ERR_TOO_BIG,
                        "transaction %llu is over this node's limit of %llu bytes: set the same "
                        "limit on all nodes",
                        (unsigned long long)h->seq, (unsigned long long)db->config.txn_bytes_max);
    if (a->n_parts == a->parts_cap) {
        a->parts_cap = a->parts_cap == 0 ? 8 : a->parts_cap * 2;
        a->parts = mem_realloc(a->parts, a->parts_cap * sizeof *a->parts);
    }
    struct part *copy = &a->parts[a->n_parts++];
    copy->bytes = mem_alloc(n);
    copy->n = n;
    memcpy(copy->bytes, p, n);
    return ERR_OK;
}

static enum err apply_entry(struct repl_db *db, const uint8_t *p, size_t n) ON_OWNER
{
    struct repl_entry h;
    TRY(repl_entry_read(p, n, &h));
    TRY(check_identity(db, &h));
    if (h.seq <= db->position.seq)
        return check_known(db, &h);
    TRY(check_next(db, &h));
    if (h.parts == 1) {
        repl_db_apply_reset(db);
        struct part whole = {(uint8_t *)(uintptr_t)p, n}; /* read only */
        return apply_parts(db, &h, &whole, 1);
    }
    TRY(collect(db, &h, p, n));
    if (h.part + 1 < h.parts)
        return ERR_OK;
    struct applier *a = db->applier;
    TRY(apply_parts(db, &h, a->parts, a->n_parts));
    repl_db_apply_reset(db);
    return ERR_OK;
}

enum err repl_db_apply(struct repl_db *db, const uint8_t *p, size_t n)
{
    TRY(database_check(db));
    CHECK(db->view == NULL);
    if (!db->position_known)
        return err_fail(ERR_MISUSE, "the position of %s is not known: adopt one first",
                        db->config.path);
    enum err e = apply_entry(db, p, n);
    return e == ERR_OK ? ERR_OK : database_stop(db, e);
}
