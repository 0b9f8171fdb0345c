/* Room: node. Thread: loop.
 *
 * The loop's side of the journey of a write:
 *   connection -> session -> route -> [lane: run, seal] -> proposal -> consensus -> on_entry ->
 * [lane: publish]
 *   -> session_answer -> client */
#include "node/node.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/admin.h"
#include "node/confirm.h"
#include "node/connection.h"
#include "node/disk_watch.h"
#include "node/fetch.h"
#include "node/gossip.h"
#include "node/image.h"
#include "node/join.h"
#include "node/http/door.h"
#include "node/http/hrana_held.h"
#include "node/http/hrana_stream.h"
#include "node/http/hrana_ws.h"
#include "node/http/writer_pool.h"
#include "node/key_keeper.h"
#include "node/listener.h"
#include "node/log_cut.h"
#include "node/members_view.h"
#include "node/meters.h"
#include "node/read_txn.h"
#include "node/repair.h"
#include "node/route.h"
#include "node/session.h"
#include "node/startup.h"
#include "node/upstream.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMER_MS     50   /* waits that end, requests tried again */
#define GOSSIP_TICKS 5    /* timer ticks between two tellings */
#define HAND_OVER_MS 3000 /* at most, before the node stops without having handed over */
#define FINISH_MS    3000 /* at most, for answers to what was taken */
#define PART_MS      250  /* for what is on its way as we close: it is told that it was not run */
#define LEAVE_MS     3000 /* for requests to come back, before the log is closed under them */

bool node_is_serving(const struct node *n)
{
    return n->role == CNS_LEADER && n->serving_term == n->term && !n->failed;
}

/* --- proposals --- */

static void free_proposal(struct lane_proposal *p)
{
    if (p->payload != NULL)
        cns_payload_unref(p->payload);
    free(p);
}

/* Hands the lane's entries to consensus, in order, as it has room. */
static void propose_all(struct node *n) ON_LOOP
{
    while (!list_empty(&n->proposals) && n->cns != NULL) {
        struct lane_proposal *p = LIST_ENTRY(n->proposals.next, struct lane_proposal, letter.link);
        uint64_t index;
        enum err e = cns_propose(n->cns, p->term, &p->payload, 1, &index);
        if (e == ERR_BUSY)
            return; /* on_room goes on */
        list_remove(&p->letter.link);
        if (e == ERR_OK)
            p->payload = NULL;
        if (e == ERR_OK && p->one_of_many) {
            p->letter.kind = LANE_PROPOSED;
            lane_send(n->lane, &p->letter);
            continue;
        }
        /* The leadership is lost: the lane hears of it too and waits for the log's word. Anything
         * else would leave a hole in the order of what the lane believes to have proposed. */
        if (e != ERR_OK && e != ERR_NOT_LEADER)
            node_fail(n, e, err_text());
        free_proposal(p);
    }
}

/* --- consensus --- */

static void on_entry(void *ctx, const struct cns_entry *e)
{
    struct node *n = ctx;
    thread_expect_loop();
    struct lane_entry *l = MEM_NEW(struct lane_entry);
    l->letter.kind = LANE_ENTRY;
    l->index = e->index;
    l->term = e->term;
    l->kind = e->kind;
    l->payload = e->payload == NULL ? NULL : cns_payload_ref(e->payload);
    lane_send(n->lane, &l->letter);
}

static void on_role(void *ctx, enum cns_role role, uint64_t term, uint64_t leader_id)
{
    struct node *n = ctx;
    thread_expect_loop();
    bool led = n->role == CNS_LEADER, leads = role == CNS_LEADER;
    bool stops = role == CNS_STOPPED && n->role != CNS_STOPPED;
    bool told = led != leads || (leads && term != n->term) || stops;
    if (role != n->role || term != n->term || leader_id != n->leader_id)
        log_info("node", "role=%s term=%" PRIu64 " leader=%" PRIu64,
                 leads                   ? "leader"
                 : role == CNS_FOLLOWER  ? "follower"
                 : role == CNS_CANDIDATE ? "candidate"
                                         : "stopped",
                 term, leader_id);
    if (leader_id != 0 && leader_id != n->leader_id)
        meters_count(METER_LEADER_SEEN, 1);
    n->role = role;
    n->term = term;
    n->leader_id = leader_id;
    n->accepted = n->accepted || leader_id != 0;
    if (told && n->lane_started) {
        struct lane_role *r = MEM_NEW(struct lane_role);
        r->letter.kind = LANE_ROLE;
        r->leader = leads;
        r->stopped = role == CNS_STOPPED;
        r->term = term;
        lane_send(n->lane, &r->letter);
    }
}

static void on_room(void *ctx)
{
    thread_expect_loop();
    propose_all(ctx);
}

static void on_message(void *ctx, uint64_t from, const uint8_t *p, size_t size)
{
    struct node *n = ctx;
    thread_expect_loop();
    if (gossip_hear(n->gossip, from, p, size) && n->stage < NODE_LEAVING)
        route_leader_changed(n);
}

void node_fail(struct node *n, enum err code, const char *sentence)
{
    if (n->failed)
        return;
    n->failed = true;
    (void)snprintf(n->failure, sizeof n->failure, "this node stopped serving: %s", sentence);
    log_error("node", "failed error=%s reason=\"%s\"", err_name((int)code), sentence);
    repair_damage(n, code, sentence);
    route_refuse_all(n, ERR_STOPPED, n->failure);
    if (n->cns != NULL)
        gossip_tell(n->gossip);
}

static void on_failed(void *ctx, enum err code, const char *sentence)
{
    struct node *n = ctx;
    thread_expect_loop();
    /* A wiped or removed node that comes back: it must not look alive. One that was with us until
     * now stays, and says in its status what happened. */
    n->refused = code == ERR_CONFIG && !n->accepted;
    /* The log is not the database: no other node's state helps it. */
    node_fail(n, code == ERR_CORRUPT || code == ERR_DIVERGED ? ERR_STOPPED : code, sentence);
}

static void on_behind(void *ctx, uint64_t leader_id, uint64_t first)
{
    thread_expect_loop();
    repair_behind(ctx, leader_id, first);
}

static void on_members(void *ctx)
{
    struct node *n = ctx;
    thread_expect_loop();
    join_look(n);
    if (n->gossip != NULL)
        gossip_tell(n->gossip);
}

/* --- letters --- */

static void on_applied(struct node *n, const struct lane_applied *a) ON_LOOP
{
    n->applied_index = a->index;
    if (n->cns != NULL)
        cns_applied(n->cns, a->index);
    route_applied(n);
    hrana_streams_applied(n);
}

static void on_serving(struct node *n, const struct lane_serving *s) ON_LOOP
{
    n->serving_term = s->term;
    key_keeper_lead(n->key_keeper);
    if (n->cns != NULL)
        gossip_tell(n->gossip);
    route_leader_changed(n);
}

static void handle(struct node *n, struct letter *letter) ON_LOOP
{
    struct request *r;
    switch (letter->kind) {
    case LOOP_PROPOSAL:
        list_push_back(&n->proposals, &letter->link);
        propose_all(n);
        return;
    case LOOP_APPLIED:
        on_applied(n, (struct lane_applied *)letter);
        free(letter);
        return;
    case LOOP_SERVING:
        on_serving(n, (struct lane_serving *)letter);
        free(letter);
        return;
    case LOOP_FAILED:
        node_fail(n, ((struct lane_failed *)letter)->code, ((struct lane_failed *)letter)->text);
        free(letter);
        return;
    case LOOP_CUT:
        log_cut_go(n, (struct lane_cut *)letter);
        return;
    case LOOP_IMAGE:
        image_opened(n, (struct lane_image *)letter);
        free(letter);
        return;
    case LOOP_IMAGE_READ:
        image_was_read((struct request *)letter);
        return;
    case LOOP_IMAGE_CLOSED:
        image_closed((struct image *)letter);
        return;
    case LOOP_FETCHED:
        repair_ended(n);
        return;
    case LOOP_STOPPED:
        n->lane_stopped = true;
        free(letter);
        return;
    case LOOP_ANSWER:
        r = (struct request *)letter;
        session_answer(r->session, r);
        return;
    case LOOP_CONFIRM:
        confirm_answer(n, (struct request *)letter);
        return;
    case LOOP_ROWS:
        r = (struct request *)letter;
        session_rows(r->session, r);
        return;
    case LANE_REQUEST:
    case LANE_ENTRY:
    case LANE_ROLE:
    case LANE_GONE:
    case LANE_USED:
    case LANE_PROPOSED:
    case LANE_STOP:
    case LANE_CUT:
    case LANE_IMAGE:
    case IMAGE_READ:
    case IMAGE_CLOSE:
    case READ_REQUEST:
        break;
    }
    UNREACHABLE("a letter of another thread");
}

static void take_mail(struct node *n) ON_LOOP
{
    struct list letters, *i;
    list_init(&letters);
    mail_take(&n->mail, &letters);
    while ((i = list_pop_front(&letters)) != NULL)
        handle(n, LIST_ENTRY(i, struct letter, link));
}

static void on_wake(uv_async_t *async)
{
    thread_expect_loop();
    take_mail(async->data);
}

/* The lane's requests of this turn. */
static void on_before_sleep(uv_prepare_t *handle)
{
    struct node *n = handle->data;
    thread_expect_loop();
    hrana_streams_go_on(n);
    hrana_ws_go_on(n);
    if (!list_empty(&n->hrana_rests))
        (void)uv_async_send(&n->wake);
    if (n->lane != NULL)
        lane_flush(n->lane);
}

static void on_after_sleep(uv_check_t *handle)
{
    struct node *n = handle->data;
    thread_expect_loop();
    if (n->lane != NULL)
        lane_flush(n->lane);
}

static void wake(void *async)
{
    (void)uv_async_send(async);
}

/* --- stopping --- */

static void set_stage(struct node *n, enum node_stage stage)
{
    n->stage = stage;
    n->stage_since_ms = clock_mono_ms();
}

static void on_cns_stopped(void *ctx)
{
    struct node *n = ctx;
    thread_expect_loop();
    n->cns_stopped = true;
    n->lane_stopped = !n->lane_started;
    if (n->lane_stopped)
        return;
    struct lane_stop *s = MEM_NEW(struct lane_stop);
    s->letter.kind = LANE_STOP;
    lane_send(n->lane, &s->letter);
}

static void leave(struct node *n) ON_LOOP
{
    set_stage(n, NODE_LEAVING);
    route_refuse_all(n, ERR_STOPPED, "this node is stopping");
    connections_close_all(n);
    if (n->door != NULL)
        http_listener_close(n->door);
    n->door = NULL;
    hrana_held_free(n->held); /* their transactions are rolled back */
    n->held = NULL;
    upstream_close_all(n);
}

static void finish_requests(struct node *n) ON_LOOP
{
    set_stage(n, NODE_FINISHING);
    connections_wind_down(n);
    if (n->door != NULL)
        http_listener_refuse(n->door);
}

static bool has_finished(const struct node *n) ON_LOOP
{
    return list_empty(&n->connections) && (n->door == NULL || http_listener_is_quiet(n->door));
}

static void part(struct node *n) ON_LOOP
{
    set_stage(n, NODE_PARTING);
    if (n->door != NULL)
        http_listener_deafen(n->door);
}

static void begin_stop(struct node *n) ON_LOOP
{
    if (n->stage != NODE_SERVING)
        return;
    log_info("node", "stopping%s", n->again ? " to be opened again" : "");
    listener_close(n->listener);
    n->listener = NULL;
    if (n->door != NULL)
        http_listener_wind_down(n->door);
    if (n->fetch != NULL)
        fetch_cancel(n->fetch);
    if (n->cns != NULL && n->role == CNS_LEADER &&
        cns_transfer(n->cns, member_next_leader(n)) == ERR_OK)
        set_stage(n, NODE_HANDING_OVER);
    else
        finish_requests(n);
}

static void on_signal(uv_signal_t *sig, int number)
{
    struct node *n = sig->data;
    thread_expect_loop();
    (void)number;
    n->again = false; /* also when it stops already, to be opened again */
    begin_stop(n);
}

void node_restart(struct node *n)
{
    if (n->stage != NODE_SERVING)
        return;
    n->again = true;
    begin_stop(n);
}

static void end_loop(struct node *n) ON_LOOP
{
    set_stage(n, NODE_ENDED);
    uv_close((uv_handle_t *)&n->timer, NULL);
    uv_close((uv_handle_t *)&n->before_sleep, NULL);
    uv_close((uv_handle_t *)&n->after_sleep, NULL);
    uv_close((uv_handle_t *)&n->sigterm, NULL);
    uv_close((uv_handle_t *)&n->sigint, NULL);
    uv_close((uv_handle_t *)&n->wake, NULL);
}

static void go_on_stopping(struct node *n, uint64_t now_ms) ON_LOOP
{
    if (n->stage == NODE_HANDING_OVER &&
        (n->role != CNS_LEADER || now_ms > n->stage_since_ms + HAND_OVER_MS))
        finish_requests(n);
    if (n->stage == NODE_FINISHING) /* who may ask no more must not keep others waiting */
        hrana_held_clear(n->held);
    if (n->stage == NODE_FINISHING && (has_finished(n) || now_ms > n->stage_since_ms + FINISH_MS))
        part(n);
    if (n->stage == NODE_PARTING && (n->door == NULL || http_listener_connections(n->door) == 0 ||
                                     now_ms > n->stage_since_ms + PART_MS))
        leave(n);
    bool patient = now_ms <= n->stage_since_ms + LEAVE_MS;
    if (n->stage == NODE_LEAVING && n->cns != NULL && (list_empty(&n->sessions) || !patient)) {
        struct cns *cns = n->cns;
        confirm_refuse_all(n, ERR_STOPPED, "this node is stopping");
        n->cns = NULL; /* nothing is proposed or told from here on */
        LIST_EACH(i, &n->proposals)
            free_proposal(LIST_ENTRY(i, struct lane_proposal, letter.link));
        list_init(&n->proposals);
        cns_stop(cns, on_cns_stopped, n);
    }
    if (n->stage == NODE_LEAVING && n->lane_stopped && list_empty(&n->sessions) &&
        images_none(n->images) && n->fetch == NULL)
        end_loop(n);
}

/* A leader that cannot serve must not lead. */
static void try_transfer(struct node *n) ON_LOOP
{
    if (cns_transfer(n->cns, member_next_leader(n)) != ERR_OK)
        log_debug("node", "cannot hand over yet: %s", err_text());
}

static void on_timer(uv_timer_t *timer)
{
    struct node *n = timer->data;
    thread_expect_loop();
    uint64_t now = clock_mono_ms();
    if (n->cns != NULL && (++n->ticks % GOSSIP_TICKS == 0 || gossip_moved(n->gossip)))
        gossip_tell(n->gossip);
    if (n->cns != NULL && n->failed && n->role == CNS_LEADER)
        try_transfer(n);
    if (n->stage < NODE_LEAVING)
        route_timer(n, now);
    connections_timer(n, now);
    sessions_timer(n, now);
    read_txns_timer(n, now);
    hrana_streams_timer(n, now);
    hrana_held_timer(n->held, now);
    upstream_timer(n, now);
    if (n->readers != NULL)
        readers_expire(n->readers, now);
    images_timer(n, now);
    disk_watch_timer(n->disk, now);
    if (n->stage == NODE_SERVING) {
        admin_tend(n, now);
        join_look(n);
        log_cut_timer(n);
        repair_timer(n, now);
    }
    if (n->refused)
        begin_stop(n);
    go_on_stopping(n, now);
}

/* --- opening --- */

static void open_handles(struct node *n) ON_LOOP
{
    int rc = uv_async_init(&n->loop, &n->wake, on_wake);
    rc = rc != 0 ? rc : uv_timer_init(&n->loop, &n->timer);
    rc = rc != 0 ? rc : uv_prepare_init(&n->loop, &n->before_sleep);
    rc = rc != 0 ? rc : uv_check_init(&n->loop, &n->after_sleep);
    rc = rc != 0 ? rc : uv_signal_init(&n->loop, &n->sigterm);
    rc = rc != 0 ? rc : uv_signal_init(&n->loop, &n->sigint);
    CHECK(rc == 0);
    n->before_sleep.data = n->after_sleep.data = n;
    n->wake.data = n->timer.data = n->sigterm.data = n->sigint.data = n;
    mail_init(&n->mail, wake, &n->wake);
    /* From the beginning: a signal while the node opens its files is heeded when the loop runs. */
    (void)uv_signal_start(&n->sigterm, on_signal, SIGTERM);
    (void)uv_signal_start(&n->sigint, on_signal, SIGINT);
}

/* BASE: a new directory begins behind it; NULL: it is bootstrapped with the members of --cluster.
 */
static enum err open_consensus(struct node *n, const struct cns_snapshot *base) ON_LOOP
{
    struct config_member members[CLUSTER_MAX];
    struct cns_server servers[CLUSTER_MAX];
    const struct config *c = n->config;
    unsigned n_members = 0;
    if (base == NULL && join_has_no_log(n))
        return ERR_OK;
    if (c->cluster[0] != 0)
        TRY(config_members(c->cluster, members, &n_members));
    for (unsigned i = 0; i < n_members; i++)
        servers[i] = (struct cns_server){members[i].id, members[i].address, CNS_VOTER};
    char *dir = mem_printf("%s/raft", c->data);
    struct cns_config cc = {
        .dir = dir,
        .cluster_id = c->cluster_id,
        .id = c->id,
        .listen = c->peer_listen,
        .servers = servers,
        .n_servers = n_members,
        .base = base,
        .segment_bytes = log_cut_segment_bytes(c->log_keep_bytes),
        .election_ms = (unsigned)c->election_ms,
        .heartbeat_ms = (unsigned)c->heartbeat_ms,
        .handler = {n, on_entry, on_role, on_room, on_message, on_failed, on_behind, on_members},
    };
    enum err e = cns_open(&cc, &n->cns);
    free(dir);
    config_members_free(members, n_members);
    TRY(e);
    return identity_note_begun(c->data, &n->past->who);
}

/* The log and the database, and how they fit together: startup.c. */
static enum err open_files(struct node *n, uint64_t *applied) ON_LOOP
{
    struct startup s;
    TRY(startup_look(n->config, &s));
    enum err e = open_consensus(n, s.complete ? &s.base : NULL);
    if (e == ERR_OK)
        e = startup_database(n, &s, applied);
    startup_fini(&s);
    return e;
}

/* Without a database: the log takes part, clients get STATUS, a thread fetches. */
static enum err open_without_database(struct node *n) ON_LOOP
{
    n->lane_stopped = n->cns_stopped = true; /* they never begin; cns_stop says its own word */
    (void)uv_prepare_start(&n->before_sleep, on_before_sleep);
    TRY(listener_open(n, &n->listener));
    TRY(door_open(n, &n->door));
    if (n->cns != NULL)
        TRY(cns_start(n->cns, &n->loop, CNS_HELD));
    return repair_begin(n);
}

static enum err open_all(struct node *n) ON_LOOP
{
    uint64_t applied = 0;
    TRY(open_files(n, &applied));
    n->applied_index = applied;
    n->began_empty = applied == 0;
    n->gossip = gossip_new(n);
    n->images = images_new(n);
    n->disk = disk_watch_new(n);
    if (n->lane == NULL)
        return open_without_database(n);
    TRY(readers_open(n->config, lane_db(n->lane), &n->mail, &n->readers));
    TRY(listener_open(n, &n->listener));
    TRY(door_open(n, &n->door));
    TRY(lane_start(n->lane, applied));
    n->lane_started = true;
    /* Before consensus starts its own: libuv runs the newest prepare handle first, and what the end
     * of its turn asks of the lane must leave before the loop sleeps. */
    (void)uv_prepare_start(&n->before_sleep, on_before_sleep);
    (void)uv_check_start(&n->after_sleep, on_after_sleep);
    return cns_start(n->cns, &n->loop, applied);
}

/* Opening failed: gives everything back. */
static void abandon(struct node *n) ON_LOOP
{
    char sentence[ERR_TEXT_MAX];
    (void)snprintf(sentence, sizeof sentence, "%s", err_text());
    if (n->listener != NULL)
        listener_close(n->listener);
    if (n->door != NULL)
        http_listener_close(n->door);
    struct cns *cns = n->cns;
    n->cns = NULL;
    if (cns != NULL)
        cns_stop(cns, on_cns_stopped, n);
    while (n->lane_started && !n->lane_stopped) /* on_cns_stopped told it to */
        (void)uv_run(&n->loop, UV_RUN_ONCE);
    end_loop(n);
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    node_close(n);
    (void)err_fail(ERR_IO, "%s", sentence);
}

enum err node_open(struct node *n, const struct config *config, struct node_past *past)
{
    *n = (struct node){.config = config, .past = past, .role = CNS_FOLLOWER};
    list_init(&n->proposals);
    list_init(&n->connections);
    list_init(&n->sessions);
    waiting_init(&n->waiting, config->waiting_bytes,
                 config->connections_max + config->http_connections_max);
    list_init(&n->watched);
    list_init(&n->snapshots);
    list_init(&n->hrana_waits);
    list_init(&n->hrana_cancels);
    list_init(&n->hrana_rests);
    list_init(&n->hrana_sockets);
    n->writers = writer_pool_new();
    n->held = hrana_held_new(n);
    n->key_keeper = key_keeper_new(n);
    list_init(&n->leader_links);
    list_init(&n->wait_leader);
    list_init(&n->wait_seq);
    list_init(&n->wait_admin);
    list_init(&n->wait_reads);
    list_init(&n->confirms);
    if (uv_loop_init(&n->loop) != 0)
        return err_fail(ERR_IO, "cannot make an event loop");
    open_handles(n);
    enum err e = open_all(n);
    if (e != ERR_OK) {
        abandon(n);
        return e;
    }
    (void)uv_timer_start(&n->timer, on_timer, TIMER_MS, TIMER_MS);
    set_stage(n, NODE_SERVING);
    log_info("node", "%s listen=%s peers=%s http=%s data=%s seq=%" PRIu64,
             n->lane == NULL ? "held" : "ready", config->listen, config->peer_listen,
             config->http_listen[0] == 0 ? "none" : config->http_listen, config->data,
             n->lane == NULL ? 0 : repl_db_published(lane_db(n->lane)));
    return ERR_OK;
}

void node_run(struct node *n)
{
    thread_expect_loop();
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
}

/* Words of damage that came while all was closed: the next start finds it again. */
static void drop_mail(struct node *n)
{
    struct list letters, *i;
    list_init(&letters);
    mail_take(&n->mail, &letters);
    while ((i = list_pop_front(&letters)) != NULL) {
        struct letter *letter = LIST_ENTRY(i, struct letter, link);
        if (letter->kind == LOOP_FAILED)
            log_warn("node", "at-the-end reason=\"%s\"", ((struct lane_failed *)letter)->text);
        free(letter);
    }
}

void node_close(struct node *n)
{
    LIST_EACH(i, &n->proposals)
        free_proposal(LIST_ENTRY(i, struct lane_proposal, letter.link));
    fetch_free(n->fetch);
    if (n->readers != NULL)
        readers_close(n->readers);
    images_free(n->images);
    if (n->lane != NULL)
        lane_close(n->lane);
    disk_watch_free(n->disk);
    gossip_free(n->gossip);
    hrana_held_free(n->held); /* of a node that was never opened whole */
    writer_pool_free(n->writers);
    key_keeper_free(n->key_keeper);
    drop_mail(n);
    mail_fini(&n->mail);
    int rc = uv_loop_close(&n->loop);
    CHECK(rc == 0);
    CHECK(n->waiting.bytes == 0); /* all who held any are gone */
}
