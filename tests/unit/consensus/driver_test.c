/* Room: tests. consensus/driver and its parts, in the simulation. The traps of libraft have
 * trap_test.c. */
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/cache.h"
#include "consensus/members.h"
#include "consensus/terms.h"
#include "tests/lib/test.h"
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

static struct sim *group(unsigned n)
{
    struct sim_options o = sim_defaults(n);
    struct sim *s = sim_new(&o, test_seed());
    for (uint64_t id = 1; id <= n; id++)
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

static void expect_settled(struct sim *s)
{
    EXPECT(sim_run_until(s, sim_settled, NULL, 60000));
    sim_compare_logs(s);
}

TEST(driver_random_faults_keep_the_promises)
{
    struct sim_stats st = {0};
    uint64_t seeds = test_rounds(300);
    for (uint64_t i = 0; i < seeds; i++)
        sim_run(test_seed() + i, 6000, &st);
    EXPECT(st.committed > seeds * 10);
    EXPECT(st.crashes > seeds && st.reads_ok > seeds);
}

TEST(driver_same_seed_is_the_same_run)
{
    struct sim_stats a = {0}, b = {0};
    uint64_t seed = test_seed();
    sim_run(seed, 5000, &a);
    sim_run(seed, 5000, &b);
    EXPECT_EQ(a.committed, b.committed);
    EXPECT_EQ(a.virtual_ms, b.virtual_ms);
    EXPECT_EQ(a.leaderships, b.leaderships);
}

TEST(driver_lone_member_leads_in_a_new_term_each_life)
{
    struct sim *s = group(1);
    uint64_t term = 1;
    for (unsigned life = 0; life < 5; life++) {
        EXPECT_EQ(sim_elect(s), 1);
        EXPECT(sim_member(s, 1)->term > term);
        term = sim_member(s, 1)->term;
        EXPECT_OK(sim_propose(s, 1, 3, 10, NULL));
        expect_settled(s);
        sim_read(s, 1, 100);
        sim_run_ms(s, 1);
        EXPECT_EQ(sim_reads_ok(s), life + 1);
        EXPECT_OK(sim_propose(s, 1, 3, 10, NULL)); /* may be lost */
        sim_crash(s, 1);
        sim_start(s, 1);
    }
    sim_free(s);
}

TEST(driver_delivers_no_more_than_the_node_has_room_for)
{
    struct sim *s = group(3);
    uint64_t leader = sim_elect(s), index = 0;
    struct sim_member *slow = sim_member(s, leader % 3 + 1);
    uint64_t from = slow->delivered;
    slow->slow_apply = true;
    for (unsigned i = 0; i < 64; i++) {
        while (sim_propose(s, leader, 1, MIB(1), &index) == ERR_BUSY)
            sim_run_ms(s, 1);
        sim_run_ms(s, 5);
    }
    sim_run_ms(s, 500);
    /* 64 MiB are committed; 16 and the one that passed the mark are with the node. */
    EXPECT(sim_committed(s) >= index);
    EXPECT(slow->delivered - from <= 18);
    EXPECT(status(s, slow->id).cache_bytes <= LOG_CACHE_BYTES_MAX + MIB(2));
    uint64_t before = slow->delivered;
    sim_apply(s, slow->id, before - 4);
    sim_run_ms(s, 200);
    EXPECT(slow->delivered > before && slow->delivered <= before + 14);
    while (slow->delivered < index) {
        sim_apply(s, slow->id, slow->delivered);
        sim_run_ms(s, 50);
    }
    EXPECT(slow->disk.reads > 0); /* the oldest had left the cache */
    EXPECT_EQ(sim_leader(s), leader);
    sim_free(s);
}

TEST(driver_restart_delivers_from_the_disk)
{
    struct sim *s = group(3);
    uint64_t index = 0;
    for (unsigned i = 0; i < 50; i++) {
        EXPECT_OK(sim_propose(s, sim_elect(s), 10, 1000, &index));
        sim_run_ms(s, 10);
    }
    expect_settled(s);
    for (uint64_t id = 1; id <= 3; id++) {
        sim_crash_keep(s, id, 0);
        sim_member(s, id)->database = 100 * (id - 1); /* the databases were put back from backups */
        sim_start(s, id);
    }
    EXPECT_OK(sim_propose(s, sim_elect(s), 1, 10, NULL));
    expect_settled(s);
    EXPECT(sim_member(s, 1)->disk.reads > 0);
    sim_free(s);
}

static bool another_leads(struct sim *s, void *ctx)
{
    const uint64_t *old = ctx;
    uint64_t now = sim_leader(s);
    return now != 0 && now != *old;
}

TEST(driver_hands_over_to_the_most_advanced_member)
{
    struct sim *s = group(3);
    uint64_t old = sim_elect(s);
    uint64_t behind = old % 3 + 1, ahead = behind % 3 + 1;
    thread_expect_loop();
    struct driver *d = sim_member(s, old)->d;
    EXPECT_ERR(ERR_NOT_LEADER, driver_transfer(sim_member(s, ahead)->d, 0));
    EXPECT_ERR(ERR_NOT_FOUND, driver_transfer(d, old));
    EXPECT_ERR(ERR_NOT_FOUND, driver_transfer(d, 9));
    sim_cut(s, old, behind, true);
    EXPECT_OK(sim_propose(s, old, 5, 100, NULL));
    sim_run_ms(s, 20);
    uint64_t began = sim_now_us(s);
    EXPECT_OK(driver_transfer(d, 0));
    EXPECT_ERR(ERR_BUSY, sim_propose(s, old, 1, 10, NULL));
    sim_turn(sim_member(s, old));
    EXPECT(sim_run_until(s, another_leads, &old, 200));
    EXPECT_EQ(sim_leader(s), ahead);
    EXPECT(sim_now_us(s) - began < 50000); /* an election timeout is 300 ms */
    sim_heal(s);
    expect_settled(s);
    /* Nobody to take over: given up after an election timeout, and there is room again. */
    old = sim_elect(s);
    uint64_t deaf = old % 3 + 1;
    sim_cut(s, old, deaf, true);
    EXPECT_OK(sim_propose(s, old, 1, 10, NULL));
    d = sim_member(s, old)->d;
    uint64_t rooms = sim_member(s, old)->rooms;
    EXPECT_OK(driver_transfer(d, deaf));
    EXPECT_ERR(ERR_BUSY, driver_transfer(d, deaf));
    EXPECT_ERR(ERR_BUSY, sim_propose(s, old, 1, 10, NULL));
    sim_run_ms(s, 400);
    EXPECT_EQ(sim_leader(s), old);
    EXPECT(sim_member(s, old)->rooms > rooms);
    EXPECT_OK(sim_propose(s, old, 1, 10, NULL));
    sim_free(s);
}

TEST(driver_propose_says_why_not)
{
    struct sim *s = group(3);
    uint64_t leader = sim_elect(s), index;
    struct sim_member *m = sim_member(s, leader);
    struct cns_payload *big = sim_payload(s, ENTRY_BYTES_MAX + 1), *small = sim_payload(s, 10);
    EXPECT_ERR(ERR_NOT_LEADER, sim_propose(s, leader % 3 + 1, 1, 10, NULL));
    thread_expect_loop();
    EXPECT_ERR(ERR_NOT_LEADER, driver_propose(m->d, m->term - 1, &small, 1, &index));
    EXPECT_ERR(ERR_NOT_LEADER, driver_propose(m->d, m->term + 1, &small, 1, &index));
    EXPECT_ERR(ERR_TOO_BIG, driver_propose(m->d, m->term, &big, 1, &index));
    EXPECT_ERR(ERR_MISUSE, driver_propose(m->d, m->term, &small, 0, &index));
    struct cns_status before = status(s, leader);
    struct cns_payload *two[] = {small, big};
    EXPECT_ERR(ERR_TOO_BIG, driver_propose(m->d, m->term, two, 2, &index)); /* all or none */
    EXPECT_EQ(status(s, leader).last_index, before.last_index);
    EXPECT_EQ(status(s, leader).inflight_bytes, 0);
    EXPECT_OK(driver_propose(m->d, m->term, &small, 1, &index)); /* takes the reference */
    EXPECT_EQ(index, before.last_index + 1);
    cns_payload_unref(big);
    expect_settled(s);
    EXPECT_EQ(status(s, leader).inflight_bytes, 0);
    sim_free(s);
}

struct loss {
    uint64_t to, entries, countdown;
};

static bool lose_one(void *ctx, uint64_t from, uint64_t to, const struct raft_message *m,
                     const struct cns_item *items, unsigned n)
{
    struct loss *l = ctx;
    (void)from;
    (void)items;
    if (to != l->to || m->type != RAFT_APPEND_ENTRIES || n == 0)
        return true;
    l->entries += n;
    return l->countdown == 0 || --l->countdown > 0;
}

TEST(driver_sends_again_once_after_a_loss)
{
    struct sim_options o = sim_defaults(3);
    o.net_us_min = o.net_us_max = 5000; /* many messages are under way when one is lost */
    struct sim *s = sim_new(&o, test_seed());
    for (uint64_t id = 1; id <= 3; id++)
        sim_start(s, id);
    uint64_t leader = sim_elect(s), index = 0, proposed = 0;
    sim_run_ms(s, 200);
    struct loss l = {.to = leader % 3 + 1, .countdown = 50};
    sim_set_filter(s, lose_one, &l);
    for (unsigned i = 0; i < 1000; i++) {
        EXPECT_OK(sim_propose(s, leader, 1, 50, &index));
        proposed++;
        uint64_t until = sim_now_us(s) + 100;
        while (sim_now_us(s) < until)
            EXPECT(sim_step(s));
    }
    expect_settled(s);
    EXPECT_EQ(l.countdown, 0);
    EXPECT(l.entries < 2 * proposed); /* the loss, and what was under way behind it */
    sim_free(s);
}

TEST(driver_stalled_member_does_not_disturb)
{
    struct sim *s = group(3);
    uint64_t leader = sim_elect(s), term = sim_member(s, leader)->term;
    uint64_t stalled = leader % 3 + 1;
    for (unsigned i = 0; i < 12; i++) {
        sim_pause(s, stalled, true);
        sim_run_ms(s, 900);
        sim_pause(s, stalled, false);
        sim_run_ms(s, 100);
    }
    EXPECT_EQ(sim_leader(s), leader);
    EXPECT_EQ(sim_member(s, leader)->term, term);
    sim_free(s);
}

static void receive(struct sim *s, uint64_t to, uint64_t from, struct cns_message *m)
{
    thread_expect_loop();
    driver_receive(sim_member(s, to)->d, from, m);
    driver_turn(sim_member(s, to)->d);
}

static struct cns_message append(uint64_t term, uint64_t prev, uint64_t prev_term, uint64_t commit)
{
    struct cns_message m = {.m = {.type = RAFT_APPEND_ENTRIES}};
    m.m.append_entries.term = term;
    m.m.append_entries.prev_log_index = prev;
    m.m.append_entries.prev_log_term = prev_term;
    m.m.append_entries.leader_commit = commit;
    return m;
}

TEST(driver_commit_index_never_falls)
{
    struct sim_options o = sim_defaults(3);
    struct sim *s = sim_new(&o, test_seed());
    sim_start(s, 3);
    struct cns_payload *p = sim_payload(s, 10);
    struct cns_item items[] = {
        {2, 2, CNS_COMMAND, p}, {3, 2, CNS_COMMAND, p}, {4, 2, CNS_COMMAND, p}};
    struct cns_message m = append(2, 1, 1, 3);
    m.items = items;
    m.n_items = 3;
    receive(s, 3, 1, &m);
    EXPECT_EQ(status(s, 3).commit_index, 3);
    /* A message that vouches for entry 1 only, from a leader that has committed more. */
    m = append(2, 1, 1, 4);
    receive(s, 3, 1, &m);
    EXPECT_EQ(status(s, 3).commit_index, 3);
    m = append(2, 4, 2, 100);
    receive(s, 3, 1, &m);
    EXPECT_EQ(status(s, 3).commit_index, 4);
    sim_run_ms(s, 20);
    EXPECT_EQ(sim_member(s, 3)->delivered, 4);
    cns_payload_unref(p);
    sim_free(s);
}

TEST(driver_refuses_messages_that_break_the_rules)
{
    struct sim_options o = sim_defaults(3);
    struct sim *s = sim_new(&o, test_seed());
    sim_start(s, 3);
    struct cns_payload *p = sim_payload(s, 10);
    struct cns_item gap[] = {{2, 2, CNS_COMMAND, p}, {4, 2, CNS_COMMAND, p}};
    struct cns_item falling[] = {{2, 2, CNS_COMMAND, p}, {3, 1, CNS_COMMAND, p}};
    struct cns_item future[] = {{2, 3, CNS_COMMAND, p}};
    struct cns_item empty[] = {{2, 2, CNS_COMMAND, NULL}};
    struct cns_item garbage[] = {{2, 2, CNS_CHANGE, p}};
    struct cns_item fat[] = {{2, 2, CNS_BARRIER, p}};
    struct {
        struct cns_item *items;
        unsigned n;
    } bad[] = {{gap, 2}, {falling, 2}, {future, 1}, {empty, 1}, {garbage, 1}, {fat, 1}};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cns_message m = append(2, 1, 1, 9);
        m.items = bad[i].items;
        m.n_items = bad[i].n;
        receive(s, 3, 1, &m);
    }
    struct cns_message heads[] = {append(UINT64_MAX, 1, 1, 1), append(2, 1, 0, 1),
                                  append(2, 0, 1, 1), append(2, UINT64_MAX, 1, 1)};
    for (unsigned i = 0; i < sizeof heads / sizeof heads[0]; i++)
        receive(s, 3, 1, &heads[i]);
    struct cns_message vote = {.m = {.type = RAFT_REQUEST_VOTE}};
    vote.m.request_vote.term = 5;
    vote.m.request_vote.candidate_id = 2; /* in another's name */
    receive(s, 3, 1, &vote);
    vote.m.request_vote.candidate_id = 1;
    vote.m.request_vote.term = UINT64_MAX;
    receive(s, 3, 1, &vote);
    EXPECT_EQ(status(s, 3).last_index, 1);
    EXPECT_EQ(status(s, 3).term, 1);
    thread_expect_loop();
    const uint8_t noise[] = "\x04 too short";
    for (size_t n = 0; n < sizeof noise; n++)
        for (uint8_t type = 0; type < 8; type++)
            driver_receive_bytes(sim_member(s, 3)->d, 1, type, noise, n);
    driver_turn(sim_member(s, 3)->d);
    EXPECT_EQ(sim_member(s, 3)->role, CNS_FOLLOWER);
    cns_payload_unref(p);
    sim_free(s);
}

static uint64_t four(void *ctx)
{
    (void)ctx;
    return 4;
}

TEST(driver_refuses_a_log_that_cannot_be)
{
    struct sim_options o = sim_defaults(1);
    struct sim *s = sim_new(&o, 1);
    struct driver_config c = {.id = 1, .address = "x", .election_ms = 100, .heartbeat_ms = 10};
    struct driver *d;
    c.io.random = four;
    thread_expect_loop();
    EXPECT_OK(driver_new(&c, &d));
    struct cns_payload *noise = sim_payload(s, 40), *members;
    struct cns_server server = {1, "x", CNS_VOTER};
    EXPECT_OK(members_encode(&server, 1, &members));
    EXPECT_ERR(ERR_CORRUPT, driver_load(d, 2, 1, CNS_CHANGE, members));
    EXPECT_ERR(ERR_CORRUPT, driver_load(d, 1, 0, CNS_CHANGE, members));
    EXPECT_ERR(ERR_CORRUPT, driver_load(d, 1, 1, CNS_COMMAND, NULL));
    EXPECT_ERR(ERR_PROTOCOL, driver_load(d, 1, 1, CNS_CHANGE, noise));
    EXPECT_ERR(ERR_PROTOCOL, driver_load(d, 1, 1, CNS_CHANGE, NULL));
    EXPECT_OK(driver_load(d, 1, 5, CNS_CHANGE, members));
    EXPECT_ERR(ERR_CORRUPT, driver_load(d, 2, 4, CNS_COMMAND, NULL));
    EXPECT_ERR(ERR_CORRUPT, driver_start(d, 4, 0, 0)); /* the record is older than the log */
    driver_free(d);
    EXPECT_ERR(ERR_CONFIG, members_encode(NULL, 0, &members));
    struct cns_server twice[] = {{1, "x", CNS_VOTER}, {1, "y", CNS_VOTER}};
    struct cns_payload *none;
    EXPECT_ERR(ERR_CONFIG, members_encode(twice, 2, &none));
    cns_payload_unref(members);
    cns_payload_unref(noise);
    sim_free(s);
}

TEST(cache_keeps_the_newest_and_what_may_not_go)
{
    struct cache c;
    cache_init(&c);
    for (uint64_t i = 10; i < 210; i++)
        cache_push(&c, (struct cns_item){i, 1, CNS_COMMAND, cns_payload_take(mem_alloc(72), 72)});
    EXPECT_EQ(c.bytes, 200 * 200);
    EXPECT(cache_get(&c, 9) == NULL && cache_get(&c, 210) == NULL);
    EXPECT_EQ(cache_get(&c, 10)->index, 10);
    cache_evict(&c, 0, 100);
    EXPECT_EQ(cache_first(&c), 101);
    cache_evict(&c, 50 * 200, 200);
    EXPECT_EQ(cache_first(&c), 160);
    cache_truncate(&c, 200);
    EXPECT_EQ(cache_get(&c, 199)->index, 199);
    EXPECT(cache_get(&c, 200) == NULL);
    cache_truncate(&c, 1);
    EXPECT_EQ(c.bytes, 0);
    cache_push(&c, (struct cns_item){500, 1, CNS_BARRIER, NULL});
    EXPECT_EQ(cache_first(&c), 500);
    cache_fini(&c);
}

TEST(terms_agree_with_a_plain_array)
{
    struct terms t;
    uint64_t plain[2000] = {0}, n = 0;
    struct rng rng = {test_seed()};
    terms_init(&t, 1, 0);
    for (unsigned i = 0; i < 5000; i++) {
        if (n > 0 && (n == 1999 || rng_once_in(&rng, 20))) {
            n = rng_below(&rng, n);
            terms_truncate(&t, n + 1);
        } else {
            uint64_t last = n == 0 ? 1 : plain[n];
            plain[++n] = last + (rng_once_in(&rng, 10) ? 1 + rng_below(&rng, 3) : 0);
            terms_append(&t, plain[n]);
        }
        EXPECT_EQ(t.last, n);
        EXPECT_EQ(terms_at(&t, n + 1), 0);
        uint64_t k = 1 + rng_below(&rng, n);
        if (n == 0)
            continue;
        EXPECT_EQ(terms_at(&t, k), plain[k]);
        uint64_t first = k;
        while (first > 1 && plain[first - 1] == plain[k])
            first--;
        EXPECT_EQ(terms_run_first(&t, k), first);
    }
    terms_fini(&t);
}
