/* Room: node. Thread: the owner's.
 * Owns: the slots. Invariants: at most three quarters of them are used; a number stands in the
 * first free slot from its own place on, so that a search ends at the first free one; a removal
 * moves the ones behind it up (no marks of the dead).
 *
 * The numbers come from the network: they are mixed with a random number of the process, so that
 * nobody can choose numbers that all fall into one place. */
#include "node/table.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>

#define SIZE_MIN 8u

struct table_slot {
    void *value; /* NULL: free */
    uint32_t number;
};

static uint64_t secret(void)
{
    static uint64_t mixed; /* from the loop only */
    if (mixed == 0) {
        CHECK(getrandom(&mixed, sizeof mixed, 0) == (ssize_t)sizeof mixed);
        mixed |= 1;
    }
    return mixed;
}

static uint32_t place(const struct table *t, uint32_t number)
{
    uint64_t h = (number + 1ull) * secret();
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93ull;
    return (uint32_t)(h >> 40) & (t->size - 1);
}

/* The slot of NUMBER, or the free one where it would stand. */
static uint32_t find(const struct table *t, uint32_t number)
{
    uint32_t i = place(t, number);
    while (t->slots[i].value != NULL && t->slots[i].number != number)
        i = (i + 1) & (t->size - 1);
    return i;
}

static void resize(struct table *t, uint32_t size)
{
    struct table old = *t;
    t->size = size;
    t->slots = mem_zalloc(size * sizeof *t->slots);
    for (uint32_t i = 0; i < old.size; i++)
        if (old.slots[i].value != NULL)
            t->slots[find(t, old.slots[i].number)] = old.slots[i];
    free(old.slots);
}

void table_init(struct table *t)
{
    *t = (struct table){0};
}

void table_fini(struct table *t)
{
    free(t->slots);
    table_init(t);
}

void *table_get(const struct table *t, uint32_t number)
{
    return t->size == 0 ? NULL : t->slots[find(t, number)].value;
}

void table_put(struct table *t, uint32_t number, void *value)
{
    if (t->n + 1 > t->size / 4 * 3)
        resize(t, t->size == 0 ? SIZE_MIN : t->size * 2);
    struct table_slot *slot = &t->slots[find(t, number)];
    CHECK(value != NULL && slot->value == NULL);
    *slot = (struct table_slot){value, number};
    t->n++;
}

/* Slot I is free now: those behind it that had wanted it, or one before it, move up. */
static void close_gap(struct table *t, uint32_t i)
{
    uint32_t mask = t->size - 1;
    for (uint32_t j = (i + 1) & mask; t->slots[j].value != NULL; j = (j + 1) & mask) {
        uint32_t wanted = place(t, t->slots[j].number);
        if (((j - wanted) & mask) < ((j - i) & mask))
            continue;
        t->slots[i] = t->slots[j];
        t->slots[j].value = NULL;
        i = j;
    }
}

void *table_take(struct table *t, uint32_t number)
{
    if (t->size == 0)
        return NULL;
    uint32_t i = find(t, number);
    void *value = t->slots[i].value;
    if (value == NULL)
        return NULL;
    t->slots[i].value = NULL;
    close_gap(t, i);
    t->n--;
    if (t->n == 0)
        table_fini(t);
    else if (t->size > SIZE_MIN && t->n < t->size / 8)
        resize(t, t->size / 2);
    return value;
}

void *table_any(const struct table *t, uint32_t *number)
{
    for (uint32_t i = 0; i < t->size; i++)
        if (t->slots[i].value != NULL) {
            *number = t->slots[i].number;
            return t->slots[i].value;
        }
    return NULL;
}
