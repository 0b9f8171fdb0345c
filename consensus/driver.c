/* Room: consensus. Thread: loop. Owns: the core, and the parts around it.
 *
 * One event goes through here like this:
 *
 *   event -> raft_step -> consume: term and vote -> META job, outbox holds
 *                                  entries       -> cache, terms (truncated first if needed)
 *                                  messages      -> outbox (AppendEntries: dropped, see sender.h)
 *            after_step: role, commit index, committed members, barrier of a new leader
 *   driver_turn: APPEND job -> roles and committed entries to the node -> reads -> AppendEntries
 *
 * Invariants:
 *   1. Nothing leaves before the term and vote that it rests on are durable (outbox.h).
 *   2. PERSISTED_ENTRIES is reported with rising indexes, and never for what a truncation has
 *      overtaken (journal.c).
 *   3. Every AppendEntries is made by the sender (sender.h); the core's own are dropped.
 *   4. The first failed job is final: the member is mute from then on (life FAILED).
 *   5. raft_step is never called from inside a step or while its update is consumed; the handler
 *      is called from driver_turn (on_message: from driver_receive_bytes), never from a step.
 *   6. commit only rises. (The core's own can move back: see sender.c, invariant 3.)
 *
 *      NEW --driver_start--> RUNNING --disk or core error--> FAILED
 *                               |                              |
 *                               +-------- driver_stop ---------+--> STOPPED
 *
 * Not here: snapshots and membership changes (later issues). For them: RAFT_CHANGE entries are
 * stored, sent, delivered and reported to the core when committed; terms_init takes a first index;
 * InstallSnapshot is refused by guard.c. */
#include "consensus/driver.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/cache.h"
#include "consensus/delivery.h"
#include "consensus/entries.h"
#include "consensus/guard.h"
#include "consensus/handover.h"
#include "consensus/journal.h"
#include "consensus/members.h"
#include "consensus/outbox.h"
#include "consensus/read_index.h"
#include "consensus/sender.h"
#include "consensus/terms.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libraft counts entries in flight; we count bytes (sender.c), so its own limit is out of the way.
 */
#define MAX_INFLIGHT_ENTRIES (1u << 30)

/* A step towards a term that is far ahead costs a leadership: one in so many election timeouts. */
#define FAR_STEP_TIMEOUTS 10u
/* A line about a refused message; those within so many ms are only counted. */
#define REFUSED_LOG_MS 1000u

enum life { NEW, RUNNING, FAILED, STOPPED };

/* A role that the node does not know yet, and the commit index before it. */
struct role_event {
    enum cns_role role;
    uint64_t term, leader_id, commit;
};

struct driver {
    struct driver_config c;
    char *address;
    struct raft r;
    enum life life;
    bool in_step, in_turn, dirty;

    struct terms terms;
    struct cache cache;
    struct outbox outbox;
    struct journal *journal;
    struct sender *sender;
    struct delivery *delivery;
    struct reads *reads;

    const struct cns_item *src; /* where the entries of the step that runs come from */
    unsigned n_src;

    uint64_t commit;
    uint64_t leader_term;           /* of the last leader that we followed */
    uint64_t lead_term, lead_first; /* the last leadership, and its first entry */
    bool leading;
    uint64_t inflight_bytes; /* proposed by this leadership and not committed */
    bool want_room;
    uint64_t beat_ms;               /* the leader's last heartbeat */
    uint64_t far_ms;                /* the last step towards a far term; 0: none yet */
    uint64_t refused_ms, n_refused; /* the last line, messages refused without one since */
    struct handover handover;

    struct role_event told; /* the last one queued */
    struct role_event *roles;
    unsigned n_roles, roles_cap;
    enum err failure;
    char sentence[ERR_TEXT_MAX];
    bool failure_told;
    uint64_t elections;

    struct entries entries; /* of one step; before the start: the loaded log */
};

static bool step(struct driver *d, struct raft_event *e);

static uint64_t now_ms(const struct driver *d)
{
    return d->c.io.now_ms(d->c.io.ctx);
}

static void set_dirty(void *ctx)
{
    struct driver *d = ctx;
    d->dirty = true;
}

/* Mute from now on: no vote, no acknowledgement, no message. The thread's sentence says why. */
static void fail(struct driver *d, enum err e)
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

static void on_stored(void *ctx, uint64_t index)
{
    struct driver *d = ctx;
    if (d->life != RUNNING || index <= d->r.last_stored)
        return; /* the core wants rising indexes */
    struct raft_event e = {.type = RAFT_PERSISTED_ENTRIES};
    e.persisted_entries.index = index;
    (void)step(d, &e);
}

static void on_io_failed(void *ctx, enum err e)
{
    fail(ctx, e);
}

/* --- consuming an update ------------------------------------------------------------------------
 */

static void take_entries(struct driver *d, uint64_t index, const struct raft_entry *entries,
                         unsigned n)
{
    if (index <= d->terms.last) {
        CHECK(index > d->commit);
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
    if (res->rejected == 0 || terms_at(&d->terms, res->rejected) == 0)
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
    if ((u->flags & (unsigned)(RAFT_UPDATE_STATE)) != 0 && d->r.state == RAFT_CANDIDATE)
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
    } else if (d->r.state == RAFT_CANDIDATE) {
        e.role = CNS_CANDIDATE;
    } else {
        e.role = CNS_FOLLOWER;
        /* The core keeps the old leader when a vote moves the term of a follower. */
        if (d->leader_term == e.term)
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

/* A change of members that got committed: the core wants to be told. */
static void note_members(struct driver *d)
{
    uint64_t index = d->r.configuration_uncommitted_index;
    if (index == 0 || index > d->commit)
        return;
    struct raft_event e = {.type = RAFT_CONFIGURATION};
    e.configuration.index = index;
    members_copy(&d->r.configuration, &e.configuration.conf); /* the core takes it */
    (void)step(d, &e);
}

/* A new leader learns what is committed by committing an entry of its own term, and the node
 * serves once that is delivered. The core appends one only when its log ends uncommitted. */
static void begin_leadership(struct driver *d, uint64_t first_new)
{
    d->leading = true;
    d->lead_term = d->r.current_term;
    d->lead_first = first_new;
    d->inflight_bytes = 0;
    d->beat_ms = now_ms(d);
    sender_set_members(d->sender, &d->r.configuration);
    sender_lead(d->sender, d->lead_term, first_new);
    if (d->terms.last >= first_new)
        return;
    struct raft_entry barrier = {.term = d->r.current_term, .type = RAFT_BARRIER};
    barrier.buf.len = 8;
    barrier.buf.base = barrier.batch = raft_calloc(1, 8);
    CHECK(barrier.batch != NULL);
    struct raft_event e = {.type = RAFT_SUBMIT};
    e.submit.entries = &barrier;
    e.submit.n = 1;
    if (!step(d, &e))
        raft_free(barrier.batch);
}

/* One event through the core. False when it was refused or the member failed. */
static bool step(struct driver *d, struct raft_event *e)
{
    if (d->life != RUNNING)
        return false;
    CHECK(!d->in_step);
    d->in_step = true;
    struct raft_update u = {0};
    e->time = now_ms(d);
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
            fail(d, err_fail(rv == RAFT_SHUTDOWN ? ERR_DIVERGED : ERR_IO,
                             "libraft refused event %d: %s %s", (int)e->type, raft_strerror(rv),
                             raft_errmsg(&d->r)));
        return false;
    }
    note_role(d);
    note_commit(d);
    if (d->r.state == RAFT_LEADER && !d->leading)
        begin_leadership(d, first_new);
    note_members(d);
    return true;
}

/* --- life ---------------------------------------------------------------------------------------
 */

enum err driver_new(const struct driver_config *c, struct driver **out)
{
    CHECK(c->id > 0 && c->heartbeat_ms > 0 && c->election_ms > c->heartbeat_ms);
    struct driver *d = MEM_NEW(struct driver);
    d->c = *c;
    d->address = mem_strdup(c->address);
    d->c.address = d->address;
    if (d->c.cache_bytes == 0)
        d->c.cache_bytes = LOG_CACHE_BYTES_MAX;
    int rv = raft_init(&d->r, NULL, NULL, c->id, c->address);
    if (rv != 0) {
        free(d->address);
        free(d);
        return err_fail(ERR_NOMEM, "libraft did not start: %s", raft_strerror(rv));
    }
    d->r.tracer = NULL; /* trap T17 */
    raft_seed(&d->r, (unsigned)c->io.random(c->io.ctx));
    raft_set_election_timeout(&d->r, c->election_ms); /* before the heartbeat's */
    raft_set_pre_vote(&d->r, true);
    raft_set_capacity_threshold(&d->r, 0); /* trap T7 */
    raft_set_max_inflight_entries(&d->r, MAX_INFLIGHT_ENTRIES);
    terms_init(&d->terms, 1);
    cache_init(&d->cache);
    outbox_init(&d->outbox, &d->c.io);
    struct journal_config jc = {.io = &d->c.io,
                                .cache = &d->cache,
                                .terms = &d->terms,
                                .outbox = &d->outbox,
                                .ctx = d,
                                .stored = on_stored,
                                .failed = on_io_failed,
                                .dirty = set_dirty};
    d->journal = journal_new(&jc);
    struct sender_config sc = {.io = &d->c.io,
                               .cache = &d->cache,
                               .terms = &d->terms,
                               .outbox = &d->outbox,
                               .self = c->id,
                               .heartbeat_ms = c->heartbeat_ms,
                               .ctx = d,
                               .read_failed = on_io_failed,
                               .dirty = set_dirty};
    d->sender = sender_new(&sc);
    d->reads = reads_new(&d->outbox, c->io.random(c->io.ctx), c->heartbeat_ms, c->election_ms);
    *out = d;
    return ERR_OK;
}

enum err driver_load(struct driver *d, uint64_t index, uint64_t term, enum cns_kind kind,
                     struct cns_payload *payload)
{
    CHECK(d->life == NEW);
    if (index != d->terms.last + 1 || term == 0 || term < terms_at(&d->terms, d->terms.last))
        return err_fail(ERR_CORRUPT, "entry %llu of term %llu cannot follow entry %llu",
                        (unsigned long long)index, (unsigned long long)term,
                        (unsigned long long)d->terms.last);
    if (index == 1 && kind != CNS_CHANGE)
        return err_fail(ERR_CORRUPT, "the log's first entry must name the members");
    TRY(entries_load(&d->entries, term, kind, payload));
    terms_append(&d->terms, term);
    return ERR_OK;
}

enum err driver_start(struct driver *d, uint64_t term, uint64_t vote, uint64_t applied)
{
    CHECK(d->life == NEW);
    if (terms_at(&d->terms, d->terms.last) > term)
        return err_fail(ERR_CORRUPT, "the log ends in term %llu, but the record says term %llu",
                        (unsigned long long)terms_at(&d->terms, d->terms.last),
                        (unsigned long long)term);
    struct delivery_config dc = {.io = &d->c.io,
                                 .cache = &d->cache,
                                 .terms = &d->terms,
                                 .handler = d->c.handler,
                                 .ctx = d,
                                 .read_failed = on_io_failed,
                                 .dirty = set_dirty};
    d->delivery = delivery_new(&dc, applied);
    journal_start(d->journal, term, vote);
    d->life = RUNNING;
    /* A lone voter elects itself without a new term in this libraft: entries of its former life
     * that others (standbys) have seen and its disk has lost could share index and term with new
     * ones. A term of its own for each life, durable before anything else, keeps them apart. */
    if (entries_lone_voter(&d->entries, d->c.id)) {
        term++;
        vote = d->c.id;
        journal_meta(d->journal, term, vote);
    }
    d->told = (struct role_event){CNS_FOLLOWER, 0, 0, 0};
    struct raft_event e = {.type = RAFT_START};
    e.start.term = term;
    e.start.voted_for = vote;
    e.start.start_index = 1;
    e.start.entries = d->entries.e;
    e.start.n_entries = d->entries.n;
    bool ok = step(d, &e);
    if (!ok)
        d->entries = (struct entries){0}; /* the core has freed all of it */
    entries_fini(&d->entries);
    if (!ok)
        return d->failure;
    raft_set_heartbeat_timeout(&d->r, 1); /* trap T4: our own tick is the real heartbeat */
    sender_set_members(d->sender, &d->r.configuration);
    return ERR_OK;
}

void driver_stop(struct driver *d)
{
    d->life = STOPPED;
    journal_stop(d->journal);
    reads_stop(d->reads);
    outbox_clear(&d->outbox);
    sender_stop_leading(d->sender);
    if (d->delivery != NULL)
        delivery_stop(d->delivery);
}

void driver_free(struct driver *d)
{
    journal_free(d->journal);
    entries_fini(&d->entries);
    raft_close(&d->r, NULL);
    reads_free(d->reads);
    delivery_free(d->delivery);
    sender_free(d->sender);
    outbox_fini(&d->outbox);
    cache_fini(&d->cache);
    terms_fini(&d->terms);
    free(d->roles);
    free(d->address);
    free(d);
}

/* --- the world ----------------------------------------------------------------------------------
 */

static void receive_append(struct driver *d, struct cns_message *m)
{
    struct raft_append_entries *a = &m->m.append_entries;
    unsigned n = guard_cut(m->items, m->n_items);
    if (journal_pending_bytes(d->journal) > 2 * INFLIGHT_BYTES_MAX)
        n = 0; /* the disk is far behind: as if lost; an empty one still says that we live */
    if (a->leader_commit > a->prev_log_index + n)
        a->leader_commit = a->prev_log_index + n;  /* invariant 6 */
    (void)entries_batch(&d->entries, m->items, n); /* the core frees it, or consume does */
    a->entries = d->entries.e;
    a->n_entries = n;
    if (a->term >= d->r.current_term)
        d->leader_term = a->term;
    d->src = m->items;
    d->n_src = n;
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = &m->m;
    (void)step(d, &e);
    d->n_src = 0;
    a->entries = NULL;
    a->n_entries = 0;
}

static void receive_result(struct driver *d, uint64_t from, struct cns_message *m)
{
    struct raft_append_entries_result *res = &m->m.append_entries_result;
    raft_index match = 0;
    /* A refused hint below what is acknowledged would move the core's next behind its match. */
    if (res->rejected > 0 && raft_match_index(&d->r, from, &match) == 0 &&
        res->last_log_index < match)
        res->last_log_index = match;
    uint64_t rejected = res->rejected, last = res->last_log_index, term = res->term;
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = &m->m;
    if (!step(d, &e) || !d->leading || term != d->lead_term ||
        raft_match_index(&d->r, from, &match) != 0)
        return;
    sender_on_result(d->sender, from, rejected, last, match);
}

/* The thread's sentence says why. */
static void log_refused(struct driver *d, uint64_t from)
{
    uint64_t now = now_ms(d);
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
    uint64_t now = now_ms(d), before = d->r.current_term;
    (void)err_fail(ERR_PROTOCOL, "a message of a term more than %llu ahead of ours, %llu",
                   (unsigned long long)GUARD_TERM_STEP, (unsigned long long)before);
    log_refused(d, from);
    if (d->far_ms != 0 && now - d->far_ms < (uint64_t)FAR_STEP_TIMEOUTS * d->c.election_ms)
        return;
    struct raft_message copy = m->m;
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = &copy;
    if (guard_step(&d->r, &copy) && step(d, &e) && d->r.current_term > before)
        d->far_ms = now == 0 ? 1 : now;
}

void driver_receive(struct driver *d, uint64_t from, struct cns_message *m)
{
    if (d->life != RUNNING)
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
    } else if (m->m.type != RAFT_REQUEST_VOTE_RESULT || d->r.state == RAFT_CANDIDATE) {
        /* (The core reads its candidate's state for a vote even when it is none any more.) */
        if (m->m.type == RAFT_REQUEST_VOTE)
            m->m.request_vote.version = 2;
        if (m->m.type == RAFT_REQUEST_VOTE_RESULT)
            m->m.request_vote_result.version = 2; /* without it pre-votes count as votes */
        struct raft_event e = {.type = RAFT_RECEIVE};
        e.receive.message = &m->m;
        (void)step(d, &e);
    }
}

static struct reads_view view(const struct driver *d)
{
    return (struct reads_view){.now_ms = now_ms(d),
                               .self = d->c.id,
                               .term = d->r.current_term,
                               .leader_id = d->told.leader_id,
                               .commit = d->commit,
                               .ready = d->leading && d->commit >= d->lead_first,
                               .members = &d->r.configuration};
}

void driver_receive_bytes(struct driver *d, uint64_t from, uint8_t type, const uint8_t *p, size_t n)
{
    if (d->life != RUNNING)
        return;
    if (type == CNS_BYTES_READ_INDEX) {
        struct reads_view v = view(d);
        reads_receive(d->reads, &v, from, p, n);
        d->dirty = true;
    } else if (type == CNS_BYTES_NODE) {
        d->c.handler.on_message(d->c.handler.ctx, from, p, n);
    }
}

void driver_peer(struct driver *d, uint64_t id, bool up)
{
    raft_index match = 0;
    if (d->life != RUNNING || !up || !d->leading)
        return;
    (void)raft_match_index(&d->r, id, &match);
    sender_peer_up(d->sender, id, match);
}

void driver_tick(struct driver *d)
{
    if (d->life != RUNNING)
        return;
    d->dirty = true;
    uint64_t now = now_ms(d);
    if (d->leading && now - d->beat_ms < d->c.heartbeat_ms)
        return;
    d->beat_ms = now;
    struct raft_event e = {.type = RAFT_TIMEOUT};
    if (step(d, &e) && d->leading)
        sender_beat(d->sender);
}

/* --- the end of a turn --------------------------------------------------------------------------
 */

static void tell_failure(struct driver *d)
{
    d->dirty = false;
    reads_fail(d->reads, ERR_STOPPED);
    if (d->failure_told || d->life == STOPPED)
        return;
    d->failure_told = true;
    d->c.handler.on_role(d->c.handler.ctx, CNS_STOPPED, d->r.current_term, 0);
    if (d->life == STOPPED)
        return;
    d->c.handler.on_failed(d->c.handler.ctx, d->failure, d->sentence);
}

/* An entry is delivered only when it is durable in our own log too, though Raft would allow it
 * earlier: so, after a crash, the node's database is never ahead of its log, and its start-up check
 * can hold every database against the log's word (docs/ARCHITECTURE.md). */
static uint64_t deliverable(const struct driver *d, uint64_t commit)
{
    return commit < d->r.last_stored ? commit : d->r.last_stored;
}

/* Roles and entries in the order in which they came to be. */
static void tell_node(struct driver *d)
{
    for (unsigned i = 0; i < d->n_roles && d->life == RUNNING; i++) {
        struct role_event e = d->roles[i];
        delivery_run(d->delivery, deliverable(d, e.commit));
        if (d->life == RUNNING)
            d->c.handler.on_role(d->c.handler.ctx, e.role, e.term, e.leader_id);
    }
    d->n_roles = 0;
    if (d->life == RUNNING)
        delivery_run(d->delivery, deliverable(d, d->commit));
}

static uint64_t busy_bytes(const struct driver *d)
{
    uint64_t disk = journal_pending_bytes(d->journal);
    return disk > d->inflight_bytes ? disk : d->inflight_bytes;
}

static bool is_handing_over(const struct driver *d)
{
    return handover_is_planned(&d->handover) || raft_transferee(&d->r) != 0;
}

static void move_handover(struct driver *d)
{
    raft_index match = 0;
    if (!d->leading || !handover_is_planned(&d->handover))
        return;
    (void)raft_match_index(&d->r, d->handover.to, &match);
    if (handover_next(&d->handover, now_ms(d), match, d->terms.last) != HANDOVER_TELL)
        return;
    struct raft_event e = {.type = RAFT_TRANSFER};
    e.transfer.server_id = d->handover.to;
    if (!step(d, &e))
        handover_drop(&d->handover);
}

static void give_room(struct driver *d)
{
    if (!d->want_room || !d->leading || is_handing_over(d) ||
        busy_bytes(d) > INFLIGHT_BYTES_MAX / 2)
        return;
    d->want_room = false;
    d->c.handler.on_room(d->c.handler.ctx);
}

static void evict(struct driver *d)
{
    cache_evict(&d->cache, d->c.cache_bytes, deliverable(d, d->commit));
}

void driver_turn(struct driver *d)
{
    if (d->in_turn)
        return;
    d->in_turn = true;
    while (d->dirty && d->life == RUNNING) {
        d->dirty = false;
        journal_flush(d->journal);
        tell_node(d);
        if (d->life != RUNNING)
            break;
        struct reads_view v = view(d);
        reads_flush(d->reads, &v);
        if (d->life != RUNNING)
            break;
        move_handover(d);
        journal_flush(d->journal); /* what the node has just proposed */
        sender_set_marks(d->sender, d->commit, d->r.last_stored);
        sender_flush(d->sender);
        give_room(d);
        evict(d);
    }
    if (d->life == FAILED)
        tell_failure(d);
    d->in_turn = false;
}

bool driver_is_dirty(const struct driver *d)
{
    return d->dirty && d->life != STOPPED;
}

/* --- the node's calls ---------------------------------------------------------------------------
 */

/* The payloads as entries of the current term behind the log's last. */
static struct cns_item *make_items(const struct driver *d, struct cns_payload *const *payloads,
                                   unsigned n)
{
    struct cns_item *items = mem_alloc(n * sizeof *items);
    for (unsigned i = 0; i < n; i++)
        items[i] =
            (struct cns_item){d->terms.last + 1 + i, d->r.current_term, CNS_COMMAND, payloads[i]};
    return items;
}

enum err driver_propose(struct driver *d, uint64_t term, struct cns_payload *const *payloads,
                        unsigned n, uint64_t *first_index)
{
    if (d->life != RUNNING)
        return err_fail(ERR_STOPPED, "this member takes part no more");
    if (!d->leading || term != d->lead_term)
        return err_fail(ERR_NOT_LEADER, "not the leader of term %llu", (unsigned long long)term);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        if (payloads[i]->len > ENTRY_BYTES_MAX)
            return err_fail(ERR_TOO_BIG, "an entry of %zu bytes; at most %llu", payloads[i]->len,
                            ENTRY_BYTES_MAX);
        bytes += journal_item_cost(payloads[i]);
    }
    if (n == 0)
        return err_fail(ERR_MISUSE, "nothing proposed");
    uint64_t busy = busy_bytes(d);
    if (is_handing_over(d) || (busy > 0 && busy + bytes > INFLIGHT_BYTES_MAX)) {
        d->want_room = true;
        return err_fail(ERR_BUSY, "too many bytes wait for a majority");
    }
    struct cns_item *items = make_items(d, payloads, n);
    void *batch = entries_batch(&d->entries, items, n);
    uint64_t first = d->terms.last + 1;
    d->src = items;
    d->n_src = n;
    d->inflight_bytes += bytes;
    struct raft_event e = {.type = RAFT_SUBMIT};
    e.submit.entries = d->entries.e;
    e.submit.n = n;
    bool ok = step(d, &e);
    d->n_src = 0;
    free(items);
    if (!ok) {
        d->inflight_bytes -= d->leading ? bytes : 0;
        raft_free(batch);
        return err_fail(d->life == RUNNING ? ERR_NOT_LEADER : ERR_STOPPED,
                        "the proposal was refused");
    }
    for (unsigned i = 0; i < n; i++)
        cns_payload_unref(payloads[i]); /* the log has its own references */
    *first_index = first;
    return ERR_OK;
}

void driver_applied(struct driver *d, uint64_t index)
{
    if (d->delivery != NULL && d->life != STOPPED)
        delivery_applied(d->delivery, index);
}

void driver_read_index(struct driver *d, struct cns_read *r, uint64_t timeout_ms)
{
    reads_add(d->reads, r, now_ms(d) + timeout_ms);
    d->dirty = true;
}

/* The voter with most of the log, heard of late. */
static uint64_t best_transferee(const struct driver *d)
{
    uint64_t best = 0, best_match = 0, now = now_ms(d);
    for (unsigned i = 0; i < d->r.configuration.n; i++) {
        const struct raft_server *s = &d->r.configuration.servers[i];
        raft_index match = 0;
        if (s->id == d->c.id || s->role != RAFT_VOTER ||
            raft_match_index(&d->r, s->id, &match) != 0 ||
            now - sender_heard_ms(d->sender, s->id) >= d->c.election_ms)
            continue;
        if (best == 0 || match > best_match) {
            best = s->id;
            best_match = match;
        }
    }
    return best;
}

enum err driver_transfer(struct driver *d, uint64_t id)
{
    if (d->life != RUNNING)
        return err_fail(ERR_STOPPED, "this member takes part no more");
    if (!d->leading)
        return err_fail(ERR_NOT_LEADER, "only the leader can hand over");
    if (id == 0)
        id = best_transferee(d);
    const struct raft_server *s = members_find(&d->r.configuration, id);
    if (s == NULL || s->id == d->c.id || s->role != RAFT_VOTER)
        return err_fail(ERR_NOT_FOUND, "no other voter to hand over to");
    if (is_handing_over(d))
        return err_fail(ERR_BUSY, "leadership is being handed over already");
    handover_plan(&d->handover, id, now_ms(d) + d->c.election_ms);
    d->dirty = true;
    return ERR_OK;
}

void driver_send(struct driver *d, uint64_t to, const uint8_t *p, size_t n)
{
    if (d->life != RUNNING)
        return;
    for (unsigned i = 0; i < d->r.configuration.n; i++) {
        uint64_t id = d->r.configuration.servers[i].id;
        if (id != d->c.id && (to == 0 || to == id))
            outbox_send_bytes(&d->outbox, id, CNS_BYTES_NODE, p, n);
    }
}

void driver_get_status(const struct driver *d, struct cns_status *out)
{
    *out = (struct cns_status){.role = d->told.role,
                               .term = d->r.current_term,
                               .leader_id = d->told.leader_id,
                               .commit_index = d->commit,
                               .last_index = d->terms.last,
                               .stored_index = d->r.last_stored,
                               .cache_bytes = d->cache.bytes,
                               .inflight_bytes = d->inflight_bytes,
                               .elections = d->elections};
    if (d->delivery != NULL)
        out->applied_index = delivery_applied_index(d->delivery);
    if (d->life == FAILED || d->life == STOPPED) {
        out->role = CNS_STOPPED;
        out->leader_id = 0;
    }
}

const struct raft_configuration *driver_members(const struct driver *d)
{
    return &d->r.configuration;
}

uint64_t driver_term_at(const struct driver *d, uint64_t index)
{
    return terms_at(&d->terms, index);
}
