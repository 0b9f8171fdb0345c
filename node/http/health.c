/* Room: node/http.   Thread: loop.   Owns: nothing.
 * Not here: what is known of the nodes (gossip.c); numbers (metrics.c). */
#include "node/http/health.h"

#include "node/disk_watch.h"
#include "node/fetch.h"
#include "node/gossip.h"
#include "node/key_keeper.h"
#include "node/members_view.h"
#include "node/meters.h"
#include "node/node.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT "text/plain; charset=utf-8"

static void answer(struct exchange *x, int status, const char *first, const char *second) ON_LOOP
{
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, "%s%s\n", first, second);
    if (status == 503)
        meters_count(METER_CHECKS_REFUSED, 1);
    exchange_add_header(x, "cache-control", "no-store");
    exchange_answer(x, status, TEXT, &b);
    buf_fini(&b);
}

/* --- ready? --- */

/* What is wrong with this node itself. */
static bool is_unfit(struct node *n, char *why) ON_LOOP
{
    struct member me;
    if (n->stage != NODE_SERVING)
        (void)snprintf(why, ERR_TEXT_MAX, "this node is stopping");
    else if (n->failed)
        (void)snprintf(why, ERR_TEXT_MAX, "%s", n->failure);
    else if (n->fetch != NULL)
        fetch_describe(n->fetch, why);
    else if (n->cns == NULL || n->lane == NULL)
        (void)snprintf(why, ERR_TEXT_MAX, "this node has no database yet");
    else if (!member_find(n, n->config->id, &me))
        (void)snprintf(why, ERR_TEXT_MAX, "this node was removed from the cluster");
    else if (n->began_empty && !n->accepted) /* the others may refuse it: route.c waits, too */
        (void)snprintf(why, ERR_TEXT_MAX, "this node has not heard of its cluster yet");
    else if (!key_keeper_is_sure(n->key_keeper)) /* no other node would take its batons */
        (void)snprintf(why, ERR_TEXT_MAX, "this node has not heard the cluster's key yet");
    else
        return false;
    return true;
}

static bool has_no_leader(const struct node *n, char *why) ON_LOOP
{
    if (member_known_leader(n) == 0) /* or no majority answers this one */
        (void)snprintf(why, ERR_TEXT_MAX,
                       "there is no leader now (is a majority of the nodes up?)");
    else if (n->role == CNS_LEADER && !node_is_serving(n))
        (void)snprintf(why, ERR_TEXT_MAX, "this node leads, and takes no writes yet");
    else
        return false;
    return true;
}

static bool is_late(struct node *n, uint64_t max_ms, char *why) ON_LOOP
{
    uint64_t lag = gossip_lag_ms(n->gossip, n->config->id);
    if (lag <= max_ms)
        return false;
    (void)snprintf(why, ERR_TEXT_MAX,
                   "behind: its state is %" PRIu64 " ms old, which is more than %" PRIu64, lag,
                   max_ms);
    return true;
}

/* Would the leader refuse a write now? */
static bool refuses_writes(struct node *n, char *why) ON_LOOP
{
    const struct gossip_news *leader = gossip_of(n->gossip, n->leader_id);
    if (node_is_serving(n)) {
        if (!disk_watch_is_low(n->disk))
            return false;
        disk_watch_describe(n->disk, why);
    } else if (leader == NULL || !leader->serving) {
        (void)snprintf(why, ERR_TEXT_MAX, "the leader takes no writes now");
    } else if (leader->waits_for_room) {
        (void)snprintf(why, ERR_TEXT_MAX, "the leader's disk is full: it refuses writes");
    } else {
        return false;
    }
    return true;
}

/* An entry cannot be applied, or the log not be written, for want of room. */
static bool waits_for_room(struct node *n, char *why) ON_LOOP
{
    struct repl_stats stats;
    struct cns_status cns;
    repl_db_stats(lane_db(n->lane), &stats);
    cns_get_status(n->cns, &cns);
    if (!stats.waits_for_room && !cns.log_waits)
        return false;
    (void)snprintf(why, ERR_TEXT_MAX, "the disk is full: what others write does not come in");
    return true;
}

bool health_is_unready(struct node *n, const struct ready_wish *wish, char *why)
{
    if (is_unfit(n, why) || waits_for_room(n, why))
        return true;
    if ((!wish->noleader || wish->writes) && has_no_leader(n, why))
        return true;
    if (!wish->noleader && is_late(n, wish->max_lag_ms, why))
        return true;
    return wish->writes && refuses_writes(n, why);
}

/* --- the query: `name`, `name=`, `name=1` and the like are a wish, `name=0` is none --- */

static bool asks_for(const struct exchange *x, const char *name) ON_LOOP
{
    char value[16];
    size_t n = strlen(name);
    if (exchange_param(x, name, value, sizeof value))
        return strcmp(value, "0") != 0 && strcmp(value, "false") != 0;
    for (const char *p = x->query; *p != 0; p += *p == '&') {
        size_t len = strcspn(p, "&");
        if (len == n && memcmp(p, name, n) == 0)
            return true;
        p += len;
    }
    return false;
}

/* False: what came is no number. */
static bool get_lag(const struct exchange *x, uint64_t *ms) ON_LOOP
{
    char value[24];
    char *end;
    *ms = READY_LAG_MS;
    if (!exchange_param(x, "max_lag", value, sizeof value))
        return true;
    if (value[0] < '0' || value[0] > '9')
        return false;
    errno = 0;
    *ms = strtoull(value, &end, 10);
    return errno == 0 && *end == 0;
}

/* --- handlers --- */

static void on_alive(struct exchange *x)
{
    thread_expect_loop();
    answer(x, 200, "ok", "");
}

static void on_ready(struct exchange *x)
{
    char why[ERR_TEXT_MAX];
    struct ready_wish wish;
    thread_expect_loop();
    if (!exchange_knows_params(x, "noleader, writes, max_lag"))
        return;
    wish.noleader = asks_for(x, "noleader");
    wish.writes = asks_for(x, "writes");
    if (!get_lag(x, &wish.max_lag_ms))
        exchange_fail(x, 400, "BAD_REQUEST", "max_lag is a number of milliseconds");
    else if (health_is_unready(x->node, &wish, why))
        answer(x, 503, "not ready: ", why);
    else
        answer(x, 200, "ready", "");
}

static void on_leader(struct exchange *x)
{
    struct node *n = x->node;
    char where[ERR_TEXT_MAX];
    thread_expect_loop();
    if (!exchange_knows_params(x, ""))
        return;
    if (members_follow(n) && n->stage == NODE_SERVING) {
        answer(x, 200, "leader", "");
        return;
    }
    const struct gossip_news *leader = n->leader_id == n->config->id || n->gossip == NULL
                                           ? NULL
                                           : gossip_of(n->gossip, n->leader_id);
    if (leader == NULL || !leader->serving) {
        answer(x, 503, "not the leader; there is none that takes writes now", "");
    } else if (leader->http[0] == 0) {
        (void)snprintf(where, sizeof where, "node %" PRIu64 ", which tells no URL", leader->id);
        answer(x, 503, "not the leader: it is ", where);
    } else {
        exchange_add_header(x, "lectern-leader", leader->http);
        answer(x, 503, "not the leader: it is ", leader->http);
    }
}

const struct handler health_alive = {.on_end = on_alive, .only_tells = true};
const struct handler health_ready = {.on_end = on_ready, .only_tells = true};
const struct handler health_leader = {.on_end = on_leader, .only_tells = true};
