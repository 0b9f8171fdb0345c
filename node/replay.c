/* Room: node. Thread: main, before the others start.
 *
 * The log is read from its end back, and the table wants the transactions in their order, so the
 * sections wait in a list. Only a transaction's last entry has one: its other parts do not matter
 * here. Nothing is written: a crash anywhere begins it again. */
#include "node/replay.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "replication/replication.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct section {
    struct list link;
    uint64_t seq;
    size_t len;
    uint8_t bytes[];
};

struct replay {
    uint64_t applied, bytes, bytes_max;
    uint64_t expected; /* the sequence before the oldest one that was read */
    struct list sections;
    enum err result;
};

static bool visit(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    struct replay *r = ctx;
    struct repl_entry e;
    (void)term;
    if (index > r->applied) /* it comes by itself, if it is committed */
        return true;
    r->bytes += n;
    if (r->bytes > r->bytes_max)
        return false;
    r->result = repl_entry_read(p, n, &e);
    if (r->result != ERR_OK)
        return false;
    if (e.part + 1 != e.parts)
        return true;
    if (e.seq != r->expected) /* what is behind this gap is not known */
        return false;
    struct section *s = mem_alloc(sizeof *s + e.section_len);
    s->seq = e.seq;
    s->len = e.section_len;
    if (s->len > 0)
        memcpy(s->bytes, e.section, s->len);
    list_push_front(&r->sections, &s->link);
    r->expected--;
    return r->expected > 0;
}

static enum err scan_own(void *log, cns_visit visit_one, void *ctx)
{
    thread_expect_loop();
    return cns_scan_back(log, visit_one, ctx);
}

enum err replay_outcomes(struct outcomes *o, struct cns *cns, uint64_t applied, uint64_t seq,
                         uint64_t bytes_max)
{
    return replay_from(o, scan_own, cns, applied, seq, bytes_max);
}

enum err replay_from(struct outcomes *o, replay_scan scan, void *log, uint64_t applied,
                     uint64_t seq, uint64_t bytes_max)
{
    struct replay r = {.applied = applied, .bytes_max = bytes_max, .expected = seq};
    struct outcomes_stats stats;
    struct list *i;
    uint64_t began = clock_mono_ms();
    list_init(&r.sections);
    enum err e = seq == 0 ? ERR_OK : scan(log, visit, &r);
    if (e == ERR_OK)
        e = r.result;
    outcomes_begin(o, e == ERR_OK ? r.expected : seq);
    while ((i = list_pop_front(&r.sections)) != NULL) {
        struct section *s = LIST_ENTRY(i, struct section, link);
        if (e == ERR_OK)
            e = outcomes_apply(o, s->seq, s->bytes, s->len);
        free(s);
    }
    TRY(e);
    outcomes_get_stats(o, &stats);
    log_info("replay",
             "outcomes covers=%" PRIu64 " seq=%" PRIu64 " writers=%" PRIu64 " outcomes=%" PRIu64
             " read=%" PRIu64 " ms=%" PRIu64,
             stats.covers, seq, stats.writers, stats.outcomes, r.bytes, clock_mono_ms() - began);
    return ERR_OK;
}
