/* Room: consensus. Thread: loop. Owns: nothing (driver_state.h). Who belongs to the group: what the
 * log says of it, and changes to it.
 *
 *   cns_change -> RAFT_CHANGE, alone, with the whole new list -> at once the members that count
 *        committed -> the core is told (CONFIGURATION)      truncated -> the core takes it back
 *
 * Two rules of the core's are easily broken:
 *   - It believes a change to be uncommitted until it is told, and remembers one committed list
 *     only. When the next change came first, a truncation of that one would bring back the list
 *     before both. So it is told before (driver_confirm_change).
 *   - A leader may change the members only when an entry of its own term is committed: else two
 *     leaders with lists that differ by two could both find a majority (Ongaro 2015). The core does
 *     not check that.
 *
 * A member that the committed list does not name, though its id was given out, has been removed: it
 * stops for good. One whose id was not given out yet is new and waits for the entry that adds it.
 */
#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/driver_state.h"
#include "consensus/members.h"

#include <stdlib.h>
#include <string.h>

/* Caught up enough to vote: so many entries or bytes behind the leader's last. */
#define CLOSE_ENTRIES 1000u
#define CLOSE_BYTES   MIB(1)
/* A voter counts as reachable when it answered within so many election timeouts. */
#define HEARD_TIMEOUTS 2u

void driver_set_receivers(struct driver *d)
{
    sender_set_members(d->sender, &d->r.configuration, &d->r.configuration_committed,
                       d->r.configuration_uncommitted_index);
}

static void fail_if_removed(struct driver *d)
{
    uint64_t index = d->r.configuration_committed_index;
    const struct roster_entry *now = roster_at(&d->roster, index);
    if (members_find(&d->r.configuration_committed, d->c.id) != NULL || now == NULL ||
        d->c.id > now->highest_id)
        return;
    driver_fail(d, err_fail(ERR_CONFIG,
                            "this node, %llu, was removed from the cluster (entry %llu of the log "
                            "says so): it can only come back under a new id",
                            (unsigned long long)d->c.id, (unsigned long long)index));
}

void driver_confirm_change(struct driver *d)
{
    struct raft_event e = {.type = RAFT_CONFIGURATION};
    CHECK(d->r.configuration_uncommitted_index > 0);
    e.configuration.index = d->r.configuration_uncommitted_index;
    members_copy(&d->r.configuration, &e.configuration.conf); /* the core takes it */
    (void)driver_step(d, &e);
}

void driver_note_members(struct driver *d)
{
    uint64_t change = d->r.configuration_uncommitted_index;
    if (change > 0 && change <= d->commit) {
        driver_confirm_change(d); /* and comes here again */
        return;
    }
    uint64_t committed = d->r.configuration_committed_index;
    uint64_t now = change > 0 ? change : committed;
    /* An index alone does not name a change: another may have taken the place of a truncated one,
     * but then its term differs. */
    uint64_t term = change > 0 ? terms_at(&d->terms, change) : 0;
    if (now == d->changed && term == d->changed_term && committed == d->committed_change)
        return;
    bool newly = committed != d->committed_change;
    d->changed = now;
    d->changed_term = term;
    d->committed_change = committed;
    d->members_moved = true;
    d->dirty = true;
    driver_set_receivers(d);
    if (!newly)
        return;
    if (committed >= d->hearsay_index) {
        cns_payload_unref(d->hearsay);
        d->hearsay = NULL;
    }
    driver_tell_members(d, 0);
    fail_if_removed(d);
}

/* --- hearsay ---------------------------------------------------------------------------------
 *
 * Only members connect. So a member that missed a change could never be reached by a leader that
 * came with it, nor know whom to answer. Hence each tells those that it connects to, and all when
 * a change gets committed. */

void driver_tell_members(struct driver *d, uint64_t to)
{
    uint64_t index = d->r.configuration_committed_index;
    const struct roster_entry *now = roster_at(&d->roster, index);
    if (now == NULL || now->index != index || index <= 1)
        return; /* the first list is known to everybody */
    size_t n = sizeof(uint64_t) + now->members->len;
    uint8_t *m = mem_alloc(n);
    set_le64(m, index);
    memcpy(m + sizeof(uint64_t), now->members->data, now->members->len);
    for (unsigned i = 0; i < d->r.configuration.n; i++) {
        uint64_t id = d->r.configuration.servers[i].id;
        if (id != d->c.id && (to == 0 || to == id))
            outbox_send_bytes(&d->outbox, id, CNS_BYTES_MEMBERS, m, n);
    }
    free(m);
}

void driver_hear_members(struct driver *d, const uint8_t *p, size_t n)
{
    struct rd r = rd_of(p, n);
    uint64_t index = rd_u64(&r);
    size_t len = rd_left(&r);
    const uint8_t *members = rd_bytes(&r, len);
    if (r.failed || index <= d->hearsay_index || index <= d->r.configuration_committed_index ||
        index == d->r.configuration_uncommitted_index ||
        cns_message_check_members(members, len) != ERR_OK)
        return;
    uint8_t *copy = mem_alloc(len);
    memcpy(copy, members, len);
    cns_payload_unref(d->hearsay);
    d->hearsay = cns_payload_take(copy, len);
    d->hearsay_index = index;
    d->members_moved = true;
    d->dirty = true;
}

bool driver_hearsay(const struct driver *d, struct raft_configuration *out)
{
    return d->hearsay != NULL && members_decode(d->hearsay, out) == ERR_OK;
}

/* --- changes -------------------------------------------------------------------------------- */

static uint64_t bytes_behind(const struct driver *d, uint64_t match)
{
    uint64_t bytes = 0;
    for (uint64_t i = match + 1; i <= d->terms.last && bytes <= CLOSE_BYTES; i++) {
        const struct cns_item *item = cache_get(&d->cache, i);
        if (item == NULL)
            return UINT64_MAX;
        bytes += journal_item_cost(item->payload);
    }
    return bytes;
}

static enum err check_caught_up(const struct driver *d, uint64_t id)
{
    raft_index match = 0;
    (void)raft_match_index(&d->r, id, &match);
    uint64_t behind = d->terms.last - match;
    bool heard = driver_now_ms(d) - sender_answered_ms(d->sender, id) <
                 (uint64_t)HEARD_TIMEOUTS * d->c.election_ms;
    /* It must know that it is a standby: then it votes (receive_request_vote). */
    if (heard && match >= d->r.configuration_committed_index &&
        (behind <= CLOSE_ENTRIES || bytes_behind(d, match) <= CLOSE_BYTES))
        return ERR_OK;
    return err_fail(ERR_BUSY,
                    "member %llu is not caught up: %s, its log matches up to entry %llu of %llu, "
                    "and at most %u entries or %llu bytes may be missing",
                    (unsigned long long)id, heard ? "it answers" : "it does not answer",
                    (unsigned long long)match, (unsigned long long)d->terms.last, CLOSE_ENTRIES,
                    (unsigned long long)CLOSE_BYTES);
}

/* Fewer voters must still find a majority of themselves, else nothing is committed any more, this
 * change included. */
static enum err check_majority(const struct driver *d, uint64_t without)
{
    unsigned voters = 0, heard = 0;
    for (unsigned i = 0; i < d->r.configuration.n; i++) {
        const struct raft_server *s = &d->r.configuration.servers[i];
        if (s->role != RAFT_VOTER || s->id == without)
            continue;
        voters++;
        heard += s->id == d->c.id || driver_now_ms(d) - sender_answered_ms(d->sender, s->id) <
                                         (uint64_t)HEARD_TIMEOUTS * d->c.election_ms;
    }
    if (heard > voters / 2)
        return ERR_OK;
    return err_fail(ERR_BUSY,
                    "without member %llu there would be %u voters, and only %u of them answer: no "
                    "majority",
                    (unsigned long long)without, voters, heard);
}

static enum err check_request(struct driver *d, enum cns_change_kind kind, uint64_t *id,
                              enum cns_member_role role)
{
    uint64_t highest = roster_at(&d->roster, d->terms.last)->highest_id;
    const struct raft_server *s = members_find(&d->r.configuration, *id);
    if (kind == CNS_ADD) {
        if (*id == 0)
            *id = highest + 1;
        if (*id <= highest)
            return err_fail(ERR_CONFIG,
                            "the id %llu was used before: ids are never given out again, the next "
                            "free one is %llu",
                            (unsigned long long)*id, (unsigned long long)highest + 1);
        if (role == CNS_VOTER)
            return err_fail(ERR_CONFIG, "a new member begins as a standby, and is promoted when it "
                                        "is caught up");
        return ERR_OK;
    }
    if (s == NULL)
        return err_fail(ERR_NOT_FOUND, "there is no member %llu", (unsigned long long)*id);
    if (*id == d->c.id)
        return err_fail(ERR_CONFIG, "member %llu is the leader: hand the leadership over first",
                        (unsigned long long)*id);
    if (kind == CNS_SET_ROLE && members_role(s) == role)
        return err_fail(ERR_CONFIG, "member %llu has this role already", (unsigned long long)*id);
    if (kind == CNS_SET_ROLE && role == CNS_VOTER && s->role == RAFT_SPARE)
        return err_fail(ERR_CONFIG,
                        "member %llu is a spare, it has no log: make it a standby first",
                        (unsigned long long)*id);
    if (kind == CNS_SET_ROLE && role == CNS_VOTER)
        return check_caught_up(d, *id);
    return s->role == RAFT_VOTER ? check_majority(d, *id) : ERR_OK;
}

static enum err check_moment(struct driver *d)
{
    if (d->life != RUNNING)
        return err_fail(ERR_STOPPED, "this member takes part no more");
    if (!d->leading)
        return err_fail(ERR_NOT_LEADER, "only the leader changes the members");
    if (driver_is_handing_over(d))
        return err_fail(ERR_BUSY, "the leadership is being handed over");
    if (d->commit < d->lead_first)
        return err_fail(ERR_BUSY, "the leader has just been elected: its first entry is not "
                                  "committed yet");
    if (d->r.configuration_uncommitted_index != 0)
        return err_fail(ERR_BUSY, "another change of members (entry %llu) is under way",
                        (unsigned long long)d->r.configuration_uncommitted_index);
    return ERR_OK;
}

enum err driver_change(struct driver *d, enum cns_change_kind kind, uint64_t *id,
                       const char *address, enum cns_member_role role, uint64_t *index)
{
    uint64_t whom = *id;
    struct cns_item item = {.index = d->terms.last + 1, .kind = CNS_CHANGE};
    TRY(check_moment(d));
    TRY(check_request(d, kind, &whom, role));
    TRY(members_change(&d->r.configuration, kind, whom, address, role, &item.payload));
    item.term = d->r.current_term;
    void *batch = entries_batch(&d->entries, &item, 1);
    d->src = &item;
    d->n_src = 1;
    struct raft_event e = {.type = RAFT_SUBMIT};
    e.submit.entries = d->entries.e;
    e.submit.n = 1;
    bool ok = driver_step(d, &e);
    d->n_src = 0;
    cns_payload_unref(item.payload); /* the log has its own reference */
    if (!ok) {
        raft_free(batch);
        return err_fail(d->life == RUNNING ? ERR_BUSY : ERR_STOPPED, "the change was refused");
    }
    *id = whom;
    *index = item.index;
    log_info("consensus", "members-change id=%llu kind=%d role=%d index=%llu",
             (unsigned long long)whom, (int)kind, (int)role, (unsigned long long)item.index);
    return ERR_OK;
}

/* --- what is known of them ------------------------------------------------------------------- */

/* What is applied was committed, though after a restart the commit index may not say so yet. */
enum err driver_describe(const struct driver *d, uint64_t index, struct cns_snapshot *out)
{
    uint64_t term = terms_at(&d->terms, index);
    const struct roster_entry *members = roster_at(&d->roster, index);
    if (d->held || d->delivery == NULL || index > delivery_applied_index(d->delivery) ||
        index < d->snapshot_index || term == 0 || members == NULL)
        return err_fail(ERR_NOT_FOUND, "the state at entry %llu is not known here",
                        (unsigned long long)index);
    *out = (struct cns_snapshot){.index = index,
                                 .term = term,
                                 .members_index = members->index,
                                 .highest_id = members->highest_id,
                                 .members = cns_payload_ref(members->members)};
    return ERR_OK;
}

bool driver_get_progress(const struct driver *d, uint64_t id, struct cns_progress *out)
{
    raft_index match = 0;
    if (d->life != RUNNING || !d->leading || id == d->c.id ||
        raft_match_index(&d->r, id, &match) != 0)
        return false;
    *out = (struct cns_progress){.match = match, .heard_ms = sender_answered_ms(d->sender, id)};
    return true;
}

const struct raft_configuration *driver_members(const struct driver *d)
{
    return &d->r.configuration;
}

const struct raft_configuration *driver_committed_members(const struct driver *d)
{
    return &d->r.configuration_committed;
}

bool driver_is_removed(const struct driver *d, uint64_t id)
{
    const struct roster_entry *now = roster_at(&d->roster, d->r.configuration_committed_index);
    return id != d->c.id && now != NULL && id <= now->highest_id &&
           members_find(&d->r.configuration, id) == NULL &&
           members_find(&d->r.configuration_committed, id) == NULL && !sender_keeps(d->sender, id);
}
