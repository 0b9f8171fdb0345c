/* Room: base. Thread: any.
 *
 * The algorithm is compiled in from its header: liblectern, which uses this, needs no library but
 * libc. */
#include "base/hash.h"

#define XXH_INLINE_ALL

#include <xxhash.h>

uint64_t hash64(const void *data, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, n, seed);
}
