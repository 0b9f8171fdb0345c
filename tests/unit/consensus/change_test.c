/* Room: tests. The rules about members that change and logs that are cut (consensus/README.md, 13
 * to 22), one by one, on the simulation's disks and network. */
#include "base/buf.h"
#include "consensus/members.h"
#include "tests/lib/test.h"
#include "tests/sim/sim.h"

static struct cns_payload *members(const struct cns_server *servers, unsigned n)
{
    struct cns_payload *p;
    EXPECT_OK(members_encode(servers, n, &p));
    return p;
}

static struct sim *group(unsigned n)
{
    struct sim_options o = sim_defaults(n);
    return sim_new(&o, 7);
}

static void start_all(struct sim *s)
{
    for (uint64_t id = 1; id <= sim_count(s); id++)
        sim_start(s, id);
}

static struct cns_status status(struct sim *s, uint64_t id)
{
    struct cns_status st;
    thread_expect_loop();
    driver_get_status(sim_member(s, id)->d, &st);
    return st;
}

static int role_of(struct sim *s, uint64_t at, uint64_t id)
{
    thread_expect_loop();
    const struct raft_server *server = members_find(driver_members(sim_member(s, at)->d), id);
    return server == NULL ? -1 : server->role;
}

static void expect_settled(struct sim *s)
{
    EXPECT(sim_run_until(s, sim_settled, NULL, 60000));
    sim_compare_logs(s);
}

static uint64_t change(struct sim *s, uint64_t at, enum cns_change_kind kind, uint64_t id,
                       enum cns_member_role role)
{
    uint64_t index;
    thread_expect_loop();
    EXPECT_OK(driver_change(sim_member(s, at)->d, kind, &id, NULL, role, &index));
    driver_turn(sim_member(s, at)->d);
    return index;
}

static void receive(struct sim *s, uint64_t to, uint64_t from, uint64_t term, uint64_t prev_index,
                    uint64_t prev_term, struct cns_item *item)
{
    struct cns_message m = {.m = {.type = RAFT_APPEND_ENTRIES}, .items = item, .n_items = 1};
    m.m.append_entries.term = term;
    m.m.append_entries.prev_log_index = prev_index;
    m.m.append_entries.prev_log_term = prev_term;
    m.m.append_entries.leader_commit = 1;
    thread_expect_loop();
    driver_receive(sim_member(s, to)->d, from, &m);
    driver_turn(sim_member(s, to)->d);
}

/* A leader that was elected with two changes in its log does not know yet that the first one is
 * committed, and sends both. The second one is replaced: the first one must hold. */
TEST(change_taken_back_leaves_the_one_before)
{
    static const struct cns_server first[] = {
        {1, "sim:1", CNS_VOTER}, {2, "sim:2", CNS_VOTER}, {3, "sim:3", CNS_STANDBY}};
    static const struct cns_server second[] = {
        {1, "sim:1", CNS_VOTER}, {2, "sim:2", CNS_STANDBY}, {3, "sim:3", CNS_STANDBY}};
    struct sim *s = group(3);
    struct cns_payload *a = members(first, 3), *b = members(second, 3), *c = sim_payload(s, 50);
    struct cns_item ia = {2, 2, CNS_CHANGE, a}, ib = {3, 2, CNS_CHANGE, b},
                    ic = {3, 4, CNS_COMMAND, c};
    sim_start(s, 3);
    receive(s, 3, 1, 3, 1, 1, &ia);
    EXPECT_EQ(role_of(s, 3, 3), RAFT_STANDBY);
    receive(s, 3, 1, 3, 2, 2, &ib);
    EXPECT_EQ(role_of(s, 3, 2), RAFT_STANDBY);
    receive(s, 3, 2, 4, 2, 2, &ic);
    EXPECT_EQ(role_of(s, 3, 2), RAFT_VOTER);
    EXPECT_EQ(role_of(s, 3, 3), RAFT_STANDBY);
    EXPECT_EQ(status(s, 3).last_index, 3);
    ib.term = 5;
    receive(s, 3, 1, 5, 2, 2, &ib);
    EXPECT_EQ(role_of(s, 3, 2), RAFT_STANDBY);
    cns_payload_unref(a);
    cns_payload_unref(b);
    cns_payload_unref(c);
    sim_free(s);
}

static bool lose_changes(void *ctx, uint64_t from, uint64_t to, const struct raft_message *m,
                         const struct cns_item *items, unsigned n)
{
    const bool *on = ctx;
    (void)from;
    (void)to;
    (void)m;
    return !*on || n == 0 || items[0].kind != CNS_CHANGE;
}

/* A lone voter promotes a standby and dies before the other hears of it. When it comes back it
 * needs the vote of one that believes to be a standby, and to have a leader. */
TEST(change_a_standby_votes_before_it_knows_that_it_may)
{
    static const struct cns_server alone[] = {{1, "sim:1", CNS_VOTER}, {2, "sim:2", CNS_STANDBY}};
    struct sim *s = group(2);
    struct cns_payload *p = members(alone, 2);
    bool lossy = false;
    for (uint64_t id = 1; id <= 2; id++)
        sim_disk_put(s, id, 1, CNS_CHANGE, p);
    cns_payload_unref(p);
    sim_set_filter(s, lose_changes, &lossy);
    start_all(s);
    EXPECT_EQ(sim_elect(s), 1);
    expect_settled(s);
    sim_run_ms(s, 500);
    lossy = true;
    uint64_t index = change(s, 1, CNS_SET_ROLE, 2, CNS_VOTER);
    sim_run_ms(s, 100);
    EXPECT(sim_member(s, 1)->disk.n >= index);
    EXPECT_EQ(role_of(s, 2, 2), RAFT_STANDBY);
    EXPECT_EQ(status(s, 2).leader_id, 1);
    sim_crash_keep(s, 1, 100);
    lossy = false;
    sim_start(s, 1);
    EXPECT_EQ(sim_elect(s), 1);
    expect_settled(s);
    EXPECT_EQ(role_of(s, 2, 2), RAFT_VOTER);
    sim_free(s);
}

struct watch {
    struct sim *s;
    uint64_t leader, index, demoted, early, late;
};

static bool watch_change(void *ctx, uint64_t from, uint64_t to, const struct raft_message *m,
                         const struct cns_item *items, unsigned n)
{
    struct watch *w = ctx;
    (void)m;
    for (unsigned i = 0; i < n && w->index > 0; i++) {
        if (from != w->leader || to != w->demoted || items[i].index != w->index)
            continue;
        if (status(w->s, from).commit_index < w->index)
            w->early++;
        else
            w->late++;
    }
    return true;
}

/* It would have the newest log, refuse its vote to the others, and not stand itself. */
TEST(change_that_takes_the_vote_away_is_sent_when_it_is_committed)
{
    for (unsigned remove = 0; remove < 2; remove++) {
        struct sim *s = group(3);
        struct watch w = {.s = s};
        start_all(s);
        w.leader = sim_elect(s);
        w.demoted = w.leader % 3 + 1;
        expect_settled(s);
        sim_run_ms(s, 500);
        sim_set_filter(s, watch_change, &w);
        w.index = status(s, w.leader).last_index + 1;
        EXPECT_EQ(change(s, w.leader, remove ? CNS_REMOVE : CNS_SET_ROLE, w.demoted, CNS_STANDBY),
                  w.index);
        sim_run_ms(s, 2000);
        EXPECT_EQ(w.early, 0);
        EXPECT(w.late > 0);
        EXPECT_EQ(sim_member(s, w.demoted)->told_removed, remove != 0);
        sim_free(s);
    }
}

/* The leader remembers how far the former life of a member matched; its new one begins later. */
TEST(change_of_a_log_for_an_image_is_understood_by_the_leader)
{
    struct sim *s = group(3);
    start_all(s);
    uint64_t leader = sim_elect(s), away = leader % 3 + 1;
    EXPECT_OK(sim_propose(s, leader, 50, 100, NULL));
    expect_settled(s);
    sim_crash_keep(s, away, 100);
    EXPECT_OK(sim_propose(s, leader, 50, 100, NULL));
    sim_run_ms(s, 200);
    sim_install(s, away, leader);
    EXPECT_EQ(sim_member(s, away)->disk.n, 0);
    sim_start(s, away);
    EXPECT_OK(sim_propose(s, leader, 1, 100, NULL));
    EXPECT(sim_run_until(s, sim_settled, NULL, 1000));
    sim_compare_logs(s);
    sim_free(s);
}

/* Its log has the entry that the image stands for as the one before its first: all is kept. */
TEST(change_of_state_keeps_a_log_that_begins_right_behind)
{
    struct sim *s = group(3);
    start_all(s);
    uint64_t leader = sim_elect(s), away = leader % 3 + 1;
    EXPECT_OK(sim_propose(s, leader, 50, 100, NULL));
    expect_settled(s);
    sim_crash_keep(s, away, 100);
    sim_install(s, away, leader);
    struct sim_member *m = sim_member(s, away);
    unsigned kept = m->disk.n;
    uint64_t base = m->disk.base;
    EXPECT(kept > 0);
    sim_install(s, away, leader);
    EXPECT(m->disk.n == kept && m->disk.base == base);
    sim_start(s, away);
    expect_settled(s);
    sim_free(s);
}

static bool count_votes(void *ctx, uint64_t from, uint64_t to, const struct raft_message *m,
                        const struct cns_item *items, unsigned n)
{
    unsigned *votes = ctx;
    (void)to;
    (void)items;
    (void)n;
    if (from == 1 && m->type == RAFT_REQUEST_VOTE_RESULT)
        (*votes)++;
    return true;
}

TEST(change_leaves_a_lone_voter_that_votes_for_nobody)
{
    static const struct cns_server alone[] = {{1, "sim:1", CNS_VOTER}, {2, "sim:2", CNS_STANDBY}};
    struct sim *s = group(2);
    struct cns_payload *p = members(alone, 2);
    unsigned votes = 0;
    sim_disk_put(s, 1, 1, CNS_CHANGE, p);
    cns_payload_unref(p);
    sim_set_filter(s, count_votes, &votes);
    sim_start(s, 1);
    EXPECT_EQ(sim_elect(s), 1);
    uint64_t term = status(s, 1).term;
    struct cns_message m = {.m = {.type = RAFT_REQUEST_VOTE}};
    m.m.request_vote = (struct raft_request_vote){.version = 2,
                                                  .term = term + 1,
                                                  .candidate_id = 2,
                                                  .last_log_index = 1000,
                                                  .last_log_term = term + 1,
                                                  .disrupt_leader = true};
    thread_expect_loop();
    driver_receive(sim_member(s, 1)->d, 2, &m);
    sim_run_ms(s, 2000);
    EXPECT_EQ(votes, 0);
    EXPECT_EQ(status(s, 1).term, term);
    EXPECT_EQ(status(s, 1).role, CNS_LEADER);
    sim_free(s);
}

/* A cut takes entries that a read for a follower is under way for: the follower is behind then, and
 * nothing else is wrong. */
TEST(change_of_the_logs_begin_overtakes_a_read)
{
    struct sim_options o = sim_defaults(3);
    o.cache_bytes = 2000;
    unsigned told = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct sim *s = sim_new(&o, seed);
        start_all(s);
        uint64_t leader = sim_elect(s), away = leader % 3 + 1;
        expect_settled(s);
        sim_isolate(s, away, true);
        for (unsigned i = 0; i < 30; i++) {
            EXPECT_OK(sim_propose(s, leader, 5, 300, NULL));
            sim_run_ms(s, 20);
        }
        sim_isolate(s, away, false);
        sim_member(s, leader)->database = sim_member(s, leader)->applied;
        uint64_t reads = sim_member(s, leader)->disk.reads;
        sim_disk_slow(s, leader, 100000); /* the read, not the cut */
        while (sim_member(s, leader)->disk.reads == reads)
            EXPECT(sim_step(s));
        sim_disk_slow(s, leader, 0);
        sim_cut_log(s, leader, 0);
        sim_run_ms(s, 2500);
        EXPECT(sim_member(s, leader)->role != CNS_STOPPED);
        struct sim_member *m = sim_member(s, away);
        if (m->behind > 0) {
            told++;
            EXPECT(m->behind <= sim_member(s, leader)->disk.base + 1);
            sim_crash_keep(s, away, 100);
            sim_install(s, away, leader);
            sim_start(s, away);
        }
        expect_settled(s);
        sim_free(s);
    }
    EXPECT(told > 0);
}

static bool lose_entries(void *ctx, uint64_t from, uint64_t to, const struct raft_message *m,
                         const struct cns_item *items, unsigned n)
{
    (void)from;
    (void)to;
    (void)items;
    return !*(const bool *)ctx || m->type != RAFT_APPEND_ENTRIES || n == 0;
}

static bool somebody_leads(struct sim *s, void *ctx)
{
    (void)ctx;
    return sim_leader(s) != 0;
}

/* Two leaders with lists that differ by two could both find a majority. */
TEST(change_waits_for_the_leaders_first_entry)
{
    struct sim *s = group(3);
    bool lossy = true;
    sim_set_filter(s, lose_entries, &lossy);
    start_all(s);
    EXPECT(sim_run_until(s, somebody_leads, NULL, 10000));
    uint64_t leader = sim_leader(s), id = leader % 3 + 1, index;
    sim_run_ms(s, 100); /* both others answer by now */
    EXPECT_EQ(sim_leader(s), leader);
    thread_expect_loop();
    struct driver *d = sim_member(s, leader)->d;
    EXPECT_ERR(ERR_BUSY, driver_change(d, CNS_REMOVE, &id, NULL, CNS_VOTER, &index));
    lossy = false;
    expect_settled(s);
    leader = sim_leader(s);
    id = leader % 3 + 1;
    (void)change(s, leader, CNS_REMOVE, id, CNS_VOTER);
    sim_free(s);
}

/* Its log names one member that is gone, one that is there, and not the new one that leads. */
TEST(change_that_was_missed_is_heard_of_from_another_member)
{
    struct sim *s = group(3);
    start_all(s);
    uint64_t old = sim_elect(s), away = old % 3 + 1, third = 6 - old - away, id = 0, index;
    expect_settled(s);
    sim_crash_keep(s, away, 100);
    thread_expect_loop();
    EXPECT_OK(driver_change(sim_member(s, old)->d, CNS_ADD, &id, "sim:4", CNS_STANDBY, &index));
    EXPECT_EQ(id, 4);
    expect_settled(s);
    sim_join(s, id, old);
    sim_start(s, id);
    sim_run_ms(s, 500); /* it answers */
    (void)change(s, old, CNS_SET_ROLE, id, CNS_VOTER);
    expect_settled(s);
    EXPECT_OK(driver_transfer(sim_member(s, old)->d, id));
    sim_run_ms(s, 500);
    EXPECT_EQ(sim_elect(s), id);
    (void)change(s, id, CNS_REMOVE, old, CNS_VOTER);
    expect_settled(s);
    sim_gone(s, old);
    sim_run_ms(s, 200);
    EXPECT_EQ(sim_leader(s), id);
    sim_start(s, away);
    sim_run_ms(s, 3000);
    EXPECT_EQ(status(s, away).leader_id, id);
    /* (The new one's log begins after what it has.) */
    EXPECT(sim_member(s, away)->behind > 0);
    sim_crash_keep(s, away, 100);
    sim_install(s, away, third);
    sim_start(s, away);
    expect_settled(s);
    sim_free(s);
}

/* BEHIND is outside input: who has the entry, or has committed further, is not behind. */
TEST(change_of_the_logs_begin_is_judged_by_who_is_told)
{
    struct sim *s = group(3);
    start_all(s);
    uint64_t leader = sim_elect(s), id = leader % 3 + 1;
    EXPECT_OK(sim_propose(s, leader, 10, 100, NULL));
    expect_settled(s);
    struct sim_member *m = sim_member(s, id);
    uint64_t last = status(s, id).last_index, term = status(s, id).term;
    uint64_t cases[][4] = {
        /* from, term, first, term before: */
        {leader, term, last + 1, term},          /* it has that */
        {leader, term, 2, 9},                    /* it has committed more */
        {leader, term - 1, last + 9, term},      /* an old leader */
        {6 - leader - id, term, last + 9, term}, /* not the leader */
        {leader, term, 0, 0},
        {leader, term, 1, 0},
        {leader, term, last + 9, term}, /* behind */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t b[24];
        for (unsigned k = 0; k < 3; k++)
            set_le64(b + 8 * k, cases[i][k + 1]);
        thread_expect_loop();
        for (size_t n = 0; n < sizeof b; n++)
            driver_receive_bytes(m->d, cases[i][0], CNS_BYTES_BEHIND, b, n);
        EXPECT_EQ(m->behind, 0);

        if (i + 1 == sizeof cases / sizeof *cases)
            break; /* (the simulation itself refuses to believe it) */
        driver_receive_bytes(m->d, cases[i][0], CNS_BYTES_BEHIND, b, sizeof b);
        driver_turn(m->d);
        EXPECT_EQ(m->behind, 0);
    }
    sim_free(s);
}
