/* Room: node/http. What takes long and needs neither the database nor the loop - to read a large
 * request, to write a large answer - is done beside the loop, in a thread of libuv's pool: nobody
 * else waits for it, however large it is.
 *
 *     aside_do -> task (another thread) -> then (loop)
 *
 * A task touches what its owner keeps for it and nothing else. ASIDES_MAX are done at a time, the
 * others wait for their turn: so they leave processors to the loop, threads to those who write
 * files, and the memory that grows where nobody counts it yet (node/waiting.h) is that of one.
 * Thread: loop. */
#ifndef NODE_HTTP_ASIDE_H
#define NODE_HTTP_ASIDE_H

#include "base/arena.h"
#include "base/list.h"
#include "base/thread.h"
#include "node/waiting.h"

#include <stdbool.h>
#include <uv.h>

#define ASIDES_MAX 1u
/* Less than that many bytes is done where they are: it takes about a millisecond. */
#define ASIDE_MIN 65536u

struct asides;
struct aside;

typedef void aside_step(struct aside *a);

/* One thing at a time of an owner, in whose struct it lies; all zero: nothing is under way. */
struct aside {
    struct list link; /* of those that wait */
    struct asides *all;
    uv_work_t work;
    aside_step *task, *then;
    bool waits, runs;
};

struct asides *asides_new(uv_loop_t *loop);
/* No owner is left but those that left: freed now, or with the last task. */
void asides_close(struct asides *all) ON_LOOP;

/* TASK(a) in another thread, then THEN(a) on the loop: never before this returns. */
void aside_do(struct asides *all, struct aside *a, aside_step *task, aside_step *then) ON_LOOP;
/* A's owner ends. False: nothing is under way, and nothing follows. True: its task is: THEN follows
 * instead of what was to, and frees what the task had. */
bool aside_leave(struct aside *a, aside_step *then) ON_LOOP;

/* Frees ARENA, which keeps nothing after. To give back much takes long, too: that is done beside
 * the loop, and counted in W until then. */
void aside_free(struct asides *all, struct arena *arena, struct waiting *w) ON_LOOP;

#endif
