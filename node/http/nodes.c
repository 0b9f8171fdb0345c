/* Room: node/http.   Thread: loop.   Owns: nothing.
 * Numbers that may pass 2^53 (a checksum) are texts; all others are numbers. What is not known is
 * null: a member that was never heard of has little but its id. */
#include "node/http/nodes.h"

#include "base/clock.h"
#include "node/gossip.h"
#include "node/http/json_write.h"
#include "node/node.h"
#include "node/status.h"

#include <inttypes.h>
#include <stdio.h>

static void put_text(struct json_writer *j, const char *key, const char *text) ON_LOOP
{
    json_key(j, key);
    if (text == NULL || text[0] == 0)
        json_null(j);
    else
        json_cstr(j, text);
}

static void put_number(struct json_writer *j, const char *key, bool known, uint64_t n) ON_LOOP
{
    json_key(j, key);
    if (known)
        json_uint(j, n);
    else
        json_null(j);
}

static void put_state(struct json_writer *j, const struct status_row *row) ON_LOOP
{
    const struct gossip_news *s = &row->news;
    json_key(j, "state");
    json_cstr(j, !row->heard ? "never heard of" : row->silent ? "unreachable" : s->state);
    json_key(j, "reachable");
    json_bool(j, row->heard && !row->silent);
    put_number(j, "heard_ms_ago", row->heard, row->silent_ms);
    json_key(j, "serving");
    json_bool(j, row->heard && !row->silent && s->serving);
}

static void put_positions(struct json_writer *j, const struct status_row *row) ON_LOOP
{
    const struct gossip_news *s = &row->news;
    char checksum[32];
    (void)snprintf(checksum, sizeof checksum, "%016" PRIx64, s->checksum);
    put_number(j, "term", row->heard, s->term);
    put_number(j, "leader", row->heard && s->leader_id != 0, s->leader_id);
    put_number(j, "sequence", row->heard, s->seq);
    put_text(j, "checksum", row->heard ? checksum : NULL);
    put_number(j, "lag", row->heard, row->lag);
    put_number(j, "commit_index", row->heard, s->commit_index);
    put_number(j, "applied_index", row->heard, s->applied_index);
    put_number(j, "log_first_index", row->heard, s->first_index);
    put_number(j, "log_last_index", row->heard, s->last_index);
    put_number(j, "snapshot_index", row->heard && s->snapshot_index != 0, s->snapshot_index);
    put_number(j, "snapshot_age_seconds",
               row->heard && s->snapshot_index != 0 && s->snapshot_age_s != GOSSIP_AGE_UNKNOWN,
               s->snapshot_age_s);
}

static void put_node(struct json_writer *j, const struct node *n,
                     const struct status_row *row) ON_LOOP
{
    const struct gossip_news *s = &row->news;
    json_begin_object(j);
    put_number(j, "id", true, s->id);
    json_key(j, "self");
    json_bool(j, s->id == n->config->id);
    put_text(j, "member", row->listed ? member_role_name(row->member.role) : NULL);
    put_text(j, "role", row->heard && !row->silent ? row->role : NULL);
    put_text(j, "address", s->address);
    put_text(j, "http", s->http);
    put_text(j, "peer", row->listed ? row->member.address : NULL);
    put_state(j, row);
    put_positions(j, row);
    put_number(j, "wal_bytes", row->heard, s->wal_bytes);
    put_number(j, "wal_held_ms", row->heard, s->wal_waits_ms);
    put_number(j, "log_bytes", row->heard, s->log_bytes);
    put_number(j, "disk_free_bytes", row->heard && s->disk_free != UINT64_MAX, s->disk_free);
    put_number(j, "repairs", row->heard, s->repairs);
    put_text(j, "version", s->version);
    put_text(j, "sqlite", s->sqlite);
    json_end_object(j);
}

static void on_nodes(struct exchange *x)
{
    struct node *n = x->node;
    struct status_row rows[STATUS_ROWS_MAX];
    struct buf b;
    thread_expect_loop();
    unsigned n_rows = status_collect(n, rows);
    uint64_t leader = member_known_leader(n);
    buf_init(&b, SIZE_MAX);
    struct json_writer j = json_writer_of(&b);
    json_begin_object(&j);
    put_number(&j, "node", true, n->config->id);
    put_number(&j, "cluster", true, n->config->cluster_id);
    put_number(&j, "leader", leader != 0, leader);
    json_key(&j, "nodes");
    json_begin_array(&j);
    for (unsigned i = 0; i < n_rows; i++)
        put_node(&j, n, &rows[i]);
    json_end_array(&j);
    json_end_object(&j);
    buf_put(&b, "\n", 1);
    exchange_add_header(x, "cache-control", "no-store");
    exchange_answer(x, 200, "application/json", &b);
    buf_fini(&b);
}

const struct handler nodes_handler = {.on_end = on_nodes, .only_tells = true};
