/* Room: tests. What a call promises when nodes fail: fake nodes, one session. */
#include "base/clock.h"
#include "base/rng.h"
#include "client/loop.h"
#include "tests/lib/test.h"
#include "tests/unit/client/call_world.h"

#include <string.h>

/* After its deadline: the grace, and what a busy machine takes. */
#define CALL_ENDS_WITHIN_MS 1000u

static struct world w;
static struct asked a, b;

static struct request_seen last_request(void)
{
    return world_request(&w, world_seen(&w) - 1);
}

/* --- without failures ------------------------------------------------------------------------- */

TEST(call_write_goes_to_the_leader_once_it_is_known)
{
    world_begin(&w, 3);
    world_leads(&w, 2);
    EXPECT_OK(run_sql(&w, "INSERT 1", &a));
    EXPECT(a.end.changes == 1 && a.end.was_sent);
    turn_for(&w, 150); /* STATUS is asked as soon as there is a link */
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(run_sql(&w, "INSERT 2", &a));
        EXPECT_EQ(last_request().node, 2);
    }
    EXPECT(strcmp(stream_address(w.stream), fake_node_address(w.nodes[1])) == 0);
    EXPECT_EQ(stream_node(w.stream), 2);
    EXPECT_EQ(cluster_id(w.cluster), 77);
    world_end(&w);
}

TEST(call_members_are_learnt_from_one_address)
{
    world_begin_with(&w, 3, 1);
    world_leads(&w, 3);
    EXPECT_OK(run_sql(&w, "INSERT 1", &a));
    EXPECT_EQ(last_request().node, 1);
    turn_for(&w, 150);
    EXPECT_OK(run_sql(&w, "INSERT 2", &a));
    EXPECT_EQ(last_request().node, 3);
    world_end(&w);
}

TEST(call_writes_are_numbered_and_acked_moves)
{
    world_begin(&w, 1);
    for (uint64_t i = 1; i <= 3; i++) {
        EXPECT_OK(run_sql(&w, "INSERT", &a));
        struct request_seen r = last_request();
        EXPECT((r.query.flags & WIRE_NUMBERED) != 0);
        EXPECT_EQ(r.query.number.number, i);
        EXPECT_EQ(r.query.number.acked, i - 1);
        EXPECT_EQ(r.query.number.since, 9 + i); /* WELCOME's, then those of its own writes */
        EXPECT(r.query.timeout_ms > 9000 && r.query.timeout_ms < 10000);
        uint8_t none[WIRE_WRITER_BYTES] = {0};
        EXPECT(memcmp(r.query.number.writer, none, sizeof none) != 0);
    }
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT((last_request().query.flags & WIRE_NUMBERED) == 0);
    world_end(&w);
}

TEST(call_session_carries_position_and_rowid)
{
    world_begin(&w, 1);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(stream_position(w.stream), 11);
    EXPECT_EQ(stream_last_insert_rowid(w.stream), 11);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT_EQ(last_request().query.min_seq, 11);
    EXPECT_EQ(last_request().query.last_insert_rowid, 11);
    stream_set_position(w.stream, 50);
    EXPECT(stream_is_ahead(w.stream));
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT_EQ(last_request().query.min_seq, 50);
    ask_as(&w, &a, WIRE_QUERY, CALL_READ, WIRE_ANY, 0, "SELECT", 5000);
    wait_end(&w, &a, 5000);
    EXPECT_EQ(last_request().query.min_seq, 0);
    world_end(&w);
}

TEST(call_position_of_the_program_is_for_reads)
{
    world_begin(&w, 3);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 150);
    EXPECT_OK(run_sql(&w, "INSERT", &a)); /* 12 */
    stream_set_position(w.stream, 1000);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(last_request().query.min_seq, 12);
    EXPECT_EQ(last_request().query.number.since, 12);
    EXPECT_OK(run_sql(&w, "BEGIN", &a));
    EXPECT_EQ(last_request().query.min_seq, 13);
    EXPECT_OK(run_sql(&w, "COMMIT", &a));
    EXPECT(last_request().query.number.since < 1000);
    EXPECT_EQ(stream_position(w.stream), 1000);
    stream_set_position(w.stream, 0); /* the program took it back */
    EXPECT(!stream_is_ahead(w.stream));
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT_EQ(last_request().query.min_seq, 0);
    EXPECT(stream_position(w.stream) >= 13);
    world_end(&w);
}

TEST(call_kept_text_travels_once_on_each_link)
{
    world_begin(&w, 1);
    uint32_t keep = cluster_next_keep(w.cluster);
    for (int i = 0; i < 3; i++) {
        if (i == 2)
            fake_node_drop(w.nodes[0], true);
        ask_as(&w, &a, WIRE_QUERY, CALL_WRITE, WIRE_SESSION, keep, "INSERT kept", 5000);
        wait_end(&w, &a, 5000);
        EXPECT_OK(a.end.code);
        EXPECT_EQ(last_request().keep, keep);
        EXPECT(strcmp(last_request().sql, i == 1 ? "" : "INSERT kept") == 0);
    }
    cluster_forget(w.cluster, keep);
    turn_for(&w, 20);
    fake_node_wait(w.nodes[0], WIRE_FORGET, 1);
    world_end(&w);
}

TEST(call_batch_and_describe_and_status)
{
    world_begin(&w, 2);
    ask_as(&w, &a, WIRE_BATCH, CALL_WRITE, WIRE_SESSION, 0, "INSERT", 5000);
    wait_end(&w, &a, 5000);
    EXPECT(a.end.code == ERR_OK && a.steps == 1);
    ask_as(&w, &a, WIRE_DESCRIBE, CALL_READ, WIRE_SESSION, 0, "INSERT", 5000);
    wait_end(&w, &a, 5000);
    EXPECT(a.end.code == ERR_OK && a.descriptions == 1);
    ask_as(&w, &a, WIRE_STATUS, CALL_READ, WIRE_SESSION, 0, "", 5000);
    wait_end(&w, &a, 5000);
    EXPECT(a.end.code == ERR_OK && a.rows == 2 && a.columns == 1);
    world_end(&w);
}

TEST(call_those_of_a_session_run_in_their_order)
{
    static struct asked many[20];
    world_begin(&w, 3);
    for (unsigned i = 0; i < 20; i++)
        ask(&w, &many[i], i % 2 == 0 ? "INSERT" : "SELECT", 5000);
    for (unsigned i = 0; i < 20; i++) {
        wait_end(&w, &many[i], 5000);
        EXPECT_OK(many[i].end.code);
        EXPECT(strcmp(world_request(&w, i).sql, i % 2 == 0 ? "INSERT" : "SELECT") == 0);
    }
    world_end(&w);
}

/* --- nodes that fail -------------------------------------------------------------------------- */

TEST(call_lost_write_is_sent_again_under_its_number)
{
    world_begin(&w, 3);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 150);
    world_does(&w, 1, DO_AND_CLOSE, 1);
    EXPECT_OK(run_sql(&w, "INSERT again", &a));
    unsigned n = world_seen(&w);
    struct request_seen first = world_request(&w, n - 2), second = world_request(&w, n - 1);
    EXPECT(first.node == 1 && strcmp(second.sql, "INSERT again") == 0);
    EXPECT_EQ(first.query.number.number, 2);
    EXPECT(memcmp(&first.query.number, &second.query.number, sizeof first.query.number) == 0);
    EXPECT_EQ(first.query.number.since, 11);
    EXPECT_EQ(first.query.flags & WIRE_AGAIN, 0);
    EXPECT((second.query.flags & WIRE_AGAIN) != 0);
    EXPECT_EQ(world_runs(&w, 2), 1);
    world_end(&w);
}

TEST(call_leader_change_is_noticed)
{
    world_begin(&w, 3);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 150);
    world_leads(&w, 3);
    world_fails(&w, 1, ERR_NOT_LEADER, 0);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 150);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(last_request().node, 3);
    world_end(&w);
}

TEST(call_elsewhere_leads_to_the_new_leader)
{
    world_begin(&w, 2);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 150);
    world_leads(&w, 2);
    turn_for(&w, 1000);
    EXPECT_OK(run_sql(&w, "INSERT", &a)); /* node 1 passes it on, and says so */
    EXPECT_EQ(last_request().node, 1);
    turn_for(&w, 150);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(last_request().node, 2);
    world_end(&w);
}

TEST(call_paused_leader_costs_one_timeout)
{
    world_begin(&w, 3);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 150);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(last_request().node, 1);
    world_leads(&w, 2);
    fake_node_pause(w.nodes[0], true);
    uint64_t begun = clock_mono_ms();
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    uint64_t took = clock_mono_ms() - begun;
    EXPECT(took >= 2000 && took < 4000);
    begun = clock_mono_ms();
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT(clock_mono_ms() - begun < 500);
    fake_node_pause(w.nodes[0], false);
    world_end(&w);
}

/* A time limit that is shorter than silence takes to be noticed. */
TEST(call_silent_leader_is_asked_once_by_a_session_with_a_short_limit)
{
    world_begin(&w, 3);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 1200); /* all are connected */
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(last_request().node, 1);
    fake_node_pause(w.nodes[0], true);
    ask(&w, &a, "INSERT", 400);
    wait_end(&w, &a, 400 + CALL_ENDS_WITHIN_MS);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);
    unsigned before = world_seen(&w);
    for (int i = 0; i < 3; i++) { /* the others still name it */
        ask(&w, &a, "INSERT", 400);
        wait_end(&w, &a, 700);
        EXPECT_ERR(ERR_NO_LEADER, a.end.code);
        EXPECT(!a.end.was_sent && strstr(a.message, "is silent") != NULL);
    }
    EXPECT_EQ(world_seen(&w), before);
    ask(&w, &a, "INSERT", 2000);
    turn_for(&w, 100);
    world_leads(&w, 2);
    uint64_t begun = clock_mono_ms();
    wait_end(&w, &a, 1000);
    EXPECT_OK(a.end.code);
    EXPECT(clock_mono_ms() - begun < 600);
    for (int i = 0; i < 20; i++) {
        ask(&w, &a, i % 2 == 0 ? "INSERT" : "SELECT", 400);
        wait_end(&w, &a, 700);
        EXPECT_OK(a.end.code);
        EXPECT(last_request().node != 1);
        turn_for(&w, 50);
    }
    fake_node_pause(w.nodes[0], false);
    world_end(&w);
}

/* It answers again, and nobody else was elected. */
TEST(call_silent_leader_that_speaks_again_leads_on)
{
    world_begin(&w, 3);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 150);
    EXPECT_OK(run_sql(&w, "INSERT", &a)); /* there is a connection to the leader */
    fake_node_pause(w.nodes[0], true);
    ask(&w, &a, "INSERT", 300);
    wait_end(&w, &a, 300 + CALL_ENDS_WITHIN_MS);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);
    ask(&w, &a, "INSERT", 3000);
    turn_for(&w, 200);
    EXPECT(!a.ended);
    fake_node_pause(w.nodes[0], false);
    uint64_t begun = clock_mono_ms();
    wait_end(&w, &a, 1000);
    EXPECT_OK(a.end.code);
    EXPECT(clock_mono_ms() - begun < 500);
    turn_for(&w, 200);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(last_request().node, 1);
    world_end(&w);
}

TEST(call_no_leader_for_a_while_is_waited_for)
{
    world_begin(&w, 3);
    for (unsigned i = 1; i <= 3; i++)
        world_fails(&w, i, ERR_NO_LEADER, 2);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(world_runs(&w, 1), 1);
    for (unsigned i = 0; i < world_seen(&w); i++)
        EXPECT(world_request(&w, i).query.number.number == 1 &&
               (world_request(&w, i).query.flags & WIRE_AGAIN) == 0); /* surely not run */
    world_end(&w);
}

TEST(call_errors_of_the_statement_are_told_at_once)
{
    world_begin(&w, 2);
    world_fails(&w, 1, ERR_SQL, 0);
    world_fails(&w, 2, ERR_SQL, 0);
    EXPECT_ERR(ERR_SQL, run_sql(&w, "INSERT", &a));
    EXPECT(strcmp(a.message, "as it was told") == 0);
    EXPECT_EQ(world_seen(&w), 1);
    EXPECT_ERR(ERR_SQL, run_sql(&w, "SELECT", &a));
    EXPECT_EQ(world_seen(&w), 2);
    world_end(&w);
}

TEST(call_unknown_of_a_node_is_asked_again)
{
    world_begin(&w, 1);
    world_fails(&w, 1, ERR_UNKNOWN, 2);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(world_seen(&w), 3);
    EXPECT_EQ(last_request().query.number.number, 1);
    /* A verdict after an attempt in doubt is a verdict; all else is not. */
    world_fails(&w, 1, ERR_UNKNOWN, 1);
    ask(&w, &a, "INSERT", 5000);
    wait_requests(&w, 1, 4);
    world_fails(&w, 1, ERR_SQL, 1);
    wait_end(&w, &a, 5000);
    EXPECT_ERR(ERR_SQL, a.end.code);
    world_fails(&w, 1, ERR_UNKNOWN, 1);
    ask(&w, &a, "INSERT", 5000);
    wait_requests(&w, 1, 6);
    world_fails(&w, 1, ERR_FULL, 1);
    wait_end(&w, &a, 5000);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);
    world_end(&w);
}

TEST(call_expired_is_sent_again_with_a_newer_since)
{
    world_begin(&w, 1);
    world_expires(&w, 1, 400);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(last_request().query.number.since, 400);
    EXPECT_EQ(last_request().query.number.number, 1);
    world_expires(&w, 100, 500);
    EXPECT_ERR(ERR_UNKNOWN, run_sql(&w, "INSERT", &a));
    EXPECT(world_seen(&w) < 8);
    world_expires(&w, 0, 0);
    world_does(&w, 1, CLOSE, 1); /* sent, and lost: now it is in doubt */
    ask(&w, &a, "INSERT", 5000);
    wait_requests(&w, 1, world_seen(&w) + 1);
    world_expires(&w, 1, 600);
    wait_end(&w, &a, 5000);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);
    EXPECT_EQ(world_runs(&w, 3), 0);
    world_end(&w);
}

TEST(call_garbage_ends_the_link_and_no_more)
{
    world_begin(&w, 2);
    world_does(&w, 1, GARBAGE, 1);
    world_does(&w, 2, GARBAGE, 1);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(world_runs(&w, 1), 1);
    world_end(&w);
}

/* --- reads ------------------------------------------------------------------------------------ */

TEST(call_reads_stay_at_a_node_and_leave_a_sick_one)
{
    world_begin(&w, 3);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    unsigned at = last_request().node;
    for (int i = 0; i < 10; i++) {
        EXPECT_OK(run_sql(&w, "SELECT", &a));
        EXPECT_EQ(last_request().node, at);
    }
    turn_for(&w, 150);
    world_fails(&w, at, ERR_CORRUPT, 0);
    world_state(&w, at, "a page is damaged");
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    unsigned other = last_request().node;
    EXPECT(other != at);
    for (int i = 0; i < 10; i++) {
        EXPECT_OK(run_sql(&w, "SELECT", &a));
        EXPECT_EQ(last_request().node, other);
    }
    world_end(&w);
}

TEST(call_strong_reads_go_to_the_leader)
{
    world_begin(&w, 3);
    world_leads(&w, 2);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    turn_for(&w, 150);
    ask_as(&w, &a, WIRE_QUERY, CALL_READ, WIRE_STRONG, 0, "SELECT", 5000);
    wait_end(&w, &a, 5000);
    EXPECT(last_request().node == 2 && last_request().query.level == WIRE_STRONG);
    world_end(&w);
}

TEST(call_a_read_is_lost_only_after_rows)
{
    world_begin(&w, 2);
    world_rows(&w, 2, 3);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT(a.frames == 2 && a.rows == 6);
    world_does(&w, 1, CLOSE, 1);
    world_does(&w, 2, CLOSE, 1);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT(a.rows == 6 && a.restarts == 0);
    world_end(&w);
}

TEST(call_columns_come_again_rows_do_not)
{
    world_begin(&w, 1);
    world_rows(&w, 2, 3);
    world_does(&w, 1, HEAD_CLOSE, 1);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT(a.restarts == 1 && a.columns == 1 && a.rows == 6);
    world_does(&w, 1, PART_CLOSE, 1);
    EXPECT_ERR(ERR_CLOSED, run_sql(&w, "SELECT", &a));
    EXPECT(a.restarts == 0 && a.rows == 6 && strstr(a.message, "rest of the rows") != NULL);
    world_does(&w, 1, HEAD_CLOSE, 1);
    EXPECT_OK(run_sql(&w, "INSERT RETURNING", &a));
    EXPECT(a.restarts == 1 && a.columns == 1 && a.rows == 6);
    world_does(&w, 1, PART_CLOSE, 2); /* the first result, and it comes whole in the third try */
    EXPECT_OK(run_sql(&w, "INSERT RETURNING", &a));
    EXPECT(a.restarts == 0 && a.columns == 1 && a.frames == 2 && a.rows == 6);
    EXPECT_EQ(world_runs(&w, 2), 1);
    world_end(&w);
}

TEST(call_change_of_members_is_never_sent_twice)
{
    world_begin(&w, 2);
    ask_as(&w, &a, WIRE_CLUSTER, CALL_ADMIN, WIRE_SESSION, 0, "", 5000);
    wait_end(&w, &a, 5000);
    EXPECT_OK(a.end.code);
    world_fails(&w, 1, ERR_NO_LEADER, 1); /* refused: surely not begun */
    world_fails(&w, 2, ERR_NOT_LEADER, 1);
    ask_as(&w, &a, WIRE_CLUSTER, CALL_ADMIN, WIRE_SESSION, 0, "", 5000);
    wait_end(&w, &a, 5000);
    world_does(&w, 1, WELL, 0);
    world_does(&w, 2, WELL, 0);
    world_does(&w, 1, CLOSE, 0);
    world_does(&w, 2, CLOSE, 0);
    unsigned before = world_seen(&w);
    ask_as(&w, &a, WIRE_CLUSTER, CALL_ADMIN, WIRE_SESSION, 0, "", 5000);
    wait_end(&w, &a, 5000);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);
    EXPECT_EQ(world_seen(&w), before + 1);
    world_end(&w);
}

TEST(call_rows_beyond_the_window_need_credit)
{
    world_begin(&w, 1);
    world_rows(&w, 8, 7000); /* about 63,000 bytes each: the fake has no window, we count */
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT(a.frames == 8 && a.bytes > 2 * WIRE_WINDOW / 2);
    turn_for(&w, 20);
    unsigned credits = fake_node_frames(w.nodes[0], WIRE_CREDIT);
    EXPECT(credits >= 3 && credits <= 5); /* one of them for STATUS */
    world_end(&w);
}

/* --- transactions ----------------------------------------------------------------------------- */

static void begin_somewhere(void)
{
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 150);
    EXPECT_OK(run_sql(&w, "BEGIN", &a));
    EXPECT(stream_in_transaction(w.stream));
}

TEST(call_transaction_stays_where_it_began)
{
    world_begin(&w, 3);
    begin_somewhere();
    world_leads(&w, 2);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT(last_request().node == 1 && (last_request().query.flags & WIRE_NUMBERED) == 0);
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    EXPECT_EQ(last_request().node, 1);
    EXPECT_OK(run_sql(&w, "COMMIT", &a));
    EXPECT(last_request().node == 1 && last_request().query.number.number == 2);
    EXPECT(!stream_in_transaction(w.stream));
    world_end(&w);
}

TEST(call_transaction_is_lost_with_its_link)
{
    world_begin(&w, 3);
    begin_somewhere();
    world_does(&w, 1, CLOSE, 1);
    unsigned before = world_seen(&w);
    ask(&w, &a, "INSERT", 5000);
    ask(&w, &b, "INSERT that was meant to be inside", 5000);
    wait_end(&w, &a, 5000);
    wait_end(&w, &b, 5000);
    EXPECT_ERR(ERR_TXN_LOST, a.end.code);
    EXPECT_ERR(ERR_TXN_LOST, b.end.code);
    EXPECT_EQ(world_seen(&w), before + 1);
    EXPECT(!stream_in_transaction(w.stream));
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    world_end(&w);
}

TEST(call_transaction_lost_while_idle_is_told_by_the_next_call)
{
    world_begin(&w, 3);
    begin_somewhere();
    fake_node_drop(w.nodes[0], true);
    turn_for(&w, 50);
    EXPECT(!stream_in_transaction(w.stream));
    unsigned before = world_seen(&w);
    EXPECT_ERR(ERR_TXN_LOST, run_sql(&w, "INSERT", &a));
    EXPECT_EQ(world_seen(&w), before);
    EXPECT_OK(run_sql(&w, "BEGIN", &a));
    fake_node_drop(w.nodes[stream_node(w.stream) - 1], true);
    turn_for(&w, 50);
    EXPECT_OK(run_sql(&w, "BEGIN", &a)); /* begins anew: nothing to tell */
    world_end(&w);
}

TEST(call_lost_commit_is_resolved)
{
    for (int done = 1; done >= 0; done--) {
        world_begin(&w, 3);
        begin_somewhere();
        world_resolves(&w, done ? ERR_OK : ERR_TXN_LOST);
        world_does(&w, 1, done ? DO_AND_CLOSE : CLOSE, 1);
        EXPECT_ERR(done ? ERR_OK : ERR_TXN_LOST, run_sql(&w, "COMMIT", &a));
        struct request_seen r = last_request(), commit = world_request(&w, world_seen(&w) - 2);
        EXPECT((r.query.flags & WIRE_RESOLVE) != 0 && (commit.query.flags & WIRE_RESOLVE) == 0);
        EXPECT(memcmp(&r.query.number, &commit.query.number, sizeof r.query.number) == 0);
        EXPECT((r.query.flags & WIRE_INSIDE) == 0 && (commit.query.flags & WIRE_INSIDE) != 0);
        EXPECT(!stream_in_transaction(w.stream));
        EXPECT_OK(run_sql(&w, "INSERT", &a));
        world_end(&w);
    }
}

TEST(call_vague_answer_to_commit_is_resolved)
{
    world_begin(&w, 3);
    begin_somewhere();
    world_fails(&w, 1, ERR_UNKNOWN, 1);
    world_resolves(&w, ERR_OK);
    EXPECT_OK(run_sql(&w, "COMMIT", &a));
    EXPECT((last_request().query.flags & WIRE_RESOLVE) != 0);
    world_end(&w);
}

TEST(call_commit_that_nobody_resolves_is_unknown)
{
    world_begin(&w, 2);
    begin_somewhere();
    world_does(&w, 1, CLOSE, 1);
    world_does(&w, 2, HUSH, 0);
    world_resolves(&w, ERR_UNKNOWN);
    ask(&w, &a, "COMMIT", 700);
    wait_end(&w, &a, 1700);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);
    world_end(&w);
}

/* --- deadlines and cancels -------------------------------------------------------------------- */

TEST(call_cluster_of_blackholes_ends_in_time)
{
    world_begin(&w, 3);
    for (unsigned i = 0; i < 3; i++)
        fake_node_pause(w.nodes[i], true);
    static const char *const sql[] = {"INSERT", "SELECT", "BEGIN"};
    for (int i = 0; i < 3; i++) {
        ask(&w, &a, sql[i], 400);
        wait_end(&w, &a, 600);
        EXPECT(a.end.code == ERR_TIMEOUT || a.end.code == ERR_CLOSED);
        EXPECT(!a.end.was_sent && strstr(a.message, "127.0.0.1:") != NULL);
    }
    for (unsigned i = 0; i < 3; i++)
        fake_node_pause(w.nodes[i], false);
    world_end(&w);
}

TEST(call_nobody_listens)
{
    world_begin(&w, 2);
    fake_node_kill(w.nodes[0]);
    fake_node_kill(w.nodes[1]);
    ask(&w, &a, "INSERT", 500);
    wait_end(&w, &a, 700);
    EXPECT_ERR(ERR_CLOSED, a.end.code);
    ask(&w, &a, "INSERT", 10000);
    turn_for(&w, 300);
    fake_node_revive(w.nodes[1]);
    wait_end(&w, &a, 9000);
    EXPECT_OK(a.end.code);
    world_end(&w);
}

TEST(call_silent_node_and_deadline)
{
    world_begin(&w, 1);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    world_does(&w, 1, HUSH, 0);
    ask(&w, &a, "INSERT", 300);
    wait_end(&w, &a, 1300);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);
    uint32_t stream = last_request().id.stream;
    fake_node_wait(w.nodes[0], WIRE_CANCEL, 1);
    ask(&w, &a, "SELECT", 300);
    turn_for(&w, 150); /* the node is avoided for a moment */
    wait_end(&w, &a, 1300);
    EXPECT_ERR(ERR_TIMEOUT, a.end.code);
    EXPECT(last_request().id.stream != stream);
    world_does(&w, 1, WELL, 0);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_EQ(last_request().query.number.acked, 2);
    EXPECT(fake_node_frames(w.nodes[0], WIRE_CLOSE) >= 2);
    world_end(&w);
}

TEST(call_silent_node_loses_the_transaction)
{
    world_begin(&w, 1);
    begin_somewhere();
    world_does(&w, 1, HUSH, 1);
    ask(&w, &a, "INSERT", 300);
    wait_end(&w, &a, 1300);
    EXPECT_ERR(ERR_TXN_LOST, a.end.code);
    EXPECT(!stream_in_transaction(w.stream));
    EXPECT_OK(run_sql(&w, "BEGIN", &a));
    world_does(&w, 1, HUSH, 1);
    ask(&w, &a, "COMMIT", 300);
    wait_end(&w, &a, 1300);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    world_end(&w);
}

TEST(call_that_waits_for_its_turn_ends_in_time)
{
    world_begin(&w, 1);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    world_does(&w, 1, HUSH, 1);
    ask(&w, &a, "SELECT", 700);
    ask(&w, &b, "INSERT", 200);
    wait_end(&w, &b, 400);
    EXPECT(b.end.code == ERR_TIMEOUT && !b.end.was_sent && !a.ended);
    EXPECT(strstr(b.message, "earlier calls") != NULL);
    wait_end(&w, &a, 1700);
    EXPECT_ERR(ERR_TIMEOUT, a.end.code);
    world_end(&w);
}

TEST(call_cancel_in_every_state)
{
    world_begin(&w, 1);
    fake_node_pause(w.nodes[0], true);
    ask(&w, &a, "INSERT", 5000); /* waits for the link */
    ask(&w, &b, "INSERT", 5000); /* and its turn */
    turn_for(&w, 20);
    call_cancel(b.call);
    EXPECT(!b.ended);
    wait_end(&w, &b, 100);
    EXPECT_ERR(ERR_CANCELLED, b.end.code);
    call_cancel(a.call);
    wait_end(&w, &a, 100);
    EXPECT(a.end.code == ERR_CANCELLED && !a.end.was_sent);
    fake_node_pause(w.nodes[0], false);
    EXPECT_OK(run_sql(&w, "INSERT", &a));

    world_does(&w, 1, HUSH, 1); /* sent, and the node does not react */
    ask(&w, &a, "SELECT", 5000);
    wait_requests(&w, 1, world_seen(&w) + 1);
    call_cancel(a.call);
    wait_end(&w, &a, 1000);
    EXPECT_ERR(ERR_CANCELLED, a.end.code);

    world_does(&w, 1, HUSH, 1); /* a write: it may be done yet */
    ask(&w, &a, "INSERT", 5000);
    wait_requests(&w, 1, world_seen(&w) + 1);
    call_cancel(a.call);
    wait_end(&w, &a, 1000);
    EXPECT_ERR(ERR_UNKNOWN, a.end.code);

    world_fails(&w, 1, ERR_CANCELLED, 1); /* the node says how it ended */
    EXPECT_ERR(ERR_CANCELLED, run_sql(&w, "INSERT", &a));

    world_fails(&w, 1, ERR_NO_LEADER, 0); /* between two attempts */
    ask(&w, &a, "INSERT", 5000);
    wait_requests(&w, 1, world_seen(&w) + 1);
    turn_for(&w, 5);
    call_cancel(a.call);
    wait_end(&w, &a, 1000);
    EXPECT_ERR(ERR_CANCELLED, a.end.code);
    world_does(&w, 1, WELL, 0);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    world_end(&w);
}

/* --- at random -------------------------------------------------------------------------------- */

static void random_trouble(struct rng *r)
{
    static const enum err codes[] = {ERR_NOT_LEADER, ERR_NO_LEADER, ERR_BUSY,    ERR_UNKNOWN,
                                     ERR_SQL,        ERR_FULL,      ERR_TIMEOUT, ERR_STOPPED};
    static const enum how hows[] = {CLOSE, DO_AND_CLOSE, HEAD_CLOSE, GARBAGE};
    unsigned node = 1 + (unsigned)rng_below(r, 3), times = 1 + (unsigned)rng_below(r, 2);
    if (rng_once_in(r, 25))
        world_does(&w, node, rng_once_in(r, 2) ? HUSH : DO_AND_HUSH, 1);
    else if (rng_once_in(r, 3))
        world_does(&w, node, hows[rng_below(r, 4)], times);
    else if (rng_once_in(r, 2))
        world_fails(&w, node, codes[rng_below(r, 8)], times);
    if (rng_once_in(r, 10))
        world_leads(&w, 1 + (unsigned)rng_below(r, 3));
    if (rng_once_in(r, 10))
        fake_node_drop(w.nodes[node - 1], rng_once_in(r, 2));
}

/* What was said of the write or COMMIT that bore the newest number. */
static void check_word(enum err said, uint64_t number)
{
    unsigned runs = world_runs(&w, number);
    if (said == ERR_OK)
        EXPECT(runs == 1);
    else if (said != ERR_UNKNOWN)
        EXPECT(runs != 1);
}

static uint64_t newest_number(void)
{
    uint64_t newest = 0;
    for (unsigned i = 0; i < world_seen(&w); i++) {
        uint64_t number = world_request(&w, i).query.number.number;
        newest = number > newest ? number : newest;
    }
    return newest;
}

/* All attempts at one number are the same write. */
static void check_attempts(void)
{
    for (unsigned i = 1; i < world_seen(&w); i++) {
        struct request_seen x = world_request(&w, i - 1), y = world_request(&w, i);
        if (x.query.number.number != 0 && x.query.number.number == y.query.number.number)
            EXPECT(memcmp(&x.query.number, &y.query.number, sizeof x.query.number) == 0);
        EXPECT(y.query.number.number == 0 || y.query.number.number >= x.query.number.number);
    }
}

static enum err one_of(const char *sql, uint64_t timeout_ms)
{
    ask(&w, &a, sql, timeout_ms);
    wait_end(&w, &a, timeout_ms + CALL_ENDS_WITHIN_MS);
    check_attempts();
    return a.end.code;
}

TEST(call_tells_the_truth_whatever_happens)
{
    struct rng r = {.state = test_seed()};
    uint64_t told = 0;
    world_begin(&w, 3);
    world_resolves(&w, ERR_NOT_FOUND);
    world_rows(&w, 1, 2);
    for (uint64_t i = 0; i < test_rounds(50) && told < 400; i++) {
        world_forget_requests(&w);
        random_trouble(&r);
        uint64_t timeout = 50 + rng_below(&r, 300);
        if (rng_once_in(&r, 3)) {
            (void)one_of("BEGIN", timeout);
            (void)one_of("INSERT inside", timeout);
            random_trouble(&r);
        }
        const char *sql = stream_in_transaction(w.stream) ? "COMMIT" : "INSERT";
        enum err said = one_of(sql, timeout);
        uint64_t number = newest_number();
        if (number > told) {
            check_word(said, number);
            told = number;
        } else {
            EXPECT(said != ERR_OK); /* no node ever saw it */
        }
        if (stream_in_transaction(w.stream)) {
            (void)one_of("ROLLBACK", timeout);
            told = newest_number() > told ? newest_number() : told;
        }
        (void)one_of("SELECT", timeout);
    }
    EXPECT(told > 0);
    for (unsigned node = 1; node <= 3; node++)
        world_does(&w, node, WELL, 0);
    turn_for(&w, 100);
    (void)run_sql(&w, "INSERT", &a); /* may tell of a transaction that was lost */
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    world_end(&w);
}
