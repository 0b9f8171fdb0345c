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

static struct model model, other;

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

/* --- failing calls ---------------------------------------------------------------------------- */

static struct {
    _Atomic unsigned calls, fail_at; /* both threads of the log count */
    int error;
    bool short_write;
} broken;

static bool breaks(void)
{
    unsigned at = broken.fail_at;
    if (++broken.calls < at || at == 0)
        return false;
    errno = broken.error;
    return true;
}

static int broken_create(void *ctx, const char *path, uint64_t bytes)
{
    return breaks() ? -1 : rig_create(ctx, path, bytes);
}

static ssize_t broken_write(void *ctx, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)ctx;
    if (!breaks())
        return pwrite(fd, p, n, (off_t)offset);
    if (broken.short_write && n > 1) /* then nothing more */
        return pwrite(fd, p, n / 2, (off_t)offset);
    errno = broken.error;
    return broken.short_write ? 0 : -1;
}

static int broken_sync(void *ctx, int fd)
{
    (void)ctx;
    (void)fd;
    return breaks() ? -1 : 0;
}

static int broken_rename(void *ctx, const char *from, const char *to)
{
    return breaks() ? -1 : rig_rename(ctx, from, to);
}

static int broken_remove(void *ctx, const char *path)
{
    return breaks() ? -1 : rig_remove(ctx, path);
}

static int broken_sync_dir(void *ctx, const char *dir)
{
    (void)ctx;
    (void)dir;
    return breaks() ? -1 : 0;
}

static const struct cns_log_file_calls broken_calls = {.create = broken_create,
                                                       .write = broken_write,
                                                       .sync = broken_sync,
                                                       .rename = broken_rename,
                                                       .remove = broken_remove,
                                                       .sync_dir = broken_sync_dir};

/* Appends, truncates and votes until something fails; the model holds what was acknowledged. */
static bool life_that_breaks(const char *dir)
{
    struct rig r;
    unsigned sent = 0;
    model_init(&model);
    other = model;
    if (rig_try(&r, dir, 16384, &broken_calls) != ERR_OK)
        return true;
    thread_expect_loop();
    rig_start(&r);
    for (unsigned step = 0; step < 12 && r.failures == 0; step++) {
        other = model;
        if (step % 4 == 2) {
            other.n = model.n - 3;
            rig_submit(&r, (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = other.n + 1},
                       &sent);
        } else if (step % 4 == 3) {
            other.term++;
            other.vote = step;
            rig_submit(&r,
                       (struct cns_disk_job){
                           .kind = CNS_DISK_META, .term = other.term, .vote = other.vote},
                       &sent);
        } else {
            for (unsigned i = 0; i < 25; i++)
                model_put(&other, other.term, 9000 + 100 * step + i);
            rig_append(&r, &other, model.n + 1, 25, &sent);
        }
        if (!rig_wait_or_full(&r, sent))
            break;
        if (r.failures == 0)
            model = other;
    }
    bool waits = r.ended < sent;
    if (waits) { /* a close ends what waits for room */
        rig_close(&r);
        EXPECT_EQ(r.ended, sent);
        EXPECT_EQ(r.last_error, ERR_FULL);
        return true;
    }
    bool broke = r.failures > 0;
    if (broke) { /* it stays refused, with the same reason */
        enum err first = r.last_error;
        EXPECT(first == ERR_IO || first == ERR_FULL);
        rig_submit(&r, (struct cns_disk_job){.kind = CNS_DISK_META, .term = 99}, &sent);
        rig_wait(&r, sent);
        EXPECT_EQ(r.failures, 2);
        EXPECT_EQ(r.last_error, first);
    }
    rig_close(&r);
    return broke;
}

/* The log in DIR is `model`, or `other` (the step that was not acknowledged), or a part of it. */
static void expect_model_or_other(const char *dir)
{
    struct rig r;
    struct cns_log_state st;
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    cns_log_get_state(r.log, &st);
    if (st.term == other.term && st.vote == other.vote && other.term > model.term)
        model = other;
    if (other.n > model.n && st.last_index > model.n && st.last_index <= other.n) {
        uint64_t n = st.last_index;
        model = other;
        model.n = n;
    }
    if (other.n < model.n && st.last_index == other.n)
        model = other;
    rig_expect(&r, &model);
    rig_close(&r);
}

static void fail_every_call(int error, bool short_write)
{
    const char *dir = test_path("raft");
    broken.error = error;
    broken.short_write = short_write;
    unsigned at = 1;
    for (bool broke = true; broke; at++) {
        rig_empty_dir(dir);
        broken.calls = 0;
        broken.fail_at = at;
        broke = life_that_breaks(dir);
        broken.fail_at = 0;
        expect_model_or_other(dir);
    }
    EXPECT(at > 40);
}

TEST(log_survives_eio_at_every_call)
{
    fail_every_call(EIO, false);
}

TEST(log_survives_a_full_disk_at_every_call)
{
    fail_every_call(ENOSPC, false);
}

TEST(log_survives_a_short_write_at_every_call)
{
    fail_every_call(ENOSPC, true);
}
