/* Room: tests. consensus/log: a log that begins anywhere: cuts, installations, bases, spares, and
 * which directory of a node this one is. */
#include "tests/unit/consensus/log_rig.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "consensus/log_segment.h"

#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct model model;

/* Entries 2..N in one job, durable. */
static void fill(struct rig *r, uint64_t n, unsigned *sent) ON_LOOP
{
    uint64_t from = model.n + 1;
    while (model.n < n)
        model_put(&model, model.term, 50); /* a command of 50 bytes */
    rig_append(r, &model, from, (unsigned)(n + 1 - from), sent);
    rig_wait(r, *sent);
}

static void reopen(struct rig *r, const char *dir) ON_LOOP
{
    rig_close(r);
    rig_open(r, dir, 16384);
    rig_expect(r, &model);
}

/* --- cuts ------------------------------------------------------------------------------------- */

TEST(log_cut_drops_whole_old_segments)
{
    struct rig r;
    unsigned sent = 0;
    struct read_ctx x;
    struct cns_log_state st;
    const char *dir = test_path("raft");
    model_init(&model);
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    rig_start(&r);
    fill(&r, 1000, &sent);
    rig_cut(&r, &model, 600, 0, &sent);
    EXPECT(model.first > 400 && model.first <= 601);
    EXPECT_OK(rig_read(&r, model.first, 1, 1, &x));
    EXPECT(model_has(&model, &x.read.items[0]));
    cns_items_free(x.read.items, x.read.n_items);
    EXPECT_ERR(ERR_NOT_FOUND, rig_read(&r, model.first - 1, 1, 1, &x));
    EXPECT(strstr(err_text(), "begins with") != NULL);
    rig_cut(&r, &model, 1000, 0, &sent); /* all of it: the active segment stays */
    cns_log_get_state(r.log, &st);
    EXPECT_EQ(st.segments, 1);
    EXPECT(model.first > 600 && model.first <= 1000);
    reopen(&r, dir);
    rig_start(&r);
    sent = 0;
    fill(&r, 1100, &sent);
    reopen(&r, dir);
    rig_close(&r);
}

TEST(log_cut_keeps_as_many_bytes_as_asked_for)
{
    struct rig r;
    unsigned sent = 0;
    struct cns_log_state st;
    model_init(&model);
    rig_open(&r, test_path("raft"), 16384);
    thread_expect_loop();
    rig_start(&r);
    fill(&r, 2000, &sent);
    uint64_t record = LOG_RECORD_HEAD_BYTES + 56;
    for (uint64_t keep = 160000; keep > 0; keep -= 40000) {
        rig_cut(&r, &model, 2000, keep, &sent);
        uint64_t left = (2001 - model.first) * record;
        EXPECT(left >= keep && left < keep + 16384);
    }
    cns_log_get_state(r.log, &st);
    EXPECT(st.bytes < 10 * 16384);
    rig_close(&r);
}

static void truncate_to(struct rig *r, uint64_t last, unsigned *sent) ON_LOOP
{
    rig_submit(r, (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = last + 1}, sent);
    rig_wait(r, *sent);
    model.n = last;
}

TEST(log_may_be_cut_down_to_nothing)
{
    struct rig r;
    unsigned sent = 0;
    struct read_ctx x;
    const char *dir = test_path("raft");
    model_init(&model);
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    rig_start(&r);
    fill(&r, 600, &sent);
    truncate_to(&r, 500, &sent); /* the active segment is empty and begins with 501 */
    rig_cut(&r, &model, 500, 0, &sent);
    EXPECT_EQ(model.first, 501);
    EXPECT_ERR(ERR_NOT_FOUND, rig_read(&r, 500, 1, 1, &x));
    EXPECT_ERR(ERR_NOT_FOUND, rig_read(&r, 501, 1, 1, &x));
    reopen(&r, dir);
    rig_start(&r);
    sent = 0;
    fill(&r, 700, &sent);
    truncate_to(&r, 500, &sent); /* again, behind a log that begins there */
    fill(&r, 502, &sent);
    EXPECT_EQ(r.failures, 0);
    reopen(&r, dir);
    rig_close(&r);
}

/* --- a cut delays nobody ---------------------------------------------------------------------- */

static struct {
    sem_t go;
    _Atomic bool holding, inside;
} held;

static int held_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    if (held.holding && strstr(to, "/snapshot") != NULL) {
        held.inside = true;
        while (sem_wait(&held.go) != 0)
            ;
    }
    return rename(from, to);
}

static ssize_t plain_write(void *ctx, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)ctx;
    return pwrite(fd, p, n, (off_t)offset);
}

static int no_sync(void *ctx, int fd)
{
    (void)ctx;
    (void)fd;
    return 0;
}

static const struct cns_log_file_calls held_calls = {.create = rig_create,
                                                     .write = plain_write,
                                                     .sync = no_sync,
                                                     .rename = held_rename,
                                                     .remove = rig_remove,
                                                     .sync_dir = rig_sync_dir};

TEST(log_commits_while_a_cut_is_under_way)
{
    struct rig r;
    unsigned sent = 0;
    model_init(&model);
    EXPECT(sem_init(&held.go, 0, 0) == 0);
    EXPECT_OK(rig_try(&r, test_path("raft"), 16384, &held_calls));
    thread_expect_loop();
    rig_start(&r);
    fill(&r, 1000, &sent);
    held.holding = true;
    struct cns_snapshot s = rig_snapshot(900, model.e[900].term);
    rig_submit(&r, (struct cns_disk_job){.kind = CNS_DISK_CUT, .snapshot = &s}, &sent);
    while (!held.inside)
        (void)uv_run(&r.loop, UV_RUN_NOWAIT);
    unsigned before = r.ended;
    uint64_t from = model.n + 1;
    while (model.n < 1300) /* over two segments and more */
        model_put(&model, 1, 50);
    rig_append(&r, &model, from, 300, &sent);
    rig_wait(&r, before + 1); /* the append, since the cut cannot have ended */
    EXPECT_EQ(r.in_order, r.submitted);
    EXPECT_EQ(r.ended, sent - 1);
    held.holding = false;
    (void)sem_post(&held.go);
    rig_wait(&r, sent);
    EXPECT_EQ(r.failures, 0);
    EXPECT(r.cut_first > 700);
    cns_payload_unref(s.members);
    rig_close(&r);
}

/* What is read while the log is cut and written is whole, or was cut. */
TEST(log_reads_beside_cuts_and_appends)
{
    static struct read_ctx x[16];
    struct rng rng = {test_seed()};
    struct rig r;
    unsigned sent = 0;
    model_init(&model);
    rig_open(&r, test_path("raft"), 16384);
    thread_expect_loop();
    rig_start(&r);
    fill(&r, 500, &sent);
    for (uint64_t round = 0; round < test_rounds(40); round++) {
        uint64_t from = model.n + 1, first = model.first, durable = model.n;
        for (unsigned i = 0; i < 100; i++)
            model_put(&model, 1, 50);
        rig_append(&r, &model, from, 50, &sent);
        for (unsigned i = 0; i < 16; i++)
            rig_read_later(&r, first + rng_below(&rng, durable - first + 1), 5000, 100, &x[i]);
        rig_append(&r, &model, from + 50, 50, &sent);
        rig_cut(&r, &model, (first > model.cut ? first : model.cut) + 60 + rng_below(&rng, 40),
                20000, &sent);
        for (unsigned i = 0; i < 16; i++) {
            while (!x[i].ended)
                (void)uv_run(&r.loop, UV_RUN_ONCE);
            struct cns_disk_read *read = &x[i].read;
            EXPECT(read->result == ERR_OK ||
                   (read->result == ERR_NOT_FOUND && read->index < model.first));
            for (unsigned k = 0; k < read->n_items; k++)
                EXPECT(read->items[k].index == read->index + k &&
                       model_has(&model, &read->items[k]));
            cns_items_free(read->items, read->n_items);
        }
    }
    EXPECT(model.first > 1 && r.failures == 0);
    reopen(&r, test_path("raft"));
    rig_close(&r);
}

/* --- bases and installations ------------------------------------------------------------------ */

static uint64_t one_incarnation(struct rig *r)
{
    struct cns_log_state st;
    thread_expect_loop();
    cns_log_get_state(r->log, &st);
    EXPECT(st.incarnation != 0);
    return st.incarnation;
}

/* The model of an empty log behind entry INDEX of TERM. */
static void model_behind(uint64_t index, uint64_t term)
{
    memset(&model, 0, sizeof model);
    model.term = term;
    model.n = model.cut = index;
    model.first = index + 1;
    model.e[index].term = term;
}

TEST(log_of_a_joining_node_begins_behind_its_base)
{
    struct rig r;
    unsigned sent = 0;
    const char *dir = test_path("raft");
    struct cns_snapshot base = rig_snapshot(5000, 12);
    EXPECT_OK(rig_try_base(&r, dir, &base));
    thread_expect_loop();
    model_behind(5000, 12);
    rig_expect(&r, &model);
    reopen(&r, dir); /* then without the base */
    rig_start(&r);
    fill(&r, 5300, &sent);
    rig_close(&r);
    EXPECT_OK(rig_try_base(&r, dir, &base)); /* it is for new directories only */
    rig_expect(&r, &model);
    rig_close(&r);
    cns_payload_unref(base.members);
}

static void install(struct rig *r, uint64_t index, uint64_t term) ON_LOOP
{
    struct cns_snapshot s = rig_snapshot(index, term);
    EXPECT_OK(cns_log_install(r->log, &s));
    EXPECT_OK(cns_log_install(r->log, &s)); /* doing it twice is harmless */
    cns_payload_unref(s.members);
}

TEST(log_install_keeps_a_log_that_has_the_entry)
{
    struct rig r;
    unsigned sent = 0;
    const char *dir = test_path("raft");
    model_init(&model);
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    rig_start(&r);
    fill(&r, 500, &sent);
    reopen(&r, dir);
    uint64_t who = one_incarnation(&r);
    install(&r, 200, 1);
    model.cut = 200;
    rig_expect(&r, &model);
    install(&r, 500, 1); /* its last one */
    model.cut = 500;
    rig_expect(&r, &model);
    reopen(&r, dir);
    EXPECT_EQ(one_incarnation(&r), who);
    rig_close(&r);
}

TEST(log_install_empties_a_log_that_has_not)
{
    struct rig r;
    unsigned sent = 0;
    const char *dir = test_path("raft");
    char *names[64];
    model_init(&model);
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    rig_start(&r);
    fill(&r, 500, &sent);
    rig_submit(&r, (struct cns_disk_job){.kind = CNS_DISK_META, .term = 3, .vote = 2}, &sent);
    rig_wait(&r, sent);
    model.term = 3;
    model.vote = 2;
    reopen(&r, dir);
    install(&r, 700, 2); /* ends before it; the vote of term 3 stays */
    model_behind(700, 2);
    model.term = 3;
    model.vote = 2;
    rig_expect(&r, &model);
    unsigned n = rig_list_files(dir, ".seg", names, 64);
    EXPECT_EQ(n, 1);
    rig_free_names(names, n);
    reopen(&r, dir);
    rig_start(&r);
    sent = 0;
    fill(&r, 900, &sent);
    reopen(&r, dir);
    install(&r, 800,
            9); /* has another entry there; its own term rises, so no vote was given in it */
    model_behind(800, 9);
    rig_expect(&r, &model);
    reopen(&r, dir);
    rig_close(&r);
}

/* What this member acknowledged must not be forgotten for an older state. */
TEST(log_install_refuses_what_lies_before_its_beginning)
{
    struct rig r;
    const char *dir = test_path("raft");
    struct cns_snapshot base = rig_snapshot(5000, 12);
    EXPECT_OK(rig_try_base(&r, dir, &base));
    thread_expect_loop();
    struct cns_snapshot older = rig_snapshot(4999, 12), other = rig_snapshot(5000, 11);
    EXPECT_ERR(ERR_MISUSE, cns_log_install(r.log, &older));
    EXPECT(strstr(err_text(), "4999") != NULL && strstr(err_text(), "5000") != NULL);
    EXPECT_ERR(ERR_DIVERGED, cns_log_install(r.log, &other));
    cns_payload_unref(other.members);
    other.members = NULL;
    EXPECT_ERR(ERR_MISUSE, cns_log_install(r.log, &other));
    model_behind(5000, 12);
    rig_expect(&r, &model);
    rig_close(&r);
    cns_payload_unref(older.members);
    cns_payload_unref(base.members);
}

/* The record is in place, the old segments are gone, and the new one was never made. */
TEST(log_install_is_finished_by_the_next_start)
{
    struct rig r;
    const char *dir = test_path("raft"), *copy = test_path("copy");
    char *names[64];
    unsigned sent = 0;
    model_init(&model);
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    rig_start(&r);
    fill(&r, 500, &sent);
    rig_close(&r);
    rig_copy_dir(dir, copy);
    rig_open(&r, copy, 16384);
    install(&r, 700, 1);
    rig_close(&r);
    char *record = mem_printf("%s/snapshot", copy), *to = mem_printf("%s/snapshot", dir);
    rig_copy_file(record, to);
    unsigned n = rig_list_files(dir, ".seg", names, 64);
    for (unsigned left = n + 1; left > 0;
         left--) { /* with all old segments, with fewer, with none */
        rig_copy_dir(dir, copy);
        for (unsigned i = left - 1; i < n; i++) {
            char *path = mem_printf("%s/%s", copy, names[i]);
            EXPECT(unlink(path) == 0);
            free(path);
        }
        rig_open(&r, copy, 16384);
        model_behind(700, 1);
        rig_expect(&r, &model);
        reopen(&r, copy);
        install(&r, 700, 1); /* as the node does then */
        rig_expect(&r, &model);
        rig_close(&r);
    }
    rig_free_names(names, n);
    free(record);
    free(to);
}

/* --- which directory it is -------------------------------------------------------------------- */

static void make_identity_1(const char *path)
{
    uint8_t p[40];
    memcpy(p, "LecRaftI", 8);
    set_le32(p + 8, 1);
    set_le32(p + 12, 2);
    set_le64(p + 16, CLUSTER);
    set_le64(p + 24, NODE);
    set_le64(p + 32, hash64(p, 32, 0));
    EXPECT_OK(file_replace(path, p, sizeof p));
}

TEST(log_directory_has_an_incarnation_of_its_own)
{
    struct rig r;
    uint64_t seen[3];
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    model_init(&model);
    for (unsigned i = 0; i < 2; i++) {
        const char *dir = test_path(i == 0 ? "one" : "two");
        for (unsigned k = 0; k < 2; k++) {
            rig_open(&r, dir, 16384);
            EXPECT(k == 0 || one_incarnation(&r) == seen[i]);
            seen[i] = one_incarnation(&r);
            rig_close(&r);
        }
    }
    EXPECT(seen[0] != seen[1]);
    make_identity_1(test_path("one/identity")); /* one from before there were any gets one */
    rig_open(&r, test_path("one"), 16384);
    seen[2] = one_incarnation(&r);
    EXPECT(seen[2] != seen[0]);
    rig_expect(&r, &model);
    reopen(&r, test_path("one"));
    EXPECT_EQ(one_incarnation(&r), seen[2]);
    rig_close(&r);
}

/* --- the spare -------------------------------------------------------------------------------- */

static _Atomic unsigned spares, segments_made;

static int counting_create(void *ctx, const char *path, uint64_t bytes)
{
    spares += strstr(path, "/spare.new") != NULL;
    segments_made += strstr(path, "/segment.new") != NULL;
    return rig_create(ctx, path, bytes);
}

TEST(log_makes_the_next_segment_ahead_of_need)
{
    struct rig r;
    unsigned sent = 0, here = 0;
    struct cns_log_state st, before;
    struct cns_log_file_calls calls = held_calls;
    calls.create = counting_create;
    model_init(&model);
    EXPECT_OK(rig_try(&r, test_path("raft"), 16384, &calls));
    thread_expect_loop();
    rig_start(&r);
    segments_made = spares = 0;
    cns_log_get_state(r.log, &before);
    for (unsigned i = 0; i < 1000; i++, before = st) {
        fill(&r, model.n + 1, &sent);
        cns_log_get_state(r.log, &st);
        here = st.segments > before.segments ? 0 : here + 1;
        while (here == 100 &&
               st.bytes == st.segments * 16384) { /* of 118: there must be one soon */
            (void)uv_run(&r.loop, UV_RUN_NOWAIT);
            cns_log_get_state(r.log, &st);
        }
        EXPECT(here != 50 || st.bytes == st.segments * 16384); /* and not long before */
    }
    EXPECT(st.segments > 7);
    EXPECT_EQ(segments_made, 0); /* none in the way of a commit */
    rig_close(&r);
    EXPECT(access(test_path("raft/spare.new"), F_OK) != 0);
    rig_open(&r, test_path("raft"), 16384);
    rig_expect(&r, &model);
    rig_close(&r);
}
