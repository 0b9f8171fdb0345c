/* Room: client.   Thread: the loop's.   Owns: a sorted array: the numbers are given out ascending,
 * so nearly every one is added at the end.
 *
 * Invariants: sorted, no number twice; n and bytes are within the limits. */
#include "client/kept_set.h"

#include "client/wire.h"

#include <stdlib.h>
#include <string.h>

/* The first that is not below KEEP. */
static size_t place_of(const struct kept_set *s, uint32_t keep)
{
    size_t low = 0, high = s->n;
    if (high > 0 && s->all[high - 1].keep < keep)
        return high;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->all[middle].keep < keep)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool kept_set_has(const struct kept_set *s, uint32_t keep)
{
    size_t i = place_of(s, keep);
    return i < s->n && s->all[i].keep == keep;
}

bool kept_set_add(struct kept_set *s, uint32_t keep, size_t bytes)
{
    if (s->n == WIRE_KEPT_MAX || bytes > WIRE_KEPT_BYTES_MAX - s->bytes)
        return false;
    if (s->n == s->room) {
        size_t room = s->room == 0 ? 16 : 2 * s->room;
        struct kept_one *all = realloc(s->all, room * sizeof *all);
        if (all == NULL)
            return false;
        s->all = all;
        s->room = room;
    }
    size_t i = place_of(s, keep);
    memmove(s->all + i + 1, s->all + i, (s->n - i) * sizeof *s->all);
    s->all[i] = (struct kept_one){keep, (uint32_t)bytes};
    s->n++;
    s->bytes += bytes;
    return true;
}

bool kept_set_remove(struct kept_set *s, uint32_t keep)
{
    size_t i = place_of(s, keep);
    if (i == s->n || s->all[i].keep != keep)
        return false;
    s->bytes -= s->all[i].bytes;
    s->n--;
    memmove(s->all + i, s->all + i + 1, (s->n - i) * sizeof *s->all);
    return true;
}

void kept_set_fini(struct kept_set *s)
{
    free(s->all);
    *s = (struct kept_set){0};
}
