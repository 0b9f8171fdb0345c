/* Room: node. Thread: owner.
 * Owns: the lane's marks. A *mark* is a state of the database between two transactions, with the
 * log's entry that it follows: what a cut of the log, or another node's image, may begin from.
 * Invariants: `clean_index` is the newest applied entry with no half transaction before it; what is
 *   published is the state at it, for nothing is published in the middle of one. A cut's mark goes
 *   to the loop only when the files hold its sequence whatever happens to the power. */
#include "node/lane_state.h"

#include "base/check.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Is a transaction half here after E? Parts of one never mix with another's, but changes of the
 * members may lie between them; and a new term's barrier ends what an old leader left behind. */
static bool leaves_half(const struct lane *l, const struct lane_entry *e) ON_OWNER
{
    struct repl_entry entry;
    if (e->kind == CNS_BARRIER)
        return false;
    if (e->kind == CNS_CHANGE)
        return l->half;
    if (l->view != NULL)
        return l->n_flights > 0 && LIST_ENTRY(l->flights.next, struct flight, link)->parts_seen > 0;
    enum err err = repl_entry_read(e->payload->data, e->payload->len, &entry);
    CHECK(err == ERR_OK); /* it was applied */
    return entry.part + 1 < entry.parts;
}

void lane_note_entry(struct lane *l, const struct lane_entry *e)
{
    l->half = leaves_half(l, e);
    if (!l->half)
        l->clean_index = e->index;
}

static void mark_now(struct lane *l, struct lane_mark *out) ON_OWNER
{
    struct repl_position at = repl_db_position(l->db);
    struct repl_stats stats;
    repl_db_stats(l->db, &stats);
    *out = (struct lane_mark){.index = l->clean_index,
                              .seq = at.seq,
                              .checksum = at.checksum,
                              .pages = stats.pages,
                              .page_size = stats.page_size};
}

/* --- cutting the log -------------------------------------------------------------------------- */

void lane_begin_cut(struct lane *l, struct lane_cut *c)
{
    CHECK(l->cut == NULL); /* the loop asks for one at a time */
    mark_now(l, &c->mark);
    l->cut = c;
    repl_db_want_durable(l->db);
}

void lane_finish_cut(struct lane *l)
{
    struct lane_cut *c = l->cut;
    if (c == NULL || repl_db_durable(l->db) < c->mark.seq)
        return;
    l->cut = NULL;
    c->letter.kind = LOOP_CUT;
    mail_send(l->loop, &c->letter.link);
}

/* --- images ----------------------------------------------------------------------------------- */

void lane_open_image(struct lane *l, struct lane_image *i)
{
    lane_tell_applied(l); /* first: the loop asks consensus about the mark's entry */
    if (l->failed)
        i->code = err_fail(ERR_STOPPED, "this node stopped serving: see its log");
    else
        i->code = repl_image_open(l->db, &i->image, &i->head);
    if (i->code != ERR_OK)
        (void)snprintf(i->text, sizeof i->text, "%s", err_text());
    else
        mark_now(l, &i->mark);
    CHECK(i->code != ERR_OK ||
          (i->head.seq == i->mark.seq && i->head.checksum == i->mark.checksum));
    i->letter.kind = LOOP_IMAGE;
    mail_send(l->loop, &i->letter.link);
}
