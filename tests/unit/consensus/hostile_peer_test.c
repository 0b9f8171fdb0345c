/* Room: tests. What one member of the group can do to the others by lying: cost them an election,
 * never the process and never the service. Found by a hostile review; each test has its finding's
 * name. */
#include "base/buf.h"
#include "consensus/guard.h"
#include "tests/lib/test.h"
#include "tests/sim/sim.h"

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

/* --- M1 -----------------------------------------------------------------------------------------
 */

#define TERM_MAX (UINT64_MAX / 4)

static struct raft_message of_term(unsigned kind, uint64_t from, uint64_t term)
{
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES};
    switch (kind) {
    case 0:
        m.type = RAFT_APPEND_ENTRIES;
        m.append_entries.term = term;
        m.append_entries.prev_log_index = m.append_entries.prev_log_term = 1;
        break;
    case 1:
        m.type = RAFT_APPEND_ENTRIES_RESULT;
        m.append_entries_result.term = term;
        m.append_entries_result.last_log_index = 1;
        break;
    case 2:
    case 3:
    case 4:
        m.type = RAFT_REQUEST_VOTE;
        m.request_vote.term = m.request_vote.last_log_term = term;
        m.request_vote.last_log_index = 1000;
        m.request_vote.candidate_id = from;
        m.request_vote.disrupt_leader = kind == 3;
        m.request_vote.pre_vote = kind == 4;
        break;
    case 5:
        m.type = RAFT_REQUEST_VOTE_RESULT;
        m.request_vote_result.term = term;
        m.request_vote_result.vote_granted = true;
        break;
    default:
        m.type = RAFT_TIMEOUT_NOW;
        m.timeout_now.term = term;
        m.timeout_now.last_log_index = m.timeout_now.last_log_term = 1;
        break;
    }
    return m;
}

TEST(m1_a_message_of_an_absurd_term_does_not_stop_the_group)
{
    static const uint64_t terms[] = {TERM_MAX - 1, TERM_MAX, TERM_MAX + 1, UINT64_MAX};
    for (unsigned kind = 0; kind < 7; kind++) {
        struct sim *s = three();
        uint64_t leader = settled_leader(s);
        for (unsigned i = 0; i < 4; i++)
            for (uint64_t to = 1; to <= 3; to++) {
                struct raft_message m = of_term(kind, to % 3 + 1, terms[i]);
                receive(s, to, to % 3 + 1, &m);
            }
        expect_service(s);
        EXPECT(status(s, leader).term <= 4 * GUARD_TERM_STEP);
        expect_service(s);
        sim_free(s);
    }
}

/* The last term that is believed at once, and the first that is not. */
TEST(m1_a_term_is_believed_up_to_a_step)
{
    struct sim *s = three();
    uint64_t leader = settled_leader(s), term = status(s, leader).term;
    struct raft_message m = of_term(0, leader % 3 + 1, term + GUARD_TERM_STEP + 2);
    receive(s, leader, leader % 3 + 1, &m);
    EXPECT_EQ(status(s, leader).term, term + GUARD_TERM_STEP);
    EXPECT_EQ(status(s, leader).role, CNS_FOLLOWER);
    EXPECT_EQ(status(s, leader).leader_id, 0);
    m = of_term(0, leader % 3 + 1, TERM_MAX); /* no second step so soon */
    receive(s, leader, leader % 3 + 1, &m);
    EXPECT_EQ(status(s, leader).term, term + GUARD_TERM_STEP);
    m = of_term(0, leader % 3 + 1, term + 2 * GUARD_TERM_STEP);
    receive(s, leader, leader % 3 + 1, &m);
    EXPECT_EQ(status(s, leader).term, term + 2 * GUARD_TERM_STEP);
    EXPECT_EQ(status(s, leader).leader_id, leader % 3 + 1);
    sim_free(s);
}

struct goal {
    uint64_t term;
};

static bool all_at(struct sim *s, void *ctx)
{
    const struct goal *g = ctx;
    for (uint64_t id = 1; id <= 3; id++)
        if (sim_member(s, id)->d != NULL && status(s, id).term < g->term)
            return false;
    return sim_settled(s, NULL);
}

/* Members whose terms are far apart find together: any one, or any two, far ahead; three members
 * up, or two of them. */
TEST(m1_members_far_apart_find_together)
{
    for (unsigned ahead = 1; ahead < 7; ahead++)
        for (uint64_t down = 0; down <= 3; down++) {
            struct sim_options o = sim_defaults(3);
            struct sim *s = sim_new(&o, test_seed() + ahead);
            struct goal g = {5 * GUARD_TERM_STEP + 7};
            for (uint64_t id = 1; id <= 3; id++) {
                bool far = (ahead >> (id - 1) & 1) != 0;
                sim_member(s, id)->disk.term = far ? g.term : 1;
                if (id != down)
                    sim_start(s, id);
            }
            if (down != 0 && ahead == 1u << (down - 1))
                g.term = 1; /* the one ahead is down */
            EXPECT(sim_run_until(s, all_at, &g, 3000000));
            expect_service(s);
            sim_free(s);
        }
}

/* Two of three are up: one has the higher term, the other the newer log. Without a word about the
 * term in the answer to a pre-vote they refuse each other for ever. */
TEST(m1_higher_term_and_newer_log_find_together)
{
    static const uint64_t terms[] = {6, 7, 8, 10, 1000, 3 * GUARD_TERM_STEP};
    for (unsigned i = 0; i < sizeof terms / sizeof terms[0]; i++) {
        struct sim_options o = sim_defaults(3);
        struct sim *s = sim_new(&o, test_seed());
        struct cns_payload *p = sim_payload(s, 100);
        sim_disk_put(s, 2, 5, CNS_COMMAND, p);
        cns_payload_unref(p);
        sim_member(s, 2)->disk.term = 5;
        sim_member(s, 1)->disk.term = terms[i];
        sim_start(s, 1);
        sim_start(s, 2);
        struct goal g = {terms[i]};
        EXPECT(sim_run_until(s, all_at, &g, 3000000));
        EXPECT_EQ(sim_elect(s), 2);
        expect_service(s);
        sim_free(s);
    }
}

/* A member that is out of reach for good costs an election now and then, not the service. */
TEST(m1_a_member_at_the_last_term_does_not_stop_the_others)
{
    struct sim_options o = sim_defaults(3);
    struct sim *s = sim_new(&o, test_seed());
    sim_member(s, 3)->disk.term = TERM_MAX - 100;
    for (uint64_t id = 1; id <= 3; id++)
        sim_start(s, id);
    unsigned accepted = 0;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t leader = sim_leader(s);
        accepted += leader != 0 && sim_propose(s, leader, 1, 100, NULL) == ERR_OK;
        sim_run_ms(s, 100);
    }
    EXPECT(accepted > 500);
    EXPECT(sim_committed(s) > 500);
    EXPECT(status(s, 1).term < 1000 * GUARD_TERM_STEP);
    sim_free(s);
}

/* --- L6 -----------------------------------------------------------------------------------------
 */

TEST(l6_confirmations_of_strangers_do_not_fill_the_voters_places)
{
    struct sim *s = three();
    uint64_t leader = settled_leader(s);
    uint8_t p[17] = {4}; /* CONFIRM, of round 0 */
    set_le64(p + 1, status(s, leader).term);
    for (uint64_t from = 1000; from < 1100; from++) {
        thread_expect_loop();
        driver_receive_bytes(sim_member(s, leader)->d, from, CNS_BYTES_READ_INDEX, p, sizeof p);
    }
    for (uint64_t id = 1; id <= 3; id++)
        sim_read(s, id, 5000);
    sim_run_ms(s, 1000);
    EXPECT_EQ(sim_reads_ok(s), 3);
    EXPECT_EQ(status(s, leader).role, CNS_LEADER);
    sim_free(s);
}
