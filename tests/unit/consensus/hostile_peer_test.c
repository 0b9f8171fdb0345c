/* Room: tests. What one member of the group can do to the others by lying: cost them an election,
 * never the process and never the service. Found by a hostile review; each test has its finding's
 * name. */
#include "base/mem.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/sim/sim.h"

#include <string.h>

static struct sim *three(void)
{
    struct sim_options o = sim_defaults(3);
    struct sim *s = sim_new(&o, test_seed());
    for (uint64_t id = 1; id <= 3; id++)
        sim_start(s, id);
    return s;
}

static struct cns_status status(struct sim *s, uint64_t id)
{
    struct cns_status st;
    thread_expect_loop();
    driver_get_status(sim_member(s, id)->d, &st);
    return st;
}

static void receive(struct sim *s, uint64_t to, uint64_t from, const struct raft_message *raft)
{
    struct cns_message m = {.m = *raft};
    thread_expect_loop();
    driver_receive(sim_member(s, to)->d, from, &m);
    driver_turn(sim_member(s, to)->d);
}

/* A leader whose log all others have, so that it streams to them. */
static uint64_t settled_leader(struct sim *s)
{
    uint64_t leader = sim_elect(s);
    EXPECT_OK(sim_propose(s, leader, 3, 100, NULL));
    EXPECT(sim_run_until(s, sim_settled, NULL, 60000));
    return leader;
}

static void expect_service(struct sim *s)
{
    uint64_t leader = sim_elect(s);
    EXPECT_OK(sim_propose(s, leader, 3, 100, NULL));
    EXPECT(sim_run_until(s, sim_settled, NULL, 60000));
    EXPECT(sim_committed(s) >= status(s, leader).last_index);
    sim_compare_logs(s);
}

/* --- H3 -----------------------------------------------------------------------------------------
 */

TEST(h3_a_refusal_of_what_was_never_sent_does_not_abort_the_leader)
{
    static const uint64_t lies[] = {
        1, 1000000000, UINT64_MAX / 4, UINT64_MAX / 4 + 1, UINT64_MAX - 1, UINT64_MAX};
    struct sim *s = three();
    uint64_t leader = settled_leader(s), peer = leader % 3 + 1;
    for (unsigned i = 0; i < 6 * 6 * 2; i++) {
        struct cns_status st = status(s, leader);
        struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT};
        m.append_entries_result.term = st.term;
        m.append_entries_result.rejected = lies[i / 2 % 6];
        m.append_entries_result.last_log_index = lies[i / 12];
        if (i % 2 == 1) { /* just behind the end, where the arithmetic is closest */
            m.append_entries_result.rejected = st.last_index + 1 + i / 2 % 6;
            m.append_entries_result.last_log_index = st.last_index + i / 12;
        }
        receive(s, leader, peer, &m);
        EXPECT_OK(sim_propose(s, leader, 1, 100, NULL));
        sim_run_ms(s, 100);
        EXPECT_EQ(sim_member(s, leader)->failures, 0);
    }
    EXPECT_EQ(sim_leader(s), leader);
    expect_service(s);
    sim_free(s);
}

/* The same while the peer is being probed: its answer may not move the probe beyond the log. */
TEST(h3_nor_while_it_probes)
{
    struct sim *s = three();
    uint64_t leader = settled_leader(s), peer = leader % 3 + 1;
    for (unsigned i = 0; i < 12; i++) {
        sim_reset(s, leader, peer);
        sim_run_ms(s, 1 + i * 3);
        struct cns_status st = status(s, leader);
        struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT};
        m.append_entries_result.term = st.term;
        m.append_entries_result.rejected = st.last_index + i % 3;
        m.append_entries_result.last_log_index = 1000000000;
        receive(s, leader, peer, &m);
        EXPECT_OK(sim_propose(s, leader, 1, 100, NULL));
    }
    expect_service(s);
    sim_free(s);
}
