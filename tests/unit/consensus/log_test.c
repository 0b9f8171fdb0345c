/* Room: tests. consensus/log: what is stored is found again, in order, with few syncs, by its
 * owner. */
#include "tests/unit/consensus/log_rig.h"

#include <semaphore.h>
#include <string.h>
#include <unistd.h>

static struct model model;

/* --- the plain life --------------------------------------------------------------------------- */

TEST(log_is_made_with_its_first_entries_and_found_again)
{
    struct rig r;
    struct cns_log_state st;
    model_init(&model);
    rig_open(&r, test_path("raft"), 0);
    thread_expect_loop();
    cns_log_get_state(r.log, &st);
    EXPECT(st.made);
    rig_expect(&r, &model);
    rig_close(&r);
    rig_open(&r, test_path("raft"), 0);
    cns_log_get_state(r.log, &st);
    EXPECT(!st.made);
    EXPECT_EQ(st.segments, 1);
    EXPECT_EQ(st.bytes, LOG_SEGMENT_BYTES);
    rig_expect(&r, &model);
    rig_close(&r);
}

TEST(log_stores_term_vote_and_entries)
{
    struct rig r;
    unsigned sent = 0;
    struct read_ctx x;
    model_init(&model);
    rig_open(&r, test_path("raft"), 0);
    thread_expect_loop();
    rig_start(&r);
    rig_submit(&r, (struct cns_disk_job){.kind = CNS_DISK_META, .term = 3, .vote = 2}, &sent);
    model.term = 3;
    model.vote = 2;
    for (uint64_t i = 0; i < 500; i++)
        model_put(&model, 3, 1000 + i);
    rig_append(&r, &model, 2, 1, &sent);
    rig_append(&r, &model, 3, 499, &sent);
    rig_wait(&r, sent);
    EXPECT_EQ(r.failures, 0);
    EXPECT_OK(rig_read(&r, 100, 1u << 30, 50, &x));
    EXPECT_EQ(x.read.n_items, 50);
    for (unsigned i = 0; i < 50; i++)
        EXPECT(x.read.items[i].index == 100 + i && model_has(&model, &x.read.items[i]));
    cns_items_free(x.read.items, x.read.n_items);
    EXPECT_OK(rig_read(&r, 501, 0, 50, &x)); /* the last; at least one, whatever the limit */
    EXPECT_EQ(x.read.n_items, 1);
    cns_items_free(x.read.items, x.read.n_items);
    EXPECT_ERR(ERR_NOT_FOUND, rig_read(&r, 502, 1, 1, &x));
    rig_close(&r);
    rig_open(&r, test_path("raft"), 0);
    rig_expect(&r, &model);
    rig_close(&r);
}

static bool stop_after_three(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    (void)index;
    (void)term;
    (void)p;
    (void)n;
    return ++*(unsigned *)ctx < 3;
}

TEST(log_scan_back_stops_when_told)
{
    struct rig r;
    unsigned sent = 0, seen = 0;
    model_init(&model);
    rig_open(&r, test_path("raft"), 16384);
    thread_expect_loop();
    rig_start(&r);
    for (uint64_t i = 0; i < 300; i++)
        model_put(&model, 1, 1000 + i);
    rig_append(&r, &model, 2, 300, &sent);
    rig_wait(&r, sent);
    rig_close(&r);
    rig_open(&r, test_path("raft"), 16384);
    EXPECT_OK(cns_log_scan_back(r.log, stop_after_three, &seen));
    EXPECT_EQ(seen, 3);
    rig_close(&r);
}

/* --- group commit ----------------------------------------------------------------------------- */

static struct {
    sem_t go;
    _Atomic unsigned syncs, writes;
    _Atomic bool holding;
} held;

static ssize_t held_write(void *ctx, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)ctx;
    held.writes++;
    return pwrite(fd, p, n, (off_t)offset);
}

static int held_sync(void *ctx, int fd)
{
    (void)ctx;
    (void)fd;
    held.syncs++;
    if (held.holding)
        while (sem_wait(&held.go) != 0)
            ;
    return 0;
}

TEST(log_syncs_waiting_jobs_together)
{
    struct rig r;
    unsigned sent = 0;
    struct cns_log_file_calls calls = {.create = rig_create,
                                       .write = held_write,
                                       .sync = held_sync,
                                       .rename = rig_rename,
                                       .remove = rig_remove,
                                       .sync_dir = rig_sync_dir};
    model_init(&model);
    EXPECT(sem_init(&held.go, 0, 0) == 0);
    EXPECT_OK(rig_try(&r, test_path("raft"), 0, &calls));
    thread_expect_loop();
    rig_start(&r);
    held.holding = true;
    held.syncs = held.writes = 0;
    for (uint64_t i = 0; i < 101; i++)
        model_put(&model, 1, 1000 + i);
    rig_append(&r, &model, 2, 1, &sent);
    while (held.syncs == 0) /* until the writer is inside the first sync */
        (void)uv_run(&r.loop, UV_RUN_NOWAIT);
    for (unsigned i = 0; i < 100; i++)
        rig_append(&r, &model, 3 + i, 1, &sent);
    (void)uv_run(&r.loop, UV_RUN_NOWAIT);
    EXPECT_EQ(r.ended, 0);
    (void)sem_post(&held.go);
    (void)sem_post(&held.go);
    held.holding = false;
    rig_wait(&r, sent);
    EXPECT_EQ(held.syncs, 2);
    EXPECT_EQ(held.writes, 2);
    for (unsigned i = 0; i < 20; i++) { /* those of one turn go together, whoever is waiting */
        model_put(&model, 1, 2000 + i);
        rig_append(&r, &model, model.n, 1, &sent);
    }
    rig_wait(&r, sent);
    EXPECT_EQ(held.syncs, 3);
    rig_close(&r);
}

/* --- random life against a model ---------------------------------------------------------------
 */

static void random_step(struct rig *r, struct rng *rng, unsigned *sent) ON_LOOP
{
    uint64_t what = rng_below(rng, 20);
    if (what == 0) {
        model.term += rng_below(rng, 3);
        model.vote = rng_below(rng, 4);
        rig_submit(
            r, (struct cns_disk_job){.kind = CNS_DISK_META, .term = model.term, .vote = model.vote},
            sent);
    } else if (what == 1 && model.n > 1) {
        uint64_t back = rng_below(rng, rng_once_in(rng, 4) ? 400 : 20);
        uint64_t from = model.n > back + 1 ? model.n - back : 2;
        if (from <= model.cut)
            from = model.cut + 1;
        if (from > model.n)
            return;
        rig_submit(r, (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = from}, sent);
        model.n = from - 1;
    } else if (what == 2) {
        rig_wait(r, *sent);
        uint64_t low = model.cut == 0 ? 1 : model.cut;
        rig_cut(r, &model, low + rng_below(rng, model.n - low + 1), rng_below(rng, 100000), sent);
    } else {
        unsigned n = (unsigned)rng_below(rng, 12) + 1;
        uint64_t from = model.n + 1;
        uint64_t term = model.e[model.n].term;
        for (unsigned i = 0; i < n; i++) {
            if (rng_once_in(rng, 30))
                term = model.term;
            model_put(&model, term, rng_u64(rng) >> 1);
        }
        rig_append(r, &model, from, n, sent);
    }
}

static void random_read(struct rig *r, struct rng *rng) ON_LOOP
{
    struct read_ctx x;
    if (model.first > 1)
        EXPECT_ERR(ERR_NOT_FOUND, rig_read(r, 1 + rng_below(rng, model.first - 1), 100, 10, &x));
    if (model.n < model.first)
        return;
    uint64_t at = model.first + rng_below(rng, model.n - model.first + 1);
    EXPECT_OK(rig_read(r, at, rng_below(rng, 100000), 1 + (unsigned)rng_below(rng, 200), &x));
    EXPECT(x.read.n_items > 0);
    for (unsigned i = 0; i < x.read.n_items; i++)
        EXPECT(x.read.items[i].index == at + i && model_has(&model, &x.read.items[i]));
    cns_items_free(x.read.items, x.read.n_items);
}

TEST(log_random_life_agrees_with_a_model)
{
    struct rng rng = {test_seed()};
    model_init(&model);
    for (uint64_t life = 0; life < test_rounds(20); life++) {
        struct rig r;
        unsigned sent = 0;
        rig_open(&r, test_path("raft"), rng_once_in(&rng, 2) ? 12000 : 60000);
        thread_expect_loop();
        rig_expect(&r, &model);
        rig_start(&r);
        for (unsigned i = 0; i < 60 && model.n < MODEL - 1000; i++) {
            random_step(&r, &rng, &sent);
            if (rng_once_in(&rng, 5)) {
                rig_wait(&r, sent);
                random_read(&r, &rng);
            }
        }
        rig_close(&r); /* with jobs on their way: they are finished first */
        EXPECT_EQ(r.ended, sent);
        EXPECT_EQ(r.failures, 0);
    }
}

/* --- whose log it is -------------------------------------------------------------------------- */

static enum err open_as(const char *dir, uint64_t cluster, uint64_t node)
{
    struct cns_log *l;
    struct cns_log_config c = {.dir = dir, .cluster_id = cluster, .node_id = node, .first_term = 1};
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    enum err e = cns_log_open(&c, &l);
    if (e == ERR_OK)
        cns_log_close(l, NULL, NULL);
    return e;
}

TEST(log_belongs_to_one_cluster_and_one_node)
{
    const char *dir = test_path("raft");
    EXPECT_OK(open_as(dir, 1, 1));
    EXPECT_ERR(ERR_CONFIG, open_as(dir, 2, 1));
    EXPECT_ERR(ERR_CONFIG, open_as(dir, 1, 2));
    EXPECT_OK(open_as(dir, 1, 1));
    rig_flip(test_path("raft/identity"), 8, 0x2 ^ 0x3); /* version 3 */
    EXPECT_ERR(ERR_FORMAT, open_as(dir, 1, 1));
    rig_flip(test_path("raft/identity"), 8, 0x2 ^ 0x3);
    rig_flip(test_path("raft/identity"), 20, 8);
    EXPECT_ERR(ERR_CORRUPT, open_as(dir, 1, 1));
    EXPECT(unlink(test_path("raft/identity")) == 0);
    EXPECT_ERR(ERR_CORRUPT, open_as(dir, 1, 1)); /* never made anew over a log */
}

TEST(log_is_opened_by_one_at_a_time)
{
    struct rig r;
    rig_open(&r, test_path("raft"), 0);
    thread_expect_loop();
    EXPECT_ERR(ERR_LOCKED, open_as(test_path("raft"), CLUSTER, NODE));
    rig_close(&r);
    EXPECT_OK(open_as(test_path("raft"), CLUSTER, NODE));
}

/* --- reading beside writing ------------------------------------------------------------------- */

struct many_reads {
    struct read_ctx x[16];
    unsigned sent;
    uint64_t stable; /* entries up to here were durable all the time */
};

static void read_beside(struct rig *r, struct many_reads *m, struct rng *rng) ON_LOOP
{
    struct read_ctx *x = &m->x[m->sent++];
    rig_read_later(r, 1 + rng_below(rng, model.n), 50000, 100, x);
}

/* What was read is of one moment and passed its checksums, or is not there any more. A truncation
 * further up must not make it seem so. */
static void check_read(struct read_ctx *x, uint64_t stable)
{
    if (x->read.result == ERR_NOT_FOUND) {
        EXPECT(x->read.index > stable);
        return;
    }
    EXPECT_OK(x->read.result);
    for (unsigned i = 0; i < x->read.n_items; i++) {
        const struct cns_item *it = &x->read.items[i];
        EXPECT_EQ(it->index, x->read.index + i);
        EXPECT(it->payload == NULL || it->payload->len > 0);
    }
    cns_items_free(x->read.items, x->read.n_items);
}

TEST(log_reads_beside_appends_and_truncations)
{
    struct rng rng = {test_seed()};
    struct rig r;
    unsigned sent = 0;
    model_init(&model);
    rig_open(&r, test_path("raft"), 30000);
    thread_expect_loop();
    rig_start(&r);
    for (uint64_t round = 0; round < test_rounds(50); round++) {
        struct many_reads m = {.stable = model.n};
        for (unsigned i = 0; i < 16; i++) {
            if (rng_once_in(&rng, 3)) {
                uint64_t from = 2 + rng_below(&rng, model.n);
                model.n = from - 1;
                m.stable = model.n < m.stable ? model.n : m.stable;
                rig_submit(&r, (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = from},
                           &sent);
            } else {
                uint64_t from = model.n + 1;
                for (unsigned k = 0; k < 20; k++)
                    model_put(&model, 1, 300 * (1 + rng_below(&rng, 1000)) + 50);
                rig_append(&r, &model, from, 20, &sent);
            }
            read_beside(&r, &m, &rng);
            (void)uv_run(&r.loop, UV_RUN_NOWAIT);
        }
        rig_wait(&r, sent);
        for (unsigned i = 0; i < m.sent; i++) {
            while (!m.x[i].ended)
                (void)uv_run(&r.loop, UV_RUN_ONCE);
            check_read(&m.x[i], m.stable);
        }
    }
    EXPECT_EQ(r.failures, 0);
    rig_close(&r);
    rig_open(&r, test_path("raft"), 30000);
    rig_expect(&r, &model);
    rig_close(&r);
}
