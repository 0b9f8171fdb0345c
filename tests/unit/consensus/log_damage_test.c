/* Room: tests. consensus/log: nothing damaged is believed, nothing acknowledged is lost when calls
 * fail. Crashes are in log_crash_test.c. */
#include "tests/unit/consensus/log_rig.h"

#include "base/file.h"
#include "base/mem.h"
#include "consensus/log_segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct model model;

/* --- damage ----------------------------------------------------------------------------------- */

/* A log of several segments, with a truncation in its past, cut at entry CUT unless that is 0,
 * closed well. */
static void make_log(const char *dir, uint64_t cut)
{
    struct rig r;
    unsigned sent = 0;
    model_init(&model);
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    rig_start(&r);
    for (unsigned batch = 0; batch < 40; batch++) {
        uint64_t from = model.n + 1;
        for (unsigned i = 0; i < 5; i++)
            model_put(&model, 1, 7000 + 10 * batch + i);
        rig_append(&r, &model, from, 5, &sent);
        if (batch == 20) {
            rig_submit(&r, (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = 60}, &sent);
            model.n = 59;
        }
        rig_wait(&r, sent);
    }
    if (cut > 0) {
        rig_cut(&r, &model, cut, 0, &sent);
        EXPECT(model.first > 1);
    }
    rig_close(&r);
}

TEST(log_never_believes_a_flipped_bit)
{
    const char *from = test_path("raft"), *dir = test_path("copy");
    char *names[64];
    struct rng rng = {test_seed()};
    unsigned refused = 0, harmless = 0;
    make_log(from, rng_once_in(&rng, 2) ? 70 : 0);
    unsigned n = rig_list_files(from, "", names, 64);
    for (uint64_t round = 0; round < test_rounds(600); round++) {
        const char *name = names[rng_below(&rng, n)];
        struct rig r;
        uint64_t size = 0;
        if (strcmp(name, "lock") == 0)
            continue;
        rig_copy_dir(from, dir);
        char *path = mem_printf("%s/%s", dir, name);
        int fd = open(path, O_RDONLY);
        EXPECT_OK(file_size(fd, path, &size));
        (void)close(fd);
        /* Often near the end of what is written, where torn ends are. */
        rig_flip(path, rng_below(&rng, size), (uint8_t)(1u << rng_below(&rng, 8)));
        enum err e = rig_try(&r, dir, 16384, NULL);
        thread_expect_loop();
        if (e == ERR_OK) {
            rig_expect(&r, &model); /* the bit was in unused space, or there is another copy */
            rig_close(&r);
            harmless++;
        } else {
            EXPECT(e == ERR_CORRUPT || e == ERR_FORMAT);
            EXPECT(strstr(err_text(), "raft") != NULL || strstr(err_text(), dir) != NULL);
            refused++;
        }
        free(path);
    }
    EXPECT(refused > 3 && harmless > 3);
    rig_free_names(names, n);
}

TEST(log_notices_a_missing_file)
{
    const char *from = test_path("raft"), *dir = test_path("copy");
    char *names[64];
    make_log(from, 70);
    unsigned n = rig_list_files(from, "", names, 64);
    EXPECT(n > 6);
    for (unsigned i = 0; i < n; i++) {
        struct rig r;
        if (strcmp(names[i], "lock") == 0)
            continue;
        rig_copy_dir(from, dir);
        char *path = mem_printf("%s/%s", dir, names[i]);
        EXPECT(unlink(path) == 0);
        EXPECT_ERR(ERR_CORRUPT, rig_try(&r, dir, 16384, NULL));
        free(path);
    }
    rig_free_names(names, n);
}

/* A file whose name says that it voids the whole log, and whose content does not, removes nothing.
 */
TEST(l5_a_stray_segment_removes_nothing)
{
    const char *from = test_path("raft"), *dir = test_path("copy");
    char *names[64], *after[64];
    make_log(from, 0);
    unsigned n = rig_list_files(from, ".seg", names, 64);
    EXPECT(n > 3);
    /* Empty; another segment of the same log; the same log's first one. */
    const char *contents[] = {NULL, names[n - 1], names[0]};
    for (unsigned i = 0; i < 3; i++) {
        struct rig r;
        rig_copy_dir(from, dir);
        char *stray = mem_printf("%s/%020d-%012d.seg", dir, 1, 999);
        if (contents[i] == NULL) {
            int fd = open(stray, O_WRONLY | O_CREAT, 0644);
            EXPECT(fd >= 0);
            (void)close(fd);
        } else {
            char *source = mem_printf("%s/%s", dir, contents[i]);
            rig_copy_file(source, stray);
            free(source);
        }
        EXPECT_ERR(ERR_CORRUPT, rig_try(&r, dir, 16384, NULL));
        EXPECT(strstr(err_text(), stray) != NULL);
        unsigned n_after = rig_list_files(dir, ".seg", after, 64);
        EXPECT_EQ(n_after, n + 1);
        rig_free_names(after, n_after);
        EXPECT(unlink(stray) == 0); /* as the sentence asks: then all is there */
        rig_open(&r, dir, 16384);
        thread_expect_loop();
        rig_expect(&r, &model);
        rig_close(&r);
        free(stray);
    }
    rig_free_names(names, n);
}

/* --- new directories -------------------------------------------------------------------------- */

static struct {
    ino_t inodes[32];
    unsigned n;
    bool on;
} synced;

/* In place of libc's, for all of this program: it notes what is synced, and syncs. */
int fsync(int fd)
{
    struct stat st;
    if (synced.on && synced.n < 32 && fstat(fd, &st) == 0)
        synced.inodes[synced.n++] = st.st_ino;
    return (int)syscall(SYS_fsync, fd);
}

static bool was_synced(const char *dir)
{
    struct stat st;
    EXPECT(stat(dir, &st) == 0 && S_ISDIR(st.st_mode));
    for (unsigned i = 0; i < synced.n; i++)
        if (synced.inodes[i] == st.st_ino)
            return true;
    return false;
}

TEST(l2_new_directories_are_synced_into_their_parents)
{
    synced.on = true;
    EXPECT_OK(file_make_dirs(test_path("a/b//c/")));
    EXPECT_EQ(synced.n, 3);
    EXPECT(was_synced(test_dir()) && was_synced(test_path("a")) && was_synced(test_path("a/b")));
    EXPECT(!was_synced(test_path("a/b/c")));
    synced.n = 0;
    EXPECT_OK(file_make_dirs(test_path("a/b/c"))); /* nothing is new */
    EXPECT_EQ(synced.n, 0);
    EXPECT_OK(file_make_dirs(test_path("a/b/c/d")));
    EXPECT(synced.n == 1 && was_synced(test_path("a/b/c")));
    synced.n = 0;
    EXPECT(chdir(test_dir()) == 0);
    EXPECT_OK(file_make_dirs("x/y")); /* in the working directory */
    EXPECT(synced.n == 2 && was_synced(test_dir()) && was_synced(test_path("x")));
    EXPECT(was_synced(".") && !was_synced(test_path("x/y")));
    synced.on = false;
}

TEST(log_read_of_an_entry_damaged_meanwhile_names_it)
{
    struct rig r;
    struct read_ctx x;
    char *names[8];
    make_log(test_path("raft"), 0);
    rig_open(&r, test_path("raft"), 16384);
    thread_expect_loop();
    rig_start(&r);
    EXPECT_EQ(rig_list_files(test_path("raft"), ".seg", names, 1), 1);
    char *path = mem_printf("%s/%s", test_path("raft"), names[0]);
    rig_flip(path, LOG_RECORDS_AT + LOG_RECORD_HEAD_BYTES + 3, 4);
    EXPECT_ERR(ERR_CORRUPT, rig_read(&r, 1, 100, 1, &x));
    EXPECT(strstr(err_text(), "entry 1 ") != NULL && strstr(err_text(), "4096") != NULL);
    EXPECT_OK(rig_read(&r, 2, 100, 1, &x)); /* the others are still there */
    EXPECT(model_has(&model, &x.read.items[0]));
    cns_items_free(x.read.items, x.read.n_items);
    free(path);
    rig_free_names(names, 1);
    rig_close(&r);
}

/* --- the snapshot record, and what it stands for ------------------------------------------------
 */

/* Entry INDEX's record as DIR/snapshot, as another log's cut left it. */
static char *record_path(const char *dir)
{
    return mem_printf("%s/snapshot", dir);
}

static void expect_refused(const char *dir, const char *word)
{
    struct rig r;
    EXPECT_ERR(ERR_CORRUPT, rig_try(&r, dir, 16384, NULL));
    if (strstr(err_text(), dir) == NULL || strstr(err_text(), word) == NULL)
        test_fail(__FILE__, __LINE__, "a sentence without %s: %s", word, err_text());
}

TEST(log_never_believes_a_damaged_snapshot_record)
{
    const char *from = test_path("raft"), *dir = test_path("copy");
    uint64_t size = 0;
    struct rng rng = {test_seed()};
    make_log(from, 70);
    char *source = record_path(from), *path = record_path(dir);
    int fd = open(source, O_RDONLY);
    EXPECT_OK(file_size(fd, source, &size));
    (void)close(fd);
    EXPECT(size > 100);
    rig_copy_dir(from, dir);
    for (uint64_t at = 0; at < size; at++) { /* each byte of each field */
        rig_flip(path, at, (uint8_t)(1u << rng_below(&rng, 8)));
        struct rig r;
        enum err e = rig_try(&r, dir, 16384, NULL);
        EXPECT(e == ERR_CORRUPT || (e == ERR_FORMAT && at >= 8 && at < 12));
        EXPECT(strstr(err_text(), path) != NULL);
        rig_copy_file(source, path);
    }
    for (uint64_t n = 0; n < size; n += 1 + rng_below(&rng, 8)) { /* cut short */
        EXPECT(truncate(path, (off_t)n) == 0);
        expect_refused(dir, "snapshot is damaged");
        rig_copy_file(source, path);
    }
    fd = open(path, O_WRONLY | O_APPEND); /* too long */
    EXPECT(fd >= 0 && write(fd, "x", 1) == 1);
    (void)close(fd);
    expect_refused(dir, "snapshot is damaged");
    free(source);
    free(path);
}

static void remove_segment(const char *dir, unsigned which)
{
    char *names[64];
    unsigned n = rig_list_files(dir, ".seg", names, 64);
    EXPECT(which < n);
    char *path = mem_printf("%s/%s", dir, names[which]);
    EXPECT(unlink(path) == 0);
    free(path);
    rig_free_names(names, n);
}

TEST(log_knows_what_may_be_missing_at_its_beginning)
{
    const char *from = test_path("raft"), *dir = test_path("copy");
    struct rig r;
    make_log(from, 70);
    uint64_t first = model.first;
    rig_copy_dir(from, dir);
    remove_segment(dir, 0);
    expect_refused(dir, "behind the snapshot record");
    rig_copy_dir(from, dir);
    remove_segment(dir, 1);
    expect_refused(dir, "missing before the next segment");
    rig_copy_dir(from, dir);
    char *path = record_path(dir);
    EXPECT(unlink(path) == 0);
    expect_refused(dir, "no snapshot record");
    /* Without a cut, the record is not needed, and none of the segments may go. */
    make_log(test_path("whole"), 0);
    rig_copy_dir(test_path("whole"), dir);
    remove_segment(dir, 0);
    expect_refused(dir, "entry 1 is missing");
    /* Below the record, what is gone may as well have been cut off. */
    struct rig again;
    unsigned sent = 0;
    rig_open(&again, test_path("whole"), 16384);
    thread_expect_loop();
    rig_start(&again);
    rig_cut(&again, &model, model.n, UINT32_MAX, &sent); /* a record, and nothing dropped */
    rig_close(&again);
    EXPECT_EQ(model.first, 1);
    rig_copy_dir(test_path("whole"), dir);
    remove_segment(dir, 0);
    rig_open(&r, dir, 16384);
    struct cns_log_state st;
    cns_log_get_state(r.log, &st);
    EXPECT(st.first_index > 1 && st.first_index <= first);
    model.first = st.first_index;
    rig_expect(&r, &model);
    rig_close(&r);
    free(path);
}

/* Records of other moments and histories, each whole in itself. */
TEST(log_notices_a_record_that_does_not_fit)
{
    const char *dir = test_path("raft");
    struct rig r;
    unsigned sent = 0;
    char *path = record_path(dir), *other_path = record_path(test_path("other"));
    make_log(test_path("other"), 0);
    rig_open(&r, test_path("other"), 16384);
    thread_expect_loop();
    rig_start(&r);
    rig_cut(&r, &model, model.n, UINT32_MAX, &sent);
    rig_close(&r);
    make_log(dir, 70);
    rig_copy_file(other_path,
                  path); /* a newer one: right, and legal, as a cut that went on later */
    rig_open(&r, dir, 16384);
    rig_close(&r);
    /* Newer than the log: the log's end is gone. */
    rig_empty_dir(test_path("other"));
    make_log(test_path("other"), 0);
    rig_open(&r, test_path("other"), 16384);
    rig_start(&r);
    sent = 0;
    for (unsigned i = 0; i < 50; i++)
        model_put(&model, 1, 50);
    rig_append(&r, &model, model.n - 49, 50, &sent);
    rig_wait(&r, sent);
    rig_cut(&r, &model, model.n, UINT32_MAX, &sent);
    rig_close(&r);
    rig_copy_file(other_path, path);
    expect_refused(dir, "the newest entries are missing");
    /* Of another history. */
    struct cns_snapshot base = rig_snapshot(120, 2);
    rig_empty_dir(test_path("other"));
    EXPECT_OK(rig_try_base(&r, test_path("other"), &base));
    rig_close(&r);
    rig_copy_file(other_path, path);
    expect_refused(dir, "not of one history");
    cns_payload_unref(base.members);
    free(path);
    free(other_path);
}
