/* Room: tests. A histogram of durations: constant memory, 1.6 % resolution, microseconds. The idea
 * is HdrHistogram's (Tene): powers of two, each cut into 64 linear buckets. Thread: one. */
#ifndef TESTS_BENCH_LATENCIES_H
#define TESTS_BENCH_LATENCIES_H

#include <stdint.h>

#define LATENCIES_BUCKETS (64 * 40)

struct latencies {
    uint64_t count, max;
    uint64_t buckets[LATENCIES_BUCKETS];
};

void latencies_add(struct latencies *h, uint64_t us);
/* The value that the share Q (0..1) of all values does not exceed; 0 when there are none. */
uint64_t latencies_quantile(const struct latencies *h, double q);

#endif
