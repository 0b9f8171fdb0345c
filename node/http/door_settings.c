/* Room: node/http.   Thread: main, loop.   Owns: nothing.
 * Not here: addresses and numbers (config.c); who is judged by http-cors (origin.c). */
#include "node/http/door_settings.h"

#include "base/log.h"
#include "node/http/hrana_wish.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS "0123456789"

/* The length of the host at S: a name, or an address; 0: none is there. */
static size_t host_length(const char *s)
{
    if (s[0] != '[')
        return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" DIGITS "-._");
    size_t n = strspn(s + 1, "abcdefABCDEF:." DIGITS);
    return n > 0 && s[n + 1] == ']' ? n + 2 : 0;
}

/* Is TEXT scheme://host[:port], and no more? */
static bool is_origin(const char *text)
{
    const char *host = strstr(text, "://");
    if (host == NULL || !isalpha((unsigned char)text[0]))
        return false;
    for (const char *p = text; p < host; p++)
        if (!isalnum((unsigned char)*p) && strchr("+-.", *p) == NULL)
            return false;
    host += 3;
    size_t n = host_length(host);
    const char *port = host + n;
    size_t digits = port[0] == ':' ? strspn(port + 1, DIGITS) : 0;
    if (n == 0 || (port[0] != 0 && (digits == 0 || digits > 5 || port[1 + digits] != 0)))
        return false;
    return port[0] == 0 || strtoul(port + 1, NULL, 10) <= 65535;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Would a browser say it so? */
static bool is_said(const char *origin)
{
    for (const char *p = origin; *p != 0; p++)
        if (isupper((unsigned char)*p))
            return false;
    return !(strncmp(origin, "http:", 5) == 0 && ends_with(origin, ":80")) &&
           !(strncmp(origin, "https:", 6) == 0 && ends_with(origin, ":443"));
}

static enum err check_origin(const char *origin)
{
    if (strcmp(origin, "*") == 0)
        return ERR_OK;
    if (!is_origin(origin))
        return err_fail(ERR_CONFIG,
                        "http-cors: \"%s\" is no origin: scheme://host or scheme://host:port, "
                        "without a path, a slash at its end or quotes; or * for all",
                        origin);
    if (!is_said(origin))
        return err_fail(ERR_CONFIG,
                        "http-cors: no browser says \"%s\": they say an origin in lower case, and "
                        "without :80 of http and :443 of https",
                        origin);
    return ERR_OK;
}

static enum err check_cors(const char *list)
{
    while (list[strspn(list, ", \t")] != 0) {
        char one[512];
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ", \t");
        if (n >= sizeof one)
            return err_fail(ERR_CONFIG, "http-cors: an origin is longer than 511 characters");
        memcpy(one, list, n);
        one[n] = 0;
        TRY(check_origin(one));
        list += n;
    }
    return ERR_OK;
}

static enum err check_url(const struct config *c)
{
    const char *url = c->http_url;
    if (url[0] == 0)
        return ERR_OK;
    if (c->http_listen[0] == 0)
        return err_fail(ERR_CONFIG, "http-url is of use with http-listen only");
    if (!is_origin(url) || (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
        return err_fail(ERR_CONFIG,
                        "http-url = \"%s\" is not http://HOST[:PORT] or https://HOST[:PORT]", url);
    return ERR_OK;
}

enum err door_settings_check(const struct config *c)
{
    struct hrana_wish wish;
    TRY(check_cors(c->http_cors));
    TRY(check_url(c));
    if (!hrana_wish_read_level(c->http_read, &wish))
        return err_fail(ERR_CONFIG,
                        "http-read = \"%s\" is not any, bounded:MILLISECONDS, session or strong",
                        c->http_read);
    if (!hrana_wish_read_begin(c->http_begin, &wish))
        return err_fail(ERR_CONFIG, "http-begin = \"%s\" is not deferred or immediate",
                        c->http_begin);
    if (c->http_url[0] == 0 && config_is_every_address(c->http_listen)) {
        char told[512];
        door_settings_url(c, told, sizeof told);
        log_warn("config",
                 "http-listen = \"%s\" is every address of this machine: others are told %s; set "
                 "http-url when clients reach it elsewhere",
                 c->http_listen, told);
    }
    return ERR_OK;
}

void door_settings_url(const struct config *c, char *out, size_t size)
{
    const char *host = c->http_listen, *port = strrchr(host, ':');
    out[0] = 0;
    if (c->http_url[0] != 0) {
        (void)snprintf(out, size, "%s", c->http_url);
    } else if (port != NULL) {
        if (config_is_every_address(host))
            host = c->advertise[0] != 0 ? c->advertise : c->listen;
        int n = (int)(strrchr(host, ':') - host);
        (void)snprintf(out, size, "http://%.*s%s", n, host, port);
    }
}
