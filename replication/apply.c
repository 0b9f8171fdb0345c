/* Room: replication. The follower: puts ordered entries into the database.
 * Thread: owner.
 * Owns: struct applier: the stash, where the parts of a transaction that was cut wait for its last
 *   one, and reused memory.
 * Invariants:
 *   - transactions are applied in the order 1, 2, 3, ...: one that is there is skipped, a gap
 *     stops;
 *   - all pages of a transaction are unpacked and hashed, the checksums before and after and the
 *     pages that the database grows by are proved, before a byte of it is written: a written commit
 *     frame would count after a restart;
 *   - an entry for which the disk has no room changed nothing and may come again;
 *   - memory: txn_memory_max of the parts as they came (the rest is in a file), one part, 20 bytes
 *     a page, 1 MiB of frames.
 * Not here: the bytes of an entry (txn_codec.c), making frames visible (publish.c).
 *
 * Two passes. The first unpacks every page, hashes it, and keeps the pages as far as they fit in
 * `frames`: nearly always all. The second builds the frames, with this WAL's own salts and chain,
 * and writes them; pages that did not fit are unpacked again. */
#include "replication/database.h"
#include "replication/spill.h"
#include "replication/txn.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

/* Frames built and written in one piece. */
#define FRAMES_BYTES MIB(1)
/* Memory for more pages than this is given back when they are applied. */
#define PAGES_KEPT 16384u

/* Where a part lies in the stash. */
struct stashed {
    uint64_t offset;
    size_t n;
};

struct applier {
    struct spill stash;
    struct stashed *parts;
    unsigned n_parts, parts_cap;
    uint64_t stash_bytes;
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
    const uint8_t *whole; /* the only entry; NULL: the parts are in the stash */
    size_t whole_len;
    uint8_t *part; /* one of them, read back */
    size_t part_cap;
    uint32_t n_kept; /* pages in a->frames; the others are unpacked again */
    struct wal_header wal;
    struct wal_chain chain;
    uint32_t first_frame;
};

static struct applier *applier(struct repl_db *db) ON_OWNER
{
    if (db->applier == NULL) {
        char *path = mem_printf("%s" SPILL_STASH, db->config.path);
        db->applier = MEM_NEW(struct applier);
        spill_init(&db->applier->stash, path, db->config.txn_memory_max);
        free(path);
    }
    return db->applier;
}

void repl_db_apply_reset(struct repl_db *db)
{
    struct applier *a = db->applier;
    if (a == NULL)
        return;
    spill_empty(&a->stash);
    a->n_parts = 0;
    a->stash_bytes = 0;
}

static void free_pages(struct applier *a)
{
    free(a->pages);
    free(a->frame_page);
    a->pages = NULL;
    a->frame_page = NULL;
    a->n_pages = a->pages_cap = 0;
}

void apply_close(struct repl_db *db)
{
    struct applier *a = db->applier;
    if (a == NULL)
        return;
    spill_fini(&a->stash);
    free(a->parts);
    free(a->frames);
    free_pages(a);
    free(a);
    db->applier = NULL;
}

/* --- the parts of a transaction on its way ---------------------------------------------------- */

static unsigned parts_of(const struct applying *t)
{
    return t->whole != NULL ? 1 : t->a->n_parts;
}

/* The bytes of part I, valid until the next call. */
static enum err part_get(struct applying *t, unsigned i, const uint8_t **p, size_t *n)
{
    if (t->whole != NULL) {
        *p = t->whole;
        *n = t->whole_len;
        return ERR_OK;
    }
    const struct stashed *part = &t->a->parts[i];
    if (part->n > t->part_cap) {
        t->part_cap = part->n;
        t->part = mem_realloc(t->part, t->part_cap);
    }
    *p = t->part;
    *n = part->n;
    return spill_read(&t->a->stash, part->offset, t->part, part->n);
}

/* --- pass 1: unpack, hash, prove -------------------------------------------------------------- */

static void note_page(struct applier *a, uint32_t page_no, uint64_t hash)
{
    if (a->n_pages == a->pages_cap) {
        a->pages_cap = a->pages_cap == 0 ? 64 : a->pages_cap * 2;
        a->pages = mem_realloc(a->pages, a->pages_cap * sizeof *a->pages);
        a->frame_page = mem_realloc(a->frame_page, a->pages_cap * sizeof *a->frame_page);
    }
    a->pages[a->n_pages] = (struct txn_page){.page_no = page_no, .hash = hash};
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

static enum err scan_part(struct applying *t, unsigned part, uint8_t *scratch)
{
    struct applier *a = t->a;
    struct txn_decoder d;
    const uint8_t *p;
    size_t n;
    bool done = false;
    TRY(part_get(t, part, &p, &n));
    TRY(txn_decoder_init(&d, p, n));
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
    for (unsigned i = 0; i < parts_of(t) && e == ERR_OK; i++)
        e = scan_part(t, i, scratch);
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
    for (unsigned i = 0; i < parts_of(t); i++) {
        struct txn_decoder d;
        const uint8_t *p;
        size_t len;
        bool done = false;
        uint32_t page_no;
        TRY(part_get(t, i, &p, &len));
        TRY(txn_decoder_init(&d, p, len)); /* verifies its checksum again */
        for (;;) {
            TRY(txn_decoder_page(&d, &page_no, frame_at(t, n) + WAL_FRAME_HEADER_BYTES, &done));
            if (done)
                break;
            if (page_no != t->a->frame_page[seen])
                return err_fail(ERR_CORRUPT, "transaction %llu changed while it was applied",
                                (unsigned long long)t->head->seq);
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

static enum err apply_steps(struct repl_db *db, struct applying *t) ON_OWNER
{
    const struct repl_entry *head = t->head;
    struct applier *a = t->a;
    TRY(scan_parts(t));
    TRY(prove_growth(db, t));
    bool new_wal = !db->has_wal || checkpoint_restart_ready(db);
    t->wal = new_wal ? next_wal_header(db) : db->wal;
    t->chain = new_wal ? t->wal.chain : db->chain;
    t->first_frame = new_wal ? 1 : db->frames + 1;
    if (t->first_frame > UINT32_MAX - a->n_pages)
        return err_fail(ERR_TOO_BIG, "%s is full: %u frames", db->wal_path, db->frames);
    return publish_frames(db, &(struct publish_frames){
                                  .new_wal = new_wal,
                                  .header = t->wal,
                                  .first_frame = t->first_frame,
                                  .n_frames = a->n_pages,
                                  .frame_page = a->frame_page,
                                  .pages_after = head->pages_after,
                                  .chain = t->chain.s,
                                  .write = write_frames,
                                  .ctx = t,
                                  .pages = a->pages,
                                  .n_pages = a->n_pages,
                                  .seq = head->seq,
                                  .checksum_after = head->checksum_after,
                              });
}

/* The transaction of HEAD: WHOLE, or what is in the stash. */
static enum err apply_txn(struct repl_db *db, const struct repl_entry *head, const uint8_t *whole,
                          size_t n) ON_OWNER
{
    struct applying t = {.a = applier(db), .head = head, .whole = whole, .whole_len = n};
    enum err e = apply_steps(db, &t);
    free(t.part);
    if (t.a->pages_cap > PAGES_KEPT) {
        free_pages(t.a);
        mem_give_back();
    }
    return e;
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

/* A checksum that is not the log's may be the fault of the file `hashes`. Before the database is
 * called different, it is read; once. */
static enum err doubt_hashes(struct repl_db *db, const struct repl_entry *h) ON_OWNER
{
    const struct repl_position *p = &db->position;
    const bool differs = (h->seq == p->seq && h->checksum_after != p->checksum) ||
                         (h->seq == p->seq + 1 && h->checksum_before != p->checksum);
    return differs && !db->rehashed ? repl_db_rehash(db) : ERR_OK;
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

/* Keeps a copy of one part of several. ERR_FULL: nothing happened. */
static enum err stash(struct repl_db *db, const struct repl_entry *h, const uint8_t *p,
                      size_t n) ON_OWNER
{
    struct applier *a = applier(db);
    TRY(check_order(a, h));
    if (h->part == 0) {
        repl_db_apply_reset(db);
        a->head = *h;
    }
    uint64_t max = db->config.txn_accept_max; /* each part has a page, or it is the only one */
    if (h->parts > max / h->page_size || a->stash_bytes + n > max)
        return err_fail(ERR_TOO_BIG,
                        "transaction %llu has %u parts with more than %llu bytes: no leader makes "
                        "such a one",
                        (unsigned long long)h->seq, h->parts, (unsigned long long)max);
    if (a->n_parts == a->parts_cap) {
        a->parts_cap = a->parts_cap == 0 ? 8 : a->parts_cap * 2;
        a->parts = mem_realloc(a->parts, a->parts_cap * sizeof *a->parts);
    }
    TRY(spill_write(&a->stash, a->stash_bytes, p, n));
    a->parts[a->n_parts++] = (struct stashed){a->stash_bytes, n};
    a->stash_bytes += n;
    return ERR_OK;
}

static enum err apply_entry(struct repl_db *db, const uint8_t *p, size_t n) ON_OWNER
{
    struct repl_entry h;
    TRY(repl_entry_read(p, n, &h));
    TRY(check_identity(db, &h));
    TRY(doubt_hashes(db, &h));
    if (h.seq <= db->position.seq)
        return check_known(db, &h);
    TRY(check_next(db, &h));
    if (h.parts == 1) {
        repl_db_apply_reset(db);
        return apply_txn(db, &h, p, n);
    }
    struct applier *a = applier(db);
    bool again = h.part + 1 == h.parts && a->n_parts == h.parts && a->head.seq == h.seq;
    if (!again) /* else the last one, for which there was no room before */
        TRY(stash(db, &h, p, n));
    if (h.part + 1 < h.parts)
        return ERR_OK;
    TRY(apply_txn(db, &h, NULL, 0));
    repl_db_apply_reset(db);
    return ERR_OK;
}

static enum err ready_to_apply(const struct repl_db *db) ON_OWNER
{
    TRY(database_check(db));
    if (db->position_known)
        return ERR_OK;
    return err_fail(ERR_MISUSE, "the position of %s is not known: adopt one first",
                    db->config.path);
}

enum err repl_db_apply(struct repl_db *db, const uint8_t *p, size_t n)
{
    TRY(ready_to_apply(db));
    CHECK(db->view == NULL);
    enum err e = apply_entry(db, p, n);
    return e == ERR_OK || (e == ERR_FULL && !db->stopped) ? e : database_stop(db, e);
}

enum err repl_db_apply_sealed(struct repl_db *db, const struct repl_txn *txn, unsigned n)
{
    enum err e = ready_to_apply(db);
    CHECK(repl_txn_seq(txn) == db->position.seq + 1 && n < repl_txn_parts(txn));
    if (e == ERR_OK)
        repl_db_apply_reset(db);
    for (unsigned i = 0; i < n && e == ERR_OK; i++) {
        struct repl_entry h;
        uint8_t *p;
        size_t len;
        e = repl_txn_part(txn, i, &p, &len);
        if (e != ERR_OK)
            break;
        e = repl_entry_read(p, len, &h);
        if (e == ERR_OK)
            e = stash(db, &h, p, len);
        free(p);
    }
    return e == ERR_OK || (e == ERR_FULL && !db->stopped) ? e : database_stop(db, e);
}
