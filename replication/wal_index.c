/* Room: replication. Thread: owner, and it holds the WRITE lock when it changes anything.
 * Owns: nothing but the list of mapped regions; the memory belongs to the keeper's sqlite3_file.
 * Invariants: everything that readers may look at was written before the header that names it. A
 *   frame at or below mxFrame is never changed. The two header copies differ only between the two
 *   stores of header_write. No state is cached here: as the only writer, what is in the shared
 *   memory is what we wrote, and what SQLite wrote on our behalf (recovery, checkpoints).
 * Not here: which locks to take when (publish.c, checkpoint.c), the WAL file (wal_format.c).
 *
 * Layout (SQLite 3.7.0 and later, https://www.sqlite.org/walformat.html section 2), native byte
 * order: blocks of 32 KiB. Block 0 begins with 136 bytes of header. A block holds the page numbers
 * of 4,096 frames (block 0: 4,062, the header takes the place of 34) and then 8,192 hash slots of
 * 16 bits; a slot holds the place of a frame in this block, from 1, or 0 when it is free.
 *
 * Other processes and SQLite's own code read this memory while we write it. All our accesses are
 * relaxed or stronger atomics, so that the compiler neither tears nor repeats them; the order that
 * matters is made by xShmBarrier, as in SQLite. */
#include "replication/wal_index.h"

#include "base/check.h"
#include "base/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_VERSION    3007000u
#define BLOCK_FRAMES     4096u
#define HASH_SLOTS       8192u
#define HASH_FACTOR      383u
#define READ_MARK_UNUSED 0xffffffffu

/* Names of the header's fields are SQLite's, to be found in its sources. */
struct index_header {
    uint32_t iVersion, unused, iChange;
    uint8_t isInit, bigEndCksum;
    uint16_t szPage; /* 1: 65536 */
    uint32_t mxFrame, nPage, aFrameCksum[2];
    uint8_t aSalt[2][4]; /* as in the WAL file: big-endian */
    uint32_t aCksum[2];  /* over all before, native words */
};

struct checkpoint_info {
    uint32_t nBackfill, aReadMark[WAL_READERS];
    uint8_t aLock[8]; /* bytes for file locks, never touched */
    uint32_t nBackfillAttempted, notUsed0;
};

struct first_block {
    struct index_header header[2];
    struct checkpoint_info checkpoint;
};

#define HEADER_WORDS (sizeof(struct index_header) / sizeof(uint32_t))
#define FIRST_WORDS  (sizeof(struct first_block) / sizeof(uint32_t))
#define FIRST_FRAMES (BLOCK_FRAMES - (uint32_t)FIRST_WORDS)
#define BLOCK_BYTES  (BLOCK_FRAMES * sizeof(uint32_t) + HASH_SLOTS * sizeof(uint16_t))

_Static_assert(sizeof(struct index_header) == 48, "WalIndexHdr");
_Static_assert(offsetof(struct index_header, isInit) == 12, "isInit");
_Static_assert(offsetof(struct index_header, szPage) == 14, "szPage");
_Static_assert(offsetof(struct index_header, mxFrame) == 16, "mxFrame");
_Static_assert(offsetof(struct index_header, aFrameCksum) == 24, "aFrameCksum");
_Static_assert(offsetof(struct index_header, aSalt) == 32, "aSalt");
_Static_assert(offsetof(struct index_header, aCksum) == 40, "aCksum");
_Static_assert(offsetof(struct first_block, checkpoint.nBackfill) == 96, "nBackfill");
_Static_assert(offsetof(struct first_block, checkpoint.aReadMark) == 100, "aReadMark");
_Static_assert(offsetof(struct first_block, checkpoint.aLock) == 120, "the lock bytes");
_Static_assert(offsetof(struct first_block, checkpoint.nBackfillAttempted) == 128, "attempted");
_Static_assert(sizeof(struct first_block) == 136, "WALINDEX_HDR_SIZE");
_Static_assert(FIRST_FRAMES == 4062, "frames of block 0");
_Static_assert(BLOCK_BYTES == 32768, "one region of xShmMap");
_Static_assert(WAL_READERS == SQLITE_SHM_NLOCK - 3, "the read marks fill the locks");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "shared with other processes");

struct wal_index {
    sqlite3_file *db;
    uint32_t page_size;
    uint32_t n_blocks;
    uint32_t **blocks; /* mapped once, valid as long as the keeper's connection; NULL: not yet */
};

/* One block's tables. */
struct table {
    uint32_t *page_no; /* [frame - zero - 1] */
    uint16_t *slots;
    uint32_t zero, frames; /* frame number before its first; how many it can hold */
};

static uint32_t load32(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void store32(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

/* Of memory that others map: no copy may be torn or made twice. */
static void load_words(uint32_t *to, const uint32_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = load32(from + i);
}

static void store_words(uint32_t *to, const uint32_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        store32(to + i, from[i]);
}

static void barrier(struct wal_index *x)
{
    x->db->pMethods->xShmBarrier(x->db);
}

/* --- regions and tables ----------------------------------------------------------------------- */

static enum err block_map(struct wal_index *x, uint32_t i, bool extend, uint32_t **out)
{
    if (i < x->n_blocks && x->blocks[i] != NULL) {
        *out = x->blocks[i];
        return ERR_OK;
    }
    void volatile *p = NULL;
    errno = 0;
    int rc = x->db->pMethods->xShmMap(x->db, (int)i, (int)BLOCK_BYTES, extend, &p);
    /* The unix VFS writes a byte of each new page, and says for a full disk what it says for any.
     */
    bool full =
        rc == SQLITE_FULL || (rc == SQLITE_IOERR_SHMSIZE && (errno == ENOSPC || errno == EDQUOT));
    if (rc != SQLITE_OK)
        return err_fail(full ? ERR_FULL : ERR_IO, "cannot map block %u of the wal-index (-shm): %s",
                        i, full ? "no space left" : sqlite3_errstr(rc));
    if (p == NULL)
        return err_fail(ERR_CORRUPT, "the wal-index (-shm) has no block %u, frames need it", i);
    if (i >= x->n_blocks) {
        x->blocks = mem_realloc(x->blocks, (i + 1) * sizeof *x->blocks);
        memset(x->blocks + x->n_blocks, 0, (i + 1 - x->n_blocks) * sizeof *x->blocks);
        x->n_blocks = i + 1;
    }
    /* The accesses are atomic, so volatile can go. */
    *out = x->blocks[i] = (uint32_t *)(uintptr_t)p;
    return ERR_OK;
}

static uint32_t block_of(uint32_t frame)
{
    return (frame - 1 + (BLOCK_FRAMES - FIRST_FRAMES)) / BLOCK_FRAMES;
}

static enum err table_get(struct wal_index *x, uint32_t block, bool extend, struct table *t)
{
    uint32_t *base;
    TRY(block_map(x, block, extend, &base));
    t->slots = (uint16_t *)(base + BLOCK_FRAMES);
    t->page_no = block == 0 ? base + FIRST_WORDS : base;
    t->zero = block == 0 ? 0 : FIRST_FRAMES + (block - 1) * BLOCK_FRAMES;
    t->frames = block == 0 ? FIRST_FRAMES : BLOCK_FRAMES;
    return ERR_OK;
}

static uint32_t slot_first(uint32_t page_no)
{
    return page_no * HASH_FACTOR % HASH_SLOTS;
}

static uint32_t slot_next(uint32_t slot)
{
    return (slot + 1) % HASH_SLOTS;
}

/* No entry: before a block's first frame. Nobody reads it: mxFrame lies before this block. */
static void table_clear(struct table *t)
{
    memset(t->page_no, 0, t->frames * sizeof *t->page_no);
    memset(t->slots, 0, HASH_SLOTS * sizeof *t->slots);
}

/* Forgets the frames behind the first KEEP of this block. Slots were filled in the order of frames,
 * so those freed here lie behind every entry that stays on its chain: a reader passing meanwhile
 * loses nothing. Slots first: a crash between leaves page numbers, which show that this was not
 * finished. */
static void table_cut(struct table *t, uint32_t keep)
{
    for (uint32_t i = 0; i < HASH_SLOTS; i++)
        if (__atomic_load_n(&t->slots[i], __ATOMIC_RELAXED) > keep)
            __atomic_store_n(&t->slots[i], 0, __ATOMIC_RELAXED);
    for (uint32_t i = keep; i < t->frames; i++)
        store32(&t->page_no[i], 0);
}

/* --- the header ------------------------------------------------------------------------------- */

static struct first_block *first(struct wal_index *x)
{
    return (struct first_block *)(void *)x->blocks[0];
}

/* The same sum as the WAL's, over the 40 bytes before it, in native words. */
static void header_checksum(const struct index_header *h, uint32_t sum[2])
{
    uint32_t w[HEADER_WORDS];
    memcpy(w, h, sizeof w);
    sum[0] = sum[1] = 0;
    for (size_t i = 0; i < HEADER_WORDS - 2; i += 2) {
        sum[0] += w[i] + sum[1];
        sum[1] += w[i + 1] + sum[0];
    }
}

static void header_load(struct wal_index *x, unsigned copy, struct index_header *h)
{
    uint32_t w[HEADER_WORDS];
    load_words(w, (const uint32_t *)(const void *)&first(x)->header[copy], HEADER_WORDS);
    memcpy(h, w, sizeof w);
}

/* Readers take copy 0, a barrier, copy 1, and want them equal; so we write the other way round. The
 * barrier before makes all that the header names visible first. */
static void header_write(struct wal_index *x, struct index_header *h)
{
    uint32_t w[HEADER_WORDS];
    h->iVersion = INDEX_VERSION;
    h->unused = 0;
    h->isInit = 1;
    h->szPage = (uint16_t)((x->page_size & 0xff00u) | (x->page_size >> 16));
    header_checksum(h, h->aCksum);
    memcpy(w, h, sizeof w);
    barrier(x);
    store_words((uint32_t *)(void *)&first(x)->header[1], w, HEADER_WORDS);
    barrier(x);
    store_words((uint32_t *)(void *)&first(x)->header[0], w, HEADER_WORDS);
}

static uint32_t published_frames(struct wal_index *x)
{
    return load32(&first(x)->header[0].mxFrame);
}

static uint32_t salt_get(const uint8_t b[4])
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void salt_set(uint8_t b[4], uint32_t v)
{
    b[0] = (uint8_t)(v >> 24);
    b[1] = (uint8_t)(v >> 16);
    b[2] = (uint8_t)(v >> 8);
    b[3] = (uint8_t)v;
}

/* --- for the room ----------------------------------------------------------------------------- */

enum err wal_index_open(sqlite3_file *db, uint32_t page_size, struct wal_index **out)
{
    *out = NULL;
    if (db->pMethods->iVersion < 2 || db->pMethods->xShmMap == NULL)
        return err_fail(ERR_FORMAT, "the VFS of this database has no shared memory");
    struct wal_index *x = MEM_NEW(struct wal_index);
    x->db = db;
    x->page_size = page_size;
    uint32_t *block;
    struct wal_index_state state;
    enum err e = block_map(x, 0, false, &block);
    if (e == ERR_OK)
        e = wal_index_read(x, &state);
    if (e == ERR_OK && state.page_size != 0 && state.page_size != page_size)
        e = err_fail(ERR_CORRUPT, "the wal-index has page size %u, the database %u",
                     state.page_size, page_size);
    if (e != ERR_OK) {
        wal_index_close(x);
        return e;
    }
    *out = x;
    return ERR_OK;
}

void wal_index_close(struct wal_index *x)
{
    if (x == NULL)
        return;
    free(x->blocks); /* the regions are unmapped by the connection's close */
    free(x);
}

enum err wal_index_read(struct wal_index *x, struct wal_index_state *out)
{
    struct index_header h, again;
    uint32_t sum[2];
    header_load(x, 0, &h);
    barrier(x);
    header_load(x, 1, &again);
    if (memcmp(&h, &again, sizeof h) != 0)
        return err_fail(ERR_CORRUPT, "the two headers of the wal-index (-shm) differ");
    header_checksum(&h, sum);
    if (h.isInit == 0 || sum[0] != h.aCksum[0] || sum[1] != h.aCksum[1])
        return err_fail(ERR_CORRUPT, "the header of the wal-index (-shm) is damaged");
    if (h.iVersion != INDEX_VERSION)
        return err_fail(ERR_FORMAT, "the wal-index (-shm) has version %u, this program reads %u",
                        h.iVersion, INDEX_VERSION);
    *out = (struct wal_index_state){
        .frames = h.mxFrame,
        .pages = h.nPage,
        .page_size = (h.szPage & 0xfe00u) + ((h.szPage & 1u) << 16),
        .salt = {salt_get(h.aSalt[0]), salt_get(h.aSalt[1])},
        .chain = {h.aFrameCksum[0], h.aFrameCksum[1]},
        .backfilled = load32(&first(x)->checkpoint.nBackfill),
        .change = h.iChange,
    };
    return ERR_OK;
}

enum err wal_index_append(struct wal_index *x, uint32_t frame, uint32_t page_no)
{
    CHECK(page_no != 0 && frame > published_frames(x));
    struct table t;
    TRY(table_get(x, block_of(frame), true, &t));
    const uint32_t place = frame - t.zero;
    if (place == 1)
        table_clear(&t);
    else if (load32(&t.page_no[place - 2]) == 0)
        return err_fail(ERR_CORRUPT, "the wal-index (-shm) has no page for frame %u", frame - 1);
    /* Somebody appended here and did not publish: a crash, or frames without a commit frame that
     * recovery met behind the last one. Ours come in order, so theirs are all from here on. */
    if (load32(&t.page_no[place - 1]) != 0)
        table_cut(&t, place - 1);

    uint32_t slot = slot_first(page_no), left = t.frames;
    while (__atomic_load_n(&t.slots[slot], __ATOMIC_RELAXED) != 0) {
        if (left-- == 0)
            return err_fail(ERR_CORRUPT,
                            "the hash table of block %u of the wal-index (-shm) is "
                            "damaged: too many entries",
                            block_of(frame));
        slot = slot_next(slot);
    }
    store32(&t.page_no[place - 1], page_no);
    /* A reader that finds the slot finds the page number. */
    __atomic_store_n(&t.slots[slot], (uint16_t)place, __ATOMIC_RELEASE);
    return ERR_OK;
}

enum err wal_index_reserve(struct wal_index *x, uint32_t last)
{
    uint32_t *block;
    for (uint32_t i = 0; i <= block_of(last); i++)
        TRY(block_map(x, i, true, &block));
    return ERR_OK;
}

const uint32_t *wal_index_backfilled(struct wal_index *x)
{
    return &first(x)->checkpoint.nBackfill;
}

void wal_index_publish(struct wal_index *x, uint32_t frames, uint32_t pages,
                       const uint32_t chain[2])
{
    struct index_header h;
    header_load(x, 0, &h);
    CHECK(frames > h.mxFrame && pages > 0);
    h.iChange++;
    h.mxFrame = frames;
    h.nPage = pages;
    h.aFrameCksum[0] = chain[0];
    h.aFrameCksum[1] = chain[1];
    header_write(x, &h);
}

void wal_index_restart(struct wal_index *x, const uint32_t salt[2])
{
    struct checkpoint_info *info = &first(x)->checkpoint;
    struct index_header h;
    header_load(x, 0, &h);
    /* Frames that are not in the database file would be lost. */
    CHECK(load32(&info->nBackfill) == h.mxFrame);
    h.mxFrame = 0;
    h.bigEndCksum = 0; /* wal_header_encode writes such */
    salt_set(h.aSalt[0], salt[0]);
    salt_set(h.aSalt[1], salt[1]);
    header_write(x, &h);
    /* Killed here, while another process keeps the memory alive: no frames, and the nBackfill of
     * the WAL before. Readers are safe (none takes mark 0, there is no frame to look for), but
     * frames published now would count as copied: wal_index_finish_restart comes first. In the
     * other order readers would look into a WAL that is being overwritten. */
    __atomic_store_n(&info->nBackfill, 0, __ATOMIC_RELEASE);
    store32(&info->nBackfillAttempted, 0);
    store32(&info->aReadMark[1], 0);
    for (unsigned i = 2; i < WAL_READERS; i++)
        store32(&info->aReadMark[i], READ_MARK_UNUSED);
}

bool wal_index_finish_restart(struct wal_index *x)
{
    struct checkpoint_info *info = &first(x)->checkpoint;
    if (load32(&info->nBackfill) <= published_frames(x))
        return false;
    __atomic_store_n(&info->nBackfill, 0, __ATOMIC_RELEASE);
    store32(&info->nBackfillAttempted, 0);
    return true;
}

/* The newest place of PAGE_NO in this block at or below LIMIT, 0 when there is none. */
static enum err table_find(const struct table *t, uint32_t page_no, uint32_t limit, uint32_t *place)
{
    uint32_t slot = slot_first(page_no), found = 0, left = t->frames, at;
    while ((at = __atomic_load_n(&t->slots[slot], __ATOMIC_ACQUIRE)) != 0) {
        if (at > t->frames || left-- == 0)
            return err_fail(ERR_CORRUPT,
                            "the hash table of the wal-index (-shm) behind frame %u is "
                            "damaged",
                            t->zero);
        /* Frames of one page lie along the chain in rising order. */
        if (at <= limit && load32(&t->page_no[at - 1]) == page_no)
            found = at;
        slot = slot_next(slot);
    }
    *place = found;
    return ERR_OK;
}

enum err wal_index_find(struct wal_index *x, uint32_t page_no, uint32_t limit, uint32_t *frame)
{
    CHECK(page_no != 0);
    *frame = 0;
    if (limit == 0)
        return ERR_OK;
    for (uint32_t block = block_of(limit) + 1; block-- > 0;) {
        struct table t;
        uint32_t place = 0;
        TRY(table_get(x, block, false, &t));
        TRY(table_find(&t, page_no, limit - t.zero, &place));
        if (place != 0) {
            *frame = t.zero + place;
            return ERR_OK;
        }
    }
    return ERR_OK;
}

/* --- locks ------------------------------------------------------------------------------------ */

enum err wal_lock(sqlite3_file *db, int first_lock, int n, bool exclusive)
{
    int how = SQLITE_SHM_LOCK | (exclusive ? SQLITE_SHM_EXCLUSIVE : SQLITE_SHM_SHARED);
    int rc = db->pMethods->xShmLock(db, first_lock, n, how);
    if (rc == SQLITE_OK)
        return ERR_OK;
    if ((rc & 0xff) == SQLITE_BUSY)
        return err_fail(ERR_LOCKED, "wal-index locks %d to %d are held by another connection",
                        first_lock, first_lock + n - 1);
    return err_fail(ERR_IO, "cannot lock %d to %d of the wal-index (-shm): %s", first_lock,
                    first_lock + n - 1, sqlite3_errstr(rc));
}

void wal_unlock(sqlite3_file *db, int first_lock, int n, bool exclusive)
{
    int how = SQLITE_SHM_UNLOCK | (exclusive ? SQLITE_SHM_EXCLUSIVE : SQLITE_SHM_SHARED);
    int rc = db->pMethods->xShmLock(db, first_lock, n, how);
    /* Unlocking a byte range that we hold does not fail; a lock left behind stops every reader. */
    CHECK(rc == SQLITE_OK);
}
