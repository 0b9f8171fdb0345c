/* Room: consensus. Thread: loop, before the log starts.
 * Owns: nothing.
 * Invariants: a directory whose identity says "ready" has all that a log needs, durably.
 * Not here: what is made of a directory that is there (log_load.c).
 *
 * Order of a making, so that a crash leaves a state that is known:
 *     identity says "making" -> meta -> the record it begins behind, if any -> first segment, with
 *     the first entries -> identity "ready"
 * A directory whose identity says "making" never acknowledged anything: it is made again. */
#include "consensus/log_make.h"

#include "base/mem.h"

#include <stdlib.h>

static enum err sync_parent(struct log_store *s)
{
    char *parent = mem_printf("%s/..", s->dir);
    enum err e = log_file_sync_dir(&s->files, parent);
    free(parent);
    return e;
}

/* The members' change that a bootstrapped log begins with. */
static enum err make_first(const struct cns_log_config *c, struct log_store *s,
                           struct log_outline *outline)
{
    TRY(log_store_new_segment(s, 1, 0, 0, 0));
    TRY(log_store_append(s, c->first_items, c->n_first_items));
    TRY(log_store_sync(s));
    outline->first_index = 1;
    for (unsigned i = 0; i < c->n_first_items; i++) {
        const struct cns_item *it = &c->first_items[i];
        struct log_record r = {.index = it->index, .term = it->term, .kind = it->kind};
        if (it->payload != NULL) {
            r.payload = it->payload->data;
            r.len = (uint32_t)it->payload->len;
        }
        log_outline_add(outline, &r);
    }
    return ERR_OK;
}

/* The state of another node that a joining one begins behind. */
static enum err make_base(const struct cns_snapshot *base, struct log_store *s,
                          struct log_outline *outline)
{
    bool renamed;
    struct log_snapshot r = {*base, 1};
    TRY(log_snapshot_write(&s->files, s->dir, s->cluster_id, s->node_id, &r, &renamed));
    s->snapshot = (struct log_snapshot){log_snapshot_copy(base), 1};
    TRY(log_store_begin_anew(s, base->index + 1, base->term));
    outline->first_index = base->index + 1;
    outline->prev_term = base->term;
    return ERR_OK;
}

static enum err remove_record(struct log_store *s)
{
    char *record = mem_printf("%s/snapshot", s->dir);
    enum err e = log_file_remove(&s->files, record);
    free(record);
    return e;
}

enum err log_make(const struct cns_log_config *c, struct log_store *s, struct log_outline *outline)
{
    struct log_owner owner = {s->cluster_id, s->node_id, 0};
    TRY(log_random(&owner.incarnation));
    TRY(log_identity_write(&s->files, s->dir, &owner, LOG_IDENTITY_MAKING));
    TRY(remove_record(s));
    struct log_meta_record first = {.term = c->first_term};
    if (c->base != NULL && c->base->term > first.term)
        first.term = c->base->term;
    TRY(log_meta_create(&s->files, s->dir, s->cluster_id, s->node_id, &first, &s->meta));
    TRY(c->base != NULL ? make_base(c->base, s, outline) : make_first(c, s, outline));
    TRY(log_store_mark(s));
    TRY(log_identity_write(&s->files, s->dir, &owner, LOG_IDENTITY_READY));
    TRY(sync_parent(s));
    s->incarnation = owner.incarnation;
    outline->made = true;
    return ERR_OK;
}
