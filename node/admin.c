/* Room: node. Thread: loop.
 *
 *   asked --cns_change--> changing --its entry is applied here--> answered
 *     |  ^                    '-- the entry was replaced by a later leader's --> the next leader
 *     |  '-- busy: another change is under way
 *     '--cns_transfer--> handing over --another one leads--> the next leader, or answered
 *
 * Whoever asks gets an answer that is true: DONE when the change is committed, ERROR when it was
 * not begun, UNKNOWN when it was and the time is over.
 *
 * A change that would leave fewer *reachable* voters than the new majority is refused: it would be
 * committed by the old majority and stop the cluster. So is one that would leave no voter to lead
 * who has the database. WIRE_CLUSTER_FORCE says that the operator knows better.
 *
 * Not here: the rules of Raft about changes (consensus). */
#include "node/admin.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/gossip.h"
#include "node/members_view.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS       30000 /* without a word of the client's */
#define PATIENCE_MAX_MS   3600000
#define TRANSFER_AGAIN_MS 2000 /* a hand-over that did not happen is begun again */
#define ALIVE_ELECTIONS   3    /* who answers still after so many election timeouts is alive */
#define TEND_TICKS        10   /* of the node's timer */

#define COLUMNS 5u /* of the answer */

enum step { ASKED, CHANGING, HANDING_OVER };

struct admin_request {
    struct wire_cluster w;
    enum step step;
    enum cns_change_kind kind; /* CHANGING */
    uint64_t id, index;        /* CHANGING: whom, and the entry */
    uint64_t asked_ms;         /* when it came here */
    uint64_t transfer_ms;      /* HANDING_OVER: when it was last begun */
};

struct admin_request *admin_request_new(const struct wire_cluster *w)
{
    struct admin_request *a = MEM_NEW(struct admin_request);
    a->w = *w;
    a->asked_ms = clock_mono_ms();
    return a;
}

uint64_t admin_patience_ms(const struct request *r)
{
    uint64_t t = r->cluster->w.timeout_ms;
    return t == 0 ? PATIENCE_MS : t < PATIENCE_MAX_MS ? t : PATIENCE_MAX_MS;
}

bool admin_has_begun(const struct request *r)
{
    return r->cluster->step == CHANGING;
}

void admin_forward(const struct request *r, struct wire_cluster *out)
{
    uint64_t now = clock_mono_ms(), end = r->session->give_up_ms;
    *out = r->cluster->w;
    out->flags |= WIRE_CLUSTER_FORWARDED;
    out->timeout_ms = end > now ? (uint32_t)(end - now) : 1;
}

/* --- answers ---------------------------------------------------------------------------------- */

static void put_text(struct buf *b, const char *s) ON_LOOP
{
    struct wire_value v = {.type = WIRE_TEXT};
    v.text.bytes = s;
    v.text.len = (uint32_t)strlen(s);
    wire_put_value(b, &v);
}

static void put_number(struct buf *b, uint64_t n) ON_LOOP
{
    struct wire_value v = {.type = WIRE_INTEGER};
    v.integer = (int64_t)n;
    wire_put_value(b, &v);
}

__attribute__((format(printf, 3, 4))) static void answer_done(struct request *r, uint64_t id,
                                                              const char *format, ...) ON_LOOP
{
    static const char *const columns[] = {"id", "cluster_id", "database_id", "index", "text"};
    struct node *n = r->session->node;
    struct buf *b = &r->answer.out;
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_info("admin", "done text=\"%s\"", text);
    wire_put_columns(b, r->id, columns, COLUMNS);
    size_t begun = wire_begin(b, WIRE_ROWS, r->id);
    buf_put_u32(b, 1);
    put_number(b, id);
    put_number(b, n->config->cluster_id);
    put_number(b, n->config->database_id);
    put_number(b, n->applied_index);
    put_text(b, text);
    wire_end(b, begun);
    session_answer(r->session, r);
}

static void answer_error(struct request *r, enum err code, const char *sentence) ON_LOOP
{
    if (code != ERR_NOT_LEADER)
        log_info("admin", "refused error=%s reason=\"%s\"", err_name((int)code), sentence);
    request_fail(r, code, sentence);
    session_answer(r->session, r);
}

/* Not begun here, or taken back: the session finds the next leader. */
static void run_elsewhere(struct request *r) ON_LOOP
{
    r->cluster->step = ASKED;
    answer_error(r, ERR_NOT_LEADER, "this node is not the leader");
}

/* --- what may be done ------------------------------------------------------------------------- */

/* Would the voters that answer be a majority, if ID had ROLE (or were gone: REMOVED)? */
static enum err keeps_majority(struct node *n, uint64_t id, bool votes) ON_LOOP
{
    unsigned members, voters = 0, reachable = 0;
    const struct cns_server *s = cns_members(n->cns, &members);
    for (unsigned i = 0; i < members; i++) {
        bool counts = s[i].id == id ? votes : s[i].role == CNS_VOTER;
        voters += counts;
        reachable += counts && member_answers(n, s[i].id);
    }
    if (voters > 0 && reachable >= voters / 2 + 1)
        return ERR_OK;
    return err_fail(ERR_CONFIG,
                    "refused: the cluster would have %u voters, of which only %u can be reached "
                    "now, and would stop. First bring the others back or remove those that are "
                    "dead; --force does it all the same",
                    voters, reachable);
}

/* Would anybody lead who has the database, if this node went? */
static enum err leaves_a_leader(struct node *n) ON_LOOP
{
    struct member all[CLUSTER_MAX]; /* a copy: what is asked of each looks at the list anew */
    char how[ERR_TEXT_MAX], why[ERR_TEXT_MAX] = "there is no other voter";
    unsigned members = members_copy_all(n, all, CLUSTER_MAX);
    for (unsigned i = 0; i < members; i++) {
        if (all[i].id == n->config->id || all[i].role != CNS_VOTER)
            continue;
        if (member_can_lead(n, all[i].id, how, sizeof how))
            return ERR_OK;
        (void)snprintf(why, sizeof why, "node %" PRIu64 " %.200s", all[i].id, how);
    }
    return err_fail(ERR_CONFIG,
                    "refused: no other voter has the database and could lead (%s). Wait until one "
                    "has it; --force tries all the same",
                    why);
}

static enum err check_promotion(struct node *n, uint64_t id) ON_LOOP
{
    char how[200];
    if (member_is_caught_up(n, id, how, sizeof how))
        return keeps_majority(n, id, true);
    return err_fail(ERR_BUSY,
                    "node %" PRIu64 " %s; promote it when it has caught up "
                    "(`lectern cluster list` shows how far it is)",
                    id, how);
}

static enum cns_member_role role_of(const struct wire_cluster *w)
{
    return w->role == WIRE_VOTER ? CNS_VOTER : w->role == WIRE_STANDBY ? CNS_STANDBY : CNS_SPARE;
}

/* Does the judgement E let R go on? If not, R is answered. */
static bool may(struct request *r, enum err e) ON_LOOP
{
    if (e == ERR_OK || (r->cluster->w.flags & WIRE_CLUSTER_FORCE) != 0)
        return true;
    answer_error(r, e, err_text());
    return false;
}

/* --- changes ---------------------------------------------------------------------------------- */

static void wait_here(struct request *r) ON_LOOP
{
    list_push_back(&r->session->node->wait_admin, &r->letter.link);
}

static void begin_change(struct request *r, enum cns_change_kind kind, uint64_t id,
                         const char *address, enum cns_member_role role) ON_LOOP
{
    struct node *n = r->session->node;
    struct admin_request *a = r->cluster;
    uint64_t index = 0;
    enum err e = cns_change(n->cns, kind, &id, address, role, &index);
    if (e == ERR_OK) {
        a->step = CHANGING;
        a->kind = kind;
        a->id = id;
        a->index = index;
        log_info("admin", "change kind=%d id=%" PRIu64 " role=%d index=%" PRIu64, (int)kind, id,
                 (int)role, index);
    }
    if (e == ERR_OK || e == ERR_BUSY)
        wait_here(r);
    else if (e == ERR_NOT_LEADER)
        run_elsewhere(r);
    else
        answer_error(r, e, err_text());
}

static void hand_over(struct request *r, uint64_t to) ON_LOOP
{
    struct admin_request *a = r->cluster;
    struct node *n = r->session->node;
    enum err e = cns_transfer(n->cns, to != 0 ? to : member_next_leader(n));
    if (e != ERR_OK && e != ERR_BUSY) {
        answer_error(r, e, err_text());
        return;
    }
    a->step = HANDING_OVER;
    a->transfer_ms = clock_mono_ms();
    wait_here(r);
}

/* The leader itself: first another one must lead, which then does what is asked. */
static void hand_over_first(struct request *r) ON_LOOP
{
    struct node *n = r->session->node;
    unsigned members, voters = 0;
    const struct cns_server *s = cns_members(n->cns, &members);
    for (unsigned i = 0; i < members; i++)
        voters += s[i].role == CNS_VOTER;
    if (voters == 1)
        answer_error(r, ERR_CONFIG, "this node is the last voter: a cluster needs one");
    else if (may(r, keeps_majority(n, n->config->id, false)) && may(r, leaves_a_leader(n)))
        hand_over(r, 0);
}

static void no_member(struct request *r, uint64_t id) ON_LOOP
{
    (void)err_fail(ERR_NOT_FOUND, "node %" PRIu64 " is not a member: see `lectern cluster list`",
                   id);
    answer_error(r, ERR_NOT_FOUND, err_text());
}

/* The address is a member's already. */
static void add_again(struct request *r, const struct member *same) ON_LOOP
{
    struct node *n = r->session->node;
    const struct wire_cluster *w = &r->cluster->w;
    if (same->id == w->id) { /* the dead one's own machine, with a new disk */
        if (may(r, keeps_majority(n, same->id, false)))
            begin_change(r, CNS_REMOVE, same->id, NULL, CNS_SPARE);
        return;
    }
    if (same->role == CNS_STANDBY && !member_was_heard(n, same->id)) {
        answer_done(r, same->id,
                    "node %" PRIu64 " is a member already, and never started: start it with "
                    "lecternd --data DIR --join ADDRESS --peer-listen %s",
                    same->id, same->address);
        return;
    }
    if (same->role == CNS_VOTER)
        (void)err_fail(ERR_CONFIG,
                       "%s is the address of node %" PRIu64 ": if that one is dead and this is to "
                       "take its place, use --replace %" PRIu64
                       ", or `lectern cluster remove %" PRIu64 "`",
                       w->address, same->id, same->id, same->id);
    else
        (void)err_fail(ERR_CONFIG,
                       "%s is the address of node %" PRIu64 ", which has its own files: if they "
                       "are lost, `lectern cluster remove %" PRIu64 "` first",
                       w->address, same->id, same->id);
    answer_error(r, ERR_CONFIG, err_text());
}

/* HOST:PORT, a port that exists. */
static bool is_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text || colon[1] < '0' || colon[1] > '9')
        return false;
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    return *end == 0 && port > 0 && port <= 65535;
}

static void run_add(struct request *r) ON_LOOP
{
    struct node *n = r->session->node;
    const struct wire_cluster *w = &r->cluster->w;
    struct member same;
    unsigned members;
    if (!is_address(w->address)) {
        (void)err_fail(ERR_CONFIG, "%s is not HOST:PORT with a port of 1 to 65535", w->address);
        answer_error(r, ERR_CONFIG, err_text());
        return;
    }
    if (w->id != 0 && !member_find(n, w->id, &same)) {
        (void)err_fail(ERR_NOT_FOUND,
                       "node %" PRIu64 " is not a member: if it was removed already, join without "
                       "--replace",
                       w->id);
        answer_error(r, ERR_NOT_FOUND, err_text());
        return;
    }
    if (w->id != 0 && member_answers(n, w->id)) {
        /* It may have died a moment ago. */
        if (clock_mono_ms() < r->cluster->asked_ms + ALIVE_ELECTIONS * n->config->election_ms) {
            wait_here(r);
            return;
        }
        (void)err_fail(ERR_CONFIG,
                       "node %" PRIu64 " is alive: stop it first, or join without --replace and "
                       "remove it later",
                       w->id);
        answer_error(r, ERR_CONFIG, err_text());
        return;
    }
    (void)cns_members(n->cns, &members);
    if (member_at(n, w->address, &same)) {
        add_again(r, &same);
    } else if (members >= CLUSTER_MAX) {
        (void)err_fail(ERR_TOO_BIG, "a cluster has at most %d members", CLUSTER_MAX);
        answer_error(r, ERR_TOO_BIG, err_text());
    } else {
        begin_change(r, CNS_ADD, 0, w->address, w->role == WIRE_SPARE ? CNS_SPARE : CNS_STANDBY);
    }
}

static void run_remove(struct request *r) ON_LOOP
{
    struct node *n = r->session->node;
    const struct wire_cluster *w = &r->cluster->w;
    struct member m;
    if (!member_find(n, w->id, &m)) {
        no_member(r, w->id);
        return;
    }
    if (w->id == n->config->id) {
        hand_over_first(r);
        return;
    }
    enum err e = m.role == CNS_VOTER ? keeps_majority(n, w->id, false) : ERR_OK;
    if (may(r, e))
        begin_change(r, CNS_REMOVE, w->id, NULL, CNS_SPARE);
}

static void run_role(struct request *r) ON_LOOP
{
    struct node *n = r->session->node;
    const struct wire_cluster *w = &r->cluster->w;
    struct member m;
    enum cns_member_role role = role_of(w);
    if (!member_find(n, w->id, &m)) {
        no_member(r, w->id);
        return;
    }
    if (m.role == role) {
        answer_done(r, w->id, "node %" PRIu64 " is a %s already", w->id, member_role_name(role));
        return;
    }
    if (w->id == n->config->id) {
        hand_over_first(r);
        return;
    }
    enum err e = ERR_OK;
    if (role == CNS_VOTER)
        e = check_promotion(n, w->id);
    else if (m.role == CNS_VOTER)
        e = keeps_majority(n, w->id, false);
    if (may(r, e))
        begin_change(r, CNS_SET_ROLE, w->id, NULL, role);
}

static void run_transfer(struct request *r) ON_LOOP
{
    struct node *n = r->session->node;
    uint64_t id = r->cluster->w.id;
    struct member m = {0};
    char how[ERR_TEXT_MAX];
    bool there = member_find(n, id, &m);
    if (id == n->config->id) {
        answer_done(r, id, "node %" PRIu64 " leads already", id);
    } else if (id != 0 && !there) {
        no_member(r, id);
    } else if (id != 0 && m.role != CNS_VOTER) {
        (void)err_fail(ERR_CONFIG, "node %" PRIu64 " is no voter: it cannot lead. Promote it first",
                       id);
        answer_error(r, ERR_CONFIG, err_text());
    } else if (id != 0 && !member_can_lead(n, id, how, sizeof how)) {
        (void)err_fail(ERR_CONFIG, "node %" PRIu64 " %.400s", id, how);
        answer_error(r, ERR_CONFIG, err_text());
    } else if (id != 0 || may(r, leaves_a_leader(n))) {
        hand_over(r, id);
    }
}

void admin_run(struct session *s, struct request *r)
{
    struct admin_request *a = r->cluster;
    CHECK(s->current == r && s->at == AT_ROUTE && node_is_serving(s->node));
    a->step = ASKED;
    switch (a->w.op) {
    case WIRE_CLUSTER_ADD:
        run_add(r);
        return;
    case WIRE_CLUSTER_REMOVE:
        run_remove(r);
        return;
    case WIRE_CLUSTER_ROLE:
        run_role(r);
        return;
    case WIRE_CLUSTER_TRANSFER:
        run_transfer(r);
        return;
    }
    UNREACHABLE("the decoder checked the operation");
}

/* --- going on --------------------------------------------------------------------------------- */

/* The entry of R's change is applied, or another one in its place. */
static void finish_change(struct request *r) ON_LOOP
{
    struct node *n = r->session->node;
    struct admin_request *a = r->cluster;
    struct member m;
    bool there = member_find(n, a->id, &m), done = there == (a->kind != CNS_REMOVE);
    if (done && a->kind == CNS_SET_ROLE)
        done = m.role == role_of(&a->w);
    if (done && a->kind == CNS_ADD)
        done = strcmp(m.address, a->w.address) == 0;
    if (!done) {
        run_elsewhere(r);
        return;
    }
    if (a->kind == CNS_ADD) {
        answer_done(r, a->id,
                    "node %" PRIu64 " is a %s now. It does not run yet: start it with lecternd "
                    "--data DIR --join ADDRESS --peer-listen %s",
                    a->id, member_role_name(m.role), m.address);
    } else if (a->kind != CNS_REMOVE) {
        answer_done(r, a->id, "node %" PRIu64 " is a %s now", a->id, member_role_name(m.role));
    } else if (a->w.op == WIRE_CLUSTER_ADD) { /* the dead one is gone: now the new one */
        a->w.id = 0;
        if (node_is_serving(n))
            admin_run(r->session, r);
        else
            run_elsewhere(r);
    } else {
        answer_done(r, a->id, "node %" PRIu64 " is removed", a->id);
    }
}

static void look_at_hand_over(struct request *r, uint64_t now_ms) ON_LOOP
{
    struct node *n = r->session->node;
    struct admin_request *a = r->cluster;
    bool is_transfer = a->w.op == WIRE_CLUSTER_TRANSFER;
    uint64_t to = is_transfer ? a->w.id : 0;
    if (n->role == CNS_LEADER) {
        if (now_ms > a->transfer_ms + TRANSFER_AGAIN_MS) {
            a->transfer_ms = now_ms;
            if (cns_transfer(n->cns, to != 0 ? to : member_next_leader(n)) != ERR_OK)
                log_debug("admin", "cannot hand over yet: %s", err_text());
        }
        wait_here(r);
    } else if (n->leader_id == 0) {
        wait_here(r);
    } else if (!is_transfer) {
        run_elsewhere(r);
    } else if (to != 0 && to != n->leader_id) {
        (void)err_fail(ERR_BUSY, "node %" PRIu64 " was elected instead: try again", n->leader_id);
        answer_error(r, ERR_BUSY, err_text());
    } else {
        answer_done(r, n->leader_id, "node %" PRIu64 " leads now", n->leader_id);
    }
}

static void give_up(struct request *r) ON_LOOP
{
    switch (r->cluster->step) {
    case ASKED:
        answer_error(r, ERR_TIMEOUT, "another change of the members is under way: try again");
        return;
    case CHANGING:
        answer_error(r, ERR_UNKNOWN,
                     "the change was begun, but no majority has confirmed it in time: it may still "
                     "happen. Look at `lectern cluster list`");
        return;
    case HANDING_OVER:
        answer_error(r, ERR_TIMEOUT, "no other voter has taken the leadership over in time");
        return;
    }
}

static void look_at(struct request *r, uint64_t now_ms) ON_LOOP
{
    struct node *n = r->session->node;
    struct admin_request *a = r->cluster;
    if (a->step == CHANGING && n->applied_index >= a->index)
        finish_change(r);
    else if (now_ms > r->session->give_up_ms)
        give_up(r);
    else if (a->step == HANDING_OVER)
        look_at_hand_over(r, now_ms);
    else if (a->step == CHANGING)
        wait_here(r);
    else if (node_is_serving(n))
        admin_run(r->session, r);
    else
        run_elsewhere(r);
}

void admin_look(struct node *n, uint64_t now_ms)
{
    struct list again, *i;
    list_init(&again);
    list_splice(&again, &n->wait_admin);
    while ((i = list_pop_front(&again)) != NULL)
        look_at(LIST_ENTRY(i, struct request, letter.link), now_ms);
}

void admin_refuse_all(struct node *n, enum err code, const char *sentence)
{
    struct list all, *i;
    list_init(&all);
    list_splice(&all, &n->wait_admin);
    while ((i = list_pop_front(&all)) != NULL) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        bool begun = r->cluster->step == CHANGING;
        answer_error(r, begun ? ERR_UNKNOWN : code, sentence);
    }
}

/* --- members that joined ---------------------------------------------------------------------- */

/* True: something was begun, or nothing can be now. */
static bool tend_to(struct node *n, const struct member *m, uint64_t now_ms) ON_LOOP
{
    const struct gossip_news *news = gossip_of(n->gossip, m->id);
    uint64_t id = m->id, index, dead;
    struct member other;
    char how[200];
    if (m->role != CNS_STANDBY || news == NULL || !news->wishes_to_vote ||
        now_ms > news->heard_ms + SILENT_MS || !member_is_caught_up(n, id, how, sizeof how))
        return false;
    dead = news->replaces;
    if (dead != 0 && member_find(n, dead, &other)) {
        if (member_answers(n, dead)) {
            log_debug("admin", "node %" PRIu64 " waits to replace %" PRIu64 ", which is alive", id,
                      dead);
            return false;
        }
        if (keeps_majority(n, dead, false) != ERR_OK)
            return false;
        enum err e = cns_change(n->cns, CNS_REMOVE, &dead, NULL, CNS_SPARE, &index);
        log_info("admin", "replace dead=%" PRIu64 " by=%" PRIu64 " result=%s", dead, id,
                 err_name((int)e));
        return true;
    }
    if (keeps_majority(n, id, true) != ERR_OK)
        return false;
    enum err e = cns_change(n->cns, CNS_SET_ROLE, &id, NULL, CNS_VOTER, &index);
    log_info("admin", "promote id=%" PRIu64 " result=%s", id, err_name((int)e));
    return true;
}

void admin_tend(struct node *n, uint64_t now_ms)
{
    struct member all[CLUSTER_MAX];
    if (n->ticks % TEND_TICKS != 0 || !node_is_serving(n) || n->stage != NODE_SERVING)
        return;
    unsigned members = members_copy_all(n, all, CLUSTER_MAX);
    for (unsigned i = 0; i < members; i++)
        if (tend_to(n, &all[i], now_ms))
            return; /* one change at a time */
}
