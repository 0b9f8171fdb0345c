/* Room: node/http.   Thread: loop.
 * Owns: the connection, its bytes that are not parsed yet, and the open exchange (a *turn*).
 * Invariants: a handler is called only from run(); nothing is freed while run() is on the stack,
 * but at its end; a head is given to llhttp whole, after its lines were looked at: one request has
 * one reading, whoever stands between its client and us; an idle connection keeps no buffer.
 * Not here: what an answer looks like (exchange.c), who gives it (router.c).
 *
 * A head is collected until its empty line, checked byte by byte (scan_head), and parsed in place.
 * A body goes through llhttp as it comes. When the stream of bytes cannot be trusted any more, the
 * connection ends behind the error's answer: nothing that follows is read as a request. */
#include "node/http/http_conn.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/http/router.h"
#include "node/tcp.h"
#include "node/waiting.h"

#include <llhttp/llhttp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Kept of what a client sends ahead of its answers; then it is read no more. */
#define AHEAD_MAX KIB(64)
#define IN_MAX    MIB(1) /* that, and what one read can add */
/* The rest of a body behind an early answer is read up to this; above, the connection ends. */
#define DROP_MAX KIB(64)
/* Chunk extensions and trailers of one body together: nobody uses them. */
#define CHUNK_EXTRAS_MAX KIB(4)
/* Less than that is no progress of a body, or of a client that takes its answer. */
#define PROGRESS_BYTES KIB(1)

enum conn_state { CONN_IDLE, CONN_HEAD, CONN_BODY, CONN_ANSWER, CONN_UPGRADED, CONN_OVER };

/* A request and its answer. */
struct turn {
    struct exchange x; /* first: one is the other */
    llhttp_t parser;
    uint64_t body;     /* bytes of it that came */
    size_t extras;     /* bytes of chunk extensions and trailers */
    uint64_t length;   /* what it says to be, when it is not chunked */
    bool complete;     /* the request was read, or nothing more of it is */
    bool told_end;     /* on_end was called */
    bool keep;         /* its client wants the connection kept */
    bool expects;      /* 100-continue is owed */
    bool too_big, bad; /* of a body */
};

struct http_conn {
    struct list link; /* in one of the listener's lists */
    struct http_listener *listener;
    struct tcp *tcp;
    struct turn *turn;
    struct buf in;  /* came and is not parsed */
    size_t scanned; /* bytes of IN that scan_head has seen */
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
    buf_fini(&t->x.extra);
    buf_fini(&t->x.out);
    free(t->x.head);
    free(t);
}

static void reap(struct http_conn *c) ON_LOOP
{
    struct http_listener *l = c->listener;
    if (c->turn != NULL)
        free_turn(c);
    if (c->takeover != NULL)
        c->takeover->on_over(c->takeover->ctx);
    buf_fini(&c->in);
    free(c);
    http_listener_leave(l);
}

static void end(struct http_conn *c, enum tcp_end how) ON_LOOP
{
    if (c->state == CONN_OVER)
        return;
    c->state = CONN_OVER;
    list_remove(&c->link);
    if (options_of(c)->waiting != NULL)
        waiting_set(options_of(c)->waiting, &c->counted, 0);
    tcp_close(c->tcp, how);
    c->tcp = NULL;
    if (!c->running)
        reap(c);
}

/* --- the head --- */

enum scan { SCAN_MORE, SCAN_WHOLE, SCAN_BAD };

/* Looks for the end of the head in N bytes, of which *AT were seen. Lines end with CR LF and with
 * nothing else, and none begins with a space: on both, readers of HTTP disagree (RFC 9112, 2.2 and
 * 5.2). Nor with a colon: llhttp lets a header without a name pass. */
static enum scan scan_head(const uint8_t *p, size_t n, size_t *at)
{
    for (size_t i = *at; i < n; i++) {
        uint8_t b = p[i], before = i == 0 ? 0 : p[i - 1];
        if (b == '\n') {
            if (before != '\r')
                return SCAN_BAD;
            if (i >= 2 && p[i - 2] == '\n') {
                *at = i + 1;
                return SCAN_WHOLE;
            }
        } else if (before == '\r' || (before == '\n' && (b == ' ' || b == '\t' || b == ':')) ||
                   (b < 0x20 && b != '\t' && b != '\r') || b == 0x7f ||
                   (i == 0 && !(b >= 'A' && b <= 'Z'))) {
            return SCAN_BAD;
        }
    }
    *at = n;
    return SCAN_MORE;
}

/* What llhttp finds in a head: parser.data while it is read. */
struct head {
    struct exchange *x;
    const char *url;
    size_t url_len;
    bool too_many;
    uint16_t name_len[HTTP_HEADERS_MAX], value_len[HTTP_HEADERS_MAX];
};

static int on_url(llhttp_t *parser, const char *p, size_t n)
{
    struct head *h = parser->data;
    h->url = p;
    h->url_len = n;
    return 0;
}

static int on_name(llhttp_t *parser, const char *p, size_t n)
{
    struct head *h = parser->data;
    uint32_t i = h->x->n_headers;
    if (i == HTTP_HEADERS_MAX) {
        h->too_many = true;
        return HPE_USER;
    }
    h->x->headers[i].name = (uint16_t)(p - h->x->head);
    h->name_len[i] = (uint16_t)n;
    h->x->headers[i].value = (uint16_t)(p - h->x->head + (ptrdiff_t)n);
    h->value_len[i] = 0;
    h->x->n_headers++;
    return 0;
}

static int on_value(llhttp_t *parser, const char *p, size_t n)
{
    struct head *h = parser->data;
    uint32_t i = h->x->n_headers - 1;
    if (h->x->n_headers == 0)
        return HPE_USER;
    h->x->headers[i].value = (uint16_t)(p - h->x->head);
    h->value_len[i] = (uint16_t)n;
    return 0;
}

static int on_head_complete(llhttp_t *parser)
{
    parser->upgrade = 0; /* is our affair: h2c is not spoken, WebSockets are the router's */
    return HPE_PAUSED;
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

static int on_complete(llhttp_t *parser)
{
    struct turn *t = parser->data;
    t->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t head_settings = {.on_url = on_url,
                                                .on_header_field = on_name,
                                                .on_header_value = on_value,
                                                .on_headers_complete = on_head_complete};
static const llhttp_settings_t body_settings = {.on_body = on_body,
                                                .on_header_field = on_extras,
                                                .on_header_value = on_extras,
                                                .on_chunk_extension_name = on_extras,
                                                .on_chunk_extension_value = on_extras,
                                                .on_message_complete = on_complete};

/* --- judging a head --- */

struct verdict {
    int status; /* 0: nothing is wrong */
    const char *code, *message;
};

static const struct verdict fine;

static struct verdict bad(const char *message)
{
    return (struct verdict){400, "BAD_REQUEST", message};
}

/* Zeros behind names and values, names in lower case. Only now: llhttp has read it all. */
static void cut_headers(struct exchange *x, const struct head *h)
{
    for (uint32_t i = 0; i < x->n_headers; i++) {
        char *name = x->head + x->headers[i].name, *value = x->head + x->headers[i].value;
        size_t n = h->value_len[i];
        for (size_t k = 0; k < h->name_len[i]; k++)
            name[k] = (char)(name[k] >= 'A' && name[k] <= 'Z' ? name[k] | 0x20 : name[k]);
        while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'))
            n--;
        name[h->name_len[i]] = 0;
        value[n] = 0;
    }
}

/* The path and the query of a target: /path?query, http://host/path?query, or * of OPTIONS. */
static struct verdict cut_url(struct exchange *x, char *url)
{
    if (strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0) {
        char *path = strstr(url, "://") + 3;
        path += strcspn(path, "/?");
        if (*path != '/') /* http://host, http://host?query */
            *--path = '/';
        url = path;
    }
    if (url[0] != '/' && !(strcmp(url, "*") == 0 && x->verb == HTTP_VERB_OPTIONS))
        return bad("the target of the request is no path");
    char *query = strchr(url, '?');
    x->path = url;
    x->query = query == NULL ? "" : query + 1;
    if (query != NULL)
        *query = 0;
    return fine;
}

static unsigned count_header(const struct exchange *x, const char *name)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < x->n_headers; i++)
        n += strcmp(x->head + x->headers[i].name, name) == 0;
    return n;
}

/* Where the body ends: said once and in one way, or refused (RFC 9112, 6). */
static struct verdict judge_length(const struct turn *t, size_t body_max) ON_LOOP
{
    const struct exchange *x = &t->x;
    const char *length = exchange_header(x, "content-length");
    const char *coding = exchange_header(x, "transfer-encoding");
    if (count_header(x, "content-length") > 1 || count_header(x, "transfer-encoding") > 1)
        return bad("two headers say how long the body is");
    if (length != NULL && coding != NULL)
        return bad("content-length and transfer-encoding exclude each other");
    if (coding != NULL && x->old)
        return bad("HTTP/1.0 has no transfer-encoding");
    if (coding != NULL && strcasecmp(coding, "chunked") != 0)
        return (struct verdict){501, "NOT_IMPLEMENTED", "the one transfer-encoding is chunked"};
    if ((coding != NULL) != ((t->parser.flags & F_CHUNKED) != 0))
        return bad("transfer-encoding is not understood");
    if (length != NULL && (*length == 0 || length[strspn(length, "0123456789")] != 0))
        return bad("content-length is no number");
    if (length != NULL && t->parser.content_length > body_max)
        return (struct verdict){413, "BODY_TOO_LARGE",
                                "the body is larger than this node takes (http-body-bytes)"};
    return fine;
}

static struct verdict judge(struct turn *t, char *url, size_t body_max) ON_LOOP
{
    struct exchange *x = &t->x;
    unsigned hosts = count_header(x, "host");
    const char *host = exchange_header(x, "host");
    const char *expect = exchange_header(x, "expect");
    if (t->parser.http_major != 1)
        return (struct verdict){505, "HTTP_VERSION", "this is a port for HTTP/1.1"};
    if (hosts > 1 || (hosts == 0 && !x->old))
        return bad("one header `host` is needed");
    if (host != NULL && strpbrk(host, " \t,/@") != NULL)
        return bad("the header `host` is no host");
    if (t->parser.method == HTTP_CONNECT)
        return (struct verdict){501, "NOT_IMPLEMENTED", "this is no proxy"};
    struct verdict v = cut_url(x, url);
    if (v.status == 0)
        v = judge_length(t, body_max);
    if (v.status == 0 && expect != NULL && !x->old && strcasecmp(expect, "100-continue") != 0)
        return (struct verdict){417, "EXPECTATION_FAILED", "the one expectation is 100-continue"};
    t->length = t->parser.content_length;
    t->expects = expect != NULL && !x->old &&
                 (t->parser.content_length > 0 || (t->parser.flags & F_CHUNKED) != 0);
    return v;
}

static enum http_verb verb_of(const llhttp_t *parser)
{
    switch (parser->method) {
    case HTTP_GET:
        return HTTP_VERB_GET;
    case HTTP_HEAD:
        return HTTP_VERB_HEAD;
    case HTTP_POST:
        return HTTP_VERB_POST;
    case HTTP_OPTIONS:
        return HTTP_VERB_OPTIONS;
    default:
        return HTTP_VERB_OTHER;
    }
}

static struct verdict judge_failure(const struct head *h, enum llhttp_errno e)
{
    if (h->too_many)
        return (struct verdict){431, "HEAD_TOO_LARGE", "the request has more than 100 headers"};
    if (e == HPE_INVALID_VERSION || e == HPE_PAUSED_H2_UPGRADE)
        return (struct verdict){505, "HTTP_VERSION", "this is a port for HTTP/1.1"};
    if (e == HPE_INVALID_METHOD)
        return (struct verdict){501, "NOT_IMPLEMENTED", "the method is unknown"};
    return bad("the request is not HTTP/1.1");
}

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
static void refuse_turn(struct http_conn *c, struct verdict v) ON_LOOP
{
    struct turn *t = c->turn;
    c->state = CONN_ANSWER;
    t->complete = true;
    t->x.closes = true;
    exchange_fail(&t->x, v.status, v.code, v.message);
}

/* The same for bytes that became no turn. */
static void refuse(struct http_conn *c, int status, const char *code, const char *message) ON_LOOP
{
    (void)begin_turn(c, NULL, 0);
    refuse_turn(c, (struct verdict){status, code, message});
}

/* Gives N bytes of a body, or of the end of a head, to llhttp. Returns how many it took. */
static size_t feed(struct http_conn *c, const uint8_t *p, size_t n) ON_LOOP
{
    struct turn *t = c->turn;
    enum llhttp_errno e = llhttp_execute(&t->parser, (const char *)p, n);
    if (c->state == CONN_OVER || e == HPE_OK)
        return n;
    if (t->complete) {
        c->state = CONN_ANSWER;
        return (size_t)(llhttp_get_error_pos(&t->parser) - (const char *)p);
    }
    struct verdict v = bad("the body is not what its head says");
    if (t->too_big)
        v = (struct verdict){413, "BODY_TOO_LARGE",
                             "the body is larger than this node takes (http-body-bytes)"};
    if (!t->x.answered) {
        refuse_turn(c, v);
    } else {
        c->state = CONN_ANSWER;
        t->complete = true;
        t->x.closes = true; /* the answer says so, or not: what follows is no request */
    }
    return n;
}

/* The head is whole: N bytes at P. */
static void open_turn(struct http_conn *c, const uint8_t *p, size_t n) ON_LOOP
{
    struct turn *t = begin_turn(c, p, n);
    struct head h = {.x = &t->x};
    llhttp_init(&t->parser, HTTP_REQUEST, &head_settings);
    t->parser.data = &h;
    enum llhttp_errno e = llhttp_execute(&t->parser, t->x.head, n);
    if (e != HPE_PAUSED || h.url == NULL) {
        refuse_turn(c, judge_failure(&h, e));
        return;
    }
    size_t used = (size_t)(llhttp_get_error_pos(&t->parser) - t->x.head);
    uint8_t rest[2];
    CHECK(n - used <= sizeof rest);
    memcpy(rest, t->x.head + used, n - used);
    t->x.verb = verb_of(&t->parser);
    t->x.old = t->parser.http_major == 1 && t->parser.http_minor == 0;
    t->keep = llhttp_should_keep_alive(&t->parser) == 1;
    char *url = t->x.head + (h.url - t->x.head);
    cut_headers(&t->x, &h);
    url[h.url_len] = 0;
    struct verdict v = h.url_len > HTTP_URL_MAX
                           ? (struct verdict){414, "URL_TOO_LONG", "the URL is too long"}
                           : judge(t, url, options_of(c)->body_max);
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
    if (c->state == CONN_BODY && !t->x.answered && t->expects) {
        t->expects = false;
        buf_printf(&t->x.out, "HTTP/1.1 100 Continue\r\n\r\n");
        http_conn_send(c, &t->x.out);
    }
    if (c->state == CONN_BODY) {
        llhttp_resume(&t->parser);
        (void)feed(c, rest, n - used);
    }
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
        p += skip;
        n -= skip;
    }
    size_t limit = n < HTTP_HEAD_MAX ? n : HTTP_HEAD_MAX;
    switch (scan_head(p, limit, &c->scanned)) {
    case SCAN_WHOLE:
        open_turn(c, p, c->scanned);
        return skip + c->scanned;
    case SCAN_BAD:
        refuse(c, 400, "BAD_REQUEST", "the request is not HTTP/1.1");
        return skip + n;
    case SCAN_MORE:
        break;
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
        *used = c->takeover->on_bytes(c->takeover->ctx, p, n);
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
    } else if (c->state == CONN_HEAD) {
        w = HTTP_WAIT_HEAD;
    } else if (c->state == CONN_IDLE) {
        w = HTTP_WAIT_IDLE;
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
        bytes += sizeof *c->turn + (size_t)c->turn->body;
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
    if (c->paused || (c->in.len >= AHEAD_MAX && c->state != CONN_HEAD))
        tcp_pause(c->tcp);
    else
        tcp_resume(c->tcp);
}

/* Goes as far as the N bytes at P, behind those that were kept, allow. */
static void run(struct http_conn *c, const uint8_t *p, size_t n)
{
    size_t at = 0;
    CHECK(!c->running);
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
        moved = step(c, p + at, n - at, &used);
        at += used;
        tell_end(c);
        moved = moved || (c->turn != NULL && c->turn->x.finished && !c->turn->x.over);
    }
    if (c->state != CONN_OVER) {
        keep(c, p, at, n);
        bool waits = c->state == CONN_ANSWER;
        if (buf_status(&c->in) != ERR_OK)
            end(c, TCP_NOW);
        else if (c->eof && !waits && http_conn_backlog(c) == 0)
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
    buf_init(&c->in, IN_MAX);
    c->tcp = tcp_accept(http_listener_loop(l), socket, &events);
    if (c->tcp == NULL) {
        free(c);
        return;
    }
    c->rearm = true;
    wait_anew(c);
    if (!http_listener_enter(l))
        refuse(c, 503, "BUSY", "this node has as many connections as it may (http-connections)");
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
    if (c->state == CONN_IDLE && tcp_backlog(c->tcp) > 0)
        c->eof = true; /* run() ends it when its client has the answer */
    else if (c->state == CONN_IDLE && c->in.len == 0)
        end(c, TCP_LINGER);
    else if (c->state == CONN_UPGRADED)
        c->takeover->on_wind_down(c->takeover->ctx);
}

void http_conn_expire(struct http_conn *c)
{
    static const struct verdict slow = {408, "TIMEOUT", "the request did not come in time"};
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
    } else {
        end(c, TCP_LINGER);
    }
}

/* --- for exchange.c --- */

bool http_conn_keeps(const struct http_conn *c)
{
    const struct turn *t = c->turn;
    if (!t->keep || c->eof || http_listener_is_winding_down(c->listener))
        return false;
    if (t->complete)
        return true;
    /* The rest of the body is to be read and dropped: how much is that? A client that waits for
     * 100-continue may send it or not. */
    return !t->expects && (t->parser.flags & F_CHUNKED) == 0 && t->length - t->body <= DROP_MAX;
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
    if (c->state != CONN_OVER)
        tcp_pause(c->tcp);
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
