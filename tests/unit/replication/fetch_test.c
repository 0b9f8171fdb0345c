/* Room: tests. A database built from another node's image: byte for byte what the source published,
 * over whatever was there before; nothing that a peer or a disk says is believed. */
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "replication/fetched.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/disk.h"
#include "tests/unit/replication/fetch_stage.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *file_of(const char *node, const char *file)
{
    char *name = mem_printf("%s/%s", node, file);
    const char *path = test_path(name);
    free(name);
    return path;
}

static bool there(const char *node, const char *file)
{
    struct stat st;
    return stat(file_of(node, file), &st) == 0;
}

static enum repl_fetch_state look(const char *node, struct repl_image_head *head)
{
    static uint8_t note[REPL_FETCH_NOTE_MAX];
    enum repl_fetch_state state;
    size_t n;
    EXPECT_OK(repl_fetch_look(file_of(node, "main.db"), &state, head, note, &n));
    if (state == REPL_FETCH_COMPLETE)
        EXPECT(n == 4 && memcmp(note, "note", 4) == 0);
    return state;
}

static enum repl_fetch_state look_only(const char *node)
{
    struct repl_image_head head;
    return look(node, &head);
}

static enum err complete(struct repl_fetch *f, const struct repl_image_head *head)
{
    return repl_fetch_complete(f, head, (const uint8_t *)"note", 4);
}

/* An empty directory for a node. */
static void make_node(const char *node)
{
    EXPECT_OK(file_make_dirs(test_path(node)));
}

/* The installed database: known, sound, and these pages. */
static void expect_installed(const char *node, const struct repl_image_head *head,
                             const uint8_t *pages) ON_OWNER
{
    static const char *const gone[] = {"main.db.fetch", "main.db.fetched", "main.db.fetched.new",
                                       "main.db-wal",   "main.db-shm",     "hashes.new",
                                       "position.new"};
    EXPECT_EQ(look_only(node), REPL_FETCH_NONE);
    for (unsigned i = 0; i < sizeof gone / sizeof gone[0]; i++)
        EXPECT(!there(node, gone[i]));
    fetching_expect_file(file_of(node, "main.db"), pages, (size_t)head->pages * head->page_size);
    struct repl_config c = replica_config(node);
    struct repl_db *db;
    EXPECT_OK(repl_db_open(&c, &db));
    EXPECT(repl_db_position_known(db));
    EXPECT_EQ(repl_db_position(db).seq, head->seq);
    EXPECT_EQ(repl_db_position(db).checksum, head->checksum);
    EXPECT_EQ(db->config.page_size, head->page_size);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

/* Rounds, the last one, complete, install, and a look at what came of it. */
static void fetch_and_install(struct repl_db *source, const char *node) ON_OWNER
{
    struct repl_image_head head;
    const char *path = file_of(node, "main.db");
    struct repl_fetch *f = fetching_open(path, source->config.page_size);
    (void)fetching_round(source, f, NULL, NULL);
    struct repl_image *image = fetching_image(source, &head);
    (void)fetching_last_round(source, f, image, &head, NULL, NULL);
    uint8_t *pages = fetching_read_all(image, &head);
    fetching_close(image);
    EXPECT_EQ(repl_fetch_checksum(f, head.pages), head.checksum);
    EXPECT_OK(complete(f, &head));
    repl_fetch_close(f);
    EXPECT_EQ(look_only(node), REPL_FETCH_COMPLETE);
    EXPECT_OK(repl_fetch_install(path));
    expect_installed(node, &head, pages);
    free(pages);
}

/* --- a source --------------------------------------------------------------------------------- */

static struct repl_db *open_source(const char *name, uint32_t page_size, unsigned rows,
                                   struct replica_leader *l) ON_OWNER
{
    struct repl_config c = replica_config(name);
    c.page_size = page_size;
    c.entry_bytes_max = ENTRY_BYTES_MAX;
    struct repl_db *db;
    EXPECT_OK(repl_db_open(&c, &db));
    replica_lead(l, db);
    if (rows > 0)
        replica_write(l, NULL,
                      "CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT, b BLOB); CREATE INDEX ta ON "
                      "t(a);"
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %u)"
                      "INSERT INTO t SELECT i, 'name ' || i * 7919 %% 1000, randomblob(%u) FROM n",
                      rows, 10 + page_size / 3);
    return db;
}

static void close_source(struct repl_db *db, struct replica_leader *l) ON_OWNER
{
    replica_unlead(l);
    EXPECT_OK(repl_db_close(db));
}

TEST(fetch_builds_databases_of_all_page_sizes)
{
    static const uint32_t sizes[] = {512, 1024, 4096, 65536};
    replica_become_owner();
    disk_skip_syncs();
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct replica_leader l;
        char name[2][8] = {"s0", "d0"};
        name[0][1] = name[1][1] = (char)('0' + i);
        struct repl_db *db = open_source(name[0], sizes[i], 60, &l);
        make_node(name[1]);
        fetch_and_install(db, name[1]);
        /* Once more, over what is there now: nothing differs. */
        struct repl_fetch *f = fetching_open(file_of(name[1], "main.db"), sizes[i]);
        EXPECT_EQ(look_only(name[1]), REPL_FETCH_BEGUN);
        EXPECT(!there(name[1], "main.db") && !there(name[1], "position") &&
               !there(name[1], "hashes"));
        EXPECT_EQ(fetching_round(db, f, NULL, NULL), 0);
        repl_fetch_close(f);
        fetch_and_install(db, name[1]);
        close_source(db, &l);
    }
}

TEST(fetch_builds_a_database_of_one_page)
{
    struct replica_leader l;
    replica_become_owner();
    struct repl_db *db = open_source("s", 1024, 0, &l);
    EXPECT_EQ(db->pages, 1);
    make_node("d");
    fetch_and_install(db, "d");
    close_source(db, &l);
}

/* Another database, longer, with its WAL, is of what use it can be. */
TEST(fetch_makes_use_of_what_there_is)
{
    struct replica_leader l;
    replica_become_owner();
    disk_skip_syncs();
    struct repl_db *old = open_source("d", 1024, 400, &l);
    EXPECT_OK(checkpoint_all(old));
    replica_write(&l, NULL, "UPDATE t SET b = randomblob(10) WHERE k %% 50 = 1");
    uint32_t old_pages = old->pages;
    replica_unlead(&l);
    database_free(old); /* as after a crash: with a WAL */
    struct repl_db *db = open_source("s", 1024, 150, &l);
    EXPECT(db->pages < old_pages);
    EXPECT(there("d", "main.db-wal"));
    fetch_and_install(db, "d");
    EXPECT_OK(checkpoint_all(db));
    replica_write(&l, NULL, "UPDATE t SET b = randomblob(100) WHERE k = 77");
    struct repl_fetch *f = fetching_open(file_of("d", "main.db"), 1024);
    unsigned copied = fetching_round(db, f, NULL, NULL);
    EXPECT(copied > 0 && copied < 10);
    repl_fetch_close(f);
    close_source(db, &l);
}

TEST(fetch_drops_pages_of_another_size)
{
    struct replica_leader l;
    replica_become_owner();
    struct repl_db *old = open_source("d", 4096, 30, &l);
    close_source(old, &l);
    struct repl_db *db = open_source("s", 1024, 30, &l);
    struct repl_fetch *f = fetching_open(file_of("d", "main.db"), 1024);
    struct stat st;
    EXPECT(stat(file_of("d", "main.db.fetch"), &st) == 0 && st.st_size == 0);
    repl_fetch_close(f);
    fetch_and_install(db, "d");
    close_source(db, &l);
}

/* --- over a changing database ----------------------------------------------------------------- */

struct changing {
    struct replica_leader l;
    struct rng rng;
    unsigned writes;
};

static void change(void *ctx)
{
    struct changing *c = ctx;
    thread_expect_owner();
    unsigned n = (unsigned)rng_below(&c->rng, 700);
    bool wants_quiet;
    switch (rng_below(&c->rng, 8)) {
    case 0:
        replica_write(&c->l, NULL, "DELETE FROM t WHERE k %% 5 = %u; INSERT INTO t(a) VALUES(%u)",
                      n % 5, n);
        break;
    case 1: {
        struct repl_txn *t;
        stock_exec(c->l.conn, "VACUUM");
        EXPECT_OK(repl_view_seal(c->l.view, 1, NULL, 0, &t));
        if (t != NULL)
            EXPECT_OK(repl_db_publish(c->l.db, t));
        break;
    }
    case 2:
        replica_write(&c->l, NULL,
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %u)"
                      "INSERT INTO t(a, b) SELECT i, randomblob(%u) FROM n",
                      1 + n % 40, n);
        break;
    default:
        replica_write(&c->l, NULL,
                      "UPDATE t SET b = randomblob(%u) WHERE k %% 97 = %u;"
                      "INSERT INTO t(a) VALUES(%u)",
                      n, n % 97, n);
    }
    c->writes++;
    EXPECT_OK(repl_db_upkeep(c->l.db, true, &wants_quiet));
}

TEST(fetch_follows_a_changing_database)
{
    struct changing c = {.rng = {test_seed()}};
    replica_become_owner();
    disk_skip_syncs();
    struct repl_db *db = open_source("s", 1024, 300, &c.l);
    make_node("d");
    const char *path = file_of("d", "main.db");
    for (uint64_t n = test_rounds(6); n > 0; n--) {
        struct repl_image_head head;
        struct repl_fetch *f = fetching_open(path, 1024);
        for (uint64_t rounds = rng_below(&c.rng, 4); rounds > 0; rounds--) {
            (void)fetching_round(db, f, change, &c);
            if (rng_once_in(&c.rng, 3)) { /* the node is killed: what is there is there */
                repl_fetch_close(f);
                EXPECT_EQ(look_only("d"), REPL_FETCH_BEGUN);
                f = fetching_open(path, 1024);
            }
        }
        struct repl_image *image = fetching_image(db, &head);
        uint8_t *pages = fetching_read_all(image, &head);
        /* A hash that went away from the image and came back is not seen: once more, then. */
        enum err e;
        do {
            (void)fetching_last_round(db, f, image, &head, change, &c);
            e = complete(f, &head);
        } while (e == ERR_DIVERGED);
        EXPECT_OK(e);
        fetching_close(image);
        repl_fetch_close(f);
        EXPECT_OK(repl_fetch_install(path));
        expect_installed("d", &head, pages);
        free(pages);
    }
    (void)printf("%u writes, %llu restarts\n", c.writes, (unsigned long long)db->stat_restarts);
    close_source(db, &c.l);
}

/* --- what a peer may say ---------------------------------------------------------------------- */

TEST(fetch_believes_no_numbers)
{
    static uint8_t page[1024], note[REPL_FETCH_NOTE_MAX + 1];
    uint64_t hashes[4] = {1, 2, 3, 4};
    uint32_t page_nos[4];
    struct repl_fetch *f;
    replica_become_owner();
    make_node("d");
    const char *path = file_of("d", "main.db");
    static const uint32_t sizes[] = {0, 1, 511, 513, 1000, 131072, UINT32_MAX};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        EXPECT_ERR(ERR_FORMAT, repl_fetch_open(path, 1, sizes[i], NULL, NULL, &f));
    EXPECT_EQ(look_only("d"), REPL_FETCH_NONE);
    f = fetching_open(path, 1024);

    EXPECT_EQ(repl_fetch_differ(f, 0, 2, hashes, page_nos), 1);
    EXPECT_EQ(page_nos[0], 1);
    EXPECT_EQ(repl_fetch_differ(f, UINT32_MAX - 2, 4, hashes, page_nos), 2);
    EXPECT(page_nos[0] == UINT32_MAX - 2 && page_nos[1] == UINT32_MAX - 1);
    uint32_t lock_page = digest_lock_page(1024);
    EXPECT_EQ(repl_fetch_differ(f, lock_page - 1, 3, hashes, page_nos), 2);
    EXPECT(page_nos[0] == lock_page - 1 && page_nos[1] == lock_page + 1);

    memset(page, 7, sizeof page);
    EXPECT_ERR(ERR_PROTOCOL, repl_fetch_write(f, 0, page));
    EXPECT_ERR(ERR_PROTOCOL, repl_fetch_write(f, UINT32_MAX, page));
    EXPECT_ERR(ERR_FULL, repl_fetch_write(f, UINT32_MAX - 1, page)); /* 4 TB */
    EXPECT(strstr(err_text(), "more bytes") != NULL);
    EXPECT_ERR(ERR_FULL, repl_fetch_expect(f, UINT32_MAX));
    EXPECT_OK(repl_fetch_write(f, lock_page, page)); /* and nothing happens */
    struct stat st;
    EXPECT(stat(file_of("d", "main.db.fetch"), &st) == 0 && st.st_size == 0);

    struct repl_image_head good = {.database_id = REPLICA_DATABASE_ID,
                                   .seq = 5,
                                   .checksum = digest_page_hash(1, page, 1024),
                                   .pages = 1,
                                   .page_size = 1024},
                           bad;
    EXPECT_ERR(ERR_DIVERGED, complete(f, &good));
    EXPECT_OK(repl_fetch_write(f, 1, page));
    EXPECT_ERR(ERR_TOO_BIG, repl_fetch_complete(f, &good, note, sizeof note));
    bad = good, bad.pages = 0;
    EXPECT_ERR(ERR_FORMAT, complete(f, &bad));
    bad = good, bad.pages = UINT32_MAX;
    EXPECT_ERR(ERR_FORMAT, complete(f, &bad));
    bad = good, bad.pages = UINT32_MAX - 1;
    EXPECT_ERR(ERR_FULL, complete(f, &bad));
    bad = good, bad.page_size = 4096;
    EXPECT_ERR(ERR_FORMAT, complete(f, &bad));
    bad = good, bad.database_id++;
    EXPECT_ERR(ERR_FORMAT, complete(f, &bad));
    bad = good, bad.checksum ^= 1;
    EXPECT_ERR(ERR_DIVERGED, complete(f, &bad));
    EXPECT_ERR(ERR_FORMAT, complete(f, &good)); /* the checksum is right, but it is no database */
    EXPECT_EQ(look_only("d"), REPL_FETCH_BEGUN);
    EXPECT_ERR(ERR_NOT_FOUND, repl_fetch_install(path));
    repl_fetch_close(f);
}

/* Zeros need not be sent; a file that is longer than the image is cut. */
TEST(fetch_takes_zeros_for_what_was_not_sent)
{
    struct replica_leader l;
    replica_become_owner();
    struct repl_db *db = open_source("s", 1024, 5, &l);
    EXPECT_OK(checkpoint_all(db));
    make_node("d");
    struct repl_image_head head;
    struct repl_image *image = fetching_image(db, &head);
    uint8_t *pages = fetching_read_all(image, &head);
    fetching_close(image);
    const char *path = file_of("d", "main.db");
    struct repl_fetch *f = fetching_open(path, 1024);
    (void)fetching_round(db, f, NULL, NULL);
    uint8_t other[1024] = {1};
    EXPECT_OK(repl_fetch_write(f, head.pages + 9, other));
    EXPECT_EQ(repl_fetch_checksum(f, head.pages), head.checksum);
    EXPECT_EQ(repl_fetch_checksum(f, head.pages + 8), head.checksum);
    EXPECT(repl_fetch_checksum(f, head.pages + 9) != head.checksum);
    /* As if the source had grown by pages that nobody wrote yet. */
    head.pages += 3;
    EXPECT_OK(complete(f, &head));
    EXPECT_ERR(ERR_MISUSE, complete(f, &head));
    EXPECT_ERR(ERR_MISUSE, repl_fetch_write(f, 1, pages));
    repl_fetch_close(f);
    EXPECT_OK(repl_fetch_install(path));
    size_t n = (size_t)head.pages * 1024;
    pages = mem_realloc(pages, n);
    memset(pages + n - 3 * 1024, 0, 3 * 1024);
    fetching_expect_file(path, pages, n);
    free(pages);
    close_source(db, &l);
}

/* --- the word COMPLETE ------------------------------------------------------------------------ */

static const struct repl_image_head some_head = {
    .database_id = 3, .seq = 4, .checksum = 5, .pages = 6, .page_size = 512};

TEST(fetch_word_is_read_as_it_was_written)
{
    static uint8_t note[REPL_FETCH_NOTE_MAX], got[REPL_FETCH_NOTE_MAX];
    const char *path = test_path("word");
    struct repl_image_head head;
    size_t n;
    for (size_t i = 0; i < sizeof note; i++)
        note[i] = (uint8_t)(i * 31 >> 3);
    static const size_t lengths[] = {0, 1, 4, 4096, REPL_FETCH_NOTE_MAX};
    EXPECT_ERR(ERR_NOT_FOUND, fetched_read(path, &head, got, &n));
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        EXPECT_OK(fetched_write(path, &some_head, note, lengths[i]));
        EXPECT_OK(fetched_read(path, &head, got, &n));
        EXPECT_EQ(n, lengths[i]);
        EXPECT(memcmp(got, note, n) == 0);
        EXPECT(head.database_id == 3 && head.seq == 4 && head.checksum == 5 && head.pages == 6 &&
               head.page_size == 512);
    }
    EXPECT_ERR(ERR_TOO_BIG, fetched_write(path, &some_head, note, REPL_FETCH_NOTE_MAX + 1));
}

static void expect_word(const char *path, const uint8_t *p, size_t n, enum err code)
{
    uint8_t got[REPL_FETCH_NOTE_MAX];
    struct repl_image_head head;
    size_t len;
    stock_write(path, p, n);
    EXPECT_ERR(code, fetched_read(path, &head, got, &len));
}

static void seal_word(uint8_t *p, size_t n)
{
    set_le64(p + n - 8, hash64(p, n - 8, 0));
}

TEST(fetch_word_is_whole_or_refused)
{
    const char *path = test_path("word");
    struct buf b;
    disk_skip_syncs();
    EXPECT_OK(fetched_write(path, &some_head, (const uint8_t *)"a note", 6));
    buf_init(&b, KIB(1));
    EXPECT_OK(file_read_all(path, &b));
    EXPECT_EQ(b.len, 48 + 6 + 8);
    uint8_t copy[64];
    for (size_t n = 0; n < b.len; n++) /* cut */
        expect_word(path, b.data, n, ERR_CORRUPT);
    for (size_t bit = 0; bit < b.len * 8; bit++) { /* one bit is wrong */
        memcpy(copy, b.data, b.len);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        expect_word(path, copy, b.len, ERR_CORRUPT);
    }
    static const struct {
        size_t at;
        uint32_t value;
        enum err code;
    } wrong[] = {
        {8, 2, ERR_FORMAT},       {12, 513, ERR_FORMAT}, {12, 0, ERR_FORMAT},
        {12, 131072, ERR_FORMAT}, {40, 0, ERR_FORMAT},   {40, UINT32_MAX, ERR_FORMAT},
        {44, 5, ERR_CORRUPT},     {44, 7, ERR_CORRUPT},  {44, UINT32_MAX, ERR_CORRUPT},
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) { /* with a right checksum */
        memcpy(copy, b.data, b.len);
        set_le32(copy + wrong[i].at, wrong[i].value);
        seal_word(copy, b.len);
        expect_word(path, copy, b.len, wrong[i].code);
    }
    uint8_t *big = mem_zalloc(REPL_FETCH_NOTE_MAX * 2);
    expect_word(path, big, REPL_FETCH_NOTE_MAX * 2, ERR_CORRUPT);
    free(big);
    buf_fini(&b);
}

/* --- the disk, and others at it --------------------------------------------------------------- */

static void spoil(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    EXPECT(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    EXPECT(pwrite(fd, &byte, 1, at) == 1 && close(fd) == 0);
}

/* What the disk gives back is not what was written: that page is fetched again; not for ever. */
TEST(fetch_reads_back_what_it_wrote)
{
    struct replica_leader l;
    struct repl_image_head head;
    replica_become_owner();
    struct repl_db *db = open_source("s", 1024, 40, &l);
    make_node("d");
    const char *path = file_of("d", "main.db"), *fetched = file_of("d", "main.db.fetch");
    struct repl_image *image = fetching_image(db, &head);
    struct repl_fetch *f = fetching_open(path, 1024);
    EXPECT_EQ(fetching_last_round(db, f, image, &head, NULL, NULL), head.pages);
    spoil(fetched, 7 * 1024 + 100);
    EXPECT_ERR(ERR_DIVERGED, complete(f, &head));
    EXPECT_EQ(look_only("d"), REPL_FETCH_BEGUN);
    EXPECT(!there("d", "main.db.fetched"));
    EXPECT_EQ(fetching_last_round(db, f, image, &head, NULL, NULL), 1);
    spoil(fetched, 9 * 1024 + 100);
    EXPECT_ERR(ERR_CORRUPT, complete(f, &head));
    EXPECT(strstr(err_text(), "disk") != NULL);
    EXPECT_EQ(fetching_last_round(db, f, image, &head, NULL, NULL), 1);
    EXPECT_OK(complete(f, &head));
    fetching_close(image);
    repl_fetch_close(f);
    EXPECT_OK(repl_fetch_install(path));
    close_source(db, &l);
}

/* Sectors that cannot be read: those pages are fetched, the others are made use of. */
TEST(fetch_writes_over_bad_sectors)
{
    struct replica_leader l;
    struct repl_image_head head;
    replica_become_owner();
    struct repl_db *db = open_source("s", 1024, 60, &l);
    make_node("d");
    fetch_and_install(db, "d");
    const char *path = file_of("d", "main.db");
    disk_spoil("/main.db.fetch", 5 * 1024 + 512, 1024); /* pages 6 and 7 */
    struct repl_fetch *f = fetching_open(path, 1024);
    struct repl_image *image = fetching_image(db, &head);
    EXPECT(repl_fetch_checksum(f, head.pages) != head.checksum);
    EXPECT_EQ(fetching_last_round(db, f, image, &head, NULL, NULL), 2);
    disk_spoil("/main.db.fetch", 9 * 1024, 512); /* another one, when it is read back */
    EXPECT_ERR(ERR_DIVERGED, complete(f, &head));
    EXPECT_EQ(fetching_last_round(db, f, image, &head, NULL, NULL), 1);
    EXPECT_OK(complete(f, &head));
    fetching_close(image);
    repl_fetch_close(f);
    EXPECT_OK(repl_fetch_install(path));
    fetch_and_install(db, "d");
    close_source(db, &l);
}

static bool at_most(void *ctx, uint32_t done, uint32_t total)
{
    unsigned *left = ctx;
    EXPECT(done > 0 && done <= total);
    return (*left)-- > 0;
}

TEST(fetch_is_cancelled_and_goes_on)
{
    struct replica_leader l;
    struct repl_image_head head;
    struct repl_fetch *f;
    unsigned left = 100;
    replica_become_owner();
    disk_skip_syncs();
    struct repl_db *db = open_source("s", 4096, 1500, &l);
    make_node("d");
    fetch_and_install(db, "d");
    const char *path = file_of("d", "main.db");
    left = 1;
    EXPECT_ERR(ERR_CANCELLED, repl_fetch_open(path, REPLICA_DATABASE_ID, 4096, at_most, &left, &f));
    EXPECT(f == NULL);
    EXPECT_EQ(look_only("d"), REPL_FETCH_BEGUN);
    left = 100;
    EXPECT_OK(repl_fetch_open(path, REPLICA_DATABASE_ID, 4096, at_most, &left, &f));
    struct repl_image *image = fetching_image(db, &head);
    EXPECT(head.pages > 512); /* several reads */
    EXPECT_EQ(fetching_last_round(db, f, image, &head, NULL, NULL), 0);
    fetching_close(image);
    left = 1;
    EXPECT_ERR(ERR_CANCELLED, complete(f, &head));
    EXPECT_EQ(look_only("d"), REPL_FETCH_BEGUN);
    left = 100;
    EXPECT_OK(complete(f, &head));
    repl_fetch_close(f);
    EXPECT_EQ(look_only("d"), REPL_FETCH_COMPLETE);
    close_source(db, &l);
}

/* Another process with a read transaction on a database, told to end by a byte. */
struct other {
    pid_t pid;
    int go;
};

static struct other other_reads(const char *path, const char *sql)
{
    int ready[2], go[2];
    char byte = 0;
    EXPECT(pipe(ready) == 0 && pipe(go) == 0);
    pid_t pid = fork();
    EXPECT(pid >= 0);
    if (pid == 0) {
        sqlite3 *c;
        if (sqlite3_open_v2(path, &c, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK ||
            sqlite3_exec(c, sql, NULL, NULL, NULL) != SQLITE_OK)
            _exit(1);
        (void)!write(ready[1], &byte, 1);
        (void)!read(go[0], &byte, 1);
        /* integrity_check fails the statement only when it cannot read */
        sqlite3_stmt *s = NULL;
        if (sqlite3_prepare_v2(c, "PRAGMA integrity_check", -1, &s, NULL) != SQLITE_OK ||
            sqlite3_step(s) != SQLITE_ROW ||
            strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
            _exit(2);
        _exit(0);
    }
    EXPECT(close(ready[1]) == 0 && read(ready[0], &byte, 1) == 1 && close(ready[0]) == 0);
    EXPECT(close(go[0]) == 0);
    return (struct other){pid, go[1]};
}

static void other_ends(struct other o)
{
    int status;
    EXPECT(write(o.go, "", 1) == 1 && close(o.go) == 0);
    EXPECT(waitpid(o.pid, &status, 0) == o.pid);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Somebody's shell has main.db open: it keeps a sound database; ours begins empty. */
TEST(fetch_leaves_other_processes_their_pages)
{
    struct replica_leader l;
    replica_become_owner();
    struct repl_db *old = open_source("d", 1024, 100, &l);
    close_source(old, &l);
    struct repl_db *db = open_source("s", 1024, 90, &l);
    struct other o =
        other_reads(file_of("d", "main.db"), "BEGIN; SELECT count(*) FROM sqlite_schema");
    struct repl_fetch *f = fetching_open(file_of("d", "main.db"), 1024);
    EXPECT_EQ(look_only("d"), REPL_FETCH_BEGUN);
    EXPECT_EQ(fetching_round(db, f, NULL, NULL), db->pages);
    other_ends(o);
    repl_fetch_close(f);
    fetch_and_install(db, "d");
    close_source(db, &l);
}

/* Nobody's SQLite reads what is not whole. */
TEST(fetch_keeps_other_processes_out)
{
    struct replica_leader l;
    replica_become_owner();
    struct repl_db *db = open_source("s", 1024, 90, &l);
    make_node("d");
    fetch_and_install(db, "d"); /* main.db.fetch will look like a database */
    struct repl_fetch *f = fetching_open(file_of("d", "main.db"), 1024);
    const char *fetched = file_of("d", "main.db.fetch");
    sqlite3 *c;
    EXPECT(sqlite3_open_v2(fetched, &c, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(c, "SELECT count(*) FROM t", NULL, NULL, NULL), SQLITE_BUSY);
    EXPECT(sqlite3_close(c) == SQLITE_OK);
    struct repl_fetch *second;
    EXPECT_ERR(ERR_LOCKED, repl_fetch_open(file_of("d", "main.db"), REPLICA_DATABASE_ID, 1024, NULL,
                                           NULL, &second));
    repl_fetch_close(f);
    struct other o = other_reads(fetched, "SELECT count(*) FROM t");
    EXPECT_ERR(ERR_LOCKED, repl_fetch_open(file_of("d", "main.db"), REPLICA_DATABASE_ID, 1024, NULL,
                                           NULL, &second));
    other_ends(o);
    EXPECT(unlink(file_of("d", "main.db.fetch-wal")) == 0 || errno == ENOENT);
    EXPECT(unlink(file_of("d", "main.db.fetch-shm")) == 0 || errno == ENOENT);
    fetch_and_install(db, "d");
    close_source(db, &l);
}

/* Somebody was at the files between COMPLETE and the installation. */
TEST(fetch_installs_only_what_was_completed)
{
    struct replica_leader l;
    struct repl_image_head head;
    replica_become_owner();
    disk_skip_syncs();
    struct repl_db *db = open_source("s", 1024, 20, &l);
    make_node("d");
    const char *path = file_of("d", "main.db"), *fetched = file_of("d", "main.db.fetch");
    struct repl_image *image = fetching_image(db, &head);
    struct repl_fetch *f = fetching_open(path, 1024);
    (void)fetching_last_round(db, f, image, &head, NULL, NULL);
    fetching_close(image);
    EXPECT_OK(complete(f, &head));
    repl_fetch_close(f);

    EXPECT(truncate(fetched, (off_t)(head.pages - 1) * 1024) == 0);
    EXPECT_ERR(ERR_CORRUPT, repl_fetch_install(path));
    EXPECT(truncate(fetched, (off_t)head.pages * 1024) == 0);
    stock_write(path, (const uint8_t *)"?", 1);
    EXPECT_EQ(look_only("d"), REPL_FETCH_COMPLETE);
    EXPECT_ERR(ERR_CORRUPT, repl_fetch_install(path));
    EXPECT(unlink(path) == 0);
    EXPECT(rename(fetched, test_path("d/away")) == 0);
    uint8_t note[16];
    size_t n;
    enum repl_fetch_state state;
    EXPECT_ERR(ERR_CORRUPT, repl_fetch_look(path, &state, &head, note, &n));
    EXPECT_ERR(ERR_CORRUPT, repl_fetch_install(path));
    EXPECT(rename(test_path("d/away"), fetched) == 0);
    EXPECT_EQ(look_only("d"), REPL_FETCH_COMPLETE);

    spoil(file_of("d", "main.db.fetched"), 30); /* does not count: once more, from what is there */
    EXPECT_EQ(look_only("d"), REPL_FETCH_BEGUN);
    EXPECT_ERR(ERR_CORRUPT, repl_fetch_install(path));
    f = fetching_open(path, 1024);
    EXPECT_EQ(look_only("d"), REPL_FETCH_BEGUN);
    EXPECT(!there("d", "main.db.fetched"));
    EXPECT(fetching_round(db, f, NULL, NULL) <= 1);
    repl_fetch_close(f);
    fetch_and_install(db, "d");
    close_source(db, &l);
}

/* The stored database is of no use at all: cut, overwritten, not even a database. */
TEST(fetch_over_any_damage)
{
    struct replica_leader l;
    struct rng rng = {test_seed()};
    replica_become_owner();
    disk_skip_syncs();
    struct repl_db *db = open_source("s", 512, 50, &l);
    make_node("d");
    fetch_and_install(db, "d");
    for (uint64_t i = test_rounds(40); i > 0; i--) {
        const char *path = file_of("d", "main.db");
        struct stat st;
        EXPECT(stat(path, &st) == 0);
        for (uint64_t k = rng_below(&rng, 5); k > 0; k--)
            spoil(path, (off_t)rng_below(&rng, (uint64_t)st.st_size));
        if (rng_once_in(&rng, 2))
            EXPECT(truncate(path, (off_t)rng_below(&rng, (uint64_t)st.st_size * 2)) == 0);
        fetch_and_install(db, "d");
    }
    close_source(db, &l);
}
