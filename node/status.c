/* Room: node. Thread: loop. */
#include "node/status.h"

#include "base/clock.h"
#include "node/gossip.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SILENT_MS 3000 /* not heard of for so long: shown as unreachable */

static const char *const columns[] = {"node",     "address", "role",    "term",      "seq",
                                      "lag",      "commit",  "applied", "wal_bytes", "log_bytes",
                                      "checksum", "leader",  "version", "state"};
#define COLUMNS ((uint32_t)(sizeof columns / sizeof columns[0]))

static void put_text(struct buf *b, const char *s)
{
    struct wire_value v = {.type = WIRE_TEXT};
    v.text.bytes = s;
    v.text.len = (uint32_t)strlen(s);
    wire_put_value(b, &v);
}

static void put_number(struct buf *b, uint64_t n)
{
    struct wire_value v = {.type = WIRE_INTEGER};
    v.integer = (int64_t)n;
    wire_put_value(b, &v);
}

static const char *role_name(const struct gossip_news *s)
{
    switch (s->role) {
    case CNS_FOLLOWER:
        return "follower";
    case CNS_CANDIDATE:
        return "candidate";
    case CNS_LEADER:
        return "leader";
    case CNS_STOPPED:
        return "stopped";
    }
    return "unknown";
}

static void put_row(struct buf *b, const struct gossip_news *s, uint64_t newest, uint64_t now_ms)
{
    char checksum[32];
    bool silent = now_ms > s->heard_ms + SILENT_MS;
    (void)snprintf(checksum, sizeof checksum, "%016" PRIx64, s->checksum);
    put_number(b, s->id);
    put_text(b, s->address);
    put_text(b, silent ? "unknown" : role_name(s));
    put_number(b, s->term);
    put_number(b, s->seq);
    put_number(b, newest > s->seq ? newest - s->seq : 0);
    put_number(b, s->commit_index);
    put_number(b, s->applied_index);
    put_number(b, s->wal_bytes);
    put_number(b, s->log_bytes);
    put_text(b, checksum);
    put_number(b, s->leader_id);
    put_text(b, s->version);
    put_text(b, silent ? "unreachable" : s->state);
}

void status_answer(struct node *n, struct request *r)
{
    struct buf *b = &r->answer.out;
    struct gossip_news rows[CLUSTER_MAX];
    unsigned members = 0, n_rows = 0;
    uint64_t newest = 0, now = clock_mono_ms();
    const struct cns_server *servers = cns_members(n->cns, &members);
    for (unsigned i = 0; i < members && n_rows < CLUSTER_MAX; i++) {
        const struct gossip_news *news = gossip_of(n->gossip, servers[i].id);
        struct gossip_news *row = &rows[n_rows++];
        if (servers[i].id == n->config->id)
            gossip_self(n->gossip, row);
        else if (news != NULL)
            *row = *news;
        else
            *row = (struct gossip_news){.id = servers[i].id};
        newest = row->seq > newest ? row->seq : newest;
    }
    size_t begun = wire_begin(b, WIRE_COLUMNS, r->id);
    buf_put_u32(b, COLUMNS);
    for (uint32_t i = 0; i < COLUMNS; i++) {
        buf_put_cstr(b, columns[i]);
        buf_put_cstr(b, "");
    }
    wire_end(b, begun);
    begun = wire_begin(b, WIRE_ROWS, r->id);
    buf_put_u32(b, n_rows);
    for (unsigned i = 0; i < n_rows; i++)
        put_row(b, &rows[i], newest, now);
    wire_end(b, begun);
    r->answer.seq = repl_db_published(lane_db(n->lane));
}
