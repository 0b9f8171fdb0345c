/* Room: node. Thread: main before the loop runs (everything up to join_prepare), then the loop.
 *
 * Joining, and where it may die:
 *
 *     ask the leader: ADD, our peer address  --> an entry of the log    died: asked again, the same
 *                                                                       id is told (same address,
 *                                                                       never heard of)
 *     DIR/node: id, cluster, begun = no      --> durable                died: goes on with that id
 *     an image, DIR/raft (startup.c)         --> begun = yes            died: likewise
 *     caught up: the leader promotes us      --> wish = none            died: the wish is crossed
 *                                                                       out at the next start
 *
 * The wish is told by gossip and judged by the leader (admin.c): nothing here decides. */
#include "node/join.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "client/lectern.h"
#include "client/wire_cluster.h"
#include "node/lost_majority.h"
#include "node/members_view.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ASK_MS   10000
#define AGAIN_NS 500000000L /* between two tries */

/* --- a start with DIR/node -------------------------------------------------------------------- */

static bool is_there(const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    bool there = file_is_there(path);
    free(path);
    return there;
}

static const char *own_peer_address(const struct config *c)
{
    return c->peer_advertise[0] != 0 ? c->peer_advertise : c->peer_listen;
}

static enum err check_flags(const struct config *c, const struct identity *who)
{
    bool other_cluster = c->cluster_id != who->cluster_id &&
                         (c->cluster[0] != 0 || c->cluster_id != 1); /* 1: the default */
    if ((c->id != 0 && c->id != who->id) || other_cluster || (c->cluster[0] != 0 && who->joined))
        return err_fail(ERR_CONFIG,
                        "%s/node says that this is node %" PRIu64 " of cluster %" PRIu64
                        "%s: start it with --data and its addresses, without --id, --cluster and "
                        "--cluster-id",
                        c->data, who->id, who->cluster_id,
                        who->joined ? ", which was not one of the first members" : "");
    return ERR_OK;
}

static enum err no_log(const struct config *c, const struct identity *who)
{
    if (is_there(c->data, "raft"))
        return err_fail(ERR_CONFIG,
                        "%s/raft/identity is missing, the rest of the log is there: without it "
                        "nothing says that the log is that of node %" PRIu64
                        ". Put this very file back, or remove %s and start the node with --join "
                        "ADDRESS --replace %" PRIu64,
                        c->data, who->id, c->data, who->id);
    return err_fail(ERR_CONFIG,
                    "%s/raft is missing: this node has forgotten what it promised to the "
                    "others, and must not come back as node %" PRIu64
                    ". Remove %s and start it with --join ADDRESS --replace %" PRIu64,
                    c->data, who->id, c->data, who->id);
}

static enum err resume(struct config *c, const struct identity *who)
{
    TRY(check_flags(c, who));
    if (who->begun && !is_there(c->data, "raft/identity"))
        return no_log(c, who);
    c->id = who->id;
    c->cluster_id = who->cluster_id;
    c->database_id = who->database_id;
    if (who->joined && strcmp(who->peer, own_peer_address(c)) != 0)
        log_warn("join", "the others know this node at %s, it listens at %s now", who->peer,
                 own_peer_address(c));
    return ERR_OK;
}

/* --- the first start -------------------------------------------------------------------------- */

static volatile sig_atomic_t told_to_stop;
static lectern *volatile asking; /* for the signal handler */

static void on_signal(int number)
{
    (void)number;
    told_to_stop = 1;
    if (asking != NULL)
        lectern_interrupt(asking);
}

struct given {
    uint64_t id, cluster_id, database_id, index;
    bool good;
};

/* The row of an ADD: id, cluster_id, database_id, index. */
static enum err take_row(lectern_stmt *stmt, struct given *g)
{
    uint64_t *const to[] = {&g->id, &g->cluster_id, &g->database_id, &g->index};
    g->good = lectern_column_count(stmt) >= 4;
    for (int i = 0; i < 4 && g->good; i++) {
        int64_t v = lectern_column_int64(stmt, i);
        g->good = lectern_column_type(stmt, i) == LECTERN_INTEGER && v > 0;
        *to[i] = g->good ? (uint64_t)v : 0;
    }
    return g->good ? ERR_OK : err_fail(ERR_PROTOCOL, "an answer to ADD that makes no sense");
}

/* The addresses of LIST, beginning with number FIRST: whoever answers and knows no leader must not
 * be the only one that is asked. */
static char *rotated(const char *list, unsigned first)
{
    unsigned n = 1, skip;
    const char *from = list;
    for (const char *p = list; *p != 0; p++)
        n += *p == ',';
    for (skip = first % n; skip > 0; skip--)
        from = strchr(from, ',') + 1;
    return from == list ? mem_strdup(list)
                        : mem_printf("%s,%.*s", from, (int)(from - list - 1), list);
}

/* Would the same question get another answer later? */
static bool is_final(int code)
{
    return code == LECTERN_ERROR || code == LECTERN_CANTOPEN || code == LECTERN_TOOBIG ||
           code == LECTERN_PROTOCOL || code == LECTERN_AUTH || code == LECTERN_MISUSE ||
           code == LECTERN_NOMEM;
}

/* ERR_CONFIG when there is no use in asking again, else ERR_CLOSED. */
static enum err failed(lectern *db, int code)
{
    return err_fail(is_final(code) ? ERR_CONFIG : ERR_CLOSED, "%s", lectern_errmsg(db));
}

static enum err ask_in(lectern *db, const struct config *c, struct given *out)
{
    struct lectern_member_change add = {.change = LECTERN_MEMBER_ADD,
                                        .role = LECTERN_REPLICA,
                                        .id = c->replace,
                                        .address = own_peer_address(c)};
    lectern_stmt *stmt = NULL;
    int code = lectern_timeout(db, ASK_MS);
    if (code == LECTERN_OK)
        code = lectern_prepare_member_change(db, &add, &stmt);
    asking = db;
    if (code == LECTERN_OK && !told_to_stop)
        code = lectern_step(stmt);
    asking = NULL;
    enum err e = code == LECTERN_ROW    ? take_row(stmt, out)
                 : code == LECTERN_OK   ? err_fail(ERR_CANCELLED, "told to stop")
                 : code == LECTERN_DONE ? err_fail(ERR_PROTOCOL, "an answer to ADD without a row")
                                        : failed(db, code);
    (void)lectern_finalize(stmt);
    return e;
}

/* Asks once. */
static enum err ask(const struct config *c, unsigned tries, struct given *out)
{
    lectern_cluster *cluster = NULL;
    lectern *db = NULL;
    char *addresses = rotated(c->join, tries);
    char *url = mem_printf("%s?name=lecternd%%20" LECTERN_VERSION, addresses);
    *out = (struct given){0};
    enum err e = ERR_OK;
    if (lectern_cluster_open(url, &cluster) != LECTERN_OK)
        e = err_fail(ERR_CONFIG, "--join %s: not a list of addresses HOST:PORT", c->join);
    else if (lectern_open_session(cluster, &db) != LECTERN_OK)
        e = err_fail(ERR_CLOSED, "%s", lectern_errmsg(db));
    if (e == ERR_OK)
        e = ask_in(db, c, out);
    (void)lectern_close(db);
    (void)lectern_cluster_close(cluster);
    free(url);
    free(addresses);
    return e;
}

static enum err ask_until_told(const struct config *c, struct given *out)
{
    static const struct timespec pause = {.tv_nsec = AGAIN_NS};
    char last[ERR_TEXT_MAX] = "";
    for (unsigned tries = 0;; tries++) {
        enum err e = ask(c, tries, out);
        if (told_to_stop)
            return err_fail(ERR_CANCELLED, "told to stop before the cluster gave this node an id");
        if (e == ERR_OK || e == ERR_CONFIG || e == ERR_PROTOCOL)
            return e;
        if (strcmp(last, err_text()) != 0)
            log_info("join", "asking again join=%s reason=\"%s\"", c->join, err_text());
        (void)snprintf(last, sizeof last, "%s", err_text());
        (void)nanosleep(&pause, NULL);
    }
}

static enum err check_room(const struct config *c)
{
    static const char *const names[] = {"main.db", "raft", "position"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (is_there(c->data, names[i]))
            return err_fail(ERR_CONFIG,
                            "%s/%s is there: this directory is another node's. A node that joins "
                            "begins with an empty one",
                            c->data, names[i]);
    if (strlen(c->join) >= IDENTITY_TEXT_MAX || strlen(own_peer_address(c)) >= WIRE_ADDRESS_MAX)
        return err_fail(ERR_CONFIG, "an address is too long");
    return ERR_OK;
}

static enum err join_new(const struct config *c, struct identity *out)
{
    struct sigaction act = {.sa_handler = on_signal}, old_term, old_int;
    struct given g;
    TRY(check_room(c));
    TRY(file_make_dirs(c->data));
    log_info("join", "asking join=%s peer=%s replace=%" PRIu64, c->join, own_peer_address(c),
             c->replace);
    (void)sigaction(SIGTERM, &act, &old_term);
    (void)sigaction(SIGINT, &act, &old_int);
    enum err e = ask_until_told(c, &g);
    (void)sigaction(SIGTERM, &old_term, NULL);
    (void)sigaction(SIGINT, &old_int, NULL);
    TRY(e);
    *out = (struct identity){.id = g.id,
                             .cluster_id = g.cluster_id,
                             .database_id = g.database_id,
                             .since = g.index,
                             .wish = c->replica != 0 ? WISH_NONE : WISH_VOTER,
                             .replace = c->replace,
                             .joined = true};
    (void)snprintf(out->peer, sizeof out->peer, "%s", own_peer_address(c));
    (void)snprintf(out->contacts, sizeof out->contacts, "%s", c->join);
    TRY(identity_write(c->data, out));
    log_info("join", "accepted id=%" PRIu64 " cluster=%" PRIu64 " index=%" PRIu64, g.id,
             g.cluster_id, g.index);
    return ERR_OK;
}

static void first_member(const struct config *c, struct identity *out)
{
    *out =
        (struct identity){.id = c->id, .cluster_id = c->cluster_id, .database_id = c->cluster_id};
    (void)snprintf(out->peer, sizeof out->peer, "%s", own_peer_address(c));
}

enum err join_prepare(struct config *c, struct identity *out)
{
    if (lost_majority_unfinished(c->data))
        return err_fail(ERR_CONFIG,
                        "a recovery of %s was begun and not finished: run `lecternd recover --data "
                        "%s` again",
                        c->data, c->data);
    enum err e = identity_read(c->data, out);
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return e;
    if (e == ERR_OK)
        return resume(c, out);
    if (c->join[0] == 0) {
        first_member(c, out);
        return ERR_OK;
    }
    TRY(join_new(c, out));
    return resume(c, out);
}

bool join_has_no_log(const struct node *n)
{
    const struct identity *who = &n->past->who;
    return who->joined && !who->begun && !is_there(n->config->data, "raft/identity");
}

/* --- the wish --------------------------------------------------------------------------------- */

bool join_wishes_to_vote(const struct node *n)
{
    struct member me;
    return n->past->who.wish == WISH_VOTER && !n->failed && n->fetch == NULL && n->cns != NULL &&
           member_find(n, n->config->id, &me) && me.role == CNS_STANDBY;
}

struct crossing_out {
    uv_work_t work;
    struct node *node;
    const char *dir;
    struct identity who;
    enum err result;
    char text[ERR_TEXT_MAX];
};

static void write_identity(uv_work_t *work)
{
    struct crossing_out *x = work->data;
    x->result = identity_write(x->dir, &x->who);
    if (x->result != ERR_OK)
        (void)snprintf(x->text, sizeof x->text, "%s", err_text());
}

static void on_written(uv_work_t *work, int status)
{
    struct crossing_out *x = work->data;
    thread_expect_loop();
    x->node->past->writes_identity = false;
    if (status == 0 && x->result == ERR_OK) {
        x->node->past->who = x->who;
        log_info("join", "this node votes");
    } else {
        log_warn("join", "the wish to vote stays in DIR/node reason=\"%s\"", x->text);
    }
    free(x);
}

/* The list of members is the newest in the log, which may still be taken back: it is for good when
 * what was in the log when we saw it is applied. */
static bool votes_for_good(struct node *n) ON_LOOP
{
    struct member me;
    struct cns_status s;
    struct node_past *past = n->past;
    if (n->cns == NULL || !member_find(n, n->config->id, &me) || me.role != CNS_VOTER) {
        past->voter_index = 0;
        return false;
    }
    if (past->voter_index == 0) {
        cns_get_status(n->cns, &s);
        past->voter_index = s.last_index;
    }
    return n->applied_index >= past->voter_index;
}

void join_look(struct node *n)
{
    struct node_past *past = n->past;
    if (past->who.wish != WISH_VOTER || past->writes_identity || !votes_for_good(n))
        return;
    struct crossing_out *x = MEM_NEW(struct crossing_out);
    x->work.data = x;
    x->node = n;
    x->dir = n->config->data;
    x->who = past->who;
    x->who.wish = WISH_NONE;
    x->who.replace = 0;
    past->writes_identity = true;
    if (uv_queue_work(&n->loop, &x->work, write_identity, on_written) != 0) {
        past->writes_identity = false;
        free(x);
    }
}
