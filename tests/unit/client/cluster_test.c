/* Room: tests. What a cluster knows of its members, and whom it asks: the table alone, and with
 * fake nodes. */
#include "base/clock.h"
#include "client/loop.h"
#include "client/members.h"
#include "tests/lib/test.h"
#include "tests/unit/client/call_world.h"

#include <string.h>

static struct members ms;
static struct world w;
static struct asked a;

/* --- the table -------------------------------------------------------------------------------- */

static void begin_table(const char *first, const char *second)
{
    struct url url = {.n_addresses = second == NULL ? 1 : 2};
    (void)snprintf(url.addresses[0], URL_ADDRESS_MAX, "%s", first);
    if (second != NULL)
        (void)snprintf(url.addresses[1], URL_ADDRESS_MAX, "%s", second);
    members_init(&ms, &url, test_seed());
}

static void tell(const struct member *from, uint64_t id, const char *address, uint64_t term,
                 uint64_t leader, const char *state, const char *peer)
{
    struct member_news n = {.id = id,
                            .term = term,
                            .leader_id = leader,
                            .address = address,
                            .address_len = strlen(address),
                            .role = id == leader ? "leader" : "follower",
                            .role_len = id == leader ? 6 : 8,
                            .state = state,
                            .state_len = strlen(state),
                            .peer = peer,
                            .peer_len = strlen(peer),
                            .is_member = true};
    members_take_news(&ms, from, &n);
}

TEST(members_wildcards_take_the_host_that_was_reached)
{
    static const struct {
        const char *reached, *told, *peer, *dialled;
    } cases[] = {
        {"db.example:7701", "0.0.0.0:7702", "", "db.example:7702"},
        {"[fd00::1]:7701", "[::]:7702", "", "[fd00::1]:7702"},
        {"10.0.0.1:7701", "*:7702", "0.0.0.0:8802", "10.0.0.1:7702"},
        {"10.0.0.1:7701", "0.0.0.0:7702", "10.0.0.2:8802", "10.0.0.2:7702"},
        {"10.0.0.1:7701", ":7702", "[fd00::2]:8802", "[fd00::2]:7702"},
        {"10.0.0.1", "10.0.0.9:7702", "10.0.0.2:8802", "10.0.0.9:7702"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin_table(cases[i].reached, NULL);
        ms.all[0].id = 1;
        members_begin_news(&ms);
        tell(&ms.all[0], 2, cases[i].told, 1, 1, "ok", cases[i].peer);
        EXPECT(!members_end_news(&ms) || ms.leader_id == 1);
        EXPECT(members_by_id(&ms, 2) != NULL);
        EXPECT(strcmp(members_by_id(&ms, 2)->address, cases[i].dialled) == 0);
    }
}

TEST(members_hostile_addresses_are_no_addresses)
{
    char giant[URL_ADDRESS_MAX + 40];
    memset(giant, 'x', sizeof giant - 1);
    giant[sizeof giant - 1] = 0;
    const char *bad[] = {"", "a b:1", "a,b:1", "x/y:1", "\x7f:1", "\xc3\xa4:1", giant};
    begin_table("one:1", NULL);
    ms.all[0].id = 1;
    members_begin_news(&ms);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        tell(&ms.all[0], 10 + i, bad[i], 1, 1, "ok", "");
    tell(&ms.all[0], 0, "zero:1", 1, 1, "ok", "");
    EXPECT_EQ(ms.n, 1);
    for (unsigned i = 0; i < 3 * MEMBERS_MAX; i++) {
        char address[32];
        (void)snprintf(address, sizeof address, "host%u:1", i);
        tell(&ms.all[0], 100 + i, address, 1, 1, "ok", "");
    }
    EXPECT_EQ(ms.n, MEMBERS_MAX);
}

TEST(members_newest_term_says_who_leads)
{
    begin_table("one:1", NULL);
    ms.all[0].id = 1;
    members_begin_news(&ms);
    tell(&ms.all[0], 1, "one:1", 3, 1, "ok", "");
    tell(&ms.all[0], 2, "two:1", 4, 2, "ok", "");
    tell(&ms.all[0], 3, "three:1", 5, 0, "ok", ""); /* a candidate: knows of nobody */
    EXPECT(members_end_news(&ms));
    EXPECT(members_leader(&ms) == members_by_id(&ms, 2));
    members_begin_news(&ms); /* one that was cut off */
    tell(&ms.all[0], 1, "one:1", 3, 1, "ok", "");
    EXPECT(!members_end_news(&ms));
    EXPECT_EQ(ms.leader_id, 2);
    EXPECT(members_by_id(&ms, 3)->gone); /* its list is all that it knows */
    member_failed(&ms, members_by_id(&ms, 2), ERR_OK, 1000);
    EXPECT(members_leader(&ms) == NULL);
    members_begin_news(&ms);
    tell(&ms.all[0], 2, "two:1", 4, 2, "ok", "");
    EXPECT(members_end_news(&ms) && members_leader(&ms) != NULL);
    members_begin_news(&ms); /* nothing was told */
    EXPECT(!members_end_news(&ms));
}

TEST(members_failed_ones_are_avoided_longer_and_longer)
{
    begin_table("one:1", "two:1");
    struct member *m = &ms.all[0];
    struct member_wish wish = {.leader = true};
    uint64_t until, now = 1000000, least = 0;
    for (int i = 0; i < 12; i++) {
        member_failed(&ms, m, ERR_OK, now);
        uint64_t wait = m->avoid_until_ms - now;
        EXPECT(wait >= MEMBER_AVOID_MIN_MS / 2 && wait <= MEMBER_AVOID_MAX_MS);
        least = i >= 6 && (least == 0 || wait < least) ? wait : least;
        EXPECT(members_choose(&ms, &wish, now, &until) == &ms.all[1]);
    }
    EXPECT(least >= MEMBER_AVOID_MAX_MS / 2);
    member_failed(&ms, &ms.all[1], ERR_OK, now);
    EXPECT(members_choose(&ms, &wish, now, &until) == NULL);
    EXPECT_EQ(until, ms.all[1].avoid_until_ms);
    member_worked(m);
    EXPECT(members_choose(&ms, &wish, now, &until) == m);
    EXPECT_OK(members_refused(&ms, false));
    member_failed(&ms, m, ERR_VERSION, now);
    EXPECT_OK(members_refused(&ms, false));
    member_failed(&ms, &ms.all[1], ERR_PROTOCOL, now);
    EXPECT_ERR(ERR_VERSION, members_refused(&ms, false));
}

TEST(members_absent_ones_may_come_for_a_while)
{
    begin_table("one:1", "two:1");
    struct member *one = &ms.all[0], *two = &ms.all[1];
    member_failed(&ms, one, ERR_NOT_FOUND, 1);
    member_absent(&ms, two, 1);
    EXPECT_OK(members_refused(&ms, false));
    EXPECT_OK(members_refused(&ms, true)); /* tried once only */
    member_absent(&ms, two, 1);
    EXPECT_OK(members_refused(&ms, false));
    EXPECT_ERR(ERR_CLOSED,
               members_refused(&ms, true)); /* says more than the wrong name beside it */
    member_failed(&ms, one, ERR_OK, 1);     /* silent: may be paused */
    EXPECT_OK(members_refused(&ms, true));
    for (int i = 0; i < 2; i++)
        member_absent(&ms, one, 1);
    EXPECT_ERR(ERR_CLOSED, members_refused(&ms, true));
    member_failed(&ms, one, ERR_PROTOCOL, 1); /* what speaks there is surely no node */
    EXPECT_ERR(ERR_CLOSED, members_refused(&ms, true));
    member_failed(&ms, two, ERR_PROTOCOL, 1);
    EXPECT_ERR(ERR_PROTOCOL, members_refused(&ms, false));
    member_worked(two);
    EXPECT_OK(members_refused(&ms, true));
    member_absent(&ms, two, 1); /* counted anew */
    EXPECT_OK(members_refused(&ms, true));
}

TEST(members_other_address_is_tried_when_one_fails)
{
    begin_table("one:1", NULL);
    members_identified(&ms, &ms.all[0], 1);
    members_begin_news(&ms);
    tell(&ms.all[0], 1, "10.0.0.1:1", 1, 1, "ok", "");
    (void)members_end_news(&ms);
    EXPECT(strcmp(ms.all[0].address, "one:1") == 0);
    member_failed(&ms, &ms.all[0], ERR_OK, 1);
    EXPECT(strcmp(ms.all[0].address, "10.0.0.1:1") == 0);
    member_failed(&ms, &ms.all[0], ERR_OK, 1);
    EXPECT(strcmp(ms.all[0].address, "one:1") == 0);
}

TEST(members_reads_are_sticky_near_and_healthy)
{
    begin_table("one:1", "two:1");
    struct member_wish wish = {.read = true};
    uint64_t until;
    for (unsigned i = 0; i < 2; i++) {
        ms.all[i].id = i + 1;
        ms.all[i].ready = true;
    }
    ms.all[0].rtt_us = 10000;
    ms.all[1].rtt_us = 30000;
    EXPECT(members_choose(&ms, &wish, 1, &until) == &ms.all[0]);
    ms.all[1].rtt_us = 6000; /* nearer, but not by much */
    EXPECT(members_choose(&ms, &wish, 1, &until) == &ms.all[0]);
    ms.all[1].rtt_us = 3000;
    EXPECT(members_choose(&ms, &wish, 1, &until) == &ms.all[1]);
    ms.all[1].sick = true;
    EXPECT(members_choose(&ms, &wish, 1, &until) == &ms.all[0]);
    ms.all[0].sick = true; /* none is well: the near one */
    EXPECT(members_choose(&ms, &wish, 1, &until) != NULL);
    /* Equally near: by lot, and then there it stays. */
    unsigned first = 0;
    for (int i = 0; i < 200; i++) {
        ms.all[0].sick = ms.all[1].sick = false;
        ms.all[0].rtt_us = 80;
        ms.all[1].rtt_us = 120;
        ms.reader = NULL;
        struct member *m = members_choose(&ms, &wish, 1, &until);
        EXPECT(members_choose(&ms, &wish, 1, &until) == m);
        first += m == &ms.all[0];
    }
    EXPECT(first > 50 && first < 150);
}

TEST(members_that_are_gone_are_asked_last)
{
    begin_table("one:1", "two:1");
    struct member_wish wish = {.read = true};
    uint64_t until;
    for (unsigned i = 0; i < 2; i++)
        members_identified(&ms, &ms.all[i], i + 1);
    ms.all[0].ready = true;
    members_begin_news(&ms);
    tell(&ms.all[0], 2, "two:1", 1, 2, "ok", "");
    (void)members_end_news(&ms);
    EXPECT(ms.all[0].gone && !ms.all[1].gone);
    EXPECT(members_choose(&ms, &wish, 1, &until) == &ms.all[1]); /* although it must be dialled */
    member_failed(&ms, &ms.all[1], ERR_OK, 1);
    EXPECT(members_choose(&ms, &wish, 1, &until) == &ms.all[0]); /* better than nobody */
    ms.all[1].avoid_until_ms = 0;
    ms.all[0].ready = false;
    members_identified(&ms, &ms.all[0], 1); /* it answered as itself */
    EXPECT(!ms.all[0].gone);
    ms.all[0].ready = true;
    members_identified(&ms, &ms.all[1], 1); /* the same node by another way */
    EXPECT(ms.all[1].same && ms.all[1].id == 0 && ms.all[0].id == 1);
    ms.reader = NULL;
    EXPECT(members_choose(&ms, &wish, 1, &until) == &ms.all[0]);
}

/* --- with nodes ------------------------------------------------------------------------------- */

TEST(cluster_of_another_id_is_refused)
{
    world_begin(&w, 2);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    struct fake_node *stranger =
        fake_node_start(&(struct fake_options){.node_id = 9, .cluster_id = 78});
    struct url url = w.url;
    struct lectern_cluster *c;
    struct stream *s;
    (void)snprintf(url.addresses[1], URL_ADDRESS_MAX, "%s", fake_node_address(stranger));
    EXPECT_OK(cluster_new(&url, &c));
    EXPECT_OK(stream_new(c, &s));
    struct world both = w;
    both.cluster = c;
    both.stream = s;
    /* Whichever answers first is the cluster; the other one is refused. */
    EXPECT_OK(run_sql(&both, "INSERT", &a));
    uint64_t id = cluster_id(c);
    EXPECT(id == 77 || id == 78);
    if (id == 77)
        fake_node_kill(w.nodes[0]), fake_node_kill(w.nodes[1]);
    else
        fake_node_kill(stranger);
    turn_for(&both, 50);
    ask(&both, &a, "INSERT", 600);
    wait_end(&both, &a, 800);
    EXPECT(a.end.code == ERR_CONFIG || a.end.code == ERR_CLOSED);
    EXPECT_EQ(cluster_id(c), id);
    stream_free(s);
    cluster_free(c);
    fake_node_stop(stranger);
    world_end(&w);
}

TEST(cluster_that_is_none_fails_at_once)
{
    struct fake_node *http = fake_node_start(&(struct fake_options){.raw = "HTTP/1.1 400 Bad\r\n"});
    struct fake_node *old = fake_node_start(&(struct fake_options){.version = 9});
    struct world none = {.url = {.n_addresses = 2, .name = "test"}};
    (void)snprintf(none.url.addresses[0], URL_ADDRESS_MAX, "%s", fake_node_address(http));
    (void)snprintf(none.url.addresses[1], URL_ADDRESS_MAX, "%s", fake_node_address(old));
    EXPECT_OK(cluster_new(&none.url, &none.cluster));
    EXPECT_OK(stream_new(none.cluster, &none.stream));
    ask(&none, &a, "SELECT", 10000);
    wait_end(&none, &a, 2000);
    EXPECT(a.end.code == ERR_PROTOCOL || a.end.code == ERR_VERSION);
    EXPECT(strlen(a.message) > 20);
    world_end(&none);
    fake_node_stop(http);
    fake_node_stop(old);
}

TEST(cluster_slow_node_does_not_hold_up_a_call)
{
    world_begin(&w, 2);
    fake_node_pause(w.nodes[0], true);
    for (int i = 0; i < 4; i++) {
        uint64_t begun = test_felt_ms();
        EXPECT_OK(run_sql(&w, i % 2 == 0 ? "INSERT" : "SELECT", &a));
        EXPECT(test_felt_ms() - begun < MEMBER_SLOW_MS + 300);
    }
    fake_node_pause(w.nodes[0], false);
    world_end(&w);
}

TEST(cluster_one_node_under_two_names_has_one_link)
{
    world_begin(&w, 1);
    struct url url = w.url;
    struct world two = w;
    (void)snprintf(url.addresses[1], URL_ADDRESS_MAX, "localhost:%u", fake_node_port(w.nodes[0]));
    url.n_addresses = 2;
    EXPECT_OK(cluster_new(&url, &two.cluster));
    EXPECT_OK(stream_new(two.cluster, &two.stream));
    EXPECT_OK(run_sql(&two, "INSERT", &a));
    turn_for(&two, 1100);
    for (int i = 0; i < 20; i++) {
        EXPECT_OK(run_sql(&two, "SELECT", &a));
        turn_for(&two, 5);
    }
    EXPECT_EQ(fake_node_open(w.nodes[0]), 1);
    EXPECT(fake_node_accepted(w.nodes[0]) <= 2);
    stream_free(two.stream);
    cluster_free(two.cluster);
    world_end(&w);
}

TEST(cluster_short_use_connects_to_few_long_use_to_all)
{
    world_begin(&w, 3);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    EXPECT_OK(run_sql(&w, "SELECT", &a));
    unsigned open = 0;
    for (unsigned i = 0; i < 3; i++)
        open += fake_node_accepted(w.nodes[i]);
    EXPECT(open <= 2);
    turn_for(&w, 1050);
    for (int i = 0; i < 5; i++) {
        EXPECT_OK(run_sql(&w, "SELECT", &a));
        turn_for(&w, 20);
    }
    for (unsigned i = 0; i < 3; i++)
        EXPECT_EQ(fake_node_open(w.nodes[i]), 1);
    world_end(&w);
}

TEST(cluster_idle_asks_nothing)
{
    world_begin(&w, 1);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 200);
    unsigned asked = fake_node_frames(w.nodes[0], WIRE_STATUS);
    unsigned pings = fake_node_frames(w.nodes[0], WIRE_PING);
    EXPECT(asked == 1);
    turn_for(&w, 1500);
    EXPECT_EQ(fake_node_frames(w.nodes[0], WIRE_STATUS), asked);
    EXPECT_EQ(fake_node_frames(w.nodes[0], WIRE_PING), pings);
    world_end(&w);
}

static unsigned questions(void)
{
    return fake_node_frames(w.nodes[0], WIRE_STATUS) + fake_node_frames(w.nodes[1], WIRE_STATUS);
}

TEST(cluster_without_status_works)
{
    world_begin(&w, 2);
    world_no_status(&w, true);
    for (int i = 0; i < 5; i++)
        EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 400);
    EXPECT_EQ(questions(), 1); /* nobody uses it */
    turn_for(&w, 650);
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 50);
    EXPECT_EQ(questions(), 2); /* now somebody does */
    world_end(&w);
}

/* A young cluster: who knows one node only would be lost with it. */
TEST(cluster_asks_soon_for_members_that_nobody_has_heard_of)
{
    world_begin_with(&w, 2, 1);
    for (unsigned asked = 1; asked <= 3; asked++) {
        world_unheard(&w, 2, asked < 3);
        EXPECT_OK(run_sql(&w, "INSERT", &a));
        for (int i = 0; i < 3000 && questions() < asked; i++)
            turn_for(&w, 10);
        EXPECT_EQ(questions(), asked);
        EXPECT_EQ(fake_node_open(w.nodes[1]), 0);
        turn_for(&w, 1050);
    }
    EXPECT_OK(run_sql(&w, "INSERT", &a));
    turn_for(&w, 50);
    EXPECT_EQ(questions(), 3);            /* it knows all */
    EXPECT_OK(run_sql(&w, "SELECT", &a)); /* reads look who is near */
    while (fake_node_open(w.nodes[1]) == 0)
        turn_for(&w, 10);
    world_end(&w);
}
