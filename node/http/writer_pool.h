/* Room: node/http. Writers: the names under which this node numbers the writes of Hrana streams
 * (docs/CLIENT.md, "Exactly once"). Hrana has no numbers of its own; with these a write that was
 * passed on to a leader that was lost is asked for again, and done once.
 *
 * A writer has one write under way at a time. They are used again: each leaves a mark in the table
 * of outcomes, so there are as many as writes were ever under way at once. Thread: loop. */
#ifndef NODE_HTTP_WRITER_POOL_H
#define NODE_HTTP_WRITER_POOL_H

#include "base/list.h"
#include "base/thread.h"
#include "client/wire.h"

struct writer_pool;

struct writer {
    struct list link;
    uint8_t id[WIRE_WRITER_BYTES];
    uint64_t number; /* of its last write */
};

struct writer_pool *writer_pool_new(void) ON_LOOP;
/* Not of those that are still out. */
void writer_pool_free(struct writer_pool *p) ON_LOOP;
struct writer *writer_take(struct writer_pool *p) ON_LOOP;
/* Its writes are answered. */
void writer_give(struct writer_pool *p, struct writer *w) ON_LOOP;
/* What became of its last write is not known: nobody uses it again. */
void writer_drop(struct writer *w) ON_LOOP;

#endif
