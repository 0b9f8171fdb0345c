/* Room: node/http.   Thread: loop.   Owns: nothing.
 * A browser sends a POST to wherever a page wants it, and keeps but the answer from a page of
 * another origin: it would be run. So a request that a page sends is judged before.
 *
 * A page of the node's own address (there is none yet; a proxy may have some) is no stranger. But
 * who owns a name can let it point to this node after his page was loaded from elsewhere (DNS
 * rebinding), and then `host` and `origin` are equal, too: only an address, or localhost, is
 * nobody's. A page at a name has to be in http-cors. */
#include "node/http/origin.h"

#include "node/http/http_conn.h"
#include "node/http/http_listener.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define HOST_MAX 256

static bool is_listed(const struct exchange *x, const char *origin) ON_LOOP
{
    const char *list = http_listener_options(http_conn_listener(x->conn))->cors;
    size_t want = strlen(origin);
    while (*list != 0) {
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ", \t");
        if ((n == 1 && *list == '*') || (n == want && memcmp(list, origin, n) == 0))
            return n > 0;
        list += n;
    }
    return false;
}

/* Is HOST ("host" or "host:port") an address, or this machine? */
static bool is_nobodys(const char *host)
{
    char name[HOST_MAX];
    struct in_addr address;
    size_t n = strcspn(host, ":");
    if (host[0] == '[')
        return true;
    if (n == 0 || n >= sizeof name)
        return false;
    memcpy(name, host, n);
    name[n] = 0;
    return strcasecmp(name, "localhost") == 0 || inet_pton(AF_INET, name, &address) == 1;
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

void origin_refuse(struct exchange *x)
{
    exchange_fail(x, 403, "FORBIDDEN",
                  "a page of this origin may not use this node: the setting http-cors names those "
                  "that may");
}
