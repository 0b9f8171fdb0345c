/* Room: node. Thread: loop.
 * Owns: the connections, their tables of streams and of kept statements.
 * Invariants: a session in `streams` has this connection; `n_requests` counts the requests of all
 *   of them, waiting, running and being sent.
 * Not here: what a request does (session.c, route.c). */
#include "node/connection.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/admin.h"
#include "node/http/door_settings.h"
#include "node/kept.h"
#include "node/meters.h"
#include "node/session.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define HELLO_MS   5000 /* without HELLO it is closed: it may be half open, or hostile */
#define POLITE_MAX 256  /* requests without an answer, while the node holds so much, too */

/* --- the end --- */

static void end(struct connection *c, enum tcp_end how) ON_LOOP
{
    struct session *s;
    uint32_t stream;
    while ((s = table_any(&c->streams, &stream)) != NULL) {
        (void)table_take(&c->streams, stream);
        session_end(s);
    }
    channel_fini(&c->channel);
    framed_close(c->framed, how);
    c->channel.node->n_connections--;
    list_remove(&c->link);
    keeper_free(c->keeper);
    free(c);
}

static void on_close(void *ctx, const char *why)
{
    struct connection *c = ctx;
    thread_expect_loop();
    log_debug("connection", "closed connection=%" PRIu64 " why=\"%s\"", c->channel.id, why);
    end(c, TCP_NOW);
}

/* The client closed its sending side: what it asked is still answered. */
static void on_eof(void *ctx)
{
    struct connection *c = ctx;
    thread_expect_loop();
    c->ending = c->channel.no_credit = true;
    if (c->channel.n_requests == 0)
        end(c, TCP_FLUSH);
}

/* One clear error, of stream 0 and as a client of VERSION reads it, then the end. */
static void refuse_version(struct connection *c, unsigned version, enum err code,
                           const char *message) ON_LOOP
{
    struct buf b;
    struct wire_error e = {.code = code,
                           .sqlite_code = err_sqlite_code((int)code),
                           .offset = -1,
                           .message = message,
                           .message_len = strlen(message)};
    log_info("connection", "refused connection=%" PRIu64 " error=%s reason=\"%s\"", c->channel.id,
             err_name((int)code), message);
    buf_init(&b, KIB(4));
    if (version == 1)
        wire_put_error_v1(&b, &e);
    else
        wire_put_error(&b, (struct wire_id){0}, &e);
    if (buf_status(&b) == ERR_OK)
        framed_send(c->framed, &b);
    buf_fini(&b);
    end(c, TCP_FLUSH);
}

static void refuse(struct connection *c, enum err code, const char *message) ON_LOOP
{
    refuse_version(c, WIRE_VERSION, code, message);
}

static bool is_http(const uint8_t *p, size_t n)
{
    static const char begins[][5] = {"GET ", "HEAD", "POST", "PUT ",
                                     "DELE", "PATC", "OPTI", "PRI "};
    for (size_t i = 0; n >= 4 && i < sizeof begins / sizeof begins[0]; i++)
        if (memcmp(p, begins[i], 4) == 0)
            return true;
    return false;
}

/* In words that a program for HTTP can show: it has the wrong one of two ports. */
static void refuse_http(struct connection *c) ON_LOOP
{
    char url[512], text[640];
    struct buf b;
    door_settings_url(c->channel.node->config, url, sizeof url);
    int n = snprintf(text, sizeof text,
                     "this is the port of Lectern's native protocol; HTTP is spoken at the one of "
                     "--http-listen (%s)\n",
                     url[0] == 0 ? "this node has none" : url);
    log_info("connection", "refused connection=%" PRIu64 " reason=\"HTTP at the native port\"",
             c->channel.id);
    buf_init(&b, KIB(2));
    buf_printf(&b,
               "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
               "content-length: %d\r\nconnection: close\r\n\r\n%s",
               n, text);
    framed_send(c->framed, &b);
    buf_fini(&b);
    end(c, TCP_LINGER); /* the rest of the request comes yet */
}

static void on_bad(void *ctx, enum err e, const uint8_t *p, size_t n)
{
    struct connection *c = ctx;
    thread_expect_loop();
    if (!c->greeted && is_http(p, n))
        refuse_http(c);
    else
        refuse(c, e, err_text());
}

/* --- for its sessions --- */

static struct connection *connection_of(struct channel *c)
{
    return (struct connection *)c;
}

static void send_frames(struct channel *c, struct buf *b)
{
    thread_expect_loop();
    framed_send(connection_of(c)->framed, b);
}

static size_t backlog(const struct channel *c)
{
    thread_expect_loop();
    return framed_backlog(((const struct connection *)c)->framed);
}

static void on_stall(struct channel *ch)
{
    struct connection *c = connection_of(ch);
    thread_expect_loop();
    progress_begin(&c->taken, framed_bytes_taken(c->framed), clock_mono_ms());
}

static void on_answered(struct channel *ch)
{
    struct connection *c = connection_of(ch);
    thread_expect_loop();
    if (ch->n_requests == 0 && c->ending && !c->draining)
        end(c, TCP_FLUSH);
}

static const struct channel_outlet outlet = {send_frames, backlog, on_stall, on_answered};

static uint64_t published(const struct node *n) ON_LOOP
{
    return n->lane == NULL ? 0 : repl_db_published(lane_db(n->lane));
}

static void send_pong(struct connection *c) ON_LOOP
{
    const struct node *n = c->channel.node;
    struct wire_pong p = {.seq = published(n),
                          .leader_id = n->leader_id,
                          .serves = n->lane != NULL && !n->failed && n->stage == NODE_SERVING};
    struct buf b;
    c->owes_pong = false;
    buf_init(&b, KIB(1));
    wire_put_pong(&b, c->ping, &p);
    framed_send(c->framed, &b);
    buf_fini(&b);
}

/* Those that waited longest come first; the others wait on when it is full again. */
static void on_drain(void *ctx)
{
    struct connection *c = ctx;
    thread_expect_loop();
    if (c->owes_pong)
        send_pong(c);
    c->draining = true; /* the answer of the last request ends C, but not under our feet */
    channel_drain(&c->channel);
    c->draining = false;
    progress_begin(&c->taken, framed_bytes_taken(c->framed), clock_mono_ms());
    if (c->channel.n_requests == 0 && c->ending)
        end(c, TCP_FLUSH);
}

/* --- the handshake --- */

/* The name comes from the network and goes into the log: printable, and without quotes. */
static enum err no_such_database(const struct wire_hello *h) ON_LOOP
{
    char name[65];
    size_t n = h->database_len < sizeof name - 1 ? h->database_len : sizeof name - 1;
    for (size_t i = 0; i < n; i++) {
        char c = h->database[i];
        name[i] = c > ' ' && c <= '~' && c != '"' && c != '\\' ? c : '?';
    }
    name[n] = 0;
    return err_fail(ERR_NOT_FOUND, "there is no database '%s' here", name);
}

static void greet(struct connection *c, struct wire_frame *f) ON_LOOP
{
    struct wire_hello h = {0};
    struct buf b;
    enum err e = f->type == WIRE_HELLO ? wire_get_hello(f, &h)
                                       : err_fail(ERR_PROTOCOL, "the first frame is not HELLO");
    if (e == ERR_OK && h.database_len != 0 &&
        !(h.database_len == 4 && memcmp(h.database, "main", 4) == 0))
        e = no_such_database(&h);
    if (e != ERR_OK) {
        refuse_version(c, h.version, e, err_text());
        return;
    }
    c->greeted = true;
    framed_limit(c->framed, WIRE_FRAME_MAX);
    buf_init(&b, KIB(4));
    struct wire_welcome w = {.version = WIRE_VERSION,
                             .node_id = c->channel.node->config->id,
                             .cluster_id = c->channel.node->config->cluster_id,
                             .seq = published(c->channel.node),
                             .server = LECTERN_VERSION,
                             .sqlite = sqlite3_libversion()};
    w.server_len = strlen(w.server);
    w.sqlite_len = strlen(w.sqlite);
    wire_put_welcome(&b, &w);
    framed_send(c->framed, &b);
    buf_fini(&b);
}

/* --- requests --- */

/* Said at once: a stream that does not begin has no order. */
static void refuse_stream(struct connection *c, struct wire_id id, enum err code,
                          const char *message) ON_LOOP
{
    struct buf b;
    struct wire_error e = {.code = code,
                           .sqlite_code = err_sqlite_code((int)code),
                           .offset = -1,
                           .message = message,
                           .message_len = strlen(message)};
    if (channel_is_full(&c->channel)) {
        refuse(c, code, "too many streams, of a client that does not read");
        return;
    }
    buf_init(&b, KIB(4));
    wire_put_error(&b, id, &e);
    framed_send(c->framed, &b);
    buf_fini(&b);
}

/* The session of stream ID, begun when it is new. NULL: too many, that stream was told. */
static struct session *session_of(struct connection *c, struct wire_id id) ON_LOOP
{
    struct session *s = table_get(&c->streams, id.stream);
    if (s != NULL)
        return s;
    enum err e = channel_need_room(&c->channel, sizeof *s);
    if (c->streams.n >= WIRE_STREAMS_MAX)
        e = err_fail(ERR_TOO_BIG,
                     "too many streams on one connection: close some, or open another");
    if (e != ERR_OK) {
        refuse_stream(c, id, e, err_text());
        return NULL;
    }
    s = session_new(&c->channel, id.stream);
    table_put(&c->streams, id.stream, s);
    return s;
}

/* R is of stream ID. */
static void take(struct connection *c, struct session *s, struct request *r) ON_LOOP
{
    /* A follower has one on each of its streams, of many clients: those are not to be cut off. */
    bool fits = c->channel.n_requests < POLITE_MAX + c->streams.n ||
                channel_need_room(&c->channel, sizeof *r) == ERR_OK;
    if (fits && c->channel.n_requests < REQUESTS_MAX) {
        channel_take(&c->channel, s, r);
        return;
    }
    request_free(r);
    refuse(c, ERR_BUSY, "too many requests without an answer on one connection");
}

/* A request without a text: STATUS, or a place for an answer that is known already. */
static struct request *empty_request(struct session *s, struct wire_id id) ON_LOOP
{
    static const uint8_t nothing[1];
    struct wire_query q = {.statements = rd_of(nothing, 0)};
    struct request *r = request_new(s, s->id, id, &q, nothing, sizeof nothing);
    r->foreign_keys = s->foreign_keys;
    r->last_insert_rowid = s->last_insert_rowid;
    return r;
}

/* A whole frame whose request is over a limit: it fails in its turn, and the connection goes on. */
static void take_refused(struct connection *c, struct session *s, struct wire_id id,
                         enum err e) ON_LOOP
{
    struct request *r = empty_request(s, id);
    request_fail_text(r, e);
    take(c, s, r);
}

static void count_kept(struct connection *c) ON_LOOP
{
    waiting_set(&c->channel.node->waiting, &c->channel.kept_bytes, keeper_bytes(c->keeper));
}

static enum err keep_text(struct connection *c, const struct wire_statement *w) ON_LOOP
{
    enum err e = channel_need_room(&c->channel, w->sql_len);
    c->lacks_texts = c->lacks_texts || e != ERR_OK;
    TRY(e);
    e = keeper_put(c->keeper, w->keep, w->sql, w->sql_len);
    count_kept(c);
    return e;
}

/* Keeps the texts that come with a number, and finds those that come as a number: KEPT, *n of them
 * (its owner is the caller in any case). */
static enum err look_up_texts(struct connection *c, const struct wire_query *q, struct kept ***kept,
                              uint32_t *n) ON_LOOP
{
    struct rd statements = q->statements;
    *kept = NULL;
    *n = 0;
    for (uint32_t i = 0; i < q->n_statements; i++) {
        struct wire_statement w;
        enum err e = wire_get_statement(&statements, &w);
        CHECK(e == ERR_OK); /* wire_get_query checked them all */
        if (w.keep == 0)
            continue;
        if (c->keeper == NULL)
            c->keeper = keeper_new();
        if (w.sql_len > 0) {
            TRY(keep_text(c, &w));
            continue;
        }
        if (*kept == NULL)
            *kept = mem_alloc(q->n_statements * sizeof(struct kept *));
        TRY(keeper_get(c->keeper, w.keep, &(*kept)[*n]));
        (*n)++;
    }
    return ERR_OK;
}

static void free_texts(struct kept **kept, uint32_t n) ON_LOOP
{
    for (uint32_t i = 0; i < n; i++)
        kept_unref(kept[i]);
    free(kept);
}

/* QUERY, BATCH, DESCRIBE. */
static void on_query(struct connection *c, struct wire_frame *f) ON_LOOP
{
    const uint8_t *body = f->body.p;
    size_t body_len = rd_left(&f->body);
    struct wire_query q;
    struct kept **kept = NULL;
    uint32_t n_kept = 0;
    enum err e = wire_get_query(f, &q);
    if (e != ERR_OK && e != ERR_TOO_BIG) {
        refuse(c, e, err_text());
        return;
    }
    struct session *s = session_of(c, f->id);
    if (s == NULL)
        return;
    if (e == ERR_OK)
        e = look_up_texts(c, &q, &kept, &n_kept);
    if (e == ERR_NOT_FOUND && c->lacks_texts) { /* its client cannot know which are missing */
        free_texts(kept, n_kept);
        refuse(c, ERR_BUSY, "a statement could not be kept for want of room (waiting-bytes)");
        return;
    }
    if (e != ERR_OK) {
        free_texts(kept, n_kept);
        take_refused(c, s, f->id, e);
        return;
    }
    struct request *r = request_of_frame(s, s->id, f, &q, body, body_len, kept, n_kept);
    take(c, s, r);
}

static void on_status(struct connection *c, struct wire_frame *f) ON_LOOP
{
    struct session *s = session_of(c, f->id);
    if (s == NULL)
        return;
    struct request *r = empty_request(s, f->id);
    r->is_status = true;
    take(c, s, r);
}

static void on_cluster(struct connection *c, struct wire_frame *f) ON_LOOP
{
    struct wire_cluster w;
    enum err e = wire_get_cluster(f, &w);
    if (e != ERR_OK) {
        refuse(c, e, err_text());
        return;
    }
    struct session *s = session_of(c, f->id);
    if (s == NULL)
        return;
    struct request *r = empty_request(s, f->id);
    r->cluster = admin_request_new(&w);
    r->forwarded = (w.flags & WIRE_CLUSTER_FORWARDED) != 0;
    take(c, s, r);
}

/* Another node fetches this one's database. */
static void on_image(struct connection *c, struct wire_frame *f) ON_LOOP
{
    const uint8_t *body = f->body.p;
    struct wire_query q = {.statements = rd_of(body, 0)};
    struct session *s = session_of(c, f->id);
    if (s == NULL)
        return;
    struct request *r = request_new(s, s->id, f->id, &q, body, rd_left(&f->body));
    r->foreign_keys = s->foreign_keys;
    r->image_frame = f->type;
    take(c, s, r);
}

/* --- what is not answered --- */

/* At once; only who does not read gets but the newest answer, when it does. */
static void on_ping(struct connection *c, struct wire_frame *f) ON_LOOP
{
    c->ping = f->id.request;
    c->owes_pong = channel_is_full(&c->channel);
    if (!c->owes_pong)
        send_pong(c);
}

static void on_credit(struct connection *c, struct wire_frame *f) ON_LOOP
{
    uint32_t bytes;
    enum err e = wire_get_credit(f, &bytes);
    if (e == ERR_OK) {
        struct session *s = table_get(&c->streams, f->id.stream);
        if (s == NULL) /* closed, while its frames were under way */
            return;
        e = session_credit(s, bytes);
        if (e == ERR_OK)
            return;
    }
    refuse(c, e, err_text());
}

static void forget(struct connection *c, uint32_t number) ON_LOOP
{
    keeper_forget(c->keeper, number);
    count_kept(c);
}

static void on_forget(struct connection *c, struct wire_frame *f) ON_LOOP
{
    uint32_t number;
    enum err e = wire_get_forget(f, &number);
    if (e != ERR_OK)
        refuse(c, e, err_text());
    else if (c->keeper != NULL)
        forget(c, number);
}

/* CANCEL, CLOSE: of a stream that may be unknown. */
static void on_stop(struct connection *c, struct wire_frame *f) ON_LOOP
{
    struct session *s = table_get(&c->streams, f->id.stream);
    if (s == NULL)
        return;
    if (f->type == WIRE_CANCEL) {
        session_cancel(s, f->id.request);
    } else {
        (void)table_take(&c->streams, f->id.stream);
        session_end(s);
    }
}

/* --- frames --- */

static bool has_body(enum wire_type type)
{
    return type != WIRE_STATUS && type != WIRE_CANCEL && type != WIRE_CLOSE && type != WIRE_PING;
}

static void on_frame(void *ctx, struct wire_frame *f)
{
    struct connection *c = ctx;
    thread_expect_loop();
    if (!c->greeted) {
        greet(c, f);
        return;
    }
    if (has_body(f->type) == (rd_left(&f->body) == 0)) {
        refuse(c, ERR_PROTOCOL, "a frame that is too long, or too short");
        return;
    }
    switch (f->type) {
    case WIRE_QUERY:
    case WIRE_BATCH:
    case WIRE_DESCRIBE:
        on_query(c, f);
        return;
    case WIRE_STATUS:
        on_status(c, f);
        return;
    case WIRE_CLUSTER:
        on_cluster(c, f);
        return;
    case WIRE_CANCEL:
    case WIRE_CLOSE:
        on_stop(c, f);
        return;
    case WIRE_CREDIT:
        on_credit(c, f);
        return;
    case WIRE_FORGET:
        on_forget(c, f);
        return;
    case WIRE_PING:
        on_ping(c, f);
        return;
    case WIRE_IMAGE_BEGIN:
    case WIRE_IMAGE_ASK_HASHES:
    case WIRE_IMAGE_ASK_PAGES:
        on_image(c, f);
        return;
    case WIRE_HELLO:
    case WIRE_WELCOME:
    case WIRE_COLUMNS:
    case WIRE_ROWS:
    case WIRE_DONE:
    case WIRE_ERROR:
    case WIRE_STEP:
    case WIRE_DESCRIPTION:
    case WIRE_PONG:
    case WIRE_IMAGE:
    case WIRE_IMAGE_HASHES:
    case WIRE_IMAGE_PAGES:
        break;
    }
    refuse(c, ERR_PROTOCOL, "a frame that a client does not send here");
}

static bool may_hold(void *ctx, size_t bytes)
{
    const struct connection *c = ctx;
    thread_expect_loop();
    return channel_need_room(&c->channel, bytes) == ERR_OK;
}

/* There was no room for it: a request is answered in its turn, like one over another limit. */
static void on_dropped(void *ctx, struct wire_frame *f)
{
    struct connection *c = ctx;
    thread_expect_loop();
    bool texts = f->type == WIRE_QUERY || f->type == WIRE_BATCH || f->type == WIRE_DESCRIBE;
    if (!texts || f->id.stream == 0) { /* none of the others can be so long */
        refuse(c, ERR_PROTOCOL, "a frame that is too long");
        return;
    }
    c->lacks_texts = true;
    struct session *s = session_of(c, f->id);
    if (s == NULL)
        return;
    take_refused(c, s, f->id,
                 err_fail(ERR_BUSY, "this request is too long for the room that the node has now "
                                    "for what waits (waiting-bytes): try again later"));
}

/* --- its beginning --- */

void connection_accept(struct node *n, uv_stream_t *listener)
{
    struct connection *c = MEM_NEW(struct connection);
    struct framed_events events = {.ctx = c,
                                   .on_frame = on_frame,
                                   .may_hold = may_hold,
                                   .on_dropped = on_dropped,
                                   .waiting = &n->waiting,
                                   .on_bad = on_bad,
                                   .on_eof = on_eof,
                                   .on_drain = on_drain,
                                   .on_close = on_close};
    c->framed = framed_accept(&n->loop, listener, &events);
    if (c->framed == NULL) {
        free(c);
        return;
    }
    channel_init(&c->channel, n, &outlet);
    c->born_ms = clock_mono_ms();
    table_init(&c->streams);
    list_push_back(&n->connections, &c->link);
    if (++n->n_connections > n->config->connections_max) {
        meters_count(METER_REFUSED_NATIVE, 1);
        refuse(c, ERR_BUSY, "too many connections (max-connections)");
    } else if (n->stage != NODE_SERVING) {
        refuse(c, ERR_STOPPED, "this node is stopping");
    }
}

/* --- time --- */

/* Its sessions wait for the backlog: a reader's statement among them keeps one of the few reader
 * connections, and an old snapshot. */
static void stalled_timer(struct connection *c, uint64_t now_ms) ON_LOOP
{
    if (!progress_stopped(&c->taken, framed_bytes_taken(c->framed), now_ms))
        return;
    log_info("connection", "closed connection=%" PRIu64 " why=\"its client takes no answers\"",
             c->channel.id);
    end(c, TCP_NOW);
}

/* A long frame that does not come to its end takes room from others. True: C is gone. */
static bool frame_timer(struct connection *c, uint64_t now_ms) ON_LOOP
{
    uint64_t bytes = framed_bytes_read(c->framed);
    if (framed_partial(c->framed) <= WAITING_SHARE) {
        c->sent = (struct progress){0};
        return false;
    }
    if (c->sent.since_ms == 0)
        progress_begin(&c->sent, bytes, now_ms);
    if (!progress_stopped(&c->sent, bytes, now_ms))
        return false;
    refuse(c, ERR_TIMEOUT, "the rest of a frame did not come");
    return true;
}

void connections_timer(struct node *n, uint64_t now_ms)
{
    LIST_EACH(i, &n->connections) {
        struct connection *c = LIST_ENTRY(i, struct connection, link);
        if (!c->greeted && now_ms > c->born_ms + HELLO_MS)
            refuse(c, ERR_TIMEOUT, "no HELLO came");
        else if (c->ending && framed_is_broken(c->framed))
            on_close(c, "broken, after it was closed on one side");
        else if (frame_timer(c, now_ms))
            continue;
        else if (!list_empty(&c->channel.stalled))
            stalled_timer(c, now_ms);
    }
}

void connections_wind_down(struct node *n)
{
    LIST_EACH(i, &n->connections) {
        struct connection *c = LIST_ENTRY(i, struct connection, link);
        c->ending = true;
        if (c->channel.n_requests == 0)
            end(c, TCP_FLUSH);
    }
}

void connections_close_all(struct node *n)
{
    LIST_EACH(i, &n->connections)
        end(LIST_ENTRY(i, struct connection, link), TCP_FLUSH);
}
