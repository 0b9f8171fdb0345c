/* Room: node. Thread: loop. Not here: anything that safety rests on. */
#include "node/gossip.h"

#include "base/clock.h"
#include "base/mem.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOSSIP_VERSION 1u
#define GOSSIP_MAX     2048u

struct gossip {
    struct node *node;
    struct gossip_news peers[CLUSTER_MAX];
    unsigned n;
    uint64_t told_seq;
};

struct gossip *gossip_new(struct node *n)
{
    struct gossip *g = MEM_NEW(struct gossip);
    g->node = n;
    return g;
}

void gossip_free(struct gossip *g)
{
    free(g);
}

void gossip_self(const struct gossip *g, struct gossip_news *out)
{
    const struct node *n = g->node;
    struct repl_stats stats;
    struct cns_status cns;
    repl_db_stats(lane_db(n->lane), &stats);
    cns_get_status(n->cns, &cns);
    *out = (struct gossip_news){.id = n->config->id,
                                .term = n->term,
                                .leader_id = n->leader_id,
                                .seq = stats.published_seq,
                                .checksum = stats.checksum,
                                .commit_index = cns.commit_index,
                                .applied_index = n->applied_index,
                                .wal_bytes = stats.wal_bytes,
                                .log_bytes = cns.log_bytes,
                                .role = n->role,
                                .serving = node_is_serving(n),
                                .heard_ms = clock_mono_ms()};
    const char *address = n->config->advertise[0] != 0 ? n->config->advertise : n->config->listen;
    (void)snprintf(out->address, sizeof out->address, "%s", address);
    (void)snprintf(out->version, sizeof out->version, "%s", LECTERN_VERSION);
    (void)snprintf(out->sqlite, sizeof out->sqlite, "%s", sqlite3_libversion());
    (void)snprintf(out->state, sizeof out->state, "%s", n->failed ? n->failure : "ok");
}

void gossip_tell(struct gossip *g)
{
    struct gossip_news me;
    struct buf b;
    gossip_self(g, &me);
    buf_init(&b, GOSSIP_MAX);
    buf_put_u8(&b, GOSSIP_VERSION);
    buf_put_u8(&b, (uint8_t)me.role);
    buf_put_u8(&b, me.serving);
    const uint64_t numbers[] = {me.term,         me.leader_id,     me.seq,       me.checksum,
                                me.commit_index, me.applied_index, me.wal_bytes, me.log_bytes};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        buf_put_u64(&b, numbers[i]);
    buf_put_cstr(&b, me.address);
    buf_put_cstr(&b, me.version);
    buf_put_cstr(&b, me.sqlite);
    buf_put_cstr(&b, me.state);
    if (buf_status(&b) == ERR_OK)
        cns_send(g->node->cns, 0, b.data, b.len);
    g->told_seq = me.seq;
    buf_fini(&b);
}

bool gossip_moved(const struct gossip *g)
{
    return repl_db_published(lane_db(g->node->lane)) != g->told_seq;
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

static bool decode(const uint8_t *p, size_t n, struct gossip_news *out)
{
    struct rd r = rd_of(p, n);
    if (rd_u8(&r) != GOSSIP_VERSION)
        return false;
    uint8_t role = rd_u8(&r);
    out->serving = rd_u8(&r) == 1;
    uint64_t *const numbers[] = {&out->term,      &out->leader_id,    &out->seq,
                                 &out->checksum,  &out->commit_index, &out->applied_index,
                                 &out->wal_bytes, &out->log_bytes};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        *numbers[i] = rd_u64(&r);
    get_text(&r, out->address, sizeof out->address);
    get_text(&r, out->version, sizeof out->version);
    get_text(&r, out->sqlite, sizeof out->sqlite);
    get_text(&r, out->state, sizeof out->state);
    if (r.failed || role > CNS_STOPPED)
        return false;
    out->role = (enum cns_role)role;
    return true;
}

bool gossip_hear(struct gossip *g, uint64_t from, const uint8_t *p, size_t n)
{
    struct gossip_news news = {.id = from, .heard_ms = clock_mono_ms()};
    if (!decode(p, n, &news))
        return false;
    unsigned i = 0;
    while (i < g->n && g->peers[i].id != from)
        i++;
    if (i == CLUSTER_MAX)
        return false;
    if (i == g->n)
        g->n++;
    bool changed = g->peers[i].serving != news.serving ||
                   strcmp(g->peers[i].address, news.address) != 0 || g->peers[i].term != news.term;
    g->peers[i] = news;
    return changed;
}

const struct gossip_news *gossip_of(const struct gossip *g, uint64_t id)
{
    for (unsigned i = 0; i < g->n; i++)
        if (g->peers[i].id == id)
            return &g->peers[i];
    return NULL;
}
