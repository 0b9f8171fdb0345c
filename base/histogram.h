/* Room: base. A histogram in constant memory that any thread adds to without a lock.
 *
 * Bucket K counts the values above 2^(K-1) and up to 2^K; the last one all above. A duration is
 * counted in microseconds, and summed in nanoseconds, so that the mean of short ones is right.
 * Thread: any; a copy taken meanwhile may lack the newest values, and its sum and its counts may
 * differ by them. */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_BOUNDS  28 /* up to 2^27: two minutes in microseconds, 128 MiB in bytes */
#define HISTOGRAM_BUCKETS (HISTOGRAM_BOUNDS + 1)

/* All zero: empty. */
struct histogram {
    _Atomic uint64_t sum;
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
};

struct histogram_copy {
    uint64_t sum; /* of histogram_add_ns: in ns */
    uint64_t count;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t value);
void histogram_add_ns(struct histogram *h, uint64_t ns);
/* N values alike. */
void histogram_add_ns_times(struct histogram *h, uint64_t ns, uint64_t n);
/* Adds what H has to OUT, which begins with zeros. */
void histogram_collect(const struct histogram *h, struct histogram_copy *out);

#endif
