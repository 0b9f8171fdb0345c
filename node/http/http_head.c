/* Room: node/http.   Thread: loop.   Owns: nothing.
 * Invariants: llhttp is given a head whole, after its lines were looked at; what it would let pass
 * and others read differently is refused here.
 * Not here: the body, and what becomes of a request (http_conn.c). */
#include "node/http/http_head.h"

#include "base/check.h"

#include <llhttp/llhttp.h>
#include <string.h>
#include <strings.h>

/* What is wrong with B, which is no LF. */
static const char *fault_of(uint8_t b, uint8_t before, bool inside)
{
    if (before == '\r')
        return "a CR stands alone: lines end with CR LF";
    if (!inside && (b == ' ' || b == '\t'))
        return "a line begins with a space: headers are one line each";
    if (!inside && b == ':')
        return "a header has no name";
    if ((b < 0x20 && b != '\t' && b != '\r') || b == 0x7f)
        return "a control byte stands in the head";
    return NULL;
}

enum http_scan http_lines_scan(struct http_lines *s, const uint8_t *p, size_t n, size_t *used)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t b = p[i], before = s->before;
        s->before = b;
        if (b == '\n') {
            if (before != '\r') {
                s->bad = "a line ends with LF alone: CR LF is needed";
                return HTTP_SCAN_BAD;
            }
            *used = i + 1;
            if (!s->inside)
                return HTTP_SCAN_WHOLE;
            s->inside = false;
        } else if ((s->bad = fault_of(b, before, s->inside)) != NULL) {
            return HTTP_SCAN_BAD;
        } else {
            s->inside = s->inside || b != '\r';
        }
    }
    *used = n;
    return HTTP_SCAN_MORE;
}

/* --- finding --- */

/* What llhttp finds: parser.data while it reads. */
struct finding {
    struct exchange *x;
    const char *url;
    size_t url_len;
    bool too_many;
    uint16_t name_len[HTTP_HEADERS_MAX], value_len[HTTP_HEADERS_MAX];
};

static int on_url(llhttp_t *parser, const char *p, size_t n)
{
    struct finding *h = parser->data;
    h->url = p;
    h->url_len = n;
    return 0;
}

static int on_name(llhttp_t *parser, const char *p, size_t n)
{
    struct finding *h = parser->data;
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
    struct finding *h = parser->data;
    uint32_t i = h->x->n_headers - 1;
    if (h->x->n_headers == 0)
        return HPE_USER;
    h->x->headers[i].value = (uint16_t)(p - h->x->head);
    h->value_len[i] = (uint16_t)n;
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    parser->upgrade = 0; /* is our affair: h2c is not spoken, WebSockets are the router's */
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {.on_url = on_url,
                                           .on_header_field = on_name,
                                           .on_header_value = on_value,
                                           .on_headers_complete = on_complete};

/* --- judging a head --- */

static const struct http_verdict fine,
    version = {505, "HTTP_VERSION", "this is a port for HTTP/1.1"};
const struct http_verdict http_too_large = {
    413, "BODY_TOO_LARGE", "the body is larger than this node takes (http-body-bytes)"};
const struct http_verdict http_full = {
    503, "BUSY", "this node has as many connections as it may (http-connections)"};

struct http_verdict http_bad_request(const char *message)
{
    return (struct http_verdict){400, "BAD_REQUEST", message};
}

/* Zeros behind names and values, names in lower case. Only now: llhttp has read it all. */
static void cut_headers(struct exchange *x, const struct finding *h)
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

/* Is N bytes at HOST, of a target, the one that the header names? A client says it twice (RFC 9112,
 * 3.2.2), and some readers take the one, some the other. */
static bool is_host(const struct exchange *x, const char *host, size_t n) ON_LOOP
{
    const char *header = exchange_header(x, "host");
    return header == NULL || (strlen(header) == n && strncasecmp(header, host, n) == 0);
}

/* The path and the query of a target: /path?query, http://host/path?query, or * of OPTIONS. */
static struct http_verdict cut_url(struct exchange *x, char *url) ON_LOOP
{
    if (strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0) {
        char *host = strstr(url, "://") + 3, *path = host + strcspn(host, "/?");
        if (path == host)
            return http_bad_request("the target of the request has no host");
        if (!is_host(x, host, (size_t)(path - host)))
            return http_bad_request("the target of the request has another host than the header");
        if (*path != '/') /* http://host, http://host?query */
            *--path = '/';
        url = path;
    }
    if (url[0] != '/' && !(strcmp(url, "*") == 0 && x->verb == HTTP_VERB_OPTIONS))
        return http_bad_request("the target of the request is no path");
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
static struct http_verdict judge_length(const struct exchange *x, const llhttp_t *parser,
                                        size_t body_max) ON_LOOP
{
    const char *length = exchange_header(x, "content-length");
    const char *coding = exchange_header(x, "transfer-encoding");
    if (count_header(x, "content-length") > 1 || count_header(x, "transfer-encoding") > 1)
        return http_bad_request("two headers say how long the body is");
    if (length != NULL && coding != NULL)
        return http_bad_request("content-length and transfer-encoding exclude each other");
    if (coding != NULL && x->old)
        return http_bad_request("HTTP/1.0 has no transfer-encoding");
    if (coding != NULL && strcasecmp(coding, "chunked") != 0)
        return (struct http_verdict){501, "NOT_IMPLEMENTED",
                                     "the one transfer-encoding is chunked"};
    if ((coding != NULL) != ((parser->flags & F_CHUNKED) != 0))
        return http_bad_request("transfer-encoding is not understood");
    if (length != NULL && (*length == 0 || length[strspn(length, "0123456789")] != 0))
        return http_bad_request("content-length is no number");
    if (length != NULL && parser->content_length > body_max)
        return http_too_large;
    return fine;
}

/* A body as it is: none is unpacked here. */
static struct http_verdict judge_coding(const struct exchange *x, const llhttp_t *parser) ON_LOOP
{
    const char *coding = exchange_header(x, "content-encoding");
    bool has_body = parser->content_length > 0 || (parser->flags & F_CHUNKED) != 0;
    if (coding == NULL || *coding == 0 || !has_body || strcasecmp(coding, "identity") == 0)
        return fine;
    return (struct http_verdict){415, "UNSUPPORTED_ENCODING",
                                 "bodies are taken as they are: send it without content-encoding"};
}

static struct http_verdict judge(struct exchange *x, const llhttp_t *parser, char *url,
                                 size_t body_max) ON_LOOP
{
    unsigned hosts = count_header(x, "host");
    const char *host = exchange_header(x, "host");
    const char *expect = exchange_header(x, "expect");
    if (parser->http_major != 1)
        return version;
    if (hosts > 1 || (hosts == 0 && !x->old))
        return http_bad_request("one header `host` is needed");
    if (host != NULL && strpbrk(host, " \t,/@?#\\") != NULL)
        return http_bad_request("the header `host` is no host");
    if (parser->method == HTTP_CONNECT)
        return (struct http_verdict){501, "NOT_IMPLEMENTED", "this is no proxy"};
    struct http_verdict v = cut_url(x, url);
    if (v.status == 0)
        v = judge_length(x, parser, body_max);
    if (v.status == 0)
        v = judge_coding(x, parser);
    if (v.status == 0 && expect != NULL && !x->old &&
        (strcasecmp(expect, "100-continue") != 0 || count_header(x, "expect") > 1))
        return (struct http_verdict){417, "EXPECTATION_FAILED",
                                     "the one expectation is 100-continue"};
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

static struct http_verdict judge_failure(const struct finding *h, enum llhttp_errno e)
{
    if (h->too_many)
        return (struct http_verdict){431, "HEAD_TOO_LARGE",
                                     "the request has more than 100 headers"};
    if (e == HPE_INVALID_VERSION || e == HPE_PAUSED_H2_UPGRADE)
        return version;
    if (e == HPE_INVALID_METHOD)
        return (struct http_verdict){501, "NOT_IMPLEMENTED", "the method is unknown"};
    switch ((int)e) {
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return http_bad_request("content-length is there twice, or beside transfer-encoding");
    case HPE_INVALID_CONTENT_LENGTH:
        return http_bad_request("content-length is no number");
    case HPE_INVALID_TRANSFER_ENCODING:
        return http_bad_request("transfer-encoding is not understood");
    case HPE_INVALID_HEADER_TOKEN:
        return http_bad_request("a header has a byte in its name or value that may not be there, "
                                "or a space before its colon");
    case HPE_INVALID_URL:
        return http_bad_request("the target of the request has a byte that may not be there");
    default:
        return http_bad_request("the request's first line is not METHOD TARGET HTTP/1.1");
    }
}

/* --- both --- */

/* One space on both sides of the target, and HTTP: llhttp takes more spaces, and RTSP. */
static bool is_one_line(const struct finding *f)
{
    return f->url[-1] == ' ' && f->url[-2] != ' ' &&
           strncmp(f->url + f->url_len, " HTTP/1.", 8) == 0;
}

struct http_verdict http_head_read(struct exchange *x, llhttp_t *parser, size_t n, size_t body_max,
                                   struct http_head *head)
{
    struct finding f = {.x = x};
    llhttp_init(parser, HTTP_REQUEST, &settings);
    parser->data = &f;
    enum llhttp_errno e = llhttp_execute(parser, x->head, n);
    if (e != HPE_PAUSED || f.url == NULL)
        return judge_failure(&f, e);
    size_t used = (size_t)(llhttp_get_error_pos(parser) - x->head);
    CHECK(n - used <= sizeof head->rest);
    head->n_rest = n - used;
    memcpy(head->rest, x->head + used, n - used);
    head->keep = llhttp_should_keep_alive(parser) == 1;
    head->chunked = (parser->flags & F_CHUNKED) != 0;
    head->length = parser->content_length;
    x->verb = verb_of(parser);
    x->old = parser->http_major == 1 && parser->http_minor == 0;
    bool one_line = is_one_line(&f);
    char *url = x->head + (f.url - x->head);
    cut_headers(x, &f);
    url[f.url_len] = 0;
    if (f.url_len > HTTP_URL_MAX)
        return (struct http_verdict){414, "URL_TOO_LONG", "the URL is too long"};
    struct http_verdict v = judge(x, parser, url, body_max);
    if (v.status == 0 && !one_line)
        return http_bad_request("the request's first line is not METHOD TARGET HTTP/1.1");
    head->expects =
        exchange_header(x, "expect") != NULL && !x->old && (head->length > 0 || head->chunked);
    return v;
}
