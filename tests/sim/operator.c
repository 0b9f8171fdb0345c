/* Room: tests. Owns: what the operator knows of the cluster: the change that it waits for, and the
 * machine that is lost and not replaced yet.
 * Invariant: at most one voter is lost for good and not removed, and no other voter is taken away
 *            meanwhile: else the cluster could rightly stop for ever. */
#include "tests/sim/operator.h"

#include "base/check.h"
#include "base/mem.h"
#include "consensus/members.h"

#include <stdio.h>
#include <stdlib.h>

struct sim_operator {
    struct sim *s;
    struct rng rng;
    struct sim_stats *stats;
    uint64_t lost; /* its machine: to be removed; 0: none */
    struct {
        uint64_t index, term, id; /* index 0: none */
        enum cns_change_kind kind;
    } waits;
};

struct sim_operator *sim_operator_new(struct sim *s, uint64_t seed, struct sim_stats *stats)
{
    struct sim_operator *o = MEM_NEW(struct sim_operator);
    o->s = s;
    o->rng.state = seed;
    o->stats = stats;
    return o;
}

void sim_operator_free(struct sim_operator *o)
{
    free(o);
}

static struct sim_member *some(struct sim_operator *o)
{
    return sim_member(o->s, 1 + rng_below(&o->rng, sim_count(o->s)));
}

/* A leader that may serve, and has no change under way; NULL: none. */
static struct sim_member *calm_leader(struct sim_operator *o)
{
    uint64_t id = sim_leader(o->s);
    struct sim_member *m = id == 0 ? NULL : sim_member(o->s, id);
    return m == NULL || m->barrier_term != m->term || m->paused || o->waits.index != 0 ? NULL : m;
}

static unsigned voters(const struct sim_member *leader)
{
    thread_expect_loop();
    return members_voters(driver_members(leader->d));
}

static bool change(struct sim_operator *o, struct sim_member *leader, enum cns_change_kind kind,
                   uint64_t id, enum cns_member_role role)
{
    char address[24];
    uint64_t index;
    (void)snprintf(address, sizeof address, "sim:%u", sim_count(o->s) + 1);
    thread_expect_loop();
    if (driver_change(leader->d, kind, &id, address, role, &index) != ERR_OK)
        return false;
    o->waits.index = index;
    o->waits.term = leader->term;
    o->waits.id = id;
    o->waits.kind = kind;
    o->stats->changes++;
    sim_turn(leader);
    return true;
}

void sim_operator_look(struct sim_operator *o)
{
    uint64_t index = o->waits.index, id = o->waits.id;
    if (index == 0 || sim_committed(o->s) < index)
        return;
    bool done = sim_committed_term(o->s, index) == o->waits.term;
    o->waits.index = 0;
    if (!done)
        return; /* another took its place */
    if (o->waits.kind == CNS_REMOVE) {
        o->stats->removed++;
        if (o->lost == id)
            o->lost = 0;
        return;
    }
    uint64_t from = o->waits.kind == CNS_ADD ? sim_source(o->s, 0, 0) : 0;
    if (from == 0)
        return; /* (or nobody is there to join from: the new one gives up, its name stays) */
    if (id != sim_count(o->s) + 1)
        return;
    sim_join(o->s, id, from);
    o->stats->joined++;
    sim_start(o->s, id);
}

/* A fetch ends with a restart from the image. */
static void fetch(struct sim_operator *o, struct sim_member *m, uint64_t first)
{
    uint64_t from = sim_source(o->s, m->id, first);
    if (from == 0)
        return;
    if (m->d != NULL)
        sim_crash(o->s, m->id);
    if (sim_member(o->s, from)->applied < m->disk.base)
        return; /* it was cut meanwhile, say */
    sim_install(o->s, m->id, from);
    o->stats->images++;
    sim_start(o->s, m->id);
}

void sim_operator_mend(struct sim_operator *o, bool all)
{
    for (uint64_t id = 1; id <= sim_count(o->s); id++) {
        struct sim_member *m = sim_member(o->s, id);
        if (m->d == NULL || m->role == CNS_STOPPED || (m->behind == 0 && !m->held) ||
            (!all && !rng_once_in(&o->rng, 4)))
            continue;
        o->stats->held += m->held;
        fetch(o, m, m->behind > m->disk.base + 1 ? m->behind : m->disk.base + 1);
    }
}

static void lose_database(struct sim_operator *o)
{
    struct sim_member *m = some(o), *leader = calm_leader(o);
    if (m->gone || leader == NULL)
        return;
    if (m->d != NULL)
        sim_crash(o->s, m->id);
    /* Somebody who stays must have one, or there is nothing to fetch. */
    uint64_t source = sim_source(o->s, m->id, m->disk.base + 1);
    if (source == 0 || leader->d == NULL || !sim_receives(leader, source))
        return;
    sim_lose_database(o->s, m->id);
    o->stats->databases_lost++;
}

static void lose_machine(struct sim_operator *o)
{
    struct sim_member *leader = calm_leader(o), *m = some(o);
    if (leader == NULL || m == leader || m->gone || o->lost != 0 || voters(leader) < 3 ||
        !sim_receives(leader, m->id))
        return;
    sim_gone(o->s, m->id);
    o->lost = m->id;
}

static void change_members(struct sim_operator *o)
{
    struct sim_member *leader = calm_leader(o), *m = some(o);
    if (leader == NULL)
        return;
    if (o->lost != 0) {
        (void)change(o, leader, CNS_REMOVE, o->lost, CNS_VOTER);
        return;
    }
    switch (rng_below(&o->rng, 5)) {
    case 0:
    case 1:
        if (sim_count(o->s) < SIM_MEMBERS_MAX)
            (void)change(o, leader, CNS_ADD, 0, CNS_STANDBY);
        break;
    case 2:
        (void)change(o, leader, CNS_SET_ROLE, m->id, CNS_VOTER);
        break;
    case 3:
        (void)change(o, leader, CNS_SET_ROLE, m->id,
                     rng_once_in(&o->rng, 4) ? CNS_SPARE : CNS_STANDBY);
        break;
    default:
        (void)change(o, leader, CNS_REMOVE, m->id, CNS_VOTER);
        break;
    }
}

void sim_operator_act(struct sim_operator *o)
{
    struct sim_member *m = some(o);
    switch (rng_below(&o->rng, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        sim_cut_log(o->s, m->id, 0);
        o->stats->log_cuts++;
        break;
    case 4:
        lose_database(o);
        break;
    case 5:
        lose_machine(o);
        break;
    case 6: /* no room on the disk, for a while */
        if (m->d == NULL)
            break;
        sim_disk_hold(o->s, m->id, true);
        sim_post(o->s, 1000 * rng_below(&o->rng, 3000), SIM_RELEASE, m->id, m->holds, 0, NULL);
        o->stats->waits++;
        break;
    default:
        change_members(o);
        break;
    }
    sim_operator_mend(o, false);
}
