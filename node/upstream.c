/* Room: node. Thread: loop.
 * Owns: each session's place on a connection to the leader.
 * Invariants: a session has a place only while a request of it is at the leader, or waits for the
 *   connection, or its transaction lives there. What a client does not take is held here, and
 *   counts there as its client's: at the leader all clients are one. Who has more than SHARE_BYTES
 *   of requests under way sends them on a connection of its own.
 * Not here: the connections (upstream_link.c), what answers mean (upstream_answer.c). */
#include "node/upstream.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "node/admin.h"
#include "node/channel.h"
#include "node/upstream_state.h"

#include <stdlib.h>

#define SHARE_BYTES MIB(32) /* of one client's requests, on a connection that all share */

/* --- places --- */

static void free_place(struct session *s) ON_LOOP
{
    list_remove(&s->upstream->link);
    s->upstream->at->n_places--;
    free(s->upstream);
    s->upstream = NULL;
}

static void give_credit(struct upstream *u) ON_LOOP
{
    struct buf b;
    buf_init(&b, KIB(1));
    wire_put_credit(&b, u->stream, u->took);
    u->took = 0;
    upstream_put(u->at, &b);
}

void upstream_release(struct session *s)
{
    struct upstream *u = s->upstream;
    if (u == NULL)
        return;
    CHECK(!u->sent);
    if (u->took > 0)
        give_credit(u); /* the next session begins with the whole window */
    if (u->stream != 0)
        upstream_give_stream(u->at, u->stream);
    free_place(s);
}

void upstream_close(struct session *s)
{
    struct upstream *u = s->upstream;
    struct buf b;
    if (u == NULL)
        return;
    if (u->stream != 0) {
        (void)table_take(&u->at->streams, u->stream);
        u->at->n_streams--;
        buf_init(&b, KIB(1));
        wire_put_close(&b, u->stream);
        upstream_put(u->at, &b);
    }
    free_place(s);
}

/* --- requests --- */

static void put_statements(struct buf *b, struct request *r) ON_LOOP
{
    request_first_statement(r);
    do {
        const struct wire_statement *w = &r->statement;
        size_t begun = wire_begin_statement(b, 0, w->sql, w->sql_len);
        buf_put(b, w->params.p, rd_left(&w->params));
        wire_end_statement(b, begun, w->n_params);
    } while (buf_status(b) == ERR_OK && request_next_statement(r));
    request_first_statement(r);
}

static enum err put_request(struct buf *b, struct request *r, uint32_t stream) ON_LOOP
{
    struct wire_id id = {stream, r->id.request};
    struct wire_query q = r->query;
    struct wire_cluster w;
    if (r->cluster != NULL) {
        admin_forward(r, &w);
        wire_put_cluster(b, id, &w);
        return buf_status(b);
    }
    enum wire_type type = r->is_batch ? WIRE_BATCH : r->is_describe ? WIRE_DESCRIBE : WIRE_QUERY;
    uint64_t now = clock_mono_ms();
    q.flags = (uint16_t)(q.flags | WIRE_FORWARDED);
    if (r->in_doubt && request_is_numbered(r))
        q.flags = (uint16_t)(q.flags | WIRE_AGAIN);
    q.timeout_ms = r->deadline_ms > now ? (uint32_t)(r->deadline_ms - now) : 1;
    size_t begun = wire_begin_query(b, type, id, &q);
    put_statements(b, r);
    wire_end_query(b, begun, r->query.n_statements);
    return buf_status(b);
}

void upstream_send_request(struct session *s)
{
    struct upstream *u = s->upstream;
    struct request *r = s->current;
    struct buf b;
    if (u->stream == 0)
        upstream_take_stream(u->at, u);
    buf_init(&b, WIRE_FRAME_MAX + KIB(64));
    if (put_request(&b, r, u->stream) != ERR_OK) {
        buf_fini(&b);
        request_fail(r, ERR_TOO_BIG,
                     "with the texts kept on this connection the request is longer "
                     "than a frame: it cannot be passed on to the leader");
        r->answer.in_transaction = s->home == HOME_UPSTREAM;
        session_answer(s, r);
        return;
    }
    r->elsewhere = true;
    u->sent = true;
    u->answered = false;
    upstream_put(u->at, &b);
}

void upstream_resume(struct session *s)
{
    if (s->upstream != NULL && s->upstream->took >= WIRE_WINDOW / 4)
        give_credit(s->upstream);
    session_relay(s);
}

void upstream_touch(struct session *s)
{
    if (s->upstream != NULL && s->upstream->stream != 0)
        give_credit(s->upstream); /* of nothing, too, says so */
}

/* --- the door --- */

static bool is_greedy(const struct session *s) ON_LOOP
{
    return s->channel->request_bytes > SHARE_BYTES;
}

static void refuse_greedy(struct session *s, struct request *r) ON_LOOP
{
    request_fail(r, ERR_BUSY,
                 "too many bytes of requests are on their way to the leader: read answers first");
    r->answer.in_transaction = s->home == HOME_UPSTREAM;
    session_answer(s, r);
}

/* The transaction is where it is: on a connection that others share, too, only one request goes
 * that is beyond a fair share. */
static void send_in_transaction(struct session *s, struct request *r) ON_LOOP
{
    if (s->upstream == NULL)
        upstream_answer_lost(s, false, false);
    else if (s->upstream->at->owner == 0 && is_greedy(s) && r->bytes < s->channel->request_bytes)
        refuse_greedy(s, r);
    else
        upstream_send_request(s);
}

void upstream_send(struct session *s, struct request *r, uint64_t leader_id, const char *address)
{
    CHECK(s->at == AT_UPSTREAM && s->current == r);
    if (s->home == HOME_UPSTREAM) {
        send_in_transaction(s, r);
        return;
    }
    CHECK(s->upstream == NULL);
    uint64_t owner = is_greedy(s) ? s->channel->id : 0;
    struct leader_link *l = upstream_link_to(s->node, leader_id, owner, address);
    if (l == NULL) {
        refuse_greedy(s, r);
        return;
    }
    struct upstream *u = MEM_NEW(struct upstream);
    u->at = l;
    u->session = s;
    s->upstream = u;
    list_push_back(&l->places, &u->link);
    l->n_places++;
    if (u->at->state == READY)
        upstream_send_request(s);
}

void upstream_cancel(struct session *s)
{
    struct upstream *u = s->upstream;
    struct buf b;
    if (u != NULL && !u->sent) { /* it waits for the connection, which serves others too */
        upstream_release(s);
        request_fail(s->current, ERR_CANCELLED, "interrupted");
        session_answer(s, s->current);
        return;
    }
    if (u == NULL)
        return;
    buf_init(&b, KIB(1));
    wire_put_cancel(&b, (struct wire_id){u->stream, s->current->id.request});
    upstream_put(u->at, &b);
}
