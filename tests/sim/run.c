/* Room: tests. A random run: load and faults drawn from the seed, then all is healed and the
 * members must agree. */
#include "base/check.h"
#include "tests/sim/sim.h"

#include <stdio.h>

struct run {
    struct sim *s;
    struct rng rng; /* its own, so that a schedule does not depend on how many delays were drawn */
    struct sim_options o;
    struct sim_stats *stats;
    unsigned load; /* one proposal in so many events */
    unsigned fault;
};

static uint64_t some_member(struct run *r)
{
    return 1 + rng_below(&r->rng, r->o.n);
}

static unsigned up_count(struct run *r)
{
    unsigned n = 0;
    for (uint64_t id = 1; id <= r->o.n; id++)
        n += sim_member(r->s, id)->d != NULL;
    return n;
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
        for (uint64_t id = 1; id <= r->o.n; id++)
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
    if (sim_member(r->s, id)->d == NULL)
        sim_start(r->s, id);
}

/* A member that stopped because of its disk is restarted with a disk that works again. */
static void replace_disks(struct run *r)
{
    for (uint64_t id = 1; id <= r->o.n; id++) {
        struct sim_member *m = sim_member(r->s, id);
        if (m->d == NULL || m->role != CNS_STOPPED)
            continue;
        if (m->failures != 1)
            sim_fail(r->s, "member %llu stopped and told it %llu times", (unsigned long long)id,
                     (unsigned long long)m->failures);
        sim_crash(r->s, id);
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

static void settle(struct run *r)
{
    replace_disks(r);
    for (uint64_t id = 1; id <= r->o.n; id++) {
        struct sim_member *m = sim_member(r->s, id);
        if (m->d != NULL && m->disk.fail_after != UINT64_MAX)
            sim_crash(r->s, id);
        if (m->d == NULL)
            sim_start(r->s, id);
        sim_pause(r->s, id, false);
        sim_disk_slow(r->s, id, 0);
    }
    sim_heal(r->s);
    CHECK(up_count(r) == r->o.n);
    uint64_t leader = sim_elect(r->s);
    if (sim_propose(r->s, leader, 1, 10, NULL) == ERR_OK)
        r->stats->proposals++;
    if (!sim_run_until(r->s, sim_settled, NULL, 60000)) {
        for (uint64_t id = 1; id <= r->o.n; id++) {
            struct sim_member *m = sim_member(r->s, id);
            struct cns_status st;
            thread_expect_loop();
            driver_get_status(m->d, &st);
            (void)printf("member %llu role %d term %llu delivered %llu commit %llu last %llu "
                         "stored %llu disk %u\n",
                         (unsigned long long)id, (int)st.role, (unsigned long long)st.term,
                         (unsigned long long)m->delivered, (unsigned long long)st.commit_index,
                         (unsigned long long)st.last_index, (unsigned long long)st.stored_index,
                         m->disk.n);
        }
        sim_fail(r->s, "the healed members do not settle");
    }
    sim_compare_logs(r->s);
    uint64_t before = sim_reads_ok(r->s);
    for (uint64_t id = 1; id <= r->o.n; id++)
        sim_read(r->s, id, 1000);
    sim_run_ms(r->s, 1500);
    if (sim_reads_ok(r->s) < before + r->o.n)
        sim_fail(r->s, "a read of the healed members got no index");
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
    r.s = sim_new(&r.o, seed);
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
    }
    settle(&r);
    stats->events += steps;
    stats->virtual_ms += sim_now_us(r.s) / 1000;
    stats->committed += sim_committed(r.s);
    stats->leaderships += sim_leaderships(r.s);
    stats->reads_ok += sim_reads_ok(r.s);
    stats->reads_failed += sim_reads_failed(r.s);
    sim_free(r.s);
}
