/* Room: node/http.   Thread: loop.   Owns: the writers at rest. */
#include "node/http/writer_pool.h"

#include "base/check.h"
#include "base/mem.h"

#include <openssl/rand.h>
#include <stdlib.h>

struct writer_pool {
    struct list rest; /* struct writer */
};

struct writer_pool *writer_pool_new(void)
{
    struct writer_pool *p = MEM_NEW(struct writer_pool);
    list_init(&p->rest);
    return p;
}

void writer_pool_free(struct writer_pool *p)
{
    struct list *l;
    if (p == NULL)
        return;
    while ((l = list_pop_front(&p->rest)) != NULL)
        free(LIST_ENTRY(l, struct writer, link));
    free(p);
}

struct writer *writer_take(struct writer_pool *p)
{
    struct list *l = list_pop_front(&p->rest);
    if (l != NULL)
        return LIST_ENTRY(l, struct writer, link);
    struct writer *w = MEM_NEW(struct writer);
    CHECK(RAND_bytes(w->id, sizeof w->id) == 1);
    return w;
}

void writer_give(struct writer_pool *p, struct writer *w)
{
    list_push_front(&p->rest, &w->link);
}

void writer_drop(struct writer *w)
{
    free(w);
}
