/* Room: node. Thread: loop.
 * Invariants: at most one request of a session is under way; answers leave in the order of the
 * requests; s->at says who has the current one, and only that one may answer it. */
#include "node/session.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/admin.h"
#include "node/image.h"
#include "node/route.h"
#include "node/upstream.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELLO_MS    5000 /* a connection without HELLO is closed: it may be half open, or hostile */
#define BACKLOG_MAX KIB(512) /* not taken by the client: its statement pauses */
#define MESSAGE_MAX KIB(32)  /* of an error */
#define SLOW_MS     10000    /* a client that takes no byte of an answer for so long is gone */
#define ACCEPTS     1024     /* the kernel's queue of new connections */

struct listener {
    uv_tcp_t tcp;
    struct node *node;
};

/* --- the end of a session --- */

static void free_if_done(struct session *s)
{
    if (s->framed != NULL || s->current != NULL)
        return;
    CHECK(s->upstream == NULL && s->n_pending == 0);
    list_remove(&s->link);
    free(s);
}

/* The lane forgets the session's transaction. */
static void tell_gone(struct session *s) ON_LOOP
{
    struct lane_gone *g = MEM_NEW(struct lane_gone);
    g->letter.kind = LANE_GONE;
    g->session_id = s->id;
    lane_send(s->node->lane, &g->letter);
}

static void drop_current(struct session *s) ON_LOOP
{
    struct request *r = s->current;
    if (r == NULL)
        return;
    atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    switch (s->at) {
    case AT_ROUTE:
        route_forget(s);
        break;
    case AT_BLOCKED: /* goes back to its reader, which ends it */
        s->at = AT_READER;
        readers_run(s->node->readers, r);
        return;
    case AT_UPSTREAM:
        break;
    case AT_LANE:
    case AT_READER:
    case AT_IMAGE:
    case AT_NOBODY:
        return; /* comes back */
    }
    s->current = NULL;
    s->at = AT_NOBODY;
    request_free(r);
}

static void end_session(struct session *s, bool flush) ON_LOOP
{
    struct list *i;
    if (s->framed == NULL)
        return;
    framed_close(s->framed, flush);
    s->framed = NULL;
    s->node->n_connections--;
    while ((i = list_pop_front(&s->pending)) != NULL)
        request_free(LIST_ENTRY(i, struct request, letter.link));
    s->n_pending = 0;
    s->pending_bytes = 0;
    image_forget(s);
    drop_current(s);
    upstream_close(s);
    if (s->home == HOME_LANE)
        tell_gone(s);
    s->home = HOME_NONE;
    free_if_done(s);
}

static void on_close(void *ctx, const char *why)
{
    struct session *s = ctx;
    thread_expect_loop();
    log_debug("session", "closed session=%" PRIu64 " why=\"%s\"", s->id, why);
    end_session(s, false);
}

/* The client closed its sending side: what it asked is still answered. */
static void on_eof(void *ctx)
{
    struct session *s = ctx;
    thread_expect_loop();
    s->ending = true;
    if (s->current == NULL && s->n_pending == 0)
        end_session(s, true);
}

/* --- answers --- */

/* SQLite's messages quote the statement, which may be long: they are cut, at a whole character. */
static size_t text_length(const char *text) ON_LOOP
{
    size_t n = strnlen(text, MESSAGE_MAX + 1);
    if (n <= MESSAGE_MAX)
        return n;
    n = MESSAGE_MAX;
    while (n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

/* The connection itself is at fault: one clear error as a client of VERSION reads it, then the end.
 */
static void refuse_version(struct session *s, unsigned version, struct wire_id id, enum err code,
                           const char *message) ON_LOOP
{
    struct buf b;
    struct wire_error e = {.code = code,
                           .sqlite_code = err_sqlite_code((int)code),
                           .offset = -1,
                           .message = message,
                           .message_len = strlen(message)};
    log_info("session", "refused session=%" PRIu64 " error=%s reason=\"%s\"", s->id,
             err_name((int)code), message);
    buf_init(&b, KIB(4));
    if (version == 1)
        wire_put_error_v1(&b, &e);
    else
        wire_put_error(&b, id, &e);
    if (buf_status(&b) == ERR_OK)
        framed_send(s->framed, &b);
    buf_fini(&b);
    end_session(s, true);
}

static void refuse(struct session *s, struct wire_id id, enum err code, const char *message) ON_LOOP
{
    refuse_version(s, WIRE_VERSION, id, code, message);
}

static void on_bad(void *ctx, enum err e)
{
    thread_expect_loop();
    refuse(ctx, (struct wire_id){0}, e, err_text());
}

static void put_end_frame(struct request *r) ON_LOOP
{
    struct answer *a = &r->answer;
    uint8_t flags = (uint8_t)((a->in_transaction ? WIRE_IN_TRANSACTION : 0) |
                              (r->session->foreign_keys ? 0 : WIRE_NO_FOREIGN_KEYS));
    request_make_room_for_end(r);
    if (a->code == ERR_OK) {
        struct wire_done d = {.seq = a->seq,
                              .changes = a->changes,
                              .last_insert_rowid = a->last_insert_rowid,
                              .flags = flags};
        wire_put_done(&a->out, r->id, &d);
        return;
    }
    const char *message = a->message == NULL ? err_default_text((int)a->code) : a->message;
    struct wire_error e = {.code = a->code,
                           .sqlite_code = a->sqlite_code,
                           .offset = a->offset,
                           .seq = a->seq,
                           .flags = flags,
                           .message = message,
                           .message_len = text_length(message)};
    wire_put_error(&a->out, r->id, &e);
}

/* How long an answer gets is the client's doing: one that does not fit is an error, no more. */
static void put_end(struct request *r) ON_LOOP
{
    put_end_frame(r);
    enum err e = buf_status(&r->answer.out);
    if (e == ERR_OK)
        return;
    request_fail(r, e, "the answer is over the size limit");
    put_end_frame(r);
    CHECK(buf_status(&r->answer.out) == ERR_OK); /* a short sentence in an empty buffer */
}

/* One at a time, and none for a client that does not take the answers it has asked for. */
static bool must_wait(const struct session *s) ON_LOOP
{
    return s->current != NULL || framed_backlog(s->framed) > BACKLOG_MAX;
}

/* Begins the next request, if any. S may be gone afterwards. */
static void next(struct session *s) ON_LOOP
{
    struct list *i = must_wait(s) ? NULL : list_pop_front(&s->pending);
    if (i == NULL)
        return;
    s->current = LIST_ENTRY(i, struct request, letter.link);
    s->n_pending--;
    s->pending_bytes -= s->current->frame_len;
    if (s->n_pending < SESSION_PENDING_MAX / 2 && s->pending_bytes < SESSION_PENDING_BYTES_MAX / 2)
        framed_pause(s->framed, false);
    s->at = AT_ROUTE;
    route(s, s->current); /* may answer at once, and end the session: S may be gone */
}

/* The current request is over; S may be freed. */
static void finish(struct session *s, struct request *r) ON_LOOP
{
    CHECK(s->current == r);
    s->current = NULL;
    s->at = AT_NOBODY;
    request_free(r);
    if (s->framed == NULL)
        free_if_done(s);
    else if (s->ending && s->n_pending == 0)
        end_session(s, true);
    else
        next(s);
}

static bool runs_elsewhere(const struct session *s, const struct request *r) ON_LOOP
{
    return !s->forwarded && s->home == HOME_NONE && r->answer.code == ERR_NOT_LEADER &&
           s->node->fetch == NULL;
}

/* Whose disk it is: the client may not know which node ran its statement. */
static void name_the_node(const struct session *s, struct request *r) ON_LOOP
{
    char sentence[ERR_TEXT_MAX + 32];
    int32_t sqlite_code = r->answer.sqlite_code;
    if ((r->answer.code != ERR_CORRUPT && r->answer.code != ERR_IO) || r->answer.message == NULL)
        return;
    (void)snprintf(sentence, sizeof sentence, "node %" PRIu64 ": %s", s->node->config->id,
                   r->answer.message);
    request_fail(r, r->answer.code, sentence);
    r->answer.sqlite_code = sqlite_code;
}

void session_answer(struct session *s, struct request *r)
{
    CHECK(s->current == r && r->session == s);
    if (s->at == AT_LANE)
        s->node->n_in_lane--;
    if (s->framed == NULL) {
        if (r->answer.in_transaction)
            tell_gone(s);
        finish(s, r);
        return;
    }
    if (r->answer.not_read_only || runs_elsewhere(s, r)) {
        bool at_once = r->answer.not_read_only;
        request_clear_answer(r);
        s->at = AT_ROUTE;
        if (at_once) {
            route_write(s, r);
            return;
        }
        if (clock_mono_ms() <= s->give_up_ms) {
            list_push_back(&s->node->wait_leader, &r->letter.link);
            return;
        }
        request_fail(r, ERR_NO_LEADER, "the leader could not be reached in time");
    }
    if (s->home != HOME_UPSTREAM || r->answer.code == ERR_TXN_LOST)
        s->home = r->answer.in_transaction ? HOME_LANE : HOME_NONE;
    if (r->answer.code == ERR_OK && !r->is_status && r->cluster == NULL)
        s->last_insert_rowid = r->answer.last_insert_rowid;
    if (r->answer.seq > s->seen_seq)
        s->seen_seq = r->answer.seq;
    if (s->overdue) {
        s->overdue = false;
        request_fail(r, ERR_TIMEOUT, "timed out while its client took the rows too slowly");
    }
    name_the_node(s, r);
    put_end(r);
    framed_send(s->framed, &r->answer.out);
    finish(s, r);
}

void session_rows(struct session *s, struct request *r)
{
    CHECK(s->current == r && s->at == AT_READER);
    if (s->framed != NULL) {
        framed_send(s->framed, &r->answer.out);
        if (framed_backlog(s->framed) > BACKLOG_MAX) {
            s->at = AT_BLOCKED;
            s->blocked_backlog = framed_backlog(s->framed);
            s->blocked_ms = clock_mono_ms();
            return;
        }
    }
    buf_reset(&r->answer.out);
    readers_run(s->node->readers, r);
}

bool session_relay(struct session *s, struct wire_frame *f)
{
    struct buf b;
    size_t n = rd_left(&f->body);
    buf_init(&b, n + KIB(1));
    size_t begun = wire_begin(&b, f->type, f->id);
    buf_put(&b, f->body.p, n);
    wire_end(&b, begun);
    CHECK(buf_status(&b) == ERR_OK);
    framed_send(s->framed, &b);
    buf_fini(&b);
    return framed_backlog(s->framed) <= BACKLOG_MAX;
}

void session_relayed(struct session *s, bool in_transaction)
{
    s->home = in_transaction ? HOME_UPSTREAM : HOME_NONE;
    finish(s, s->current);
}

static void unblock(struct session *s) ON_LOOP
{
    s->at = AT_READER;
    buf_reset(&s->current->answer.out);
    readers_run(s->node->readers, s->current);
}

static void on_drain(void *ctx)
{
    struct session *s = ctx;
    thread_expect_loop();
    if (s->at == AT_BLOCKED)
        unblock(s);
    else if (s->at == AT_UPSTREAM)
        upstream_resume(s);
    else
        next(s);
}

/* --- frames --- */

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

static void greet(struct session *s, struct wire_frame *f) ON_LOOP
{
    struct wire_hello h = {0};
    struct buf b;
    enum err e = f->type == WIRE_HELLO ? wire_get_hello(f, &h)
                                       : err_fail(ERR_PROTOCOL, "the first frame is not HELLO");
    if (e == ERR_OK && h.database_len != 0 &&
        !(h.database_len == 4 && memcmp(h.database, "main", 4) == 0))
        e = no_such_database(&h);
    if (e != ERR_OK) {
        refuse_version(s, h.version, (struct wire_id){0}, e, err_text());
        return;
    }
    s->greeted = true;
    framed_limit(s->framed, WIRE_FRAME_MAX);
    buf_init(&b, KIB(4));
    struct wire_welcome w = {
        .version = WIRE_VERSION,
        .node_id = s->node->config->id,
        .cluster_id = s->node->config->cluster_id,
        .seq = s->node->lane == NULL ? 0 : repl_db_published(lane_db(s->node->lane)),
        .server = LECTERN_VERSION,
        .sqlite = sqlite3_libversion()};
    w.server_len = strlen(w.server);
    w.sqlite_len = strlen(w.sqlite);
    wire_put_welcome(&b, &w);
    framed_send(s->framed, &b);
    buf_fini(&b);
}

static void take(struct session *s, struct request *r) ON_LOOP
{
    list_push_back(&s->pending, &r->letter.link);
    s->n_pending++;
    s->pending_bytes += r->frame_len;
    bool full =
        s->n_pending >= SESSION_PENDING_MAX || s->pending_bytes >= SESSION_PENDING_BYTES_MAX;
    if (full && must_wait(s))
        framed_pause(s->framed, true); /* back-pressure, not an error */
    next(s);
}

/* A request without a text: STATUS, or a place for an answer that is known already. */
static struct request *empty_request(struct session *s, struct wire_id id) ON_LOOP
{
    static const uint8_t nothing[1];
    struct wire_query q = {.statements = rd_of(nothing, 0)};
    return request_new(s, s->id, id, &q, nothing, sizeof nothing);
}

/* A whole frame whose request is over a limit: it fails in its turn, and the connection goes on. */
static void take_refused(struct session *s, struct wire_id id, enum err e) ON_LOOP
{
    struct request *r = empty_request(s, id);
    request_fail_text(r, e);
    take(s, r);
}

static void on_query(struct session *s, struct wire_frame *f) ON_LOOP
{
    const uint8_t *body = f->body.p;
    size_t body_len = rd_left(&f->body);
    struct wire_query q;
    enum err e = wire_get_query(f, &q);
    if (e == ERR_TOO_BIG) {
        take_refused(s, f->id, e);
        return;
    }
    if (e != ERR_OK) {
        refuse(s, f->id, e, err_text());
        return;
    }
    struct request *r = request_new(s, s->id, f->id, &q, body, body_len);
    r->kind = sql_classify(r->statement.sql, r->statement.sql_len);
    if (q.flags & WIRE_FORWARDED)
        s->forwarded = true;
    r->foreign_keys = (q.flags & WIRE_FOREIGN_KEYS_OFF) == 0;
    take(s, r);
}

static void on_status(struct session *s, struct wire_frame *f) ON_LOOP
{
    struct request *r = empty_request(s, f->id);
    r->is_status = true;
    take(s, r);
}

static void on_cluster(struct session *s, struct wire_frame *f) ON_LOOP
{
    struct wire_cluster w;
    enum err e = wire_get_cluster(f, &w);
    if (e != ERR_OK) {
        refuse(s, f->id, e, err_text());
        return;
    }
    struct request *r = empty_request(s, f->id);
    r->cluster = admin_request_new(&w);
    if ((w.flags & WIRE_CLUSTER_FORWARDED) != 0)
        s->forwarded = true;
    take(s, r);
}

/* Another node fetches this one's database. */
static void on_image(struct session *s, struct wire_frame *f) ON_LOOP
{
    const uint8_t *body = f->body.p;
    struct wire_query q = {.statements = rd_of(body, 0)};
    struct request *r = request_new(s, s->id, f->id, &q, body, rd_left(&f->body));
    r->image_frame = f->type;
    take(s, r);
}

static void cancel_pending(struct session *s, struct wire_id id) ON_LOOP
{
    LIST_EACH(i, &s->pending) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        if (r->id.request == id.request)
            atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    }
}

static void on_cancel(struct session *s, struct wire_id id) ON_LOOP
{
    struct request *r = s->current;
    if (r == NULL ||
        r->id.request != id.request) { /* of those that wait: it ends when it comes to its turn */
        cancel_pending(s, id);
        return;
    }
    atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    if (s->at == AT_UPSTREAM)
        upstream_cancel(s);
    else if (s->at == AT_ROUTE)
        route_forget(s);
    else if (s->at == AT_BLOCKED) /* its reader ends it */
        unblock(s);
}

static void on_frame(void *ctx, struct wire_frame *f)
{
    struct session *s = ctx;
    thread_expect_loop();
    if (!s->greeted) {
        greet(s, f);
        return;
    }
    if (f->type >= WIRE_IMAGE_BEGIN && f->type <= WIRE_IMAGE_ASK_PAGES && rd_left(&f->body) > 0) {
        on_image(s, f);
        return;
    }
    if (f->type != WIRE_QUERY && f->type != WIRE_CREDIT && f->type != WIRE_CLUSTER &&
        rd_left(&f->body) != 0) {
        refuse(s, f->id, ERR_PROTOCOL, "a frame that a client does not send here, or too long");
        return;
    }
    switch (f->type) {
    case WIRE_QUERY:
        on_query(s, f);
        return;
    case WIRE_STATUS:
        on_status(s, f);
        return;
    case WIRE_CANCEL:
        on_cancel(s, f->id);
        return;
    case WIRE_CLUSTER:
        on_cluster(s, f);
        return;
    case WIRE_CREDIT:
        return;
    case WIRE_BATCH:
    case WIRE_DESCRIBE:
    case WIRE_CLOSE:
    case WIRE_FORGET:
    case WIRE_PING:
    case WIRE_STEP:
    case WIRE_DESCRIPTION:
    case WIRE_PONG:
    case WIRE_HELLO:
    case WIRE_WELCOME:
    case WIRE_COLUMNS:
    case WIRE_ROWS:
    case WIRE_DONE:
    case WIRE_ERROR:
    case WIRE_IMAGE_BEGIN:
    case WIRE_IMAGE_ASK_HASHES:
    case WIRE_IMAGE_ASK_PAGES:
    case WIRE_IMAGE:
    case WIRE_IMAGE_HASHES:
    case WIRE_IMAGE_PAGES:
        break;
    }
    refuse(s, f->id, ERR_PROTOCOL, "a frame that a client does not send here");
}

/* --- the listener --- */

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *l = stream->data;
    struct node *n = l->node;
    thread_expect_loop();
    if (status < 0) {
        log_warn("session", "accept reason=\"%s\"", uv_strerror(status));
        return;
    }
    struct session *s = MEM_NEW(struct session);
    struct framed_events events = {.ctx = s,
                                   .on_frame = on_frame,
                                   .on_bad = on_bad,
                                   .on_eof = on_eof,
                                   .on_drain = on_drain,
                                   .on_close = on_close};
    s->framed = framed_accept(&n->loop, stream, &events);
    if (s->framed == NULL) {
        free(s);
        return;
    }
    s->node = n;
    s->id = ++n->next_session_id;
    s->born_ms = clock_mono_ms();
    s->foreign_keys = true;
    list_init(&s->pending);
    list_push_back(&n->sessions, &s->link);
    if (++n->n_connections > n->config->connections_max)
        refuse(s, (struct wire_id){0}, ERR_BUSY, "too many connections (max-connections)");
    else if (n->stage != NODE_SERVING)
        refuse(s, (struct wire_id){0}, ERR_STOPPED, "this node is stopping");
}

/* A blocked statement keeps one of the few reader connections, and an old snapshot. */
static void blocked_timer(struct session *s, uint64_t now_ms) ON_LOOP
{
    size_t backlog = framed_backlog(s->framed);
    if (backlog < s->blocked_backlog) {
        s->blocked_backlog = backlog;
        s->blocked_ms = now_ms;
    }
    if (now_ms > s->blocked_ms + SLOW_MS) {
        log_info("session", "closed session=%" PRIu64 " why=\"its client takes no answers\"",
                 s->id);
        end_session(s, false);
    } else if (now_ms > s->current->deadline_ms) {
        s->overdue = true;
        atomic_store_explicit(&s->current->cancelled, true, memory_order_relaxed);
        unblock(s);
    } else if (atomic_load_explicit(&s->current->cancelled, memory_order_relaxed)) {
        unblock(s); /* it held the WAL back (reader_watch.c): its reader ends it */
    }
}

void sessions_timer(struct node *n, uint64_t now_ms)
{
    LIST_EACH(i, &n->sessions) {
        struct session *s = LIST_ENTRY(i, struct session, link);
        if (s->framed != NULL && !s->greeted && now_ms > s->born_ms + HELLO_MS)
            refuse(s, (struct wire_id){0}, ERR_TIMEOUT, "no HELLO came");
        else if (s->at == AT_BLOCKED)
            blocked_timer(s, now_ms);
        else if (s->framed != NULL && s->upstream != NULL)
            upstream_timer(s, now_ms);
    }
    if (n->readers != NULL)
        readers_expire(n->readers, now_ms);
}

static enum err bind_to(struct listener *l, const char *address)
{
    const char *colon = strrchr(address, ':');
    CHECK(colon != NULL);                                   /* config.c checked */
    bool bracketed = address[0] == '[' && colon[-1] == ']'; /* [::1]:7701 */
    char *host = mem_printf("%.*s", (int)(colon - address) - 2 * bracketed, address + bracketed);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t lookup;
    int rc = uv_getaddrinfo(&l->node->loop, &lookup, NULL, host, colon + 1, &hints);
    if (rc == 0) {
        rc = uv_tcp_bind(&l->tcp, lookup.addrinfo->ai_addr, 0);
        uv_freeaddrinfo(lookup.addrinfo);
    }
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&l->tcp, ACCEPTS, on_connection);
    free(host);
    if (rc != 0)
        return err_fail(rc == UV_EADDRINUSE ? ERR_LOCKED : ERR_IO, "cannot listen on %s: %s",
                        address, uv_strerror(rc));
    return ERR_OK;
}

static void on_listener_closed(uv_handle_t *h)
{
    free(h->data);
}

enum err listener_open(struct node *n, struct listener **out)
{
    struct listener *l = MEM_NEW(struct listener);
    l->node = n;
    int rc = uv_tcp_init(&n->loop, &l->tcp);
    CHECK(rc == 0);
    l->tcp.data = l;
    enum err e = bind_to(l, n->config->listen);
    if (e != ERR_OK) {
        listener_close(l);
        return e;
    }
    *out = l;
    return ERR_OK;
}

void listener_close(struct listener *l)
{
    uv_close((uv_handle_t *)&l->tcp, on_listener_closed);
}

void sessions_close_all(struct node *n)
{
    LIST_EACH(i, &n->sessions)
        end_session(LIST_ENTRY(i, struct session, link), true);
}
