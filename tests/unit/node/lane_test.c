/* Room: tests. The writer lane with a consensus that the test plays: what may leave, and when. */
#include "base/clock.h"
#include "base/file.h"
#include "tests/lib/test.h"
#include "tests/unit/node/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void open_leading_in(struct stage *s, const char *dir)
{
    EXPECT_OK(file_make_dirs(dir));
    stage_open(s, dir);
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    stage_lead(s, 2);
    stage_expect(s, 1, ERR_OK, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE)");
}

static void open_leading(struct stage *s)
{
    open_leading_in(s, test_dir());
}

TEST(lane_answers_when_committed_and_readers_see_it)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES ('a')");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 1);
    stage_expect(&s, 1, ERR_SQL, "INSERT INTO t(v) VALUES ('a')");
    stage_expect(&s, 1, ERR_SQL, "INSERT INTO nowhere VALUES (1)");
    stage_expect(&s, 1, ERR_OK, "VACUUM");
    stage_expect(&s, 1, ERR_FORBIDDEN, "ATTACH 'x' AS y");
    stage_expect(&s, 1, ERR_FORBIDDEN, "VACUUM INTO 'x'");
    stage_expect(&s, 1, ERR_FORBIDDEN, "PRAGMA journal_mode=DELETE");
    stage_expect(&s, 1, ERR_FORBIDDEN, "CREATE TEMP TABLE x(a)");
    stage_expect(&s, 1, ERR_MISUSE, "INSERT INTO t(v) VALUES ('b'); DELETE FROM t");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 1);
    stage_close(&s);
}

TEST(lane_shows_nothing_uncommitted_when_it_is_cut_off)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 3, ERR_OK, "BEGIN");
    s.cut = true;
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES ('lost')");
    /* Its answer depends on the row that is not committed: it must wait too. */
    for (int i = 0; i < 20; i++)
        stage_step(&s, 10);
    stage_send(&s, 2, 2, "INSERT INTO t(v) VALUES ('lost')");
    stage_send(&s, 3, 4, "SELECT v FROM t");
    for (int i = 0; i < 20; i++)
        stage_step(&s, 10);
    EXPECT_EQ(s.n_answers, 0);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 0);
    stage_depose(&s, 5);
    stage_wait(&s, 3);
    struct request *r = stage_take(&s, 1);
    EXPECT(r != NULL && r->answer.code == ERR_NOT_LEADER); /* surely not written */
    request_free(r);
    r = stage_take(&s, 2);
    EXPECT(r != NULL && r->answer.code == ERR_NOT_LEADER);
    request_free(r);
    r = stage_take(&s, 4);
    EXPECT(r != NULL && r->answer.code == ERR_TXN_LOST && r->answer.out.len == 0);
    request_free(r);
    stage_lead(&s, 6);
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES ('lost')");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 1);
    stage_close(&s);
}

TEST(lane_a_doubtful_write_that_the_log_has_is_answered_as_done)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.cut = true;
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES ('kept')");
    stage_wait_outstanding(&s, 1);
    EXPECT_EQ(s.n_answers, 0);
    /* The leadership goes, then the log says that the old leader's entry was committed after all.
     */
    struct lane_role *role = calloc(1, sizeof *role);
    EXPECT(role != NULL);
    role->letter.kind = LANE_ROLE;
    role->term = 5;
    lane_send(s.lane, &role->letter);
    s.cut = false;
    stage_wait(&s, 1);
    struct request *r = stage_take(&s, 1);
    EXPECT(r != NULL && r->answer.code == ERR_OK);
    request_free(r);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t WHERE v = 'kept'"), 1);
    stage_close(&s);
}

TEST(lane_a_cut_transaction_survives_a_change_of_leader_in_its_middle)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.cut_after = 2; /* of four or more parts of 1 MiB */
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES (randomblob(4500000))");
    stage_wait_cut(&s);
    stage_wait_outstanding(&s, 3);
    EXPECT(s.cut && s.n_outstanding >= 3);
    stage_step(&s, 20);
    EXPECT_EQ(s.n_answers, 0);
    struct lane_role *role = calloc(1, sizeof *role);
    EXPECT(role != NULL);
    role->letter.kind = LANE_ROLE;
    role->term = 5;
    lane_send(s.lane, &role->letter);
    s.cut = false; /* the new leader had all parts: it commits the rest */
    stage_wait(&s, 1);
    struct request *r = stage_take(&s, 1);
    EXPECT(r != NULL && r->answer.code == ERR_OK);
    request_free(r);
    EXPECT_EQ(stage_number(&s, "SELECT length(v) FROM t"), 4500000);
    EXPECT(!s.failed);
    stage_lead(&s, 6);
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES ('after')");
    stage_close(&s);
}

/* Only what fits was handed to the loop when the leadership goes: the rest never comes. */
TEST(lane_a_transaction_that_was_proposed_in_part_is_surely_not_written)
{
    for (unsigned committed = 0; committed < 4; committed++) {
        struct stage s;
        char dir[8];
        (void)snprintf(dir, sizeof dir, "n%u", committed);
        open_leading_in(&s, test_path(dir));
        thread_expect_loop();
        s.keeps_proposals = true;
        s.cut = committed == 0;
        s.cut_after = committed;
        stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES (randomblob(10000000))");
        stage_wait_cut(&s);
        stage_wait_outstanding(&s, 5 - committed);
        EXPECT(s.cut && s.n_outstanding + committed == 5); /* of twenty */
        stage_send(&s, 2, 2, "INSERT INTO t(v) VALUES ('behind it')");
        for (int i = 0; i < 10; i++)
            stage_step(&s, 10);
        EXPECT_EQ(s.n_answers, 0);
        struct lane_role *role = calloc(1, sizeof *role);
        EXPECT(role != NULL);
        role->letter.kind = LANE_ROLE;
        role->term = 5;
        lane_send(s.lane, &role->letter);
        stage_wait(&s, 2); /* no word of the log is needed */
        for (uint32_t id = 1; id <= 2; id++) {
            struct request *r = stage_take(&s, id);
            EXPECT(r != NULL && r->answer.code == ERR_NOT_LEADER);
            request_free(r);
        }
        s.cut_after = 4 - committed; /* the new leader commits some of what it had */
        s.cut = false;
        for (int i = 0; i < 20; i++)
            stage_step(&s, 5);
        stage_depose(&s, 6);
        s.keeps_proposals = false;
        stage_lead(&s, 7);
        stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES (randomblob(10000000))");
        EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 1);
        EXPECT(!s.failed);
        stage_close(&s);
    }
}

TEST(lane_a_commit_waits_while_too_much_flies)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 2, ERR_OK, "BEGIN IMMEDIATE");
    stage_expect(&s, 2, ERR_OK, "INSERT INTO t(v) VALUES (randomblob(20000000))");
    s.cut = true;
    stage_send(&s, 2, 1, "COMMIT");
    stage_send(&s, 3, 2, "BEGIN IMMEDIATE");
    stage_send(&s, 3, 3, "INSERT INTO t(v) VALUES (randomblob(1000000))");
    stage_send(&s, 3, 4, "COMMIT");
    stage_wait_outstanding(&s, 39);
    for (int i = 0; i < 20; i++)
        stage_step(&s, 10);
    EXPECT_EQ(s.n_outstanding, 39); /* 40 MB: v is in an index, too. The second's is not made */
    EXPECT_EQ(s.n_answers, 0);
    s.cut = false;
    stage_wait(&s, 4);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 2);
    stage_close(&s);
}

TEST(lane_a_statement_of_a_lost_transaction_runs_nowhere_else)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 1, ERR_OK, "BEGIN IMMEDIATE");
    stage_expect(&s, 3, ERR_OK, "BEGIN");
    stage_send(&s, 3, 7, "INSERT INTO t(v) VALUES ('waits')"); /* session 1 holds the writer */
    stage_send(&s, 4, 8, "INSERT INTO t(v) VALUES ('alone')");
    for (int i = 0; i < 10; i++)
        stage_step(&s, 10);
    EXPECT_EQ(s.n_answers, 0);
    stage_depose(&s, 5);
    stage_wait(&s, 2);
    struct request *r = stage_take(&s, 7);
    EXPECT(r != NULL && r->answer.code == ERR_TXN_LOST && !r->answer.in_transaction);
    request_free(r);
    r = stage_take(&s, 8);
    EXPECT(r != NULL && r->answer.code == ERR_NOT_LEADER); /* this one may run elsewhere */
    request_free(r);
    stage_expect(&s, 1, ERR_TXN_LOST, "INSERT INTO t(v) VALUES ('late')");
    stage_expect(&s, 1, ERR_NOT_LEADER, "INSERT INTO t(v) VALUES ('anew')");
    stage_close(&s);
}

TEST(lane_autocommit_and_transactions_take_turns)
{
    enum { TRANSACTIONS = 4 };
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    uint32_t id = 10, step[TRANSACTIONS] = {0};
    static const char *const script[] = {"BEGIN IMMEDIATE", "INSERT INTO t(v) VALUES (NULL)",
                                         "COMMIT"};
    for (uint32_t c = 0; c < TRANSACTIONS; c++)
        stage_send(&s, c + 1, id + c, script[0]);
    stage_send(&s, 99, 1, "INSERT INTO t(v) VALUES ('me too')");
    struct request *mine = NULL;
    for (int i = 0; i < 4000 && mine == NULL; i++) {
        stage_step(&s, 5);
        mine = stage_take(&s, 1);
        for (uint32_t c = 0; c < TRANSACTIONS; c++) {
            struct request *r = stage_take(&s, id + c);
            if (r == NULL)
                continue;
            EXPECT_EQ(r->answer.code, ERR_OK);
            request_free(r);
            step[c] = (step[c] + 1) % 3;
            stage_send(&s, c + 1, id + c, script[step[c]]);
        }
    }
    EXPECT(mine != NULL && mine->answer.code == ERR_OK);
    request_free(mine);
    stage_close(&s);
}

TEST(lane_an_idle_reading_transaction_stops_nobody)
{
    struct stage s;
    stage_open(&s, test_dir());
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    s.config.wal_restart_bytes = s.config.wal_checkpoint_bytes;
    stage_lead(&s, 2);
    stage_expect(&s, 1, ERR_OK, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    stage_expect(&s, 1, ERR_OK, "BEGIN");
    stage_expect(&s, 1, ERR_OK, "SELECT count(*) FROM t");
    for (int i = 0; i < 40; i++) /* 40 MB of WAL, far beyond where it would be restarted */
        stage_expect(&s, 2, ERR_OK, "INSERT INTO t(v) VALUES (randomblob(1000000))");
    stage_expect(&s, 1, ERR_OK, "COMMIT");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 40);
    stage_close(&s);
}

TEST(lane_a_waiting_write_keeps_its_time_limit)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 1, ERR_OK, "BEGIN IMMEDIATE");
    s.timeout_ms = 200;
    uint64_t began = test_felt_ms();
    stage_expect(&s, 2, ERR_TIMEOUT, "INSERT INTO t(v) VALUES ('late')");
    EXPECT(test_felt_ms() < began + 5000);
    s.timeout_ms = 0;
    stage_expect(&s, 1, ERR_OK, "COMMIT");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 0);
    stage_close(&s);
}

TEST(lane_the_pipeline_pipelines)
{
    enum { CLIENTS = 64, MS = 1500, DELAY = 20 };
    struct stage s;
    uint32_t sent = 0, done = 0;
    open_leading(&s);
    thread_expect_loop();
    s.cut = true; /* one is not committed, and another is proposed: it runs ahead */
    stage_send(&s, 100, 1, "INSERT INTO t(v) VALUES (1)");
    stage_wait_outstanding(&s, 1);
    stage_send(&s, 101, 2, "INSERT INTO t(v) VALUES (2)");
    stage_wait_outstanding(&s, 2);
    s.cut = false;
    stage_wait(&s, 2);
    request_free(stage_take(&s, 1));
    request_free(stage_take(&s, 2));
    s.delay_ms = DELAY;
    unsigned before = s.n_proposals;
    for (; sent < CLIENTS; sent++)
        stage_send(&s, sent + 1, sent + 1, "INSERT INTO t(v) VALUES (hex(randomblob(12)))");
    uint64_t end = clock_mono_ms() + MS;
    while (clock_mono_ms() < end) {
        stage_step(&s, 1);
        struct list *i;
        while ((i = list_pop_front(&s.answers)) != NULL) {
            struct request *r = LIST_ENTRY(i, struct request, letter.link);
            EXPECT_EQ(r->answer.code, ERR_OK);
            uint64_t session = r->session_id;
            request_free(r);
            s.n_answers--;
            done++;
            stage_send(&s, session, ++sent, "INSERT INTO t(v) VALUES (hex(randomblob(12)))");
        }
    }
    unsigned batches = s.n_proposals - before;
    (void)printf("%u writes in %d ms with commits %d ms late: %u batches, %u at once\n", done, MS,
                 DELAY, batches, s.max_outstanding);
    EXPECT(done * s.max_outstanding > 10 * batches); /* far more than one for each round trip */
    stage_wait(&s, sent - done);
    stage_close(&s);
}

TEST(lane_one_request_that_ends_the_transaction_harms_no_other)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "CREATE TABLE r(a UNIQUE ON CONFLICT ROLLBACK)");
    stage_expect(&s, 1, ERR_OK, "INSERT INTO r VALUES (1)");
    s.delay_ms = 30; /* so that the next ones wait together */
    for (uint32_t i = 0; i < 40; i++) {
        char sql[64];
        if (i % 4 == 3)
            (void)snprintf(sql, sizeof sql, "INSERT INTO r VALUES (1)");
        else
            (void)snprintf(sql, sizeof sql, "INSERT INTO t(v) VALUES ('n%u')", i);
        stage_send(&s, i + 1, i + 1, sql);
    }
    stage_wait(&s, 40);
    for (uint32_t i = 0; i < 40; i++) {
        struct request *r = stage_take(&s, i + 1);
        EXPECT(r != NULL);
        EXPECT_EQ(r->answer.code, i % 4 == 3 ? ERR_SQL : ERR_OK);
        if (i % 4 == 3)
            EXPECT_EQ(r->answer.sqlite_code, SQLITE_CONSTRAINT_UNIQUE);
        request_free(r);
    }
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 30);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM r"), 1);
    stage_close(&s);
}

TEST(lane_a_broken_deferred_key_harms_no_other)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "CREATE TABLE p(id INTEGER PRIMARY KEY)");
    stage_expect(&s, 1, ERR_OK, "CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)");
    s.delay_ms = 30;
    for (uint32_t i = 0; i < 20; i++)
        stage_send(&s, i + 1, i + 1,
                   i % 2 ? "INSERT INTO c VALUES (77)" : "INSERT INTO p DEFAULT VALUES");
    stage_wait(&s, 20);
    for (uint32_t i = 0; i < 20; i++) {
        struct request *r = stage_take(&s, i + 1);
        EXPECT(r != NULL);
        EXPECT_EQ(r->answer.code, i % 2 ? ERR_SQL : ERR_OK);
        if (i % 2)
            EXPECT_EQ(r->answer.sqlite_code, SQLITE_CONSTRAINT_FOREIGNKEY);
        request_free(r);
    }
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM p"), 10);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM c"), 0);
    stage_close(&s);
}

TEST(lane_interactive_transactions_commit_roll_back_and_time_out)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "BEGIN");
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES ('x')");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 0);
    /* Another's autocommit write waits until the lane is free. */
    stage_send(&s, 2, 5, "INSERT INTO t(v) VALUES ('y')");
    stage_step(&s, 50);
    EXPECT(stage_take(&s, 5) == NULL);
    stage_expect(&s, 1, ERR_OK, "COMMIT");
    stage_wait(&s, 1);
    request_free(stage_take(&s, 5));
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 2);
    stage_expect(&s, 1, ERR_OK, "BEGIN IMMEDIATE");
    stage_expect(&s, 1, ERR_OK, "DELETE FROM t");
    stage_expect(&s, 1, ERR_OK, "ROLLBACK");
    stage_expect(&s, 1, ERR_SQL, "COMMIT"); /* no transaction is active */
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 2);
    stage_expect(&s, 1, ERR_OK, "BEGIN IMMEDIATE");
    stage_expect(&s, 1, ERR_OK, "DELETE FROM t");
    stage_send(&s, 2, 6, "INSERT INTO t(v) VALUES ('z')"); /* waits for the idle limit, 300 ms */
    stage_wait(&s, 1);
    request_free(stage_take(&s, 6));
    stage_expect(&s, 1, ERR_TXN_LOST, "DELETE FROM t");
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES ('after')");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 4);
    stage_close(&s);
}

TEST(lane_a_second_writer_waits_its_turn)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "BEGIN IMMEDIATE");
    stage_send(&s, 2, 1, "BEGIN IMMEDIATE");
    stage_step(&s, 50);
    EXPECT(stage_take(&s, 1) == NULL);
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES ('first')");
    stage_expect(&s, 1, ERR_OK, "COMMIT");
    stage_wait(&s, 1);
    struct request *r = stage_take(&s, 1);
    EXPECT(r != NULL && r->answer.code == ERR_OK && r->answer.in_transaction);
    request_free(r);
    stage_expect(&s, 2, ERR_OK, "INSERT INTO t(v) VALUES ('second')");
    stage_expect(&s, 2, ERR_OK, "COMMIT");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 2);
    stage_close(&s);
}

TEST(lane_a_long_statement_does_not_hold_back_the_answers_of_others)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.delay_ms = 20;
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES ('short')");
    stage_wait_outstanding(&s, 1);
    stage_send(&s, 2, 2,
               "INSERT INTO t(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
               "LIMIT 300000) SELECT 'long' || i FROM n");
    stage_wait(&s, 1);
    /* Committed and published from inside the other's run, which goes on. */
    EXPECT_EQ(s.n_answers, 1);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 1);
    struct request *r = stage_take(&s, 1);
    EXPECT(r != NULL && r->answer.code == ERR_OK);
    request_free(r);
    stage_wait(&s, 1);
    r = stage_take(&s, 2);
    EXPECT(r != NULL && r->answer.code == ERR_OK && r->answer.changes == 300000);
    request_free(r);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 300001);
    stage_close(&s);
}

TEST(lane_a_deferred_transaction_with_a_stale_snapshot_is_told_so)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "BEGIN");
    stage_expect(&s, 1, ERR_OK, "SELECT * FROM t");
    stage_expect(&s, 2, ERR_OK, "INSERT INTO t(v) VALUES ('a')");
    stage_expect(&s, 1, ERR_SQL, "INSERT INTO t(v) VALUES ('b')"); /* SQLITE_BUSY_SNAPSHOT */
    stage_expect(&s, 1, ERR_OK, "ROLLBACK");
    stage_close(&s);
}
