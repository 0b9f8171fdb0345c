/* Room: consensus. Thread: loop. Owns: the log, the transport, the driver, four libuv handles.
 *
 *      OPEN --cns_start--> RUNNING --cns_stop--> STOPPING --all closed--> done, freed
 *        \---------------------------cns_stop-------^
 *
 * Two things here are about time:
 *   - The end of a loop turn is uv_prepare: right before the loop sleeps, all that the turn's
 *     callbacks led to goes to the disk, the peers and the node together.
 *   - The timer only notes that a tick is due; the tick itself runs in uv_check, after the sockets
 *     were read. When the loop was late, the heartbeats that wait in the sockets are heard before
 *     the election timer is judged: a stalled node does not start elections. The idle handle makes
 *     that poll return at once.
 *
 * Not here: any decision (driver.c). */
#include "consensus/member.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "consensus/driver.h"
#include "consensus/log.h"
#include "consensus/members.h"
#include "consensus/transport.h"
#include "consensus/read_index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum phase { OPEN, RUNNING, STOPPING };

struct cns {
    struct cns_config c; /* strings and servers copied */
    struct cns_server *servers;
    enum phase phase;
    struct cns_log *log;
    struct cns_transport *transport;
    struct driver *d;
    struct rng rng;
    enum err load_error;
    bool has_handles;
    uv_timer_t timer;
    uv_prepare_t turn_end;
    uv_idle_t idle;
    uv_check_t check;
    unsigned closing; /* things that are not closed yet */
    void (*done)(void *ctx);
    void *done_ctx;
    struct cns_server *shown; /* cns_members */
    bool looked;              /* `at_rest` is what the log says */
    struct raft_configuration at_rest;
    uint64_t *peers; /* the ids that the transport has */
    size_t n_peers, peers_cap;
};

/* --- what the driver needs ----------------------------------------------------------------------
 */

static void io_disk(void *ctx, struct cns_disk_job *job)
{
    thread_expect_loop();
    cns_log_submit(((struct cns *)ctx)->log, job);
}

static void io_disk_read(void *ctx, struct cns_disk_read *read)
{
    thread_expect_loop();
    cns_log_submit_read(((struct cns *)ctx)->log, read);
}

static void io_send(void *ctx, uint64_t to, const struct raft_message *m,
                    const struct cns_item *items, unsigned n)
{
    struct cns *c = ctx;
    thread_expect_loop();
    if (c->transport != NULL)
        cns_transport_send(c->transport, to, m, items, n);
}

static void io_send_bytes(void *ctx, uint64_t to, uint8_t type, const uint8_t *p, size_t n)
{
    struct cns *c = ctx;
    thread_expect_loop();
    if (c->transport != NULL)
        cns_transport_send_bytes(c->transport, to, type, p, n);
}

static uint64_t io_queued(void *ctx, uint64_t to)
{
    const struct cns *c = ctx;
    thread_expect_loop();
    return c->transport == NULL ? UINT64_MAX : cns_transport_queued(c->transport, to);
}

static uint64_t io_now_ms(void *ctx)
{
    (void)ctx;
    return clock_mono_ms();
}

static uint64_t io_random(void *ctx)
{
    return rng_u64(&((struct cns *)ctx)->rng);
}

/* --- what happens to it -------------------------------------------------------------------------
 */

static void on_message(void *ctx, uint64_t from, struct cns_message *m)
{
    thread_expect_loop();
    driver_receive(((struct cns *)ctx)->d, from, m);
}

static void on_bytes(void *ctx, uint64_t from, uint8_t type, const uint8_t *p, size_t n)
{
    thread_expect_loop();
    driver_receive_bytes(((struct cns *)ctx)->d, from, type, p, n);
}

static void on_peer(void *ctx, uint64_t id, bool up)
{
    thread_expect_loop();
    driver_peer(((struct cns *)ctx)->d, id, up);
}

static void on_idle(uv_idle_t *h)
{
    (void)h; /* it is there so that the poll does not sleep */
}

static void on_sockets_read(uv_check_t *h)
{
    struct cns *c = h->data;
    thread_expect_loop();
    (void)uv_check_stop(&c->check);
    (void)uv_idle_stop(&c->idle);
    driver_tick(c->d);
}

static void on_timer(uv_timer_t *h)
{
    struct cns *c = h->data;
    (void)uv_idle_start(&c->idle, on_idle);
    (void)uv_check_start(&c->check, on_sockets_read);
}

static void on_turn_end(uv_prepare_t *h)
{
    struct cns *c = h->data;
    thread_expect_loop();
    driver_turn(c->d);
}

/* --- life ---------------------------------------------------------------------------------------
 */

static void copy_config(struct cns *c, const struct cns_config *from)
{
    c->c = *from;
    c->c.dir = mem_strdup(from->dir);
    c->c.listen = mem_strdup(from->listen);
    c->servers = mem_zalloc((from->n_servers + 1) * sizeof *c->servers);
    for (unsigned i = 0; i < from->n_servers; i++) {
        c->servers[i].id = from->servers[i].id;
        c->servers[i].address = mem_strdup(from->servers[i].address);
        c->servers[i].role = from->servers[i].role;
    }
    c->c.servers = c->servers;
    c->c.base = NULL; /* the log has it, or has one of its own */
}

/* Strings that copy_config made; the public structs show them const. */
static void free_string(const char *s)
{
    free((void *)(uintptr_t)s);
}

static void member_free(struct cns *c)
{
    thread_expect_loop();
    if (c->d != NULL)
        driver_free(c->d);
    for (unsigned i = 0; i < c->c.n_servers; i++)
        free_string(c->servers[i].address);
    free(c->servers);
    free(c->shown);
    if (c->looked)
        raft_configuration_close(&c->at_rest);
    free(c->peers);
    free_string(c->c.dir);
    free_string(c->c.listen);
    free(c);
}

static enum err open_log(struct cns *c, const struct cns_snapshot *base)
{
    thread_expect_loop();
    struct cns_item first = {.index = 1, .term = 1, .kind = CNS_CHANGE};
    if (c->c.n_servers > 0 && base == NULL)
        TRY(members_encode(c->servers, c->c.n_servers, &first.payload));
    struct cns_log_config lc = {.dir = c->c.dir,
                                .cluster_id = c->c.cluster_id,
                                .node_id = c->c.id,
                                .first_term = 1,
                                .first_items = &first,
                                .n_first_items = first.payload == NULL ? 0 : 1,
                                .base = base,
                                .segment_bytes = c->c.segment_bytes};
    enum err e = cns_log_open(&lc, &c->log);
    cns_payload_unref(first.payload);
    return e;
}

enum err cns_open(const struct cns_config *config, struct cns **out)
{
    if (config->id == 0 || config->cluster_id == 0 || config->dir == NULL || config->listen == NULL)
        return err_fail(ERR_CONFIG, "a member needs an id, a cluster id, a directory, an address");
    if (config->heartbeat_ms == 0 || config->election_ms < 4 * config->heartbeat_ms)
        return err_fail(ERR_CONFIG,
                        "election timeout %u ms, heartbeat %u ms: a follower must be able to miss "
                        "a few heartbeats, so at least four of them fit an election timeout",
                        config->election_ms, config->heartbeat_ms);
    struct cns *c = MEM_NEW(struct cns);
    copy_config(c, config);
    if (getrandom(&c->rng.state, sizeof c->rng.state, 0) != (ssize_t)sizeof c->rng.state)
        c->rng.state = clock_mono_ns(); /* jitter, not secrets */
    enum err e = open_log(c, config->base);
    if (e != ERR_OK) {
        member_free(c);
        return e;
    }
    *out = c;
    return ERR_OK;
}

enum err cns_scan_back(struct cns *c, cns_visit visit, void *ctx)
{
    CHECK(c->phase == OPEN && c->d == NULL);
    return cns_log_scan_back(c->log, visit, ctx);
}

bool cns_snapshot_get(const struct cns *c, struct cns_snapshot *out)
{
    CHECK(c->phase == OPEN && c->d == NULL);
    return cns_log_snapshot(c->log, out);
}

uint64_t cns_first_index(const struct cns *c)
{
    struct cns_log_state st;
    CHECK(c->phase == OPEN && c->d == NULL);
    cns_log_get_state(c->log, &st);
    return st.first_index;
}

enum err cns_install(struct cns *c, const struct cns_snapshot *s)
{
    CHECK(c->phase == OPEN && c->d == NULL);
    return cns_log_install(c->log, s);
}

static void on_peers(void *ctx);

static void load_entry(void *ctx, uint64_t index, uint64_t term, enum cns_kind kind,
                       struct cns_payload *payload)
{
    struct cns *c = ctx;
    thread_expect_loop();
    if (c->load_error == ERR_OK)
        c->load_error = driver_load(c->d, index, term, kind, payload);
}

static enum err start_driver(struct cns *c, uv_loop_t *loop, uint64_t applied)
{
    thread_expect_loop();
    struct cns_log_state st;
    struct driver_config dc = {
        .id = c->c.id,
        .address = c->c.listen,
        .election_ms = c->c.election_ms,
        .heartbeat_ms = c->c.heartbeat_ms,
        .io = {c, io_disk, io_disk_read, io_send, io_queued, io_send_bytes, io_now_ms, io_random},
        .handler = c->c.handler,
        .on_peers = on_peers};
    struct cns_snapshot snapshot;
    TRY(driver_new(&dc, &c->d));
    cns_log_get_state(c->log, &st);
    bool was_cut = cns_log_snapshot(c->log, &snapshot);
    TRY(driver_begin(c->d, st.first_index, st.prev_term, was_cut ? &snapshot : NULL));
    cns_log_each(c->log, load_entry, c);
    if (c->load_error != ERR_OK)
        return c->load_error;
    if (st.last_index == 0)
        return err_fail(ERR_CONFIG, "%s is a new log, and no members are configured", c->c.dir);
    TRY(cns_log_start(c->log, loop));
    return driver_start(c->d, st.term, st.vote, applied);
}

/* The configured address of a member wins over the one in the log: so a member can move. */
static const char *address_of(const struct cns *c, const struct raft_server *s)
{
    for (unsigned i = 0; i < c->c.n_servers; i++)
        if (c->servers[i].id == s->id)
            return c->servers[i].address;
    return s->address;
}

static bool has_peer(const struct cns *c, uint64_t id)
{
    for (size_t i = 0; i < c->n_peers; i++)
        if (c->peers[i] == id)
            return true;
    return false;
}

/* Connects to who is a member there, and not in BUT. Of members of old (BUT is given) some are
 * known to be removed: by the peers' file before our log is read so far, or although they are still
 * configured. That is no mistake. */
static enum err add_peers(struct cns *c, const struct raft_configuration *conf,
                          const struct raft_configuration *but)
{
    enum err first = ERR_OK;
    thread_expect_loop();
    for (unsigned i = 0; i < conf->n; i++) {
        uint64_t id = conf->servers[i].id;
        if (id == c->c.id || driver_is_removed(c->d, id) ||
            (but != NULL &&
             (members_find(but, id) != NULL || cns_transport_removed(c->transport, id))))
            continue;
        enum err e = cns_transport_set_peer(c->transport, id, address_of(c, &conf->servers[i]));
        if (e != ERR_OK && first == ERR_OK)
            first = e;
        if (e != ERR_OK || has_peer(c, id))
            continue;
        if (c->n_peers == c->peers_cap) {
            c->peers_cap = c->peers_cap == 0 ? 8 : c->peers_cap * 2;
            c->peers = mem_realloc(c->peers, c->peers_cap * sizeof *c->peers);
        }
        c->peers[c->n_peers++] = id;
    }
    return first;
}

/* Those that the configuration names, though our log does not: a member that missed so much that it
 * knows nobody who is left is started with the addresses of today. */
static void add_configured(struct cns *c)
{
    thread_expect_loop();
    for (unsigned i = 0; i < c->c.n_servers; i++) {
        struct raft_server s = {.id = c->servers[i].id,
                                .address = (char *)(uintptr_t)c->servers[i].address};
        struct raft_configuration one = {.servers = &s, .n = 1};
        if (add_peers(c, &one, driver_members(c->d)) != ERR_OK)
            log_error("consensus", "peer-address-configured id=%llu why=\"%s\"",
                      (unsigned long long)s.id, err_text());
    }
}

/* Connects to who is a member now, and takes leave of who is none any more. */
static enum err set_peers(struct cns *c)
{
    struct raft_configuration hearsay;
    thread_expect_loop();
    add_configured(c);
    if (driver_hearsay(c->d, &hearsay)) {
        if (add_peers(c, &hearsay, driver_members(c->d)) != ERR_OK)
            log_error("consensus", "peer-address-heard why=\"%s\"", err_text());
        raft_configuration_close(&hearsay);
    }
    if (add_peers(c, driver_committed_members(c->d), driver_members(c->d)) != ERR_OK)
        log_error("consensus", "peer-address-old why=\"%s\"", err_text());
    enum err e = add_peers(c, driver_members(c->d), NULL);
    for (size_t i = c->n_peers; i-- > 0;) {
        if (!driver_is_removed(c->d, c->peers[i]))
            continue;
        cns_transport_remove_peer(c->transport, c->peers[i]);
        c->peers[i] = c->peers[--c->n_peers];
    }
    return e;
}

static void on_peers(void *ctx)
{
    struct cns *c = ctx;
    if (c->transport != NULL && c->phase != STOPPING && set_peers(c) != ERR_OK)
        log_error("consensus", "peer-address id=%llu why=\"%s\"", (unsigned long long)c->c.id,
                  err_text());
}

static void on_refused(void *ctx, uint64_t id, enum err code, const char *sentence)
{
    struct cns *c = ctx;
    (void)id;
    thread_expect_loop();
    if (c->phase != STOPPING)
        driver_refused(c->d, code, sentence);
}

static enum err start_transport(struct cns *c, uv_loop_t *loop)
{
    thread_expect_loop();
    struct cns_log_state st;
    cns_log_get_state(c->log, &st);
    struct cns_transport_config tc = {.cluster_id = c->c.cluster_id,
                                      .id = c->c.id,
                                      .incarnation = st.incarnation,
                                      .dir = c->c.dir,
                                      .listen = c->c.listen,
                                      .ctx = c,
                                      .on_message = on_message,
                                      .on_bytes = on_bytes,
                                      .on_peer = on_peer,
                                      .on_refused = on_refused};
    TRY(cns_transport_open(loop, &tc, &c->transport));
    return set_peers(c);
}

static void start_handles(struct cns *c, uv_loop_t *loop)
{
    uint64_t period = c->c.heartbeat_ms / 4 > 0 ? c->c.heartbeat_ms / 4 : 1;
    (void)uv_timer_init(loop, &c->timer);
    (void)uv_prepare_init(loop, &c->turn_end);
    (void)uv_idle_init(loop, &c->idle);
    (void)uv_check_init(loop, &c->check);
    c->timer.data = c->turn_end.data = c->idle.data = c->check.data = c;
    c->has_handles = true;
    (void)uv_prepare_start(&c->turn_end, on_turn_end);
    (void)uv_timer_start(&c->timer, on_timer, period, period);
}

enum err cns_start(struct cns *c, uv_loop_t *loop, uint64_t applied)
{
    CHECK(c->phase == OPEN && c->d == NULL);
    TRY(start_driver(c, loop, applied));
    TRY(start_transport(c, loop));
    start_handles(c, loop);
    c->phase = RUNNING;
    struct cns_status st;
    cns_get_status(c, &st);
    log_info("consensus",
             "member-started id=%llu term=%llu first=%llu last=%llu applied=%lld port=%u",
             (unsigned long long)c->c.id, (unsigned long long)st.term,
             (unsigned long long)st.first_index, (unsigned long long)st.last_index,
             (long long)applied, cns_peer_port(c)); /* held: -1 */
    return ERR_OK;
}

static void closed(struct cns *c)
{
    CHECK(c->closing > 0);
    if (--c->closing > 0)
        return;
    void (*done)(void *) = c->done;
    void *ctx = c->done_ctx;
    member_free(c);
    done(ctx);
}

static void on_handle_closed(uv_handle_t *h)
{
    closed(h->data);
}

static void on_part_closed(void *ctx)
{
    closed(ctx);
}

void cns_stop(struct cns *c, void (*done)(void *ctx), void *ctx)
{
    CHECK(c->phase != STOPPING);
    c->phase = STOPPING;
    c->done = done;
    c->done_ctx = ctx;
    if (c->d != NULL)
        driver_stop(c->d);
    c->closing = 1; /* the log's */
    if (c->has_handles) {
        c->closing += 4;
        uv_close((uv_handle_t *)&c->timer, on_handle_closed);
        uv_close((uv_handle_t *)&c->turn_end, on_handle_closed);
        uv_close((uv_handle_t *)&c->idle, on_handle_closed);
        uv_close((uv_handle_t *)&c->check, on_handle_closed);
    }
    if (c->transport != NULL) {
        c->closing++;
        cns_transport_close(c->transport, on_part_closed, c);
    }
    cns_log_close(c->log, on_part_closed, c);
}

/* --- the node's calls: all the driver's ---------------------------------------------------------
 */

enum err cns_propose(struct cns *c, uint64_t term, struct cns_payload *const *payloads, unsigned n,
                     uint64_t *first_index)
{
    if (c->phase != RUNNING)
        return err_fail(ERR_STOPPED, "this member does not run");
    return driver_propose(c->d, term, payloads, n, first_index);
}

void cns_applied(struct cns *c, uint64_t index)
{
    if (c->phase == RUNNING)
        driver_applied(c->d, index);
}

enum err cns_cut(struct cns *c, uint64_t index, const uint8_t *data, size_t len,
                 uint64_t keep_bytes)
{
    if (c->phase != RUNNING)
        return err_fail(ERR_STOPPED, "this member does not run");
    return driver_cut(c->d, index, data, len, keep_bytes);
}

enum err cns_describe(const struct cns *c, uint64_t index, struct cns_snapshot *out)
{
    if (c->phase != RUNNING)
        return err_fail(ERR_STOPPED, "this member does not run");
    return driver_describe(c->d, index, out);
}

enum err cns_change(struct cns *c, enum cns_change_kind kind, uint64_t *id, const char *address,
                    enum cns_member_role role, uint64_t *index)
{
    if (c->phase != RUNNING)
        return err_fail(ERR_STOPPED, "this member does not run");
    return driver_change(c->d, kind, id, address, role, index);
}

bool cns_get_progress(const struct cns *c, uint64_t id, struct cns_progress *out)
{
    return c->phase == RUNNING && driver_get_progress(c->d, id, out);
}

void cns_read_index(struct cns *c, struct cns_read *r, uint64_t timeout_ms)
{
    CHECK(c->phase == RUNNING);
    driver_read_index(c->d, r, timeout_ms);
}

void cns_read_cancel(struct cns *c, struct cns_read *r)
{
    (void)c;
    reads_cancel(r);
}

enum err cns_transfer(struct cns *c, uint64_t id)
{
    if (c->phase != RUNNING)
        return err_fail(ERR_STOPPED, "this member does not run");
    return driver_transfer(c->d, id);
}

void cns_send(struct cns *c, uint64_t to, const uint8_t *p, size_t n)
{
    if (c->phase == RUNNING)
        driver_send(c->d, to, p, n);
}

void cns_get_status(const struct cns *c, struct cns_status *out)
{
    struct cns_log_state st;
    *out = (struct cns_status){.role = CNS_STOPPED};
    if (c->d != NULL)
        driver_get_status(c->d, out);
    if (c->phase == STOPPING)
        return; /* the log may be gone */
    cns_log_get_state(c->log, &st);
    out->log_bytes = st.bytes;
    out->log_segments = st.segments;
    out->log_waits = st.waits;
    if (c->d == NULL) {
        out->first_index = st.first_index;
        out->snapshot_index = st.snapshot_index;
        out->term = st.term;
        out->last_index = out->stored_index = st.last_index;
    }
}

void cns_sync_times(const struct cns *c, struct histogram_copy *out)
{
    if (c->phase != STOPPING) /* the log may be gone */
        cns_log_sync_times(c->log, out);
}

static void keep_newest(void *ctx, uint64_t index, uint64_t term, enum cns_kind kind,
                        struct cns_payload *payload)
{
    struct cns_payload **newest = ctx;
    (void)index;
    (void)term;
    if (kind == CNS_CHANGE)
        *newest = payload;
}

/* Before cns_start: the newest list in the log, else that of the snapshot. */
static const struct raft_configuration *members_at_rest(struct cns *c)
{
    thread_expect_loop();
    struct cns_snapshot snapshot;
    struct cns_payload *newest = NULL;
    if (c->looked || c->phase != OPEN)
        return &c->at_rest;
    c->looked = true;
    raft_configuration_init(&c->at_rest);
    if (cns_log_snapshot(c->log, &snapshot))
        newest = snapshot.members;
    cns_log_each(c->log, keep_newest, &newest);
    if (newest != NULL && members_decode(newest, &c->at_rest) != ERR_OK)
        raft_configuration_init(&c->at_rest); /* cns_start will say so */
    return &c->at_rest;
}

enum err cns_encode_members(const struct cns_server *servers, unsigned n, struct cns_payload **out)
{
    return members_encode(servers, n, out);
}

const struct cns_server *cns_members(const struct cns *c, unsigned *n)
{
    /* The cache of what is shown is no part of what the member is. */
    struct cns *mutable = (struct cns *)(uintptr_t)c;
    const struct raft_configuration *conf =
        c->d == NULL ? members_at_rest(mutable) : driver_members(c->d);
    mutable->shown = mem_realloc(mutable->shown, (conf->n + 1) * sizeof *c->shown);
    for (unsigned i = 0; i < conf->n; i++)
        mutable->shown[i] = (struct cns_server){
            conf->servers[i].id, address_of(c, &conf->servers[i]), members_role(&conf->servers[i])};
    *n = conf->n;
    return c->shown;
}

bool cns_was_met(const struct cns *c, uint64_t id)
{
    return c->transport != NULL && cns_transport_met(c->transport, id);
}

unsigned cns_peer_port(const struct cns *c)
{
    return c->transport == NULL ? 0 : cns_transport_port(c->transport);
}
