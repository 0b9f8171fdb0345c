/* Room: client. Which statements the other end of a connection keeps, within the limits that it
 * has (WIRE_KEPT_MAX): it refuses a request that would make it keep more. Thread: the loop's. */
#ifndef CLIENT_KEPT_SET_H
#define CLIENT_KEPT_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero is the empty set. */
struct kept_set {
    struct kept_one {
        uint32_t keep, bytes;
    } * all; /* sorted by keep */
    size_t n, room;
    uint64_t bytes;
};

void kept_set_fini(struct kept_set *s);
bool kept_set_has(const struct kept_set *s, uint32_t keep);
/* KEEP is not in S. False: S is full, or there is no memory. */
bool kept_set_add(struct kept_set *s, uint32_t keep, size_t bytes);
/* Whether it was there. */
bool kept_set_remove(struct kept_set *s, uint32_t keep);

#endif
