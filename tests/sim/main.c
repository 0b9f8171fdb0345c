/* Room: tests. `make sim`: many seeds, one line at the end.
 *
 *     build/release/sim [SEEDS [FIRST [STEPS]]]
 *     build/release/sim bench        what three drivers cost for an entry, all in one thread
 *
 * A failure prints its seed; `build/release/sim 1 SEED` runs it again. */
#include "base/clock.h"
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t argument(int argc, char **argv, int i, uint64_t otherwise)
{
    return argc > i ? strtoull(argv[i], NULL, 10) : otherwise;
}

/* Wall time of a three-member cluster without delays, per committed entry. */
static void bench(unsigned batch)
{
    const uint64_t total = 400000;
    struct sim_options o = sim_defaults(3);
    o.net_us_min = o.net_us_max = 10;
    o.disk_us_min = o.disk_us_max = 10;
    o.raw = true;
    struct sim *s = sim_new(&o, 1);
    for (uint64_t id = 1; id <= 3; id++)
        sim_start(s, id);
    uint64_t leader = sim_elect(s), began = clock_mono_ns(), n = 0;
    while (n < total) {
        for (unsigned i = 0; i < 256 / batch; i++)
            n += sim_propose(s, leader, batch, 100, NULL) == ERR_OK ? batch : 0;
        sim_run_ms(s, 1);
    }
    (void)printf(
        "batch %2u: %llu ns an entry (three members, virtual disks and network included)\n", batch,
        (unsigned long long)((clock_mono_ns() - began) / n));
    sim_free(s);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "bench") == 0) {
        bench(1);
        bench(8);
        bench(64);
        return 0;
    }
    uint64_t seeds = argument(argc, argv, 1, 1000);
    uint64_t first = argument(argc, argv, 2, clock_wall_ms() * 1000003);
    uint64_t steps = argument(argc, argv, 3, 20000);
    struct sim_stats st = {0};
    uint64_t began = clock_mono_ms();
    for (uint64_t i = 0; i < seeds; i++)
        sim_run(first + i, steps, &st);
    (void)printf(
        "%llu seeds from %llu: %llu s of virtual time in %llu s, %llu entries committed, "
        "%llu leaderships, %llu crashes, %llu cuts, %llu failed disks, %llu reads "
        "(%llu without an answer)\n",
        (unsigned long long)seeds, (unsigned long long)first,
        (unsigned long long)st.virtual_ms / 1000,
        (unsigned long long)(clock_mono_ms() - began) / 1000, (unsigned long long)st.committed,
        (unsigned long long)st.leaderships, (unsigned long long)st.crashes,
        (unsigned long long)st.cuts, (unsigned long long)st.disk_failures,
        (unsigned long long)(st.reads_ok + st.reads_failed), (unsigned long long)st.reads_failed);
    (void)printf("%llu cuts of logs, %llu images (%llu to members without a database), %llu "
                 "databases lost, %llu changes of members, %llu joined, %llu removed, %llu waits "
                 "for room\n",
                 (unsigned long long)st.log_cuts, (unsigned long long)st.images,
                 (unsigned long long)st.held, (unsigned long long)st.databases_lost,
                 (unsigned long long)st.changes, (unsigned long long)st.joined,
                 (unsigned long long)st.removed, (unsigned long long)st.waits);
    return 0;
}
