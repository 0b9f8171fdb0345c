/* Room: node. Thread: loop. Not here: anything that safety rests on. */
#include "node/gossip.h"

#include "base/clock.h"
#include "base/mem.h"
#include "node/disk_watch.h"
#include "node/fetch.h"
#include "node/http/door_settings.h"
#include "node/join.h"
#include "node/key_keeper.h"
#include "node/members_view.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define GOSSIP_VERSION 2u
#define GOSSIP_MAX     2048u

enum { SERVING = 1, NO_ROOM = 2, WISHES_TO_VOTE = 4 };

/* How far behind a node is, in time: a state of the leader is remembered until the node has it. */
struct lag {
    uint64_t since_ms;             /* it had all at this time */
    uint64_t target, target_at_ms; /* a sequence that it had not, at this time; 0: none */
};

struct gossip {
    struct node *node;
    struct gossip_news peers[CLUSTER_MAX];
    struct lag lags[CLUSTER_MAX]; /* of the peers */
    struct lag lag;               /* of this node */
    unsigned n;
    uint64_t told_seq;
    uint64_t snapshot_index, snapshot_ms; /* when (wall) this one was made; 0: not known */
};

/* The record's file is as old as the last cut; a cut of this process is noticed here. */
static void look_at_snapshot(struct gossip *g, uint64_t index) ON_LOOP
{
    if (index != g->snapshot_index)
        g->snapshot_ms = clock_wall_ms();
    g->snapshot_index = index;
}

struct gossip *gossip_new(struct node *n)
{
    struct gossip *g = MEM_NEW(struct gossip);
    struct cns_status cns;
    struct stat st;
    char *path = mem_printf("%s/raft/snapshot", n->config->data);
    g->node = n;
    g->lag.since_ms = clock_mono_ms();
    if (n->cns != NULL) {
        cns_get_status(n->cns, &cns);
        g->snapshot_index = cns.snapshot_index;
    }
    if (stat(path, &st) == 0)
        g->snapshot_ms = (uint64_t)st.st_mtim.tv_sec * 1000;
    free(path);
    return g;
}

void gossip_free(struct gossip *g)
{
    free(g);
}

static void fill_from_database(const struct node *n, struct gossip_news *out) ON_LOOP
{
    struct repl_stats stats;
    repl_db_stats(lane_db(n->lane), &stats);
    out->seq = stats.published_seq;
    out->checksum = stats.checksum;
    out->wal_bytes = stats.wal_bytes;
    out->wal_waits_ms = stats.restart_waits_ms;
    out->waits_for_room = out->waits_for_room || stats.waits_for_room;
}

static void fill_from_log(struct gossip *g, struct gossip_news *out) ON_LOOP
{
    struct cns_status cns;
    uint64_t now = clock_wall_ms();
    cns_get_status(g->node->cns, &cns);
    look_at_snapshot(g, cns.snapshot_index);
    out->commit_index = cns.commit_index;
    out->log_bytes = cns.log_bytes;
    out->first_index = cns.first_index;
    out->last_index = cns.last_index;
    out->snapshot_index = cns.snapshot_index;
    out->waits_for_room = out->waits_for_room || cns.log_waits;
    if (cns.snapshot_index != 0 && g->snapshot_ms != 0)
        out->snapshot_age_s = now > g->snapshot_ms ? (now - g->snapshot_ms) / 1000 : 0;
}

static void describe(const struct node *n, struct gossip_news *out) ON_LOOP
{
    struct member me;
    if (n->failed)
        (void)snprintf(out->state, sizeof out->state, "%s", n->failure);
    else if (n->fetch != NULL)
        fetch_describe(n->fetch, out->state);
    else if (n->cns != NULL && !member_find(n, n->config->id, &me))
        (void)snprintf(out->state, sizeof out->state,
                       "this node was removed from the cluster: stop it, and remove its directory");
    else if (disk_watch_is_low(n->disk))
        disk_watch_describe(n->disk, out->state);
    else if (out->waits_for_room)
        (void)snprintf(out->state, sizeof out->state, "the disk is full: waits for room");
    else
        (void)snprintf(out->state, sizeof out->state, "ok");
}

void gossip_self(struct gossip *g, struct gossip_news *out)
{
    const struct node *n = g->node;
    *out = (struct gossip_news){.id = n->config->id,
                                .term = n->term,
                                .leader_id = member_known_leader(n),
                                .applied_index = n->applied_index,
                                .snapshot_age_s = GOSSIP_AGE_UNKNOWN,
                                .role = n->role,
                                .serving = members_follow(n),
                                .wishes_to_vote = join_wishes_to_vote(n),
                                .replaces = n->past->who.replace,
                                .heard_ms = clock_mono_ms()};
    out->repairs = n->past->repairs;
    out->disk_free = disk_watch_free_bytes(n->disk);
    out->waits_for_room = disk_watch_is_low(n->disk);
    if (n->lane != NULL)
        fill_from_database(n, out);
    if (n->cns != NULL)
        fill_from_log(g, out);
    const char *address = n->config->advertise[0] != 0 ? n->config->advertise : n->config->listen;
    (void)snprintf(out->address, sizeof out->address, "%s", address);
    door_settings_url(n->config, out->http, sizeof out->http);
    out->has_key = out->serving;
    memcpy(out->key, n->keys.keys[0], sizeof out->key);
    (void)snprintf(out->version, sizeof out->version, "%s", LECTERN_VERSION);
    (void)snprintf(out->sqlite, sizeof out->sqlite, "%s", sqlite3_libversion());
    describe(n, out);
}

/* The numbers of a message, in their order there. */
#define NUMBERS 16
static void numbers_of(struct gossip_news *s, uint64_t *out[NUMBERS])
{
    uint64_t *const all[NUMBERS] = {
        &s->term,           &s->leader_id,      &s->seq,          &s->checksum,    &s->commit_index,
        &s->applied_index,  &s->wal_bytes,      &s->log_bytes,    &s->first_index, &s->last_index,
        &s->snapshot_index, &s->snapshot_age_s, &s->wal_waits_ms, &s->replaces,    &s->repairs,
        &s->disk_free};
    memcpy(out, all, sizeof all);
}

/* The leader had NEWEST at NEWEST_MS, the node HAS that at HAS_MS. */
static void look(struct lag *l, uint64_t newest, uint64_t newest_ms, uint64_t has,
                 uint64_t has_ms) ON_LOOP
{
    uint64_t then = newest_ms < has_ms ? newest_ms : has_ms;
    if (l->target != 0 && has >= l->target) {
        l->since_ms = l->target_at_ms > l->since_ms ? l->target_at_ms : l->since_ms;
        l->target = 0;
    }
    if (has >= newest && then > l->since_ms)
        l->since_ms = then;
    if (has < newest && l->target == 0) {
        l->target = newest;
        l->target_at_ms = newest_ms;
    }
}

/* Whose word is the newest: this node's own when it leads, or the leader's. */
static void look_all(struct gossip *g) ON_LOOP
{
    const struct node *n = g->node;
    const struct gossip_news *leader = gossip_of(g, n->leader_id);
    uint64_t now = clock_mono_ms();
    uint64_t seq = n->lane == NULL ? 0 : repl_db_published(lane_db(n->lane));
    if (members_follow(n)) {
        g->lag = (struct lag){.since_ms = now};
        for (unsigned i = 0; i < g->n; i++)
            look(&g->lags[i], seq, now, g->peers[i].seq, g->peers[i].heard_ms);
    } else if (leader != NULL && leader->serving && n->lane != NULL) {
        look(&g->lag, leader->seq, leader->heard_ms, seq, now);
    }
}

uint64_t gossip_lag_ms(struct gossip *g, uint64_t id)
{
    uint64_t now = clock_mono_ms();
    look_all(g);
    if (id == g->node->config->id)
        return now > g->lag.since_ms ? now - g->lag.since_ms : 0;
    for (unsigned i = 0; i < g->n; i++)
        if (g->peers[i].id == id)
            return now > g->lags[i].since_ms ? now - g->lags[i].since_ms : 0;
    return UINT64_MAX;
}

void gossip_tell(struct gossip *g)
{
    look_all(g);
    struct gossip_news me;
    uint64_t *numbers[NUMBERS];
    struct buf b;
    gossip_self(g, &me);
    if (me.has_key)
        key_keeper_lead(g->node->key_keeper);
    numbers_of(&me, numbers);
    buf_init(&b, GOSSIP_MAX);
    buf_put_u8(&b, GOSSIP_VERSION);
    buf_put_u8(&b, (uint8_t)me.role);
    buf_put_u8(&b, (uint8_t)((me.serving ? SERVING : 0) | (me.waits_for_room ? NO_ROOM : 0) |
                             (me.wishes_to_vote ? WISHES_TO_VOTE : 0)));
    for (size_t i = 0; i < NUMBERS; i++)
        buf_put_u64(&b, *numbers[i]);
    buf_put_cstr(&b, me.address);
    buf_put_cstr(&b, me.version);
    buf_put_cstr(&b, me.sqlite);
    buf_put_cstr(&b, me.state);
    buf_put_cstr(&b, me.http);
    buf_put_u8(&b, me.has_key);
    if (me.has_key)
        buf_put(&b, me.key, sizeof me.key);
    if (buf_status(&b) == ERR_OK)
        cns_send(g->node->cns, 0, b.data, b.len);
    g->told_seq = me.seq;
    buf_fini(&b);
}

bool gossip_moved(const struct gossip *g)
{
    return g->node->lane != NULL && repl_db_published(lane_db(g->node->lane)) != g->told_seq;
}

/* Text of the message into a field; what is too long or holds control bytes spoils the message. */
static void get_text(struct rd *r, char *out, size_t max)
{
    size_t n;
    const char *s = rd_str(r, &n);
    if (s == NULL || n >= max) {
        r->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20)
            r->failed = true;
    memcpy(out, s, n);
    out[n] = 0;
}

static void get_more(struct rd *r, struct gossip_news *out)
{
    get_text(r, out->http, sizeof out->http);
    out->has_key = rd_u8(r) == 1;
    const uint8_t *key = out->has_key ? rd_bytes(r, sizeof out->key) : NULL;
    if (key != NULL)
        memcpy(out->key, key, sizeof out->key);
}

static bool decode(const uint8_t *p, size_t n, struct gossip_news *out)
{
    struct rd r = rd_of(p, n);
    if (rd_u8(&r) != GOSSIP_VERSION)
        return false;
    uint8_t role = rd_u8(&r);
    uint8_t flags = rd_u8(&r);
    out->serving = (flags & SERVING) != 0;
    out->waits_for_room = (flags & NO_ROOM) != 0;
    out->wishes_to_vote = (flags & WISHES_TO_VOTE) != 0;
    uint64_t *numbers[NUMBERS];
    numbers_of(out, numbers);
    for (size_t i = 0; i < NUMBERS; i++)
        *numbers[i] = rd_u64(&r);
    get_text(&r, out->address, sizeof out->address);
    get_text(&r, out->version, sizeof out->version);
    get_text(&r, out->sqlite, sizeof out->sqlite);
    get_text(&r, out->state, sizeof out->state);
    if (!r.failed && rd_left(&r) > 0) /* not told by the first nodes of this version */
        get_more(&r, out);
    if (r.failed || role > CNS_STOPPED)
        return false;
    out->role = (enum cns_role)role;
    return true;
}

static unsigned oldest(const struct gossip *g) ON_LOOP
{
    unsigned found = 0;
    for (unsigned i = 1; i < g->n; i++)
        if (g->peers[i].heard_ms < g->peers[found].heard_ms)
            found = i;
    return found;
}

bool gossip_hear(struct gossip *g, uint64_t from, const uint8_t *p, size_t n)
{
    struct gossip_news news = {.id = from, .heard_ms = clock_mono_ms()};
    if (!decode(p, n, &news))
        return false;
    unsigned i = 0;
    while (i < g->n && g->peers[i].id != from)
        i++;
    if (i == g->n && g->n < CLUSTER_MAX)
        g->n++;
    else if (i == g->n)
        i = oldest(g); /* ids come and go in the life of a cluster */
    bool changed = g->peers[i].serving != news.serving ||
                   strcmp(g->peers[i].address, news.address) != 0 || g->peers[i].term != news.term;
    if (g->peers[i].id != from) /* how old its state is nobody knows: from now on it is counted */
        g->lags[i] = (struct lag){.since_ms = news.heard_ms};
    g->peers[i] = news;
    if (news.has_key && news.serving && from == g->node->leader_id)
        key_keeper_hear(g->node->key_keeper, news.key);
    look_all(g);
    return changed;
}

const struct gossip_news *gossip_of(const struct gossip *g, uint64_t id)
{
    for (unsigned i = 0; i < g->n; i++)
        if (g->peers[i].id == id)
            return &g->peers[i];
    return NULL;
}
