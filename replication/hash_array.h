/* Room: replication. A growing array of hashes that any thread may read while one writes: two
 * levels, a directory of chunks that never move and stay until the end. Values are single relaxed
 * atomics: a reader sees an old or a new one, whole. Numbers begin with 1, as pages and frames do.
 * Thread: hash_array_set: one at a time; hash_array_get: any. */
#ifndef REPLICATION_HASH_ARRAY_H
#define REPLICATION_HASH_ARRAY_H

#include <stdint.h>

struct hash_array;

struct hash_array *hash_array_new(void);
void hash_array_free(struct hash_array *a);
/* NUMBER >= 1. */
void hash_array_set(struct hash_array *a, uint32_t number, uint64_t value);
/* 0: never set. NUMBER >= 1. */
uint64_t hash_array_get(const struct hash_array *a, uint32_t number);

#endif
