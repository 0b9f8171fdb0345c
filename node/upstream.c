/* Room: node. Thread: loop.
 * Owns: the connections to leaders (node.leader_links), each session's place on one.
 * Invariants: a session has a place only while a request of it is at the leader, or waits for the
 *   connection, or its transaction lives there. The streams of a connection are all alike, for what
 *   a session carries travels with each request: one that is done with is used again by another
 *   session; one that is given up is closed, and its number never used again. What a client does
 *   not take is held here, and counts there as its client's: at the leader all clients are one.
 *   What the leader has not taken is in node.waiting, also when its session is gone.
 *   Who has more than SHARE_BYTES of requests under way sends them on a connection of its own.
 *
 *   connecting --> greeting --> ready --> lost
 *
 * What was at the leader when it was lost:
 *   not sent                      ERR_NOT_LEADER: run it elsewhere
 *   numbered                      in doubt, ERR_NOT_LEADER: run it elsewhere, under its number
 *   part of its answer is here    ERR_ROWS_LOST: it is done (answers follow the commit)
 *   a BEGIN                       ERR_NOT_LEADER: it wrote nothing and died with its connection
 *   another write                 ERR_UNKNOWN
 *   in a transaction              ERR_TXN_LOST
 *   its COMMIT                    numbered: in doubt, asked for at the next leader (WIRE_RESOLVE)
 *                                 else: ERR_UNKNOWN */
#include "node/upstream.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/admin.h"
#include "node/channel.h"
#include "node/framed.h"
#include "node/route.h"
#include "node/table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Until WELCOME: a dead host must not hold a write longer than an election. */
#define CONNECT_MS  2000
#define DEPOSED_MS  2000    /* an answer may still come from a leader that is none any more */
#define QUIET_MS    1000    /* nothing came, though something is awaited: PING */
#define DEAD_MS     4000    /* and still nothing */
#define LATE_MS     5000    /* after its deadline a request is answered, or never */
#define SHARE_BYTES MIB(32) /* of one client's requests, on a connection that all share */
#define OWN_LINKS   16u     /* connections to a leader for one client each */
#define STREAMS_MAX (WIRE_STREAMS_MAX - 384) /* of one connection; the leader may count others */
#define NUMBERS_MAX (UINT32_MAX - WIRE_STREAMS_MAX) /* given to its streams: then another one */

enum link_state { CONNECTING, GREETING, READY };

struct leader_link {
    struct list link; /* of node.leader_links */
    struct node *node;
    struct framed *framed;
    enum link_state state;
    uint64_t leader_id, since_ms, deposed_ms; /* deposed_ms: another leads, since; 0 */
    uint64_t owner;                /* the client's connection whose own it is; 0: all share it */
    uint64_t bytes_read, heard_ms; /* so many bytes had come at that time */
    uint64_t pinged_ms;            /* 0: no PING is under way */
    uint64_t ping_at, bytes_taken; /* its place among the bytes sent; how many were taken then */
    struct list places;            /* struct upstream */
    uint32_t n_places;             /* so many may want a stream */
    struct table streams;          /* those with a stream: struct session */
    uint32_t n_streams;            /* open at the leader */
    uint32_t newest;               /* number given to a stream */
    uint32_t *idle;                /* streams without a session: a stack */
    uint32_t n_idle, idle_size;
};

/* A session's place. */
struct upstream {
    struct list link; /* of leader_link.places */
    struct leader_link *at;
    struct session *session;
    uint32_t stream; /* 0: none yet */
    bool sent;       /* its current request is at the leader */
    bool answered;   /* part of the answer is here */
    uint32_t took;   /* bytes of ROWS that came and were not given back as credit */
};

/* --- places and streams --- */

static void free_place(struct session *s) ON_LOOP
{
    list_remove(&s->upstream->link);
    s->upstream->at->n_places--;
    free(s->upstream);
    s->upstream = NULL;
}

static void take_stream(struct leader_link *l, struct upstream *u) ON_LOOP
{
    if (l->n_idle > 0) {
        u->stream = l->idle[--l->n_idle];
    } else {
        u->stream = ++l->newest;
        l->n_streams++;
    }
    table_put(&l->streams, u->stream, u->session);
}

static void give_stream(struct leader_link *l, uint32_t stream) ON_LOOP
{
    (void)table_take(&l->streams, stream);
    if (l->n_idle == l->idle_size) {
        l->idle_size = l->idle_size == 0 ? 16 : 2 * l->idle_size;
        l->idle = mem_realloc(l->idle, l->idle_size * sizeof *l->idle);
    }
    l->idle[l->n_idle++] = stream;
}

static void put(struct leader_link *l, struct buf *b) ON_LOOP
{
    CHECK(buf_status(b) == ERR_OK);
    framed_send(l->framed, b);
    buf_fini(b);
}

static void give_credit(struct upstream *u) ON_LOOP
{
    struct buf b;
    if (u->took == 0 || u->stream == 0)
        return;
    buf_init(&b, KIB(1));
    wire_put_credit(&b, u->stream, u->took);
    u->took = 0;
    put(u->at, &b);
}

void upstream_release(struct session *s)
{
    struct upstream *u = s->upstream;
    if (u == NULL)
        return;
    CHECK(!u->sent);
    give_credit(u); /* the next session begins with the whole window */
    if (u->stream != 0)
        give_stream(u->at, u->stream);
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
        put(u->at, &b);
    }
    free_place(s);
}

/* --- a leader that is lost --- */

static bool is_commit(const struct request *r) ON_LOOP
{
    return r->kind == SQL_TRANSACTION && !sql_is_rollback(r->statement.sql, r->statement.sql_len);
}

/* The leader does not know what became of a COMMIT, or none leads there any more: the next one is
 * asked. */
static void ask_again(struct request *r) ON_LOOP
{
    r->query.flags = (uint16_t)((r->query.flags & ~WIRE_INSIDE) | WIRE_RESOLVE);
    r->in_doubt = true;
    request_fail(r, ERR_NOT_LEADER, "the leader was lost before it answered a COMMIT");
}

static void answer_lost_transaction(struct session *s, struct request *r, bool sent) ON_LOOP
{
    s->home = HOME_NONE;
    r->answer.in_transaction = false;
    if (!sent || !is_commit(r)) {
        request_fail(r, ERR_TXN_LOST, "the transaction was rolled back: the leader was lost");
    } else if (request_is_numbered(r)) {
        ask_again(r);
    } else {
        request_fail(r, ERR_UNKNOWN,
                     "the leader was lost before it answered: look whether this was written before "
                     "you repeat it");
    }
    session_answer(s, r);
}

/* The fate of the current request, which was at the leader (SENT) or waited for the connection. */
static void answer_lost(struct session *s, bool sent, bool answered) ON_LOOP
{
    struct request *r = s->current;
    if (s->home == HOME_UPSTREAM) {
        answer_lost_transaction(s, r, sent);
        return;
    }
    r->answer.in_transaction = false;
    if (!sent) {
        request_fail(r, ERR_NOT_LEADER, "the leader cannot be reached");
    } else if (answered) {
        request_fail(r, ERR_ROWS_LOST,
                     "the statement was done, but the leader was lost with a part of its rows");
    } else if (request_is_numbered(r)) {
        r->in_doubt = true;
        request_fail(r, ERR_NOT_LEADER, "the leader was lost before it answered");
    } else if (r->kind == SQL_TRANSACTION) {
        request_fail(r, ERR_NOT_LEADER, "the leader was lost before it began a transaction");
    } else {
        request_fail(r, ERR_UNKNOWN,
                     "the leader was lost before it answered: look whether this was written before "
                     "you repeat it");
    }
    session_answer(s, r);
}

static void free_link(struct leader_link *l) ON_LOOP
{
    CHECK(list_empty(&l->places));
    list_remove(&l->link);
    framed_close(l->framed, false);
    table_fini(&l->streams);
    free(l->idle);
    free(l);
}

static void lose(struct leader_link *l, const char *why) ON_LOOP
{
    struct list lost, *i;
    log_info("upstream", "lost leader=%" PRIu64 " streams=%u why=\"%s\"", l->leader_id,
             l->n_streams - l->n_idle, why);
    list_init(&lost);
    list_splice(&lost, &l->places);
    free_link(l);
    /* Nothing may reach the link from here on: first all places go. An open transaction's next
     * request finds none, and is told; what is left are requests that wait for an answer. */
    LIST_EACH(it, &lost) {
        struct upstream *u = LIST_ENTRY(it, struct upstream, link);
        u->session->upstream = NULL;
        if (u->session->at != AT_UPSTREAM) {
            list_remove(it);
            free(u);
        }
    }
    /* An answer may end a client's connection, if it was its last one: and with it sessions, but
     * none of these. */
    while ((i = list_pop_front(&lost)) != NULL) {
        struct upstream *u = LIST_ENTRY(i, struct upstream, link);
        struct session *s = u->session;
        bool sent = u->sent, answered = u->answered;
        free(u);
        answer_lost(s, sent, answered);
    }
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

static void send_request(struct session *s) ON_LOOP
{
    struct upstream *u = s->upstream;
    struct request *r = s->current;
    struct buf b;
    if (u->stream == 0)
        take_stream(u->at, u);
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
    put(u->at, &b);
}

/* --- answers --- */

static void on_open(void *ctx)
{
    struct leader_link *l = ctx;
    struct buf b;
    thread_expect_loop();
    buf_init(&b, KIB(1));
    wire_put_hello(&b, "lecternd", "");
    put(l, &b);
    l->state = GREETING;
}

/* An address may be another node's by now, even another cluster's. */
static enum err check_welcome(const struct leader_link *l, struct wire_frame *f) ON_LOOP
{
    struct wire_welcome w;
    TRY(wire_get_welcome(f, &w));
    if (w.node_id != l->leader_id || w.cluster_id != l->node->config->cluster_id)
        return err_fail(ERR_PROTOCOL, "another node answers at its address");
    return ERR_OK;
}

static void on_welcome(struct leader_link *l, struct wire_frame *f) ON_LOOP
{
    if (check_welcome(l, f) != ERR_OK) {
        lose(l, err_text());
        return;
    }
    framed_limit(l->framed, WIRE_FRAME_MAX);
    l->state = READY;
    l->heard_ms = clock_mono_ms();
    l->bytes_read = framed_bytes_read(l->framed);
    struct list all, *i;
    list_init(&all);
    list_splice(&all, &l->places);
    while ((i = list_pop_front(&all)) != NULL) {
        list_push_back(&l->places, i);
        send_request(LIST_ENTRY(i, struct upstream, link)->session);
    }
}

/* The request's last frame came, and is in its answer. */
static void end_answer(struct session *s) ON_LOOP
{
    s->upstream->sent = false;
    session_answer(s, s->current);
}

static enum err take_done(struct request *r, struct wire_frame *f) ON_LOOP
{
    struct wire_done d;
    TRY(wire_get_done(f, &d));
    r->answer.seq = d.seq;
    r->answer.changes = d.changes;
    r->answer.last_insert_rowid = d.last_insert_rowid;
    r->answer.in_transaction = (d.flags & WIRE_IN_TRANSACTION) != 0;
    return ERR_OK;
}

static enum err take_error(struct session *s, struct request *r, struct wire_frame *f) ON_LOOP
{
    struct wire_error e;
    TRY(wire_get_error(f, &e));
    char *message = mem_printf("%.*s", (int)e.message_len, e.message);
    bool was_open = s->home == HOME_UPSTREAM;
    r->answer.in_transaction = (e.flags & WIRE_IN_TRANSACTION) != 0;
    r->answer.seq = e.seq;
    if (was_open && !r->answer.in_transaction)
        s->home = HOME_NONE;
    if (was_open && e.code == ERR_NOT_LEADER) {
        request_fail(r, ERR_TXN_LOST, "the transaction was rolled back: the leader changed");
    } else if (was_open && e.code == ERR_UNKNOWN && is_commit(r) && request_is_numbered(r)) {
        ask_again(r);
    } else {
        request_fail(r, e.code, message);
        r->answer.sqlite_code = e.sqlite_code;
        r->answer.offset = e.offset;
        r->answer.statement = e.statement;
        r->answer.settled = (e.flags & WIRE_SETTLED) != 0;
    }
    free(message);
    return ERR_OK;
}

/* COLUMNS, ROWS, STEP, DESCRIPTION: passed on as they are. */
static enum err take_part(struct upstream *u, struct request *r, struct wire_frame *f) ON_LOOP
{
    size_t begun = wire_begin(&r->answer.out, f->type, r->id);
    buf_put(&r->answer.out, f->body.p, rd_left(&f->body));
    wire_end(&r->answer.out, begun);
    u->answered = true;
    if (f->type == WIRE_ROWS)
        u->took += (uint32_t)(WIRE_HEAD_BYTES + rd_left(&f->body));
    return buf_status(&r->answer.out);
}

static enum err take_frame(struct session *s, struct wire_frame *f) ON_LOOP
{
    struct upstream *u = s->upstream;
    struct request *r = s->current;
    if (f->type == WIRE_DONE) {
        TRY(take_done(r, f));
        end_answer(s);
    } else if (f->type == WIRE_ERROR) {
        TRY(take_error(s, r, f));
        end_answer(s);
    } else if (f->type == WIRE_DESCRIPTION && r->is_describe) {
        TRY(take_part(u, r, f));
        r->answer.in_transaction = s->home == HOME_UPSTREAM;
        end_answer(s);
    } else if (f->type == WIRE_COLUMNS || f->type == WIRE_ROWS || f->type == WIRE_STEP) {
        TRY(take_part(u, r, f));
        upstream_resume(s);
    } else {
        return err_fail(ERR_PROTOCOL, "a frame that a server does not send here");
    }
    return ERR_OK;
}

static void on_frame(void *ctx, struct wire_frame *f)
{
    struct leader_link *l = ctx;
    thread_expect_loop();
    if (l->state == GREETING && f->type == WIRE_WELCOME) {
        on_welcome(l, f);
        return;
    }
    if (l->state == READY && f->type == WIRE_PONG)
        return;
    struct session *s = table_get(&l->streams, f->id.stream);
    bool closed = s == NULL && f->id.stream != 0 && f->id.stream <= l->newest;
    if (l->state == READY && closed)
        return; /* on its way when we closed the stream */
    if (l->state != READY || s == NULL || s->at != AT_UPSTREAM || !s->upstream->sent ||
        f->id.request != s->current->id.request)
        lose(l,
             f->type == WIRE_ERROR ? "it refuses the connection" : "a frame that nobody asked for");
    else if (take_frame(s, f) != ERR_OK)
        lose(l, err_text());
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

void upstream_resume(struct session *s)
{
    if (s->upstream != NULL && s->upstream->took >= WIRE_WINDOW / 4)
        give_credit(s->upstream);
    session_relay(s);
}

/* --- the door --- */

static struct leader_link *open_link(struct node *n, uint64_t leader_id, uint64_t owner,
                                     const char *address) ON_LOOP
{
    struct leader_link *l = MEM_NEW(struct leader_link);
    struct framed_events events = {.ctx = l,
                                   .on_open = on_open,
                                   .on_frame = on_frame,
                                   .on_bad = on_bad,
                                   .on_drain = on_drain,
                                   .on_close = on_close,
                                   .waiting = &n->waiting};
    l->node = n;
    l->leader_id = leader_id;
    l->owner = owner;
    l->since_ms = clock_mono_ms();
    list_init(&l->places);
    table_init(&l->streams);
    l->framed = framed_connect(&n->loop, address, &events);
    list_push_back(&n->leader_links, &l->link);
    return l;
}

static bool is_greedy(const struct session *s) ON_LOOP
{
    return s->channel->request_bytes > SHARE_BYTES;
}

/* For requests of S. NULL: too many clients have one of their own. */
static struct leader_link *link_to(const struct session *s, uint64_t leader_id,
                                   const char *address) ON_LOOP
{
    struct node *n = s->node;
    uint64_t owner = is_greedy(s) ? s->channel->id : 0;
    unsigned owned = 0;
    LIST_EACH(i, &n->leader_links) {
        struct leader_link *l = LIST_ENTRY(i, struct leader_link, link);
        owned += l->owner != 0;
        if (l->leader_id == leader_id && l->owner == owner && l->n_places < STREAMS_MAX &&
            l->newest < NUMBERS_MAX)
            return l;
    }
    return owner != 0 && owned >= OWN_LINKS ? NULL : open_link(n, leader_id, owner, address);
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
        answer_lost(s, false, false);
    else if (s->upstream->at->owner == 0 && is_greedy(s) &&
             r->frame_len < s->channel->request_bytes)
        refuse_greedy(s, r);
    else
        send_request(s);
}

void upstream_send(struct session *s, struct request *r, uint64_t leader_id, const char *address)
{
    CHECK(s->at == AT_UPSTREAM && s->current == r);
    if (s->home == HOME_UPSTREAM) {
        send_in_transaction(s, r);
        return;
    }
    CHECK(s->upstream == NULL);
    struct leader_link *l = link_to(s, leader_id, address);
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
        send_request(s);
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
    put(u->at, &b);
}

/* --- time --- */

/* Requests that cannot wait for the connection any longer, or for a late answer. */
static void end_late(struct leader_link *l, uint64_t now_ms) ON_LOOP
{
    struct list all, *i;
    list_init(&all);
    list_splice(&all, &l->places);
    while ((i = list_pop_front(&all)) != NULL) {
        struct upstream *u = LIST_ENTRY(i, struct upstream, link);
        struct session *s = u->session;
        bool sent = u->sent, answered = u->answered;
        list_push_back(&l->places, i);
        if (s->at != AT_UPSTREAM ||
            now_ms <= (sent ? s->current->deadline_ms + LATE_MS : s->give_up_ms))
            continue;
        upstream_close(s);
        answer_lost(s, sent, answered);
    }
}

static void ping(struct leader_link *l, uint64_t now_ms) ON_LOOP
{
    struct buf b;
    buf_init(&b, KIB(1));
    wire_put_ping(&b, 1);
    put(l, &b);
    l->pinged_ms = now_ms;
    l->bytes_taken = framed_bytes_taken(l->framed);
    l->ping_at = l->bytes_taken + framed_backlog(l->framed);
}

/* A slow network is not a dead one: the PING still waits behind bytes, and they move. */
static bool moves(struct leader_link *l) ON_LOOP
{
    uint64_t before = l->bytes_taken;
    l->bytes_taken = framed_bytes_taken(l->framed);
    return before < l->ping_at && l->bytes_taken != before;
}

/* True: the leader is alive, as far as is known. */
static bool listen_to(struct leader_link *l, uint64_t now_ms) ON_LOOP
{
    uint64_t bytes = framed_bytes_read(l->framed);
    if (bytes != l->bytes_read || l->streams.n == 0) {
        l->bytes_read = bytes;
        l->heard_ms = now_ms;
        l->pinged_ms = 0;
    } else if (l->pinged_ms == 0 && now_ms > l->heard_ms + QUIET_MS) {
        ping(l, now_ms);
    } else if (l->pinged_ms != 0 && moves(l)) {
        l->pinged_ms = now_ms;
    }
    return l->pinged_ms == 0 || now_ms <= l->pinged_ms + DEAD_MS;
}

static void look_after(struct leader_link *l, uint64_t now_ms) ON_LOOP
{
    bool deposed = l->leader_id != l->node->leader_id;
    l->deposed_ms = !deposed ? 0 : l->deposed_ms == 0 ? now_ms : l->deposed_ms;
    if ((deposed || l->owner != 0) && list_empty(&l->places))
        free_link(l);
    else if (l->state < READY && now_ms > l->since_ms + CONNECT_MS)
        lose(l, "the leader does not answer");
    else if (deposed && now_ms > l->deposed_ms + DEPOSED_MS)
        lose(l, "another node leads now, and the old leader is silent");
    else if (l->state == READY && !listen_to(l, now_ms))
        lose(l, "the leader is silent");
    else
        end_late(l, now_ms);
}

void upstream_timer(struct node *n, uint64_t now_ms)
{
    struct list all, *i;
    list_init(&all);
    list_splice(&all, &n->leader_links);
    while ((i = list_pop_front(&all)) != NULL) {
        list_push_back(&n->leader_links, i);
        look_after(LIST_ENTRY(i, struct leader_link, link), now_ms);
    }
}

void upstream_close_all(struct node *n)
{
    struct list *i;
    while ((i = n->leader_links.next) != &n->leader_links)
        free_link(LIST_ENTRY(i, struct leader_link, link));
}
