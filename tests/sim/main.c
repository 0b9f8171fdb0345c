/* Room: tests. `make sim`: many seeds, one line at the end.
 *
 *     build/release/sim [SEEDS [FIRST [STEPS]]]
 *
 * A failure prints its seed; `build/release/sim 1 SEED` runs it again. */
#include "base/clock.h"
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t argument(int argc, char **argv, int i, uint64_t otherwise)
{
    return argc > i ? strtoull(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
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
    return 0;
}
