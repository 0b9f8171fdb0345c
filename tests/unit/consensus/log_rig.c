/* Room: tests. Thread: the test's, as loop. */
#include "tests/unit/consensus/log_rig.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- entries ---------------------------------------------------------------------------------- */

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

void model_put(struct model *m, uint64_t term, uint64_t tag)
{
    EXPECT(m->n + 1 < MODEL);
    m->n++;
    m->e[m->n].term = term;
    m->e[m->n].tag = tag;
}

bool model_has(const struct model *m, const struct cns_item *got)
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

static enum err try_open(struct rig *r, const char *dir, uint64_t segment_bytes,
                         const struct cns_log_file_calls *calls, const struct cns_snapshot *base)
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
                               .base = base,
                               .segment_bytes = segment_bytes,
                               .calls = calls};
    enum err e = cns_log_open(&c, &r->log);
    cns_payload_unref(first.payload);
    return e;
}

enum err rig_try(struct rig *r, const char *dir, uint64_t segment_bytes,
                 const struct cns_log_file_calls *calls)
{
    return try_open(r, dir, segment_bytes, calls, NULL);
}

enum err rig_try_base(struct rig *r, const char *dir, const struct cns_snapshot *base)
{
    return try_open(r, dir, 0, NULL, base);
}

void rig_open(struct rig *r, const char *dir, uint64_t segment_bytes)
{
    EXPECT_OK(rig_try(r, dir, segment_bytes, NULL));
}

void rig_start(struct rig *r)
{
    EXPECT(uv_loop_init(&r->loop) == 0);
    r->loop.data = r;
    EXPECT_OK(cns_log_start(r->log, &r->loop));
}

static void rig_closed(void *ctx)
{
    ((struct rig *)ctx)->closed = true;
}

void rig_close(struct rig *r)
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
    r->ended++;
    if (job->kind != CNS_DISK_CUT)
        EXPECT_EQ(job->generation, r->in_order++); /* first in, first out */
    if (e != ERR_OK) {
        r->failures++;
        r->last_error = e;
        EXPECT(strlen(err_text()) > 0);
    } else
        EXPECT_EQ(r->failures, 0);
    if (job->kind == CNS_DISK_CUT)
        r->cut_first = job->index;
    if (job->kind == CNS_DISK_APPEND)
        cns_items_free(job->items, job->n_items);
    free(job);
}

void rig_submit(struct rig *r, struct cns_disk_job job, unsigned *sent)
{
    struct cns_disk_job *copy = mem_alloc(sizeof *copy);
    *copy = job;
    copy->ctx = r;
    copy->done = job_done;
    copy->generation = job.kind == CNS_DISK_CUT ? 0 : r->submitted++;
    (*sent)++;
    cns_log_submit(r->log, copy);
}

void rig_append(struct rig *r, const struct model *m, uint64_t from, unsigned n, unsigned *sent)
{
    rig_submit(
        r,
        (struct cns_disk_job){
            .kind = CNS_DISK_APPEND, .index = from, .items = items_of(m, from, n), .n_items = n},
        sent);
}

void rig_wait(struct rig *r, unsigned sent)
{
    while (r->ended < sent)
        (void)uv_run(&r->loop, UV_RUN_ONCE);
}

bool rig_wait_or_full(struct rig *r, unsigned sent)
{
    struct cns_log_state st = {0};
    while (r->ended < sent && !st.waits) {
        (void)uv_run(&r->loop, UV_RUN_NOWAIT);
        cns_log_get_state(r->log, &st);
        (void)usleep(100);
    }
    return r->ended == sent;
}

struct cns_snapshot rig_snapshot(uint64_t index, uint64_t term)
{
    struct cns_snapshot s = {.index = index,
                             .term = term,
                             .members_index = index / 2,
                             .highest_id = 9,
                             .members = payload_of(0, CNS_CHANGE),
                             .data_len = index % (CNS_SNAPSHOT_DATA_MAX + 1)};
    struct rng r = {index};
    for (size_t i = 0; i < s.data_len; i++)
        s.data[i] = (uint8_t)rng_u64(&r);
    return s;
}

bool rig_is_snapshot(const struct cns_snapshot *s, uint64_t index, uint64_t term)
{
    struct cns_snapshot want = rig_snapshot(index, term);
    bool same = s->index == index && s->term == term && s->members_index == want.members_index &&
                s->highest_id == want.highest_id && s->data_len == want.data_len &&
                memcmp(s->data, want.data, sizeof s->data) == 0 &&
                s->members->len == want.members->len &&
                memcmp(s->members->data, want.members->data, want.members->len) == 0;
    cns_payload_unref(want.members);
    return same;
}

void rig_cut(struct rig *r, struct model *m, uint64_t index, uint64_t keep_bytes, unsigned *sent)
{
    struct cns_log_state st;
    struct cns_snapshot s = rig_snapshot(index, m->e[index].term);
    rig_submit(
        r, (struct cns_disk_job){.kind = CNS_DISK_CUT, .snapshot = &s, .keep_bytes = keep_bytes},
        sent);
    rig_wait(r, *sent);
    cns_payload_unref(s.members);
    cns_log_get_state(r->log, &st);
    EXPECT(st.first_index >= m->first && st.first_index <= index + 1);
    EXPECT_EQ(st.first_index, r->cut_first);
    m->first = st.first_index;
    m->cut = index;
}

static void read_done(struct cns_disk_read *read, enum err e)
{
    EXPECT_EQ(e, read->result);
    ((struct read_ctx *)read->ctx)->ended = true;
}

void rig_read_later(struct rig *r, uint64_t index, uint64_t bytes, unsigned items,
                    struct read_ctx *x)
{
    *x = (struct read_ctx){
        .read = {.index = index, .max_bytes = bytes, .max_items = items, .done = read_done}};
    x->read.ctx = x;
    cns_log_submit_read(r->log, &x->read);
}

enum err rig_read(struct rig *r, uint64_t index, uint64_t bytes, unsigned items, struct read_ctx *x)
{
    rig_read_later(r, index, bytes, items, x);
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
    EXPECT(index >= c->m->first);
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
    EXPECT(model_has(c->m, &got));
    free(copy.data);
    return true;
}

void rig_expect(struct rig *r, const struct model *m)
{
    struct cns_log_state st;
    cns_log_get_state(r->log, &st);
    EXPECT_EQ(st.first_index, m->first);
    EXPECT_EQ(st.prev_term, m->e[m->first - 1].term);
    EXPECT_EQ(st.last_index, m->n);
    EXPECT_EQ(st.last_term, m->e[m->n].term);
    EXPECT_EQ(st.term, m->term);
    EXPECT_EQ(st.vote, m->vote);
    struct cns_snapshot s;
    EXPECT(cns_log_snapshot(r->log, &s) == (m->cut > 0));
    EXPECT(m->cut == 0 || rig_is_snapshot(&s, m->cut, m->e[m->cut].term));
    EXPECT_EQ(st.snapshot_index, m->cut);
    struct compare c = {m, m->first};
    cns_log_each(r->log, compare_visit, &c);
    EXPECT_EQ(c.next, m->n + 1);
    c.next = m->n;
    EXPECT_OK(cns_log_scan_back(r->log, compare_back, &c));
}

/* Entry 1 is the members' change that rig_try begins with. */
void model_init(struct model *m)
{
    memset(m, 0, sizeof *m);
    m->term = m->first = 1;
    model_put(m, 1, 5); /* 5 % 23 == 5: a change */
}

/* --- files ------------------------------------------------------------------------------------ */

int rig_create(void *ctx, const char *path, uint64_t bytes)
{
    (void)ctx;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 ? fd : -1;
}

int rig_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to);
}

int rig_remove(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path);
}

int rig_sync_dir(void *ctx, const char *dir)
{
    (void)ctx;
    (void)dir;
    return 0;
}

void rig_flip(const char *path, uint64_t offset, uint8_t mask)
{
    int fd = open(path, O_RDWR);
    uint8_t b;
    EXPECT(fd >= 0 && pread(fd, &b, 1, (off_t)offset) == 1);
    b ^= mask;
    EXPECT(pwrite(fd, &b, 1, (off_t)offset) == 1);
    (void)close(fd);
}

#define COPY_MAX MIB(4)

void rig_copy_file(const char *from, const char *to)
{
    struct buf b;
    buf_init(&b, COPY_MAX);
    EXPECT_OK(file_read_all(from, &b));
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    EXPECT(fd >= 0 && write(fd, b.data, b.len) == (ssize_t)b.len);
    (void)close(fd);
    buf_fini(&b);
}

void rig_empty_dir(const char *dir)
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

unsigned rig_list_files(const char *dir, const char *suffix, char **names, unsigned max)
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

void rig_free_names(char **names, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(names[i]);
}

void rig_copy_dir(const char *from, const char *to)
{
    char *names[64];
    rig_empty_dir(to);
    unsigned n = rig_list_files(from, "", names, 64);
    for (unsigned i = 0; i < n; i++) {
        char *a = mem_printf("%s/%s", from, names[i]), *b = mem_printf("%s/%s", to, names[i]);
        rig_copy_file(a, b);
        free(a);
        free(b);
        free(names[i]);
    }
}
