/* Room: base. Thread: any. Owns: nothing. */
#include "base/histogram.h"

static unsigned bucket_of(uint64_t value)
{
    if (value <= 1)
        return 0;
    unsigned k = 64 - (unsigned)__builtin_clzll(value - 1);
    return k < HISTOGRAM_BOUNDS ? k : HISTOGRAM_BOUNDS;
}

static void add(_Atomic uint64_t *to, uint64_t n)
{
    (void)atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

void histogram_add(struct histogram *h, uint64_t value)
{
    add(&h->buckets[bucket_of(value)], 1);
    add(&h->sum, value);
}

void histogram_add_ns(struct histogram *h, uint64_t ns)
{
    histogram_add_ns_times(h, ns, 1);
}

void histogram_add_ns_times(struct histogram *h, uint64_t ns, uint64_t n)
{
    /* Rounded up: what took longer than a bound is never counted as within it. */
    uint64_t us = ns / 1000 + (ns % 1000 != 0);
    add(&h->buckets[bucket_of(us)], n);
    add(&h->sum, ns * n);
}

void histogram_collect(const struct histogram *h, struct histogram_copy *out)
{
    out->sum += atomic_load_explicit(&h->sum, memory_order_relaxed);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t n = atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
        out->buckets[i] += n;
        out->count += n;
    }
}
