/* Room: base. Memory that is freed all at once: what one request is decoded into.
 *
 * It grows in blocks up to a maximum that its maker must give; a piece beyond it is NULL, and
 * stays NULL for all that follow (`failed`), so a decoder may ask once, at its end. Pieces never
 * move. Aligned for any type. Not for the library: an allocation that fails ends the process
 * (base/mem.h). Thread: any, one at a time. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* the newest first */
    size_t used, max;           /* bytes of pieces; the blocks are at most a third more */
    bool failed;
};

/* Keeps nothing until it is used. */
void arena_init(struct arena *a, size_t max);
void arena_fini(struct arena *a);
/* N bytes, uninitialised; NULL: over the maximum. N = 0 gives a pointer that is not to be read. */
void *arena_take(struct arena *a, size_t n);
/* The same, all zero. */
void *arena_zeroed(struct arena *a, size_t n);
/* A copy of N bytes with a zero behind it. */
char *arena_copy(struct arena *a, const void *p, size_t n);

#endif
