/* Room: consensus. Thread: loop. Owns: the runs.
 * Invariants: runs rise strictly in index and in term; every run has at least one entry. */
#include "consensus/terms.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdlib.h>

void terms_init(struct terms *t, uint64_t first_index, uint64_t prev_term)
{
    CHECK(first_index > 0 && (first_index == 1) == (prev_term == 0));
    *t = (struct terms){.first = first_index, .last = first_index - 1, .prev_term = prev_term};
}

void terms_fini(struct terms *t)
{
    free(t->runs);
    t->runs = NULL;
    t->n = t->cap = 0;
}

void terms_append(struct terms *t, uint64_t term)
{
    CHECK(term > 0);
    t->last++;
    if (t->n > 0) {
        uint64_t before = t->runs[t->n - 1].term;
        CHECK(term >= before);
        if (term == before)
            return;
    }
    CHECK(term >= t->prev_term);
    if (t->n == t->cap) {
        t->cap = t->cap == 0 ? 16 : t->cap * 2;
        t->runs = mem_realloc(t->runs, t->cap * sizeof *t->runs);
    }
    t->runs[t->n++] = (struct terms_run){t->last, term};
}

void terms_truncate(struct terms *t, uint64_t index)
{
    CHECK(index >= t->first && index <= t->last + 1);
    t->last = index - 1;
    while (t->n > 0 && t->runs[t->n - 1].first > t->last)
        t->n--;
}

/* The run that holds INDEX; asked mostly for the newest entries, so from the end. */
static const struct terms_run *run_of(const struct terms *t, uint64_t index)
{
    size_t i = t->n;
    while (i > 0 && t->runs[i - 1].first > index)
        i--;
    CHECK(i > 0);
    return &t->runs[i - 1];
}

void terms_cut(struct terms *t, uint64_t index)
{
    CHECK(index <= t->last + 1);
    if (index <= t->first)
        return;
    size_t old = 0;
    t->prev_term = terms_at(t, index - 1);
    while (old < t->n && (old + 1 < t->n ? t->runs[old + 1].first : t->last + 1) <= index)
        old++;
    for (size_t i = old; i < t->n; i++)
        t->runs[i - old] = t->runs[i];
    t->n -= old;
    if (t->n > 0 && t->runs[0].first < index)
        t->runs[0].first = index;
    t->first = index;
}

uint64_t terms_at(const struct terms *t, uint64_t index)
{
    if (index + 1 == t->first)
        return t->prev_term;
    if (index < t->first || index > t->last)
        return 0;
    return run_of(t, index)->term;
}

uint64_t terms_run_first(const struct terms *t, uint64_t index)
{
    CHECK(index >= t->first && index <= t->last);
    return run_of(t, index)->first;
}
