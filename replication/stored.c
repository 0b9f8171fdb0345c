/* Room: replication. Thread: owner and the checkpoint thread; stored_page, stored_frame_hash and
 * stored_page_folded any.
 * Owns: 8 bytes a page, 16 a frame, one bit for 511 pages; the file `hashes`.
 * Invariants:
 *   - frames [1, n_frames] do not change until the next WAL begins, and it begins only when all of
 *     them are folded and in the file, synced;
 *   - only frames that the wal-index calls copied are folded, so a hash in the file differs from
 *     its page in main.db only while the page has a frame in the WAL;
 *   - a block that could not be written stays dirty.
 * Not here: comparing what was read (verify_vfs.c), when to checkpoint (checkpoint.c).
 *
 * Why a power cut at any point leaves a file that is right for every page without a frame in the
 * WAL that is then recovered: SQLite syncs the WAL before it copies frames, so a page that changed
 * in main.db, or in `hashes`, has its frame in the recovered WAL; unless the next WAL was begun,
 * and before that all of `hashes` was synced. A block that is torn is found by its checksum. */
#include "replication/stored.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "replication/digest.h"
#include "replication/hash_array.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Reading a database takes a while: a line for each step of this. */
#define PROGRESS_MS 5000

struct stored {
    char *path;
    uint64_t database_id;
    uint32_t page_size, lock_page;
    struct hash_array *pages, *frames, *frame_page;
    _Atomic uint32_t n_frames;
    _Atomic uint32_t durable; /* frames in the file, synced */
    _Atomic(const uint32_t *) backfilled;
    /* Held for memory operations only, never while reading or writing a file. */
    pthread_mutex_t lock;
    uint32_t folded;   /* under lock */
    uint32_t n_blocks; /* under lock: blocks that some page lies in */
    uint8_t *dirty;    /* under lock: one byte a block, n_blocks of them */
    uint32_t cap;      /* under lock: room in `dirty` */
    /* The checkpoint thread's, or the owner's while there is none. */
    struct hashes_file *file; /* NULL: to be made */
    bool unsynced;
};

struct stored *stored_new(const char *hashes_path, uint64_t database_id, uint32_t page_size)
{
    struct stored *s = MEM_NEW(struct stored);
    s->path = mem_strdup(hashes_path);
    s->database_id = database_id;
    s->page_size = page_size;
    s->lock_page = digest_lock_page(page_size);
    s->pages = hash_array_new();
    s->frames = hash_array_new();
    s->frame_page = hash_array_new();
    (void)pthread_mutex_init(&s->lock, NULL);
    return s;
}

void stored_free(struct stored *s)
{
    if (s == NULL)
        return;
    hashes_close(s->file);
    hash_array_free(s->pages);
    hash_array_free(s->frames);
    hash_array_free(s->frame_page);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->dirty);
    free(s->path);
    free(s);
}

/* --- blocks ----------------------------------------------------------------------------------- */

static uint32_t block_of(uint32_t page_no)
{
    return (page_no - 1) / HASHES_PER_BLOCK;
}

static uint32_t blocks_for(uint32_t pages)
{
    return pages == 0 ? 0 : block_of(pages) + 1;
}

/* Under the lock: there are N blocks at least. */
static void have_blocks(struct stored *s, uint32_t n)
{
    if (n > s->cap) {
        uint32_t cap = s->cap == 0 ? 64 : s->cap;
        while (cap < n)
            cap *= 2;
        s->dirty = mem_realloc(s->dirty, cap);
        memset(s->dirty + s->cap, 0, cap - s->cap);
        s->cap = cap;
    }
    /* A new block is to be written, whatever its pages are: the file may have an old one there, of
     * a time when the database was larger, or a gap. */
    if (n > s->n_blocks) {
        memset(s->dirty + s->n_blocks, 1, n - s->n_blocks);
        s->n_blocks = n;
    }
}

/* Under the lock. */
static void set_page(struct stored *s, uint32_t page_no, uint64_t hash)
{
    if (page_no == s->lock_page)
        return;
    have_blocks(s, block_of(page_no) + 1);
    if (hash_array_get(s->pages, page_no) == hash)
        return;
    hash_array_set(s->pages, page_no, hash);
    s->dirty[block_of(page_no)] = 1;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Reading pages of main.db. */
struct reading {
    stored_read read;
    void (*differs)(void *ctx, uint32_t page_no); /* may be NULL */
    void *read_ctx, *differs_ctx;
    uint32_t pages; /* of main.db */
    uint64_t said_ms;
};

static enum err read_page(struct stored *s, const struct reading *r, uint32_t n, uint8_t *page)
{
    TRY(r->read(r->read_ctx, n, page));
    uint64_t hash = digest_page_hash(n, page, s->page_size);
    if (r->differs != NULL && hash != hash_array_get(s->pages, n))
        r->differs(r->differs_ctx, n);
    (void)pthread_mutex_lock(&s->lock);
    set_page(s, n, hash);
    (void)pthread_mutex_unlock(&s->lock);
    return ERR_OK;
}

static enum err read_range(struct stored *s, struct reading *r, uint32_t first, uint32_t last)
{
    uint8_t *page = mem_alloc(s->page_size);
    enum err e = ERR_OK;
    for (uint32_t n = first; n <= last && e == ERR_OK; n++) {
        if (n != s->lock_page)
            e = read_page(s, r, n, page);
        if (n % 1024 == 0 && clock_mono_ms() - r->said_ms > PROGRESS_MS) {
            r->said_ms = clock_mono_ms();
            log_info("replication", "hashing pages path=%s done=%u of=%u", s->path, n, r->pages);
        }
    }
    free(page);
    return e;
}

static enum err open_file(struct stored *s)
{
    enum err e = hashes_open(s->path, s->database_id, s->page_size, false, &s->file);
    if (e != ERR_NOT_FOUND && e != ERR_CORRUPT)
        return e;
    if (e == ERR_CORRUPT)
        log_warn("replication", "hashes unusable, all pages are read reason=\"%s\"", err_text());
    return ERR_OK;
}

/* Block B as the file has it; also what it says of pages behind the end, of a time when the
 * database was larger: should one come back, it is seen whether the file must change. */
static void take_block(struct stored *s, uint32_t b, const uint64_t *hashes)
{
    s->dirty[b] = 0;
    for (uint32_t i = 0; i < HASHES_PER_BLOCK; i++) {
        uint64_t n = (uint64_t)b * HASHES_PER_BLOCK + i + 1;
        if (n <= UINT32_MAX && n != s->lock_page)
            hash_array_set(s->pages, (uint32_t)n, hashes[i]);
    }
}

enum err stored_load(struct stored *s, uint32_t pages, stored_read read, void *ctx,
                     uint32_t *read_pages)
{
    struct reading r = {.read = read, .read_ctx = ctx, .pages = pages, .said_ms = clock_mono_ms()};
    uint64_t *hashes = mem_alloc(HASHES_PER_BLOCK * sizeof *hashes);
    *read_pages = 0;
    enum err e = open_file(s);
    have_blocks(s, blocks_for(pages)); /* no other thread yet; all are dirty */
    for (uint32_t b = 0; b < blocks_for(pages) && e == ERR_OK; b++) {
        const uint32_t first = b * HASHES_PER_BLOCK + 1;
        const uint32_t last =
            pages - first < HASHES_PER_BLOCK ? pages : first + HASHES_PER_BLOCK - 1;
        bool valid = false;
        if (s->file != NULL)
            e = hashes_read_block(s->file, b, hashes, &valid);
        if (valid)
            take_block(s, b, hashes);
        if (e != ERR_OK || valid)
            continue;
        if (s->file != NULL && b < hashes_blocks(s->file))
            log_warn("replication", "hashes damaged path=%s pages=%u..%u are read", s->path, first,
                     last);
        *read_pages += last - first + 1;
        e = read_range(s, &r, first, last);
    }
    free(hashes);
    return e;
}

enum err stored_is_current(struct stored *s, const char *db_path, bool *current)
{
    *current = false;
    return s->file == NULL ? ERR_OK : hashes_is_current(s->file, db_path, current);
}

enum err stored_rehash(struct stored *s, uint32_t pages, stored_read read,
                       void (*differs)(void *ctx, uint32_t page_no), void *read_ctx,
                       void *differs_ctx)
{
    struct reading r = {.read = read,
                        .differs = differs,
                        .read_ctx = read_ctx,
                        .differs_ctx = differs_ctx,
                        .pages = pages,
                        .said_ms = clock_mono_ms()};
    hashes_close(s->file); /* what it says is not believed any more */
    s->file = NULL;
    return pages == 0 ? ERR_OK : read_range(s, &r, 1, pages);
}

void stored_arm(struct stored *s, const uint32_t *backfilled)
{
    atomic_store(&s->backfilled, backfilled);
}

bool stored_is_armed(const struct stored *s)
{
    return atomic_load_explicit(&s->backfilled, memory_order_acquire) != NULL;
}

/* --- the WAL ---------------------------------------------------------------------------------- */

void stored_frame(struct stored *s, uint32_t frame, uint32_t page_no, uint64_t hash)
{
    CHECK(frame > atomic_load_explicit(&s->n_frames, memory_order_relaxed));
    hash_array_set(s->frames, frame, hash);
    hash_array_set(s->frame_page, frame, page_no);
}

void stored_set_frames(struct stored *s, uint32_t frames)
{
    atomic_store_explicit(&s->n_frames, frames, memory_order_release);
}

void stored_restart(struct stored *s)
{
    (void)pthread_mutex_lock(&s->lock);
    const uint32_t frames = atomic_load(&s->n_frames);
    CHECK(s->folded == frames && atomic_load(&s->durable) == frames);
    s->folded = 0;
    atomic_store(&s->durable, 0);
    atomic_store(&s->n_frames, 0);
    (void)pthread_mutex_unlock(&s->lock);
}

/* Under the lock. The frames are folded in their order, so the newest of a page stays. */
static void fold(struct stored *s)
{
    const uint32_t *word = atomic_load(&s->backfilled);
    if (word == NULL)
        return;
    /* In this order. A new WAL's frames are known after nBackfill was set to 0: the other way
     * round, they could be counted against the old WAL's nBackfill, as if they were copied. */
    const uint32_t frames = atomic_load_explicit(&s->n_frames, memory_order_acquire);
    uint32_t copied = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    if (copied > frames) /* of a WAL that begins; or the shared memory, which is open to all */
        copied = frames;
    for (; s->folded < copied; s->folded++) {
        uint32_t page_no = (uint32_t)hash_array_get(s->frame_page, s->folded + 1);
        if (page_no != 0)
            set_page(s, page_no, hash_array_get(s->frames, s->folded + 1));
    }
}

uint64_t stored_page(const struct stored *s, uint32_t page_no)
{
    return hash_array_get(s->pages, page_no);
}

uint64_t stored_page_folded(struct stored *s, uint32_t page_no)
{
    (void)pthread_mutex_lock(&s->lock);
    fold(s);
    uint64_t hash = hash_array_get(s->pages, page_no);
    (void)pthread_mutex_unlock(&s->lock);
    return hash;
}

uint32_t stored_frames(const struct stored *s)
{
    return atomic_load_explicit(&s->n_frames, memory_order_acquire);
}

bool stored_frame_hash(const struct stored *s, uint32_t frame, uint32_t *page_no, uint64_t *hash)
{
    if (frame < 1 || frame > atomic_load_explicit(&s->n_frames, memory_order_acquire))
        return false;
    *page_no = (uint32_t)hash_array_get(s->frame_page, frame);
    *hash = hash_array_get(s->frames, frame);
    return *page_no != 0;
}

/* --- the file --------------------------------------------------------------------------------- */

/* Takes block number *BLOCK or the next dirty one behind it; false: none is left. */
static bool take_dirty(struct stored *s, uint32_t *block, uint64_t hashes[HASHES_PER_BLOCK])
{
    (void)pthread_mutex_lock(&s->lock);
    while (*block < s->n_blocks && !s->dirty[*block])
        ++*block;
    const bool found = *block < s->n_blocks;
    if (found) {
        s->dirty[*block] = 0;
        const uint32_t first = *block * HASHES_PER_BLOCK;
        for (unsigned i = 0; i < HASHES_PER_BLOCK; i++)
            hashes[i] = first + i == UINT32_MAX ? 0 : hash_array_get(s->pages, first + i + 1);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return found;
}

static void mark_dirty(struct stored *s, uint32_t first, uint32_t n, uint8_t how)
{
    (void)pthread_mutex_lock(&s->lock);
    have_blocks(s, first + n);
    memset(s->dirty + first, how, n);
    (void)pthread_mutex_unlock(&s->lock);
}

static void give_hashes(void *ctx, uint32_t first, unsigned n, uint64_t *out)
{
    const struct stored *s = ctx;
    for (unsigned i = 0; i < n; i++)
        out[i] = hash_array_get(s->pages, first + i);
}

/* The whole file. What is folded meanwhile stays dirty. */
static enum err make_file(struct stored *s)
{
    (void)pthread_mutex_lock(&s->lock);
    const uint32_t blocks = s->n_blocks;
    (void)pthread_mutex_unlock(&s->lock);
    mark_dirty(s, 0, blocks, 0);
    const uint64_t pages = (uint64_t)blocks * HASHES_PER_BLOCK;
    enum err e = hashes_create(s->path, s->database_id, s->page_size,
                               pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages, give_hashes, s);
    if (e == ERR_OK)
        e = hashes_open(s->path, s->database_id, s->page_size, false, &s->file);
    if (e != ERR_OK)
        mark_dirty(s, 0, blocks, 1);
    return e;
}

static enum err write_dirty(struct stored *s)
{
    uint64_t *hashes = mem_alloc(HASHES_PER_BLOCK * sizeof *hashes);
    enum err e = ERR_OK;
    for (uint32_t b = 0; e == ERR_OK && take_dirty(s, &b, hashes); b++) {
        e = hashes_write_block(s->file, b, hashes);
        if (e != ERR_OK)
            mark_dirty(s, b, 1, 1);
        s->unsynced = true;
    }
    free(hashes);
    return e;
}

/* When it fails the kernel may have dropped what was written: the whole file is made again. */
static enum err sync_file(struct stored *s)
{
    enum err e = hashes_sync(s->file);
    if (e == ERR_OK)
        return ERR_OK;
    hashes_close(s->file);
    s->file = NULL;
    return e;
}

enum err stored_flush(struct stored *s)
{
    (void)pthread_mutex_lock(&s->lock);
    fold(s);
    const uint32_t folded = s->folded;
    (void)pthread_mutex_unlock(&s->lock);
    if (s->file == NULL)
        TRY(make_file(s));
    TRY(write_dirty(s));
    if (s->unsynced)
        TRY(sync_file(s));
    s->unsynced = false;
    atomic_store(&s->durable, folded);
    return ERR_OK;
}

uint32_t stored_durable(const struct stored *s)
{
    return atomic_load(&s->durable);
}

enum err stored_touch(struct stored *s)
{
    CHECK(s->file != NULL && !s->unsynced);
    return hashes_touch(s->file);
}
