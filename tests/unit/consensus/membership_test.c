/* Room: tests. consensus/member over a long life: logs that are cut, members that fall behind, lose
 * their state, come, are promoted and go. Real members in one process, with the real log on disk
 * and the real transport over loopback, on one loop. The state of a node is a hash over all that it
 * was given, and up to where. */
#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/member.h"
#include "tests/lib/test.h"
#include "tests/unit/consensus/free_ports.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N       5u /* ports; three of them are there from the beginning */
#define FIRST   3u
#define SEGMENT KIB(64)

struct node {
    struct group *g;
    uint64_t id;
    struct cns *c;
    enum cns_role role;
    uint64_t term, leader_id, barrier_term;
    uint64_t applied, hash; /* its database */
    uint64_t behind;        /* the last word of on_behind */
    unsigned member_events;
    bool stopped, held;
    enum err failed;
    char sentence[512];
};

struct group {
    uv_loop_t loop;
    struct node nodes[N + 1];
    struct cns_server servers[N];
    char addresses[N][FREE_PORT_ADDRESS_MAX];
    const char *dir;
};

static void on_stopped(void *ctx)
{
    ((struct node *)ctx)->stopped = true;
}

static void on_entry(void *ctx, const struct cns_entry *e)
{
    struct node *n = ctx;
    thread_expect_loop();
    EXPECT(!n->held);
    EXPECT_EQ(e->index, n->applied + 1);
    n->applied = e->index;
    if (e->payload != NULL)
        n->hash = hash64(e->payload->data, e->payload->len, n->hash);
    if (e->kind == CNS_BARRIER)
        n->barrier_term = e->term;
    cns_applied(n->c, e->index);
}

static void on_role(void *ctx, enum cns_role role, uint64_t term, uint64_t leader_id)
{
    struct node *n = ctx;
    EXPECT(!n->held || role == CNS_FOLLOWER || role == CNS_STOPPED);
    n->role = role;
    n->term = term;
    n->leader_id = leader_id;
}

static void on_room(void *ctx)
{
    (void)ctx;
}

static void on_message(void *ctx, uint64_t from, const uint8_t *p, size_t n)
{
    (void)ctx;
    (void)from;
    (void)p;
    (void)n;
}

static void on_failed(void *ctx, enum err code, const char *sentence)
{
    struct node *n = ctx;
    n->failed = code;
    (void)snprintf(n->sentence, sizeof n->sentence, "%s", sentence);
}

static void on_behind(void *ctx, uint64_t leader_id, uint64_t first)
{
    struct node *n = ctx;
    EXPECT(leader_id != n->id && first > 2);
    n->behind = first;
}

static void on_members(void *ctx)
{
    ((struct node *)ctx)->member_events++;
}

/* BASE: how a new directory begins, NULL: as a bootstrap. INSTALL: another one's state to go on
 * with, NULL: none. */
static enum err try_start(struct group *g, uint64_t id, const struct cns_snapshot *base,
                          const struct cns_snapshot *install, bool held)
{
    struct node *n = &g->nodes[id];
    char *dir = mem_printf("%s/%llu", g->dir, (unsigned long long)id);
    struct cns_config c = {
        .dir = dir,
        .cluster_id = 77,
        .id = id,
        .listen = g->addresses[id - 1],
        .servers = g->servers,
        .n_servers = base == NULL ? FIRST : 0,
        .base = base,
        .segment_bytes = SEGMENT,
        .election_ms = 300,
        .heartbeat_ms = 30,
        .handler = {n, on_entry, on_role, on_room, on_message, on_failed, on_behind, on_members}};
    uint64_t applied = n->applied, hash = n->hash;
    *n = (struct node){.g = g, .id = id, .applied = applied, .hash = hash, .held = held};
    thread_expect_loop();
    EXPECT_OK(cns_open(&c, &n->c));
    if (install != NULL)
        EXPECT_OK(cns_install(n->c, install));
    enum err e = cns_start(n->c, &g->loop, held ? CNS_HELD : applied);
    free(dir);
    return e;
}

static void stop_node(struct group *g, uint64_t id)
{
    struct node *n = &g->nodes[id];
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    thread_expect_loop();
    n->stopped = false;
    cns_stop(n->c, on_stopped, n);
    while (!n->stopped) {
        EXPECT(clock_mono_ms() < end);
        (void)uv_run(&g->loop, UV_RUN_ONCE);
    }
    n->c = NULL;
}

static void start_node(struct group *g, uint64_t id)
{
    EXPECT_OK(try_start(g, id, NULL, NULL, false));
}

static void group_init(struct group *g)
{
    memset(g, 0, sizeof *g);
    thread_become(THREAD_LOOP);
    log_set_level((enum log_level)(LOG_ERROR + 1)); /* members are thrown out all the time */
    g->dir = test_dir();
    EXPECT(uv_loop_init(&g->loop) == 0);
    free_ports(g->servers, g->addresses, N);
    for (uint64_t id = 1; id <= FIRST; id++)
        start_node(g, id);
}

static void group_fini(struct group *g)
{
    for (uint64_t id = 1; id <= N; id++)
        if (g->nodes[id].c != NULL)
            stop_node(g, id);
    EXPECT(uv_run(&g->loop, UV_RUN_NOWAIT) == 0);
    EXPECT(uv_loop_close(&g->loop) == 0);
}

#define UNTIL(g, condition)                                                                        \
    do {                                                                                           \
        uint64_t end_ = clock_mono_ms() + TEST_HANG_MS;                                            \
        while (!(condition)) {                                                                     \
            EXPECT(clock_mono_ms() < end_);                                                        \
            (void)uv_run(&(g)->loop, UV_RUN_ONCE);                                                 \
        }                                                                                          \
    } while (0)

static struct node *serving_leader(struct group *g)
{
    struct node *best = NULL;
    for (uint64_t id = 1; id <= N; id++) {
        struct node *n = &g->nodes[id];
        if (n->c != NULL && n->role == CNS_LEADER && n->barrier_term == n->term &&
            (best == NULL || n->term > best->term))
            best = n;
    }
    return best;
}

static struct node *leader_of(struct group *g)
{
    UNTIL(g, serving_leader(g) != NULL);
    return serving_leader(g);
}

/* COUNT entries of SIZE bytes; returns the index of the last one, applied by its leader. */
static uint64_t write_entries(struct group *g, unsigned count, size_t size)
{
    uint64_t last = 0;
    for (unsigned i = 0; i < count; i++) {
        struct node *leader = leader_of(g);
        struct cns_payload *p = cns_payload_take(mem_zalloc(size), size);
        thread_expect_loop();
        enum err e = cns_propose(leader->c, leader->term, &p, 1, &last);
        if (e == ERR_OK)
            continue;
        EXPECT(e == ERR_BUSY || e == ERR_NOT_LEADER);
        cns_payload_unref(p);
        (void)uv_run(&g->loop, UV_RUN_ONCE);
        i--;
    }
    UNTIL(g, serving_leader(g) != NULL && serving_leader(g)->applied >= last);
    return serving_leader(g)->applied;
}

static void settle(struct group *g)
{
    uint64_t last = write_entries(g, 1, 10);
    for (uint64_t id = 1; id <= N; id++)
        if (g->nodes[id].c != NULL && g->nodes[id].failed == ERR_OK)
            UNTIL(g, g->nodes[id].applied >= last);
    const struct node *leader = leader_of(g);
    for (uint64_t id = 1; id <= N; id++)
        if (g->nodes[id].c != NULL && g->nodes[id].failed == ERR_OK &&
            g->nodes[id].applied == leader->applied)
            EXPECT_EQ(g->nodes[id].hash, leader->hash);
}

static struct cns_status status(const struct node *n)
{
    struct cns_status st;
    thread_expect_loop();
    cns_get_status(n->c, &st);
    return st;
}

/* N's files hold all that it has applied: its log is cut there, and nothing is kept. */
static void cut(struct group *g, struct node *n)
{
    uint64_t index = n->applied;
    thread_expect_loop();
    EXPECT_OK(cns_cut(n->c, index, (const uint8_t *)"note", 4, 0));
    EXPECT_ERR(ERR_BUSY, cns_cut(n->c, index, NULL, 0, 0));
    UNTIL(g, status(n).snapshot_index == index);
}

/* What another node gets of N's: a record, and the database itself. */
static struct cns_snapshot image(const struct node *n)
{
    struct cns_snapshot s;
    thread_expect_loop();
    EXPECT_OK(cns_describe(n->c, n->applied, &s));
    memcpy(s.data, "copy", 4);
    s.data_len = 4;
    return s;
}

static void change(struct group *g, enum cns_change_kind kind, uint64_t *id, const char *address,
                   enum cns_member_role role)
{
    uint64_t index = 0, end = clock_mono_ms() + TEST_HANG_MS;
    enum err e;
    do {
        struct node *leader = leader_of(g);
        thread_expect_loop();
        e = cns_change(leader->c, kind, id, address, role, &index);
        EXPECT(e == ERR_OK || e == ERR_BUSY);
        EXPECT(clock_mono_ms() < end);
        if (e != ERR_OK)
            (void)uv_run(&g->loop, UV_RUN_ONCE);
    } while (e != ERR_OK);
    UNTIL(g, serving_leader(g) != NULL && serving_leader(g)->applied >= index);
}

static enum cns_member_role role_of(struct group *g, uint64_t at, uint64_t id)
{
    unsigned n;
    thread_expect_loop();
    const struct cns_server *all = cns_members(g->nodes[at].c, &n);
    for (unsigned i = 0; i < n; i++)
        if (all[i].id == id)
            return all[i].role;
    return (enum cns_member_role) - 1;
}

/* A new node at the port after the first ones, from an image of the leader. */
static uint64_t join(struct group *g)
{
    uint64_t id = 0;
    unsigned port = FIRST;
    while (g->nodes[port + 1].c != NULL || g->nodes[port + 1].applied > 0)
        port++;
    change(g, CNS_ADD, &id, g->addresses[port], CNS_STANDBY);
    EXPECT_EQ(id, port + 1);
    struct node *from = leader_of(g);
    struct cns_snapshot s = image(from);
    g->nodes[id].applied = from->applied;
    g->nodes[id].hash = from->hash;
    EXPECT_OK(try_start(g, id, &s, NULL, false));
    cns_payload_unref(s.members);
    return id;
}

TEST(membership_a_cut_log_starts_again)
{
    struct group g;
    group_init(&g);
    (void)write_entries(&g, 100, 4000);
    settle(&g);
    for (uint64_t id = 1; id <= FIRST; id++) {
        cut(&g, &g.nodes[id]);
        EXPECT(status(&g.nodes[id]).first_index > 1);
        EXPECT(status(&g.nodes[id]).log_segments <= 3);
    }
    (void)write_entries(&g, 100, 4000);
    settle(&g);
    for (uint64_t id = 1; id <= FIRST; id++)
        stop_node(&g, id);
    for (uint64_t id = 1; id <= FIRST; id++)
        start_node(&g, id);
    settle(&g);
    /* Everybody alone again, from the record: what it says is what was said. */
    struct node *n = &g.nodes[2];
    stop_node(&g, 2);
    struct cns_config c = {.dir = mem_printf("%s/2", g.dir),
                           .cluster_id = 77,
                           .id = 2,
                           .listen = g.addresses[1],
                           .servers = g.servers,
                           .n_servers = FIRST,
                           .segment_bytes = SEGMENT,
                           .election_ms = 300,
                           .heartbeat_ms = 30};
    struct cns_snapshot s;
    thread_expect_loop();
    EXPECT_OK(cns_open(&c, &n->c));
    EXPECT(cns_snapshot_get(n->c, &s));
    EXPECT(s.data_len == 4 && memcmp(s.data, "note", 4) == 0 && s.highest_id == FIRST);
    EXPECT(cns_first_index(n->c) > 1 && cns_first_index(n->c) <= s.index + 1);
    /* Behind what the log begins with there is nothing to deliver. */
    EXPECT_ERR(ERR_CONFIG, cns_start(n->c, &g.loop, cns_first_index(n->c) - 2));
    stop_node(&g, 2);
    free((char *)(uintptr_t)c.dir);
    start_node(&g, 2);
    settle(&g);
    group_fini(&g);
}

TEST(membership_a_member_that_is_behind_goes_on_from_an_image)
{
    struct group g;
    group_init(&g);
    settle(&g);
    uint64_t away = leader_of(&g)->id % FIRST + 1;
    stop_node(&g, away);
    (void)write_entries(&g, 200, 4000);
    for (uint64_t id = 1; id <= FIRST; id++)
        if (g.nodes[id].c != NULL)
            cut(&g, &g.nodes[id]);
    start_node(&g, away);
    UNTIL(&g, g.nodes[away].behind > 0);
    EXPECT(g.nodes[away].behind <= leader_of(&g)->applied + 1);
    EXPECT(g.nodes[away].applied < g.nodes[away].behind - 1);
    /* It is heard, and counts for nothing that it does not hold. */
    struct cns_progress p;
    thread_expect_loop();
    EXPECT(cns_get_progress(leader_of(&g)->c, away, &p));
    EXPECT(p.heard_ms > 0 && p.match < g.nodes[away].behind);
    stop_node(&g, away);
    struct node *from = leader_of(&g);
    struct cns_snapshot s = image(from);
    g.nodes[away].applied = from->applied;
    g.nodes[away].hash = from->hash;
    EXPECT_OK(try_start(&g, away, NULL, &s, false));
    EXPECT(status(&g.nodes[away]).first_index == s.index + 1);
    settle(&g);
    EXPECT_EQ(g.nodes[away].behind, 0);
    /* Twice is harmless. */
    stop_node(&g, away);
    EXPECT_OK(try_start(&g, away, NULL, &s, false));
    cns_payload_unref(s.members);
    settle(&g);
    group_fini(&g);
}

TEST(membership_a_member_without_a_state_votes_and_does_not_lead)
{
    struct group g;
    group_init(&g);
    (void)write_entries(&g, 100, 4000);
    settle(&g);
    uint64_t lost = leader_of(&g)->id;
    cut(&g, &g.nodes[lost]);
    stop_node(&g, lost);
    EXPECT_OK(try_start(&g, lost, NULL, NULL, true));
    struct node *leader = leader_of(&g);
    EXPECT(leader->id != lost);
    /* Its vote and its log count: the third may go. */
    uint64_t third = 6 - lost - leader->id, index = leader->applied;
    stop_node(&g, third);
    (void)write_entries(&g, 10, 100);
    EXPECT(leader_of(&g)->applied >= index + 10);
    thread_expect_loop();
    EXPECT_OK(cns_transfer(leader->c, lost)); /* in vain */
    uint64_t end = clock_mono_ms() + 1000;
    while (clock_mono_ms() < end)
        (void)uv_run(&g.loop, UV_RUN_ONCE);
    EXPECT_EQ(leader_of(&g)->id, leader->id);
    /* The state comes. Its own log goes on behind it. */
    struct cns_snapshot s = image(leader);
    g.nodes[lost].applied = leader->applied;
    g.nodes[lost].hash = leader->hash;
    uint64_t hash = leader->hash, applied = leader->applied;
    stop_node(&g, lost);
    g.nodes[lost].applied = applied;
    g.nodes[lost].hash = hash;
    EXPECT_OK(try_start(&g, lost, NULL, &s, false));
    cns_payload_unref(s.members);
    start_node(&g, third);
    settle(&g);
    group_fini(&g);
}

TEST(membership_a_dead_node_is_replaced)
{
    struct group g;
    group_init(&g);
    (void)write_entries(&g, 50, 4000);
    settle(&g);
    uint64_t dead = leader_of(&g)->id; /* its machine is lost, and it led */
    stop_node(&g, dead);
    (void)leader_of(&g);
    change(&g, CNS_REMOVE, &dead, NULL, CNS_VOTER);
    uint64_t id = join(&g);
    settle(&g);
    EXPECT_EQ(role_of(&g, leader_of(&g)->id, id), CNS_STANDBY);
    change(&g, CNS_SET_ROLE, &id, NULL, CNS_VOTER);
    settle(&g);
    EXPECT_EQ(role_of(&g, id, id), CNS_VOTER);
    EXPECT(g.nodes[id].member_events > 1);
    /* The new one counts: any one of the three may go. */
    uint64_t other = leader_of(&g)->id;
    stop_node(&g, other);
    (void)write_entries(&g, 5, 100);
    start_node(&g, other);
    settle(&g);
    /* The dead one comes back: it is told so, and takes part no more. */
    EXPECT_OK(try_start(&g, dead, NULL, NULL, false));
    UNTIL(&g, g.nodes[dead].failed != ERR_OK);
    EXPECT_EQ(g.nodes[dead].failed, ERR_CONFIG);
    EXPECT(strstr(g.nodes[dead].sentence, "removed") != NULL);
    group_fini(&g);
}

TEST(membership_a_removed_member_hears_of_it)
{
    struct group g;
    group_init(&g);
    settle(&g);
    uint64_t gone = leader_of(&g)->id % FIRST + 1;
    change(&g, CNS_REMOVE, &gone, NULL, CNS_VOTER);
    UNTIL(&g, g.nodes[gone].failed != ERR_OK);
    EXPECT_EQ(g.nodes[gone].failed, ERR_CONFIG);
    EXPECT(strstr(g.nodes[gone].sentence, "was removed") != NULL);
    EXPECT_EQ(g.nodes[gone].role, CNS_STOPPED);
    stop_node(&g, gone);
    settle(&g);
    /* It is not given out again, by nobody, whatever happened to the log. */
    for (uint64_t id = 1; id <= FIRST; id++)
        if (id != gone) {
            cut(&g, &g.nodes[id]);
            stop_node(&g, id);
        }
    for (uint64_t id = 1; id <= FIRST; id++)
        if (id != gone)
            start_node(&g, id);
    struct node *leader = leader_of(&g);
    uint64_t index;
    thread_expect_loop();
    EXPECT_ERR(ERR_CONFIG,
               cns_change(leader->c, CNS_ADD, &gone, "127.0.0.1:1", CNS_STANDBY, &index));
    EXPECT_EQ(join(&g), FIRST + 1);
    settle(&g);
    group_fini(&g);
}

TEST(membership_the_leader_goes_after_it_handed_over)
{
    struct group g;
    group_init(&g);
    settle(&g);
    struct node *old = leader_of(&g);
    uint64_t id = old->id, index;
    thread_expect_loop();
    EXPECT_ERR(ERR_CONFIG, cns_change(old->c, CNS_REMOVE, &id, NULL, CNS_VOTER, &index));
    EXPECT_ERR(ERR_CONFIG, cns_change(old->c, CNS_SET_ROLE, &id, NULL, CNS_STANDBY, &index));
    EXPECT_OK(cns_transfer(old->c, 0));
    EXPECT_ERR(ERR_BUSY, cns_change(old->c, CNS_REMOVE, &(uint64_t){id % FIRST + 1}, NULL,
                                    CNS_VOTER, &index));
    UNTIL(&g, serving_leader(&g) != NULL && serving_leader(&g) != old);
    change(&g, CNS_REMOVE, &id, NULL, CNS_VOTER);
    UNTIL(&g, old->failed == ERR_CONFIG);
    stop_node(&g, id);
    settle(&g);
    group_fini(&g);
}

TEST(membership_refuses_what_cannot_be)
{
    struct group g;
    group_init(&g);
    settle(&g);
    struct node *leader = leader_of(&g);
    uint64_t none = 99, zero = 0, used = 2, index, follower = leader->id % FIRST + 1;
    thread_expect_loop();
    EXPECT_ERR(ERR_NOT_LEADER,
               cns_change(g.nodes[follower].c, CNS_ADD, &zero, "127.0.0.1:1", CNS_STANDBY, &index));
    EXPECT_ERR(ERR_NOT_FOUND, cns_change(leader->c, CNS_REMOVE, &none, NULL, CNS_VOTER, &index));
    EXPECT_ERR(ERR_CONFIG,
               cns_change(leader->c, CNS_ADD, &used, "127.0.0.1:1", CNS_STANDBY, &index));
    EXPECT_ERR(ERR_CONFIG, cns_change(leader->c, CNS_ADD, &zero, "", CNS_STANDBY, &index));
    EXPECT_ERR(ERR_CONFIG,
               cns_change(leader->c, CNS_ADD, &zero, g.addresses[0], CNS_STANDBY, &index));
    EXPECT_ERR(ERR_CONFIG, cns_change(leader->c, CNS_ADD, &zero, "127.0.0.1:1", CNS_VOTER, &index));
    EXPECT_ERR(ERR_CONFIG, cns_change(leader->c, CNS_SET_ROLE, &follower, NULL, CNS_VOTER, &index));
    EXPECT_EQ(zero, 0);
    /* A new one that nobody runs is not promoted: it has nothing. */
    uint64_t id = 0;
    change(&g, CNS_ADD, &id, g.addresses[FIRST], CNS_STANDBY);
    EXPECT_EQ(id, FIRST + 1);
    leader = leader_of(&g);
    thread_expect_loop();
    EXPECT_ERR(ERR_BUSY, cns_change(leader->c, CNS_SET_ROLE, &id, NULL, CNS_VOTER, &index));
    /* Without this one the other voters, one of them silent, would be no majority. */
    follower = leader->id % FIRST + 1;
    uint64_t silent = 6 - leader->id - follower, end = clock_mono_ms() + 1000;
    stop_node(&g, silent);
    while (clock_mono_ms() < end)
        (void)uv_run(&g.loop, UV_RUN_ONCE);
    leader = leader_of(&g);
    follower = 6 - leader->id - silent;
    thread_expect_loop();
    EXPECT_ERR(ERR_BUSY, cns_change(leader->c, CNS_REMOVE, &follower, NULL, CNS_VOTER, &index));
    /* What is not applied is not cut; and of what is cut nothing is known. */
    EXPECT_ERR(ERR_NOT_FOUND, cns_cut(leader->c, leader->applied + 1, NULL, 0, 0));
    start_node(&g, silent);
    settle(&g);
    struct cns_snapshot s;
    leader = leader_of(&g);
    cut(&g, leader);
    thread_expect_loop();
    EXPECT_ERR(ERR_NOT_FOUND, cns_describe(leader->c, 1, &s));
    group_fini(&g);
}

TEST(membership_roles_move_both_ways)
{
    struct group g;
    group_init(&g);
    settle(&g);
    uint64_t id = leader_of(&g)->id % FIRST + 1;
    change(&g, CNS_SET_ROLE, &id, NULL, CNS_STANDBY);
    settle(&g);
    EXPECT_EQ(role_of(&g, id, id), CNS_STANDBY);
    change(&g, CNS_SET_ROLE, &id, NULL, CNS_VOTER);
    settle(&g);
    EXPECT_EQ(role_of(&g, id, id), CNS_VOTER);
    /* A spare is told so, and gets no log from then on; as a standby it catches up. */
    change(&g, CNS_SET_ROLE, &id, NULL, CNS_SPARE);
    UNTIL(&g, role_of(&g, id, id) == CNS_SPARE);
    (void)write_entries(&g, 20, 100);
    change(&g, CNS_SET_ROLE, &id, NULL, CNS_STANDBY);
    settle(&g);
    group_fini(&g);
}
