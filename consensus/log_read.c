/* Room: consensus. Thread: any.
 * Owns: nothing after a call.
 * Invariants: an entry that is given out passed its checksums now, not only when it was loaded.
 * Not here: where entries lie (log_index.c). */
#include "consensus/log_read.h"

#include "base/check.h"
#include "base/file.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Grows by doubling; the items' final owner frees them. */
struct items {
    struct cns_item *all;
    unsigned n, cap;
    uint64_t bytes;
};

static void items_add(struct items *to, const struct log_record *r)
{
    if (to->n == to->cap) {
        to->cap = to->cap == 0 ? 16 : to->cap * 2;
        to->all = mem_realloc(to->all, to->cap * sizeof *to->all);
    }
    struct cns_payload *payload = NULL;
    if (r->kind != CNS_BARRIER) {
        uint8_t *copy = mem_alloc(r->len);
        memcpy(copy, r->payload, r->len);
        payload = cns_payload_take(copy, r->len);
    }
    to->all[to->n++] = (struct cns_item){r->index, r->term, r->kind, payload};
    to->bytes += r->len;
}

static enum err step_error(const struct log_cursor *c, enum log_step step)
{
    if (step == LOG_STEP_ZEROS)
        return err_fail(ERR_CORRUPT, "%s offset %llu: entry %llu is gone", c->path,
                        (unsigned long long)c->offset, (unsigned long long)c->index + 1);
    return step == LOG_STEP_BAD ? ERR_CORRUPT : step == LOG_STEP_FAILED ? ERR_IO : ERR_OK;
}

/* A cursor on SEG's file at MARK. Every call opens the file anew: a few microseconds, and no
 * descriptor is held for a log of any length. */
static enum err cursor_open(const struct log_segment *seg, const struct log_mark *mark,
                            struct log_cursor *c)
{
    int fd;
    TRY(file_open(seg->path, O_RDONLY, 0, &fd));
    log_cursor_init(c, fd, seg->path, seg->size, seg->head.salt);
    log_cursor_seek(c, mark->offset, mark->index, 0, mark->chain);
    return ERR_OK;
}

static void cursor_close(struct log_cursor *c)
{
    (void)close(c->fd);
    log_cursor_fini(c);
}

/* The entries [from, to] of SEG, found from MARK on, until a limit is reached. */
static enum err collect(const struct log_segment *seg, const struct log_mark *mark, uint64_t from,
                        uint64_t to, unsigned max_items, uint64_t max_bytes, struct items *out)
{
    struct log_cursor c;
    struct log_record r;
    enum log_step step = LOG_STEP_RECORD;
    TRY(cursor_open(seg, mark, &c));
    while (step == LOG_STEP_RECORD && c.index < to) {
        bool wanted = c.index + 1 >= from;
        if (wanted && out->n > 0 && (out->n >= max_items || out->bytes >= max_bytes))
            break;
        step = log_cursor_next(&c, wanted, &r);
        if (step == LOG_STEP_RECORD && wanted)
            items_add(out, &r);
    }
    enum err e = step_error(&c, step);
    cursor_close(&c);
    return e;
}

enum err log_read_chain(const struct log_segment *seg, const struct log_mark *mark, uint64_t index,
                        uint64_t *term, uint64_t *chain)
{
    struct log_cursor c;
    struct log_record r;
    enum log_step step = LOG_STEP_RECORD;
    CHECK(mark->index <= index && index <= seg->last);
    TRY(cursor_open(seg, mark, &c));
    while (step == LOG_STEP_RECORD && c.index < index)
        step = log_cursor_next(&c, false, &r);
    *term = c.term;
    *chain = c.chain;
    enum err e = step_error(&c, step);
    cursor_close(&c);
    return e;
}

static uint64_t cuts_of(struct log_index *x)
{
    CHECK(pthread_mutex_lock(&x->lock) == 0);
    uint64_t cuts = x->cuts;
    CHECK(pthread_mutex_unlock(&x->lock) == 0);
    return cuts;
}

/* One attempt. *cut: a truncation came between, so the result says nothing. */
static enum err read_once(struct log_index *x, uint64_t index, unsigned max_items,
                          uint64_t max_bytes, struct items *out, bool *cut)
{
    struct log_mark mark;
    uint64_t last, cuts = cuts_of(x);
    enum err e = ERR_OK;
    *out = (struct items){0};
    while (e == ERR_OK && (out->n == 0 || (out->n < max_items && out->bytes < max_bytes))) {
        struct log_segment *seg = log_index_find(x, index + out->n, &mark, &last);
        if (seg == NULL)
            break;
        e = collect(seg, &mark, index + out->n, last, max_items, max_bytes, out);
        log_segment_unref(seg);
    }
    *cut = cuts_of(x) != cuts;
    return e;
}

enum err log_read(struct log_index *x, uint64_t index, unsigned max_items, uint64_t max_bytes,
                  struct cns_item **items, unsigned *n)
{
    struct items out;
    bool cut;
    *items = NULL;
    *n = 0;
    enum err e = read_once(x, index, max_items, max_bytes, &out, &cut);
    /* Halves from before and after a truncation must not be given out as one; nor is a file that it
     * removed damage. The entry itself may be far below the cut: look again. */
    while (cut) {
        cns_items_free(out.all, out.n);
        e = read_once(x, index, max_items, max_bytes, &out, &cut);
    }
    if (e == ERR_OK && out.n == 0)
        e = err_fail(ERR_NOT_FOUND, "entry %llu is not in the log, which begins with entry %llu",
                     (unsigned long long)index, (unsigned long long)log_index_first(x));
    else if (e == ERR_NOT_FOUND)
        e = ERR_CORRUPT; /* somebody removed the file */
    if (e != ERR_OK) {
        cns_items_free(out.all, out.n);
        return e;
    }
    *items = out.all;
    *n = out.n;
    return ERR_OK;
}

/* Visits the stretch of SEG from mark I on, backwards. */
static enum err stretch_back(const struct log_segment *seg, unsigned i, uint64_t last,
                             cns_visit visit, void *ctx, bool *more)
{
    struct items out = {0};
    const struct log_mark *m = &seg->marks[i];
    uint64_t to = i + 1 < seg->n_marks ? m[1].index - 1 : last;
    enum err e = collect(seg, m, m->index, to, UINT32_MAX, UINT64_MAX, &out);
    for (unsigned k = out.n; e == ERR_OK && *more && k > 0; k--) {
        const struct cns_item *it = &out.all[k - 1];
        if (it->kind == CNS_COMMAND)
            *more = visit(ctx, it->index, it->term, it->payload->data, it->payload->len);
    }
    cns_items_free(out.all, out.n);
    return e;
}

enum err log_read_back(struct log_index *x, cns_visit visit, void *ctx)
{
    /* Before the log starts there is one thread: the lists are read without the lock. */
    bool more = true;
    for (unsigned i = x->n; more && i > 0; i--) {
        const struct log_segment *seg = x->segments[i - 1];
        for (unsigned k = seg->n_marks; more && k > 0; k--)
            TRY(stretch_back(seg, k - 1, seg->last, visit, ctx, &more));
    }
    return ERR_OK;
}
