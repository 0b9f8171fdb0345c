/* Room: tests. consensus/log: nothing acknowledged is lost, nothing damaged is believed.
 *
 * Most tests drive the log as the driver does: jobs on a loop. The crash tests drive the writer
 * (log_store) itself, over calls that record what was written and synced; every moment of that
 * recording is then a possible power failure, after which any part of what was not synced may have
 * reached the disk or not. */
#include "consensus/log.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "consensus/log_load.h"
#include "consensus/log_read.h"
#include "tests/lib/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLUSTER 0xabcdef12u
#define NODE    7u
#define MODEL   20000u

/* --- entries ---------------------------------------------------------------------------------- */

/* What the log should hold: entries 1..n. */
struct model {
    uint64_t term, vote, n;
    struct {
        uint64_t term, tag; /* the payload follows from the tag */
        enum cns_kind kind;
    } e[MODEL];
};

/* One voter, "a:1", id 1: as raft_configuration_encode writes it. */
static const uint8_t members[] = {1, 1, 0, 0, 0, 0,   0,   0,   0, 1, 0, 0,
                                  0, 0, 0, 0, 0, 'a', ':', '1', 0, 1, 0, 0};
_Static_assert(sizeof members == 24, "padded");

static struct cns_payload *payload_of(uint64_t tag, enum cns_kind kind)
{
    if (kind == CNS_BARRIER)
        return NULL;
    size_t n = kind == CNS_CHANGE ? sizeof members : tag % 7 == 0 ? tag % 5000 : tag % 300;
    uint8_t *p = mem_alloc(n);
    struct rng r = {tag};
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)rng_u64(&r);
    if (kind == CNS_CHANGE)
        memcpy(p, members, n);
    return cns_payload_take(p, n);
}

static struct cns_item item_of(uint64_t index, uint64_t term, uint64_t tag)
{
    enum cns_kind kind = tag % 11 == 3 ? CNS_BARRIER : tag % 23 == 5 ? CNS_CHANGE : CNS_COMMAND;
    return (struct cns_item){index, term, kind, payload_of(tag, kind)};
}

static struct cns_item *items_of(const struct model *m, uint64_t from, unsigned n)
{
    struct cns_item *items = mem_alloc(n * sizeof *items);
    for (unsigned i = 0; i < n; i++)
        items[i] = item_of(from + i, m->e[from + i].term, m->e[from + i].tag);
    return items;
}

static void model_put(struct model *m, uint64_t term, uint64_t tag)
{
    EXPECT(m->n + 1 < MODEL);
    m->n++;
    m->e[m->n].term = term;
    m->e[m->n].tag = tag;
}

static bool same_item(const struct model *m, const struct cns_item *got)
{
    struct cns_item want = item_of(got->index, m->e[got->index].term, m->e[got->index].tag);
    bool same = want.term == got->term && want.kind == got->kind &&
                (want.payload == NULL) == (got->payload == NULL);
    if (same && want.payload != NULL)
        same = want.payload->len == got->payload->len &&
               memcmp(want.payload->data, got->payload->data, want.payload->len) == 0;
    cns_payload_unref(want.payload);
    return same;
}

/* --- a log on a loop -------------------------------------------------------------------------- */

struct rig {
    uv_loop_t loop;
    struct cns_log *log;
    unsigned ended, failures;
    enum err last_error;
    bool closed;
    struct cns_log_file_calls calls;
};

static enum err rig_try(struct rig *r, const char *dir, uint64_t segment_bytes,
                        const struct cns_log_file_calls *calls)
{
    static struct cns_item first = {.index = 1, .term = 1, .kind = CNS_CHANGE};
    memset(r, 0, sizeof *r);
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    first.payload = payload_of(0, CNS_CHANGE);
    struct cns_log_config c = {.dir = dir,
                               .cluster_id = CLUSTER,
                               .node_id = NODE,
                               .first_term = 1,
                               .first_items = &first,
                               .n_first_items = 1,
                               .segment_bytes = segment_bytes,
                               .calls = calls};
    enum err e = cns_log_open(&c, &r->log);
    cns_payload_unref(first.payload);
    return e;
}

static void rig_open(struct rig *r, const char *dir, uint64_t segment_bytes)
{
    EXPECT_OK(rig_try(r, dir, segment_bytes, NULL));
}

static void rig_start(struct rig *r) ON_LOOP
{
    EXPECT(uv_loop_init(&r->loop) == 0);
    r->loop.data = r;
    EXPECT_OK(cns_log_start(r->log, &r->loop));
}

static void rig_closed(void *ctx)
{
    ((struct rig *)ctx)->closed = true;
}

static void rig_close(struct rig *r) ON_LOOP
{
    bool started = r->loop.data != NULL;
    cns_log_close(r->log, rig_closed, r);
    if (started) {
        EXPECT(uv_run(&r->loop, UV_RUN_DEFAULT) == 0);
        EXPECT(uv_loop_close(&r->loop) == 0);
    }
    EXPECT(r->closed);
}

static void job_done(struct cns_disk_job *job, enum err e)
{
    struct rig *r = job->ctx;
    EXPECT_EQ(job->generation, r->ended); /* first in, first out */
    r->ended++;
    if (e != ERR_OK) {
        r->failures++;
        r->last_error = e;
        EXPECT(strlen(err_text()) > 0);
    } else
        EXPECT_EQ(r->failures, 0);
    if (job->kind == CNS_DISK_APPEND)
        cns_items_free(job->items, job->n_items);
    free(job);
}

static void submit(struct rig *r, struct cns_disk_job job, unsigned *sent) ON_LOOP
{
    struct cns_disk_job *copy = mem_alloc(sizeof *copy);
    *copy = job;
    copy->ctx = r;
    copy->done = job_done;
    copy->generation = (*sent)++;
    cns_log_submit(r->log, copy);
}

static void submit_append(struct rig *r, const struct model *m, uint64_t from, unsigned n,
                          unsigned *sent) ON_LOOP
{
    submit(r,
           (struct cns_disk_job){
               .kind = CNS_DISK_APPEND, .index = from, .items = items_of(m, from, n), .n_items = n},
           sent);
}

static void rig_wait(struct rig *r, unsigned sent)
{
    while (r->ended < sent)
        (void)uv_run(&r->loop, UV_RUN_ONCE);
}

struct read_ctx {
    struct cns_disk_read read;
    bool ended;
};

static void read_done(struct cns_disk_read *read, enum err e)
{
    EXPECT_EQ(e, read->result);
    ((struct read_ctx *)read->ctx)->ended = true;
}

static enum err rig_read(struct rig *r, uint64_t index, uint64_t bytes, unsigned items,
                         struct read_ctx *x) ON_LOOP
{
    *x = (struct read_ctx){
        .read = {.index = index, .max_bytes = bytes, .max_items = items, .done = read_done}};
    x->read.ctx = x;
    cns_log_submit_read(r->log, &x->read);
    while (!x->ended)
        (void)uv_run(&r->loop, UV_RUN_ONCE);
    return x->read.result;
}

/* --- comparing with the model ----------------------------------------------------------------- */

struct compare {
    const struct model *m;
    uint64_t next;
};

static void compare_visit(void *ctx, uint64_t index, uint64_t term, enum cns_kind kind,
                          struct cns_payload *payload)
{
    struct compare *c = ctx;
    EXPECT_EQ(index, c->next++);
    struct cns_item want = item_of(index, c->m->e[index].term, c->m->e[index].tag);
    EXPECT_EQ(term, want.term);
    EXPECT_EQ(kind, want.kind);
    EXPECT((payload != NULL) == (kind == CNS_CHANGE));
    cns_payload_unref(want.payload);
}

static bool compare_back(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    struct compare *c = ctx;
    while (index < c->next) { /* those between were no commands */
        struct cns_item it = item_of(c->next, c->m->e[c->next].term, c->m->e[c->next].tag);
        EXPECT(it.kind != CNS_COMMAND);
        cns_payload_unref(it.payload);
        c->next--;
    }
    EXPECT_EQ(index, c->next--);
    struct cns_payload copy = {.len = n};
    copy.data = mem_alloc(n);
    memcpy(copy.data, p, n);
    struct cns_item got = {index, term, CNS_COMMAND, &copy};
    EXPECT(same_item(c->m, &got));
    free(copy.data);
    return true;
}

static void expect_all(struct rig *r, const struct model *m) ON_LOOP
{
    struct cns_log_state st;
    cns_log_get_state(r->log, &st);
    EXPECT_EQ(st.first_index, 1);
    EXPECT_EQ(st.last_index, m->n);
    EXPECT_EQ(st.last_term, m->n == 0 ? 0 : m->e[m->n].term);
    EXPECT_EQ(st.term, m->term);
    EXPECT_EQ(st.vote, m->vote);
    struct compare c = {m, 1};
    cns_log_each(r->log, compare_visit, &c);
    EXPECT_EQ(c.next, m->n + 1);
    c.next = m->n;
    EXPECT_OK(cns_log_scan_back(r->log, compare_back, &c));
}

/* Entry 1 is the members' change that rig_try begins with. */
static void model_init(struct model *m)
{
    memset(m, 0, sizeof *m);
    m->term = 1;
    model_put(m, 1, 5); /* 5 % 23 == 5: a change */
}

static struct model model, other;

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
    expect_all(&r, &model);
    rig_close(&r);
    rig_open(&r, test_path("raft"), 0);
    cns_log_get_state(r.log, &st);
    EXPECT(!st.made);
    EXPECT_EQ(st.segments, 1);
    EXPECT_EQ(st.bytes, LOG_SEGMENT_BYTES);
    expect_all(&r, &model);
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
    submit(&r, (struct cns_disk_job){.kind = CNS_DISK_META, .term = 3, .vote = 2}, &sent);
    model.term = 3;
    model.vote = 2;
    for (uint64_t i = 0; i < 500; i++)
        model_put(&model, 3, 1000 + i);
    submit_append(&r, &model, 2, 1, &sent);
    submit_append(&r, &model, 3, 499, &sent);
    rig_wait(&r, sent);
    EXPECT_EQ(r.failures, 0);
    EXPECT_OK(rig_read(&r, 100, 1u << 30, 50, &x));
    EXPECT_EQ(x.read.n_items, 50);
    for (unsigned i = 0; i < 50; i++)
        EXPECT(x.read.items[i].index == 100 + i && same_item(&model, &x.read.items[i]));
    cns_items_free(x.read.items, x.read.n_items);
    EXPECT_OK(rig_read(&r, 501, 0, 50, &x)); /* the last; at least one, whatever the limit */
    EXPECT_EQ(x.read.n_items, 1);
    cns_items_free(x.read.items, x.read.n_items);
    EXPECT_ERR(ERR_NOT_FOUND, rig_read(&r, 502, 1, 1, &x));
    rig_close(&r);
    rig_open(&r, test_path("raft"), 0);
    expect_all(&r, &model);
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
    submit_append(&r, &model, 2, 300, &sent);
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

static int held_create(void *ctx, const char *path, uint64_t bytes)
{
    (void)ctx;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 ? fd : -1;
}

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

static int plain_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to);
}

static int plain_remove(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path);
}

static int no_sync_dir(void *ctx, const char *dir)
{
    (void)ctx;
    (void)dir;
    return 0;
}

TEST(log_syncs_waiting_jobs_together)
{
    struct rig r;
    unsigned sent = 0;
    struct cns_log_file_calls calls = {.create = held_create,
                                       .write = held_write,
                                       .sync = held_sync,
                                       .rename = plain_rename,
                                       .remove = plain_remove,
                                       .sync_dir = no_sync_dir};
    model_init(&model);
    EXPECT(sem_init(&held.go, 0, 0) == 0);
    EXPECT_OK(rig_try(&r, test_path("raft"), 0, &calls));
    thread_expect_loop();
    rig_start(&r);
    held.holding = true;
    held.syncs = held.writes = 0;
    for (uint64_t i = 0; i < 101; i++)
        model_put(&model, 1, 1000 + i);
    submit_append(&r, &model, 2, 1, &sent);
    while (held.syncs == 0) /* until the writer is inside the first sync */
        (void)uv_run(&r.loop, UV_RUN_NOWAIT);
    for (unsigned i = 0; i < 100; i++)
        submit_append(&r, &model, 3 + i, 1, &sent);
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
        submit_append(&r, &model, model.n, 1, &sent);
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
        submit(r,
               (struct cns_disk_job){.kind = CNS_DISK_META, .term = model.term, .vote = model.vote},
               sent);
    } else if (what == 1 && model.n > 1) {
        uint64_t back = rng_below(rng, rng_once_in(rng, 4) ? 400 : 20);
        uint64_t from = model.n > back + 1 ? model.n - back : 2;
        submit(r, (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = from}, sent);
        model.n = from - 1;
    } else {
        unsigned n = (unsigned)rng_below(rng, 12) + 1;
        uint64_t from = model.n + 1;
        uint64_t term = model.e[model.n].term;
        for (unsigned i = 0; i < n; i++) {
            if (rng_once_in(rng, 30))
                term = model.term;
            model_put(&model, term, rng_u64(rng) >> 1);
        }
        submit_append(r, &model, from, n, sent);
    }
}

static void random_read(struct rig *r, struct rng *rng) ON_LOOP
{
    struct read_ctx x;
    uint64_t at = 1 + rng_below(rng, model.n);
    EXPECT_OK(rig_read(r, at, rng_below(rng, 100000), 1 + (unsigned)rng_below(rng, 200), &x));
    EXPECT(x.read.n_items > 0);
    for (unsigned i = 0; i < x.read.n_items; i++)
        EXPECT(x.read.items[i].index == at + i && same_item(&model, &x.read.items[i]));
    cns_items_free(x.read.items, x.read.n_items);
}

TEST(log_random_life_agrees_with_a_model)
{
    struct rng rng = {test_seed()};
    model_init(&model);
    for (uint64_t life = 0; life < test_rounds(40); life++) {
        struct rig r;
        unsigned sent = 0;
        rig_open(&r, test_path("raft"), rng_once_in(&rng, 2) ? 12000 : 60000);
        thread_expect_loop();
        expect_all(&r, &model);
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

static void flip(const char *path, uint64_t offset, uint8_t mask)
{
    int fd = open(path, O_RDWR);
    uint8_t b;
    EXPECT(fd >= 0 && pread(fd, &b, 1, (off_t)offset) == 1);
    b ^= mask;
    EXPECT(pwrite(fd, &b, 1, (off_t)offset) == 1);
    (void)close(fd);
}

TEST(log_belongs_to_one_cluster_and_one_node)
{
    const char *dir = test_path("raft");
    EXPECT_OK(open_as(dir, 1, 1));
    EXPECT_ERR(ERR_CONFIG, open_as(dir, 2, 1));
    EXPECT_ERR(ERR_CONFIG, open_as(dir, 1, 2));
    EXPECT_OK(open_as(dir, 1, 1));
    flip(test_path("raft/identity"), 8, 1 ^ 2); /* version 2 */
    EXPECT_ERR(ERR_FORMAT, open_as(dir, 1, 1));
    flip(test_path("raft/identity"), 8, 1 ^ 2);
    flip(test_path("raft/identity"), 20, 8);
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

/* --- damage ----------------------------------------------------------------------------------- */

#define COPY_MAX MIB(4)

static void copy_file(const char *from, const char *to)
{
    struct buf b;
    buf_init(&b, COPY_MAX);
    EXPECT_OK(file_read_all(from, &b));
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    EXPECT(fd >= 0 && write(fd, b.data, b.len) == (ssize_t)b.len);
    (void)close(fd);
    buf_fini(&b);
}

static void empty_dir(const char *dir)
{
    DIR *d = opendir(dir);
    if (d == NULL) {
        EXPECT_OK(file_make_dirs(dir));
        return;
    }
    for (struct dirent *it; (it = readdir(d)) != NULL;)
        if (it->d_name[0] != '.') {
            char *path = mem_printf("%s/%s", dir, it->d_name);
            EXPECT(unlink(path) == 0);
            free(path);
        }
    (void)closedir(d);
}

/* Names of the files of DIR with SUFFIX, sorted; the caller frees. */
static unsigned list_files(const char *dir, const char *suffix, char **names, unsigned max)
{
    struct dirent **all;
    unsigned kept = 0;
    int n = scandir(dir, &all, NULL, alphasort);
    EXPECT(n >= 0);
    for (int i = 0; i < n; i++) {
        size_t len = strlen(all[i]->d_name);
        if (all[i]->d_name[0] != '.' && len >= strlen(suffix) &&
            strcmp(all[i]->d_name + len - strlen(suffix), suffix) == 0 && kept < max)
            names[kept++] = mem_strdup(all[i]->d_name);
        free(all[i]);
    }
    free(all);
    return kept;
}

static void free_names(char **names, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(names[i]);
}

static void copy_dir(const char *from, const char *to)
{
    char *names[64];
    empty_dir(to);
    unsigned n = list_files(from, "", names, 64);
    for (unsigned i = 0; i < n; i++) {
        char *a = mem_printf("%s/%s", from, names[i]), *b = mem_printf("%s/%s", to, names[i]);
        copy_file(a, b);
        free(a);
        free(b);
        free(names[i]);
    }
}

/* A log of several segments, with a truncation in its past, closed well. */
static void make_log(const char *dir)
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
        submit_append(&r, &model, from, 5, &sent);
        if (batch == 20) {
            submit(&r, (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = 60}, &sent);
            model.n = 59;
        }
        rig_wait(&r, sent);
    }
    rig_close(&r);
}

TEST(log_never_believes_a_flipped_bit)
{
    const char *from = test_path("raft"), *dir = test_path("copy");
    char *names[64];
    struct rng rng = {test_seed()};
    unsigned refused = 0, harmless = 0;
    make_log(from);
    unsigned n = list_files(from, "", names, 64);
    for (uint64_t round = 0; round < test_rounds(1500); round++) {
        const char *name = names[rng_below(&rng, n)];
        struct rig r;
        uint64_t size = 0;
        if (strcmp(name, "lock") == 0)
            continue;
        copy_dir(from, dir);
        char *path = mem_printf("%s/%s", dir, name);
        int fd = open(path, O_RDONLY);
        EXPECT_OK(file_size(fd, path, &size));
        (void)close(fd);
        /* Often near the end of what is written, where torn ends are. */
        flip(path, rng_below(&rng, size), (uint8_t)(1u << rng_below(&rng, 8)));
        enum err e = rig_try(&r, dir, 16384, NULL);
        thread_expect_loop();
        if (e == ERR_OK) {
            expect_all(&r, &model); /* the bit was in unused space, or there is another copy */
            rig_close(&r);
            harmless++;
        } else {
            EXPECT(e == ERR_CORRUPT || e == ERR_FORMAT);
            EXPECT(strstr(err_text(), "raft") != NULL || strstr(err_text(), dir) != NULL);
            refused++;
        }
        free(path);
    }
    EXPECT(refused > 10 && harmless > 10);
    free_names(names, n);
}

TEST(log_notices_a_missing_file)
{
    const char *from = test_path("raft"), *dir = test_path("copy");
    char *names[64];
    make_log(from);
    unsigned n = list_files(from, "", names, 64);
    EXPECT(n > 4);
    for (unsigned i = 0; i < n; i++) {
        struct rig r;
        if (strcmp(names[i], "lock") == 0)
            continue;
        copy_dir(from, dir);
        char *path = mem_printf("%s/%s", dir, names[i]);
        EXPECT(unlink(path) == 0);
        EXPECT_ERR(ERR_CORRUPT, rig_try(&r, dir, 16384, NULL));
        free(path);
    }
    free_names(names, n);
}

TEST(log_read_of_an_entry_damaged_meanwhile_names_it)
{
    struct rig r;
    struct read_ctx x;
    char *names[8];
    make_log(test_path("raft"));
    rig_open(&r, test_path("raft"), 16384);
    thread_expect_loop();
    rig_start(&r);
    EXPECT_EQ(list_files(test_path("raft"), ".seg", names, 1), 1);
    char *path = mem_printf("%s/%s", test_path("raft"), names[0]);
    flip(path, LOG_RECORDS_AT + LOG_RECORD_HEAD_BYTES + 3, 4);
    EXPECT_ERR(ERR_CORRUPT, rig_read(&r, 1, 100, 1, &x));
    EXPECT(strstr(err_text(), "entry 1 ") != NULL && strstr(err_text(), "4096") != NULL);
    EXPECT_OK(rig_read(&r, 2, 100, 1, &x)); /* the others are still there */
    EXPECT(same_item(&model, &x.read.items[0]));
    cns_items_free(x.read.items, x.read.n_items);
    free(path);
    free_names(names, 1);
    rig_close(&r);
}

/* --- failing calls ---------------------------------------------------------------------------- */

static struct {
    unsigned calls, fail_at;
    int error;
    bool short_write;
} broken;

static bool breaks(void)
{
    if (++broken.calls < broken.fail_at || broken.fail_at == 0)
        return false;
    errno = broken.error;
    return true;
}

static int broken_create(void *ctx, const char *path, uint64_t bytes)
{
    return breaks() ? -1 : held_create(ctx, path, bytes);
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
    return breaks() ? -1 : plain_rename(ctx, from, to);
}

static int broken_remove(void *ctx, const char *path)
{
    return breaks() ? -1 : plain_remove(ctx, path);
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
            submit(&r, (struct cns_disk_job){.kind = CNS_DISK_TRUNCATE, .index = other.n + 1},
                   &sent);
        } else if (step % 4 == 3) {
            other.term++;
            other.vote = step;
            submit(&r,
                   (struct cns_disk_job){
                       .kind = CNS_DISK_META, .term = other.term, .vote = other.vote},
                   &sent);
        } else {
            for (unsigned i = 0; i < 25; i++)
                model_put(&other, other.term, 9000 + 100 * step + i);
            submit_append(&r, &other, model.n + 1, 25, &sent);
        }
        rig_wait(&r, sent);
        if (r.failures == 0)
            model = other;
    }
    bool broke = r.failures > 0;
    if (broke) { /* it stays refused, with the same reason */
        enum err first = r.last_error;
        EXPECT(first == ERR_IO || first == ERR_FULL);
        submit(&r, (struct cns_disk_job){.kind = CNS_DISK_META, .term = 99}, &sent);
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
    expect_all(&r, &model);
    rig_close(&r);
}

static void fail_every_call(int error, bool short_write)
{
    const char *dir = test_path("raft");
    broken.error = error;
    broken.short_write = short_write;
    unsigned at = 1;
    for (bool broke = true; broke; at++) {
        empty_dir(dir);
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
