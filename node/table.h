/* Room: node. A table from numbers that a peer chose (of streams, of kept statements) to our
 * objects: open addressing, grows and shrinks with its content. Thread: the owner's. */
#ifndef NODE_TABLE_H
#define NODE_TABLE_H

#include <stdint.h>

struct table {
    struct table_slot *slots;
    uint32_t n, size; /* size: 0 or a power of two */
};

void table_init(struct table *t);
/* The objects are the caller's. */
void table_fini(struct table *t);
/* NULL: nothing is there. */
void *table_get(const struct table *t, uint32_t number);
/* VALUE is not NULL, and nothing is there yet. */
void table_put(struct table *t, uint32_t number, void *value);
/* What was there, or NULL. */
void *table_take(struct table *t, uint32_t number);
/* Any object of it, NULL: it is empty. For taking all out. */
void *table_any(const struct table *t, uint32_t *number);

#endif
