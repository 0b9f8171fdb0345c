/* Room: node. Thread: owner (lane_open and lane_close: main).
 *
 * The lane's turn: take the letters, handle them in order, run what may run, look after the WAL.
 * While a statement runs, lane_tick (from SQLite's progress handler) goes on publishing what the
 * cluster has committed, so that a long statement delays its own answer only. */
#include "node/lane_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/trace.h"
#include "node/meters.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMER_MS         50   /* between two looks at the limits of open transactions */
#define ROOM_MS          200  /* between two looks for room on a full disk */
#define IDLE_MS          1000 /* a turn with nothing to do */
#define WAL_FAR_TOO_LONG 4    /* times wal-restart */
#define SCRUB_PAGES      256  /* pages compared with their hashes in an idle turn: 1 MiB a second */

/* --- answers and failure --- */

/* An answer without a commit behind it may be a deposed leader's: the loop asks a majority first.
 */
static void seal_answer(struct lane *l, struct request *r) ON_OWNER
{
    r->letter.kind = r->needs_confirm ? LOOP_CONFIRM : LOOP_ANSWER;
    if (r->interactive)
        lane_note_answer(l, r);
}

void lane_answer(struct lane *l, struct request *r)
{
    list_init(&r->letter.link);
    seal_answer(l, r);
    mail_send(l->loop, &r->letter.link);
}

void lane_answer_all(struct lane *l, struct list *requests)
{
    LIST_EACH(i, requests)
        seal_answer(l, LIST_ENTRY(i, struct request, letter.link));
    mail_send_all(l->loop, requests);
}

static void answer_queue(struct lane *l, struct list *q, enum err code,
                         const char *sentence) ON_OWNER
{
    struct list *i;
    while ((i = list_pop_front(q)) != NULL) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        r->answer.in_transaction = false;
        /* ERR_NOT_LEADER lets its session run it elsewhere: never a part of a transaction. */
        if (code == ERR_NOT_LEADER && lane_has_transaction(l, r->session_id)) {
            r->interactive = true;
            request_fail(r, ERR_TXN_LOST, "the transaction was rolled back: the leader changed");
        } else {
            request_fail(r, code, sentence);
        }
        lane_answer(l, r);
    }
}

static void empty_queues(struct lane *l, enum err code, const char *sentence) ON_OWNER
{
    answer_queue(l, &l->queue, code, sentence);
    answer_queue(l, &l->stalled, code, sentence);
}

void lane_fail(struct lane *l, enum err code)
{
    if (l->failed)
        return;
    l->failed = true;
    struct lane_failed *f = MEM_NEW(struct lane_failed);
    f->letter.kind = LOOP_FAILED;
    f->code = code;
    (void)snprintf(f->text, sizeof f->text, "%s", err_text());
    log_error("lane", "stopped seq=%" PRIu64 " reason=\"%s\"", repl_db_published(l->db), f->text);
    mail_send(l->loop, &f->letter.link);
}

/* --- leading --- */

static void start_leading(struct lane *l) ON_OWNER
{
    sqlite3 *conn;
    CHECK(l->view == NULL && l->n_flights == 0);
    repl_db_apply_reset(l->db);
    enum err e = repl_view_open(l->db, &l->view);
    if (e == ERR_OK)
        e = repl_view_connect(l->view, &conn);
    if (e != ERR_OK) {
        lane_fail(l, e);
        return;
    }
    l->group = sqlconn_new(conn, lane_tick, l);
    sqlconn_forbid_transactions(l->group, true);
    l->group_foreign_keys = true;
    l->term = l->role_term;
    struct lane_serving *s = MEM_NEW(struct lane_serving);
    s->letter.kind = LOOP_SERVING;
    s->term = l->term;
    mail_send(l->loop, &s->letter.link);
    log_info("lane", "serving term=%" PRIu64 " seq=%" PRIu64, l->term, repl_view_seq(l->view));
}

static void stop_leading(struct lane *l) ON_OWNER
{
    if (l->view == NULL)
        return;
    log_info("lane", "stepping-down term=%" PRIu64 " published=%" PRIu64 " sealed=%" PRIu64,
             l->term, repl_db_published(l->db), repl_view_seq(l->view));
    lane_doubt(l);
    outcomes_lose(l->outcomes);
    lane_end_all(l, "the transaction was rolled back: the leader changed");
    sqlconn_close(l->group);
    l->group = NULL;
    repl_view_close(l->view);
    l->view = NULL;
    l->term = 0;
    l->wants_quiet = false;
    empty_queues(l, ERR_NOT_LEADER, "the leader changed before this was run");
}

/* --- letters --- */

static void free_entry(struct lane_entry *e)
{
    if (e->payload != NULL)
        cns_payload_unref(e->payload);
    free(e);
}

/* Frees a letter that nobody will handle; not a request, which has a client. */
static void discard(struct letter *letter)
{
    if (letter->kind == LANE_ENTRY)
        free_entry((struct lane_entry *)letter);
    else
        free(letter); /* a proposal that comes back has no payload any more */
}

static bool is_own(const struct lane *l, const struct lane_entry *e) ON_OWNER
{
    return l->view != NULL && e->term == l->term;
}

/* The entry finished a transaction: what it says of numbered writes. */
static enum err apply_outcomes(struct lane *l, const struct lane_entry *e) ON_OWNER
{
    struct repl_entry entry;
    TRY(repl_entry_read(e->payload->data, e->payload->len, &entry));
    return outcomes_apply(l->outcomes, entry.seq, entry.section, entry.section_len);
}

/* As a follower. */
static enum err apply(struct lane *l, const struct lane_entry *e) ON_OWNER
{
    CHECK(l->view == NULL);     /* opened at its own term's barrier, closed before any later term */
    if (e->kind == CNS_BARRIER) /* what the last leader did not finish never comes */
        repl_db_apply_reset(l->db);
    uint64_t before = repl_db_published(l->db);
    enum err err =
        e->kind == CNS_COMMAND ? repl_db_apply(l->db, e->payload->data, e->payload->len) : ERR_OK;
    if (err == ERR_OK && repl_db_published(l->db) != before)
        err = apply_outcomes(l, e);
    if (err == ERR_OK && e->kind == CNS_COMMAND)
        meters_count(METER_APPLIED, 1);
    if (err == ERR_OK)
        lane_judge(l, e);
    else if (err != ERR_FULL)
        lane_fail(l, err);
    return err;
}

/* False: the disk has no room for it, and nothing happened. */
static bool on_entry(struct lane *l, struct lane_entry *e) ON_OWNER
{
    if (l->failed)
        return true; /* not counted as applied: what this node shows stands still */
    CHECK(e->index == l->applied_index + 1);
    if (!is_own(l, e)) {
        if (apply(l, e) == ERR_FULL)
            return false;
    } else if (e->kind == CNS_COMMAND && !lane_arrive(l)) {
        return false;
    }
    if (l->failed)
        return true;
    l->applied_index = e->index;
    lane_note_entry(l, e);
    if (e->kind == CNS_BARRIER && l->leader && e->term == l->role_term && l->view == NULL)
        start_leading(l);
    return true;
}

/* False: as on_entry. */
static bool on_role(struct lane *l, const struct lane_role *r) ON_OWNER
{
    trace("role", r->term, r->leader);
    if (!r->leader || r->term != l->role_term) {
        if (!l->failed && !lane_keep_parts(l))
            return false;
        stop_leading(l);
    }
    if (r->stopped) /* what is in doubt will never be known here: its clients must not wait */
        lane_give_up(l, UINT64_MAX);
    l->leader = r->leader;
    l->role_term = r->term;
    return true;
}

/* --- no room on the disk ------------------------------------------------------------------------
 *
 * An entry or a change of role that finds the disk full stays the first of its kind in `letters`,
 * and is tried again; all others of its kind wait behind it, and so do the answers. */

static bool is_ordered(const struct letter *letter)
{
    return letter->kind == LANE_ENTRY || letter->kind == LANE_ROLE;
}

static void wait_for_room(struct lane *l, struct letter *letter) ON_OWNER
{
    if (l->room_tried_ms == 0)
        log_warn("lane", "waits-for-room seq=%" PRIu64 " reason=\"%s\"", repl_db_published(l->db),
                 err_text());
    list_push_front(&l->letters, &letter->link);
    l->waits_for_room = true;
    l->room_tried_ms = clock_mono_ms();
}

static void look_for_room(struct lane *l) ON_OWNER
{
    if (l->waits_for_room && clock_mono_ms() >= l->room_tried_ms + ROOM_MS)
        l->waits_for_room = false;
}

static void found_room(struct lane *l) ON_OWNER
{
    if (l->room_tried_ms != 0)
        log_info("lane", "room-again seq=%" PRIu64, repl_db_published(l->db));
    l->room_tried_ms = 0;
}

/* The client has seen more than this leader has: another one leads by now. */
static bool is_behind(const struct lane *l, const struct request *r) ON_OWNER
{
    return r->query.level == WIRE_SESSION && r->query.min_seq > repl_view_seq(l->view);
}

static void on_request(struct lane *l, struct request *r) ON_OWNER
{
    bool within = lane_has_transaction(l, r->session_id) && !request_is_resolve(r);
    r->needs_confirm = r->tried = false;
    if (l->failed) {
        request_fail(r, ERR_STOPPED, "this node stopped serving: see its log");
        lane_answer(l, r);
    } else if (!within && (l->view == NULL || is_behind(l, r))) {
        request_fail(r, ERR_NOT_LEADER, "this node does not lead");
        lane_answer(l, r);
    } else if (request_is_resolve(r)) {
        lane_resolve(l, r);
    } else if (!within && (r->is_batch || r->kind != SQL_TRANSACTION)) {
        list_push_back(&l->queue, &r->letter.link);
    } else if (!lane_is_holder(l, r) && !(list_empty(&l->queue) && list_empty(&l->stalled))) {
        list_push_back(&l->stalled, &r->letter.link); /* in turn with those who wait */
    } else {
        lane_run_interactive(l, r);
    }
}

static void handle(struct lane *l, struct letter *letter) ON_OWNER
{
    switch (letter->kind) {
    case LANE_REQUEST:
        on_request(l, (struct request *)letter);
        return;
    case LANE_ENTRY:
        if (!on_entry(l, (struct lane_entry *)letter)) {
            wait_for_room(l, letter);
            return;
        }
        free_entry((struct lane_entry *)letter);
        found_room(l);
        return;
    case LANE_ROLE:
        if (!on_role(l, (struct lane_role *)letter)) {
            wait_for_room(l, letter);
            return;
        }
        free(letter);
        found_room(l);
        return;
    case LANE_PROPOSED:
        lane_proposed(l, (struct lane_proposal *)letter);
        free(letter);
        return;
    case LANE_GONE:
        lane_end_session(l, ((struct lane_session *)letter)->session_id);
        free(letter);
        return;
    case LANE_USED:
        lane_note_use(l, ((struct lane_session *)letter)->session_id);
        free(letter);
        return;
    case LANE_STOP:
        l->stop = (struct lane_stop *)letter;
        l->stopping = true;
        return;
    case LANE_CUT:
        lane_begin_cut(l, (struct lane_cut *)letter);
        return;
    case LANE_IMAGE:
        lane_open_image(l, (struct lane_image *)letter);
        return;
    case IMAGE_READ:
    case IMAGE_CLOSE:
    case LOOP_IMAGE_READ:
    case LOOP_IMAGE_CLOSED:
    case LOOP_IMAGE:
    case LOOP_CUT:
    case LOOP_FETCHED:
    case READ_REQUEST:
    case LOOP_PROPOSAL:
    case LOOP_APPLIED:
    case LOOP_SERVING:
    case LOOP_FAILED:
    case LOOP_STOPPED:
    case LOOP_ANSWER:
    case LOOP_CONFIRM:
    case LOOP_ROWS:
        break;
    }
    UNREACHABLE("a letter of another thread");
}

/* Takes out the first that need not wait. (A statement that it runs may take out others.) */
static struct letter *next_letter(struct lane *l) ON_OWNER
{
    LIST_EACH(i, &l->letters) {
        struct letter *letter = LIST_ENTRY(i, struct letter, link);
        if (l->waits_for_room && is_ordered(letter))
            continue;
        list_remove(i);
        return letter;
    }
    return NULL;
}

static void handle_letters(struct lane *l) ON_OWNER
{
    struct letter *letter;
    look_for_room(l);
    while (!l->stopping && (letter = next_letter(l)) != NULL)
        handle(l, letter);
}

bool lane_tick(void *arg)
{
    struct lane *l = arg;
    thread_expect_owner();
    mail_take(&l->inbox, &l->letters);
    look_for_room(l);
    LIST_EACH(i, &l->letters) {
        struct letter *letter = LIST_ENTRY(i, struct letter, link);
        if (letter->kind == LANE_REQUEST || letter->kind == LANE_GONE || letter->kind == LANE_USED)
            continue; /* after the running statement */
        bool own = letter->kind == LANE_ENTRY && is_own(l, (struct lane_entry *)letter);
        if (letter->kind == LANE_ROLE || letter->kind == LANE_STOP ||
            (letter->kind == LANE_ENTRY && !own))
            return true; /* the leadership is lost, or the node stops: the statement is in vain */
        if (own && l->waits_for_room)
            continue;
        list_remove(i);
        handle(l, letter);
    }
    return l->failed;
}

/* --- the turn --- */

void lane_tell_applied(struct lane *l)
{
    if (l->told_index == l->applied_index)
        return;
    l->told_index = l->applied_index;
    struct lane_applied *a = MEM_NEW(struct lane_applied);
    a->letter.kind = LOOP_APPLIED;
    a->index = l->applied_index;
    a->seq = repl_db_published(l->db);
    mail_send(l->loop, &a->letter.link);
}

static void look_after_wal(struct lane *l) ON_OWNER
{
    bool open = lane_open_transactions(l) > 0, quiet = l->n_flights == 0 && !open, wants = false;
    enum err e = repl_db_upkeep(l->db, quiet, &wants);
    if (e != ERR_OK)
        lane_fail(l, e);
    /* Nobody waits for an open transaction: it may be idle. But when the WAL has grown far beyond
     * its size, no new ones begin, so that the last one's limit makes the quiet moment. */
    struct repl_stats stats;
    repl_db_stats(l->db, &stats);
    l->wants_quiet = wants && l->view != NULL && !open;
    l->bars_begins = wants && l->view != NULL &&
                     stats.wal_bytes > WAL_FAR_TOO_LONG * l->config->wal_restart_bytes;
}

static void run(struct lane *l) ON_OWNER
{
    while (!list_empty(&l->queue) && lane_can_run(l)) {
        lane_run_batch(l);
        look_after_wal(l);
        (void)lane_tick(l); /* what was committed meanwhile; the rest at the next turn */
    }
    /* After the batches, and before those that come next: they take turns. */
    if (!list_empty(&l->stalled) && !l->failed)
        lane_retry_stalled(l);
}

static uint64_t patience(const struct lane *l) ON_OWNER
{
    bool timers = lane_open_transactions(l) > 0 || !list_empty(&l->doubtful) ||
                  !list_empty(&l->stalled) || !list_empty(&l->queue) || l->wants_quiet ||
                  l->waits_for_room;
    return !list_empty(&l->letters) && !l->waits_for_room ? 0
           : timers || l->cut != NULL                     ? TIMER_MS
                                                          : IDLE_MS;
}

static void turn(struct lane *l) ON_OWNER
{
    uint64_t patient = patience(l);
    mail_wait(&l->inbox, &l->letters, patient);
    bool idle = list_empty(&l->letters) && patient == IDLE_MS;
    handle_letters(l);
    uint64_t now = clock_mono_ms();
    lane_end_overdue(l, now);
    lane_give_up(l, now);
    if (now >= l->queue_looked_ms + TIMER_MS) {
        l->queue_looked_ms = now;
        lane_drop_overdue(l, &l->queue, now);
    }
    if (l->failed && l->view != NULL)
        stop_leading(l); /* what is in flight cannot be shown here: its clients must not wait */
    if (l->failed) {
        lane_give_up(l, UINT64_MAX);
        empty_queues(l, ERR_STOPPED, "this node stopped serving: see its log");
    } else {
        look_after_wal(l);
    }
    run(l);
    lane_tell_applied(l);
    lane_finish_cut(l);
    if (idle && !l->failed) {
        enum err e = repl_db_scrub(l->db, SCRUB_PAGES);
        if (e != ERR_OK)
            lane_fail(l, e);
    }
}

/* Nothing is lost by stopping: what is in flight is in the log, and its clients hear "unknown". */
static void finish(struct lane *l) ON_OWNER
{
    struct list *i;
    stop_leading(l);
    lane_free_itxns(l);
    LIST_EACH(d, &l->doubtful)
        LIST_ENTRY(d, struct flight, link)->sent_ns = 0;
    lane_give_up(l, UINT64_MAX);
    LIST_EACH(d, &l->doubtful)
        lane_free_flight(LIST_ENTRY(d, struct flight, link));
    empty_queues(l, ERR_STOPPED, "this node is stopping");
    mail_take(&l->inbox, &l->letters);
    while ((i = list_pop_front(&l->letters)) != NULL) {
        struct letter *letter = LIST_ENTRY(i, struct letter, link);
        if (letter->kind == LANE_REQUEST) {
            request_fail((struct request *)letter, ERR_STOPPED, "this node is stopping");
            lane_answer(l, (struct request *)letter);
        } else if (letter->kind == LANE_IMAGE) {
            l->failed = true; /* answers that it is not there */
            lane_open_image(l, (struct lane_image *)letter);
        } else {
            discard(letter);
        }
    }
}

static void *lane_main(void *arg)
{
    struct lane *l = arg;
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    while (!l->stopping)
        turn(l);
    finish(l);
    l->stop->letter.kind = LOOP_STOPPED;
    mail_send(l->loop, &l->stop->letter.link);
    return NULL;
}

/* --- the door --- */

/* A page that somebody read is not what was written there. Any thread. */
static void on_damage(void *ctx, const char *sentence)
{
    struct lane *l = ctx;
    struct lane_failed *f = MEM_NEW(struct lane_failed);
    f->letter.kind = LOOP_FAILED;
    f->code = ERR_CORRUPT;
    (void)snprintf(f->text, sizeof f->text, "%s", sentence);
    mail_send(l->loop, &f->letter.link);
}

enum err lane_open(const struct config *config, struct mail *loop, struct lane **out)
{
    struct repl_config rc;
    struct lane *l = MEM_NEW(struct lane);
    l->loop = loop;
    char *path = mem_printf("%s/main.db", config->data);
    repl_config_init(&rc, path);
    rc.database_id = config->database_id;
    rc.txn_bytes_max = config->txn_bytes_max;
    rc.disk_reserve = config->disk_reserve_bytes;
    rc.wal_checkpoint_bytes = config->wal_checkpoint_bytes;
    rc.wal_restart_bytes = config->wal_restart_bytes;
    rc.on_damage = on_damage;
    rc.ctx = l;
    enum err e = repl_db_open(&rc, &l->db);
    free(path);
    if (e != ERR_OK) {
        free(l);
        return e;
    }
    l->config = config;
    l->outcomes = outcomes_new(OUTCOMES_BYTES_MAX);
    outcomes_begin(l->outcomes, repl_db_published(l->db));
    buf_init(&l->section, OUTCOMES_SECTION_MAX);
    mail_init(&l->inbox, NULL, NULL);
    list_init(&l->outbox);
    list_init(&l->letters);
    list_init(&l->queue);
    list_init(&l->stalled);
    list_init(&l->flights);
    list_init(&l->doubtful);
    list_init(&l->itxns);
    *out = l;
    return ERR_OK;
}

struct repl_db *lane_db(struct lane *l)
{
    return l->db;
}

struct outcomes *lane_outcomes(struct lane *l)
{
    return l->outcomes;
}

enum err lane_start(struct lane *l, uint64_t applied)
{
    l->applied_index = l->told_index = l->clean_index = applied;
    TRY(thread_start(&l->thread, "owner", lane_main, l));
    l->started = true;
    return ERR_OK;
}

void lane_send(struct lane *l, struct letter *letter)
{
    list_push_back(&l->outbox, &letter->link);
    if (letter->kind != LANE_REQUEST)
        lane_flush(l);
}

void lane_flush(struct lane *l)
{
    if (!list_empty(&l->outbox))
        mail_send_all(&l->inbox, &l->outbox);
}

/* Letters that were sent after the thread ended: sessions that said goodbye late. */
static void drain(struct lane *l)
{
    struct list *i;
    list_splice(&l->letters, &l->outbox);
    mail_take(&l->inbox, &l->letters);
    while ((i = list_pop_front(&l->letters)) != NULL) {
        struct letter *letter = LIST_ENTRY(i, struct letter, link);
        if (letter->kind == LANE_REQUEST)
            request_free((struct request *)letter);
        else
            discard(letter);
    }
}

void lane_close(struct lane *l)
{
    if (l->started)
        (void)pthread_join(l->thread, NULL);
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    enum err e = repl_db_close(l->db);
    if (e != ERR_OK)
        log_error("lane", "close reason=\"%s\"", err_text());
    thread_become(THREAD_LOOP);
    drain(l);
    mail_fini(&l->inbox);
    free(l->cut);
    outcomes_free(l->outcomes);
    buf_fini(&l->section);
    free(l);
}
