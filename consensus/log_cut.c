/* Room: consensus. Thread: loop before the log starts; then the keeper, beside the writer.
 * Owns: the store's snapshot record.
 * Invariants: a segment goes only when a durable record covers all of its entries;
 *             segments go from the oldest on, and each is gone for good before the next one goes:
 *             so a log never has a gap, whatever a crash leaves.
 * Not here: the record's bytes (log_snapshot.c), what a start makes of it (log_load.c).
 *
 * Installing is one rename. The new record carries an epoch that no segment has yet, and segments
 * of a lower epoch are void: from that rename on the log is the empty one behind the record, whose
 * first segment is made next, here or at the next start. */
#include "consensus/log_cut.h"

#include "base/check.h"

#include <stdlib.h>

/* A full disk has nothing to spare. */
static enum err write_record(struct log_store *s, const struct log_snapshot *r)
{
    bool renamed;
    enum err e = log_snapshot_write(&s->files, s->dir, s->cluster_id, s->node_id, r, &renamed);
    if (e == ERR_FULL && !renamed && log_store_drop_spare(s))
        e = log_snapshot_write(&s->files, s->dir, s->cluster_id, s->node_id, r, &renamed);
    if (e == ERR_FULL && !renamed)
        return e;
    TRY(log_store_failed(s, e));
    struct cns_snapshot copy = log_snapshot_copy(&r->s);
    log_snapshot_drop(&s->snapshot.s);
    s->snapshot = (struct log_snapshot){copy, r->epoch};
    return ERR_OK;
}

enum err log_cut_record(struct log_store *s, const struct cns_snapshot *snapshot)
{
    TRY(log_store_refuse(s));
    if (snapshot->index < s->snapshot.s.index)
        return ERR_OK;
    struct log_snapshot r = {*snapshot, s->snapshot.epoch};
    CHECK(snapshot->index <= log_index_last(&s->index));
    return write_record(s, &r);
}

enum err log_cut_step(struct log_store *s, uint64_t keep_bytes, bool *more)
{
    *more = false;
    TRY(log_store_refuse(s));
    struct log_segment *oldest = log_index_drop_oldest(&s->index, s->snapshot.s.index, keep_bytes);
    if (oldest == NULL)
        return ERR_OK;
    *more = true;
    enum err e = log_file_remove(&s->files, oldest->path);
    if (e == ERR_OK)
        e = log_file_sync_dir(&s->files, s->dir);
    log_segment_unref(oldest);
    return log_store_failed(s, e);
}

/* --- another node's state ---------------------------------------------------------------------
 */

enum err log_cut_install(struct log_store *s, struct log_outline *outline,
                         const struct cns_snapshot *snapshot)
{
    TRY(log_store_refuse(s));
    TRY(log_snapshot_check(snapshot));
    uint64_t first = outline->first_index;
    if (snapshot->index + 1 < first)
        return err_fail(
            ERR_MISUSE,
            "%s: a state at entry %llu is older than the beginning of this log, which is "
            "behind entry %llu: a newer one is needed",
            s->dir, (unsigned long long)snapshot->index, (unsigned long long)first - 1);
    bool have =
        snapshot->index <= s->last && log_outline_term(outline, snapshot->index) == snapshot->term;
    if (!have && snapshot->index <= s->snapshot.s.index) /* committed here, and otherwise there */
        return err_fail(ERR_DIVERGED,
                        "%s: entry %llu of this log was of term %llu, and of term %llu where the "
                        "state comes from: they are not of one history",
                        s->dir, (unsigned long long)snapshot->index,
                        (unsigned long long)log_outline_term(outline, snapshot->index),
                        (unsigned long long)snapshot->term);
    struct log_snapshot r = {*snapshot, have ? s->snapshot.epoch : s->epoch + 1};
    /* The log's last term is never above the member's. As if a message of that term had come. */
    if (snapshot->term > s->meta.now.term)
        TRY(log_store_set_meta(s, snapshot->term, 0));
    TRY(write_record(s, &r));
    if (have)
        return ERR_OK;
    /* Half done, this process must not use the log; the next one finishes it. */
    TRY(log_store_failed(s, log_store_begin_anew(s, snapshot->index + 1, snapshot->term)));
    log_outline_fini(outline);
    outline->first_index = snapshot->index + 1;
    outline->prev_term = snapshot->term;
    return ERR_OK;
}
