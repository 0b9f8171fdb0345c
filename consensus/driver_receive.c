/* Room: consensus. Thread: loop. Owns: nothing (driver_state.h). What peers send, judged by guard.c
 * and brought into a form in which the core handles it rightly. */
#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/sizes.h"
#include "consensus/driver_state.h"
#include "consensus/guard.h"
#include "consensus/members.h"

/* A step towards a term that is far ahead costs a leadership: one in so many election timeouts. */
#define FAR_STEP_TIMEOUTS 10u
/* A line about a refused message; those within so many ms are only counted. */
#define REFUSED_LOG_MS 1000u
/* A held member says what is committed once in so many ms. */
#define SAID_MS 500u

/* The core knows nothing below the record that this life began with, and would refuse it for ever:
 * a leader that remembers how far our former life matched would never find out where to go on. What
 * the record stands for is committed, so every leader has it: the message is taken as if it began
 * behind the record. */
static unsigned skip_origin(const struct driver *d, struct raft_append_entries *a, unsigned n_items)
{
    uint64_t skip = d->origin_index - a->prev_log_index;
    if (a->prev_log_index >= d->origin_index || a->term < d->r.current_term)
        return 0;
    a->prev_log_index = d->origin_index;
    a->prev_log_term = d->origin_term;
    return skip < n_items ? (unsigned)skip : n_items;
}

/* The leader appends a change only when the one before is committed: so ours is, when its next one
 * comes behind it. The core must know before it takes the next one (driver_members.c). */
static void confirm_before(struct driver *d, const struct raft_append_entries *a,
                           const struct cns_item *items, unsigned n)
{
    uint64_t change = d->r.configuration_uncommitted_index;
    if (n > 0 && items[0].kind == CNS_CHANGE && change > 0 && change <= a->prev_log_index &&
        a->term >= d->r.current_term && terms_at(&d->terms, a->prev_log_index) == a->prev_log_term)
        driver_confirm_change(d);
}

static void receive_append(struct driver *d, struct cns_message *m)
{
    struct raft_append_entries *a = &m->m.append_entries;
    unsigned skipped = skip_origin(d, a, m->n_items);
    const struct cns_item *items = m->items == NULL ? NULL : m->items + skipped;
    unsigned n = guard_cut(items, m->n_items - skipped);
    confirm_before(d, a, items, n);
    if (d->life != RUNNING)
        return;
    if (journal_pending_bytes(d->journal) > 2 * INFLIGHT_BYTES_MAX)
        n = 0; /* the disk is far behind: as if lost; an empty one still says that we live */
    if (a->leader_commit > a->prev_log_index + n)
        a->leader_commit = a->prev_log_index + n; /* invariant 6 */
    (void)entries_batch(&d->entries, items, n);   /* the core frees it, or consume does */
    a->entries = d->entries.e;
    a->n_entries = n;
    if (a->term >= d->r.current_term) {
        d->leader_term = a->term;
        d->led_ms = driver_now_ms(d);
    }
    d->src = items;
    d->n_src = n;
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = &m->m;
    (void)driver_step(d, &e);
    d->n_src = 0;
    a->entries = NULL;
    a->n_entries = 0;
}

static void receive_result(struct driver *d, uint64_t from, struct cns_message *m)
{
    struct raft_append_entries_result *res = &m->m.append_entries_result;
    raft_index match = 0;
    uint64_t rejected = res->rejected, last = res->last_log_index, term = res->term;
    /* Where to go on is the sender's business. For the core a refusal is a sign of life, no more:
     * else it would look for the place itself, and for a snapshot to send when there is none. */
    if (rejected > 0)
        res->rejected = res->last_log_index = 0;
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = &m->m;
    if (!driver_step(d, &e) || !d->leading || term != d->lead_term)
        return;
    if (raft_match_index(&d->r, from, &match) != 0) {
        /* Removed, to hear of it: the core has forgotten how far it is. */
        if (!sender_keeps(d->sender, from))
            return;
        match = sender_match(d->sender, from);
        if (rejected == 0 && last > match)
            match = last < d->terms.last ? last : d->terms.last;
    }
    if (rejected > 0 && last < match)
        last = match;
    sender_on_result(d->sender, from, rejected, last, match);
}

/* The thread's sentence says why. */
static void log_refused(struct driver *d, uint64_t from)
{
    uint64_t now = driver_now_ms(d);
    if (d->refused_ms != 0 && now - d->refused_ms < REFUSED_LOG_MS) {
        d->n_refused++;
        return;
    }
    log_error("consensus", "message-refused from=%llu why=\"%s\" not_logged=%llu",
              (unsigned long long)from, err_text(), (unsigned long long)d->n_refused);
    d->refused_ms = now == 0 ? 1 : now;
    d->n_refused = 0;
}

/* M is of a term far ahead of ours: not taken, but perhaps a step made towards its term. */
static void receive_far(struct driver *d, uint64_t from, const struct cns_message *m)
{
    uint64_t now = driver_now_ms(d), before = d->r.current_term;
    (void)err_fail(ERR_PROTOCOL, "a message of a term more than %llu ahead of ours, %llu",
                   (unsigned long long)GUARD_TERM_STEP, (unsigned long long)before);
    log_refused(d, from);
    if (d->far_ms != 0 && now - d->far_ms < (uint64_t)FAR_STEP_TIMEOUTS * d->c.election_ms)
        return;
    struct raft_message copy = m->m;
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = &copy;
    if (guard_step(&d->r, &copy) && driver_step(d, &e) && d->r.current_term > before)
        d->far_ms = now == 0 ? 1 : now;
}

/* A held member with the newest log stands in the way: it must not lead, and nobody with less may.
 * It needs another one's state, and that one may have all the entries for it and not know that
 * they are committed, which only a leader would tell. So it is told by the held one. */
static void say_committed(struct driver *d, uint64_t to)
{
    uint8_t m[2 * sizeof(uint64_t)];
    uint64_t now = driver_now_ms(d), term = terms_at(&d->terms, d->commit);
    if (!d->held || term == 0 || (d->said_ms != 0 && now - d->said_ms < SAID_MS))
        return;
    d->said_ms = now == 0 ? 1 : now;
    set_le64(m, d->commit);
    set_le64(m + 8, term);
    outbox_send_bytes(&d->outbox, to, CNS_BYTES_COMMITTED, m, sizeof m);
}

/* The entry INDEX of TERM is committed: if ours is the same, so is all before it. */
static void receive_committed(struct driver *d, const uint8_t *p, size_t n)
{
    struct rd r = rd_of(p, n);
    uint64_t index = rd_u64(&r), term = rd_u64(&r);
    if (r.failed || rd_left(&r) != 0 || d->leading || term == 0 || index <= d->commit ||
        terms_at(&d->terms, index) != term)
        return;
    d->commit = index;
    d->dirty = true;
    driver_note_members(d);
}

static struct raft_server *own_server(struct driver *d)
{
    for (unsigned i = 0; i < d->r.configuration.n; i++)
        if (d->r.configuration.servers[i].id == d->c.id)
            return &d->r.configuration.servers[i];
    return NULL;
}

/* A standby that does not know yet that it was promoted must give its vote all the same: a lone
 * voter that promoted it and then died finds no majority without it, and cannot tell it the entry
 * before it is elected. An honest vote is never wrong: it counts for who counts us. But the core
 * lets voters vote only, and lets others believe in a leader for ever. So for this one step we are
 * a voter, and without the leader that has been silent for an election timeout. */
static void receive_request_vote(struct driver *d, struct raft_message *m)
{
    struct raft_server *self = own_server(d);
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = m;
    m->request_vote.version = 2;
    say_committed(d, m->server_id);
    if (self == NULL || self->role != RAFT_STANDBY || d->r.state != RAFT_FOLLOWER) {
        (void)driver_step(d, &e);
        return;
    }
    uint64_t change = d->changed, leader = d->r.follower_state.current_leader.id;
    self->role = RAFT_VOTER;
    if (driver_now_ms(d) - d->led_ms >= d->c.election_ms)
        d->r.follower_state.current_leader.id = 0;
    (void)driver_step(d, &e);
    CHECK(d->changed == change && d->r.state == RAFT_FOLLOWER); /* a vote changes neither */
    self->role = RAFT_STANDBY;
    d->r.follower_state.current_leader.id = leader;
}

/* Messages that the core must not see in this state. */
static bool is_mute_to(const struct driver *d, const struct raft_message *m)
{
    switch (m->type) {
    case RAFT_REQUEST_VOTE:
        /* Nobody else can be elected, and the core takes a lead without asking for its own vote. */
        return members_is_lone_voter(&d->r.configuration, d->c.id);
    case RAFT_REQUEST_VOTE_RESULT:
        /* The core reads its candidate's state for a vote even when it is none any more. */
        return d->held || d->r.state != RAFT_CANDIDATE;
    case RAFT_TIMEOUT_NOW:
        return d->held;
    case RAFT_APPEND_ENTRIES:
    case RAFT_APPEND_ENTRIES_RESULT:
    case RAFT_INSTALL_SNAPSHOT:
    default:
        return false;
    }
}

void driver_receive(struct driver *d, uint64_t from, struct cns_message *m)
{
    if (d->life != RUNNING || is_mute_to(d, &m->m))
        return;
    if (guard_message(&d->r, from, m) != ERR_OK) {
        log_refused(d, from);
        return;
    }
    const struct raft_server *server = members_find(&d->r.configuration, from);
    m->m.server_id = from;
    m->m.server_address = server == NULL ? "unknown" : server->address;
    if (guard_is_far(&d->r, &m->m)) {
        receive_far(d, from, m);
        return;
    }
    if (m->m.type == RAFT_APPEND_ENTRIES) {
        receive_append(d, m);
    } else if (m->m.type == RAFT_APPEND_ENTRIES_RESULT) {
        m->m.append_entries_result.version = 2;
        receive_result(d, from, m);
    } else if (m->m.type == RAFT_REQUEST_VOTE) {
        receive_request_vote(d, &m->m);
    } else {
        if (m->m.type == RAFT_REQUEST_VOTE_RESULT)
            m->m.request_vote_result.version = 2; /* without it pre-votes count as votes */
        struct raft_event e = {.type = RAFT_RECEIVE};
        e.receive.message = &m->m;
        (void)driver_step(d, &e);
    }
}

/* The leader says that its log begins at FIRST, behind an entry of PREV_TERM. Outside input: it
 * counts when it comes from the leader that we follow, and only when we really have no way there.
 */
static void receive_behind(struct driver *d, uint64_t from, const uint8_t *p, size_t n)
{
    struct rd r = rd_of(p, n);
    uint64_t term = rd_u64(&r), first = rd_u64(&r), prev_term = rd_u64(&r);
    if (r.failed || rd_left(&r) != 0 || d->leading || term != d->r.current_term ||
        from != d->told.leader_id || first < 2 || first - 1 <= d->commit ||
        terms_at(&d->terms, first - 1) == prev_term)
        return;
    log_info("consensus", "behind leader=%llu begins=%llu last=%llu", (unsigned long long)from,
             (unsigned long long)first, (unsigned long long)d->terms.last);
    d->behind = (struct behind){.leader_id = from, .first = first};
    d->dirty = true;
}

void driver_receive_bytes(struct driver *d, uint64_t from, uint8_t type, const uint8_t *p, size_t n)
{
    if (d->life != RUNNING)
        return;
    if (type == CNS_BYTES_READ_INDEX) {
        struct reads_view v = driver_view(d);
        reads_receive(d->reads, &v, from, p, n);
        d->dirty = true;
    } else if (type == CNS_BYTES_NODE) {
        d->c.handler.on_message(d->c.handler.ctx, from, p, n);
    } else if (type == CNS_BYTES_BEHIND) {
        receive_behind(d, from, p, n);
    } else if (type == CNS_BYTES_COMMITTED) {
        receive_committed(d, p, n);
    } else if (type == CNS_BYTES_MEMBERS) {
        driver_hear_members(d, p, n);
    }
}

void driver_peer(struct driver *d, uint64_t id, bool up)
{
    raft_index match = 0;
    if (d->life != RUNNING || !up)
        return;
    driver_tell_members(d, id);
    if (!d->leading)
        return;
    if (raft_match_index(&d->r, id, &match) != 0)
        match = sender_match(d->sender, id);
    sender_peer_up(d->sender, id, match);
}
