/* Room: replication. Thread: see the header.
 * Owns: the chunks, 8 bytes a number in steps of 64 KiB; the directory is address space that costs
 *   memory only where it is used.
 * Invariants: a chunk is zero when it becomes visible, and stays where it is.
 * Not here: what the values mean (digest.c, stored.c). */
#include "replication/hash_array.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>

#define CHUNK_BITS 13u
#define CHUNK_SIZE (1u << CHUNK_BITS)
#define CHUNKS     (1u << (32 - CHUNK_BITS))

typedef _Atomic uint64_t cell;

struct hash_array {
    uint32_t used; /* the writer's: no chunk at or behind it */
    _Atomic(cell *) chunks[CHUNKS];
};

struct hash_array *hash_array_new(void)
{
    return MEM_NEW(struct hash_array);
}

void hash_array_free(struct hash_array *a)
{
    if (a == NULL)
        return;
    for (uint32_t i = 0; i < a->used; i++)
        free(atomic_load_explicit(&a->chunks[i], memory_order_relaxed));
    free(a);
}

void hash_array_set(struct hash_array *a, uint32_t number, uint64_t value)
{
    CHECK(number != 0);
    const uint32_t i = number - 1;
    cell *chunk = atomic_load_explicit(&a->chunks[i >> CHUNK_BITS], memory_order_relaxed);
    if (chunk == NULL) {
        if (value == 0)
            return;
        chunk = mem_zalloc(CHUNK_SIZE * sizeof *chunk);
        if (i >> CHUNK_BITS >= a->used)
            a->used = (i >> CHUNK_BITS) + 1;
        atomic_store_explicit(&a->chunks[i >> CHUNK_BITS], chunk, memory_order_release);
    }
    atomic_store_explicit(&chunk[i & (CHUNK_SIZE - 1)], value, memory_order_relaxed);
}

uint64_t hash_array_get(const struct hash_array *a, uint32_t number)
{
    CHECK(number != 0);
    const uint32_t i = number - 1;
    cell *chunk = atomic_load_explicit(&a->chunks[i >> CHUNK_BITS], memory_order_acquire);
    return chunk == NULL ? 0
                         : atomic_load_explicit(&chunk[i & (CHUNK_SIZE - 1)], memory_order_relaxed);
}
