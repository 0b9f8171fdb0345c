/* Room: base. Checksums: XXH3-64 (xxHash), seeded. Not cryptographic: it finds damage and mistakes,
 * not forgery. Thread: any. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash64(const void *data, size_t n, uint64_t seed);

#endif
