/* Room: consensus. Thread: loop. Owns: nothing (driver_state.h). One event goes through here like
 * this:
 *
 *   event -> raft_step -> consume: term and vote -> META job, outbox holds
 *                                  entries       -> cache, terms (truncated first if needed)
 *                                  messages      -> outbox (AppendEntries: dropped, see sender.h)
 *            after it: role, commit index, members, barrier of a new leader
 *
 * Invariants:
 *   1. Every AppendEntries is made by the sender (sender.h); the core's own are dropped, and so is
 *      its InstallSnapshot: who is behind our log's beginning is told so (sender.c).
 *   2. raft_step is never called from inside a step or while its update is consumed.
 *   3. commit only rises. (The core's own can move back: see sender.c, invariant 3.)
 *   4. A held member asks for no votes. Its core may think itself a candidate: that is how it
 *      forgets a leader that went silent, and so votes for another one. */
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "consensus/driver_state.h"
#include "consensus/guard.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

uint64_t driver_now_ms(const struct driver *d)
{
    return d->c.io.now_ms(d->c.io.ctx);
}

void driver_fail(struct driver *d, enum err e)
{
    if (d->life != RUNNING && d->life != NEW)
        return;
    d->life = FAILED;
    d->failure = e;
    (void)snprintf(d->sentence, sizeof d->sentence, "%s", err_text());
    log_error("consensus", "member-stopped id=%llu error=%s why=\"%s\"",
              (unsigned long long)d->c.id, err_name((int)e), d->sentence);
    journal_stop(d->journal);
    sender_stop_leading(d->sender);
    outbox_clear(&d->outbox);
    d->leading = false;
    d->dirty = true;
}

/* --- consuming an update ------------------------------------------------------------------------
 */

static void take_entries(struct driver *d, uint64_t index, const struct raft_entry *entries,
                         unsigned n)
{
    if (index <= d->terms.last) {
        CHECK(index > d->commit);
        roster_truncate(&d->roster, index);
        journal_truncate(d->journal, index);
    }
    CHECK(index == d->terms.last + 1);
    for (unsigned i = 0; i < n; i++) {
        struct cns_item item = {.index = index + i, .term = entries[i].term};
        item.kind = (enum cns_kind)entries[i].type; /* the same numbers, checked below */
        if (item.kind != CNS_BARRIER) {
            CHECK(d->n_src > 0 && item.index >= d->src[0].index &&
                  item.index - d->src[0].index < d->n_src);
            const struct cns_item *src = &d->src[item.index - d->src[0].index];
            CHECK(src->term == item.term && src->kind == item.kind);
            item.payload = cns_payload_ref(src->payload);
        }
        if (item.kind == CNS_CHANGE)
            roster_push(&d->roster, item.index, item.payload, 0);
        journal_append(d->journal, item);
    }
}

_Static_assert((int)CNS_COMMAND == (int)RAFT_COMMAND && (int)CNS_BARRIER == (int)RAFT_BARRIER &&
                   (int)CNS_CHANGE == (int)RAFT_CHANGE,
               "kinds are libraft's types");

/* The core's hint steps back one entry a refusal; we say where the whole run of the term begins
 * that cannot match (Raft paper, end of 5.3). What is committed matches any leader's log. */
static void improve_hint(const struct driver *d, struct raft_append_entries_result *res)
{
    if (res->rejected < d->terms.first || res->rejected > d->terms.last)
        return;
    uint64_t before = terms_run_first(&d->terms, res->rejected) - 1;
    if (before < d->commit)
        before = d->commit;
    if (before < res->last_log_index)
        res->last_log_index = before;
}

static void send_messages(struct driver *d, struct raft_message *batch, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (batch[i].type == RAFT_APPEND_ENTRIES || batch[i].type == RAFT_INSTALL_SNAPSHOT)
            continue;
        if (batch[i].type == RAFT_REQUEST_VOTE && d->held)
            continue;
        if (batch[i].type == RAFT_APPEND_ENTRIES_RESULT)
            improve_hint(d, &batch[i].append_entries_result);
        if (batch[i].type == RAFT_REQUEST_VOTE_RESULT)
            guard_tell_term(&d->r, &batch[i].request_vote_result);
        outbox_send(&d->outbox, &batch[i]);
    }
}

static void consume(struct driver *d, struct raft_update *u)
{
    if ((u->flags & (unsigned)(RAFT_UPDATE_CURRENT_TERM)) != 0 ||
        (u->flags & (unsigned)(RAFT_UPDATE_VOTED_FOR)) != 0)
        journal_meta(d->journal, d->r.current_term, d->r.voted_for);
    if ((u->flags & (unsigned)(RAFT_UPDATE_ENTRIES)) != 0) {
        void *batch = u->entries.batch[0].batch;
        take_entries(d, u->entries.index, u->entries.batch, u->entries.n);
        raft_free(batch); /* ours after a successful step; the payloads are elsewhere */
    }
    if ((u->flags & (unsigned)(RAFT_UPDATE_MESSAGES)) != 0)
        send_messages(d, u->messages.batch, u->messages.n);
    if ((u->flags & (unsigned)(RAFT_UPDATE_STATE)) != 0 && d->r.state == RAFT_CANDIDATE && !d->held)
        d->elections++;
    CHECK((u->flags & (unsigned)(RAFT_UPDATE_SNAPSHOT)) == 0);
}

/* --- after a step -------------------------------------------------------------------------------
 */

static void queue_role(struct driver *d, struct role_event e)
{
    if (e.role == d->told.role && e.term == d->told.term && e.leader_id == d->told.leader_id)
        return;
    d->told = e;
    if (d->n_roles == d->roles_cap) {
        d->roles_cap = d->roles_cap == 0 ? 8 : d->roles_cap * 2;
        d->roles = mem_realloc(d->roles, d->roles_cap * sizeof *d->roles);
    }
    d->roles[d->n_roles++] = e;
}

static void note_role(struct driver *d)
{
    struct role_event e = {.term = d->r.current_term, .commit = d->commit};
    if (d->r.state == RAFT_LEADER) {
        e.role = CNS_LEADER;
        e.leader_id = d->c.id;
    } else if (d->r.state == RAFT_CANDIDATE && !d->held) {
        e.role = CNS_CANDIDATE;
    } else {
        e.role = CNS_FOLLOWER;
        /* The core keeps the old leader when a vote moves the term of a follower. */
        if (d->leader_term == e.term && d->r.state == RAFT_FOLLOWER)
            e.leader_id = d->r.follower_state.current_leader.id;
    }
    if (d->leading && e.role != CNS_LEADER) {
        d->leading = false;
        d->inflight_bytes = 0;
        d->want_room = false;
        handover_drop(&d->handover);
        sender_stop_leading(d->sender);
    }
    queue_role(d, e);
}

static void note_commit(struct driver *d)
{
    uint64_t commit = raft_commit_index(&d->r);
    if (commit <= d->commit)
        return; /* invariant 6 */
    CHECK(commit <= d->terms.last);
    uint64_t from = d->commit + 1 > d->lead_first ? d->commit + 1 : d->lead_first;
    for (uint64_t i = from; d->leading && i <= commit; i++) {
        const struct cns_item *item = cache_get(&d->cache, i);
        CHECK(item != NULL && item->term == d->lead_term);
        if (item->kind != CNS_COMMAND)
            continue;
        CHECK(d->inflight_bytes >= journal_item_cost(item->payload));
        d->inflight_bytes -= journal_item_cost(item->payload);
    }
    d->commit = commit;
}

/* A new leader learns what is committed by committing an entry of its own term, and the node
 * serves once that is delivered. The core appends one only when its log ends uncommitted. */
static void begin_leadership(struct driver *d, uint64_t first_new)
{
    d->leading = true;
    d->lead_term = d->r.current_term;
    d->lead_first = first_new;
    d->inflight_bytes = 0;
    d->beat_ms = driver_now_ms(d);
    sender_lead(d->sender, d->lead_term, first_new);
    driver_set_receivers(d);
    if (d->terms.last >= first_new)
        return;
    struct raft_entry barrier = {.term = d->r.current_term, .type = RAFT_BARRIER};
    barrier.buf.len = 8;
    barrier.buf.base = barrier.batch = raft_calloc(1, 8);
    CHECK(barrier.batch != NULL);
    struct raft_event e = {.type = RAFT_SUBMIT};
    e.submit.entries = &barrier;
    e.submit.n = 1;
    if (!driver_step(d, &e))
        raft_free(barrier.batch);
}

bool driver_step(struct driver *d, struct raft_event *e)
{
    if (d->life != RUNNING)
        return false;
    CHECK(!d->in_step);
    d->in_step = true;
    struct raft_update u = {0};
    e->time = driver_now_ms(d);
    e->capacity = USHRT_MAX; /* the node watches the disk itself (trap T7) */
    uint64_t first_new = d->terms.last + 1;
    int rv = raft_step(&d->r, e, &u);
    if (rv == 0)
        consume(d, &u);
    d->in_step = false;
    d->dirty = true;
    if (rv != 0) {
        bool refusal = e->type == RAFT_TRANSFER || (e->type == RAFT_SUBMIT && rv != RAFT_NOMEM);
        if (!refusal)
            driver_fail(d, err_fail(rv == RAFT_SHUTDOWN ? ERR_DIVERGED : ERR_IO,
                                    "libraft refused event %d: %s %s", (int)e->type,
                                    raft_strerror(rv), raft_errmsg(&d->r)));
        return false;
    }
    note_role(d);
    note_commit(d);
    if (d->r.state == RAFT_LEADER && !d->leading)
        begin_leadership(d, first_new);
    driver_note_members(d);
    return true;
}
