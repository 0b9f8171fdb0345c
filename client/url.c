/* Room: client.   Thread: any.   Owns: nothing.
 *
 * The text comes from a program's user: whatever is not understood is refused by name, so that a
 * misspelt parameter is not a setting that silently does not hold.
 *
 * Not here: what an address means (resolve.c). */
#include "client/url.h"

#include "client/resolve.h"

#include <stdbool.h>
#include <string.h>

#define SCHEME  "lectern://"
#define BOUNDED "bounded:"

/* A part of the text. */
struct part {
    const char *p;
    size_t n;
};

#define SHOW(part) (int)((part).n > 100 ? 100 : (part).n), (part).p

static bool is(struct part a, const char *text)
{
    return a.n == strlen(text) && memcmp(a.p, text, a.n) == 0;
}

/* The part of REST up to the first BYTE, which is dropped; all of it when there is none. */
static struct part cut(struct part *rest, char byte)
{
    const char *at = memchr(rest->p, byte, rest->n);
    struct part first = {rest->p, at == NULL ? rest->n : (size_t)(at - rest->p)};
    size_t used = at == NULL ? rest->n : first.n + 1;
    rest->p += used;
    rest->n -= used;
    return first;
}

/* --- addresses -------------------------------------------------------------------------------- */

static enum err check_address(struct part a)
{
    if (a.n == 0)
        return err_fail(ERR_CONFIG, "an address is missing; write lectern://host:port,host:port");
    if (a.n >= URL_ADDRESS_MAX)
        return err_fail(ERR_CONFIG, "the address \"%.*s...\" is longer than %d bytes", SHOW(a),
                        URL_ADDRESS_MAX - 1);
    for (size_t i = 0; i < a.n; i++)
        if ((unsigned char)a.p[i] <= ' ' || strchr("@\"\\%", a.p[i]) != NULL)
            return err_fail(ERR_CONFIG, "\"%.*s\" is not an address; write host:port", SHOW(a));
    return ERR_OK;
}

static bool is_there(const struct url *u, const char *address)
{
    for (unsigned i = 0; i < u->n_addresses; i++)
        if (strcmp(u->addresses[i], address) == 0)
            return true;
    return false;
}

static enum err add_address(struct url *u, struct part a)
{
    char address[URL_ADDRESS_MAX];
    struct resolve_parts unused;
    TRY(check_address(a));
    memcpy(address, a.p, a.n);
    address[a.n] = '\0';
    TRY(resolve_split(address, &unused));
    if (is_there(u, address))
        return ERR_OK;
    if (u->n_addresses == URL_ADDRESSES_MAX)
        return err_fail(ERR_CONFIG, "more than %d addresses; the others are learnt from a few",
                        URL_ADDRESSES_MAX);
    memcpy(u->addresses[u->n_addresses++], address, sizeof address);
    return ERR_OK;
}

static enum err add_addresses(struct url *u, struct part list)
{
    do {
        bool more = memchr(list.p, ',', list.n) != NULL;
        TRY(add_address(u, cut(&list, ',')));
        if (!more)
            return ERR_OK;
    } while (true);
}

/* --- parameters ------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = NULL;
    if (c != '\0')
        at = strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
    return at == NULL ? -1 : (int)(at - digits);
}

/* VALUE without its escapes, at most ROOM - 1 bytes, and a zero. */
static enum err unescape(struct part key, struct part value, char *out, size_t room)
{
    size_t n = 0;
    for (size_t i = 0; i < value.n; i++) {
        int c = (unsigned char)value.p[i];
        if (c == '%') {
            int high = i + 2 < value.n ? hex_digit(value.p[i + 1]) : -1;
            int low = i + 2 < value.n ? hex_digit(value.p[i + 2]) : -1;
            if (high < 0 || low < 0)
                return err_fail(ERR_CONFIG, "%.*s=%.*s: write a percent sign as %%25", SHOW(key),
                                SHOW(value));
            c = high * 16 + low;
            i += 2;
        }
        if (c < ' ' || c == 0x7f)
            return err_fail(ERR_CONFIG, "%.*s=%.*s: a control character", SHOW(key), SHOW(value));
        if (n + 1 == room)
            return err_fail(ERR_CONFIG, "%.*s=%.*s is longer than %zu bytes", SHOW(key),
                            SHOW(value), room - 1);
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return ERR_OK;
}

static enum err number(struct part key, const char *text, uint64_t least, uint64_t *out)
{
    size_t n = strlen(text);
    bool fits = n > 0 && n <= 9 && strspn(text, "0123456789") == n;
    *out = 0;
    for (size_t i = 0; fits && i < n; i++)
        *out = *out * 10 + (uint64_t)(text[i] - '0');
    if (!fits || *out < least || *out > URL_TIMEOUT_MS_MAX)
        return err_fail(ERR_CONFIG, "%.*s: \"%s\" is not %llu to %u milliseconds", SHOW(key), text,
                        (unsigned long long)least, URL_TIMEOUT_MS_MAX);
    return ERR_OK;
}

static enum err set_level(struct url *u, struct part key, const char *value)
{
    static const struct {
        const char *name;
        enum wire_level level;
    } levels[] = {{"any", WIRE_ANY}, {"session", WIRE_SESSION}, {"strong", WIRE_STRONG}};
    u->bound_ms = 0;
    if (strncmp(value, BOUNDED, strlen(BOUNDED)) == 0) {
        uint64_t ms;
        TRY(number(key, value + strlen(BOUNDED), 0, &ms));
        u->level = WIRE_BOUNDED;
        u->bound_ms = (uint32_t)ms;
        return ERR_OK;
    }
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(value, levels[i].name) == 0) {
            u->level = levels[i].level;
            return ERR_OK;
        }
    }
    return err_fail(ERR_CONFIG, "read=%s: write any, bounded:MILLISECONDS, session or strong",
                    value);
}

static enum err set_parameter(struct url *u, struct part value)
{
    char text[URL_NAME_MAX];
    struct part key = cut(&value, '=');
    if (!is(key, "read") && !is(key, "timeout") && !is(key, "name"))
        return err_fail(ERR_CONFIG, "unknown parameter \"%.*s\"; there are read, timeout and name",
                        SHOW(key));
    TRY(unescape(key, value, text, sizeof text));
    if (is(key, "read"))
        return set_level(u, key, text);
    if (is(key, "timeout"))
        return number(key, text, 1, &u->timeout_ms);
    memcpy(u->name, text, sizeof text);
    return ERR_OK;
}

/* --- the whole -------------------------------------------------------------------------------- */

enum err url_parse(const char *text, struct url *out)
{
    struct part rest = {text, strlen(text)};
    *out = (struct url){.name = "liblectern", .level = WIRE_SESSION, .timeout_ms = URL_TIMEOUT_MS};
    if (rest.n >= strlen(SCHEME) && memcmp(text, SCHEME, strlen(SCHEME)) == 0) {
        rest.p += strlen(SCHEME);
        rest.n -= strlen(SCHEME);
    } else if (memmem(text, strcspn(text, "?"), "://", 3) != NULL) {
        return err_fail(ERR_CONFIG, "\"%.100s\" does not begin with " SCHEME, text);
    }
    struct part place = cut(&rest, '?'), parameters = rest;
    struct part addresses = cut(&place, '/'), database = place;
    TRY(add_addresses(out, addresses));
    if (database.n != 0 && !is(database, "main"))
        return err_fail(ERR_CONFIG, "there is no database \"%.*s\": a cluster has one, \"main\"",
                        SHOW(database));
    while (parameters.n > 0) {
        struct part one = cut(&parameters, '&');
        if (one.n > 0)
            TRY(set_parameter(out, one));
    }
    return ERR_OK;
}
