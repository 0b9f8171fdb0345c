/* Room: tests. replication/wal_index: a follower by hand. Stock SQLite writes transactions into a
 * source database; their frames are published by our code, with our own salts, into a target whose
 * WRITE lock a keeper connection holds. Stock readers of the target and SQLite's recovery judge. */
#include "base/buf.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/thread.h"
#include "replication/wal_format.h"
#include "replication/wal_index.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/stock.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PAGE         512u
#define BLOCK        32768u
#define ROWS         300
#define FRAMES_FIRST 4062u
#define FRAMES_BLOCK 4096u

/* --- the source: transactions, and their frames ----------------------------------------------- */

struct frame {
    uint32_t page_no, pages_after;
    uint8_t page[PAGE];
};

struct tape {
    struct frame *frames;
    size_t n, capacity;
    size_t played; /* frames that the target has */
};

static void record(void *ctx, uint32_t frame, const struct wal_frame *f, const uint8_t *page)
{
    struct tape *t = ctx;
    (void)frame;
    if (t->n == t->capacity) {
        t->capacity = t->capacity == 0 ? 1024 : t->capacity * 2;
        t->frames = mem_realloc(t->frames, t->capacity * sizeof *t->frames);
    }
    struct frame *to = &t->frames[t->n++];
    to->page_no = f->page_no;
    to->pages_after = f->pages_after;
    memcpy(to->page, page, PAGE);
}

/* n counts transactions; the sum of t.x is always 0: what a reader may see at any moment. */
static void source_fill(sqlite3 *db)
{
    stock_exec(db,
               "CREATE TABLE meta(n INT); INSERT INTO meta VALUES(0);"
               "CREATE TABLE t(id INTEGER PRIMARY KEY, x INT, pad BLOB); CREATE INDEX i ON t(x)");
    stock_exec(db, "BEGIN");
    for (int i = 0; i < ROWS; i++)
        stock_exec(db, "INSERT INTO t VALUES(%d, 0, randomblob(200))", i);
    stock_exec(db, "COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
}

static void source_transactions(sqlite3 *db, int n, struct rng *r)
{
    for (int i = 0; i < n; i++) {
        stock_exec(db, "BEGIN; UPDATE meta SET n=n+1");
        for (uint64_t j = 0, m = 1 + rng_below(r, 4); j < m; j++) {
            int x = (int)rng_below(r, 1000);
            stock_exec(db, "UPDATE t SET x=x+%d WHERE id=%d; UPDATE t SET x=x-%d WHERE id=%d", x,
                       (int)rng_below(r, ROWS), x, (int)rng_below(r, ROWS));
        }
        if (rng_once_in(r, 5))
            stock_exec(db, "INSERT INTO t(x, pad) VALUES(0, randomblob(%d))",
                       (int)rng_below(r, 3000));
        if (rng_once_in(r, 20))
            stock_exec(db, "DELETE FROM t WHERE x=0 AND id>=%d", ROWS);
        stock_exec(db, "COMMIT");
    }
}

/* Appends what the source's WAL holds now, and empties it. */
static void tape_take(struct tape *t, sqlite3 *source)
{
    struct wal_scan scan;
    EXPECT_OK(wal_scan_file(stock_file(source, SQLITE_FCNTL_JOURNAL_POINTER), &scan, record, t));
    EXPECT(scan.commits > 0);
    stock_exec(source, "PRAGMA wal_checkpoint(TRUNCATE)");
}

/* --- the target: what publish.c will do ------------------------------------------------------- */

struct target {
    sqlite3 *keeper;
    sqlite3_file *db, *wal;
    struct wal_index *index;
    struct wal_header header;
    struct wal_chain chain;
    uint32_t frames;
};

static void target_open(struct target *t, const char *path)
{
    *t = (struct target){.keeper = stock_open(path, PAGE)};
    (void)stock_int(t->keeper, "SELECT n FROM meta"); /* opens the WAL, recovers */
    t->db = stock_file(t->keeper, SQLITE_FCNTL_FILE_POINTER);
    t->wal = stock_file(t->keeper, SQLITE_FCNTL_JOURNAL_POINTER);
    EXPECT_OK(wal_lock(t->db, WAL_LOCK_WRITE, 1, true));
    EXPECT_OK(wal_index_open(t->db, PAGE, &t->index));
}

static void target_close(struct target *t)
{
    wal_index_close(t->index);
    wal_unlock(t->db, WAL_LOCK_WRITE, 1, true);
    stock_close(t->keeper);
}

/* The locks of the read marks are held, and given back. */
static void target_begin_wal(struct target *t, struct rng *r)
{
    uint8_t bytes[WAL_HEADER_BYTES];
    t->header = (struct wal_header){
        .page_size = PAGE,
        .checkpoint_seq = t->header.checkpoint_seq + 1,
        .salt = {(uint32_t)rng_u64(r), (uint32_t)rng_u64(r)},
    };
    wal_header_encode(&t->header, bytes);
    wal_index_restart(t->index, t->header.salt);
    EXPECT(t->wal->pMethods->xWrite(t->wal, bytes, sizeof bytes, 0) == SQLITE_OK);
    wal_unlock(t->db, WAL_LOCK_READ(1), 4, true);
    t->chain = t->header.chain;
    t->frames = 0;
}

static void target_new_wal(struct target *t, struct rng *r)
{
    EXPECT_OK(wal_lock(t->db, WAL_LOCK_READ(1), 4, true));
    target_begin_wal(t, r);
}

/* Everything into the database file; false when a reader is in the way. */
static bool target_checkpoint(struct target *t)
{
    int in_wal = 0, done = 0;
    EXPECT(sqlite3_wal_checkpoint_v2(t->keeper, "main", SQLITE_CHECKPOINT_PASSIVE, &in_wal,
                                     &done) == SQLITE_OK);
    return in_wal == done;
}

static void target_frame(struct target *t, uint32_t frame, const struct frame *f,
                         struct wal_chain *chain)
{
    uint8_t bytes[WAL_FRAME_HEADER_BYTES + PAGE];
    const struct wal_frame head = {f->page_no, f->pages_after};
    wal_frame_encode(&t->header, chain, &head, f->page, bytes);
    memcpy(bytes + WAL_FRAME_HEADER_BYTES, f->page, PAGE);
    EXPECT(t->wal->pMethods->xWrite(t->wal, bytes, sizeof bytes,
                                    (sqlite3_int64)wal_frame_offset(frame, PAGE)) == SQLITE_OK);
    EXPECT_OK(wal_index_append(t->index, frame, f->page_no));
}

/* Begins a transaction and leaves it as a crash would. */
static void target_abandon(struct target *t, const struct tape *tape, struct rng *r)
{
    struct wal_chain chain = t->chain;
    for (uint32_t i = 1, n = (uint32_t)rng_below(r, 200); i <= n; i++)
        target_frame(t, t->frames + i, &tape->frames[rng_below(r, tape->n)], &chain);
}

/* The next transaction of the tape. */
static void target_publish(struct target *t, struct tape *tape)
{
    const struct frame *f;
    do {
        f = &tape->frames[tape->played++];
        target_frame(t, ++t->frames, f, &t->chain);
    } while (f->pages_after == 0);
    wal_index_publish(t->index, t->frames, f->pages_after, t->chain.s);
}

/* --- judges ----------------------------------------------------------------------------------- */

/* Blocks of the shared memory, copied. */
static uint8_t *shm_copy(sqlite3_file *db, uint32_t blocks)
{
    uint8_t *p = mem_alloc(blocks * BLOCK);
    for (uint32_t i = 0; i < blocks; i++) {
        void volatile *at = NULL;
        EXPECT(db->pMethods->xShmMap(db, (int)i, (int)BLOCK, 0, &at) == SQLITE_OK);
        EXPECT(at != NULL);
        memcpy(p + i * BLOCK, (const void *)(uintptr_t)at, BLOCK);
    }
    return p;
}

static uint32_t blocks_of(uint32_t frames)
{
    return frames <= FRAMES_FIRST ? 1 : 2 + (frames - FRAMES_FIRST - 1) / FRAMES_BLOCK;
}

/* The sum over the header's first 40 bytes, written apart from the code under test. */
static void header_sum(const uint8_t *p, uint8_t out[8])
{
    uint32_t s1 = 0, s2 = 0;
    for (size_t i = 0; i < 40; i += 8) {
        s1 += get_le32(p + i) + s2;
        s2 += get_le32(p + i + 4) + s1;
    }
    set_le32(out, s1);
    set_le32(out + 4, s2);
}

/* Copies the files elsewhere, has SQLite recover them, and compares the shared memory byte by byte.
 * The bytes that differ by right:
 *   8..11, 56..59      iChange: recovery begins at 0, we count publications
 *   40..47, 88..95     the header's sum, because it covers iChange
 *   96..119            nBackfill and the read marks: what checkpoints and readers did to ours
 *   120..127           file locks: nobody stores there
 *   128..131           nBackfillAttempted: recovery says mxFrame, a checkpoint what it tried */
static void expect_as_recovered(struct target *t, const char *name)
{
    stock_copy(t->keeper, test_path(name));
    sqlite3 *copy = stock_open(test_path(name), PAGE);
    stock_expect_intact(copy);
    const uint32_t blocks = blocks_of(t->frames);
    uint8_t *ours = shm_copy(t->db, blocks);
    uint8_t *theirs = shm_copy(stock_file(copy, SQLITE_FCNTL_FILE_POINTER), blocks);
    EXPECT_EQ(get_le32(ours + 16), t->frames);
    EXPECT_EQ(get_le32(theirs + 8), 0);
    EXPECT(memcmp(ours, ours + 48, 48) == 0);
    /* Their header with our iChange and the sum that this makes is our header. */
    for (uint8_t *p = theirs; p < theirs + 96; p += 48) {
        memcpy(p + 8, ours + 8, 4);
        header_sum(p, p + 40);
    }
    EXPECT_EQ(get_le32(theirs + 128), t->frames);
    EXPECT_EQ(get_le32(ours + 100), 0); /* read mark 0 */
    memcpy(theirs + 96, ours + 96, 36);
    for (size_t i = 0; i < blocks * BLOCK; i++)
        if (ours[i] != theirs[i])
            test_fail(__FILE__, __LINE__, "%u frames: block %zu byte %zu: ours %02x, SQLite's %02x",
                      t->frames, i / BLOCK, i % BLOCK, ours[i], theirs[i]);
    free(ours);
    free(theirs);
    stock_close(copy);
}

/* wal_index_find against a walk over the frames. */
static void expect_finds(struct target *t, const struct tape *tape, struct rng *r)
{
    const struct frame *frames = tape->frames + tape->played - t->frames;
    for (int i = 0; i < 300; i++) {
        uint32_t page_no = 1 + (uint32_t)rng_below(r, 400), found;
        uint32_t limit = rng_once_in(r, 3) ? t->frames : (uint32_t)rng_below(r, t->frames + 1);
        uint32_t want = limit;
        while (want > 0 && frames[want - 1].page_no != page_no)
            want--;
        EXPECT_OK(wal_index_find(t->index, page_no, limit, &found));
        EXPECT_EQ(found, want);
    }
}

static void make_source(sqlite3 **source, const char *target_path)
{
    *source = stock_open(test_path("source"), PAGE);
    source_fill(*source);
    stock_copy(*source, target_path);
}

static uint32_t shm_u32(struct target *t, size_t offset)
{
    uint8_t *p = shm_copy(t->db, 1);
    uint32_t v = get_le32(p + offset);
    free(p);
    return v;
}

/* --- tests ------------------------------------------------------------------------------------ */

TEST(wal_index_is_what_the_recovery_of_sqlite_builds)
{
    struct rng r = {test_seed()};
    struct tape tape = {0};
    struct target t;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    target_open(&t, test_path("target"));
    sqlite3 *reader = stock_open(test_path("target"), PAGE);
    int64_t n = 0;
    for (uint64_t round = 0, rounds = 1 + test_rounds(3); round < rounds; round++) {
        source_transactions(source, 1300, &r);
        tape_take(&tape, source);
        target_new_wal(&t, &r);
        EXPECT_EQ(shm_u32(&t, 16), 0);
        EXPECT_EQ(stock_int(reader, "SELECT n FROM meta"), n);
        while (tape.played < tape.n) {
            if (rng_once_in(&r, 10))
                target_abandon(&t, &tape, &r);
            target_publish(&t, &tape);
            n++;
            if (rng_once_in(&r, 20))
                EXPECT_EQ(stock_int(reader, "SELECT n FROM meta"), n);
            if (rng_once_in(&r, 300)) {
                stock_expect_intact(reader);
                EXPECT_EQ(stock_int(reader, "SELECT sum(x) FROM t"), 0);
                expect_finds(&t, &tape, &r);
            }
        }
        EXPECT(t.frames > FRAMES_FIRST + FRAMES_BLOCK); /* three blocks and more */
        expect_finds(&t, &tape, &r);
        char name[32];
        (void)snprintf(name, sizeof name, "recovered%u", (unsigned)round);
        expect_as_recovered(&t, name);
        EXPECT(target_checkpoint(&t));
        stock_expect_intact(reader);
    }
    stock_close(reader);
    target_close(&t);
    stock_close(source);
    free(tape.frames);
}

/* The places where one block ends and the next begins, each as last published frame; an abandoned
 * transaction before lies over the border. */
TEST(wal_index_at_the_borders_of_blocks)
{
    static const uint32_t ends[] = {1,
                                    FRAMES_FIRST - 1,
                                    FRAMES_FIRST,
                                    FRAMES_FIRST + 1,
                                    FRAMES_FIRST + FRAMES_BLOCK - 1,
                                    FRAMES_FIRST + FRAMES_BLOCK,
                                    FRAMES_FIRST + FRAMES_BLOCK + 1};
    struct rng r = {test_seed()};
    struct tape tape = {0};
    struct target t;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    stock_exec(source, "UPDATE meta SET n=1");
    tape_take(&tape, source);
    struct frame f = tape.frames[0]; /* the page of meta, again and again */
    struct frame uncommitted = f;
    EXPECT(tape.n == 1 && f.pages_after != 0);
    uncommitted.pages_after = 0;
    target_open(&t, test_path("target"));
    target_new_wal(&t, &r);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct wal_chain chain = t.chain;
        for (uint32_t stale = t.frames + 1; stale < t.frames + 100; stale++)
            target_frame(&t, stale, &uncommitted, &chain);
        while (t.frames < ends[i]) {
            ++t.frames;
            target_frame(&t, t.frames, t.frames == ends[i] ? &f : &uncommitted, &t.chain);
        }
        wal_index_publish(t.index, t.frames, f.pages_after, t.chain.s);
        char name[32];
        (void)snprintf(name, sizeof name, "recovered%zu", i);
        expect_as_recovered(&t, name);
        uint32_t found;
        EXPECT_OK(wal_index_find(t.index, f.page_no, t.frames, &found));
        EXPECT_EQ(found, t.frames);
        EXPECT_OK(wal_index_find(t.index, f.page_no, t.frames - 1, &found));
        EXPECT_EQ(found, t.frames - 1);
        EXPECT_OK(wal_index_find(t.index, f.page_no + 1, t.frames, &found));
        EXPECT_EQ(found, 0);
    }
    target_close(&t);
    stock_close(source);
    free(tape.frames);
}

/* SQLite's recovery of a WAL with a header and no valid frame leaves whatever its heap held in the
 * first block: the first frame clears it. */
TEST(wal_index_begins_on_a_block_of_garbage)
{
    struct rng r = {test_seed()};
    struct tape tape = {0};
    struct target t;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    source_transactions(source, 20, &r);
    tape_take(&tape, source);
    target_open(&t, test_path("target"));
    target_new_wal(&t, &r);
    void volatile *at = NULL;
    EXPECT(t.db->pMethods->xShmMap(t.db, 0, (int)BLOCK, 0, &at) == SQLITE_OK);
    uint8_t *p = (uint8_t *)(uintptr_t)at;
    for (size_t i = 140; i < BLOCK; i++) /* page number 1 stays 0: it does not look old */
        p[i] = (uint8_t)rng_u64(&r);
    while (tape.played < tape.n)
        target_publish(&t, &tape);
    expect_as_recovered(&t, "recovered");
    target_close(&t);
    stock_close(source);
    free(tape.frames);
}

TEST(wal_index_publish_and_restart_change_what_sqlite_changes)
{
    struct rng r = {test_seed()};
    struct tape tape = {0};
    struct target t;
    struct wal_index_state a, b;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    source_transactions(source, 2, &r);
    tape_take(&tape, source);
    target_open(&t, test_path("target"));
    EXPECT_OK(wal_index_read(t.index, &a));
    EXPECT(a.frames == 0 && a.pages == 0 && a.page_size == 0);
    target_new_wal(&t, &r);
    target_publish(&t, &tape);
    EXPECT_OK(wal_index_read(t.index, &a));
    EXPECT(a.frames == t.frames && a.page_size == PAGE && a.pages > 0 && a.backfilled == 0);
    EXPECT(a.salt[0] == t.header.salt[0] && a.salt[1] == t.header.salt[1]);
    EXPECT(a.chain[0] == t.chain.s[0] && a.chain[1] == t.chain.s[1]);
    target_publish(&t, &tape);
    EXPECT_OK(wal_index_read(t.index, &b));
    EXPECT_EQ(b.change, a.change + 1);

    EXPECT(target_checkpoint(&t));
    EXPECT_OK(wal_index_read(t.index, &b));
    EXPECT_EQ(b.backfilled, t.frames);
    EXPECT_EQ(shm_u32(&t, 128), t.frames);
    target_new_wal(&t, &r);
    EXPECT_OK(wal_index_read(t.index, &a));
    EXPECT(a.frames == 0 && a.pages == b.pages && a.backfilled == 0 && a.change == b.change);
    EXPECT(a.salt[0] == t.header.salt[0] && a.salt[1] == t.header.salt[1]);
    static const uint32_t marks[] = {0, 0, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < 5; i++)
        EXPECT_EQ(shm_u32(&t, 100 + 4 * i), marks[i]);
    EXPECT_EQ(shm_u32(&t, 128), 0);
    target_close(&t);
    stock_close(source);
    free(tape.frames);
}

/* Ours is the files' state as if SQLite had written it: it goes on from there by itself. */
TEST(wal_index_is_continued_by_stock_sqlite_and_by_us)
{
    struct rng r = {test_seed()};
    struct tape tape = {0};
    struct target t;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    source_transactions(source, 400, &r);
    tape_take(&tape, source);
    target_open(&t, test_path("target"));
    target_new_wal(&t, &r);
    sqlite3 *writer = stock_open(test_path("target"), PAGE);
    int64_t n = 0;
    for (; tape.played < tape.n / 2; n++)
        target_publish(&t, &tape);
    target_abandon(&t, &tape, &r);
    EXPECT(sqlite3_exec(writer, "UPDATE meta SET n=n+1", NULL, NULL, NULL) == SQLITE_BUSY);

    /* The other way round would take pages of another history: the tape ends here. */
    wal_unlock(t.db, WAL_LOCK_WRITE, 1, true);
    source_transactions(writer, 300, &r);
    stock_expect_intact(writer);
    EXPECT_OK(wal_lock(t.db, WAL_LOCK_WRITE, 1, true));
    EXPECT_EQ(stock_int(writer, "SELECT n FROM meta"), n + 300);

    struct wal_index_state state;
    struct wal_scan scan;
    EXPECT_OK(wal_index_read(t.index, &state));
    EXPECT_OK(wal_scan_file(t.wal, &scan, NULL, NULL));
    EXPECT(state.frames > t.frames && scan.frames == state.frames);
    EXPECT_EQ(scan.commits, n + 300);
    EXPECT(scan.header.salt[0] == t.header.salt[0] && scan.chain.s[0] == state.chain[0]);

    /* And we after it: page 1 once more, as it is. */
    struct frame f = {.page_no = 1, .pages_after = state.pages};
    uint32_t at;
    EXPECT_OK(wal_index_find(t.index, 1, state.frames, &at));
    EXPECT(t.wal->pMethods->xRead(t.wal, f.page, PAGE,
                                  (sqlite3_int64)wal_frame_offset(at, PAGE) +
                                      (sqlite3_int64)WAL_FRAME_HEADER_BYTES) == SQLITE_OK);
    t.frames = state.frames;
    t.chain = scan.chain;
    target_frame(&t, ++t.frames, &f, &t.chain);
    wal_index_publish(t.index, t.frames, f.pages_after, t.chain.s);
    expect_as_recovered(&t, "recovered");
    stock_close(writer);
    target_close(&t);
    stock_close(source);
    free(tape.frames);
}

struct watcher {
    const char *path;
    atomic_bool stop;
    atomic_llong seen;
};

static void *watch(void *arg)
{
    struct watcher *w = arg;
    sqlite3 *db = stock_open(w->path, PAGE);
    while (!atomic_load(&w->stop)) {
        stock_exec(db, "BEGIN");
        int64_t n = stock_int(db, "SELECT n FROM meta");
        EXPECT(n >= atomic_load(&w->seen));
        EXPECT_EQ(stock_int(db, "SELECT sum(x) FROM t"), 0);
        EXPECT_EQ(stock_int(db, "SELECT n FROM meta"), n);
        stock_exec(db, "COMMIT");
        atomic_store(&w->seen, n);
    }
    stock_close(db);
    return NULL;
}

/* While nothing is published, readers begin anew at the last frame, so a checkpoint comes to the
 * end; from then on they begin at mark 0, so the marks of the WAL become free. They are kept once
 * taken: a reader that looked before the checkpoint ended may still try one. */
static void target_restart_among_readers(struct target *t, struct rng *r)
{
    while (!target_checkpoint(t))
        (void)sched_yield();
    while (wal_lock(t->db, WAL_LOCK_READ(1), 4, true) != ERR_OK)
        (void)sched_yield();
    target_begin_wal(t, r);
}

/* Readers of the same moment see whole transactions in their order, over checkpoints and new WALs;
 * none is told PROTOCOL, BUSY or CORRUPT. */
TEST(wal_index_shows_whole_states_to_readers_meanwhile)
{
    struct rng r = {test_seed()};
    struct tape tape = {0};
    struct target t;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    source_transactions(source, (int)test_rounds(2000) + 500, &r);
    tape_take(&tape, source);
    target_open(&t, test_path("target"));
    target_new_wal(&t, &r);
    struct watcher w[2] = {{.path = test_path("target")}, {.path = test_path("target")}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        EXPECT_OK(thread_start(&threads[i], "watcher", watch, &w[i]));
    int64_t n = 0;
    while (tape.played < tape.n) {
        target_publish(&t, &tape);
        if (++n % 50 == 0)
            target_restart_among_readers(&t, &r);
    }
    while (atomic_load(&w[0].seen) < n || atomic_load(&w[1].seen) < n)
        (void)sched_yield();
    for (int i = 0; i < 2; i++) {
        atomic_store(&w[i].stop, true);
        EXPECT(pthread_join(threads[i], NULL) == 0);
    }
    target_close(&t);
    stock_close(source);
    free(tape.frames);
}

TEST(wal_index_refuses_a_damaged_header)
{
    struct target t;
    struct wal_index_state state;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    target_open(&t, test_path("target"));
    void volatile *at = NULL;
    EXPECT(t.db->pMethods->xShmMap(t.db, 0, (int)BLOCK, 0, &at) == SQLITE_OK);
    uint8_t *p = (uint8_t *)(uintptr_t)at;
    EXPECT_OK(wal_index_read(t.index, &state));
    for (unsigned bit = 0; bit < 96 * 8; bit++) {
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        EXPECT_ERR(ERR_CORRUPT, wal_index_read(t.index, &state));
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (unsigned bit = 0; bit < 48 * 8; bit++) { /* the same in both: the sum finds it */
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        p[48 + bit / 8] ^= (uint8_t)(1u << bit % 8);
        EXPECT_ERR(ERR_CORRUPT, wal_index_read(t.index, &state));
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        p[48 + bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    EXPECT_OK(wal_index_read(t.index, &state));
    target_close(&t);
    stock_close(source);
}

TEST(wal_index_find_refuses_a_damaged_table)
{
    struct rng r = {test_seed()};
    struct tape tape = {0};
    struct target t;
    uint32_t found;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    source_transactions(source, 2, &r);
    tape_take(&tape, source);
    target_open(&t, test_path("target"));
    target_new_wal(&t, &r);
    target_publish(&t, &tape);
    EXPECT_ERR(ERR_CORRUPT, wal_index_find(t.index, 1, 100000, &found)); /* no such block */
    void volatile *at = NULL;
    EXPECT(t.db->pMethods->xShmMap(t.db, 0, (int)BLOCK, 0, &at) == SQLITE_OK);
    uint8_t *slots = (uint8_t *)(uintptr_t)at + 16384;
    memset(slots, 0x7f, 16384); /* beyond the block */
    EXPECT_ERR(ERR_CORRUPT, wal_index_find(t.index, 1, t.frames, &found));
    for (size_t i = 0; i < 16384; i += 2) /* no free slot: an endless chain */
        set_le16(slots + i, 1);
    EXPECT_ERR(ERR_CORRUPT, wal_index_find(t.index, 1, t.frames, &found));
    EXPECT_ERR(ERR_CORRUPT, wal_index_append(t.index, t.frames + 1, 1));
    target_close(&t);
    stock_close(source);
    free(tape.frames);
}

TEST(wal_locks_answer_busy)
{
    struct target t;
    sqlite3 *source;
    make_source(&source, test_path("target"));
    target_open(&t, test_path("target"));
    sqlite3 *other = stock_open(test_path("target"), PAGE);
    EXPECT_EQ(stock_int(other, "SELECT n FROM meta"), 0);
    sqlite3_file *f = stock_file(other, SQLITE_FCNTL_FILE_POINTER);
    EXPECT_ERR(ERR_LOCKED, wal_lock(f, WAL_LOCK_WRITE, 1, true));
    EXPECT_OK(wal_lock(f, WAL_LOCK_READ(2), 1, false));
    EXPECT_OK(wal_lock(t.db, WAL_LOCK_READ(2), 1, false));
    EXPECT_ERR(ERR_LOCKED, wal_lock(t.db, WAL_LOCK_READ(1), 4, true));
    wal_unlock(f, WAL_LOCK_READ(2), 1, false);
    wal_unlock(t.db, WAL_LOCK_READ(2), 1, false);
    EXPECT_OK(wal_lock(t.db, WAL_LOCK_READ(1), 4, true));
    wal_unlock(t.db, WAL_LOCK_READ(1), 4, true);
    stock_close(other);
    target_close(&t);
    stock_close(source);
}
