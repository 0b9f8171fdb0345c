/* Room: node/http.   Thread: loop.   Owns: the bytes of an answer until they are sent.
 * Invariants: one answer for each exchange; no byte of it goes after its end; header values are
 * ours, or a client's that were looked at here: none can end a line. A long answer is compressed in
 * parts, between which others have the loop.
 * Not here: reading a request (http_conn.c). */
#include "node/http/exchange.h"

#include "base/check.h"
#include "node/http/gzip.h"
#include "node/http/http_conn.h"
#include "node/http/http_listener.h"
#include "node/http/json_write.h"
#include "node/http/origin.h"
#include "node/meters.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define EXTRA_MAX 8192u
/* A body above this is sent by itself, not copied behind its head. */
#define COPY_MAX 65536u
/* A whole answer below this is not compressed: it goes in one packet, or nearly. */
#define COMPRESS_MIN 1024u
/* One above this is compressed in parts of PART_BYTES, a third of a millisecond each. */
#define COMPRESS_MAX 262144u
#define PART_BYTES   65536u

/* --- the request --- */

const char *exchange_header(const struct exchange *x, const char *name)
{
    for (uint32_t i = 0; i < x->n_headers; i++)
        if (strcmp(x->head + x->headers[i].name, name) == 0)
            return x->head + x->headers[i].value;
    return NULL;
}

static bool list_has(const char *list, const char *token)
{
    size_t want = strlen(token);
    while (*list != 0) {
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ", \t");
        if (n == want && strncasecmp(list, token, n) == 0)
            return true;
        list += n;
    }
    return false;
}

bool exchange_header_has(const struct exchange *x, const char *name, const char *token)
{
    for (uint32_t i = 0; i < x->n_headers; i++)
        if (strcmp(x->head + x->headers[i].name, name) == 0 &&
            list_has(x->head + x->headers[i].value, token))
            return true;
    return false;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes N bytes of a query into OUT. */
static bool decode(const char *p, size_t n, char *out, size_t size)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        int c = p[i] == '+' ? ' ' : p[i];
        if (c == '%') {
            if (i + 2 >= n)
                return false;
            int a = hex_digit(p[i + 1]), b = hex_digit(p[i + 2]);
            if (a < 0 || b < 0 || a + b == 0)
                return false;
            c = a * 16 + b;
            i += 2;
        }
        if (len + 1 >= size)
            return false;
        out[len++] = (char)c;
    }
    out[len] = 0;
    return true;
}

bool exchange_param(const struct exchange *x, const char *name, char *out, size_t size)
{
    size_t want = strlen(name);
    for (const char *p = x->query; *p != 0;) {
        size_t n = strcspn(p, "&");
        if (n > want && p[want] == '=' && memcmp(p, name, want) == 0) {
            if (!decode(p + want + 1, n - want - 1, out, size))
                out[0] = 0;
            return true;
        }
        p += n;
        p += *p == '&';
    }
    return false;
}

bool exchange_knows_params(struct exchange *x, const char *known)
{
    char name[32], text[160];
    for (const char *p = x->query; *p != 0; p += *p == '&') {
        size_t n = strcspn(p, "=&");
        (void)snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : 0), p);
        if (n > 0 && (name[0] == 0 || !list_has(known, name))) {
            (void)snprintf(text, sizeof text, "the URL has a parameter that is none here: %s%s",
                           known[0] == 0 ? "there are none" : "there are ", known);
            exchange_fail(x, 400, "BAD_REQUEST", text);
            return false;
        }
        p += strcspn(p, "&");
    }
    return true;
}

/* --- the answer --- */

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } known[] = {
        {200, "OK"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {426, "Upgrade Required"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].status == status)
            return known[i].reason;
    return "Unknown";
}

void exchange_add_header(struct exchange *x, const char *name, const char *value)
{
    CHECK(!x->answered && strpbrk(name, "\r\n: ") == NULL && strpbrk(value, "\r\n") == NULL);
    buf_printf(&x->extra, "%s: %s\r\n", name, value);
}

/* Sets the head up to what says where the body ends. */
static void put_head(struct exchange *x, int status, const char *content_type) ON_LOOP
{
    CHECK(!x->answered && buf_status(&x->extra) == ERR_OK);
    struct http_listener *l = http_conn_listener(x->conn);
    const char *origin = origin_of_readers(x);
    x->answered = true;
    CHECK(status >= 100 && status <= 599);
    meters_count(METER_HTTP_INFORMED + (unsigned)status / 100 - 1, 1);
    x->closes = x->closes || !http_conn_keeps(x->conn);
    buf_printf(&x->out, "HTTP/1.1 %d %s\r\ndate: %s\r\n", status, reason_of(status),
               http_listener_date(l));
    if (content_type != NULL)
        buf_printf(&x->out, "content-type: %s\r\n", content_type);
    if (origin != NULL)
        buf_printf(&x->out,
                   "access-control-allow-origin: %s\r\naccess-control-expose-headers: *\r\n",
                   origin);
    if (origin == NULL || strcmp(origin, "*") != 0)
        buf_printf(&x->out, "vary: origin\r\n");
    if (x->closes)
        buf_printf(&x->out, "connection: close\r\n");
    else if (x->old)
        buf_printf(&x->out, "connection: keep-alive\r\n");
    buf_put(&x->out, x->extra.data, x->extra.len);
    buf_fini(&x->extra);
}

/* Sends what waits in x->out. */
static void send_out(struct exchange *x) ON_LOOP
{
    http_conn_send(x->conn, &x->out);
    buf_fini(&x->out);
    buf_init(&x->out, SIZE_MAX);
}

/* Decides whether the answer that begins is compressed. */
static void choose_coding(struct exchange *x) ON_LOOP
{
    bool wanted = false;
    if (!http_listener_options(http_conn_listener(x->conn))->compress || x->old)
        return;
    for (uint32_t i = 0; i < x->n_headers && !wanted; i++)
        wanted = strcmp(x->head + x->headers[i].name, "accept-encoding") == 0 &&
                 gzip_is_wanted(x->head + x->headers[i].value);
    exchange_add_header(x, "vary", "accept-encoding");
    if (!wanted)
        return;
    exchange_add_header(x, "content-encoding", "gzip");
    x->gzip = gzip_new();
}

/* The head of an answer whose length is not known. */
static void open_pieces(struct exchange *x, int status, const char *content_type) ON_LOOP
{
    if (x->old) /* its end is the connection's */
        x->closes = true;
    x->chunked = !x->old;
    put_head(x, status, content_type);
    if (x->chunked)
        buf_printf(&x->out, "transfer-encoding: chunked\r\n");
    buf_put(&x->out, "\r\n", 2);
}

static void put_piece(struct exchange *x, const void *p, size_t n) ON_LOOP
{
    if (n == 0 || x->verb == HTTP_VERB_HEAD)
        return;
    if (x->chunked)
        buf_printf(&x->out, "%zx\r\n", n);
    buf_put(&x->out, p, n);
    if (x->chunked)
        buf_put(&x->out, "\r\n", 2);
}

/* The same, compressed if the answer is. */
static void put_coded(struct exchange *x, const void *p, size_t n, enum gzip_end end) ON_LOOP
{
    struct buf packed;
    if (x->gzip == NULL || x->verb == HTTP_VERB_HEAD) {
        put_piece(x, p, n);
        return;
    }
    buf_init(&packed, SIZE_MAX);
    gzip_put(x->gzip, p, n, end, &packed);
    put_piece(x, packed.data, packed.len);
    buf_fini(&packed);
}

static void close_pieces(struct exchange *x) ON_LOOP
{
    if (x->chunked && x->verb != HTTP_VERB_HEAD)
        buf_put(&x->out, "0\r\n\r\n", 5);
    if (x->out.len > 0)
        send_out(x);
    x->finished = true;
}

static void answer_at_once(struct exchange *x, int status, const char *content_type,
                           struct buf *body) ON_LOOP
{
    size_t n = body == NULL ? 0 : body->len;
    put_head(x, status, content_type);
    if (status != 204)
        buf_printf(&x->out, "content-length: %zu\r\n", n);
    buf_put(&x->out, "\r\n", 2);
    if (x->verb == HTTP_VERB_HEAD)
        n = 0;
    if (n > 0 && n <= COPY_MAX)
        buf_put(&x->out, body->data, n);
    send_out(x);
    if (n > COPY_MAX)
        http_conn_send(x->conn, body);
    x->finished = true;
}

static void answer_packed(struct exchange *x, int status, const char *content_type,
                          const struct buf *body) ON_LOOP
{
    struct buf packed;
    buf_init(&packed, SIZE_MAX);
    gzip_put(x->gzip, body->data, body->len, GZIP_WHOLE, &packed);
    answer_at_once(x, status, content_type, &packed);
    buf_fini(&packed);
}

static void answer_in_parts(struct exchange *x, int status, const char *content_type,
                            struct buf *body) ON_LOOP
{
    open_pieces(x, status, content_type);
    x->whole = buf_take(body, &x->len);
    if (x->verb == HTTP_VERB_HEAD)
        close_pieces(x);
}

void exchange_answer(struct exchange *x, int status, const char *content_type, struct buf *body)
{
    size_t n = body == NULL ? 0 : body->len;
    if (n >= COMPRESS_MIN)
        choose_coding(x);
    if (x->gzip == NULL)
        answer_at_once(x, status, content_type, body);
    else if (n <= COMPRESS_MAX)
        answer_packed(x, status, content_type, body);
    else
        answer_in_parts(x, status, content_type, body);
    if (body != NULL)
        buf_reset(body);
    http_conn_answered(x->conn);
}

bool exchange_has_part(const struct exchange *x)
{
    return x->whole != NULL && !x->finished;
}

void exchange_send_part(struct exchange *x)
{
    size_t left = x->len - x->parted, n = left < PART_BYTES ? left : PART_BYTES;
    put_coded(x, x->whole + x->parted, n, n < left ? GZIP_MORE : GZIP_WHOLE);
    x->parted += n;
    if (n == left)
        close_pieces(x);
    else if (x->out.len > 0)
        send_out(x);
}

size_t exchange_bytes(const struct exchange *x)
{
    return x->len + (x->gzip == NULL ? 0 : GZIP_BYTES);
}

void exchange_fini(struct exchange *x)
{
    buf_fini(&x->extra);
    buf_fini(&x->out);
    gzip_free(x->gzip);
    free(x->whole);
    free(x->head);
}

void exchange_fail(struct exchange *x, int status, const char *code, const char *message)
{
    struct buf b;
    buf_init(&b, SIZE_MAX);
    struct json_writer j = json_writer_of(&b);
    json_begin_object(&j);
    json_key(&j, "error");
    json_cstr(&j, message);
    json_key(&j, "message");
    json_cstr(&j, message);
    json_key(&j, "code");
    json_cstr(&j, code);
    json_end_object(&j);
    exchange_answer(x, status, "application/json", &b);
    buf_fini(&b);
}

void exchange_begin(struct exchange *x, int status, const char *content_type)
{
    choose_coding(x);
    open_pieces(x, status, content_type);
}

void exchange_put(struct exchange *x, struct buf *b)
{
    CHECK(x->answered && !x->finished);
    if (b->len > 0)
        put_coded(x, b->data, b->len, GZIP_FLUSH);
    buf_reset(b);
    if (x->out.len > 0)
        send_out(x);
}

void exchange_finish(struct exchange *x)
{
    CHECK(x->answered && !x->finished);
    if (x->gzip != NULL)
        put_coded(x, NULL, 0, GZIP_WHOLE);
    close_pieces(x);
    http_conn_answered(x->conn);
}

void exchange_again(struct exchange *x)
{
    CHECK(!x->finished);
    x->again = true;
    http_conn_again(x->conn);
}

struct asides *exchange_asides(const struct exchange *x)
{
    return http_listener_asides(http_conn_listener(x->conn));
}

void exchange_break(struct exchange *x)
{
    x->answered = x->finished = true;
    http_conn_break(x->conn);
}

bool exchange_client_left(const struct exchange *x)
{
    return http_conn_is_at_end(x->conn);
}

bool exchange_is_full(struct exchange *x)
{
    x->full = http_conn_backlog(x->conn) >= HTTP_FULL_BYTES;
    return x->full;
}
