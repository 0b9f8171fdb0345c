/* Room: tests. node/outcomes: what is known of a numbered write in each of its states, what is
 * forgotten, and that no byte of a section is believed. */
#include "node/outcomes.h"

#include "base/mem.h"
#include "base/rng.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

static struct wire_number number(uint32_t writer, uint64_t n, uint64_t acked, uint64_t since)
{
    struct wire_number out = {.number = n, .acked = acked, .since = since};
    set_le32(out.writer, writer);
    return out;
}

static enum outcome_known find(const struct outcomes *o, uint32_t writer, uint64_t n,
                               uint64_t since)
{
    struct outcome done;
    struct wire_number number_ = number(writer, n, 0, since);
    return outcomes_find(o, &number_, &done);
}

static void note(struct outcomes *o, uint32_t writer, uint64_t n, uint64_t acked)
{
    struct wire_number number_ = number(writer, n, acked, 0);
    outcomes_note(o, &number_, &(struct outcome){.changes = (int64_t)n}, false);
}

/* The section of what is tentative; it is sealed as SEQ. */
static void seal(struct outcomes *o, uint64_t seq, struct buf *section)
{
    buf_init(section, OUTCOMES_SECTION_MAX);
    outcomes_put_section(o, section);
    EXPECT_OK(buf_status(section));
    outcomes_seal(o, seq);
}

static void seal_and_publish(struct outcomes *o, uint64_t seq)
{
    struct buf section;
    seal(o, seq, &section);
    buf_fini(&section);
    outcomes_publish(o, seq);
}

/* --- states ----------------------------------------------------------------------------------- */

TEST(outcomes_know_a_write_from_its_note_on)
{
    struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
    outcomes_begin(o, 10);
    EXPECT_EQ(find(o, 1, 1, 10), OUTCOME_NONE);
    EXPECT_EQ(find(o, 1, 1, 9), OUTCOME_EXPIRED); /* it may have been done at 10 */
    note(o, 1, 1, 0);
    EXPECT_EQ(find(o, 1, 1, 10), OUTCOME_DONE);
    EXPECT_EQ(find(o, 1, 1, 0), OUTCOME_DONE); /* what is found is known, whatever since says */
    unsigned mark = outcomes_mark(o);
    note(o, 1, 2, 0);
    note(o, 2, 1, 0);
    outcomes_undo(o, mark);
    EXPECT_EQ(find(o, 1, 1, 10), OUTCOME_DONE);
    EXPECT_EQ(find(o, 1, 2, 10), OUTCOME_NONE);
    EXPECT_EQ(find(o, 2, 1, 10), OUTCOME_NONE);
    struct buf section;
    seal(o, 11, &section);
    buf_fini(&section);
    EXPECT_EQ(outcomes_mark(o), 0);
    EXPECT_EQ(find(o, 1, 1, 10), OUTCOME_DONE);
    note(o, 1, 2, 0);
    outcomes_lose(o);
    EXPECT_EQ(find(o, 1, 1, 10), OUTCOME_NONE);
    EXPECT_EQ(find(o, 1, 2, 10), OUTCOME_NONE);
    note(o, 1, 1, 0);
    seal_and_publish(o, 11);
    outcomes_lose(o);
    EXPECT_EQ(find(o, 1, 1, 10), OUTCOME_DONE);
    struct outcomes_stats stats;
    outcomes_get_stats(o, &stats);
    EXPECT(stats.covers == 10 && stats.seq == 11 && stats.writers == 1 && stats.outcomes == 1);
    outcomes_free(o);
}

TEST(outcomes_forget_what_was_acknowledged_and_do_not_run_it)
{
    struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
    struct outcomes_stats stats;
    outcomes_begin(o, 0);
    for (uint64_t n = 1; n <= 1000; n++) {
        note(o, 1, n, n - 1);
        seal_and_publish(o, n);
    }
    outcomes_get_stats(o, &stats);
    EXPECT(stats.outcomes == 1 && stats.covers == 0);
    EXPECT_EQ(find(o, 1, 1000, 999), OUTCOME_DONE);
    for (uint64_t n = 1; n < 1000; n++)
        EXPECT_EQ(find(o, 1, n, n), OUTCOME_EXPIRED);
    EXPECT_EQ(find(o, 1, 1001, 1000), OUTCOME_NONE);
    /* The client has heard them, also if the request that says so is undone. */
    note(o, 1, 1003, 1000);
    outcomes_undo(o, 0);
    EXPECT_EQ(find(o, 1, 1000, 999), OUTCOME_EXPIRED);
    outcomes_free(o);
}

TEST(outcomes_of_a_writer_have_a_limit)
{
    struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
    struct outcomes_stats stats;
    outcomes_begin(o, 0);
    const uint64_t n = WRITER_OUTCOMES_MAX + 100;
    for (uint64_t i = 1; i <= n; i++) {
        note(o, 1, i, 0);
        seal_and_publish(o, i);
    }
    outcomes_get_stats(o, &stats);
    EXPECT_EQ(stats.outcomes, WRITER_OUTCOMES_MAX);
    EXPECT_EQ(find(o, 1, 100, 0), OUTCOME_EXPIRED);
    EXPECT_EQ(find(o, 1, 101, 0), OUTCOME_DONE);
    outcomes_free(o);
}

TEST(outcomes_one_number_is_one_write)
{
    struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
    struct wire_number n = number(1, 5, 0, 0);
    struct outcome done;
    outcomes_begin(o, 0);
    outcomes_note(o, &n, &(struct outcome){.changes = 1}, false);
    outcomes_note(o, &n, &(struct outcome){.changes = 2}, false);
    EXPECT_EQ(outcomes_mark(o), 1);
    seal_and_publish(o, 1);
    outcomes_note(o, &n, &(struct outcome){.changes = 3}, false);
    EXPECT_EQ(outcomes_mark(o), 0);
    EXPECT_EQ(outcomes_find(o, &n, &done), OUTCOME_DONE);
    EXPECT_EQ(done.changes, 1);
    outcomes_free(o);
}

/* Beyond the limit the writer that was silent longest goes, and `covers` says what is not known. */
TEST(outcomes_evict_who_was_silent_longest)
{
    struct outcomes *o = outcomes_new(100000);
    struct outcomes_stats stats;
    outcomes_begin(o, 0);
    for (uint64_t i = 1; i <= 5000; i++) {
        note(o, (uint32_t)i, 1, 0);
        if (i % 2 == 0)
            note(o, 1, 1 + i, 0); /* it writes on */
        seal_and_publish(o, i);
        outcomes_get_stats(o, &stats);
        EXPECT(stats.bytes <= 100000);
    }
    EXPECT(stats.covers > 4000 && stats.covers < 5000);
    for (uint64_t i = 2; i <= 5000; i++) {
        enum outcome_known known = find(o, (uint32_t)i, 1, i - 1);
        EXPECT_EQ(known, i > stats.covers ? OUTCOME_DONE : OUTCOME_EXPIRED);
    }
    EXPECT_EQ(find(o, 1, 5001, 4999), OUTCOME_DONE);
    EXPECT_EQ(find(o, 6000, 1, stats.covers), OUTCOME_NONE);
    outcomes_free(o);
}

/* What is sealed must be there when it is published: it is not evicted, however little room. */
TEST(outcomes_keep_what_is_not_published)
{
    struct outcomes *o = outcomes_new(1);
    outcomes_begin(o, 0);
    struct buf section;
    for (uint64_t i = 1; i <= 100; i++) {
        note(o, (uint32_t)i, 1, 0);
        seal(o, i, &section);
        buf_fini(&section);
    }
    for (uint64_t i = 1; i <= 100; i++) {
        outcomes_publish(o, i);
        EXPECT_EQ(outcomes_covers(o), i);
        EXPECT_EQ(find(o, (uint32_t)i, 1, i - 1), OUTCOME_EXPIRED);
        for (uint64_t k = i + 1; k <= 100; k++)
            EXPECT_EQ(find(o, (uint32_t)k, 1, k - 1), OUTCOME_DONE);
    }
    outcomes_free(o);
}

TEST(outcomes_void_numbers_are_never_done)
{
    struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
    outcomes_begin(o, 5);
    struct wire_number n = number(1, 3, 2, 5), other = number(1, 4, 2, 5);
    EXPECT(!outcomes_is_void(o, &n));
    outcomes_void(o, &n, 7);
    EXPECT(outcomes_is_void(o, &n) && !outcomes_is_void(o, &other));
    EXPECT_EQ(find(o, 1, 3, 5), OUTCOME_VOID);
    note(o, 1, 4, 2);
    seal_and_publish(o, 8);
    EXPECT_EQ(find(o, 1, 3, 5), OUTCOME_VOID);
    struct wire_number heard = number(1, 2, 1, 5);
    EXPECT(outcomes_is_void(o, &heard)); /* its client had an answer */
    outcomes_lose(o);
    EXPECT_EQ(find(o, 1, 3, 5), OUTCOME_NONE);
    /* More than are kept: the newer ones, and a floor for all before. */
    for (uint32_t i = 0; i < OUTCOMES_VOIDS_MAX + 10; i++) {
        struct wire_number one = number(1000 + i, 1, 0, 8);
        outcomes_void(o, &one, 8 + i);
    }
    for (uint32_t i = 0; i < OUTCOMES_VOIDS_MAX + 10; i++) {
        struct wire_number one = number(1000 + i, 1, 0, 8);
        EXPECT(outcomes_is_void(o, &one));
    }
    struct wire_number newer = number(9, 1, 0, 18);
    EXPECT(!outcomes_is_void(o, &newer));
    outcomes_lose(o);
    struct outcomes_stats stats;
    outcomes_get_stats(o, &stats);
    EXPECT(stats.writers == 1 && stats.outcomes == 1);
    outcomes_free(o);
}

/* --- sections --------------------------------------------------------------------------------- */

/* A few of all kinds. */
static void make_section(struct buf *b)
{
    struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
    struct buf frames, error;
    struct wire_id id = {3, 4};
    static const char *const names[] = {"a", "b"};
    outcomes_begin(o, 0);
    buf_init(&frames, KIB(4));
    wire_put_columns(&frames, id, names, 2);
    size_t begun = wire_begin(&frames, WIRE_ROWS, id);
    buf_put_u32(&frames, 1);
    wire_put_value(&frames, &(struct wire_value){.type = WIRE_INTEGER, .integer = 7});
    wire_put_value(&frames, &(struct wire_value){.type = WIRE_NULL});
    wire_end(&frames, begun);
    wire_put_step(&frames, id, &(struct wire_step){1, 2});
    struct wire_number n = number(1, 10, 9, 0);
    outcomes_note(o, &n,
                  &(struct outcome){.changes = -1,
                                    .last_insert_rowid = INT64_MIN,
                                    .frames = frames.data,
                                    .frames_len = frames.len},
                  false);
    buf_init(&error, KIB(4));
    wire_put_error(
        &error, id,
        &(struct wire_error){
            .code = ERR_SQL, .sqlite_code = 1555, .offset = -1, .message = "no", .message_len = 2});
    n = number(2, 1, 0, 0);
    outcomes_note(o, &n,
                  &(struct outcome){.failed = true, .frames = error.data, .frames_len = error.len},
                  true);
    EXPECT(outcomes_need_entry(o));
    n = number(3, UINT64_MAX, 0, 0);
    static uint8_t large[OUTCOME_ROWS_MAX + 1];
    outcomes_note(o, &n, &(struct outcome){.frames = large, .frames_len = sizeof large}, false);
    buf_init(b, OUTCOMES_SECTION_MAX);
    outcomes_put_section(o, b);
    EXPECT_OK(buf_status(b));
    buf_fini(&frames);
    buf_fini(&error);
    outcomes_free(o);
}

/* As bytes of just this size, so that a read beyond the end is seen. */
static enum err apply(struct outcomes *o, uint64_t seq, const uint8_t *p, size_t n)
{
    uint8_t *copy = mem_alloc(n == 0 ? 1 : n);
    memcpy(copy, p, n);
    enum err e = outcomes_apply(o, seq, copy, n);
    free(copy);
    return e;
}

TEST(outcomes_a_section_says_all)
{
    struct buf section, out;
    struct outcome done;
    make_section(&section);
    struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
    outcomes_begin(o, 0);
    EXPECT_OK(apply(o, 1, section.data, section.len));
    struct wire_number n = number(1, 10, 0, 0);
    EXPECT_EQ(outcomes_find(o, &n, &done), OUTCOME_DONE);
    EXPECT(done.changes == -1 && done.last_insert_rowid == INT64_MIN && !done.failed);
    buf_init(&out, KIB(4));
    outcome_put_frames(&out, &done, (struct wire_id){8, 9});
    size_t at = 0, used;
    static const enum wire_type want[] = {WIRE_COLUMNS, WIRE_ROWS, WIRE_STEP};
    for (unsigned i = 0; i < 3; i++, at += used) {
        struct wire_frame f;
        EXPECT_OK(wire_next(out.data + at, out.len - at, KIB(4), &f, &used));
        EXPECT(f.type == want[i] && f.id.stream == 8 && f.id.request == 9);
    }
    EXPECT_EQ(at, out.len);
    buf_fini(&out);
    EXPECT_EQ(find(o, 1, 9, 0), OUTCOME_EXPIRED);
    n = number(2, 1, 0, 0);
    EXPECT_EQ(outcomes_find(o, &n, &done), OUTCOME_DONE);
    EXPECT(done.failed);
    n = number(3, UINT64_MAX, 0, 0);
    EXPECT_EQ(outcomes_find(o, &n, &done), OUTCOME_DONE);
    EXPECT(done.rows_lost && done.frames_len == 0);
    /* Known already: nothing. */
    EXPECT_OK(apply(o, 1, section.data, section.len));
    EXPECT_OK(outcomes_apply(o, 2, NULL, 0));
    struct outcomes_stats stats;
    outcomes_get_stats(o, &stats);
    EXPECT(stats.outcomes == 3 && stats.seq == 2);
    outcomes_free(o);
    buf_fini(&section);
}

TEST(outcomes_refuse_a_section_that_is_none)
{
    struct buf section;
    make_section(&section);
    struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
    struct outcomes_stats stats;
    outcomes_begin(o, 0);
    for (size_t n = 1; n < section.len; n++)
        EXPECT_ERR(ERR_CORRUPT, apply(o, 1, section.data, n));
    uint8_t *p = mem_alloc(section.len + 1);
    memcpy(p, section.data, section.len);
    p[section.len] = 0;
    EXPECT_ERR(ERR_CORRUPT, apply(o, 1, p, section.len + 1));
    set_le32(p + 1, 0); /* none */
    EXPECT_ERR(ERR_CORRUPT, apply(o, 1, p, section.len));
    set_le32(p + 1, UINT32_MAX);
    EXPECT_ERR(ERR_CORRUPT, apply(o, 1, p, section.len));
    memcpy(p, section.data, section.len);
    p[0] = 2;
    EXPECT_ERR(ERR_FORMAT, apply(o, 1, p, section.len));
    outcomes_get_stats(o, &stats);
    EXPECT(stats.outcomes == 0 && stats.seq == 0); /* nothing of them was taken */
    free(p);
    outcomes_free(o);
    buf_fini(&section);
}

/* Every bit wrong: it is refused, or it is another section; both without harm. */
TEST(outcomes_survive_any_bit_of_a_section)
{
    struct buf section;
    make_section(&section);
    unsigned refused = 0;
    for (size_t i = 0; i < section.len * 8; i++) {
        struct outcomes *o = outcomes_new(OUTCOMES_BYTES_MAX);
        struct outcome done;
        outcomes_begin(o, 0);
        section.data[i / 8] ^= (uint8_t)(1u << i % 8);
        enum err e = apply(o, 1, section.data, section.len);
        section.data[i / 8] ^= (uint8_t)(1u << i % 8);
        EXPECT(e == ERR_OK || e == ERR_CORRUPT || e == ERR_FORMAT);
        refused += e != ERR_OK;
        struct wire_number n = number(1, 10, 0, 0);
        if (outcomes_find(o, &n, &done) == OUTCOME_DONE) {
            struct buf out;
            buf_init(&out, KIB(8));
            outcome_put_frames(&out, &done, (struct wire_id){1, 1});
            EXPECT_OK(buf_status(&out));
            buf_fini(&out);
        }
        outcomes_free(o);
    }
    EXPECT(refused > section.len * 8 / 4);
    buf_fini(&section);
}

TEST(outcomes_survive_noise)
{
    struct rng r = {test_seed()};
    struct buf section;
    make_section(&section);
    uint8_t *p = mem_alloc(section.len);
    for (uint64_t i = 0, n = test_rounds(20000); i < n; i++) {
        struct outcomes *o = outcomes_new(2000);
        outcomes_begin(o, 0);
        memcpy(p, section.data, section.len);
        for (uint64_t k = 1 + rng_below(&r, 4); k > 0; k--)
            p[rng_below(&r, section.len)] = (uint8_t)rng_u64(&r);
        enum err e = apply(o, 1, p, 1 + rng_below(&r, section.len));
        EXPECT(e == ERR_OK || e == ERR_CORRUPT || e == ERR_FORMAT);
        outcomes_free(o);
    }
    free(p);
    buf_fini(&section);
}

/* --- against a model that forgets nothing ----------------------------------------------------- */

#define WRITERS 12u
#define NUMBERS 3000u

struct model {
    uint64_t done_at[WRITERS][NUMBERS]; /* 0: not done */
    uint64_t next[WRITERS], acked[WRITERS];
    uint64_t since[WRITERS][NUMBERS]; /* of its first attempt */
};

/* A find may say less than the model knows, and never anything else. */
static void expect_as_model(const struct outcomes *o, const struct model *m, uint32_t w, uint64_t n)
{
    enum outcome_known known = find(o, w, n, m->since[w][n]);
    if (known == OUTCOME_DONE)
        EXPECT(m->done_at[w][n] != 0);
    if (known == OUTCOME_NONE)
        EXPECT(m->done_at[w][n] == 0);
    if (m->done_at[w][n] > outcomes_covers(o) && n > m->acked[w])
        EXPECT_EQ(known, OUTCOME_DONE);
}

/* A leader with flights that are lost now and then, and a follower that applies what is published;
 * they change places. */
TEST(outcomes_play_random_writers_like_a_model)
{
    struct rng r = {test_seed()};
    static struct model m;
    memset(&m, 0, sizeof m);
    struct outcomes *node[2] = {outcomes_new(6000), outcomes_new(9000)};
    unsigned leader = 0;
    uint64_t seq = 0;
    outcomes_begin(node[0], 0);
    outcomes_begin(node[1], 0);
    for (uint64_t round = 0, n = test_rounds(20000); round < n; round++) {
        struct outcomes *o = node[leader];
        struct buf section;
        uint32_t w[8];
        uint64_t num[8];
        unsigned made = 0;
        for (uint64_t k = rng_below(&r, 8); k > 0; k--) {
            uint32_t who = (uint32_t)rng_below(&r, WRITERS);
            /* A new one, or any old one again: late, or a retry. */
            uint64_t what = m.next[who];
            if (rng_once_in(&r, 3) && what > 0)
                what = 1 + rng_below(&r, what);
            else if (what + 1 < NUMBERS)
                m.since[who][what = ++m.next[who]] = seq;
            if (what == 0)
                continue;
            bool tentative = false;
            for (unsigned i = 0; i < made; i++)
                tentative |= w[i] == who && num[i] == what;
            if (!tentative)
                expect_as_model(o, &m, who, what);
            struct wire_number number_ = number(who, what, 0, m.since[who][what]);
            number_.acked = m.acked[who] < what ? m.acked[who] : what - 1;
            struct outcome done;
            if (outcomes_find(o, &number_, &done) != OUTCOME_NONE)
                continue;
            unsigned mark = outcomes_mark(o);
            outcomes_note(o, &number_, &(struct outcome){.changes = 1}, false);
            if (rng_once_in(&r, 5)) {
                outcomes_undo(o, mark);
                continue;
            }
            w[made] = who;
            num[made++] = what;
        }
        if (outcomes_mark(o) == 0)
            continue;
        EXPECT_EQ(outcomes_mark(o), made);
        seal(o, seq + 1, &section);
        if (rng_once_in(&r, 10)) {
            outcomes_lose(o);
        } else {
            seq++;
            outcomes_publish(o, seq);
            EXPECT_OK(apply(node[!leader], seq, section.data, section.len));
            for (unsigned i = 0; i < made; i++) {
                EXPECT_EQ(m.done_at[w[i]][num[i]], 0); /* never twice */
                m.done_at[w[i]][num[i]] = seq;
                if (rng_once_in(&r, 3) && num[i] == m.acked[w[i]] + 1)
                    m.acked[w[i]]++;
            }
        }
        buf_fini(&section);
        if (rng_once_in(&r, 20))
            leader = !leader;
        if (rng_once_in(&r, 500)) /* fetched an image */
            outcomes_begin(node[!leader], seq);
    }
    EXPECT(seq > 100);
    outcomes_free(node[0]);
    outcomes_free(node[1]);
}
