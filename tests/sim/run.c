/* Room: tests. A random run: load and faults drawn from the seed, then all is healed and the
 * members must agree. */
#include "base/check.h"
#include "tests/sim/operator.h"
#include "tests/sim/sim.h"

#include <stdio.h>

struct run {
    struct sim *s;
    struct rng rng; /* its own, so that a schedule does not depend on how many delays were drawn */
    struct sim_options o;
    struct sim_stats *stats;
    unsigned load; /* one proposal in so many events */
    unsigned fault;
    unsigned deed; /* of the operator's; 0: none in this run */
    struct sim_operator *person;
};

static uint64_t some_member(struct run *r)
{
    return 1 + rng_below(&r->rng, sim_count(r->s));
}

static void propose(struct run *r)
{
    uint64_t id = rng_once_in(&r->rng, 8) ? some_member(r) : sim_leader(r->s);
    if (id == 0 || sim_member(r->s, id)->d == NULL)
        return;
    size_t bytes = rng_once_in(&r->rng, 50) ? rng_below(&r->rng, 200000) : rng_below(&r->rng, 300);
    if (sim_propose(r->s, id, 1 + (unsigned)rng_below(&r->rng, 5), bytes, NULL) == ERR_OK)
        r->stats->proposals++;
}

static void start_read(struct run *r)
{
    uint64_t id = some_member(r);
    if (sim_member(r->s, id)->d != NULL)
        sim_read(r->s, id, 50 + rng_below(&r->rng, 1000));
}

static void crash(struct run *r)
{
    /* Mostly a few; sometimes everybody at once. */
    if (rng_once_in(&r->rng, 12)) {
        for (uint64_t id = 1; id <= sim_count(r->s); id++)
            if (sim_member(r->s, id)->d != NULL)
                sim_crash(r->s, id);
        r->stats->crashes++;
        return;
    }
    uint64_t id = rng_once_in(&r->rng, 2) ? sim_leader(r->s) : some_member(r);
    if (id == 0 || sim_member(r->s, id)->d == NULL)
        return;
    sim_crash(r->s, id);
    r->stats->crashes++;
}

static void start(struct run *r)
{
    uint64_t id = some_member(r);
    if (sim_member(r->s, id)->d == NULL && !sim_member(r->s, id)->gone)
        sim_start(r->s, id);
}

/* A member that stopped because of its disk is restarted with a disk that works again. */
static void replace_disks(struct run *r)
{
    for (uint64_t id = 1; id <= sim_count(r->s); id++) {
        struct sim_member *m = sim_member(r->s, id);
        if (m->d == NULL || m->role != CNS_STOPPED)
            continue;
        if (m->failures != 1)
            sim_fail(r->s, "member %llu stopped and told it %llu times", (unsigned long long)id,
                     (unsigned long long)m->failures);
        sim_crash(r->s, id);
        m->gone = m->gone || m->told_removed;
    }
}

static void cut(struct run *r)
{
    uint64_t a = some_member(r), b = some_member(r);
    if (a == b)
        return;
    r->stats->cuts++;
    switch (rng_below(&r->rng, 4)) {
    case 0:
        sim_isolate(r->s, a, true);
        break;
    case 1:
        sim_cut(r->s, a, b, true); /* one way */
        break;
    case 2:
        sim_cut(r->s, a, b, true);
        sim_cut(r->s, b, a, true);
        break;
    default:
        sim_reset(r->s, a, b);
        break;
    }
}

static void disk(struct run *r)
{
    uint64_t id = some_member(r);
    if (sim_member(r->s, id)->d == NULL)
        return;
    if (rng_once_in(&r->rng, 4)) {
        sim_disk_fail(r->s, id, rng_below(&r->rng, 5), rng_once_in(&r->rng, 2) ? ERR_IO : ERR_FULL);
        r->stats->disk_failures++;
    } else {
        sim_disk_slow(r->s, id, rng_below(&r->rng, 3) * 20000);
    }
}

static void fault(struct run *r)
{
    switch (rng_below(&r->rng, 10)) {
    case 0:
    case 1:
        crash(r);
        break;
    case 2:
    case 3:
        start(r);
        start(r);
        break;
    case 4:
        cut(r);
        break;
    case 5:
        sim_heal(r->s);
        break;
    case 6:
        disk(r);
        break;
    case 7: {
        uint64_t id = some_member(r);
        sim_pause(r->s, id, rng_once_in(&r->rng, 2));
        break;
    }
    case 8: {
        uint64_t id = sim_leader(r->s);
        thread_expect_loop();
        if (id != 0)
            (void)!driver_transfer(sim_member(r->s, id)->d, 0);
        break;
    }
    default:
        replace_disks(r);
        break;
    }
}

static void print_members(struct run *r)
{
    for (uint64_t id = 1; id <= sim_count(r->s); id++) {
        struct sim_member *m = sim_member(r->s, id);
        struct cns_status st;
        thread_expect_loop();
        if (m->d == NULL) {
            (void)printf("member %llu is %s, its log %llu to %llu\n", (unsigned long long)id,
                         m->gone ? "gone" : "down", (unsigned long long)m->disk.base + 1,
                         (unsigned long long)sim_disk_last(&m->disk));
            continue;
        }
        driver_get_status(m->d, &st);
        (void)printf("member %llu role %d term %llu leader %llu delivered %llu commit %llu "
                     "log %llu to %llu stored %llu disk to %llu held %d behind %llu members",
                     (unsigned long long)id, (int)st.role, (unsigned long long)st.term,
                     (unsigned long long)st.leader_id, (unsigned long long)m->delivered,
                     (unsigned long long)st.commit_index, (unsigned long long)st.first_index,
                     (unsigned long long)st.last_index, (unsigned long long)st.stored_index,
                     (unsigned long long)sim_disk_last(&m->disk), m->held,
                     (unsigned long long)m->behind);
        const struct raft_configuration *c = driver_members(m->d);
        for (unsigned i = 0; i < c->n; i++)
            (void)printf(" %llu%c", (unsigned long long)c->servers[i].id,
                         "sv-"[c->servers[i].role]);
        (void)printf("\n");
    }
}

/* Heals everything and waits; nobody may need anything from outside. */
static void settle(struct run *r)
{
    replace_disks(r);
    for (uint64_t id = 1; id <= sim_count(r->s); id++) {
        struct sim_member *m = sim_member(r->s, id);
        if (m->gone)
            continue;
        if (m->d != NULL && m->disk.fail_after != UINT64_MAX)
            sim_crash(r->s, id);
        if (m->d == NULL)
            sim_start(r->s, id);
        sim_pause(r->s, id, false);
        sim_disk_slow(r->s, id, 0);
        if (m->disk.held)
            sim_disk_hold(r->s, id, false);
    }
    sim_heal(r->s);
    bool proposed = false, settled = false;
    for (unsigned i = 0; i < 300 && !settled; i++) {
        sim_run_ms(r->s, 20);
        settled = sim_run_until(r->s, sim_settled, NULL, 200) && proposed;
        uint64_t leader = sim_leader(r->s);
        if (!proposed && leader != 0 && sim_propose(r->s, leader, 1, 10, NULL) == ERR_OK) {
            r->stats->proposals++;
            proposed = true;
        }
        sim_operator_mend(r->person, true);
        for (uint64_t id = 1; i == 50 && leader != 0 && id <= sim_count(r->s); id++)
            sim_meet(r->s, id, leader);
    }
    if (!settled) {
        print_members(r);
        sim_fail(r->s, "the healed members do not settle");
    }
    sim_compare_logs(r->s);
    uint64_t before = sim_reads_ok(r->s), asked = 0;
    struct sim_member *leader = sim_member(r->s, sim_leader(r->s));
    for (uint64_t id = 1; id <= sim_count(r->s); id++) {
        const struct sim_member *m = sim_member(r->s, id);
        if (m->d == NULL || m->role == CNS_STOPPED || !sim_receives(leader, id))
            continue;
        sim_read(r->s, id, 1000);
        asked++;
    }
    sim_run_ms(r->s, 1500);
    if (sim_reads_ok(r->s) < before + asked) {
        print_members(r);
        sim_fail(r->s, "a read of the healed members got no index");
    }
}

void sim_run(uint64_t seed, uint64_t steps, struct sim_stats *stats)
{
    struct run r = {.rng = {seed ^ 0x5eed}, .stats = stats};
    static const unsigned sizes[] = {3, 3, 3, 5, 1, 2, 4};
    r.o = sim_defaults(sizes[rng_below(&r.rng, 7)]);
    r.o.net_us_max = rng_once_in(&r.rng, 4) ? 20000 : 1000;
    r.o.disk_us_max = rng_once_in(&r.rng, 4) ? 30000 : 2000;
    r.o.cache_bytes = rng_once_in(&r.rng, 2) ? 2000 : 0; /* tiny: most is read back from the disk */
    r.load = 5 + (unsigned)rng_below(&r.rng, 60);
    r.fault = 30 + (unsigned)rng_below(&r.rng, 800);
    r.deed = rng_once_in(&r.rng, 4) ? 0 : 100 + (unsigned)rng_below(&r.rng, 800);
    r.s = sim_new(&r.o, seed);
    r.person = sim_operator_new(r.s, seed ^ 0x0be7, stats);
    for (uint64_t id = 1; id <= r.o.n; id++)
        sim_start(r.s, id);
    for (uint64_t i = 0; i < steps; i++) {
        if (!sim_step(r.s))
            start(&r);
        if (rng_once_in(&r.rng, r.load))
            propose(&r);
        if (rng_once_in(&r.rng, 100))
            start_read(&r);
        if (rng_once_in(&r.rng, r.fault))
            fault(&r);
        if (r.deed > 0 && rng_once_in(&r.rng, r.deed))
            sim_operator_act(r.person);
        sim_operator_look(r.person);
    }
    settle(&r);
    stats->events += steps;
    stats->virtual_ms += sim_now_us(r.s) / 1000;
    stats->committed += sim_committed(r.s);
    stats->leaderships += sim_leaderships(r.s);
    stats->reads_ok += sim_reads_ok(r.s);
    stats->reads_failed += sim_reads_failed(r.s);
    sim_operator_free(r.person);
    sim_free(r.s);
}
