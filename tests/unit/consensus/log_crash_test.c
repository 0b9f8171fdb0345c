/* Room: tests. consensus/log: the power fails at every moment (log_disk.h). The log is loaded from
 * what a crash left and must hold exactly what was acknowledged, or that and a part of the one step
 * that was under way. Loading itself is recorded and crashed too. Some lives begin behind another
 * node's state; all of them cut their log, install states, and make spares. */
#include "tests/unit/consensus/log_disk.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/log_cut.h"
#include "consensus/log_load.h"
#include "consensus/log_read.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLUSTER       3u
#define NODE          4u
#define ENTRIES       700u
#define SEGMENT_BYTES 12288u /* 8 KiB of records: many segments */

/* --- what the log should hold -------------------------------------------------------------------
 */

struct model {
    uint64_t term, vote;
    uint64_t first, n, cut; /* entries first..n, a snapshot record of entry CUT (0: none) */
    struct {
        uint64_t term, tag;
    } e[ENTRIES + 1];
};

static struct cns_item item_of(const struct model *m, uint64_t index)
{
    uint64_t tag = m->e[index].tag;
    size_t n = tag % 9 == 0 ? 3000 + tag % 7000 : tag % 200; /* some larger than a segment's rest */
    uint8_t *p = mem_alloc(n);
    struct rng r = {tag};
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)rng_u64(&r);
    return (struct cns_item){index, m->e[index].term, CNS_COMMAND, cns_payload_take(p, n)};
}

/* The caller unrefs its members. */
static struct cns_snapshot snapshot_of(const struct model *m, uint64_t index)
{
    static const uint8_t members[] = {1, 1, 0, 0, 0, 0,   0,   0,   0, 1, 0, 0,
                                      0, 0, 0, 0, 0, 'a', ':', '1', 0, 1, 0, 0};
    struct cns_snapshot s = {.index = index, .term = m->e[index].term, .data_len = index % 200};
    memset(s.data, (int)(index % 251), s.data_len);
    uint8_t *p = mem_alloc(sizeof members);
    memcpy(p, members, sizeof members);
    s.members = cns_payload_take(p, sizeof members);
    return s;
}

/* A new log begins so. */
static struct model begin(bool behind_base)
{
    struct model m = {.term = 1, .first = 1, .n = 1};
    m.e[1].term = m.e[1].tag = 1;
    if (behind_base) {
        m.term = 4;
        m.n = m.cut = 40;
        m.first = 41;
        m.e[40].term = 4;
    }
    return m;
}

static bool behind_base; /* this life */

static enum err load_as(const char *dir, const struct cns_log_file_calls *calls,
                        struct log_store *s, struct log_outline *outline)
{
    const struct model new = begin(behind_base);
    struct cns_snapshot base = snapshot_of(&new, new.n);
    struct model first = {.n = 1};
    first.e[1].term = first.e[1].tag = 1;
    struct cns_item item = item_of(&first, 1);
    struct cns_log_config c = {.dir = dir,
                               .cluster_id = CLUSTER,
                               .node_id = NODE,
                               .first_term = 1,
                               .first_items = &item,
                               .n_first_items = 1,
                               .segment_bytes = SEGMENT_BYTES,
                               .calls = calls};
    if (behind_base)
        c.base = &base;
    enum err e = log_load(&c, s, outline);
    cns_payload_unref(item.payload);
    cns_payload_unref(base.members);
    return e;
}

static enum err load(const char *dir, const struct cns_log_file_calls *calls, struct log_store *s)
{
    struct log_outline outline;
    enum err e = load_as(dir, calls, s, &outline);
    log_outline_fini(&outline);
    return e;
}

/* Entries up to N of M, from wherever the log begins. */
static bool holds(struct log_store *s, const struct model *m, uint64_t n)
{
    if (s->index.last != n)
        return false;
    for (uint64_t at = log_index_first(&s->index); at <= n;) {
        struct cns_item *items;
        unsigned got;
        EXPECT_OK(log_read(&s->index, at, 100, 100000, &items, &got));
        bool same = at + got - 1 <= n;
        for (unsigned i = 0; i < got && same; i++) {
            struct cns_item want = item_of(m, at + i);
            same = items[i].index == at + i && items[i].term == want.term &&
                   items[i].payload->len == want.payload->len &&
                   memcmp(items[i].payload->data, want.payload->data, want.payload->len) == 0;
            cns_payload_unref(want.payload);
        }
        cns_items_free(items, got);
        if (!same)
            return false;
        at += got;
    }
    return true;
}

/* --- the script ---------------------------------------------------------------------------------
 */

enum step_kind {
    STEP_APPEND,
    STEP_TRUNCATE,
    STEP_META,
    STEP_MARK,
    STEP_REOPEN,
    STEP_BREAK,
    STEP_CUT,
    STEP_INSTALL,
    STEP_SPARE
};
struct step {
    enum step_kind kind;
    unsigned begin, end; /* its calls */
    struct model before, after;
};
#define STEPS 80u
static struct step steps[STEPS];
static struct disk disk, again;

static enum err append(struct log_store *s, const struct model *m, uint64_t from)
{
    for (uint64_t i = from; i <= m->n; i++) {
        struct cns_item it = item_of(m, i);
        enum err e = log_store_append(s, &it, 1);
        cns_payload_unref(it.payload);
        TRY(e);
    }
    return log_store_sync(s);
}

static void grow(struct model *m, struct rng *r)
{
    for (uint64_t i = rng_below(r, 9); i < 9; i++) {
        m->n++;
        m->e[m->n].term = rng_once_in(r, 6) ? m->term : m->e[m->n - 1].term;
        m->e[m->n].tag = rng_u64(r) >> 1;
    }
}

/* A sync fails in an append or a vote; the process ends, and starts again. What it then finds, it
 * must keep. */
static void run_break(struct step *st, struct log_store *s, const char *dir, struct rng *r)
{
    struct model *m = &st->after;
    disk.fail_sync = 1 + (unsigned)rng_below(r, 3);
    if (rng_once_in(r, 3)) {
        m->term++;
        m->vote = rng_u64(r);
        (void)!log_store_set_meta(s, m->term, m->vote);
    } else {
        grow(m, r);
        (void)!append(s, m, st->before.n + 1);
    }
    disk.fail_sync = 0;
    log_store_fini(s);
    EXPECT_OK(load(dir, &disk.calls, s));
    EXPECT(s->index.last >= st->before.n && s->index.last <= m->n);
    m->n = s->index.last;
    m->term = s->meta.now.term;
    m->vote = s->meta.now.vote;
}

static enum err cut_at(struct log_store *s, const struct model *m, uint64_t index, uint64_t keep)
{
    struct cns_snapshot record = snapshot_of(m, index);
    bool more = true;
    enum err e = log_cut_record(s, &record);
    while (e == ERR_OK && more)
        e = log_cut_step(s, keep, &more);
    cns_payload_unref(record.members);
    return e;
}

/* Sometimes a sync fails, and the process starts again: *m is then what it finds. */
static void run_cut(struct step *st, struct log_store *s, const char *dir, struct rng *r)
{
    struct model *m = &st->after;
    uint64_t low = m->cut == 0 ? 1 : m->cut;
    m->cut = low + rng_below(r, m->n - low + 1);
    disk.fail_sync = rng_once_in(r, 3) ? 1 + (unsigned)rng_below(r, 5) : 0;
    bool breaks = disk.fail_sync > 0;
    enum err e = cut_at(s, m, m->cut, rng_once_in(r, 2) ? 0 : rng_below(r, 20000));
    disk.fail_sync = 0;
    EXPECT(e == ERR_OK || breaks);
    if (breaks) {
        log_store_fini(s);
        EXPECT_OK(load(dir, &disk.calls, s));
    }
    EXPECT(e != ERR_OK || s->snapshot.s.index == m->cut);
    EXPECT(s->snapshot.s.index == m->cut || s->snapshot.s.index == st->before.cut);
    m->cut = s->snapshot.s.index;
    m->first = log_index_first(&s->index);
    EXPECT(m->first >= st->before.first && m->first <= m->cut + 1);
}

/* A state that the log has, or one beyond it, or one that it has otherwise. */
static void run_install(struct step *st, struct log_store *s, const char *dir, struct rng *r)
{
    struct model *m = &st->after;
    struct log_outline outline;
    uint64_t low = m->first == 1 ? 1 : m->first - 1;
    uint64_t index = low + rng_below(r, m->n - low + 1);
    if (rng_once_in(r, 2)) { /* emptied */
        index = rng_once_in(r, 2) || index <= m->cut ? m->n + 1 + rng_below(r, 9) : index;
        m->e[index].term = m->e[m->n].term + rng_below(r, 3) + (index <= m->n);
        if (m->e[index].term > m->term) {
            m->term = m->e[index].term;
            m->vote = 0;
        }
        m->n = index;
        m->first = index + 1;
    }
    m->cut = index;
    log_store_fini(s);
    EXPECT_OK(load_as(dir, &disk.calls, s, &outline)); /* an installation is before the start */
    disk.fail_sync = rng_once_in(r, 3) ? 1 + (unsigned)rng_below(r, 8) : 0;
    bool breaks = disk.fail_sync > 0;
    struct cns_snapshot record = snapshot_of(m, index);
    enum err e = log_cut_install(s, &outline, &record);
    disk.fail_sync = 0;
    EXPECT(e == ERR_OK || breaks);
    if (e == ERR_OK && rng_once_in(r, 2))
        EXPECT_OK(log_cut_install(s, &outline, &record)); /* twice is harmless */
    log_outline_fini(&outline);
    cns_payload_unref(record.members);
    if (breaks) {
        log_store_fini(s);
        EXPECT_OK(load(dir, &disk.calls, s));
    }
    struct model *found = s->snapshot.s.index == index ? m : &st->before;
    uint64_t term = s->meta.now.term, vote = s->meta.now.vote;
    EXPECT(found == m || e != ERR_OK);
    *m = *found;
    m->term = term;
    m->vote = vote;
}

static void run_step(struct step *st, struct log_store *s, const char *dir, struct rng *r)
{
    struct model *m = &st->after;
    static const enum step_kind mix[] = {STEP_APPEND,   STEP_APPEND, STEP_APPEND, STEP_APPEND,
                                         STEP_TRUNCATE, STEP_META,   STEP_MARK,   STEP_REOPEN,
                                         STEP_BREAK,    STEP_BREAK,  STEP_CUT,    STEP_CUT,
                                         STEP_INSTALL,  STEP_SPARE};
    st->kind = mix[rng_below(r, sizeof mix / sizeof *mix)];
    switch (st->kind) {
    case STEP_APPEND:
        grow(m, r);
        EXPECT_OK(append(s, m, st->before.n + 1));
        break;
    case STEP_TRUNCATE:
        m->n = m->n - rng_below(r, m->n - m->cut < 30 ? m->n - m->cut : 30);
        EXPECT_OK(log_store_truncate(s, m->n + 1));
        break;
    case STEP_META:
        m->term += rng_below(r, 3);
        m->vote = rng_u64(r);
        EXPECT_OK(log_store_set_meta(s, m->term, m->vote));
        break;
    case STEP_MARK:
        EXPECT_OK(log_store_mark(s));
        break;
    case STEP_REOPEN:
        log_store_fini(s);
        EXPECT_OK(load(dir, &disk.calls, s));
        break;
    case STEP_BREAK:
        run_break(st, s, dir, r);
        break;
    case STEP_CUT:
        run_cut(st, s, dir, r);
        break;
    case STEP_INSTALL:
        run_install(st, s, dir, r);
        break;
    case STEP_SPARE:
        if (log_store_spare_bytes(s) > 0)
            EXPECT(log_store_drop_spare(s));
        else
            EXPECT_OK(log_store_make_spare(s));
        break;
    }
    EXPECT(holds(s, m, m->n) && log_index_first(&s->index) == m->first);
    EXPECT_EQ(s->snapshot.s.index, m->cut);
}

static void run_script(struct rng *r)
{
    const char *dir = test_path("live");
    struct log_store s;
    behind_base = rng_once_in(r, 2);
    struct model m = begin(behind_base);
    disk_begin(&disk, dir);
    for (unsigned i = 0; i < STEPS; i++) {
        struct step *st = &steps[i];
        st->begin = disk.n_ops;
        st->before = st->after = m;
        if (i == 0) { /* the making */
            st->kind = STEP_REOPEN;
            EXPECT_OK(load(dir, &disk.calls, &s));
        } else
            run_step(st, &s, dir, r);
        st->end = disk.n_ops;
        m = st->after;
    }
    log_store_fini(&s);
}

/* --- judging ------------------------------------------------------------------------------------
 */

/* Does the log begin as M says? */
static bool begins(struct log_store *s, const struct model *m)
{
    const struct cns_snapshot *r = &s->snapshot.s;
    if (r->index != m->cut || log_index_first(&s->index) != m->first)
        return false;
    EXPECT(r->index == 0 || r->term == m->e[r->index].term);
    EXPECT_EQ(r->data_len, r->index % 200);
    return true;
}

/* What was loaded must be the state before ST, after it, or (an append, a cut) with a part of it;
 * after it, when ST was acknowledged. Returns which of the two it goes on from. */
static const struct model *judge(struct log_store *s, const struct step *st, bool acknowledged)
{
    const struct log_meta_record *meta = &s->meta.now;
    const struct model *a = &st->after, *b = &st->before;
    bool is_after = meta->term == a->term && meta->vote == a->vote;
    bool is_before = meta->term == b->term && meta->vote == b->vote;
    EXPECT(is_after || (is_before && !acknowledged));
    uint64_t first = log_index_first(&s->index), last = s->index.last;
    if (acknowledged) {
        EXPECT(begins(s, a) && holds(s, a, a->n));
        return a;
    }
    if (st->kind == STEP_APPEND || st->kind == STEP_BREAK) {
        EXPECT(begins(s, a) && last >= b->n && last <= a->n && holds(s, a, last));
        return a;
    }
    if (st->kind == STEP_CUT && s->snapshot.s.index == a->cut) {
        EXPECT(first >= b->first && first <= a->first && holds(s, a, a->n));
        return a;
    }
    if (begins(s, b) && holds(s, b, b->n))
        return b;
    EXPECT(begins(s, a) && holds(s, a, a->n));
    return a;
}

/* A log that was recovered is as good as any: it takes entries, and has them at the next start. */
static void live_on(struct log_store *s, const struct model *from, const char *dir,
                    const struct cns_log_file_calls *calls, struct rng *r)
{
    static struct model m;
    uint64_t n = s->index.last;
    m = *from;
    m.n = n;
    if (rng_once_in(r, 2))
        EXPECT_OK(log_store_make_spare(s));
    for (unsigned i = 0; i < 4; i++) {
        m.n++;
        m.e[m.n].term = s->meta.now.term;
        m.e[m.n].tag = rng_u64(r) >> 1;
    }
    EXPECT_OK(append(s, &m, n + 1));
    log_store_fini(s);
    EXPECT_OK(load(dir, calls, s));
    EXPECT(holds(s, &m, m.n));
}

static void crash_once(unsigned k, const struct step *st, enum leaves leaves, struct rng *r)
{
    const char *first = test_path("crashed"), *second = test_path("twice");
    struct log_store s;
    bool acknowledged = k >= st->end;
    disk_crash(&disk, k, leaves, r, first);
    /* Recovery, recorded; then the power fails in it, too. */
    disk_begin(&again, first);
    EXPECT_OK(load(first, &again.calls, &s));
    (void)judge(&s, st, acknowledged);
    log_store_fini(&s);
    unsigned k2 = (unsigned)rng_below(r, again.n_ops + 1);
    disk_crash(&again, k2, (enum leaves)rng_below(r, N_LEAVES), r, second);
    disk_end(&again);
    disk_begin(&again, second);
    EXPECT_OK(load(second, &again.calls, &s));
    live_on(&s, judge(&s, st, acknowledged), second, &again.calls, r);
    log_store_fini(&s);
    disk_end(&again);
}

static void crash_everywhere(uint64_t scripts)
{
    struct rng r = {test_seed()};
    thread_become(THREAD_LOOP);
    for (uint64_t round = 0; round < scripts; round++) {
        run_script(&r);
        unsigned at = 0;
        for (unsigned k = 0; k <= disk.n_ops; k++) {
            while (at + 1 < STEPS && k > steps[at].end)
                at++;
            /* At a step's last call it is acknowledged, and the next has not begun. */
            crash_once(k, &steps[at], (enum leaves)rng_below(&r, N_LEAVES), &r);
        }
        disk_end(&disk);
        disk_clear_dir(test_path("live"));
    }
}

TEST(log_survives_a_crash_at_every_call)
{
    crash_everywhere(test_rounds(2));
}

/* --- torn or damaged? ---------------------------------------------------------------------------
 */

static void flip(const char *path, uint64_t offset)
{
    uint8_t b;
    int fd = open(path, O_RDWR);
    EXPECT(fd >= 0 && pread(fd, &b, 1, (off_t)offset) == 1);
    b ^= 0x10;
    EXPECT(pwrite(fd, &b, 1, (off_t)offset) == 1);
    (void)close(fd);
}

/* A log of one segment: entry 1, then three synced batches of two entries; where each batch begins
 * goes to AT. Left as by a power failure right after the last sync. */
static void three_batches(const char *dir, struct model *m, uint64_t at[4], char **path)
{
    struct log_store s;
    *m = begin(false);
    EXPECT_OK(load(dir, NULL, &s));
    for (unsigned batch = 0; batch < 3; batch++) {
        at[batch] = s.end;
        for (unsigned i = 0; i < 2; i++) {
            m->n++;
            m->e[m->n].term = 1;
            m->e[m->n].tag = 100 + 10 * batch + i;
        }
        EXPECT_OK(append(&s, m, m->n - 1));
    }
    at[3] = s.end;
    *path = mem_strdup(s.active->path);
    log_store_fini(&s);
}

TEST(log_tells_damage_by_what_was_written_later)
{
    static struct model m;
    struct rng r = {test_seed()};
    thread_become(THREAD_LOOP);
    for (uint64_t round = 0; round < test_rounds(80); round++) {
        const char *dir = test_path("raft");
        struct log_store s;
        uint64_t at[4];
        char *path;
        disk_clear_dir(dir);
        three_batches(dir, &m, at, &path);
        uint64_t offset = at[0] + rng_below(&r, at[3] - at[0]);
        flip(path, offset);
        enum err e = load(dir, NULL, &s);
        if (offset < at[2]) { /* a later batch proves that this one was stored */
            EXPECT_EQ(e, ERR_CORRUPT);
            EXPECT(strstr(err_text(), path) != NULL && strstr(err_text(), "entry ") != NULL);
        } else { /* the last batch: nothing on the disk tells it from a torn write */
            EXPECT_OK(e);
            EXPECT(s.index.last >= 5 && s.index.last < 7 && holds(&s, &m, s.index.last));
            EXPECT(strcmp(s.active->path, path) != 0); /* the scraps are not written over */
        }
        log_store_fini(&s);
        free(path);
    }
}

TEST(log_tells_damage_to_the_last_batch_once_it_is_marked)
{
    static struct model m;
    const char *dir = test_path("raft");
    struct log_store s;
    uint64_t at[4];
    char *path;
    thread_become(THREAD_LOOP);
    three_batches(dir, &m, at, &path);
    EXPECT_OK(load(dir, NULL, &s)); /* a start marks, as idleness and a clean end do */
    log_store_fini(&s);
    flip(path, at[3] - 1);
    EXPECT_ERR(ERR_CORRUPT, load(dir, NULL, &s));
    log_store_fini(&s);
    free(path);
}

/* Payloads are anybody's bytes: also those of a log file. In a torn write they must not be taken
 * for proof of damage. */
TEST(log_is_not_misled_by_log_records_inside_a_payload)
{
    static struct model m;
    const char *dir = test_path("raft");
    struct log_store s;
    uint64_t at[4];
    char *path;
    struct buf file;
    thread_become(THREAD_LOOP);
    three_batches(dir, &m, at, &path);
    buf_init(&file, MIB(1));
    EXPECT_OK(file_read_all(path, &file));
    EXPECT_OK(load(dir, NULL, &s));
    uint64_t torn = s.end;
    size_t n = (size_t)(at[3] - at[0]); /* records that say "synced" beyond their own place */
    uint8_t *copy = mem_alloc(n);
    memcpy(copy, file.data + at[0], n);
    struct cns_item it = {s.last + 1, 1, CNS_COMMAND, cns_payload_take(copy, n)};
    EXPECT_OK(log_store_append(&s, &it, 1));
    EXPECT_OK(log_store_sync(&s));
    cns_payload_unref(it.payload);
    log_store_fini(&s);
    flip(path, torn + 8); /* as if the write of this batch had been torn */
    EXPECT_OK(load(dir, NULL, &s));
    EXPECT(holds(&s, &m, m.n));
    log_store_fini(&s);
    buf_fini(&file);
    free(path);
}

TEST(log_notices_a_segment_of_another_history)
{
    struct log_store s;
    char *middle[2] = {NULL, NULL};
    thread_become(THREAD_LOOP);
    for (unsigned which = 0; which < 2; which++) {
        static struct model m;
        m = begin(false);
        EXPECT_OK(load(test_path(which == 0 ? "one" : "two"), NULL, &s));
        for (unsigned i = 0; i < 200; i++) {
            m.n++;
            m.e[m.n].term = 1;
            m.e[m.n].tag = 9 * i + 1 + which * 1800; /* the same lengths, other bytes */
        }
        EXPECT_OK(append(&s, &m, 2));
        EXPECT(s.index.n > 2);
        middle[which] = mem_strdup(s.index.segments[1]->path);
        log_store_fini(&s);
    }
    EXPECT(strcmp(strrchr(middle[0], '/'), strrchr(middle[1], '/')) == 0);
    EXPECT(rename(middle[1], middle[0]) == 0);
    EXPECT_ERR(ERR_CORRUPT, load(test_path("one"), NULL, &s));
    EXPECT(strstr(err_text(), "does not continue") != NULL);
    log_store_fini(&s);
    free(middle[0]);
    free(middle[1]);
}
