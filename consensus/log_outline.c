/* Room: consensus. Thread: one at a time.
 * Owns: the runs and the other entries' payloads.
 * Not here: reading them (log_load.c). */
#include "consensus/log_outline.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

void log_outline_fini(struct log_outline *o)
{
    free(o->runs);
    cns_items_free(o->others, (unsigned)o->n_others);
    *o = (struct log_outline){0};
}

uint64_t log_outline_term(const struct log_outline *o, uint64_t index)
{
    size_t run = o->n_runs;
    CHECK(index + 1 >= o->first_index);
    if (index < o->first_index)
        return o->prev_term;
    while (run > 0 && o->runs[run - 1].first_index > index)
        run--;
    CHECK(run > 0);
    return o->runs[run - 1].term;
}

void log_outline_add(struct log_outline *o, const struct log_record *r)
{
    if (o->n_runs == 0 || o->runs[o->n_runs - 1].term != r->term) {
        if (o->n_runs == o->cap_runs) {
            o->cap_runs = o->cap_runs == 0 ? 16 : o->cap_runs * 2;
            o->runs = mem_realloc(o->runs, o->cap_runs * sizeof *o->runs);
        }
        o->runs[o->n_runs++] = (struct log_run){r->index, r->term};
    }
    if (r->kind == CNS_COMMAND)
        return;
    if (o->n_others == o->cap_others) {
        o->cap_others = o->cap_others == 0 ? 16 : o->cap_others * 2;
        o->others = mem_realloc(o->others, o->cap_others * sizeof *o->others);
    }
    struct cns_payload *payload = NULL;
    if (r->kind == CNS_CHANGE) {
        uint8_t *copy = mem_alloc(r->len);
        memcpy(copy, r->payload, r->len);
        payload = cns_payload_take(copy, r->len);
    }
    o->others[o->n_others++] = (struct cns_item){r->index, r->term, r->kind, payload};
}
