/* Room: tests. Images: the pages that were published when they were opened, whatever happens to the
 * database, its WAL and its checkpoints meanwhile. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/disk.h"
#include "tests/unit/replication/fetch_stage.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The image as it is now: every page that the owner can read. */
static void expect_published(struct repl_db *db, struct repl_image *image,
                             const struct repl_image_head *head) ON_OWNER
{
    uint8_t *pages = fetching_read_all(image, head), *page = mem_alloc(head->page_size);
    EXPECT_EQ(head->pages, db->pages);
    for (uint32_t i = 1; i <= head->pages; i++) {
        EXPECT_OK(database_read_page(db, i, page));
        EXPECT(memcmp(page, pages + (size_t)(i - 1) * head->page_size, head->page_size) == 0);
    }
    free(page);
    free(pages);
}

static void expect_image_now(struct repl_db *db) ON_OWNER
{
    struct repl_image_head head;
    struct repl_image *image = fetching_image(db, &head);
    expect_published(db, image, &head);
    fetching_close(image);
}

/* Copies all that is published, and waits for it. When the view's next write begins the WAL anew
 * all is copied, and the marks are its. */
static void checkpoint_now(struct repl_db *db) ON_OWNER
{
    if (!db->holds_readers)
        EXPECT_OK(checkpoint_all(db));
}

static void fill(struct replica_leader *l, unsigned rows) ON_OWNER
{
    replica_write(l, NULL,
                  "CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, b BLOB);"
                  "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %u)"
                  "INSERT INTO t(b) SELECT randomblob(700) FROM n",
                  rows);
}

TEST(image_is_the_published_state_wherever_its_pages_are)
{
    struct replica_leader l;
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    expect_image_now(db); /* no WAL: the genesis */
    replica_lead(&l, db);
    fill(&l, 40);
    expect_image_now(db); /* all in the WAL, but what was there before */
    checkpoint_now(db);
    expect_image_now(db); /* all in the file */
    fill(&l, 3);
    replica_write(&l, NULL, "UPDATE t SET b = randomblob(600) WHERE k %% 7 = 0");
    expect_image_now(db); /* here and there */
    replica_write(&l, NULL, "DELETE FROM t WHERE k > 5");
    stock_exec(l.conn, "VACUUM");
    struct repl_txn *t;
    EXPECT_OK(repl_view_seal(l.view, 1, NULL, 0, &t));
    EXPECT_OK(repl_db_publish(db, t));
    expect_image_now(db);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
}

TEST(image_refuses_pages_that_it_does_not_have)
{
    struct replica_leader l;
    struct repl_image_head head;
    uint8_t page[1024];
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    replica_lead(&l, db);
    fill(&l, 10);
    struct repl_image *image = fetching_image(db, &head);
    fill(&l, 10);
    EXPECT(db->pages > head.pages);
    EXPECT_OK(fetching_read(image, head.pages, page));
    EXPECT_ERR(ERR_NOT_FOUND, fetching_read(image, head.pages + 1, page));
    EXPECT_ERR(ERR_NOT_FOUND, fetching_read(image, 0, page));
    EXPECT_ERR(ERR_NOT_FOUND, fetching_read(image, UINT32_MAX, page));
    EXPECT_OK(fetching_read(image, 1, page));
    fetching_close(image);
    uint64_t hashes[3];
    repl_db_hashes(db, db->pages, 3, hashes);
    EXPECT(hashes[0] != 0 && hashes[1] == 0 && hashes[2] == 0);
    repl_db_hashes(db, UINT32_MAX - 1, 3, hashes);
    EXPECT(hashes[0] == 0 && hashes[1] == 0 && hashes[2] == 0);
    repl_db_hashes(db, 0, 2, hashes);
    EXPECT(hashes[0] == 0 && hashes[1] == digest_get(db->digest, 1));
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
}

static void write_something(struct replica_leader *l, struct rng *rng) ON_OWNER
{
    unsigned n = (unsigned)rng_below(rng, 1000);
    switch (rng_below(rng, 12)) {
    case 0:
        replica_write(l, NULL, "DELETE FROM t WHERE k %% 3 = %u; INSERT INTO t VALUES(NULL, 'x')",
                      n % 3);
        break;
    case 1: { /* VACUUM cuts the file */
        struct repl_txn *t;
        stock_exec(l->conn, "VACUUM");
        EXPECT_OK(repl_view_seal(l->view, 1, NULL, 0, &t));
        if (t != NULL)
            EXPECT_OK(repl_db_publish(l->db, t));
        break;
    }
    case 2:
        fill(l, 1 + n % 60);
        break;
    default:
        replica_write(l, NULL,
                      "UPDATE t SET b = randomblob(%u) WHERE k = (SELECT max(k) FROM t) - %u;"
                      "INSERT INTO t VALUES(NULL, randomblob(%u))",
                      n, n % 5, n);
    }
}

/* One at a time, pages read in a random order between writes, checkpoints and restarts. */
TEST(image_stays_what_it_was_while_the_database_goes_on)
{
    struct replica_leader l;
    struct rng rng = {test_seed()};
    unsigned from_wal = 0, from_file = 0;
    replica_become_owner();
    disk_skip_syncs();
    struct repl_db *db = replica_open("a");
    replica_lead(&l, db);
    fill(&l, 50);
    for (uint64_t round = test_rounds(60); round > 0; round--) {
        struct repl_image_head head;
        if (rng_once_in(&rng, 3))
            checkpoint_now(db);
        else if (rng_once_in(&rng, 2))
            replica_upkeep(db); /* perhaps one runs just now */
        struct repl_image *image = fetching_image(db, &head);
        uint8_t *then = fetching_read_all(image, &head), *page = mem_alloc(head.page_size);
        uint64_t restarts = db->stat_restarts;
        for (uint64_t i = rng_below(&rng, 80); i > 0; i--) {
            bool wants_quiet;
            write_something(&l, &rng);
            EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
            for (unsigned k = 0; k < 5; k++) {
                uint32_t n = 1 + (uint32_t)rng_below(&rng, head.pages);
                EXPECT_OK(fetching_read(image, n, page));
                EXPECT(memcmp(page, then + (size_t)(n - 1) * head.page_size, head.page_size) == 0);
            }
        }
        free(fetching_read_all(image, &head));
        if (db->stat_restarts > restarts)
            from_file++; /* the WAL was begun anew under it */
        else
            from_wal++;
        fetching_close(image);
        free(then);
        free(page);
    }
    (void)printf("%u with a restart, %u without\n", from_file, from_wal);
    EXPECT(from_wal > 0);
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

/* All is copied: the image reads the file only, and the WAL is begun anew under it. */
TEST(image_of_a_copied_database_does_not_look_at_the_wal)
{
    struct replica_leader l;
    struct repl_image_head head;
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    replica_lead(&l, db);
    while (db->frames * 1048ull < db->config.wal_restart_bytes)
        fill(&l, 20);
    checkpoint_now(db);
    struct repl_image *image = fetching_image(db, &head);
    uint8_t *then = fetching_read_all(image, &head), *again;
    uint64_t restarts = db->stat_restarts;
    for (unsigned i = 0; i < 50; i++) {
        replica_upkeep(db);
        replica_write(&l, NULL, "UPDATE t SET b = randomblob(700) WHERE k %% 11 = %u", i % 11);
    }
    EXPECT(db->stat_restarts > restarts);
    again = fetching_read_all(image, &head);
    EXPECT(memcmp(then, again, (size_t)head.pages * head.page_size) == 0);
    free(then);
    free(again);
    fetching_close(image);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
}

/* The pin is taken while a checkpoint finishes, again and again; then it is seen who gave way. */
TEST(image_opened_beside_a_finishing_checkpoint)
{
    struct replica_leader l;
    struct rng rng = {test_seed()};
    replica_become_owner();
    disk_skip_syncs();
    struct repl_db *db = replica_open("a");
    replica_lead(&l, db);
    fill(&l, 30);
    db->config.wal_checkpoint_bytes = 1; /* each upkeep begins a checkpoint */
    db->config.wal_restart_bytes = MIB(64);
    for (uint64_t round = test_rounds(300); round > 0; round--) {
        struct repl_image_head head;
        bool wants_quiet;
        struct timespec pause = {.tv_nsec = (long)rng_below(&rng, 400000)};
        replica_write(&l, NULL, "UPDATE t SET b = randomblob(700) WHERE k %% 13 = %u",
                      (unsigned)rng_below(&rng, 13));
        EXPECT_OK(repl_db_upkeep(db, false, &wants_quiet));
        (void)nanosleep(&pause, NULL);
        struct repl_image *image = fetching_image(db, &head);
        replica_write(&l, NULL, "UPDATE t SET b = randomblob(700) WHERE k %% 3 = %u",
                      (unsigned)rng_below(&rng, 3));
        EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
        free(fetching_read_all(image, &head));
        fetching_close(image);
    }
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
}

/* --- damage ----------------------------------------------------------------------------------- */

/* In a process of its own: closing a descriptor of the file here would drop SQLite's locks. */
static void flip_bit(const char *path, off_t at)
{
    (void)fflush(stdout);
    pid_t pid = fork();
    EXPECT(pid >= 0);
    if (pid == 0) {
        uint8_t byte;
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 || pread(fd, &byte, 1, at) != 1)
            _exit(1);
        byte ^= 0x20;
        _exit(pwrite(fd, &byte, 1, at) == 1 ? 0 : 1);
    }
    int status;
    EXPECT(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct told {
    unsigned times;
    char sentence[ERR_TEXT_MAX];
};

static void tell(void *ctx, const char *sentence)
{
    struct told *t = ctx;
    t->times++;
    (void)snprintf(t->sentence, sizeof t->sentence, "%s", sentence);
}

static void expect_damage(struct repl_image *image, const struct repl_image_head *head,
                          uint32_t page_no, const char *where)
{
    uint8_t page[1024];
    for (uint32_t i = 1; i <= head->pages; i++)
        if (i != page_no)
            EXPECT_OK(fetching_read(image, i, page));
    EXPECT_ERR(ERR_CORRUPT, fetching_read(image, page_no, page));
    EXPECT(strstr(err_text(), where) != NULL);
}

/* One bit, in the database file or in the WAL: an error, never a page. */
TEST(image_with_a_flipped_bit_is_an_error)
{
    struct replica_leader l;
    struct told told = {0};
    struct repl_image_head head;
    replica_become_owner();
    struct repl_config c = replica_config("a");
    c.on_damage = tell;
    c.ctx = &told;
    struct repl_db *db;
    EXPECT_OK(repl_db_open(&c, &db));
    replica_lead(&l, db);
    fill(&l, 40);
    checkpoint_now(db);
    uint32_t page_no = db->pages / 2, frame;
    flip_bit(c.path, (off_t)(page_no - 1) * 1024 + 99);
    struct repl_image *image = fetching_image(db, &head); /* reads the file only */
    expect_damage(image, &head, page_no, "main.db");
    EXPECT(told.times > 0 && strstr(told.sentence, "main.db") != NULL);
    fetching_close(image);
    flip_bit(c.path, (off_t)(page_no - 1) * 1024 + 99);

    uint32_t copied = db->frames;
    replica_write(&l, NULL, "UPDATE t SET b = randomblob(700) WHERE k = 20");
    image = fetching_image(db, &head); /* of the WAL and the file */
    for (page_no = 2, frame = 0; page_no <= db->pages && frame <= copied; page_no++)
        EXPECT_OK(wal_index_find(db->index, page_no, db->frames, &frame));
    EXPECT(frame > copied);
    char *wal = mem_printf("%s-wal", c.path);
    flip_bit(wal, (off_t)wal_frame_offset(frame, 1024) + WAL_FRAME_HEADER_BYTES + 1000);
    expect_damage(image, &head, page_no - 1, "main.db-wal");
    fetching_close(image);
    free(wal);
    replica_unlead(&l);
    EXPECT_ERR(ERR_CORRUPT, repl_db_close(db)); /* nor is the frame copied */
}

/* --- on another thread ------------------------------------------------------------------------ */

struct handed {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct repl_image *image;
    struct repl_image_head head;
    bool quit;
    unsigned read;
};

static void *read_main(void *arg)
{
    struct handed *h = arg;
    thread_become(THREAD_READER);
    thread_expect_reader();
    for (;;) {
        (void)pthread_mutex_lock(&h->lock);
        while (h->image == NULL && !h->quit)
            (void)pthread_cond_wait(&h->changed, &h->lock);
        struct repl_image *image = h->image;
        struct repl_image_head head = h->head;
        (void)pthread_mutex_unlock(&h->lock);
        if (image == NULL)
            return NULL;
        uint8_t *page = mem_alloc(head.page_size);
        uint64_t checksum = 0;
        for (uint32_t i = 1; i <= head.pages; i++) {
            EXPECT_OK(repl_image_read(image, &i, 1, page));
            checksum ^= digest_page_hash(i, page, head.page_size);
        }
        EXPECT_EQ(checksum, head.checksum);
        free(page);
        repl_image_close(image);
        (void)pthread_mutex_lock(&h->lock);
        h->image = NULL;
        h->read++;
        (void)pthread_cond_signal(&h->changed);
        (void)pthread_mutex_unlock(&h->lock);
    }
}

TEST(image_is_read_on_another_thread_beside_publications)
{
    struct replica_leader l;
    struct rng rng = {test_seed()};
    struct handed h = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t reader;
    unsigned writes = 0;
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    replica_lead(&l, db);
    fill(&l, 200);
    EXPECT_OK(thread_start(&reader, "reader", read_main, &h));
    for (uint64_t until = clock_mono_ms() + 700; clock_mono_ms() < until; writes++) {
        bool wants_quiet;
        (void)pthread_mutex_lock(&h.lock);
        bool idle = h.image == NULL;
        (void)pthread_mutex_unlock(&h.lock);
        if (idle) {
            struct repl_image_head head;
            struct repl_image *image = fetching_image(db, &head);
            (void)pthread_mutex_lock(&h.lock);
            h.image = image;
            h.head = head;
            (void)pthread_cond_signal(&h.changed);
            (void)pthread_mutex_unlock(&h.lock);
        }
        write_something(&l, &rng);
        EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
    }
    (void)pthread_mutex_lock(&h.lock);
    while (h.image != NULL)
        (void)pthread_cond_wait(&h.changed, &h.lock);
    h.quit = true;
    (void)pthread_cond_signal(&h.changed);
    (void)pthread_mutex_unlock(&h.lock);
    EXPECT(pthread_join(reader, NULL) == 0);
    (void)printf("%u images, %u writes, %llu restarts\n", h.read, writes,
                 (unsigned long long)db->stat_restarts);
    EXPECT(h.read > 3);
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}
