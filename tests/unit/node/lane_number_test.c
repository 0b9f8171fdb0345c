/* Room: tests. Numbered writes in the writer lane: each is done once, however often it comes. */
#include "base/file.h"
#include "tests/lib/test.h"
#include "tests/unit/node/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INSERT "INSERT INTO t(v) VALUES ('x')"
#define COUNT  "SELECT count(*) FROM t"

static void open_leading_in(struct stage *s, const char *dir)
{
    EXPECT_OK(file_make_dirs(dir));
    stage_open(s, dir);
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    stage_lead(s, 2);
    stage_expect(s, 1, ERR_OK, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)");
}

static void open_leading(struct stage *s)
{
    open_leading_in(s, test_dir());
}

static struct wire_number number(uint8_t writer, uint64_t n, uint64_t acked, uint64_t since)
{
    struct wire_number out = {.number = n, .acked = acked, .since = since};
    memset(out.writer, writer, sizeof out.writer);
    return out;
}

static void send_numbered(struct stage *s, uint64_t session, uint32_t id, struct wire_number n,
                          unsigned flags, const char *sql) ON_LOOP
{
    stage_send_request(s, stage_make(session, id, WIRE_QUERY, WIRE_NUMBERED | flags, &n, &sql, 1));
}

/* The answer of request ID, which is waited for; request_free it. */
static struct request *answer(struct stage *s, uint32_t id) ON_LOOP
{
    struct request *r;
    for (int i = 0; i < 2000; i++) {
        if ((r = stage_take(s, id)) != NULL)
            return r;
        stage_step(s, 10);
    }
    test_fail(__FILE__, __LINE__, "no answer to request %u", id);
}

static void expect_answer(struct stage *s, uint32_t id, enum err code) ON_LOOP
{
    struct request *r = answer(s, id);
    if (r->answer.code != code)
        test_fail(__FILE__, __LINE__, "request %u: wanted %s, got %s (%s)", id, err_name((int)code),
                  err_name((int)r->answer.code),
                  r->answer.message == NULL ? "" : r->answer.message);
    request_free(r);
}

static void expect_numbered(struct stage *s, struct wire_number n, unsigned flags, const char *sql,
                            enum err code) ON_LOOP
{
    static uint32_t id = 5000000;
    send_numbered(s, 77, ++id, n, flags, sql);
    expect_answer(s, id, code);
}

static void settle(struct stage *s) ON_LOOP
{
    for (int i = 0; i < 20; i++)
        stage_step(s, 5);
}

static void send_role(struct stage *s, uint64_t term) ON_LOOP
{
    struct lane_role *role = calloc(1, sizeof *role);
    EXPECT(role != NULL);
    role->letter.kind = LANE_ROLE;
    role->term = term;
    lane_send(s->lane, &role->letter);
}

/* --- found ------------------------------------------------------------------------------------ */

TEST(number_a_duplicate_gets_the_first_answer)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    struct wire_number n = number(1, 1, 0, 1);
    static const char sql[] = "INSERT INTO t(id, v) VALUES (7, 'x') RETURNING id, v";
    send_numbered(&s, 1, 1, n, 0, sql);
    struct request *first = answer(&s, 1);
    EXPECT_OK(first->answer.code);
    send_numbered(&s, 2, 2, n, WIRE_AGAIN, sql);
    struct request *second = answer(&s, 2);
    EXPECT_OK(second->answer.code);
    EXPECT(second->needs_confirm && second->answer.seq >= first->answer.seq);
    EXPECT_EQ(second->answer.changes, 1);
    EXPECT_EQ(second->answer.last_insert_rowid, 7);
    /* The same frames, for its own request. */
    EXPECT_EQ(first->answer.out.len, second->answer.out.len);
    size_t used;
    for (size_t at = 0; at < first->answer.out.len; at += used) {
        struct wire_frame a, b;
        EXPECT_OK(
            wire_next(first->answer.out.data + at, first->answer.out.len - at, 1000, &a, &used));
        EXPECT_OK(
            wire_next(second->answer.out.data + at, second->answer.out.len - at, 1000, &b, &used));
        EXPECT(used > 0 && a.type == b.type && rd_left(&a.body) == rd_left(&b.body));
        EXPECT(memcmp(a.body.p, b.body.p, rd_left(&a.body)) == 0);
        EXPECT_EQ(b.id.request, 2);
    }
    request_free(first);
    request_free(second);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

TEST(number_a_duplicate_in_the_same_batch_is_not_run)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.flights_max = 1;
    s.delay_ms = 50; /* what comes while the first one flies shares a batch */
    stage_send(&s, 1, 1, INSERT);
    for (uint32_t i = 2; i < 12; i++)
        send_numbered(&s, i, i, number(1, 1 + i % 2, 0, 1), 0, INSERT);
    for (uint32_t i = 1; i < 12; i++)
        expect_answer(&s, i, ERR_OK);
    EXPECT_EQ(stage_number(&s, COUNT), 3);
    stage_close(&s);
}

TEST(number_a_duplicate_waits_for_the_first_one_in_flight)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.cut = true;
    send_numbered(&s, 1, 1, number(1, 1, 0, 1), 0, INSERT);
    settle(&s);
    send_numbered(&s, 2, 2, number(1, 1, 0, 1), WIRE_AGAIN, INSERT);
    settle(&s);
    EXPECT_EQ(s.n_answers, 0); /* no answer leaves before what it saw is committed */
    s.cut = false;
    expect_answer(&s, 1, ERR_OK);
    expect_answer(&s, 2, ERR_OK);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

TEST(number_a_duplicate_of_a_lost_flight_is_run_again)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.cut = true;
    send_numbered(&s, 1, 1, number(1, 1, 0, 1), 0, INSERT);
    send_numbered(&s, 2, 2, number(1, 1, 0, 1), WIRE_AGAIN, INSERT);
    settle(&s);
    stage_depose(&s, 5);
    expect_answer(&s, 1, ERR_NOT_LEADER);
    expect_answer(&s, 2, ERR_NOT_LEADER);
    stage_lead(&s, 6);
    expect_numbered(&s, number(1, 1, 0, 1), WIRE_AGAIN, INSERT, ERR_OK);
    expect_numbered(&s, number(1, 1, 0, 1), WIRE_AGAIN, INSERT, ERR_OK);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

TEST(number_a_doubtful_write_that_was_committed_is_known_to_the_next_leader)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.cut = true;
    send_numbered(&s, 1, 1, number(1, 1, 0, 1), 0, INSERT);
    settle(&s);
    send_role(&s, 5);
    s.cut = false; /* the new leader had the entry */
    expect_answer(&s, 1, ERR_OK);
    stage_lead(&s, 6);
    expect_numbered(&s, number(1, 1, 0, 1), WIRE_AGAIN, INSERT, ERR_OK);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

/* Another node, which only has the log. */
TEST(number_a_follower_that_leads_knows_what_was_done)
{
    struct stage a, b;
    open_leading_in(&a, test_path("a"));
    thread_expect_loop();
    for (uint64_t n = 1; n <= 100; n++)
        expect_numbered(&a, number(1, n, n - 1, n), 0, INSERT, ERR_OK);
    /* One of several parts: the section is in its last. */
    expect_numbered(&a, number(2, 1, 0, 1), 0,
                    "INSERT INTO t(v) VALUES (randomblob(3000000)) RETURNING 5", ERR_OK);
    EXPECT_OK(file_make_dirs(test_path("b")));
    stage_open(&b, test_path("b"));
    stage_copy_log(&b, &a);
    stage_lead(&b, 3);
    expect_numbered(&b, number(1, 100, 0, 100), WIRE_AGAIN, INSERT, ERR_OK);
    expect_numbered(&b, number(1, 99, 0, 99), WIRE_AGAIN, INSERT, ERR_EXPIRED); /* was answered */
    expect_numbered(&b, number(2, 1, 0, 1), WIRE_AGAIN, INSERT, ERR_OK);
    EXPECT_EQ(stage_number(&b, COUNT), 101);
    stage_close(&a);
    stage_close(&b);
}

TEST(number_a_start_reads_the_log)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    expect_numbered(&s, number(1, 1, 0, 1), 0, INSERT, ERR_OK);
    expect_numbered(&s, number(2, 1, 0, 1), 0, "INSERT INTO t(v) VALUES (randomblob(2500000))",
                    ERR_OK);
    for (int round = 0; round < 3; round++) {
        stage_restart(&s);
        stage_lead(&s, s.term + 1);
        expect_numbered(&s, number(1, 1, 0, 1), WIRE_AGAIN, INSERT, ERR_OK);
        expect_numbered(&s, number(2, 1, 0, 1), WIRE_AGAIN, INSERT, ERR_OK);
        EXPECT_EQ(stage_number(&s, COUNT), 2);
    }
    stage_close(&s);
}

/* --- not to be run ---------------------------------------------------------------------------- */

TEST(number_a_delayed_duplicate_of_an_answered_write_is_not_run)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    expect_numbered(&s, number(1, 1, 0, 1), 0, INSERT, ERR_OK);
    expect_numbered(&s, number(1, 2, 1, 2), 0, INSERT, ERR_OK); /* it heard the answer of 1 */
    expect_numbered(&s, number(1, 1, 0, 1), 0, INSERT, ERR_EXPIRED);
    stage_restart(&s);
    stage_lead(&s, 3);
    expect_numbered(&s, number(1, 1, 0, 1), 0, INSERT, ERR_EXPIRED);
    EXPECT_EQ(stage_number(&s, COUNT), 2);
    stage_close(&s);
}

/* The table does not reach back to what the client had seen when it sent the first attempt. */
TEST(number_what_cannot_be_told_is_not_run)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    expect_numbered(&s, number(1, 1, 0, 1), 0, INSERT, ERR_OK);
    EXPECT_OK(file_make_dirs(test_path("b")));
    struct list kept;
    list_init(&kept);
    list_splice(&kept, &s.log); /* the log was cut behind the newest state */
    stage_restart(&s);
    stage_lead(&s, 3);
    uint64_t covers = (uint64_t)stage_number(&s, "SELECT 2"); /* CREATE TABLE, INSERT */
    send_numbered(&s, 1, 1, number(1, 1, 0, covers - 1), WIRE_AGAIN, INSERT);
    struct request *r = answer(&s, 1);
    EXPECT_EQ(r->answer.code, ERR_EXPIRED);
    EXPECT(r->answer.seq >= covers);
    /* Sent once, and surely not run: again, with what the answer says. */
    expect_numbered(&s, number(9, 1, 0, r->answer.seq), 0, INSERT, ERR_OK);
    request_free(r);
    EXPECT_EQ(stage_number(&s, COUNT), 2);
    list_splice(&s.log, &kept);
    stage_close(&s);
}

TEST(number_the_other_attempt_of_a_failure_fails_like_it)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    expect_numbered(&s, number(1, 1, 0, 1), 0, "INSERT INTO t(id) VALUES (1)", ERR_OK);
    /* Twice: its first attempt is late, its second fails and is answered. */
    static const char sql[] = "INSERT INTO t(id) VALUES (1)";
    send_numbered(&s, 1, 1, number(1, 2, 1, 2), WIRE_AGAIN, sql);
    struct request *second = answer(&s, 1);
    EXPECT_EQ(second->answer.code, ERR_SQL);
    stage_expect(&s, 9, ERR_OK, "DELETE FROM t");
    for (int round = 0; round < 2; round++) {
        send_numbered(&s, 1, 2, number(1, 2, 1, 2), 0, sql); /* now it would do */
        struct request *first = answer(&s, 2);
        EXPECT_EQ(first->answer.code, ERR_SQL);
        EXPECT_EQ(first->answer.sqlite_code, second->answer.sqlite_code);
        EXPECT_EQ(first->answer.offset, second->answer.offset);
        EXPECT(strcmp(first->answer.message, second->answer.message) == 0);
        request_free(first);
        stage_restart(&s);
        stage_lead(&s, s.term + 1);
    }
    request_free(second);
    EXPECT_EQ(stage_number(&s, COUNT), 0);
    stage_close(&s);
}

TEST(number_the_other_attempt_of_a_write_without_effect_has_none)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 9, ERR_OK, "PRAGMA user_version = 42");
    static const char sql[] = "DELETE FROM t WHERE id > 0";
    unsigned before = s.n_proposals;
    expect_numbered(&s, number(1, 1, 0, 1), WIRE_AGAIN, sql, ERR_OK);
    EXPECT_EQ(s.n_proposals, before + 1);
    EXPECT_EQ(stage_number(&s, "PRAGMA user_version"), 42);
    stage_expect(&s, 9, ERR_OK, INSERT);
    stage_restart(&s);
    stage_lead(&s, 3);
    send_numbered(&s, 1, 2, number(1, 1, 0, 1), 0, sql);
    struct request *r = answer(&s, 2);
    EXPECT_OK(r->answer.code);
    EXPECT_EQ(r->answer.changes, 0);
    request_free(r);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

/* Of a write that was sent once nobody has another attempt: no entry for nothing. */
TEST(number_a_first_attempt_without_effect_costs_no_entry)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    unsigned before = s.n_proposals;
    expect_numbered(&s, number(1, 1, 0, 1), 0, "DELETE FROM t WHERE id > 0", ERR_OK);
    expect_numbered(&s, number(1, 2, 1, 1), 0, "INSERT INTO nowhere VALUES (1)", ERR_SQL);
    expect_numbered(&s, number(1, 3, 2, 1), 0, "SELECT 1", ERR_OK);
    EXPECT_EQ(s.n_proposals, before);
    stage_close(&s);
}

/* One that ends the transaction of all is taken out, and the others run again: what was noted for
 * them before counts no more. */
TEST(number_a_batch_that_is_rolled_back_leaves_no_outcomes)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "CREATE TABLE u(a UNIQUE ON CONFLICT ROLLBACK)");
    stage_expect(&s, 1, ERR_OK, "INSERT INTO u VALUES (1)");
    s.config.flights_max = 1;
    s.delay_ms = 50;
    stage_send(&s, 1, 1, INSERT);
    send_numbered(&s, 2, 2, number(1, 1, 0, 1), 0, INSERT);
    send_numbered(&s, 3, 3, number(1, 2, 0, 1), 0, "INSERT INTO u VALUES (1)");
    send_numbered(&s, 4, 4, number(1, 3, 0, 1), 0, INSERT);
    send_numbered(&s, 5, 5, number(1, 1, 0, 1), 0, INSERT);
    expect_answer(&s, 1, ERR_OK);
    expect_answer(&s, 2, ERR_OK);
    expect_answer(&s, 3, ERR_SQL);
    expect_answer(&s, 4, ERR_OK);
    expect_answer(&s, 5, ERR_OK);
    EXPECT_EQ(stage_number(&s, COUNT), 3);
    stage_expect(&s, 1, ERR_OK, "DELETE FROM u");
    /* It failed as a first attempt: its retry may be done. */
    expect_numbered(&s, number(1, 2, 0, 1), WIRE_AGAIN, "INSERT INTO u VALUES (1)", ERR_OK);
    stage_close(&s);
}

TEST(number_an_error_that_was_noted_is_settled)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    static const char sql[] = "INSERT INTO nowhere VALUES (1)";
    for (uint32_t id = 1; id <= 2; id++) {
        send_numbered(&s, id, id, number(1, 1, 0, 1), WIRE_AGAIN, sql);
        struct request *r = answer(&s, id);
        EXPECT_EQ(r->answer.code, ERR_SQL);
        EXPECT_EQ(r->answer.settled, id == 2); /* the first has made the note */
        request_free(r);
    }
    stage_close(&s);
}

/* --- large answers, many outcomes ------------------------------------------------------------- */

TEST(number_rows_that_are_too_many_to_keep_are_said_to_be_lost)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    static const char sql[] = "INSERT INTO t(v) VALUES (zeroblob(5000)) RETURNING v";
    expect_numbered(&s, number(1, 1, 0, 1), 0, sql, ERR_OK);
    expect_numbered(&s, number(1, 1, 0, 1), WIRE_AGAIN, sql, ERR_ROWS_LOST);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

/* 300 answers of 3.5 KB are more than a section holds: the batch is cut, and nothing is lost. */
TEST(number_a_batch_is_cut_when_its_outcomes_fill_the_section)
{
    enum { N = 300 };
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.flights_max = 1;
    s.delay_ms = 100;
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES ('first')");
    static const char sql[] = "INSERT INTO t(v) VALUES (hex(zeroblob(1750))) RETURNING v";
    for (uint32_t i = 2; i < N; i++)
        send_numbered(&s, i, i, number(1, i, 0, 1), 0, sql);
    stage_step(&s, 30);
    s.delay_ms = 0;
    for (uint32_t i = 1; i < N; i++)
        expect_answer(&s, i, ERR_OK);
    EXPECT(s.n_proposals > 5); /* CREATE, the first, and more than four of 256 KiB */
    EXPECT_EQ(stage_number(&s, COUNT), N - 1);
    stage_restart(&s);
    stage_lead(&s, 3);
    for (uint32_t i = 2; i < N; i++)
        send_numbered(&s, i, i, number(1, i, 0, 1), WIRE_AGAIN, sql);
    for (uint32_t i = 2; i < N; i++)
        expect_answer(&s, i, ERR_OK);
    EXPECT_EQ(stage_number(&s, COUNT), N - 1);
    stage_close(&s);
}

/* --- VACUUM, transactions --------------------------------------------------------------------- */

TEST(number_a_vacuum_is_done_once)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, INSERT);
    unsigned before = s.n_proposals;
    expect_numbered(&s, number(1, 1, 0, 1), 0, "VACUUM", ERR_OK);
    EXPECT_EQ(s.n_proposals, before + 1);
    expect_numbered(&s, number(1, 1, 0, 1), WIRE_AGAIN, "VACUUM", ERR_OK);
    EXPECT_EQ(s.n_proposals, before + 1);
    stage_close(&s);
}

static void resolve(struct stage *s, struct wire_number n, enum err code) ON_LOOP
{
    static uint32_t id = 7000000;
    send_numbered(s, 999, ++id, n, WIRE_RESOLVE, "COMMIT");
    struct request *r = answer(s, id);
    EXPECT_EQ(r->answer.code, code);
    EXPECT(r->needs_confirm && !r->answer.in_transaction);
    request_free(r);
}

TEST(number_a_commit_of_nothing_costs_no_entry_while_another_transaction_writes)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "BEGIN IMMEDIATE");
    stage_expect(&s, 1, ERR_OK, INSERT);
    stage_expect(&s, 2, ERR_OK, "BEGIN");
    stage_expect(&s, 2, ERR_OK, COUNT);
    unsigned before = s.n_proposals;
    send_numbered(&s, 2, 1, number(2, 1, 0, 1), WIRE_AGAIN, "COMMIT");
    struct request *r = answer(&s, 1);
    EXPECT_OK(r->answer.code);
    EXPECT(!r->answer.in_transaction);
    request_free(r);
    EXPECT_EQ(s.n_proposals, before);
    stage_expect(&s, 1, ERR_OK, "COMMIT");
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

TEST(number_resolve_finds_a_commit_that_was_done)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 1, ERR_OK, "BEGIN");
    stage_expect(&s, 1, ERR_OK, INSERT);
    s.cut = true;
    send_numbered(&s, 1, 1, number(1, 1, 0, 1), 0, "COMMIT");
    settle(&s);
    send_numbered(&s, 2, 2, number(1, 1, 0, 1), WIRE_RESOLVE, "COMMIT");
    settle(&s);
    EXPECT_EQ(s.n_answers, 0); /* it is in flight, not done */
    s.cut = false;
    expect_answer(&s, 1, ERR_OK);
    expect_answer(&s, 2, ERR_OK);
    stage_restart(&s);
    stage_lead(&s, 3);
    resolve(&s, number(1, 1, 0, 1), ERR_OK);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

TEST(number_a_commit_that_comes_after_its_resolve_is_not_done)
{
    static const char *const ends[] = {"COMMIT", "END", "RELEASE a"};
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    for (uint64_t i = 0; i < 3; i++) {
        stage_expect(&s, i + 1, ERR_OK, i == 2 ? "SAVEPOINT a" : "BEGIN");
        stage_expect(&s, i + 1, ERR_OK, INSERT);
        resolve(&s, number(1, i + 1, i, 1), ERR_TXN_LOST);
        resolve(&s, number(1, i + 1, i, 1), ERR_TXN_LOST);
        send_numbered(&s, i + 1, 1, number(1, i + 1, i, 1), 0, ends[i]);
        expect_answer(&s, 1, ERR_TXN_LOST);
        EXPECT_EQ(stage_number(&s, COUNT), 0);
    }
    /* The lane is free. */
    stage_expect(&s, 8, ERR_OK, INSERT);
    stage_close(&s);
}

/* A COMMIT that waits in the lane itself: for room, behind another one. */
TEST(number_resolve_overtakes_a_commit_that_waits)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 2, ERR_OK, "BEGIN IMMEDIATE");
    stage_expect(&s, 2, ERR_OK, "INSERT INTO t(v) VALUES (randomblob(17000000))");
    s.cut = true;
    send_numbered(&s, 2, 1, number(1, 1, 0, 1), 0, "COMMIT");
    stage_send(&s, 3, 2, "BEGIN IMMEDIATE");
    stage_send(&s, 3, 3, INSERT);
    send_numbered(&s, 3, 4, number(2, 1, 0, 1), 0, "COMMIT"); /* too much flies */
    settle(&s);
    EXPECT_EQ(s.n_answers, 0);
    send_numbered(&s, 4, 5, number(2, 1, 0, 1), WIRE_RESOLVE, "COMMIT");
    expect_answer(&s, 4, ERR_TXN_LOST); /* it wrote nothing, and says so at once */
    settle(&s);
    EXPECT_EQ(s.n_answers, 0);
    s.cut = false;
    expect_answer(&s, 1, ERR_OK);
    expect_answer(&s, 2, ERR_OK);
    expect_answer(&s, 3, ERR_OK);
    expect_answer(&s, 5, ERR_TXN_LOST);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

/* A transaction whose requests are numbered is known by its writer: it need not hold the lane. */
TEST(number_resolve_ends_the_transaction_that_is_open)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    send_numbered(&s, 2, 1, number(1, 1, 0, 1), 0, "BEGIN IMMEDIATE");
    expect_answer(&s, 1, ERR_OK);
    stage_expect(&s, 2, ERR_OK, INSERT);
    resolve(&s, number(1, 1, 0, 1), ERR_TXN_LOST);
    stage_expect(&s, 3, ERR_OK, INSERT);
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_expect(&s, 2, ERR_TXN_LOST, INSERT);
    stage_close(&s);
}

TEST(number_resolve_says_what_cannot_be_told)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    resolve(&s, number(1, 1, 0, 0), ERR_TXN_LOST);
    expect_numbered(&s, number(2, 2, 1, 1), 0, INSERT, ERR_OK);
    resolve(&s, number(2, 1, 0, 1), ERR_EXPIRED); /* its client said that it had the answer */
    stage_depose(&s, 5);
    settle(&s);
    send_numbered(&s, 4, 1, number(1, 1, 0, 1), WIRE_RESOLVE, "COMMIT");
    expect_answer(&s, 1, ERR_NOT_LEADER);
    stage_close(&s);
}
