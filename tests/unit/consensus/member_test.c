/* Room: tests. consensus/member: three real members in one process, with the real log on disk and
 * the real transport over loopback, on one loop. */
#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "consensus/member.h"
#include "tests/lib/test.h"
#include "tests/unit/consensus/free_ports.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N 3

struct node {
    struct group *g;
    uint64_t id;
    struct cns *c;
    enum cns_role role;
    uint64_t term, leader_id, delivered, hash, barrier_term;
    uint64_t messages, rooms;
    bool stopped;
    uint64_t stop_at; /* calls cns_stop from inside on_entry of this index */
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
    EXPECT_EQ(e->index, n->delivered + 1);
    n->delivered = e->index;
    if (e->payload != NULL)
        n->hash = hash64(e->payload->data, e->payload->len, n->hash);
    if (e->kind == CNS_BARRIER)
        n->barrier_term = e->term;
    if (e->index == n->stop_at)
        cns_stop(n->c, on_stopped, n);
    else
        cns_applied(n->c, e->index);
}

static void on_role(void *ctx, enum cns_role role, uint64_t term, uint64_t leader_id)
{
    struct node *n = ctx;
    EXPECT(term >= n->term);
    n->role = role;
    n->term = term;
    n->leader_id = leader_id;
}

static void on_room(void *ctx)
{
    ((struct node *)ctx)->rooms++;
}

static void on_message(void *ctx, uint64_t from, const uint8_t *p, size_t n)
{
    struct node *node = ctx;
    EXPECT(from != node->id && n == 5 && memcmp(p, "hello", 5) == 0);
    node->messages++;
}

static void on_failed(void *ctx, enum err code, const char *sentence)
{
    struct node *n = ctx;
    test_fail(__FILE__, __LINE__, "member %llu failed: %s: %s", (unsigned long long)n->id,
              err_name((int)code), sentence);
}

static void start_node(struct group *g, uint64_t id)
{
    struct node *n = &g->nodes[id];
    char *dir = mem_printf("%s/%llu", g->dir, (unsigned long long)id);
    struct cns_config c = {
        .dir = dir,
        .cluster_id = 77,
        .id = id,
        .listen = g->addresses[id - 1],
        .servers = g->servers,
        .n_servers = N,
        .election_ms = 300,
        .heartbeat_ms = 30,
        .handler = {n, on_entry, on_role, on_room, on_message, on_failed, NULL, NULL}};
    uint64_t delivered = n->delivered, hash = n->hash;
    *n = (struct node){.g = g, .id = id, .delivered = delivered, .hash = hash};
    thread_expect_loop();
    EXPECT_OK(cns_open(&c, &n->c));
    EXPECT_OK(cns_start(n->c, &g->loop, delivered));
    free(dir);
}

static void run_until_stopped(struct group *g, struct node *n)
{
    while (!n->stopped)
        (void)uv_run(&g->loop, UV_RUN_ONCE);
    n->c = NULL;
}

static void stop_node(struct group *g, uint64_t id)
{
    struct node *n = &g->nodes[id];
    n->stopped = false;
    thread_expect_loop();
    cns_stop(n->c, on_stopped, n);
    run_until_stopped(g, n);
}

static void group_init(struct group *g)
{
    memset(g, 0, sizeof *g);
    thread_become(THREAD_LOOP);
    log_set_level(LOG_ERROR);
    g->dir = test_dir();
    EXPECT(uv_loop_init(&g->loop) == 0);
    free_ports(g->servers, g->addresses, N);
    for (uint64_t id = 1; id <= N; id++)
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

static struct node *wait_leader(struct group *g)
{
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    while (serving_leader(g) == NULL) {
        EXPECT(clock_mono_ms() < end);
        (void)uv_run(&g->loop, UV_RUN_ONCE);
    }
    return serving_leader(g);
}

static void wait_delivered(struct group *g, uint64_t index)
{
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    for (uint64_t id = 1; id <= N; id++) {
        while (g->nodes[id].c != NULL && g->nodes[id].delivered < index) {
            EXPECT(clock_mono_ms() < end);
            (void)uv_run(&g->loop, UV_RUN_ONCE);
        }
    }
}

static struct cns_payload *payload(uint64_t number, size_t size)
{
    uint8_t *data = mem_zalloc(size);
    memcpy(data, &number, sizeof number);
    return cns_payload_take(data, size);
}

/* Proposes COUNT entries as fast as the leader takes them, at whoever leads; the index of the last
 * one. On a loaded machine the leader may change meanwhile: what was lost is written again. */
static uint64_t write_entries(struct group *g, unsigned count, size_t size)
{
    uint64_t last = 0;
    struct node *leader = wait_leader(g);
    thread_expect_loop();
    for (unsigned i = 0; i < count;) {
        struct cns_payload *p = payload(i, size);
        enum err e = cns_propose(leader->c, leader->term, &p, 1, &last);
        if (e == ERR_OK) {
            i++;
            continue;
        }
        EXPECT(e == ERR_BUSY || e == ERR_NOT_LEADER);
        cns_payload_unref(p);
        uint64_t rooms = leader->rooms;
        while (leader->rooms == rooms && leader->role == CNS_LEADER)
            (void)uv_run(&g->loop, UV_RUN_ONCE);
        if (leader->role != CNS_LEADER) {
            leader = wait_leader(g);
            i = 0;
        }
    }
    return last;
}

static void expect_same(struct group *g, uint64_t index)
{
    for (uint64_t id = 1; id <= N; id++) {
        EXPECT_EQ(g->nodes[id].delivered, index);
        EXPECT_EQ(g->nodes[id].hash, g->nodes[1].hash);
    }
}

TEST(member_three_members_elect_commit_and_restart)
{
    struct group g;
    group_init(&g);
    uint64_t last = write_entries(&g, 1000, 300);
    wait_delivered(&g, last);
    expect_same(&g, last);
    /* A follower is away while more is written, and learns it from the log. */
    uint64_t away = wait_leader(&g)->id % N + 1;
    stop_node(&g, away);
    last = write_entries(&g, 1000, 300);
    start_node(&g, away);
    wait_delivered(&g, last);
    expect_same(&g, last);
    /* All stop; what was committed is there again. The database of one node was lost in part. */
    for (uint64_t id = 1; id <= N; id++)
        stop_node(&g, id);
    g.nodes[2].delivered = 0;
    g.nodes[2].hash = 0;
    for (uint64_t id = 1; id <= N; id++)
        start_node(&g, id);
    last = write_entries(&g, 10, 300);
    wait_delivered(&g, last);
    expect_same(&g, last);
    group_fini(&g);
}

struct answer {
    struct cns_read read;
    bool done;
    enum err e;
    uint64_t index;
};

static void on_answer(struct cns_read *r, enum err e, uint64_t index)
{
    struct answer *a = LIST_ENTRY(r, struct answer, read);
    a->done = true;
    a->e = e;
    a->index = index;
}

TEST(member_read_index_and_messages_from_every_member)
{
    struct group g;
    group_init(&g);
    uint64_t last = write_entries(&g, 10, 100);
    wait_delivered(&g, last);
    struct node *leader = wait_leader(&g);
    for (uint64_t id = 1; id <= N; id++) {
        struct answer a = {.read.done = on_answer};
        thread_expect_loop();
        cns_read_index(g.nodes[id].c, &a.read, 5000);
        while (!a.done)
            (void)uv_run(&g.loop, UV_RUN_ONCE);
        EXPECT_EQ(a.e, ERR_OK);
        EXPECT(a.index >= last);
        cns_send(g.nodes[id].c, 0, (const uint8_t *)"hello", 5);
    }
    while (g.nodes[1].messages + g.nodes[2].messages + g.nodes[3].messages < 6)
        (void)uv_run(&g.loop, UV_RUN_ONCE);
    unsigned n;
    thread_expect_loop();
    const struct cns_server *members = cns_members(leader->c, &n);
    EXPECT_EQ(n, N);
    EXPECT(strcmp(members[1].address, g.addresses[1]) == 0);
    group_fini(&g);
}

TEST(member_hands_leadership_over)
{
    struct group g;
    group_init(&g);
    (void)write_entries(&g, 50, 100);
    struct node *leader = wait_leader(&g);
    thread_expect_loop();
    EXPECT_OK(cns_transfer(leader->c, 0));
    uint64_t began = clock_mono_ms();
    while (serving_leader(&g) == NULL || serving_leader(&g) == leader) {
        EXPECT(clock_mono_ms() < began + TEST_HANG_MS);
        (void)uv_run(&g.loop, UV_RUN_ONCE);
    }
    group_fini(&g);
}

TEST(member_stops_during_traffic)
{
    struct group g;
    group_init(&g);
    for (unsigned round = 0; round < 5; round++) {
        struct answer a = {.read.done = on_answer};
        (void)write_entries(&g, 200, 20000);
        struct node *leader = wait_leader(&g);
        thread_expect_loop();
        cns_read_index(leader->c, &a.read, 5000);
        for (unsigned i = 0; i < round; i++)
            (void)uv_run(&g.loop, UV_RUN_ONCE);
        stop_node(&g, leader->id);
        start_node(&g, leader->id);
    }
    uint64_t last = write_entries(&g, 1, 10);
    wait_delivered(&g, last);
    group_fini(&g);
}

static void stop_from_read(struct cns_read *r, enum err e, uint64_t index)
{
    struct node *n = r->ctx;
    (void)e;
    (void)index;
    thread_expect_loop();
    EXPECT(!n->stopped);
    cns_stop(n->c, on_stopped, n);
}

TEST(member_stops_from_inside_its_callbacks)
{
    struct group g;
    group_init(&g);
    uint64_t last = write_entries(&g, 10, 100);
    wait_delivered(&g, last);
    struct node *n = wait_leader(&g);
    n->stop_at = last + 5;
    for (unsigned i = 0; i < 10; i++) {
        struct cns_payload *p = payload(i, 100);
        thread_expect_loop();
        EXPECT_OK(cns_propose(n->c, n->term, &p, 1, &last));
    }
    run_until_stopped(&g, n);
    EXPECT_EQ(n->delivered, n->stop_at);
    start_node(&g, n->id);
    wait_delivered(&g, last);
    /* The first of two reads stops the member: the second is never called. */
    n = wait_leader(&g);
    struct cns_read reads[2] = {{.done = stop_from_read, .ctx = n},
                                {.done = stop_from_read, .ctx = n}};
    thread_expect_loop();
    cns_read_index(n->c, &reads[0], 5000);
    cns_read_index(n->c, &reads[1], 5000);
    run_until_stopped(&g, n);
    start_node(&g, n->id);
    group_fini(&g);
}

TEST(member_refuses_a_directory_of_another_node)
{
    struct group g;
    group_init(&g);
    (void)wait_leader(&g);
    stop_node(&g, 1);
    char *dir = mem_printf("%s/1", g.dir);
    struct cns_config c = {.dir = dir,
                           .cluster_id = 77,
                           .id = 2,
                           .listen = "127.0.0.1:0",
                           .servers = g.servers,
                           .n_servers = N,
                           .election_ms = 300,
                           .heartbeat_ms = 30};
    struct cns *other;
    thread_expect_loop();
    EXPECT_ERR(ERR_CONFIG, cns_open(&c, &other));
    c.id = 1;
    c.cluster_id = 78;
    EXPECT_ERR(ERR_CONFIG, cns_open(&c, &other));
    c.cluster_id = 77;
    c.heartbeat_ms = 200;
    EXPECT_ERR(ERR_CONFIG, cns_open(&c, &other));
    /* Opened and never started: stops at once. */
    c.heartbeat_ms = 30;
    EXPECT_OK(cns_open(&c, &other));
    bool stopped = false;
    struct node n = {.stopped = false};
    cns_stop(other, on_stopped, &n);
    stopped = n.stopped;
    EXPECT(stopped);
    free(dir);
    group_fini(&g);
}
