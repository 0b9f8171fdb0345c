/* Room: consensus. Thread: any; no loop runs.
 * Owns: nothing after it returns.
 * Invariants: the same code judges the files as at a start (log_load.c), and nothing is written.
 * Not here: what the commands mean to the node (its VISIT). */
#include "consensus/log_load.h"
#include "consensus/log_read.h"
#include "consensus/peer_book.h"

#include <stdio.h>

static void describe(const struct log_store *s, const struct log_outline *outline,
                     struct cns_report *out)
{
    *out = (struct cns_report){
        .cluster_id = s->cluster_id,
        .id = s->node_id,
        .incarnation = s->incarnation,
        .term = s->meta.now.term,
        .vote = s->meta.now.vote,
        .first_index = outline->first_index,
        .last_index = s->last,
        .last_term = s->last_term,
        .segments = s->index.n,
        .snapshot = log_snapshot_copy(&s->snapshot.s),
        .torn = outline->torn,
        .unfinished = outline->unfinished,
    };
    for (unsigned i = 0; i < s->index.n; i++)
        out->bytes += s->index.segments[i]->size;
}

enum err cns_check(const char *dir, cns_visit visit, void *ctx, struct cns_report *out)
{
    struct log_store s;
    struct log_outline outline;
    enum err e = log_load_look(dir, &s, &outline);
    describe(&s, &outline, out);
    if (e == ERR_OK && visit != NULL)
        e = log_read_back(&s.index, visit, ctx);
    if (e == ERR_OK && s.incarnation != 0) { /* 0: of a format that has no `peers` */
        out->peers = peer_book_look(dir, s.cluster_id, s.node_id, s.incarnation);
        if (out->peers != ERR_OK)
            (void)snprintf(out->peers_sentence, sizeof out->peers_sentence, "%s", err_text());
    }
    if (e == ERR_CORRUPT || e == ERR_IO) {
        out->damage = e;
        (void)snprintf(out->sentence, sizeof out->sentence, "%s", err_text());
        e = ERR_OK;
    }
    log_outline_fini(&outline);
    log_store_fini(&s);
    return e;
}
