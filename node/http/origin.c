/* Room: node/http.   Thread: loop.   Owns: nothing.
 * A browser sends a POST to wherever a page wants it, and keeps but the answer from a page of
 * another origin: it would be run. So a request that a page sends is judged before.
 *
 * A page of the node's own address (there is none yet; a proxy may have some) is no stranger. But
 * who owns a name can let it point to this node after his page was loaded from elsewhere (DNS
 * rebinding), and then `host` and `origin` are equal, too: only an address, or localhost, is
 * nobody's. A page at a name has to be in http-cors.
 *
 * Of its GET at such a name a browser says no origin at all, as it is one of the page's own: the
 * host alone tells it from other programs'. So what gives data by GET is given at addresses, at
 * localhost, and at the names that the settings have. Programs that say no host are no browsers. */
#include "node/http/origin.h"

#include "node/http/http_conn.h"
#include "node/http/http_listener.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define HOST_MAX 256

static const struct http_options *options_of(const struct exchange *x) ON_LOOP
{
    return http_listener_options(http_conn_listener(x->conn));
}

/* Is one of the origins of LIST as WANTED says, which is asked of each with its length? */
static bool any_of(const char *list, bool (*wanted)(const char *origin, size_t n, const void *arg),
                   const void *arg)
{
    while (list[strspn(list, ", \t")] != 0) {
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ", \t");
        if ((n == 1 && *list == '*') || wanted(list, n, arg))
            return true;
        list += n;
    }
    return false;
}

static bool is_same(const char *origin, size_t n, const void *arg)
{
    const char *other = arg;
    return n == strlen(other) && memcmp(origin, other, n) == 0;
}

static bool is_listed(const struct exchange *x, const char *origin) ON_LOOP
{
    return any_of(options_of(x)->cors, is_same, origin);
}

/* The length of the host that the N bytes at P ("host" or "host:port") begin with. */
static size_t host_length(const char *p, size_t n)
{
    const char *end = n > 0 && p[0] == '[' ? memchr(p, ']', n) : NULL;
    const char *colon = end == NULL ? memchr(p, ':', n) : NULL;
    return end != NULL ? (size_t)(end + 1 - p) : colon != NULL ? (size_t)(colon - p) : n;
}

/* Is HOST at the one that ORIGIN (scheme://host or scheme://host:port) has? */
static bool has_host(const char *origin, size_t n, const void *arg)
{
    const char *host = arg, *of_origin = memmem(origin, n, "://", 3);
    if (of_origin == NULL)
        return false;
    of_origin += 3;
    size_t length = host_length(of_origin, (size_t)(origin + n - of_origin));
    return length > 0 && length == host_length(host, strlen(host)) &&
           strncasecmp(of_origin, host, length) == 0;
}

/* Is HOST ("host" or "host:port") an address, or this machine? */
static bool is_nobodys(const char *host)
{
    char name[HOST_MAX];
    struct in6_addr address;
    size_t n = host_length(host, strlen(host)), local = strlen(".localhost");
    if (n == 0 || n >= sizeof name || (host[n] != 0 && host[n] != ':'))
        return false;
    memcpy(name, host, n);
    name[n] = 0;
    if (name[0] == '[') {
        name[n - 1] = 0;
        return inet_pton(AF_INET6, name + 1, &address) == 1;
    }
    return strcasecmp(name, "localhost") == 0 || inet_pton(AF_INET, name, &address) == 1 ||
           (n > local && strcasecmp(name + n - local, ".localhost") == 0);
}

const char *origin_of_readers(const struct exchange *x)
{
    const char *origin = exchange_header(x, "origin");
    if (is_listed(x, ""))
        return "*";
    return origin != NULL && is_listed(x, origin) ? origin : NULL;
}

bool origin_is_foreign(const struct exchange *x)
{
    const char *origin = exchange_header(x, "origin"), *host = exchange_header(x, "host");
    if (origin == NULL || is_listed(x, origin))
        return false;
    const char *of_origin = strstr(origin, "://");
    return host == NULL || of_origin == NULL || strcasecmp(of_origin + 3, host) != 0 ||
           !is_nobodys(host);
}

bool origin_host_is_strange(const struct exchange *x)
{
    const char *host = exchange_header(x, "host"), *url = options_of(x)->url;
    return host != NULL && !is_nobodys(host) && !has_host(url, strlen(url), host) &&
           !any_of(options_of(x)->cors, has_host, host);
}

void origin_refuse_host(struct exchange *x)
{
    exchange_fail(x, 403, "FORBIDDEN",
                  "this node does not know the name by which it was asked, and a page in a browser "
                  "may be behind it (DNS rebinding): ask by an IP address or localhost, or set "
                  "http-url to this node's address with that name, or http-cors to http://NAME");
}

void origin_refuse(struct exchange *x)
{
    exchange_fail(x, 403, "FORBIDDEN",
                  "a page of this origin may not use this node: the setting http-cors names those "
                  "that may");
}
