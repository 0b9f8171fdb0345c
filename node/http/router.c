/* Room: node/http.   Thread: loop.   Owns: nothing.
 * Not here: the handlers; the table of all paths (door.c, when there are some). */
#include "node/http/router.h"

#include "node/http/http_conn.h"
#include "node/http/http_head.h"
#include "node/http/http_listener.h"
#include "node/http/origin.h"
#include "node/http/websocket.h"

#include <stdio.h>
#include <string.h>

/* Does PATH look as PATTERN says? */
static bool matches(const char *pattern, const char *path)
{
    while (*pattern != 0) {
        if (strcmp(pattern, "...") == 0)
            return true;
        if (*pattern == ':') {
            size_t n = strcspn(path, "/");
            if (n == 0)
                return false;
            pattern += strcspn(pattern, "/");
            path += n;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return *path == 0;
}

static const struct {
    enum http_verb verb;
    const char *name;
} verbs[] = {{HTTP_VERB_GET, "GET"},
             {HTTP_VERB_HEAD, "HEAD"},
             {HTTP_VERB_POST, "POST"},
             {HTTP_VERB_OPTIONS, "OPTIONS"}};

/* The verbs of SET, with commas between. */
static void name_verbs(unsigned set, char *out, size_t size)
{
    size_t n = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0] && n < size; i++)
        if ((set & (unsigned)verbs[i].verb) != 0)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "", verbs[i].name);
}

/* May this be named back as headers that a browser may send? Tokens, commas and spaces. */
static bool is_header_list(const char *s)
{
    return strlen(s) < 1024 &&
           s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ")] == 0;
}

/* OPTIONS, also as a browser's question before its request (CORS). */
static void answer_options(struct exchange *x, const char *allow) ON_LOOP
{
    const char *asked = exchange_header(x, "access-control-request-headers");
    exchange_add_header(x, "allow", allow);
    if (http_listener_options(http_conn_listener(x->conn))->cors[0] != 0) {
        exchange_add_header(x, "access-control-allow-methods", allow);
        /* Named back, because `*` does not stand for Authorization. */
        exchange_add_header(x, "access-control-allow-headers",
                            asked != NULL && is_header_list(asked) ? asked : "*");
        exchange_add_header(x, "access-control-max-age", "86400");
    }
    exchange_answer(x, 204, NULL, NULL);
}

/* Is there nobody to run anything for X? Answers it then. */
static bool refuses(struct exchange *x) ON_LOOP
{
    struct http_listener *l = http_conn_listener(x->conn);
    if (http_listener_refuses(l)) {
        exchange_fail(x, 503, "STOPPED", "this node is stopping: ask another one");
    } else if (http_conn_is_surplus(x->conn)) {
        http_listener_is_full(l);
        exchange_fail(x, http_full.status, http_full.code, http_full.message);
    }
    return x->answered;
}

/* May H have it? Answers X when not. */
static bool admits(const struct handler *h, struct exchange *x) ON_LOOP
{
    if (h->only_tells)
        return true;
    if (refuses(x))
        return false;
    if (origin_is_foreign(x))
        origin_refuse(x);
    else if (h->gives_data && origin_host_is_strange(x))
        origin_refuse_host(x);
    else
        return true;
    return false;
}

void router_route(const struct router *r, struct exchange *x)
{
    unsigned wanted = x->verb == HTTP_VERB_HEAD ? HTTP_VERB_GET : (unsigned)x->verb;
    unsigned allowed = 0;
    char allow[64];
    if (r->websockets != NULL && websocket_is_asked(x)) {
        if (!refuses(x))
            websocket_accept(x, r->websockets);
        return;
    }
    for (const struct route *i = r->routes; i->path != NULL; i++) {
        if (!matches(i->path, x->path))
            continue;
        if ((unsigned)i->verb == wanted) {
            if (admits(i->handler, x))
                x->handler = i->handler;
            return;
        }
        allowed |= (unsigned)i->verb;
    }
    if ((allowed & HTTP_VERB_GET) != 0)
        allowed |= HTTP_VERB_HEAD;
    name_verbs(allowed | HTTP_VERB_OPTIONS, allow, sizeof allow);
    if (x->verb == HTTP_VERB_OPTIONS) {
        answer_options(x, allowed == 0 ? "GET, HEAD, POST, OPTIONS" : allow);
    } else if (allowed != 0) {
        exchange_add_header(x, "allow", allow);
        exchange_fail(x, 405, "METHOD_NOT_ALLOWED", "this path has no such method");
    } else {
        exchange_fail(x, 404, "NOT_FOUND", "there is nothing at this path");
    }
}
