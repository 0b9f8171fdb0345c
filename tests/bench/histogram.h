/* Room: tests. A histogram of durations: constant memory, 1.6 % resolution, microseconds. The idea
 * is HdrHistogram's (Tene): powers of two, each cut into 64 linear buckets. Thread: one. */
#ifndef TESTS_BENCH_HISTOGRAM_H
#define TESTS_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS (64 * 40)

struct histogram {
    uint64_t count, max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t us);
/* The value that the share Q (0..1) of all values does not exceed; 0 when there are none. */
uint64_t histogram_quantile(const struct histogram *h, double q);

#endif
