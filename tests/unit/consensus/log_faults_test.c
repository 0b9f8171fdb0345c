/* Room: tests. consensus/log: calls fail, the disk is full, there is room again. What was
 * acknowledged is found again, and a full disk loses nothing. */
#include "tests/unit/consensus/log_rig.h"

#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct model model, other;

/* --- calls that fail -------------------------------------------------------------------------- */

enum breaking {
    BREAKS_ON,   /* from a call on, all fail */
    BREAKS_ONCE, /* one fails */
    BREAKS_FULL  /* from a call on, those fail that ask for room: new files */
};

static struct {
    _Atomic unsigned calls, fail_at; /* both threads of the log count; fail_at 0: none */
    enum breaking how;
    int error;
    bool short_write;
    _Atomic bool hit_new; /* what failed was on a file that has not got its name yet */
} broken;

static bool is_new(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".new") == 0;
}

static bool breaks(const char *path, bool creates)
{
    unsigned at = broken.fail_at, now = ++broken.calls;
    if (at == 0 || now < at || (broken.how == BREAKS_ONCE && now > at) ||
        (broken.how == BREAKS_FULL && !creates))
        return false;
    broken.hit_new = is_new(path);
    errno = broken.error;
    return true;
}

static bool breaks_fd(int fd)
{
    char link[64], path[512];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    EXPECT(n > 0);
    path[n] = 0;
    return breaks(path, false);
}

static int broken_create(void *ctx, const char *path, uint64_t bytes)
{
    return breaks(path, true) ? -1 : rig_create(ctx, path, bytes);
}

static ssize_t broken_write(void *ctx, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)ctx;
    if (!breaks_fd(fd))
        return pwrite(fd, p, n, (off_t)offset);
    if (broken.short_write && n > 1) /* then nothing more */
        return pwrite(fd, p, n / 2, (off_t)offset);
    errno = broken.error;
    return broken.short_write ? 0 : -1;
}

static int broken_sync(void *ctx, int fd)
{
    (void)ctx;
    return breaks_fd(fd) ? -1 : 0;
}

static int broken_rename(void *ctx, const char *from, const char *to)
{
    return breaks(from, false) ? -1 : rig_rename(ctx, from, to);
}

static int broken_remove(void *ctx, const char *path)
{
    if (is_new(path)) /* what is not needed is removed at the next start, if not now */
        return rig_remove(ctx, path);
    return breaks(path, false) ? -1 : rig_remove(ctx, path);
}

static int broken_sync_dir(void *ctx, const char *dir)
{
    (void)ctx;
    return breaks(dir, false) ? -1 : 0;
}

static const struct cns_log_file_calls broken_calls = {.create = broken_create,
                                                       .write = broken_write,
                                                       .sync = broken_sync,
                                                       .rename = broken_rename,
                                                       .remove = broken_remove,
                                                       .sync_dir = broken_sync_dir};

/* --- a life under them ------------------------------------------------------------------------ */

#define STEPS 15u

struct life {
    struct rig r;
    unsigned sent;
    struct cns_snapshot records[STEPS];
    unsigned n_records;
    bool waited; /* for room, at some time */
};

/* What `other` is then to be. */
static void submit_step(struct life *f, unsigned step) ON_LOOP
{
    struct cns_disk_job job = {.kind = CNS_DISK_META};
    other = model;
    if (step % 5 == 2) {
        other.n = model.n - 3;
        job = (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = other.n + 1};
    } else if (step % 5 == 3) {
        job.term = ++other.term;
        job.vote = other.vote = step;
    } else if (step % 5 == 4) {
        struct cns_snapshot *s = &f->records[f->n_records++];
        other.cut = model.n - 5;
        *s = rig_snapshot(other.cut, model.e[other.cut].term);
        job = (struct cns_disk_job){.kind = CNS_DISK_CUT, .snapshot = s, .keep_bytes = 5000};
    } else {
        for (unsigned i = 0; i < 25; i++)
            model_put(&other, other.term, 9000 + 100 * step + i);
        rig_append(&f->r, &other, model.n + 1, 25, &f->sent);
        return;
    }
    rig_submit(&f->r, job, &f->sent);
}

static void step_ended(struct life *f, unsigned step)
{
    if (f->r.failures > 0)
        return;
    model = other;
    if (step % 5 == 4)
        model.first = f->r.cut_first;
}

/* It stays refused, with the same reason. */
static void expect_final(struct life *f) ON_LOOP
{
    enum err first = f->r.last_error;
    unsigned failures = f->r.failures;
    EXPECT(first == ERR_IO || first == ERR_FULL);
    rig_submit(&f->r, (struct cns_disk_job){.kind = CNS_DISK_META, .term = 99}, &f->sent);
    rig_wait(&f->r, f->sent);
    EXPECT_EQ(f->r.failures, failures + 1);
    EXPECT_EQ(f->r.last_error, first);
}

static void end_life(struct life *f) ON_LOOP
{
    rig_close(&f->r);
    EXPECT_EQ(f->r.ended, f->sent);
    for (unsigned i = 0; i < f->n_records; i++)
        cns_payload_unref(f->records[i].members);
}

/* Appends, truncates, votes and cuts; the model holds what was acknowledged. When the log waits for
 * room: there is some again (GETS_ROOM), or it is closed. False: it could not even be made. */
static bool live(struct life *f, const char *dir, bool gets_room)
{
    *f = (struct life){0};
    model_init(&model);
    other = model;
    if (rig_try(&f->r, dir, 16384, &broken_calls) != ERR_OK)
        return false;
    thread_expect_loop();
    rig_start(&f->r);
    for (unsigned step = 0; step < STEPS && f->r.failures == 0; step++) {
        submit_step(f, step);
        if (!rig_wait_or_full(&f->r, f->sent)) {
            f->waited = true;
            if (!gets_room)
                break;
            broken.fail_at = 0;
            rig_wait(&f->r, f->sent);
        }
        step_ended(f, step);
    }
    if (f->r.ended == f->sent && f->r.failures > 0)
        expect_final(f);
    end_life(f);
    return true;
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
    if (other.cut > model.cut && st.snapshot_index == other.cut) {
        EXPECT(st.first_index >= model.first && st.first_index <= other.cut + 1);
        model = other;
        model.first = st.first_index;
    }
    rig_expect(&r, &model);
    rig_close(&r);
}

static void fail_every_call(int error, bool short_write)
{
    static struct life f;
    const char *dir = test_path("raft");
    broken.error = error;
    broken.short_write = short_write;
    broken.how = BREAKS_ON;
    unsigned at = 1;
    for (bool broke = true; broke; at++) {
        rig_empty_dir(dir);
        broken.calls = 0;
        broken.fail_at = at;
        broke = !live(&f, dir, false) || f.r.failures > 0;
        EXPECT(error != EIO || !f.waited);
        EXPECT(!f.waited || f.r.last_error == ERR_FULL); /* the close ended what waited */
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

/* --- room again ------------------------------------------------------------------------------- */

/* The disk is full for new files from any moment on: nothing fails, and with room all goes on. */
TEST(log_waits_for_room_and_goes_on)
{
    static struct life f;
    const char *dir = test_path("raft");
    unsigned waited = 0, made = 0;
    broken.error = ENOSPC;
    broken.how = BREAKS_FULL;
    broken.fail_at = 0;
    EXPECT(live(&f, dir, true) && !f.waited);
    unsigned calls = broken.calls;
    for (unsigned at = 1; at <= calls; at += 1 + calls / 14) {
        rig_empty_dir(dir);
        broken.calls = 0;
        broken.fail_at = at;
        if (!live(&f, dir, true))
            continue;
        made++;
        waited += f.waited;
        EXPECT_EQ(f.r.failures, 0);
        broken.fail_at = 0;
        expect_model_or_other(dir);
        EXPECT_EQ(model.n, other.n);
    }
    EXPECT(made > 8 && waited > 5);
}

/* A full disk is met once, anywhere. On a file that has no name yet it costs nothing but time;
 * where bytes of the log itself could not be written, it is final. */
TEST(log_survives_one_call_without_room)
{
    static struct life f;
    const char *dir = test_path("raft");
    unsigned harmless = 0, final = 0;
    broken.error = ENOSPC;
    broken.how = BREAKS_ONCE;
    struct rng rng = {test_seed()};
    unsigned at = 1;
    for (bool reached = true; reached; at += 1 + (unsigned)rng_below(&rng, 5)) {
        rig_empty_dir(dir);
        broken.calls = 0;
        broken.hit_new = false;
        broken.fail_at = at;
        bool made = live(&f, dir, true);
        reached = broken.calls >= at;
        if (made && broken.hit_new) {
            EXPECT_EQ(f.r.failures, 0);
            harmless++;
        } else if (made && reached)
            final += f.r.failures > 0;
        broken.fail_at = 0;
        expect_model_or_other(dir);
    }
    EXPECT(harmless > 0 && final > 5);
}

/* The record's new file finds no room; the spare gives some. */
static int full_but_for_spare(void *ctx, const char *path, uint64_t bytes)
{
    char *spare = mem_printf("%.*s/spare.new", (int)(strrchr(path, '/') - path), path);
    bool there = access(spare, F_OK) == 0;
    free(spare);
    if (strstr(path, "/snapshot.new") == NULL || !there)
        return rig_create(ctx, path, bytes);
    errno = ENOSPC;
    return -1;
}

TEST(log_gives_up_its_spare_for_the_record_of_a_cut)
{
    struct rig r;
    struct cns_log_state st = {0};
    unsigned sent = 0;
    struct cns_log_file_calls calls = broken_calls;
    calls.create = full_but_for_spare;
    broken.fail_at = 0;
    model_init(&model);
    EXPECT_OK(rig_try(&r, test_path("raft"), 16384, &calls));
    thread_expect_loop();
    rig_start(&r);
    for (unsigned i = 0; i < 100; i++) /* nearly a segment */
        model_put(&model, 1, 50);
    rig_append(&r, &model, 2, 100, &sent);
    rig_wait(&r, sent);
    while (st.bytes != 2 * 16384) {
        (void)uv_run(&r.loop, UV_RUN_NOWAIT);
        cns_log_get_state(r.log, &st);
    }
    rig_cut(&r, &model, 90, 0, &sent);
    EXPECT_EQ(r.failures, 0);
    cns_log_get_state(r.log, &st);
    EXPECT_EQ(st.bytes, 16384);
    rig_close(&r);
}
