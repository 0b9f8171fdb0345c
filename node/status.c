/* Room: node. Thread: loop. */
#include "node/status.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const columns[] = {
    "node",     "address",      "role",      "term",      "seq",       "lag",
    "commit",   "applied",      "wal_bytes", "log_bytes", "checksum",  "leader",
    "version",  "state",        "member",    "peer",      "log_first", "log_last",
    "snapshot", "snapshot_age", "repairs",   "disk_free",
};
#define COLUMNS ((uint32_t)(sizeof columns / sizeof columns[0]))

static void put_null(struct buf *b)
{
    struct wire_value v = {.type = WIRE_NULL};
    wire_put_value(b, &v);
}

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

static const char *role_name(enum cns_role role)
{
    switch (role) {
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

static void put_members_part(struct buf *b, const struct status_row *row)
{
    const struct gossip_news *s = &row->news;
    put_text(b, row->listed ? member_role_name(row->member.role) : "none");
    if (row->listed)
        put_text(b, row->member.address);
    else
        put_null(b);
    put_number(b, s->first_index);
    put_number(b, s->last_index);
    put_number(b, s->snapshot_index);
    if (s->snapshot_age_s == GOSSIP_AGE_UNKNOWN || s->snapshot_index == 0)
        put_null(b);
    else
        put_number(b, s->snapshot_age_s);
    put_number(b, s->repairs);
    if (s->disk_free == UINT64_MAX || s->heard_ms == 0)
        put_null(b);
    else
        put_number(b, s->disk_free);
}

/* What all rows together tell. */
struct overview {
    uint64_t newest_seq;
    uint64_t term; /* the highest in which somebody led, as far as is known */
};

static struct overview look_over(const struct status_row *rows, unsigned n)
{
    struct overview o = {0};
    for (unsigned i = 0; i < n; i++) {
        const struct gossip_news *s = &rows[i].news;
        bool knows = s->role == CNS_LEADER || s->leader_id != 0;
        o.newest_seq = s->seq > o.newest_seq ? s->seq : o.newest_seq;
        o.term = knows && s->term > o.term ? s->term : o.term;
    }
    return o;
}

/* A leader of an older term died, or is cut off: what it told last is the past. One that does not
 * call itself the leader hears no majority (members_view.h). */
static const char *judge_role(const struct status_row *row, const struct overview *o)
{
    const struct gossip_news *s = &row->news;
    bool past = s->role == CNS_LEADER && (s->term < o->term || s->leader_id != s->id);
    return row->silent || past ? "unknown" : role_name(s->role);
}

static void put_row(struct buf *b, const struct status_row *row)
{
    const struct gossip_news *s = &row->news;
    char checksum[32];
    (void)snprintf(checksum, sizeof checksum, "%016" PRIx64, s->checksum);
    put_number(b, s->id);
    put_text(b, s->address);
    put_text(b, row->role);
    put_number(b, s->term);
    put_number(b, s->seq);
    put_number(b, row->lag);
    put_number(b, s->commit_index);
    put_number(b, s->applied_index);
    put_number(b, s->wal_bytes);
    put_number(b, s->log_bytes);
    put_text(b, checksum);
    put_number(b, s->leader_id);
    put_text(b, s->version);
    put_text(b, !row->heard ? "never heard of" : row->silent ? "unreachable" : s->state);
    put_members_part(b, row);
}

static void note_silence(struct status_row *row, uint64_t now_ms)
{
    uint64_t heard = row->news.heard_ms;
    row->silent_ms = now_ms > heard ? now_ms - heard : 0;
    row->silent = !row->heard || row->silent_ms > SILENT_MS;
}

/* What only all rows together tell of each. */
static void compare(struct status_row *rows, unsigned n)
{
    struct overview o = look_over(rows, n);
    uint64_t now = clock_mono_ms();
    for (unsigned i = 0; i < n; i++) {
        note_silence(&rows[i], now);
        rows[i].role = judge_role(&rows[i], &o);
        rows[i].lag = o.newest_seq - rows[i].news.seq;
    }
}

unsigned status_collect(struct node *n, struct status_row rows[STATUS_ROWS_MAX])
{
    struct member members[CLUSTER_MAX];
    unsigned n_members = n->cns == NULL ? 0 : members_copy_all(n, members, CLUSTER_MAX);
    unsigned n_rows = 0;
    bool self = false;
    for (unsigned i = 0; i < n_members; i++) {
        struct status_row *row = &rows[n_rows++];
        const struct gossip_news *news = gossip_of(n->gossip, members[i].id);
        bool is_self = members[i].id == n->config->id;
        self = self || is_self;
        *row = (struct status_row){.member = members[i],
                                   .listed = true,
                                   .heard = is_self || news != NULL,
                                   .news = {.id = members[i].id}};
        if (is_self)
            gossip_self(n->gossip, &row->news);
        else if (news != NULL)
            row->news = *news;
    }
    if (!self) {
        rows[n_rows] = (struct status_row){.heard = true};
        gossip_self(n->gossip, &rows[n_rows].news);
        n_rows++;
    }
    compare(rows, n_rows);
    return n_rows;
}

void status_answer(struct node *n, struct request *r)
{
    struct buf *b = &r->answer.out;
    struct status_row rows[STATUS_ROWS_MAX];
    unsigned n_rows = status_collect(n, rows);
    wire_put_columns(b, r->id, columns, COLUMNS);
    size_t begun = wire_begin(b, WIRE_ROWS, r->id);
    buf_put_u32(b, n_rows);
    for (unsigned i = 0; i < n_rows; i++)
        put_row(b, &rows[i]);
    wire_end(b, begun);
    r->answer.seq = n->lane == NULL ? 0 : repl_db_published(lane_db(n->lane));
}
