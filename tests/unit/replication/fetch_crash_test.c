/* Room: tests. A fetch that is killed, or loses power, or meets a failing disk at any of its
 * writes, syncs, renames, removals and cuts: what is left is one of the states of repl_fetch_state,
 * what is called main.db is the old database or the whole new one, and going on ends with the new
 * one. */
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/disk.h"
#include "tests/unit/replication/fetch_stage.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIVES_MAX 2 /* deaths, one after the other, before what is left is looked at */
#define AT_ONCE   16u

/* The node's old files, as a crash left them: with transactions in the WAL. */
static const char *const old_files[] = {"main.db", "main.db-wal", "position", "hashes"};
#define OLD_FILES (sizeof old_files / sizeof old_files[0])

struct scene {
    struct repl_image_head head;
    uint8_t *pages; /* of the image */
    uint64_t *hashes;
    struct buf old[OLD_FILES]; /* empty: no such file */
    struct repl_position old_position;
    bool no_old; /* the node is new */
    struct rng rng;
    _Atomic long *calls;
};

static const char *path_of(const char *file)
{
    char *name = mem_printf("x/%s", file);
    const char *path = test_path(name);
    free(name);
    return path;
}

static const char *db_path(void)
{
    return path_of("main.db");
}

static bool there(const char *file)
{
    struct stat st;
    return stat(path_of(file), &st) == 0;
}

/* --- the scene -------------------------------------------------------------------------------- */

static void write_rows(struct replica_leader *l, unsigned rows, unsigned bytes) ON_OWNER
{
    replica_write(l, NULL,
                  "CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, b BLOB);"
                  "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %u)"
                  "INSERT INTO t(b) SELECT randomblob(%u) FROM n",
                  rows, bytes);
}

static void make_old(struct scene *s) ON_OWNER
{
    struct replica_leader l;
    struct repl_db *db = replica_open("old");
    replica_lead(&l, db);
    write_rows(&l, 60, 300);
    EXPECT_OK(checkpoint_all(db));
    replica_write(&l, NULL, "UPDATE t SET b = randomblob(290) WHERE k %% 9 = 0");
    s->old_position = repl_db_position(db);
    replica_unlead(&l);
    database_free(db);
    for (unsigned i = 0; i < OLD_FILES; i++) {
        char *name = mem_printf("old/%s", old_files[i]);
        buf_init(&s->old[i], MIB(4));
        enum err e = file_read_all(test_path(name), &s->old[i]);
        EXPECT(e == ERR_OK || e == ERR_NOT_FOUND);
        free(name);
    }
    EXPECT(s->old[0].len > 0 && s->old[1].len > 0 && s->old[2].len > 0);
}

static void make_scene(struct scene *s) ON_OWNER
{
    struct replica_leader l;
    *s = (struct scene){.rng = {test_seed()}};
    s->calls =
        mmap(NULL, sizeof *s->calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(s->calls != MAP_FAILED);
    EXPECT_OK(file_make_dirs(test_path("x")));
    make_old(s);
    struct repl_db *db = replica_open("source");
    replica_lead(&l, db);
    write_rows(&l, 45, 400);
    write_rows(&l, 5, 40);
    struct repl_image *image = fetching_image(db, &s->head);
    s->pages = fetching_read_all(image, &s->head);
    fetching_close(image);
    s->hashes = mem_alloc(s->head.pages * sizeof *s->hashes);
    repl_db_hashes(db, 1, s->head.pages, s->hashes);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
    EXPECT(s->head.seq != s->old_position.seq || s->head.checksum != s->old_position.checksum);
}

static void end_scene(struct scene *s)
{
    EXPECT(munmap((void *)(uintptr_t)s->calls, sizeof *s->calls) == 0);
    for (unsigned i = 0; i < OLD_FILES; i++)
        buf_fini(&s->old[i]);
    free(s->pages);
    free(s->hashes);
}

static void empty_node(void)
{
    DIR *d = opendir(test_path("x"));
    EXPECT(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            EXPECT(unlink(path_of(e->d_name)) == 0);
    EXPECT(closedir(d) == 0);
}

static void set_up_node(const struct scene *s)
{
    empty_node();
    for (unsigned i = 0; i < OLD_FILES && !s->no_old; i++)
        if (s->old[i].len > 0)
            stock_write(path_of(old_files[i]), s->old[i].data, s->old[i].len);
}

/* --- the work --------------------------------------------------------------------------------- */

static const uint8_t *page_of(const struct scene *s, uint32_t page_no)
{
    return s->pages + (size_t)(page_no - 1) * s->head.page_size;
}

static enum err fetch_pages(const struct scene *s, struct repl_fetch *f)
{
    for (uint32_t first = 1; first <= s->head.pages; first += AT_ONCE) {
        uint32_t page_nos[AT_ONCE], left = s->head.pages - first + 1;
        unsigned n = repl_fetch_differ(f, first, left < AT_ONCE ? left : AT_ONCE,
                                       s->hashes + first - 1, page_nos);
        for (unsigned i = 0; i < n; i++)
            TRY(repl_fetch_write(f, page_nos[i], page_of(s, page_nos[i])));
    }
    return ERR_OK;
}

static const uint8_t a_note[5000] = {1, 2, 3};

/* From whatever there is to the installed database, as a node does it. */
static enum err fetch_all(const struct scene *s)
{
    static uint8_t note[REPL_FETCH_NOTE_MAX];
    enum repl_fetch_state state;
    struct repl_image_head head;
    struct repl_fetch *f;
    size_t n;
    TRY(repl_fetch_look(db_path(), &state, &head, note, &n));
    if (state != REPL_FETCH_COMPLETE) {
        TRY(repl_fetch_open(db_path(), REPLICA_DATABASE_ID, s->head.page_size, NULL, NULL, &f));
        enum err e = fetch_pages(s, f);
        if (e == ERR_OK)
            e = repl_fetch_complete(f, &s->head, a_note, sizeof a_note);
        repl_fetch_close(f);
        TRY(e);
    }
    return repl_fetch_install(db_path());
}

/* --- what must be true ------------------------------------------------------------------------ */

static void expect_new_pages(const struct scene *s, const char *file)
{
    fetching_expect_file(path_of(file), s->pages, (size_t)s->head.pages * s->head.page_size);
}

static bool same_position(struct repl_position a, struct repl_position b)
{
    return a.seq == b.seq && a.checksum == b.checksum;
}

/* main.db is a whole database, the old one or the new. */
static void expect_whole(const struct scene *s) ON_OWNER
{
    struct repl_config c = replica_config("x");
    struct repl_db *db;
    EXPECT_OK(repl_db_open(&c, &db));
    EXPECT(repl_db_position_known(db));
    struct repl_position p = repl_db_position(db), new = {s->head.seq, s->head.checksum};
    EXPECT(same_position(p, new) || (!s->no_old && same_position(p, s->old_position)));
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

static enum repl_fetch_state expect_state(const struct scene *s) ON_OWNER
{
    static uint8_t note[REPL_FETCH_NOTE_MAX];
    enum repl_fetch_state state;
    struct repl_image_head head;
    size_t n;
    EXPECT_OK(repl_fetch_look(db_path(), &state, &head, note, &n));
    if (state == REPL_FETCH_NONE && (there("main.db") || !s->no_old)) {
        expect_whole(s);
    } else if (state == REPL_FETCH_BEGUN) {
        EXPECT(!there("main.db"));
    } else if (state == REPL_FETCH_COMPLETE) {
        EXPECT(n == sizeof a_note && memcmp(note, a_note, n) == 0);
        EXPECT(head.seq == s->head.seq && head.checksum == s->head.checksum);
        EXPECT(there("main.db") != there("main.db.fetch"));
        expect_new_pages(s, there("main.db") ? "main.db" : "main.db.fetch");
    }
    return state;
}

static void expect_installed(const struct scene *s) ON_OWNER
{
    expect_new_pages(s, "main.db");
    EXPECT(there("hashes") && there("position"));
    EXPECT(!there("main.db-wal") && !there("main.db.fetch") && !there("main.db.fetched"));
    EXPECT_EQ(expect_state(s), REPL_FETCH_NONE); /* opens it */
    sqlite3 *stock = stock_open(db_path(), 0);
    stock_expect_intact(stock);
    EXPECT_EQ(stock_int(stock, "SELECT count(*) FROM t"), 50);
    stock_close(stock);
}

/* --- deaths ----------------------------------------------------------------------------------- */

static void run_child(struct scene *s, enum disk_end end, long n) ON_OWNER
{
    uint64_t seed = rng_u64(&s->rng);
    (void)fflush(stdout);
    pid_t pid = fork();
    EXPECT(pid >= 0);
    if (pid == 0) {
        disk_arm(end, n, seed, s->calls);
        enum err e = fetch_all(s);
        disk_disarm();
        if (e != ERR_OK)
            (void)fprintf(stderr, "%s: %s\n", err_name((int)e), err_text());
        _exit(e == ERR_OK ? 0 : 1);
    }
    int status;
    EXPECT(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != DISK_DIED))
        test_fail(__FILE__, __LINE__, "the child at call %ld ended with status %#x", n, status);
}

static long count_calls(struct scene *s) ON_OWNER
{
    set_up_node(s);
    atomic_store(s->calls, 0);
    run_child(s, DISK_KILL, 1L << 40);
    expect_installed(s);
    return atomic_load(s->calls);
}

static void death_trials(bool no_old, enum disk_end end) ON_OWNER
{
    struct scene s;
    unsigned seen[3] = {0};
    make_scene(&s);
    s.no_old = no_old;
    long calls = count_calls(&s);
    const long step = calls / (long)test_rounds(500) + 1; /* all of them, but under a sanitizer */
    for (uint64_t rounds = (test_rounds(10) + 9) / 10; rounds > 0; rounds--)
        for (long n = 1 + (long)rng_below(&s.rng, (uint64_t)step); n <= calls; n += step) {
            set_up_node(&s);
            for (uint64_t lives = rng_below(&s.rng, LIVES_MAX) + 1, at = (uint64_t)n; lives > 0;
                 lives--, at = 1 + rng_below(&s.rng, (uint64_t)calls)) {
                run_child(&s, end, (long)at);
                seen[expect_state(&s)]++;
            }
            EXPECT_OK(fetch_all(&s));
            expect_installed(&s);
        }
    (void)printf("%ld calls; none %u, begun %u, complete %u\n", calls, seen[0], seen[1], seen[2]);
    EXPECT(seen[REPL_FETCH_NONE] > 0 && seen[REPL_FETCH_BEGUN] > 0 &&
           seen[REPL_FETCH_COMPLETE] > 0);
    end_scene(&s);
}

TEST(fetch_crash_kills_anywhere)
{
    replica_become_owner();
    disk_skip_syncs();
    death_trials(false, DISK_KILL);
}

TEST(fetch_crash_cuts_the_power_anywhere)
{
    replica_become_owner();
    disk_skip_syncs();
    death_trials(false, DISK_POWER);
}

TEST(fetch_crash_cuts_a_new_nodes_power_anywhere)
{
    replica_become_owner();
    disk_skip_syncs();
    death_trials(true, DISK_POWER);
}

/* --- a disk that fails ------------------------------------------------------------------------ */

/* The node gives up with a sentence; with a good disk it goes on. */
TEST(fetch_crash_disk_fails_anywhere)
{
    struct scene s;
    replica_become_owner();
    disk_skip_syncs();
    make_scene(&s);
    long calls = count_calls(&s);
    const long step = calls / (long)test_rounds(500) + 1; /* all of them, but under a sanitizer */
    for (uint64_t rounds = (test_rounds(10) + 9) / 10; rounds > 0; rounds--)
        for (long n = 1 + (long)rng_below(&s.rng, (uint64_t)step); n <= calls; n += step) {
            set_up_node(&s);
            disk_arm(DISK_FAIL, n, rng_u64(&s.rng), s.calls);
            enum err e = fetch_all(&s);
            disk_disarm();
            if ((e != ERR_IO && e != ERR_FULL) || strlen(err_text()) < 20)
                test_fail(__FILE__, __LINE__, "call %ld failed, and the error is %s: %s", n,
                          err_name((int)e), err_text());
            (void)expect_state(&s);
            EXPECT_OK(fetch_all(&s));
            expect_installed(&s);
        }
    end_scene(&s);
}

/* The disk is full in the middle of the pages: the same fetch goes on when there is room. */
TEST(fetch_crash_full_disk_is_waited_for)
{
    struct scene s;
    replica_become_owner();
    disk_skip_syncs();
    make_scene(&s);
    long calls = count_calls(&s);
    const long step = calls / (long)test_rounds(500) + 1;
    for (long n = 1; n < calls; n += step) {
        struct repl_fetch *f;
        set_up_node(&s);
        EXPECT_OK(
            repl_fetch_open(db_path(), REPLICA_DATABASE_ID, s.head.page_size, NULL, NULL, &f));
        disk_arm(DISK_FULL, n, rng_u64(&s.rng), s.calls);
        enum err e = fetch_pages(&s, f);
        if (e == ERR_OK)
            e = repl_fetch_complete(f, &s.head, a_note, sizeof a_note);
        disk_disarm();
        if (e != ERR_OK) {
            EXPECT(e == ERR_FULL);
            /* COMPLETE: only the sync of the directory is missing; then it is whole. */
            EXPECT(expect_state(&s) != REPL_FETCH_NONE);
            EXPECT_OK(repl_fetch_write(f, 2, page_of(&s, 1)));
            EXPECT_EQ(expect_state(&s), REPL_FETCH_BEGUN);
            EXPECT_OK(fetch_pages(&s, f));
            EXPECT_OK(repl_fetch_complete(f, &s.head, a_note, sizeof a_note));
        }
        repl_fetch_close(f);
        EXPECT_EQ(expect_state(&s), REPL_FETCH_COMPLETE);
        EXPECT_OK(repl_fetch_install(db_path()));
        expect_installed(&s);
    }
    end_scene(&s);
}

/* --- giving it up ----------------------------------------------------------------------------- */

/* repl_fetch_drop, killed anywhere, from each state, and again: then there is nothing. */
TEST(fetch_crash_drop_leaves_nothing_or_can_be_repeated)
{
    struct scene s;
    replica_become_owner();
    disk_skip_syncs();
    make_scene(&s);
    for (unsigned from = 0; from < 3; from++)
        for (long n = 1; n < 40; n += test_rounds(10) < 10 ? 4 : 1) {
            struct repl_fetch *f;
            set_up_node(&s);
            if (from > 0) {
                EXPECT_OK(repl_fetch_open(db_path(), REPLICA_DATABASE_ID, s.head.page_size, NULL,
                                          NULL, &f));
                EXPECT_OK(fetch_pages(&s, f));
                if (from == 2)
                    EXPECT_OK(repl_fetch_complete(f, &s.head, a_note, sizeof a_note));
                repl_fetch_close(f);
            }
            uint64_t seed = rng_u64(&s.rng);
            (void)fflush(stdout);
            pid_t pid = fork();
            EXPECT(pid >= 0);
            if (pid == 0) {
                disk_arm(DISK_POWER, n, seed, s.calls);
                enum err e = repl_fetch_drop(db_path());
                disk_disarm();
                _exit(e == ERR_OK ? 0 : 1);
            }
            int status;
            EXPECT(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
            EXPECT(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == DISK_DIED);
            s.no_old = !there("main.db");
            EXPECT(!there("main.db") || from == 0);
            (void)expect_state(&s);
            s.no_old = false;
            EXPECT_OK(repl_fetch_drop(db_path()));
            EXPECT(!there("main.db") && !there("main.db-wal") && !there("position") &&
                   !there("hashes") && !there("main.db.fetch") && !there("main.db.fetched"));
            struct repl_config c = replica_config("x");
            struct repl_db *db;
            EXPECT_OK(repl_db_open(&c, &db));
            EXPECT_EQ(repl_db_position(db).seq, 0);
            EXPECT_OK(repl_db_close(db));
        }
    end_scene(&s);
}
