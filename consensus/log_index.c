/* Room: consensus. Thread: one writer, one that drops the oldest, any reader (the lock).
 * Owns: the list of live segments, the marks.
 * Invariants: segments lie without gap or overlap: each begins behind the `last` of the one before
 *             (an empty one may be followed by another at the same index only after a cut);
 *             marks of a segment rise; readers see only durable entries.
 * Not here: what a segment's bytes mean (log_segment.c). */
#include "consensus/log_index.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

#define MARK_ENTRIES 64u
#define MARK_BYTES   KIB(64)

void log_index_init(struct log_index *x)
{
    *x = (struct log_index){0};
    CHECK(pthread_mutex_init(&x->lock, NULL) == 0);
}

void log_index_fini(struct log_index *x)
{
    for (unsigned i = 0; i < x->n; i++)
        log_segment_unref(x->segments[i]);
    free(x->segments);
    (void)pthread_mutex_destroy(&x->lock);
}

struct log_segment *log_segment_new(char *path, const struct log_segment_head *head, uint64_t size)
{
    struct log_segment *s = MEM_NEW(struct log_segment);
    atomic_init(&s->refs, 1);
    s->path = path;
    s->head = *head;
    s->size = size;
    s->last = head->first_index - 1;
    s->end = LOG_RECORDS_AT;
    return s;
}

struct log_segment *log_segment_ref(struct log_segment *s)
{
    CHECK(atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed) > 0);
    return s;
}

void log_segment_unref(struct log_segment *s)
{
    unsigned before = atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before > 1)
        return;
    free(s->path);
    free(s->marks);
    free(s);
}

static void lock(struct log_index *x)
{
    CHECK(pthread_mutex_lock(&x->lock) == 0);
}

static void unlock(struct log_index *x)
{
    CHECK(pthread_mutex_unlock(&x->lock) == 0);
}

static void add(struct log_index *x, struct log_segment *s)
{
    CHECK(x->n == 0 || x->segments[x->n - 1]->last + 1 == s->head.first_index);
    if (x->n == x->cap) {
        x->cap = x->cap == 0 ? 8 : x->cap * 2;
        x->segments = mem_realloc(x->segments, x->cap * sizeof(struct log_segment *));
    }
    x->segments[x->n++] = s;
}

void log_index_add(struct log_index *x, struct log_segment *s)
{
    lock(x);
    add(x, s);
    unlock(x);
}

static void add_mark(struct log_segment *s, uint64_t index, uint64_t offset, uint64_t chain)
{
    if (s->n_marks == s->cap_marks) {
        s->cap_marks = s->cap_marks == 0 ? 16 : s->cap_marks * 2;
        s->marks = mem_realloc(s->marks, s->cap_marks * sizeof *s->marks);
    }
    s->marks[s->n_marks++] = (struct log_mark){index, offset, chain};
}

void log_index_note(struct log_index *x, uint64_t index, uint64_t offset, uint64_t end,
                    uint64_t chain)
{
    lock(x);
    CHECK(x->n > 0);
    struct log_segment *s = x->segments[x->n - 1];
    const struct log_mark *m = s->n_marks == 0 ? NULL : &s->marks[s->n_marks - 1];
    if (m == NULL || index - m->index >= MARK_ENTRIES || offset - m->offset >= MARK_BYTES)
        add_mark(s, index, offset, chain);
    s->last = index;
    s->end = end;
    unlock(x);
}

void log_index_publish(struct log_index *x, uint64_t last, uint64_t last_term)
{
    lock(x);
    x->last = last;
    x->last_term = last_term;
    unlock(x);
}

/* Drops from S what lies at INDEX or later. */
static void trim(struct log_segment *s, uint64_t index)
{
    if (s->last < index)
        return;
    s->last = index - 1;
    while (s->n_marks > 0 && s->marks[s->n_marks - 1].index >= index)
        s->n_marks--;
    s->end = s->n_marks == 0 ? LOG_RECORDS_AT : s->marks[s->n_marks - 1].offset;
}

struct log_segment **log_index_begin(struct log_index *x, struct log_segment *s, uint64_t dead_from,
                                     unsigned *n_dead)
{
    uint64_t first = s->head.first_index;
    CHECK(dead_from <= first);
    lock(x);
    unsigned keep = x->n;
    while (keep > 0 && x->segments[keep - 1]->head.first_index >= dead_from)
        keep--;
    *n_dead = x->n - keep;
    struct log_segment **dead = mem_alloc(*n_dead * sizeof(struct log_segment *));
    for (unsigned i = keep; i < x->n; i++)
        dead[i - keep] = x->segments[i];
    x->n = keep;
    if (keep > 0)
        trim(x->segments[keep - 1], first);
    add(x, s);
    x->cuts += *n_dead > 0 || x->last >= first;
    x->last = first - 1;
    x->last_term = s->head.prev_term;
    unlock(x);
    return dead;
}

/* Bytes of records in S. */
static uint64_t used_bytes(const struct log_segment *s)
{
    return s->end - LOG_RECORDS_AT;
}

struct log_segment *log_index_drop_oldest(struct log_index *x, uint64_t index, uint64_t keep_bytes)
{
    struct log_segment *oldest = NULL;
    uint64_t behind = 0;
    lock(x);
    for (unsigned i = 1; i < x->n; i++)
        behind += used_bytes(x->segments[i]);
    if (x->n > 1 && x->segments[0]->last <= index && behind >= keep_bytes) {
        oldest = x->segments[0];
        x->n--;
        memmove(x->segments, x->segments + 1, x->n * sizeof(struct log_segment *));
    }
    unlock(x);
    return oldest;
}

uint64_t log_index_last(struct log_index *x)
{
    lock(x);
    uint64_t last = x->last;
    unlock(x);
    return last;
}

uint64_t log_index_first(struct log_index *x)
{
    lock(x);
    CHECK(x->n > 0);
    uint64_t first = x->segments[0]->head.first_index;
    unlock(x);
    return first;
}

/* The last mark of S at or before INDEX; there is one for every entry. */
static struct log_mark mark_before(const struct log_segment *s, uint64_t index)
{
    unsigned low = 0, high = s->n_marks;
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (s->marks[middle].index <= index)
            low = middle;
        else
            high = middle;
    }
    CHECK(high > low && s->marks[low].index <= index);
    return s->marks[low];
}

struct log_segment *log_index_find(struct log_index *x, uint64_t index, struct log_mark *mark,
                                   uint64_t *last)
{
    struct log_segment *found = NULL;
    lock(x);
    /* From the newest: readers mostly want recent entries. */
    for (unsigned i = x->n; found == NULL && index <= x->last && i > 0; i--) {
        struct log_segment *s = x->segments[i - 1];
        if (index < s->head.first_index)
            continue;
        CHECK(index <= s->last);
        found = log_segment_ref(s);
        *mark = mark_before(s, index);
        *last = s->last < x->last ? s->last : x->last;
    }
    unlock(x);
    return found;
}
