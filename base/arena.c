/* Room: base.   Thread: any, one at a time.   Owns: the blocks.
 * Invariants: used <= max; a block's pieces are within it. */
#include "base/arena.h"

#include "base/check.h"
#include "base/mem.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BLOCK 1024u /* doubles with each block */
#define LARGEST     65536u
#define OWN_BLOCK   (LARGEST / 4) /* a larger piece has one: no more than a quarter is ever lost */
#define ALIGN       _Alignof(max_align_t)

struct arena_block {
    struct arena_block *older;
    size_t size, at; /* of `bytes` */
    max_align_t bytes[];
};

void arena_init(struct arena *a, size_t max)
{
    *a = (struct arena){.max = max};
}

void arena_fini(struct arena *a)
{
    struct arena_block *b = a->blocks;
    while (b != NULL) {
        struct arena_block *older = b->older;
        free(b);
        b = older;
    }
    *a = (struct arena){.max = a->max};
}

static struct arena_block *new_block(size_t size, struct arena_block *older)
{
    struct arena_block *b = mem_alloc(sizeof *b + size);
    *b = (struct arena_block){.older = older, .size = size};
    return b;
}

static struct arena_block *add_block(struct arena *a, size_t n)
{
    if (n > OWN_BLOCK && a->blocks != NULL) /* the newest one goes on */
        return a->blocks->older = new_block(n, a->blocks->older);
    size_t size = a->blocks == NULL ? FIRST_BLOCK : 2 * a->blocks->size;
    if (size > LARGEST)
        size = LARGEST;
    if (size < n)
        size = n;
    return a->blocks = new_block(size, a->blocks);
}

void *arena_take(struct arena *a, size_t n)
{
    if (a->failed || n > a->max - a->used || n > SIZE_MAX / 2) {
        a->failed = true;
        return NULL;
    }
    size_t room = (n + ALIGN - 1) / ALIGN * ALIGN;
    struct arena_block *b = a->blocks;
    if (b == NULL || b->size - b->at < room)
        b = add_block(a, room);
    void *p = (uint8_t *)b->bytes + b->at;
    b->at += room;
    a->used += room < a->max - a->used ? room : a->max - a->used;
    CHECK(a->used <= a->max && b->at <= b->size);
    return p;
}

void *arena_zeroed(struct arena *a, size_t n)
{
    void *p = arena_take(a, n);
    if (p != NULL)
        memset(p, 0, n);
    return p;
}

char *arena_copy(struct arena *a, const void *p, size_t n)
{
    char *copy = arena_take(a, n < SIZE_MAX ? n + 1 : n);
    if (copy == NULL)
        return NULL;
    if (n > 0)
        memcpy(copy, p, n);
    copy[n] = 0;
    return copy;
}
