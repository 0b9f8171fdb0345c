/* Room: node/http.   Thread: loop.
 * Owns: the connection, its bytes that are not parsed yet, and the open exchange (a *turn*).
 * Invariants: a handler is called only from run(); nothing is freed while run() is on the stack,
 * but at its end; an idle connection keeps no buffer.
 * Not here: what an answer looks like (exchange.c), who gives it (router.c), what a head says
 * (http_head.c).
 *
 * A head is collected until its empty line. A body goes through llhttp as it comes, up to its last
 * chunk: the trailers behind it are looked at as a head's lines are, and dropped. When the stream
 * of bytes cannot be trusted any more, the connection ends behind the error's answer: nothing that
 * follows is read as a request. */
#include "node/http/http_conn.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/http/http_head.h"
#include "node/http/router.h"
#include "node/meters.h"
#include "node/tcp.h"
#include "node/waiting.h"

#include <llhttp/llhttp.h>
#include <stdlib.h>
#include <string.h>

/* Kept of what a client sends ahead of its answers; then it is read no more. */
#define AHEAD_MAX KIB(64)
#define IN_MAX    MIB(1) /* that, and what one read can add */
/* The rest of a body behind an early answer is read up to this; above, the connection ends. */
#define DROP_MAX KIB(64)
/* Chunk extensions and trailers of one body together: nobody uses them. */
#define CHUNK_EXTRAS_MAX KIB(4)
/* Less than that is no progress of a body, or of a client that takes its answer. */
#define PROGRESS_BYTES KIB(1)
/* Requests that came together are run so long; then the others have their turn. */
#define TURN_NS 2000000
/* As many bytes of a WebSocket are between two looks at the clock. */
#define PIECE_BYTES KIB(8)

enum conn_state { CONN_IDLE, CONN_HEAD, CONN_BODY, CONN_ANSWER, CONN_UPGRADED, CONN_OVER };

/* A request and its answer. */
struct turn {
    struct exchange x; /* first: one is the other */
    llhttp_t parser;
    struct http_head head;
    uint64_t body;     /* bytes of it that came */
    size_t extras;     /* bytes of chunk extensions and trailers */
    bool trailers;     /* its last chunk was read */
    bool complete;     /* the request was read, or nothing more of it is */
    bool told_end;     /* on_end was called */
    bool too_big, bad; /* of a body */
};

struct http_conn {
    struct list link;  /* in one of the listener's lists */
    struct list again; /* in the listener's list of those who go on in the next turn */
    struct http_listener *listener;
    enum http_place place;
    struct tcp *tcp;
    struct turn *turn;
    struct buf in; /* came and is not parsed */
    struct http_lines
        lines; /* of a head, of which SCANNED bytes of IN were looked at; of trailers */
    size_t scanned;
    const struct http_takeover *takeover;
    size_t held;    /* by it */
    size_t counted; /* in options.waiting */
    uint64_t due;   /* WAIT is over */
    uint64_t mark;  /* bytes of the body, or taken by the client, when WAIT began */
    enum conn_state state;
    enum http_wait wait;
    bool rearm;   /* WAIT begins anew */
    bool running; /* in run() */
    bool eof, paused, closing;
    bool partly; /* a message of whoever took over is under way */
};

static void run(struct http_conn *c, const uint8_t *p, size_t n) ON_LOOP;

struct http_conn *http_conn_of(struct list *link)
{
    return LIST_ENTRY(link, struct http_conn, link);
}

uint64_t http_conn_due(const struct http_conn *c)
{
    return c->due;
}

struct http_listener *http_conn_listener(const struct http_conn *c)
{
    return c->listener;
}

static const struct http_options *options_of(const struct http_conn *c) ON_LOOP
{
    return http_listener_options(c->listener);
}

/* --- the end of exchanges and connections --- */

static void tell_over(struct turn *t)
{
    if (t->x.over)
        return;
    t->x.over = t->x.finished = true;
    if (t->x.handler != NULL && t->x.handler->on_over != NULL)
        t->x.handler->on_over(&t->x);
}

static void free_turn(struct http_conn *c)
{
    struct turn *t = c->turn;
    c->turn = NULL;
    tell_over(t);
    exchange_fini(&t->x);
    free(t);
}

static void reap(struct http_conn *c) ON_LOOP
{
    struct http_listener *l = c->listener;
    enum http_place place = c->place;
    if (c->turn != NULL)
        free_turn(c);
    if (c->takeover != NULL)
        c->takeover->on_over(c->takeover->ctx);
    buf_fini(&c->in);
    free(c);
    http_listener_leave(l, place);
}

static void end(struct http_conn *c, enum tcp_end how) ON_LOOP
{
    if (c->state == CONN_OVER)
        return;
    c->state = CONN_OVER;
    list_remove(&c->link);
    list_remove(&c->again);
    if (options_of(c)->waiting != NULL)
        waiting_set(options_of(c)->waiting, &c->counted, 0);
    tcp_close(c->tcp, how);
    c->tcp = NULL;
    if (!c->running)
        reap(c);
}

/* --- the body --- */

static int on_extras(llhttp_t *parser, const char *p, size_t n)
{
    struct turn *t = parser->data;
    t->extras += n + 1;
    t->bad = t->extras > CHUNK_EXTRAS_MAX || memchr(p, '\r', n) != NULL;
    return t->bad ? HPE_USER : 0;
}

static int on_body(llhttp_t *parser, const char *p, size_t n)
{
    struct turn *t = parser->data;
    struct http_conn *c = t->x.conn;
    thread_expect_loop();
    const struct http_options *o = options_of(c);
    t->body += n;
    if (t->body > o->body_max) {
        t->too_big = true;
        return HPE_USER;
    }
    if (t->x.answered)
        return 0;
    if (o->waiting != NULL && !waiting_has_room(o->waiting, c->counted, n)) {
        t->x.closes = true;
        exchange_fail(&t->x, 503, "BUSY", "this node has no memory for more requests now");
        return HPE_USER;
    }
    if (t->x.handler->on_body != NULL)
        t->x.handler->on_body(&t->x, (const uint8_t *)p, n);
    return c->state == CONN_OVER ? HPE_USER : 0;
}

/* A chunk that is too long is refused by its length, as a body is. */
static int on_chunk(llhttp_t *parser)
{
    struct turn *t = parser->data;
    thread_expect_loop();
    t->trailers = parser->content_length == 0;
    t->too_big = parser->content_length > options_of(t->x.conn)->body_max - t->body;
    return t->too_big ? HPE_USER : t->trailers ? HPE_PAUSED : 0;
}

static int on_complete(llhttp_t *parser)
{
    struct turn *t = parser->data;
    t->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t body_settings = {.on_body = on_body,
                                                .on_chunk_header = on_chunk,
                                                .on_chunk_extension_name = on_extras,
                                                .on_chunk_extension_value = on_extras,
                                                .on_message_complete = on_complete};

/* --- a turn --- */

static struct turn *begin_turn(struct http_conn *c, const uint8_t *head, size_t n) ON_LOOP
{
    struct turn *t = MEM_NEW(struct turn);
    CHECK(c->turn == NULL);
    c->turn = t;
    t->x.node = options_of(c)->node;
    t->x.conn = c;
    t->x.verb = HTTP_VERB_OTHER;
    t->x.path = t->x.query = "";
    t->x.head = mem_alloc(n + 1);
    if (n > 0)
        memcpy(t->x.head, head, n);
    t->x.head[n] = 0;
    buf_init(&t->x.extra, HTTP_HEAD_MAX);
    buf_init(&t->x.out, SIZE_MAX);
    return t;
}

/* Answers the open turn with an error and ends the connection behind it. */
static void refuse_turn(struct http_conn *c, struct http_verdict v) ON_LOOP
{
    struct turn *t = c->turn;
    c->state = CONN_ANSWER;
    t->complete = true;
    t->x.closes = true;
    log_debug("http", "refused status=%d why=\"%s\"", v.status, v.message);
    if (v.status == 501 || v.status == 505)
        meters_count(METER_HTTP_FOREIGN, 1);
    exchange_fail(&t->x, v.status, v.code, v.message);
}

/* The same for bytes that became no turn. */
static void refuse(struct http_conn *c, int status, const char *code, const char *message) ON_LOOP
{
    (void)begin_turn(c, NULL, 0);
    refuse_turn(c, (struct http_verdict){status, code, message});
}

/* The rest of the body is not what its head says, or too large: nothing behind it is read. */
static void refuse_body(struct http_conn *c) ON_LOOP
{
    struct turn *t = c->turn;
    if (!t->x.answered) {
        refuse_turn(c, t->too_big ? http_too_large
                                  : http_bad_request("the body is not what its head says"));
    } else {
        c->state = CONN_ANSWER;
        t->complete = true;
        t->x.closes = true; /* the answer says so, or not: what follows is no request */
    }
}

static size_t feed_trailers(struct http_conn *c, const uint8_t *p, size_t n) ON_LOOP
{
    struct turn *t = c->turn;
    size_t used = n;
    enum http_scan scan = http_lines_scan(&c->lines, p, n, &used);
    t->extras += used;
    t->complete = scan == HTTP_SCAN_WHOLE;
    if (scan == HTTP_SCAN_BAD || t->extras > CHUNK_EXTRAS_MAX)
        refuse_body(c);
    else if (t->complete)
        c->state = CONN_ANSWER;
    return used;
}

/* Gives N bytes of a body, or of the end of a head, to llhttp. Returns how many it took. */
static size_t feed(struct http_conn *c, const uint8_t *p, size_t n) ON_LOOP
{
    struct turn *t = c->turn;
    if (t->trailers)
        return feed_trailers(c, p, n);
    enum llhttp_errno e = llhttp_execute(&t->parser, (const char *)p, n);
    if (c->state == CONN_OVER || e == HPE_OK)
        return n;
    if (e != HPE_PAUSED) {
        refuse_body(c);
        return n;
    }
    CHECK(t->complete || t->trailers);
    if (t->complete)
        c->state = CONN_ANSWER;
    c->lines = (struct http_lines){0};
    return (size_t)(llhttp_get_error_pos(&t->parser) - (const char *)p);
}

/* The head is whole: N bytes at P. */
static void open_turn(struct http_conn *c, const uint8_t *p, size_t n) ON_LOOP
{
    struct turn *t = begin_turn(c, p, n);
    struct http_verdict v = http_head_read(&t->x, &t->parser, n, options_of(c)->body_max, &t->head);
    if (v.status != 0) {
        refuse_turn(c, v);
        return;
    }
    c->state = CONN_BODY;
    t->parser.data = t;
    t->parser.settings = (void *)(uintptr_t)&body_settings;
    router_route(options_of(c)->router, &t->x);
    if (c->state == CONN_BODY && !t->x.answered && t->x.handler->on_begin != NULL)
        t->x.handler->on_begin(&t->x);
    if (c->state == CONN_BODY && !t->x.answered && t->head.expects) {
        t->head.expects = false;
        buf_printf(&t->x.out, "HTTP/1.1 100 Continue\r\n\r\n");
        http_conn_send(c, &t->x.out);
    }
    if (c->state == CONN_BODY) {
        llhttp_resume(&t->parser);
        (void)feed(c, t->head.rest, t->head.n_rest);
    }
}

static const char *fault_of_head(const struct http_conn *c, uint8_t first) ON_LOOP
{
    if (first == 0x16)
        return "this looks like TLS, and the port speaks plain HTTP: use http://, ws:// or "
               "libsql://HOST:PORT?tls=0";
    if (first < 'A' || first > 'Z')
        return "the request's first line is not METHOD TARGET HTTP/1.1";
    return c->lines.bad;
}

static size_t take_head(struct http_conn *c, const uint8_t *p, size_t n) ON_LOOP
{
    size_t skip = 0;
    if (c->state == CONN_IDLE) {
        while (skip + 2 <= n && p[skip] == '\r' && p[skip + 1] == '\n')
            skip += 2; /* behind a body, as some clients do (RFC 9112, 2.2) */
        if (skip == n || (p[skip] == '\r' && skip + 1 == n))
            return skip;
        c->state = CONN_HEAD;
        c->scanned = 0;
        c->lines = (struct http_lines){0};
        p += skip;
        n -= skip;
    }
    size_t limit = n < HTTP_HEAD_MAX ? n : HTTP_HEAD_MAX, used;
    enum http_scan scan = http_lines_scan(&c->lines, p + c->scanned, limit - c->scanned, &used);
    c->scanned += used;
    if (scan == HTTP_SCAN_BAD || p[0] < 'A' || p[0] > 'Z') {
        refuse(c, 400, "BAD_REQUEST", fault_of_head(c, p[0]));
        return skip + n;
    }
    if (scan == HTTP_SCAN_WHOLE) {
        open_turn(c, p, c->scanned);
        return skip + c->scanned;
    }
    if (limit < HTTP_HEAD_MAX)
        return skip;
    if (memchr(p, '\n', limit) == NULL)
        refuse(c, 414, "URL_TOO_LONG", "the URL is too long");
    else
        refuse(c, 431, "HEAD_TOO_LARGE", "the request's head is larger than 16 KiB");
    return skip + n;
}

/* Is the open turn the last one? */
static bool ends_behind(const struct http_conn *c) ON_LOOP
{
    return c->state != CONN_UPGRADED &&
           (c->turn->x.closes || http_listener_is_winding_down(c->listener));
}

/* The turn was read and answered, as far as both will be. */
static void end_turn(struct http_conn *c) ON_LOOP
{
    bool closes = ends_behind(c);
    free_turn(c);
    c->rearm = true;
    if (c->state == CONN_UPGRADED)
        return;
    c->state = CONN_IDLE;
    if (closes)
        end(c, TCP_LINGER);
}

/* --- running --- */

/* One step with N bytes at P: *USED of them. False: it waits. */
static bool step(struct http_conn *c, const uint8_t *p, size_t n, size_t *used) ON_LOOP
{
    struct turn *t = c->turn;
    if (t != NULL && t->x.finished) {
        tell_over(t);
        if (ends_behind(c)) {
            t->complete = true;
            c->state = CONN_ANSWER;
            if (http_conn_backlog(c) > 0) /* an end of tcp.c's has less patience than we */
                return false;
        }
        if (t->complete) {
            end_turn(c);
            return true;
        }
    }
    if (t != NULL && exchange_has_part(&t->x)) {
        if (http_conn_backlog(c) >= HTTP_FULL_BYTES)
            return false;
        exchange_send_part(&t->x);
        return true;
    }
    if (t != NULL && t->x.again && !t->x.finished) {
        t->x.again = false;
        t->x.handler->on_turn(&t->x);
        return true;
    }
    switch (c->state) {
    case CONN_IDLE:
    case CONN_HEAD:
        if (n == 0 || http_conn_backlog(c) >= HTTP_FULL_BYTES)
            return false;
        *used = take_head(c, p, n);
        return c->turn != NULL || *used > 0;
    case CONN_BODY:
        if (n == 0)
            return false;
        *used = feed(c, p, n);
        break;
    case CONN_UPGRADED:
        if (n == 0 || c->paused)
            return false;
        *used = c->takeover->on_bytes(c->takeover->ctx, p, n < PIECE_BYTES ? n : PIECE_BYTES);
        return *used > 0;
    case CONN_ANSWER:
    case CONN_OVER:
        return false;
    }
    return true;
}

/* on_end once, when the request was read. */
static void tell_end(struct http_conn *c)
{
    struct turn *t = c->turn;
    if (c->state != CONN_ANSWER || t->told_end || t->x.answered)
        return;
    t->told_end = true;
    if (t->x.handler->on_end != NULL)
        t->x.handler->on_end(&t->x);
}

static void wait_anew(struct http_conn *c) ON_LOOP
{
    enum http_wait w = HTTP_WAIT_HANDLER;
    uint64_t mark = 0;
    if (c->closing) {
        w = HTTP_WAIT_CLOSE;
    } else if (tcp_backlog(c->tcp) > 0) {
        w = HTTP_WAIT_TAKE;
        mark = c->wait == w ? c->mark : tcp_bytes_taken(c->tcp);
    } else if (c->state == CONN_BODY) {
        w = HTTP_WAIT_BODY;
        mark = c->turn->body;
        if (c->wait == w && mark - c->mark >= PROGRESS_BYTES)
            c->rearm = true;
    } else if (c->partly && !c->paused) {
        w = HTTP_WAIT_BODY;
        mark = tcp_bytes_read(c->tcp);
        if (c->wait == w && mark - c->mark >= PROGRESS_BYTES)
            c->rearm = true;
    } else if (c->state == CONN_HEAD) {
        w = HTTP_WAIT_HEAD;
    } else if (c->state == CONN_IDLE) {
        w = http_conn_is_surplus(c) ? HTTP_WAIT_HEAD : HTTP_WAIT_IDLE;
    }
    if (w == c->wait && !c->rearm)
        return;
    c->wait = w;
    c->mark = mark;
    c->rearm = false;
    c->due = http_listener_await(c->listener, &c->link, w);
}

static void count(struct http_conn *c) ON_LOOP
{
    size_t bytes = c->in.len + c->held;
    if (c->turn != NULL && !c->turn->x.over)
        bytes += sizeof *c->turn + (size_t)c->turn->body + exchange_bytes(&c->turn->x);
    if (options_of(c)->waiting != NULL)
        waiting_set(options_of(c)->waiting, &c->counted, bytes);
}

/* Keeps the N bytes at P that were not used; reads on, or not. */
static void keep(struct http_conn *c, const uint8_t *p, size_t used, size_t n) ON_LOOP
{
    if (p == c->in.data)
        buf_consume(&c->in, used);
    else
        buf_put(&c->in, p + used, n - used);
    if (c->in.len == 0)
        buf_fini(&c->in);
    if (c->in.len == 0)
        buf_init(&c->in, IN_MAX);
    if (c->paused || !list_empty(&c->again) || (c->in.len >= AHEAD_MAX && c->state != CONN_HEAD))
        tcp_pause(c->tcp);
    else
        tcp_resume(c->tcp);
}

/* Goes as far as the N bytes at P, behind those that were kept, allow. */
static void run(struct http_conn *c, const uint8_t *p, size_t n)
{
    size_t at = 0;
    uint64_t begun = uv_hrtime();
    CHECK(!c->running);
    list_remove(&c->again);
    if (n == 0)
        p = (const uint8_t *)""; /* nothing, at a place */
    if (c->in.len > 0) {
        if (n > 0)
            buf_put(&c->in, p, n);
        p = c->in.data;
        n = c->in.len;
    }
    c->running = true;
    if (buf_status(&c->in) != ERR_OK) /* a hole in the bytes: nothing of them is read */
        end(c, TCP_NOW);
    for (bool moved = true; moved && c->state != CONN_OVER;) {
        size_t used = 0;
        if (uv_hrtime() - begun > TURN_NS) {
            http_listener_again(c->listener, &c->again);
            break;
        }
        moved = step(c, p + at, n - at, &used);
        at += used;
        tell_end(c);
        moved = moved ||
                (c->turn != NULL && !c->turn->x.over && (c->turn->x.finished || c->turn->x.again));
    }
    if (c->state != CONN_OVER) {
        keep(c, p, at, n);
        bool waits = c->state == CONN_ANSWER;
        if (buf_status(&c->in) != ERR_OK)
            end(c, TCP_NOW);
        else if (c->eof && !waits && list_empty(&c->again) && http_conn_backlog(c) == 0)
            end(c, TCP_FLUSH);
    }
    c->running = false;
    if (c->state == CONN_OVER) {
        reap(c);
        return;
    }
    count(c);
    wait_anew(c);
}

static void on_bytes(void *ctx, const uint8_t *p, size_t n)
{
    thread_expect_loop();
    run(ctx, p, n);
}

void http_conn_go_on(struct list *again)
{
    run(LIST_ENTRY(again, struct http_conn, again), NULL, 0);
}

static void on_eof(void *ctx)
{
    struct http_conn *c = ctx;
    thread_expect_loop();
    c->eof = true;
    run(c, NULL, 0);
}

/* Calls of a handler that are not from run(): it may end everything meanwhile. */
static void on_drain(void *ctx)
{
    struct http_conn *c = ctx;
    thread_expect_loop();
    c->running = true;
    if (c->state == CONN_UPGRADED) {
        c->takeover->on_drain(c->takeover->ctx);
    } else if (c->turn != NULL && c->turn->x.full && !c->turn->x.finished) {
        c->turn->x.full = false;
        if (c->turn->x.handler->on_drain != NULL)
            c->turn->x.handler->on_drain(&c->turn->x);
    }
    c->running = false;
    run(c, NULL, 0);
}

static void on_close(void *ctx, const char *why)
{
    (void)why;
    thread_expect_loop();
    end(ctx, TCP_NOW);
}

void http_conn_accept(struct http_listener *l, uv_stream_t *socket)
{
    struct http_conn *c = MEM_NEW(struct http_conn);
    struct tcp_events events = {.ctx = c,
                                .on_bytes = on_bytes,
                                .on_eof = on_eof,
                                .on_drain = on_drain,
                                .on_close = on_close,
                                .waiting = http_listener_options(l)->waiting,
                                .door = METER_HTTP};
    c->listener = l;
    list_init(&c->link);
    list_init(&c->again);
    buf_init(&c->in, IN_MAX);
    c->tcp = tcp_accept(http_listener_loop(l), socket, &events);
    if (c->tcp == NULL) {
        free(c);
        return;
    }
    c->place = http_listener_enter(l);
    c->rearm = true;
    wait_anew(c);
    if (c->place == HTTP_PLACE_NONE) {
        http_listener_is_full(l);
        refuse(c, http_full.status, http_full.code, http_full.message);
    }
}

/* --- from outside --- */

void http_conn_break(struct http_conn *c)
{
    end(c, TCP_RESET);
}

void http_conn_stop(struct http_conn *c)
{
    bool cut = c->turn != NULL && c->turn->x.answered && !c->turn->x.finished;
    end(c, cut ? TCP_RESET : TCP_FLUSH);
}

void http_conn_wind_down(struct http_conn *c)
{
    if (c->state == CONN_UPGRADED)
        c->takeover->on_wind_down(c->takeover->ctx);
}

bool http_conn_is_busy(const struct http_conn *c)
{
    return tcp_backlog(c->tcp) > 0 || c->state == CONN_ANSWER ||
           (c->state == CONN_BODY && c->turn->x.answered) ||
           (c->state == CONN_UPGRADED && !c->closing);
}

void http_conn_expire(struct http_conn *c)
{
    static const struct http_verdict slow = {408, "TIMEOUT", "the request did not come in time"};
    if (c->wait == HTTP_WAIT_TAKE && tcp_bytes_taken(c->tcp) - c->mark >= PROGRESS_BYTES) {
        c->rearm = true;
        c->mark = tcp_bytes_taken(c->tcp);
        wait_anew(c);
    } else if (c->wait == HTTP_WAIT_TAKE) {
        end(c, TCP_RESET);
    } else if (c->state == CONN_HEAD) {
        refuse(c, slow.status, slow.code, slow.message);
    } else if (c->state == CONN_BODY && !c->turn->x.answered) {
        refuse_turn(c, slow);
    } else if (c->wait == HTTP_WAIT_BODY && c->partly) {
        c->takeover->on_late(c->takeover->ctx);
    } else {
        end(c, TCP_LINGER);
    }
}

/* --- for exchange.c and router.c --- */

bool http_conn_is_surplus(const struct http_conn *c)
{
    return c->place != HTTP_PLACE;
}

bool http_conn_keeps(const struct http_conn *c)
{
    const struct turn *t = c->turn;
    if (!t->head.keep || c->eof || http_conn_is_surplus(c) ||
        http_listener_is_winding_down(c->listener))
        return false;
    if (t->complete)
        return true;
    /* The rest of the body is to be read and dropped: how much is that? A client that waits for
     * 100-continue may send it or not. */
    return !t->head.expects && !t->head.chunked && t->head.length - t->body <= DROP_MAX;
}

void http_conn_send(struct http_conn *c, struct buf *b)
{
    if (c->state == CONN_OVER) {
        buf_reset(b);
        return;
    }
    tcp_send(c->tcp, b);
    if (!c->running)
        wait_anew(c);
}

void http_conn_answered(struct http_conn *c)
{
    if (!c->running)
        run(c, NULL, 0);
}

void http_conn_again(struct http_conn *c)
{
    if (!c->running && c->state != CONN_OVER)
        http_listener_again(c->listener, &c->again);
}

bool http_conn_is_at_end(const struct http_conn *c)
{
    return c->eof || c->state == CONN_OVER;
}

size_t http_conn_backlog(const struct http_conn *c)
{
    return c->state == CONN_OVER ? 0 : tcp_backlog(c->tcp);
}

/* --- for websocket.c --- */

void http_conn_upgrade(struct http_conn *c, struct buf *head, const struct http_takeover *t)
{
    CHECK(c->running && c->state == CONN_BODY && !c->turn->x.answered);
    c->turn->complete = c->turn->x.answered = c->turn->x.finished = true;
    c->state = CONN_UPGRADED;
    c->takeover = t;
    http_conn_send(c, head);
}

void http_conn_pause(struct http_conn *c)
{
    c->paused = true;
    if (c->state == CONN_OVER)
        return;
    tcp_pause(c->tcp);
    if (!c->running)
        wait_anew(c); /* for nothing of its client's */
}

void http_conn_resume(struct http_conn *c)
{
    c->paused = false;
    if (c->state != CONN_OVER && !c->running)
        run(c, NULL, 0);
}

bool http_conn_holds(struct http_conn *c, size_t bytes)
{
    const struct waiting *w = options_of(c)->waiting;
    bool room = w == NULL || bytes <= c->held || waiting_has_room(w, c->counted, bytes - c->held);
    c->held = bytes;
    return room;
}

void http_conn_partly(struct http_conn *c, bool is)
{
    c->rearm = c->rearm || c->partly != is;
    c->partly = is;
}

void http_conn_closing(struct http_conn *c)
{
    c->closing = true;
    c->paused = false;
    if (c->state != CONN_OVER && !c->running) {
        tcp_resume(c->tcp);
        wait_anew(c);
    }
}

void http_conn_end(struct http_conn *c)
{
    end(c, TCP_LINGER);
}
