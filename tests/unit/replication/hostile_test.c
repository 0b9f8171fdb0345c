/* Room: tests. Entries whose checksums are right and that no leader makes, and files of a program
 * that believed them: refused before anything of them is written, or any memory asked for.
 */
#include "base/hash.h"
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include "replication/txn_codec.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    uint8_t *bytes;
    size_t len;
};

/* An entry that follows DB and has correct checksums: page 1 changed a little, and pages FIRST to
 * LAST of zeros (none when FIRST is 0). */
static struct entry forge(struct repl_db *db, uint32_t pages_after, uint32_t first,
                          uint32_t last) ON_OWNER
{
    uint32_t size = db->config.page_size;
    struct repl_position at = repl_db_position(db);
    uint8_t *page = mem_alloc(size);
    EXPECT_OK(database_read_page(db, 1, page));
    uint64_t sum = at.checksum ^ digest_page_hash(1, page, size);
    page[92]++; /* version-valid-for */
    sum ^= digest_page_hash(1, page, size);
    struct txn_encoder *e = txn_encoder_new(
        &(struct repl_entry){
            .database_id = REPLICA_DATABASE_ID,
            .seq = at.seq + 1,
            .wall_ms = 1,
            .checksum_before = at.checksum,
            .checksum_after = sum,
            .pages_after = pages_after,
            .page_size = size,
            .parts = 1,
        },
        1 + (first == 0 ? 0 : last - first + 1));
    txn_encoder_page(e, 1, page);
    memset(page, 0, size);
    for (uint32_t p = first; p != 0 && p <= last; p++)
        txn_encoder_page(e, p, page);
    free(page);
    struct entry entry;
    entry.bytes = txn_encoder_finish(e, &entry.len);
    return entry;
}

static enum err apply_forged(struct repl_db *db, uint32_t pages_after, uint32_t first,
                             uint32_t last) ON_OWNER
{
    struct entry p = forge(db, pages_after, first, last);
    enum err e = repl_db_apply(db, p.bytes, p.len);
    free(p.bytes);
    return e;
}

static void expect_refused(uint32_t pages_after, uint32_t first, uint32_t last) ON_OWNER
{
    struct repl_db *db = replica_open("a");
    struct repl_position before = repl_db_position(db);
    EXPECT_ERR(ERR_CORRUPT, apply_forged(db, pages_after, first, last));
    EXPECT(strstr(err_text(), "all the pages between") != NULL);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
    db = replica_open("a"); /* nothing was written */
    EXPECT_EQ(repl_db_position(db).seq, before.seq);
    EXPECT_EQ(repl_db_position(db).checksum, before.checksum);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

static void make(void) ON_OWNER
{
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    replica_lead(&l, db);
    replica_write(&l, NULL, "CREATE TABLE t(a)");
    replica_unlead(&l);
    EXPECT_EQ(db->pages, 2);
    EXPECT_OK(repl_db_close(db));
}

TEST(hostile_growth_without_the_pages)
{
    replica_become_owner();
    make();
    expect_refused(UINT32_MAX - 15, 0, 0);
    expect_refused(UINT32_MAX, 0, 0);
    expect_refused(3, 0, 0);
    expect_refused(5, 4, 5); /* as many as are missing, but not those */
    expect_refused(5, 3, 4);
    expect_refused(6, 3, 4);
}

TEST(hostile_growth_with_the_pages_is_none)
{
    replica_become_owner();
    make();
    struct repl_db *db = replica_open("a");
    EXPECT_OK(apply_forged(db, 5, 3, 5));
    EXPECT_EQ(db->pages, 5);
    EXPECT_OK(apply_forged(db, 7, 6, 7));
    EXPECT_OK(apply_forged(db, 2, 0, 0)); /* shrinks */
    EXPECT_EQ(db->pages, 2);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

/* The WAL of a program that had believed such an entry. */
TEST(hostile_growth_in_the_wal_is_refused_at_open)
{
    replica_become_owner();
    make();
    struct repl_db *db = replica_open("a");
    uint32_t size = db->config.page_size;
    uint8_t *frame = mem_alloc(WAL_FRAME_HEADER_BYTES + size);
    EXPECT_OK(database_read_page(db, 1, frame + WAL_FRAME_HEADER_BYTES));
    struct wal_chain chain = db->chain;
    struct wal_frame f = {1, UINT32_MAX - 15};
    wal_frame_encode(&db->wal, &chain, &f, frame + WAL_FRAME_HEADER_BYTES, frame);
    EXPECT_OK(database_write_wal(db, frame, WAL_FRAME_HEADER_BYTES + size,
                                 wal_frame_offset(db->frames + 1, size)));
    free(frame);
    database_free(db); /* killed */
    struct repl_config c = replica_config("a");
    EXPECT_ERR(ERR_CORRUPT, repl_db_open(&c, &db));
    EXPECT(strstr(err_text(), "says that the database has 4294967280 pages") != NULL);
}

/* Part after part of a transaction that says it has PARTS, each with one page that does not pack,
 * until one is refused; *HELD: what was taken until then. */
static enum err send_parts(struct repl_db *db, uint32_t parts, uint64_t *held) ON_OWNER
{
    uint8_t page[1024];
    enum err e = ERR_OK;
    *held = 0;
    for (uint32_t i = 0; i < parts && e == ERR_OK; i++) {
        size_t n;
        struct txn_encoder *enc = txn_encoder_new(
            &(struct repl_entry){
                .database_id = REPLICA_DATABASE_ID,
                .seq = 1,
                .checksum_before = repl_db_position(db).checksum,
                .pages_after = parts,
                .page_size = sizeof page,
                .part = i,
                .parts = parts,
            },
            1);
        sqlite3_randomness((int)sizeof page, page);
        txn_encoder_page(enc, 1 + i, page);
        uint8_t *p = txn_encoder_finish(enc, &n);
        e = repl_db_apply(db, p, n);
        *held += e == ERR_OK ? n : 0;
        free(p);
    }
    return e;
}

TEST(hostile_parts_are_not_collected_beyond_the_limit)
{
    replica_become_owner();
    struct repl_config c = replica_config("m");
    struct repl_db *db;
    uint64_t held;
    c.txn_accept_max = 65536; /* 64 pages */
    EXPECT_OK(repl_db_open(&c, &db));
    EXPECT_ERR(ERR_TOO_BIG, send_parts(db, UINT32_MAX, &held));
    EXPECT(strstr(err_text(), "no leader makes") != NULL);
    EXPECT_EQ(held, 0);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
    EXPECT_OK(repl_db_open(&c, &db));
    EXPECT_ERR(ERR_TOO_BIG, send_parts(db, 64, &held));
    EXPECT(held > 50000 && held <= 65536);
    EXPECT_ERR(ERR_STOPPED, repl_db_close(db));
}
