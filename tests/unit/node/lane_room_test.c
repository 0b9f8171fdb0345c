/* Room: tests. The lane on a full disk: what was ordered waits, and nothing is lost or shown early.
 */
#include "base/clock.h"
#include "tests/lib/test.h"
#include "tests/unit/node/full_disk.h"
#include "tests/unit/node/stage.h"

#include <stdlib.h>
#include <string.h>

static void open_leading(struct stage *s)
{
    stage_open(s, test_dir());
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    stage_lead(s, 2);
    stage_expect(s, 1, ERR_OK, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    stage_expect(s, 1, ERR_OK, "INSERT INTO t(v) VALUES (1)");
}

static void steps(struct stage *s, int n) ON_LOOP
{
    for (int i = 0; i < n; i++)
        stage_step(s, 10);
}

static void expect_answer(struct stage *s, uint32_t id, enum err code)
{
    thread_expect_loop();
    struct request *r = stage_take(s, id);
    EXPECT(r != NULL);
    EXPECT_EQ(r->answer.code, code);
    request_free(r);
}

static void depose(struct stage *s, uint64_t term) ON_LOOP
{
    struct lane_role *role = calloc(1, sizeof *role);
    EXPECT(role != NULL);
    role->letter.kind = LANE_ROLE;
    role->term = term;
    lane_send(s->lane, &role->letter);
}

TEST(lane_answers_wait_for_room_and_reads_go_on)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    full_disk(true);
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES (2)");
    stage_send(&s, 2, 2, "INSERT INTO t(v) VALUES (3)");
    steps(&s, 40);
    stage_send(&s, 3, 3, "INSERT INTO t(v) VALUES (4)");
    steps(&s, 40);
    EXPECT_EQ(s.n_answers, 0);
    EXPECT(!s.failed);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 1);
    full_disk(false);
    stage_wait(&s, 3);
    for (uint32_t id = 1; id <= 3; id++)
        expect_answer(&s, id, ERR_OK);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 4);
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES (5)");
    stage_close(&s);
}

TEST(lane_a_write_that_waits_for_room_is_judged_when_its_leader_is_deposed)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    full_disk(true);
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES ('committed')");
    steps(&s, 30); /* its entry came, there was no room */
    s.cut = true;
    stage_send(&s, 2, 2, "INSERT INTO t(v) VALUES ('proposed')");
    steps(&s, 30);
    EXPECT_EQ(s.n_answers, 0);
    stage_depose(&s, 5);
    steps(&s, 30);
    EXPECT_EQ(s.n_answers, 0);
    full_disk(false);
    stage_wait(&s, 2);
    expect_answer(&s, 1, ERR_OK);
    expect_answer(&s, 2, ERR_NOT_LEADER);
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 2);
    stage_lead(&s, 6);
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES (5)");
    stage_close(&s);
}

TEST(lane_stops_while_it_waits_for_room)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    full_disk(true);
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES (2)");
    steps(&s, 30);
    struct lane_stop *stop = calloc(1, sizeof *stop);
    EXPECT(stop != NULL);
    stop->letter.kind = LANE_STOP;
    lane_send(s.lane, &stop->letter);
    stage_wait(&s, 1);
    expect_answer(&s, 1, ERR_UNKNOWN);
    steps(&s, 5);
    EXPECT(s.stopped);
    full_disk(false);
    stage_end(&s);
}

TEST(lane_a_statement_too_large_for_the_disk_fails_alone)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    full_disk(true);
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES (randomblob(20000000))");
    stage_wait(&s, 1);
    struct request *r = stage_take(&s, 1);
    EXPECT(r != NULL && r->answer.code == ERR_FULL);
    EXPECT(strstr(r->answer.message, "main.db.overlay: No space left") != NULL);
    request_free(r);
    full_disk(false);
    EXPECT(!s.failed);
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES (randomblob(20000000))");
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM t"), 2);
    stage_close(&s);
}

/* The parts that were committed go to a file when the leader is deposed: when there is room. */
TEST(lane_parts_of_a_deposed_leader_wait_for_room)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.cut_after = 12; /* of twenty: more than fits in memory */
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES (randomblob(20000000))");
    stage_wait_cut(&s);
    stage_wait_outstanding(&s, 8);
    EXPECT(s.cut && s.n_outstanding == 8);
    full_disk(true);
    depose(&s, 5);
    s.cut = false; /* the next leader had the others */
    steps(&s, 40);
    EXPECT_EQ(s.n_answers, 0);
    EXPECT(!s.failed);
    full_disk(false);
    stage_wait(&s, 1);
    expect_answer(&s, 1, ERR_OK);
    EXPECT_EQ(stage_number(&s, "SELECT max(length(v)) FROM t"), 20000000);
    stage_lead(&s, 6);
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES (5)");
    stage_close(&s);
}
