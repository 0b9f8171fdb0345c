/* Room: tests. Time, members and their lives. Owns: all parts of the simulation.
 * Invariant: events run in order of (time, number), and nothing else is random but the seed: the
 * same seed is the same run. */
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "consensus/members.h"
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sim {
    struct sim_options o;
    uint64_t seed;
    struct rng rng;
    uint64_t now_us, seq, events;
    struct sim_event *heap;
    size_t n, cap;
    struct sim_member members[SIM_MEMBERS_MAX + 1];
    struct sim_net *net;
    struct sim_check *check;
    uint64_t payloads;
    unsigned count;
};

struct sim_options sim_defaults(unsigned n)
{
    return (struct sim_options){.n = n,
                                .election_ms = 300,
                                .heartbeat_ms = 30,
                                .net_us_min = 100,
                                .net_us_max = 1000,
                                .disk_us_min = 200,
                                .disk_us_max = 2000};
}

const struct sim_options *sim_opts(const struct sim *s)
{
    return &s->o;
}

struct rng *sim_rng(struct sim *s)
{
    return &s->rng;
}

uint64_t sim_now_us(const struct sim *s)
{
    return s->now_us;
}

struct sim_net *sim_net_of(struct sim *s)
{
    return s->net;
}

struct sim_check *sim_check_of(const struct sim *s)
{
    return s->check;
}

struct sim_member *sim_member(struct sim *s, uint64_t id)
{
    CHECK(id > 0 && id <= SIM_MEMBERS_MAX);
    return &s->members[id];
}

void sim_fail(struct sim *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)printf("simulation of seed %llu, event %llu, %llu us: ", (unsigned long long)s->seed,
                 (unsigned long long)s->events, (unsigned long long)s->now_us);
    (void)vprintf(format, args);
    (void)printf("\n");
    va_end(args);
    (void)fflush(stdout);
    _exit(1);
}

/* --- events: a binary heap -----------------------------------------------------------------------
 */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

void sim_post(struct sim *s, uint64_t delay_us, enum sim_event_kind kind, uint64_t member,
              uint64_t a, uint64_t b, void *arg)
{
    if (s->n == s->cap) {
        s->cap = s->cap == 0 ? 256 : s->cap * 2;
        s->heap = mem_realloc(s->heap, s->cap * sizeof *s->heap);
    }
    struct sim_event e = {s->now_us + delay_us,    s->seq++, kind, member,
                          s->members[member].life, a,        b,    arg};
    size_t i = s->n++;
    while (i > 0 && before(&e, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = e;
}

static struct sim_event pop(struct sim *s)
{
    struct sim_event first = s->heap[0];
    struct sim_event last = s->heap[--s->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n)
            break;
        if (child + 1 < s->n && before(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!before(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return first;
}

/* --- a member's world ----------------------------------------------------------------------------
 */

static void io_disk(void *ctx, struct cns_disk_job *job)
{
    sim_disk_submit(ctx, job);
}

static void io_disk_read(void *ctx, struct cns_disk_read *read)
{
    sim_disk_submit_read(ctx, read);
}

static void io_send(void *ctx, uint64_t to, const struct raft_message *m,
                    const struct cns_item *items, unsigned n)
{
    sim_net_send(ctx, to, m, items, n);
}

static void io_send_bytes(void *ctx, uint64_t to, uint8_t type, const uint8_t *p, size_t n)
{
    sim_net_send_bytes(ctx, to, type, p, n);
}

static uint64_t io_queued(void *ctx, uint64_t to)
{
    return sim_net_queued(ctx, to);
}

static uint64_t io_now_ms(void *ctx)
{
    const struct sim_member *m = ctx;
    return 1000000 * m->id + m->sim->now_us / 1000; /* clocks agree on nothing but speed */
}

static uint64_t io_random(void *ctx)
{
    struct sim_member *m = ctx;
    return rng_u64(&m->sim->rng);
}

unsigned sim_count(const struct sim *s)
{
    return s->count;
}

static void add_peers(struct sim_member *m, const struct raft_configuration *conf)
{
    for (unsigned i = 0; i < conf->n; i++) {
        uint64_t id = conf->servers[i].id;
        if (id == m->id || m->removed[id] || m->peers[id])
            continue;
        m->peers[id] = true;
        sim_net_dial(m->sim, m->id, id);
    }
}

/* The members as its log says, and who is none any more: the transport's work. */
static void on_peers(void *ctx)
{
    struct sim_member *m = ctx;
    thread_expect_loop();
    struct raft_configuration hearsay;
    add_peers(m, driver_members(m->d));
    add_peers(m, driver_committed_members(m->d));
    if (driver_hearsay(m->d, &hearsay)) {
        add_peers(m, &hearsay);
        raft_configuration_close(&hearsay);
    }
    for (uint64_t id = 1; id <= SIM_MEMBERS_MAX; id++)
        if (m->peers[id] && driver_is_removed(m->d, id)) {
            m->peers[id] = false;
            m->removed[id] = true;
            sim_reset(m->sim, m->id, id);
        }
}

void sim_meet(struct sim *s, uint64_t id, uint64_t other)
{
    struct sim_member *m = sim_member(s, id);
    if (m->d == NULL || id == other || m->peers[other] || m->removed[other])
        return;
    for (uint64_t i = 1; i <= s->count; i++)
        if (m->peers[i] && s->members[i].d != NULL && s->members[i].role != CNS_STOPPED)
            return; /* that one will tell it */
    m->peers[other] = true;
    sim_net_dial(s, id, other);
}

static void on_behind(void *ctx, uint64_t leader_id, uint64_t first)
{
    struct sim_member *m = ctx;
    const struct sim_member *leader = sim_member(m->sim, leader_id);
    if (first <= 1 || leader_id == m->id || first > leader->disk.base + 1 + leader->disk.n)
        sim_fail(m->sim, "member %llu is told to be behind %llu", (unsigned long long)m->id,
                 (unsigned long long)first);
    m->behind = first;
}

static void on_entry(void *ctx, const struct cns_entry *e)
{
    struct sim_member *m = ctx;
    sim_check_entry(m, e);
    m->delivered = e->index;
    if (e->kind == CNS_BARRIER)
        m->barrier_term = e->term;
    if (m->slow_apply)
        return;
    thread_expect_loop();
    m->applied = e->index;
    driver_applied(m->d, e->index);
}

static void on_role(void *ctx, enum cns_role role, uint64_t term, uint64_t leader_id)
{
    struct sim_member *m = ctx;
    if (term < m->term)
        sim_fail(m->sim, "member %llu is told of term %llu after %llu", (unsigned long long)m->id,
                 (unsigned long long)term, (unsigned long long)m->term);
    m->role = role;
    m->term = term;
    m->leader_id = leader_id;
    if (role == CNS_LEADER)
        sim_check_leader(m);
}

static void on_room(void *ctx)
{
    ((struct sim_member *)ctx)->rooms++;
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
    struct sim_member *m = ctx;
    CHECK(sentence[0] != '\0');
    m->failures++;
    m->failed_with = code;
    m->told_removed = m->told_removed || code == ERR_CONFIG;
}

static void load(struct sim_member *m)
{
    struct sim_disk *k = &m->disk;
    thread_expect_loop();
    if (driver_begin(m->d, k->base + 1, k->base_term, k->record.index > 0 ? &k->record : NULL) !=
        ERR_OK)
        sim_fail(m->sim, "member %llu cannot begin: %s", (unsigned long long)m->id, err_text());
    for (unsigned i = 0; i < k->n; i++) {
        const struct cns_item *e = &k->entries[i];
        enum err err = driver_load(m->d, e->index, e->term, e->kind,
                                   e->kind == CNS_CHANGE ? e->payload : NULL);
        if (err != ERR_OK)
            sim_fail(m->sim, "member %llu cannot load: %s", (unsigned long long)m->id, err_text());
    }
}

static void make_driver(struct sim_member *m)
{
    const struct sim_options *o = sim_opts(m->sim);
    struct driver_config c = {
        .id = m->id,
        .address = "sim",
        .election_ms = o->election_ms,
        .heartbeat_ms = o->heartbeat_ms,
        .io = {m, io_disk, io_disk_read, io_send, io_queued, io_send_bytes, io_now_ms, io_random},
        .handler = {m, on_entry, on_role, on_room, on_message, on_failed, on_behind, NULL},
        .cache_bytes = o->cache_bytes,
        .on_peers = on_peers};
    thread_expect_loop();
    if (driver_new(&c, &m->d) != ERR_OK)
        sim_fail(m->sim, "no driver: %s", err_text());
    load(m);
    m->role = CNS_FOLLOWER;
    m->leader_id = m->barrier_term = m->term = m->behind = 0;
    m->turn_scheduled = m->paused = false;
    m->failures = m->rooms = 0;
    for (uint64_t id = 1; id <= SIM_MEMBERS_MAX; id++)
        m->peers[id] = false;
}

/* What the node decides at its start: see docs/STORAGE.md. */
static uint64_t choose_applied(struct sim_member *m)
{
    m->held = m->no_database && m->disk.base > 0;
    if (m->no_database && !m->held) {
        m->database = 0; /* built from the own log */
        m->no_database = false;
    }
    m->delivered = m->applied = m->held ? 0 : m->database;
    return m->held ? CNS_HELD : m->applied;
}

void sim_start(struct sim *s, uint64_t id)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(m->d == NULL && !m->gone);
    m->life++;
    make_driver(m);
    thread_expect_loop();
    enum err e = driver_start(m->d, m->disk.term, m->disk.vote, choose_applied(m));
    if (e == ERR_CONFIG && m->held && strstr(err_text(), "only voter") != NULL) {
        /* The only voter, or removed. The first cannot be helped: it was not lost then. */
        driver_stop(m->d);
        driver_free(m->d);
        m->no_database = false;
        make_driver(m);
        e = driver_start(m->d, m->disk.term, m->disk.vote, choose_applied(m));
    }
    if (e == ERR_CONFIG && strstr(err_text(), "was removed") != NULL) {
        m->told_removed = true;
        driver_stop(m->d);
        driver_free(m->d);
        m->d = NULL;
        m->gone = true;
        return;
    }
    if (e != ERR_OK)
        sim_fail(s, "member %llu does not start: %s", (unsigned long long)id, err_text());
    const struct raft_configuration *conf = driver_members(m->d);
    for (unsigned i = 0; i < conf->n; i++) /* (sim_net_member dials) */
        m->peers[conf->servers[i].id] = !m->removed[conf->servers[i].id];
    sim_net_member(s, id, true);
    sim_post(s, rng_below(&s->rng, s->o.heartbeat_ms * 250ull), SIM_TICK, id, 0, 0, NULL);
    sim_turn(m);
}

static void down(struct sim_member *m)
{
    thread_expect_loop();
    m->life++;
    driver_stop(m->d);
    driver_free(m->d);
    m->d = NULL;
    sim_check_drop_reads(m);
    sim_net_member(m->sim, m->id, false);
}

void sim_crash_keep(struct sim *s, uint64_t id, unsigned jobs)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(m->d != NULL);
    sim_disk_crash(m, jobs, 0);
    if (!m->held)
        m->database = m->applied;
    down(m);
}

void sim_crash(struct sim *s, uint64_t id)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(m->d != NULL);
    unsigned waiting = 0;
    LIST_EACH(l, &m->disk.queue)
        waiting++;
    unsigned jobs = (unsigned)rng_below(&s->rng, waiting + 1);
    sim_disk_crash(m, jobs, (unsigned)rng_below(&s->rng, 4));
    /* Delivered only when durable in the own log: the database is never ahead of it, but it may be
     * behind. */
    if (m->applied > sim_disk_last(&m->disk))
        sim_fail(s, "member %" PRIu64 " applied %" PRIu64 ", its disk ends at %" PRIu64, id,
                 m->applied, sim_disk_last(&m->disk));
    /* (Held, there is none.) */
    if (!m->held && rng_once_in(&s->rng, 2))
        m->database = m->applied;
    else if (!m->held)
        m->database += rng_below(&s->rng, m->applied - m->database + 1);
    down(m);
}

/* --- databases, images, members ------------------------------------------------------------------
 */

void sim_cut_log(struct sim *s, uint64_t id, uint64_t keep_bytes)
{
    struct sim_member *m = sim_member(s, id);
    static const uint8_t note[3] = {1, 2, 3};
    if (m->d == NULL || m->held || m->role == CNS_STOPPED || m->applied < m->database)
        return;
    m->database += rng_below(&s->rng, m->applied - m->database + 1);
    thread_expect_loop();
    (void)!driver_cut(m->d, m->database, note, sizeof note, keep_bytes);
    sim_turn(m);
}

void sim_lose_database(struct sim *s, uint64_t id)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(m->d == NULL);
    m->no_database = true;
}

uint64_t sim_source(struct sim *s, uint64_t not_id, uint64_t first)
{
    uint64_t best = 0;
    for (uint64_t id = 1; id <= s->count; id++) {
        const struct sim_member *m = &s->members[id];
        struct cns_snapshot image;
        if (id == not_id || m->d == NULL || m->held || m->role == CNS_STOPPED ||
            m->applied + 1 < first || (best != 0 && m->applied <= s->members[best].applied))
            continue;
        thread_expect_loop();
        if (driver_describe(m->d, m->applied, &image) != ERR_OK)
            continue;
        cns_payload_unref(image.members);
        best = id;
    }
    return best;
}

static void describe(struct sim *s, uint64_t from, struct cns_snapshot *image)
{
    struct sim_member *m = sim_member(s, from);
    thread_expect_loop();
    CHECK(m->d != NULL && !m->held);
    if (driver_describe(m->d, m->applied, image) != ERR_OK)
        sim_fail(s, "member %llu has no word on its state", (unsigned long long)from);
    if (image->term != sim_committed_term(s, image->index))
        sim_fail(s, "member %llu describes another entry", (unsigned long long)from);
}

void sim_install(struct sim *s, uint64_t id, uint64_t from)
{
    struct sim_member *m = sim_member(s, id);
    struct cns_snapshot image;
    CHECK(m->d == NULL);
    describe(s, from, &image);
    if (image.index >= m->disk.base) {
        sim_disk_install(m, &image);
        m->database = image.index;
        m->no_database = false;
    }
    cns_payload_unref(image.members);
}

void sim_join(struct sim *s, uint64_t id, uint64_t from)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(id == s->count + 1);
    s->count++;
    m->sim = s;
    m->id = id;
    list_init(&m->reads);
    sim_disk_init(&m->disk);
    m->disk.term = 1;
    sim_install(s, id, from);
}

void sim_gone(struct sim *s, uint64_t id)
{
    struct sim_member *m = sim_member(s, id);
    if (m->d != NULL)
        sim_crash(s, id);
    m->gone = true;
}

bool sim_receives(const struct sim_member *m, uint64_t id)
{
    const struct raft_server *server = NULL;
    thread_expect_loop();
    if (m->d != NULL)
        server = members_find(driver_members(m->d), id);
    return server != NULL && server->role != RAFT_SPARE;
}

void sim_pause(struct sim *s, uint64_t id, bool on)
{
    sim_member(s, id)->paused = on;
}

struct sim *sim_new(const struct sim_options *o, uint64_t seed)
{
    CHECK(o->n > 0 && o->n <= SIM_MEMBERS_MAX);
    thread_become(THREAD_LOOP);
    log_set_level((enum log_level)(LOG_ERROR + 1)); /* a simulation breaks things all the time */
    struct sim *s = MEM_NEW(struct sim);
    s->o = *o;
    s->count = o->n;
    s->seed = s->rng.state = seed;
    s->net = sim_net_new(s);
    s->check = sim_check_new(s);
    struct cns_server servers[SIM_MEMBERS_MAX];
    char addresses[SIM_MEMBERS_MAX][16];
    for (unsigned i = 0; i < o->n; i++) {
        (void)snprintf(addresses[i], sizeof addresses[i], "sim:%u", i + 1);
        servers[i] = (struct cns_server){i + 1, addresses[i], CNS_VOTER};
    }
    struct cns_payload *members;
    if (members_encode(servers, o->n, &members) != ERR_OK)
        sim_fail(s, "no members: %s", err_text());
    for (uint64_t id = 1; id <= o->n; id++) {
        struct sim_member *m = &s->members[id];
        m->sim = s;
        m->id = id;
        list_init(&m->reads);
        sim_disk_init(&m->disk);
        m->disk.term = 1;
        sim_disk_put(s, id, 1, CNS_CHANGE, members);
    }
    cns_payload_unref(members);
    return s;
}

void sim_free(struct sim *s)
{
    for (uint64_t id = 1; id <= s->count; id++) {
        if (s->members[id].d != NULL)
            sim_crash_keep(s, id, 0);
        sim_disk_fini(&s->members[id].disk);
    }
    for (size_t i = 0; i < s->n; i++)
        if (s->heap[i].kind == SIM_PACKET)
            sim_net_packet_drop(s->heap[i].arg);
        else if (s->heap[i].kind == SIM_READ)
            sim_disk_read_drop(s->heap[i].arg);
    free(s->heap);
    sim_net_free(s->net);
    sim_check_free(s->check);
    free(s);
}

/* --- running ------------------------------------------------------------------------------------
 */

/* Mostly at once; sometimes a little later, so that several events share a turn. */
void sim_turn(struct sim_member *m)
{
    thread_expect_loop();
    if (m->d == NULL || !driver_is_dirty(m->d) || m->turn_scheduled)
        return;
    if (!m->sim->o.raw && rng_once_in(&m->sim->rng, 4)) {
        m->turn_scheduled = true;
        sim_post(m->sim, rng_below(&m->sim->rng, 100), SIM_TURN, m->id, 0, 0, NULL);
        return;
    }
    driver_turn(m->d);
}

static void tick(struct sim_member *m)
{
    thread_expect_loop();
    driver_tick(m->d);
    sim_post(m->sim, m->sim->o.heartbeat_ms * 250ull, SIM_TICK, m->id, 0, 0, NULL);
    sim_turn(m);
}

static void run_event(struct sim *s, struct sim_event *e)
{
    struct sim_member *m = &s->members[e->member];
    thread_expect_loop();
    if (e->kind == SIM_PACKET) {
        sim_net_packet_event(s, e->arg);
        return;
    }
    if (m->d == NULL || m->life != e->life) {
        if (e->kind == SIM_READ)
            sim_disk_read_drop(e->arg);
        return;
    }
    if (e->kind == SIM_DISK) {
        sim_disk_event(m);
        sim_turn(m);
    } else if (e->kind == SIM_CUT) {
        sim_disk_cut_event(m);
        sim_turn(m);
    } else if (e->kind == SIM_RELEASE) {
        if (m->holds == e->a)
            sim_disk_hold(s, m->id, false);
    } else if (e->kind == SIM_READ) {
        sim_disk_read_event(m, e->arg);
        sim_turn(m);
    } else if (e->kind == SIM_TICK) {
        tick(m);
    } else if (e->kind == SIM_TURN) {
        m->turn_scheduled = false;
        driver_turn(m->d);
    } else if (e->kind == SIM_UP) {
        sim_net_up_event(s, e->member, e->a, e->b);
    }
}

bool sim_step(struct sim *s)
{
    if (s->n == 0)
        return false;
    struct sim_event e = pop(s);
    s->now_us = e.at_us;
    s->events++;
    struct sim_member *m = &s->members[e.member];
    if (m->paused && m->d != NULL && m->life == e.life) {
        /* A stopped process: its world waits. */
        sim_post(s, 5000, e.kind, e.member, e.a, e.b, e.arg);
        if (e.kind == SIM_PACKET)
            sim_net_packet_defer(s, e.arg, s->now_us + 5000);
        return true;
    }
    run_event(s, &e);
    if (s->events % 64 == 0)
        sim_check_logs(s);
    return true;
}

void sim_run_ms(struct sim *s, uint64_t ms)
{
    uint64_t end = s->now_us + ms * 1000;
    while (s->n > 0 && s->heap[0].at_us <= end)
        (void)sim_step(s);
    s->now_us = end;
}

bool sim_run_until(struct sim *s, sim_until done, void *ctx, uint64_t max_ms)
{
    uint64_t end = s->now_us + max_ms * 1000;
    while (!done(s, ctx)) {
        if (s->n == 0 || s->heap[0].at_us > end)
            return false;
        (void)sim_step(s);
    }
    return true;
}

uint64_t sim_leader(struct sim *s)
{
    uint64_t best = 0, term = 0;
    for (uint64_t id = 1; id <= s->count; id++) {
        const struct sim_member *m = &s->members[id];
        if (m->d == NULL || m->role != CNS_LEADER || m->term <= term)
            continue;
        best = id;
        term = m->term;
    }
    return best;
}

static bool may_serve(struct sim *s, void *ctx)
{
    (void)ctx;
    uint64_t id = sim_leader(s);
    return id != 0 && s->members[id].barrier_term == s->members[id].term;
}

uint64_t sim_elect(struct sim *s)
{
    if (!sim_run_until(s, may_serve, NULL, 40ull * s->o.election_ms))
        sim_fail(s, "nobody is elected");
    return sim_leader(s);
}

bool sim_settled(struct sim *s, void *ctx)
{
    (void)ctx;
    uint64_t leader = sim_leader(s);
    if (leader == 0 || !may_serve(s, NULL))
        return false;
    struct cns_status st;
    thread_expect_loop();
    driver_get_status(s->members[leader].d, &st);
    if (st.commit_index != st.last_index)
        return false;
    for (uint64_t id = 1; id <= s->count; id++) {
        const struct sim_member *m = &s->members[id];
        if (m->d == NULL || m->role == CNS_STOPPED || !sim_receives(&s->members[leader], id))
            continue;
        struct cns_status own;
        driver_get_status(m->d, &own);
        if (m->delivered != st.last_index || own.stored_index != st.last_index ||
            !list_empty(&m->disk.queue))
            return false;
    }
    return true;
}

/* --- the node -----------------------------------------------------------------------------------
 */

struct cns_payload *sim_payload(struct sim *s, size_t bytes)
{
    size_t n = bytes < 16 ? 16 : bytes;
    uint8_t *data = mem_alloc(n);
    for (size_t i = 16; i < n; i++)
        data[i] = (uint8_t)i;
    set_le64(data, ++s->payloads);
    set_le64(data + 8, s->seed);
    return cns_payload_take(data, n);
}

enum err sim_propose(struct sim *s, uint64_t id, unsigned n, size_t bytes, uint64_t *first)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(m->d != NULL && n > 0);
    struct cns_payload **p = mem_alloc(n * sizeof(struct cns_payload *));
    for (unsigned i = 0; i < n; i++)
        p[i] = sim_payload(s, bytes);
    uint64_t at = 0;
    thread_expect_loop();
    enum err e = driver_propose(m->d, m->term, p, n, &at);
    for (unsigned i = 0; e != ERR_OK && i < n; i++)
        cns_payload_unref(p[i]);
    free(p);
    if (first != NULL)
        *first = at;
    sim_turn(m);
    return e;
}

void sim_apply(struct sim *s, uint64_t id, uint64_t index)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(index <= m->delivered);
    m->applied = index;
    thread_expect_loop();
    driver_applied(m->d, index);
    sim_turn(m);
}
