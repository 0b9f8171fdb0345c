/* Room: consensus. Thread: loop. Owns: the core, and the parts around it.
 *
 *   driver_turn: APPEND job -> roles and committed entries to the node -> reads -> AppendEntries
 *
 * Invariants:
 *   1. Nothing leaves before the term and vote that it rests on are durable (outbox.h).
 *   2. PERSISTED_ENTRIES is reported with rising indexes, and never for what a truncation has
 *      overtaken (journal.c).
 *   3. The first failed job is final: the member is mute from then on (life FAILED).
 *   4. The handler is called from driver_turn (on_message: from driver_receive_bytes), never from
 *      a step.
 *   5. The core is told of a snapshot at its start only. While it runs it keeps an index and a
 *      term for each leadership, no entry: so the log may be cut without its knowing.
 *
 *      NEW --driver_start--> RUNNING --disk or core error--> FAILED
 *                               |                              |
 *                               +-------- driver_stop ---------+--> STOPPED
 *
 * Not here: the core's events (driver_step.c), what comes from peers (driver_receive.c), what the
 * node asks (driver_calls.c), who belongs to the group (driver_members.c). */
#include "base/check.h"
#include "base/log.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/driver_state.h"
#include "consensus/members.h"

#include <stdlib.h>
#include <string.h>

/* libraft counts entries in flight; we count bytes (sender.c), so its own limit is out of the way.
 */
#define MAX_INFLIGHT_ENTRIES (1u << 30)

static void set_dirty(void *ctx)
{
    struct driver *d = ctx;
    d->dirty = true;
}

static void on_stored(void *ctx, uint64_t index)
{
    struct driver *d = ctx;
    if (d->life != RUNNING || index <= d->r.last_stored)
        return; /* the core wants rising indexes */
    struct raft_event e = {.type = RAFT_PERSISTED_ENTRIES};
    e.persisted_entries.index = index;
    (void)driver_step(d, &e);
}

static void on_io_failed(void *ctx, enum err e)
{
    driver_fail(ctx, e);
}

static void on_cut(void *ctx, const struct cns_snapshot *s, uint64_t first)
{
    struct driver *d = ctx;
    CHECK(first >= d->terms.first && first <= s->index + 1);
    log_info("consensus", "log-cut index=%llu first=%llu was=%llu", (unsigned long long)s->index,
             (unsigned long long)first, (unsigned long long)d->terms.first);
    d->snapshot_index = s->index;
    roster_cut(&d->roster, s->index);
    terms_cut(&d->terms, first);
    cache_cut(&d->cache, first);
    sender_cut_done(d->sender);
}

/* PEER's next entry is gone: it needs the state, from whoever has it (docs/PROTOCOL.md). */
static void on_peer_behind(void *ctx, uint64_t peer)
{
    struct driver *d = ctx;
    uint8_t m[3 * sizeof(uint64_t)];
    set_le64(m, d->lead_term);
    set_le64(m + 8, d->terms.first);
    set_le64(m + 16, d->terms.prev_term);
    outbox_send_bytes(&d->outbox, peer, CNS_BYTES_BEHIND, m, sizeof m);
}

static void on_peer_left(void *ctx)
{
    struct driver *d = ctx;
    d->members_moved = true;
    d->dirty = true;
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
    terms_init(&d->terms, 1, 0);
    cache_init(&d->cache);
    roster_init(&d->roster);
    outbox_init(&d->outbox, &d->c.io);
    struct journal_config jc = {.io = &d->c.io,
                                .cache = &d->cache,
                                .terms = &d->terms,
                                .outbox = &d->outbox,
                                .ctx = d,
                                .stored = on_stored,
                                .cut = on_cut,
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
                               .behind = on_peer_behind,
                               .left = on_peer_left,
                               .dirty = set_dirty};
    d->sender = sender_new(&sc);
    d->reads = reads_new(&d->outbox, c->io.random(c->io.ctx), c->heartbeat_ms, c->election_ms);
    *out = d;
    return ERR_OK;
}

enum err driver_begin(struct driver *d, uint64_t first_index, uint64_t prev_term,
                      const struct cns_snapshot *snapshot)
{
    struct raft_configuration conf;
    CHECK(d->life == NEW && d->terms.last == 0);
    uint64_t at = snapshot == NULL ? 0 : snapshot->index;
    if (first_index == 0 || (first_index == 1) != (prev_term == 0) || first_index - 1 > at)
        return err_fail(ERR_CORRUPT,
                        "the log begins with entry %llu, and its snapshot record stands for entry "
                        "%llu: what is between is missing",
                        (unsigned long long)first_index, (unsigned long long)at);
    terms_fini(&d->terms);
    terms_init(&d->terms, first_index, prev_term);
    if (snapshot == NULL)
        return ERR_OK;
    if (snapshot->term == 0 || snapshot->members_index == 0 || snapshot->members_index > at ||
        (first_index - 1 == at && prev_term != snapshot->term) || prev_term > snapshot->term)
        return err_fail(ERR_CORRUPT, "the snapshot record of entry %llu does not fit the log",
                        (unsigned long long)at);
    TRY(members_decode(snapshot->members, &conf));
    raft_configuration_close(&conf);
    roster_push(&d->roster, snapshot->members_index, snapshot->members, snapshot->highest_id);
    d->origin_index = d->snapshot_index = at;
    d->origin_term = snapshot->term;
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
    if (index == d->origin_index && term != d->origin_term)
        return err_fail(ERR_CORRUPT, "entry %llu has term %llu, its snapshot record says %llu",
                        (unsigned long long)index, (unsigned long long)term,
                        (unsigned long long)d->origin_term);
    TRY(entries_load(&d->entries, term, kind, payload));
    /* Changes up to the record's are known from it. */
    if (kind == CNS_CHANGE && (d->roster.n == 0 || index > d->roster.e[d->roster.n - 1].index))
        roster_push(&d->roster, index, payload, 0);
    terms_append(&d->terms, term);
    return ERR_OK;
}

static enum err check_start(struct driver *d, uint64_t term, uint64_t applied)
{
    uint64_t last_term = terms_at(&d->terms, d->terms.last);
    if (last_term > term)
        return err_fail(ERR_CORRUPT, "the log ends in term %llu, but the record says term %llu",
                        (unsigned long long)last_term, (unsigned long long)term);
    if (d->terms.last < d->origin_index || d->roster.n == 0)
        return err_fail(ERR_CORRUPT,
                        "the log ends with entry %llu, its snapshot record stands for "
                        "entry %llu",
                        (unsigned long long)d->terms.last, (unsigned long long)d->origin_index);
    if (applied != CNS_HELD && applied + 1 < d->terms.first)
        return err_fail(ERR_CONFIG,
                        "the state holds the entries up to %llu, the log begins with %llu: what is "
                        "between must be fetched from another node",
                        (unsigned long long)applied, (unsigned long long)d->terms.first);
    return ERR_OK;
}

/* Is this the only voter, as the log ends? */
static bool begins_alone(const struct driver *d)
{
    struct raft_configuration conf;
    enum err e = members_decode(roster_at(&d->roster, d->terms.last)->members, &conf);
    CHECK(e == ERR_OK); /* checked when it was loaded */
    bool alone = members_is_lone_voter(&conf, d->c.id);
    raft_configuration_close(&conf);
    return alone;
}

static bool start_core(struct driver *d, uint64_t term, uint64_t vote)
{
    struct raft_snapshot_metadata metadata = {0};
    struct raft_event e = {.type = RAFT_START};
    e.start.term = term;
    e.start.voted_for = vote;
    e.start.start_index = d->terms.first;
    e.start.entries = d->entries.e;
    e.start.n_entries = d->entries.n;
    if (d->origin_index > 0) {
        const struct roster_entry *base = &d->roster.e[0];
        metadata.index = d->origin_index;
        metadata.term = d->origin_term;
        metadata.configuration_index = base->index;
        enum err bad = members_decode(base->members, &metadata.configuration);
        CHECK(bad == ERR_OK);         /* driver_begin has checked it */
        e.start.metadata = &metadata; /* the core takes the configuration */
    }
    bool ok = driver_step(d, &e);
    if (!ok)
        d->entries = (struct entries){0}; /* the core has freed all of it */
    entries_fini(&d->entries);
    return ok;
}

enum err driver_start(struct driver *d, uint64_t term, uint64_t vote, uint64_t applied)
{
    CHECK(d->life == NEW);
    TRY(check_start(d, term, applied));
    d->held = applied == CNS_HELD;
    bool alone = begins_alone(d);
    if (d->held && alone)
        return err_fail(ERR_CONFIG, "this node is the only voter and its database is gone: nobody "
                                    "else can have it, and it must not lead without");
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
    if (alone) {
        term++;
        vote = d->c.id;
        journal_meta(d->journal, term, vote);
    }
    d->told = (struct role_event){CNS_FOLLOWER, 0, 0, 0};
    if (!start_core(d, term, vote) || d->life != RUNNING)
        return err_fail(d->failure, "%s", d->sentence);
    raft_set_heartbeat_timeout(&d->r, 1); /* trap T4: our own tick is the real heartbeat */
    return ERR_OK;
}

void driver_refused(struct driver *d, enum err code, const char *sentence)
{
    driver_fail(d, err_fail(code, "%s", sentence));
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
    roster_fini(&d->roster);
    cns_payload_unref(d->hearsay);
    free(d->roles);
    free(d->address);
    free(d);
}

struct reads_view driver_view(const struct driver *d)
{
    return (struct reads_view){.now_ms = driver_now_ms(d),
                               .self = d->c.id,
                               .term = d->r.current_term,
                               .leader_id = d->told.leader_id,
                               .commit = d->commit,
                               .ready = d->leading && d->commit >= d->lead_first,
                               .members = &d->r.configuration};
}

void driver_tick(struct driver *d)
{
    if (d->life != RUNNING)
        return;
    d->dirty = true;
    uint64_t now = driver_now_ms(d);
    if (d->leading && now - d->beat_ms < d->c.heartbeat_ms)
        return;
    d->beat_ms = now;
    if (d->held && members_is_lone_voter(&d->r.configuration, d->c.id))
        return; /* the core would elect it at once */
    struct raft_event e = {.type = RAFT_TIMEOUT};
    if (driver_step(d, &e) && d->leading)
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

static void deliver(struct driver *d, uint64_t commit)
{
    if (!d->held)
        delivery_run(d->delivery, deliverable(d, commit));
}

static void tell_members(struct driver *d)
{
    const struct cns_handler *h = &d->c.handler;
    struct behind behind = d->behind;
    bool moved = d->members_moved;
    d->members_moved = false;
    if (moved && d->c.on_peers != NULL)
        d->c.on_peers(d->c.io.ctx);
    if (moved && h->on_members != NULL)
        h->on_members(h->ctx);
    d->behind = (struct behind){0};
    if (behind.first > 0 && d->life == RUNNING && h->on_behind != NULL)
        h->on_behind(h->ctx, behind.leader_id, behind.first);
}

/* Roles and entries in the order in which they came to be. */
static void tell_node(struct driver *d)
{
    tell_members(d);
    for (unsigned i = 0; i < d->n_roles && d->life == RUNNING; i++) {
        struct role_event e = d->roles[i];
        deliver(d, e.commit);
        if (d->life == RUNNING)
            d->c.handler.on_role(d->c.handler.ctx, e.role, e.term, e.leader_id);
    }
    d->n_roles = 0;
    if (d->life == RUNNING)
        deliver(d, d->commit);
}

uint64_t driver_busy_bytes(const struct driver *d)
{
    uint64_t disk = journal_pending_bytes(d->journal);
    return disk > d->inflight_bytes ? disk : d->inflight_bytes;
}

bool driver_is_handing_over(const struct driver *d)
{
    return handover_is_planned(&d->handover) || raft_transferee(&d->r) != 0;
}

static void move_handover(struct driver *d)
{
    raft_index match = 0;
    if (!d->leading || !handover_is_planned(&d->handover))
        return;
    (void)raft_match_index(&d->r, d->handover.to, &match);
    if (handover_next(&d->handover, driver_now_ms(d), match, d->terms.last) != HANDOVER_TELL)
        return;
    struct raft_event e = {.type = RAFT_TRANSFER};
    e.transfer.server_id = d->handover.to;
    if (!driver_step(d, &e))
        handover_drop(&d->handover);
}

static void give_room(struct driver *d)
{
    if (!d->want_room || !d->leading || driver_is_handing_over(d) ||
        driver_busy_bytes(d) > INFLIGHT_BYTES_MAX / 2)
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
        struct reads_view v = driver_view(d);
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
                               .elections = d->elections,
                               .first_index = d->terms.first,
                               .snapshot_index = d->snapshot_index};
    if (d->delivery != NULL && !d->held)
        out->applied_index = delivery_applied_index(d->delivery);
    if (d->life == FAILED || d->life == STOPPED) {
        out->role = CNS_STOPPED;
        out->leader_id = 0;
    }
}

uint64_t driver_term_at(const struct driver *d, uint64_t index)
{
    return terms_at(&d->terms, index);
}
