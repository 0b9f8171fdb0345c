/* Room: tests. Thread: one. */
#include "tests/bench/latencies.h"

/* Below 128 a bucket is one microsecond; above, the top 7 bits choose the bucket. */
static unsigned bucket_of(uint64_t us)
{
    if (us < 128)
        return (unsigned)us;
    unsigned shift = 57 - (unsigned)__builtin_clzll(us); /* leaves 64..127 */
    unsigned at = shift * 64 + (unsigned)(us >> shift);
    return at < LATENCIES_BUCKETS ? at : LATENCIES_BUCKETS - 1;
}

/* The largest value of a bucket. */
static uint64_t top_of(unsigned bucket)
{
    if (bucket < 128)
        return bucket;
    unsigned shift = bucket / 64 - 1;
    return ((uint64_t)(bucket - shift * 64 + 1) << shift) - 1;
}

void latencies_add(struct latencies *h, uint64_t us)
{
    h->buckets[bucket_of(us)]++;
    h->count++;
    if (us > h->max)
        h->max = us;
}

uint64_t latencies_quantile(const struct latencies *h, double q)
{
    uint64_t wanted = (uint64_t)((double)h->count * q + 0.5), seen = 0;
    for (unsigned i = 0; i < LATENCIES_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= wanted && seen > 0)
            return top_of(i) < h->max ? top_of(i) : h->max;
    }
    return 0;
}
