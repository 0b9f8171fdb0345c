/* Room: base. Random numbers from a seed: the same seed gives the same run. For tests, jitter and
 * the simulation; never for secrets (splitmix64, Steele et al. 2014). Thread: the owner. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_u64(struct rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [0, n); 0 when n is 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return n == 0 ? 0 : rng_u64(r) % n;
}

/* True once in N calls on average. */
static inline int rng_once_in(struct rng *r, uint64_t n)
{
    return rng_below(r, n) == 0;
}

#endif
