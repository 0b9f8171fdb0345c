/* Room: tests. replication/wal_format: against files that SQLite wrote, and against what SQLite's
 * recovery makes of files that we wrote or damaged. */
#include "base/buf.h"
#include "base/mem.h"
#include "base/rng.h"
#include "replication/wal_format.h"
#include "replication/wal_index.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/stock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint32_t page_sizes[] = {512, 4096, 65536};

/* A database whose WAL holds TRANSACTIONS commits of some frames each; the schema is in the file.
 */
static sqlite3 *make_database(const char *path, uint32_t page_size, int transactions, struct rng *r)
{
    sqlite3 *db = stock_open(path, page_size);
    stock_exec(db,
               "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); PRAGMA wal_checkpoint(TRUNCATE)");
    for (int i = 0; i < transactions; i++)
        stock_exec(db, "INSERT INTO t(v) VALUES (randomblob(%u))",
                   (unsigned)rng_below(r, 3 * page_size));
    return db;
}

/* The files as bytes, to damage and to write elsewhere. */
struct image {
    uint8_t *db, *wal;
    size_t db_n, wal_n;
    uint32_t page_size;
};

static struct image image_take(sqlite3 *db, uint32_t page_size)
{
    struct image m = {.page_size = page_size};
    m.db = stock_bytes(stock_file(db, SQLITE_FCNTL_FILE_POINTER), &m.db_n);
    m.wal = stock_bytes(stock_file(db, SQLITE_FCNTL_JOURNAL_POINTER), &m.wal_n);
    return m;
}

static void image_free(struct image *m)
{
    free(m->db);
    free(m->wal);
}

/* Lets SQLite recover the image, scans it, and compares. Returns the number of rows. */
static int64_t expect_as_sqlite(const struct image *m, struct wal_scan *scan)
{
    const char *path = test_path("copy");
    stock_write(path, m->db, m->db_n);
    stock_write(test_path("copy-wal"), m->wal, m->wal_n);
    sqlite3 *db = stock_open(path, m->page_size);
    const int64_t rows = stock_int(db, "SELECT count(*) FROM t");
    stock_expect_intact(db);

    struct wal_index *x;
    struct wal_index_state state;
    EXPECT_OK(wal_index_open(stock_file(db, SQLITE_FCNTL_FILE_POINTER), m->page_size, &x));
    EXPECT_OK(wal_index_read(x, &state));
    EXPECT_OK(wal_scan_file(stock_file(db, SQLITE_FCNTL_JOURNAL_POINTER), scan, NULL, NULL));
    EXPECT_EQ(scan->file_bytes, m->wal_n);
    EXPECT_EQ(scan->frames, state.frames);
    EXPECT_EQ(scan->pages_after, state.pages);
    if (scan->frames > 0) {
        EXPECT_EQ(scan->chain.s[0], state.chain[0]);
        EXPECT_EQ(scan->chain.s[1], state.chain[1]);
        EXPECT_EQ(scan->header.page_size, m->page_size);
    }
    /* SQLite does not look at a header alone, and takes the salts of one whose sum is wrong. */
    if (scan->has_header && m->wal_n > WAL_HEADER_BYTES) {
        EXPECT_EQ(scan->header.salt[0], state.salt[0]);
        EXPECT_EQ(scan->header.salt[1], state.salt[1]);
    }
    wal_index_close(x);
    stock_close(db);
    EXPECT(unlink(test_path("copy-shm")) == 0);
    return rows;
}

TEST(wal_header_refuses_every_flipped_bit)
{
    uint8_t p[WAL_HEADER_BYTES];
    struct wal_header h = {.page_size = 65536, .checkpoint_seq = 7, .salt = {1, 0xfffffffe}}, got;
    wal_header_encode(&h, p);
    EXPECT(wal_header_decode(p, &got));
    EXPECT(got.page_size == 65536 && got.checkpoint_seq == 7 && got.salt[0] == 1);
    EXPECT(got.salt[1] == 0xfffffffe && !got.chain.big_endian);
    EXPECT(got.chain.s[0] == h.chain.s[0] && got.chain.s[1] == h.chain.s[1]);
    for (unsigned bit = 0; bit < WAL_HEADER_BYTES * 8; bit++) {
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        EXPECT(!wal_header_decode(p, &got));
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* What SQLite wrote, decoded and encoded again, is the same bytes. */
TEST(wal_frames_of_sqlite_are_ours_byte_for_byte)
{
    struct rng r = {test_seed()};
    for (size_t s = 0; s < sizeof page_sizes / sizeof *page_sizes; s++) {
        const uint32_t page_size = page_sizes[s];
        char name[16];
        (void)snprintf(name, sizeof name, "db%u", page_size);
        sqlite3 *db = make_database(test_path(name), page_size, 40, &r);
        struct image m = image_take(db, page_size);
        stock_close(db);

        uint8_t again[WAL_HEADER_BYTES + WAL_FRAME_HEADER_BYTES];
        struct wal_header h;
        EXPECT(wal_header_decode(m.wal, &h));
        EXPECT(!h.chain.big_endian && h.page_size == page_size);
        wal_header_encode(&h, again);
        EXPECT(memcmp(again, m.wal, WAL_HEADER_BYTES) == 0);
        struct wal_chain in = h.chain, out = h.chain;
        uint32_t commits = 0, frames = 0;
        for (size_t at = WAL_HEADER_BYTES; at < m.wal_n; at += WAL_FRAME_HEADER_BYTES + page_size) {
            struct wal_frame f;
            const uint8_t *page = m.wal + at + WAL_FRAME_HEADER_BYTES;
            EXPECT_EQ(at, wal_frame_offset(++frames, page_size));
            EXPECT(wal_frame_decode(&h, &in, m.wal + at, page, &f));
            wal_frame_encode(&h, &out, &f, page, again);
            EXPECT(memcmp(again, m.wal + at, WAL_FRAME_HEADER_BYTES) == 0);
            commits += f.pages_after != 0;
        }
        EXPECT_EQ(commits, 40);
        struct wal_scan scan;
        EXPECT_EQ(expect_as_sqlite(&m, &scan), 40);
        EXPECT(scan.commits == 40 && scan.frames == frames);
        image_free(&m);
    }
}

/* An independent sum over big-endian words, to judge and to make what our encoder does not write.
 */
static void sum_be(uint32_t s[2], const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint32_t x =
            (uint32_t)p[i] << 24 | (uint32_t)p[i + 1] << 16 | (uint32_t)p[i + 2] << 8 | p[i + 3];
        uint32_t y = (uint32_t)p[i + 4] << 24 | (uint32_t)p[i + 5] << 16 | (uint32_t)p[i + 6] << 8 |
                     p[i + 7];
        s[0] += x + s[1];
        s[1] += y + s[0];
    }
}

static void put_sum(uint8_t *p, const uint32_t s[2])
{
    set_be32(p, s[0]);
    set_be32(p + 4, s[1]);
}

/* A WAL of a big-endian machine: SQLite reads it, and so do we; a frame that we add in its word
 * order is one for both. */
TEST(wal_of_the_other_word_order_is_read_and_continued)
{
    struct rng r = {test_seed()};
    const uint32_t page_size = 1024;
    sqlite3 *db = make_database(test_path("db"), page_size, 30, &r);
    struct image m = image_take(db, page_size);
    stock_close(db);
    uint32_t s[2] = {0, 0};
    m.wal[3] |= 1;
    sum_be(s, m.wal, 24);
    put_sum(m.wal + 24, s);
    for (size_t at = WAL_HEADER_BYTES; at < m.wal_n; at += WAL_FRAME_HEADER_BYTES + page_size) {
        sum_be(s, m.wal + at, 8);
        sum_be(s, m.wal + at + WAL_FRAME_HEADER_BYTES, page_size);
        put_sum(m.wal + at + 16, s);
    }
    struct wal_scan scan;
    EXPECT_EQ(expect_as_sqlite(&m, &scan), 30);
    EXPECT(scan.header.chain.big_endian && scan.chain.big_endian && scan.commits == 30);

    /* The last frame once more, by our encoder. */
    const size_t frame_bytes = WAL_FRAME_HEADER_BYTES + page_size;
    m.wal = mem_realloc(m.wal, m.wal_n + frame_bytes);
    uint8_t *last = m.wal + m.wal_n - frame_bytes, *next = m.wal + m.wal_n;
    memcpy(next, last, frame_bytes);
    const struct wal_frame f = {.page_no = get_be32(last), .pages_after = get_be32(last + 4)};
    struct wal_chain chain = scan.chain;
    wal_frame_encode(&scan.header, &chain, &f, next + WAL_FRAME_HEADER_BYTES, next);
    m.wal_n += frame_bytes;
    EXPECT_EQ(expect_as_sqlite(&m, &scan), 30);
    EXPECT_EQ(scan.commits, 31);
    image_free(&m);
}

/* Makes the chain right again after a change of frames, so that the inner rules are reached. */
static void repair_chain(struct image *m)
{
    struct wal_header h;
    EXPECT(wal_header_decode(m->wal, &h));
    struct wal_chain chain = h.chain;
    const size_t frame_bytes = WAL_FRAME_HEADER_BYTES + m->page_size;
    for (size_t at = WAL_HEADER_BYTES; at < m->wal_n; at += frame_bytes) {
        uint8_t *p = m->wal + at;
        const struct wal_frame f = {.page_no = get_be32(p), .pages_after = get_be32(p + 4)};
        wal_frame_encode(&h, &chain, &f, p + WAL_FRAME_HEADER_BYTES, p);
    }
}

static void damage(struct image *m, struct rng *r)
{
    const size_t frame_bytes = WAL_FRAME_HEADER_BYTES + m->page_size;
    const size_t frames = (m->wal_n - WAL_HEADER_BYTES) / frame_bytes;
    uint8_t *one = m->wal + WAL_HEADER_BYTES + rng_below(r, frames) * frame_bytes;
    uint8_t *two = m->wal + WAL_HEADER_BYTES + rng_below(r, frames) * frame_bytes;
    switch (rng_below(r, 7)) {
    case 0: /* cut anywhere */
        m->wal_n = rng_below(r, m->wal_n + 1);
        break;
    case 1: /* a bit anywhere */
        m->wal[rng_below(r, m->wal_n)] ^= (uint8_t)(1u << rng_below(r, 8));
        break;
    case 2: /* a bit in a frame's header */
        one[rng_below(r, WAL_FRAME_HEADER_BYTES)] ^= (uint8_t)(1u << rng_below(r, 8));
        break;
    case 3: /* one frame in the place of another */
        memmove(one, two, frame_bytes);
        break;
    case 4: /* a frame of zeros: a hole that a crash left */
        memset(one, 0, frame_bytes);
        break;
    case 5: /* a bit in the WAL's header */
        m->wal[rng_below(r, WAL_HEADER_BYTES)] ^= (uint8_t)(1u << rng_below(r, 8));
        break;
    default: /* the last commit lost its mark, with a right chain: it must not count */
        set_be32(m->wal + m->wal_n - frame_bytes + 4, 0);
        repair_chain(m);
    }
}

TEST(wal_scan_counts_what_the_recovery_of_sqlite_counts)
{
    struct rng r = {test_seed()};
    const uint32_t page_size = 1024;
    sqlite3 *db = make_database(test_path("db"), page_size, 60, &r);
    struct image m = image_take(db, page_size);
    stock_close(db);
    struct image bad = m;
    bad.wal = mem_alloc(m.wal_n);
    for (uint64_t i = 0, n = test_rounds(600); i < n; i++) {
        memcpy(bad.wal, m.wal, bad.wal_n = m.wal_n);
        damage(&bad, &r);
        struct wal_scan scan;
        EXPECT_EQ(expect_as_sqlite(&bad, &scan), scan.commits);
    }
    free(bad.wal);
    image_free(&m);
}

/* Page 0 with a right sum: SQLite does not take it, so we do not. */
TEST(wal_frame_of_page_zero_is_none)
{
    static uint8_t page[512];
    uint8_t head[WAL_FRAME_HEADER_BYTES];
    struct wal_header h = {.page_size = 512, .salt = {5, 6}};
    uint8_t p[WAL_HEADER_BYTES];
    wal_header_encode(&h, p);
    struct wal_chain chain = h.chain, before = h.chain;
    struct wal_frame f = {.page_no = 256, .pages_after = 1};
    wal_frame_encode(&h, &chain, &f, page, head);
    EXPECT(wal_frame_decode(&h, &before, head, page, &f));
    EXPECT(before.s[0] == chain.s[0] && before.s[1] == chain.s[1]);
    /* 256 is 00 00 01 00: without it the first sum lacks 1 << 16 in little-endian words, at the
     * first step; build the chain for page 0 by a chain that begins so much higher. */
    memset(head, 0, 4);
    before = h.chain;
    before.s[0] += 1u << 16;
    EXPECT(!wal_frame_decode(&h, &before, head, page, &f));
    EXPECT_EQ(before.s[0], h.chain.s[0] + (1u << 16)); /* not moved on */
    set_be32(head, 256);
    EXPECT(wal_frame_decode(&h, &h.chain, head, page, &f));
}

struct seen {
    uint32_t frames, commits;
};

static void count(void *ctx, uint32_t frame, const struct wal_frame *f, const uint8_t *page)
{
    struct seen *s = ctx;
    EXPECT_EQ(frame, ++s->frames);
    EXPECT(page != NULL);
    s->commits += f->pages_after != 0;
}

TEST(wal_scan_visits_also_the_frames_behind_the_last_commit)
{
    struct rng r = {test_seed()};
    sqlite3 *db = make_database(test_path("db"), 512, 20, &r);
    struct wal_scan scan;
    struct seen seen = {0};
    /* A transaction that spills before its commit. */
    stock_exec(db, "PRAGMA cache_size=10; BEGIN; INSERT INTO t(v) VALUES (randomblob(60000));");
    EXPECT_OK(wal_scan_file(stock_file(db, SQLITE_FCNTL_JOURNAL_POINTER), &scan, count, &seen));
    EXPECT(scan.commits == 20 && seen.commits == 20 && seen.frames > scan.frames);
    stock_exec(db, "ROLLBACK");
    stock_close(db);
}
