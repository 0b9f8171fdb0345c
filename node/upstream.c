/* Room: node. Thread: loop.
 *
 *   (none) --send--> connecting --> greeting --> ready <--> busy (a request is at the leader)
 *                        |             |           |          |
 *                        +-- lost: the request was not sent: ERR_NOT_LEADER, run it elsewhere
 *                                                             +-- lost: autocommit ERR_UNKNOWN,
 *                                                                 transaction ERR_TXN_LOST (COMMIT:
 *                                                                 ERR_UNKNOWN) */
#include "node/upstream.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/admin.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECT_MS                                                                                 \
    2000 /* until WELCOME: a dead host must not hold a write longer than an election */
#define DEPOSED_MS 2000 /* an answer may still come from a leader that is none any more */

enum state { CONNECTING, GREETING, READY, BUSY };

struct upstream {
    struct session *session;
    struct framed *framed;
    enum state state;
    uint64_t leader_id, since_ms, deposed_ms;
    bool relayed; /* part of the answer is with the client already */
};

static void destroy(struct session *s) ON_LOOP
{
    struct upstream *u = s->upstream;
    s->upstream = NULL;
    framed_close(u->framed, false);
    free(u);
}

/* The fate of a statement that was at the leader when it was lost. */
static void answer_lost(struct session *s, bool sent) ON_LOOP
{
    struct request *r = s->current;
    bool in_transaction = s->home == HOME_UPSTREAM;
    s->home = HOME_NONE;
    if (!sent && !in_transaction)
        request_fail(r, ERR_NOT_LEADER, "the leader cannot be reached");
    else if (in_transaction && !(r->kind == SQL_TRANSACTION &&
                                 !sql_is_rollback(r->statement.sql, r->statement.sql_len)))
        request_fail(r, ERR_TXN_LOST, "the transaction was rolled back: the leader was lost");
    else if (in_transaction && !sent)
        request_fail(r, ERR_TXN_LOST, "the transaction was rolled back: the leader was lost");
    else
        request_fail(r, ERR_UNKNOWN,
                     "the leader was lost before it answered: look whether this was written before "
                     "you repeat it");
    session_answer(s, r);
}

static void lose(struct session *s, const char *why) ON_LOOP
{
    struct upstream *u = s->upstream;
    bool waiting = s->at == AT_UPSTREAM, sent = u->state == BUSY;
    log_info("upstream", "lost leader=%" PRIu64 " session=%" PRIu64 " why=\"%s\"", u->leader_id,
             s->id, why);
    destroy(s);
    if (waiting) /* else an open transaction's next request finds no connection, and is told */
        answer_lost(s, sent);
}

static void send_request(struct session *s) ON_LOOP
{
    struct upstream *u = s->upstream;
    struct request *r = s->current;
    struct wire_query q = r->query;
    struct wire_cluster w;
    struct buf b;
    q.last_insert_rowid = r->last_insert_rowid;
    q.flags = (uint16_t)(q.flags | WIRE_FORWARDED | (r->foreign_keys ? 0 : WIRE_FOREIGN_KEYS_OFF));
    buf_init(&b, WIRE_FRAME_MAX + KIB(1));
    if (r->cluster != NULL) {
        admin_forward(r, &w);
        wire_put_cluster(&b, r->id, &w);
    } else {
        size_t begun = wire_begin_query(&b, WIRE_QUERY, r->id, &q);
        size_t statement = wire_begin_statement(&b, 0, r->statement.sql, r->statement.sql_len);
        buf_put(&b, r->statement.params.p, rd_left(&r->statement.params));
        wire_end_statement(&b, statement, r->statement.n_params);
        wire_end_query(&b, begun, 1);
    }
    CHECK(buf_status(&b) == ERR_OK);
    u->state = BUSY;
    u->relayed = false;
    u->since_ms = clock_mono_ms();
    framed_send(u->framed, &b);
    buf_fini(&b);
}

static void on_open(void *ctx)
{
    struct session *s = ctx;
    struct buf b;
    thread_expect_loop();
    buf_init(&b, KIB(1));
    wire_put_hello(&b, "lecternd", "");
    framed_send(s->upstream->framed, &b);
    buf_fini(&b);
    s->upstream->state = GREETING;
}

static void on_answer_end(struct session *s, struct wire_frame *f) ON_LOOP
{
    struct wire_frame copy = *f;
    struct wire_done d = {0};
    struct wire_error e = {.code = ERR_OK};
    enum err bad = f->type == WIRE_DONE ? wire_get_done(&copy, &d) : wire_get_error(&copy, &e);
    if (bad != ERR_OK) {
        lose(s, err_text());
        return;
    }
    if (e.code == ERR_NOT_LEADER && !s->upstream->relayed) {
        /* Surely not run there: find the new leader. */
        s->upstream->state = READY;
        request_fail(s->current, s->home == HOME_NONE ? ERR_NOT_LEADER : ERR_TXN_LOST,
                     "the leader changed");
        s->home = HOME_NONE;
        session_answer(s, s->current);
        return;
    }
    s->upstream->state = READY;
    if (f->type == WIRE_DONE)
        s->last_insert_rowid = d.last_insert_rowid;
    uint64_t seq = f->type == WIRE_DONE ? d.seq : e.seq;
    if (seq > s->seen_seq)
        s->seen_seq = seq;
    (void)session_relay(s, f);
    session_relayed(s, ((f->type == WIRE_DONE ? d.flags : e.flags) & WIRE_IN_TRANSACTION) != 0);
}

static void on_frame(void *ctx, struct wire_frame *f)
{
    struct session *s = ctx;
    struct upstream *u = s->upstream;
    thread_expect_loop();
    if (u->state == GREETING && f->type == WIRE_WELCOME) {
        framed_limit(u->framed, WIRE_FRAME_MAX);
        u->state = READY;
        if (s->at == AT_UPSTREAM)
            send_request(s);
        return;
    }
    if (u->state != BUSY || s->at != AT_UPSTREAM || f->id.request != s->current->id.request) {
        lose(s, "a frame that nobody asked for");
        return;
    }
    if (f->type == WIRE_DONE || f->type == WIRE_ERROR) {
        on_answer_end(s, f);
    } else if (f->type == WIRE_COLUMNS || f->type == WIRE_ROWS) {
        u->relayed = true;
        if (!session_relay(s, f))
            framed_pause(u->framed, true);
    } else {
        lose(s, "a frame that a server does not send here");
    }
}

static void on_bad(void *ctx, enum err e)
{
    thread_expect_loop();
    (void)e;
    lose(ctx, err_text());
}

static void on_drain(void *ctx)
{
    (void)ctx;
}

static void on_close(void *ctx, const char *why)
{
    thread_expect_loop();
    lose(ctx, why);
}

static void open_to(struct session *s, uint64_t leader_id, const char *address) ON_LOOP
{
    struct upstream *u = MEM_NEW(struct upstream);
    struct framed_events events = {.ctx = s,
                                   .on_open = on_open,
                                   .on_frame = on_frame,
                                   .on_bad = on_bad,
                                   .on_drain = on_drain,
                                   .on_close = on_close};
    u->session = s;
    u->leader_id = leader_id;
    u->since_ms = clock_mono_ms();
    u->framed = framed_connect(&s->node->loop, address, &events);
    s->upstream = u;
}

void upstream_send(struct session *s, struct request *r, uint64_t leader_id, const char *address)
{
    CHECK(s->at == AT_UPSTREAM && s->current == r);
    if (s->home == HOME_UPSTREAM) {
        if (s->upstream == NULL)
            answer_lost(s, false);
        else
            send_request(s);
        return;
    }
    if (s->upstream != NULL && s->upstream->leader_id != leader_id)
        destroy(s);
    if (s->upstream == NULL)
        open_to(s, leader_id, address);
    else if (s->upstream->state == READY)
        send_request(s);
}

void upstream_cancel(struct session *s)
{
    struct upstream *u = s->upstream;
    struct buf b;
    if (u != NULL && u->state < READY) { /* it was not sent; the connection serves the next one */
        request_fail(s->current, ERR_CANCELLED, "interrupted");
        session_answer(s, s->current);
        return;
    }
    if (u == NULL || u->state != BUSY)
        return;
    buf_init(&b, KIB(1));
    wire_put_cancel(&b, s->current->id);
    framed_send(u->framed, &b);
    buf_fini(&b);
}

void upstream_timer(struct session *s, uint64_t now_ms)
{
    struct upstream *u = s->upstream;
    bool deposed = u->leader_id != s->node->leader_id;
    u->deposed_ms = !deposed ? 0 : u->deposed_ms == 0 ? now_ms : u->deposed_ms;
    bool overdue = s->at == AT_UPSTREAM && now_ms > s->give_up_ms;
    if (u->state < READY && (overdue || now_ms > u->since_ms + CONNECT_MS))
        lose(s, "the leader does not answer");
    else if (u->state == BUSY && deposed && now_ms > u->deposed_ms + DEPOSED_MS)
        lose(s, "another node leads now, and the old leader is silent");
}

void upstream_resume(struct session *s)
{
    if (s->upstream != NULL)
        framed_pause(s->upstream->framed, false);
}

void upstream_close(struct session *s)
{
    if (s->upstream != NULL)
        destroy(s);
}
