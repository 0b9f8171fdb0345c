/* Room: node/http.   Thread: loop; tasks: libuv's pool.   Owns: nothing but the list.
 * Invariants: at most ASIDES_MAX tasks are in libuv's hands; those are never taken back: their
 * memory stays until they are done.
 * Not here: what the tasks are (hrana_post.c, hrana_ws_read.c, hrana_ws_stream.c). */
#include "node/http/aside.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>

#define FREE_MIN MIB(2)

struct asides {
    uv_loop_t *loop;
    struct list waiting;
    unsigned running;
    bool closed;
};

struct asides *asides_new(uv_loop_t *loop)
{
    struct asides *all = MEM_NEW(struct asides);
    all->loop = loop;
    list_init(&all->waiting);
    return all;
}

static void free_when_done(struct asides *all)
{
    if (all->closed && all->running == 0)
        free(all);
}

void asides_close(struct asides *all)
{
    CHECK(!all->closed);
    all->closed = true;
    free_when_done(all);
}

static void work(uv_work_t *w)
{
    struct aside *a = w->data;
    a->task(a);
}

static void on_worked(uv_work_t *w, int status);

static void start(struct asides *all) ON_LOOP
{
    struct list *l;
    while (all->running < ASIDES_MAX && (l = list_pop_front(&all->waiting)) != NULL) {
        struct aside *a = LIST_ENTRY(l, struct aside, link);
        a->waits = false;
        a->runs = true;
        a->work.data = a;
        all->running++;
        int rc = uv_queue_work(all->loop, &a->work, work, on_worked);
        CHECK(rc == 0); /* it cannot fail */
    }
}

static void on_worked(uv_work_t *w, int status)
{
    struct aside *a = w->data;
    struct asides *all = a->all;
    thread_expect_loop();
    CHECK(status == 0 && a->runs); /* nobody cancels it */
    a->runs = false;
    a->then(a); /* A may be gone; ALL is not, for it is still counted */
    all->running--;
    start(all);
    free_when_done(all);
}

static void prepare(struct asides *all, struct aside *a, aside_step *task, aside_step *then)
{
    CHECK(!a->waits && !a->runs && (!all->closed || all->running > 0));
    a->all = all;
    a->task = task;
    a->then = then;
    a->waits = true;
}

void aside_do(struct asides *all, struct aside *a, aside_step *task, aside_step *then)
{
    prepare(all, a, task, then);
    list_push_back(&all->waiting, &a->link);
    start(all);
}

bool aside_leave(struct aside *a, aside_step *then)
{
    if (a->waits)
        list_remove(&a->link);
    a->waits = false;
    a->then = then;
    return a->runs;
}

/* --- memory that nobody needs any more --- */

struct leftover {
    struct aside aside;
    struct arena arena;
    struct waiting *waiting;
    size_t counted;
};

static void free_arena(struct aside *a)
{
    arena_fini(&LIST_ENTRY(a, struct leftover, aside)->arena);
}

static void on_freed(struct aside *a)
{
    struct leftover *l = LIST_ENTRY(a, struct leftover, aside);
    thread_expect_loop();
    waiting_set(l->waiting, &l->counted, 0);
    free(l);
}

void aside_free(struct asides *all, struct arena *arena, struct waiting *w)
{
    if (arena->used < FREE_MIN) {
        arena_fini(arena);
        return;
    }
    struct leftover *l = MEM_NEW(struct leftover);
    l->arena = *arena;
    arena_init(arena, arena->max);
    l->waiting = w;
    waiting_set(w, &l->counted, l->arena.used);
    prepare(all, &l->aside, free_arena, on_freed);
    list_push_front(&all->waiting, &l->aside.link); /* before anything takes more */
    start(all);
}
