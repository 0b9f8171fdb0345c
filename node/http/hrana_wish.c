/* Room: node/http.   Thread: loop.   Owns: nothing. */
#include "node/http/hrana_wish.h"

#include "base/check.h"
#include "node/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The header HEADER, or the parameter PARAM. */
static bool find(const struct exchange *x, const char *header, const char *param, char *out,
                 size_t size) ON_LOOP
{
    const char *value = exchange_header(x, header);
    if (value == NULL)
        return exchange_param(x, param, out, size);
    if (snprintf(out, size, "%s", value) >= (int)size)
        out[0] = 0; /* too long to be any */
    return true;
}

static bool read_ms(const char *text, uint32_t *out)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != 0 || errno != 0 || n > HRANA_WISH_MS_MAX)
        return false;
    *out = (uint32_t)n;
    return true;
}

bool hrana_wish_read_level(const char *text, struct hrana_wish *out)
{
    out->bound_ms = 0;
    if (strcmp(text, "any") == 0)
        out->level = WIRE_ANY;
    else if (strcmp(text, "session") == 0)
        out->level = WIRE_SESSION;
    else if (strcmp(text, "strong") == 0)
        out->level = WIRE_STRONG;
    else if (strncmp(text, "bounded:", 8) == 0 && read_ms(text + 8, &out->bound_ms))
        out->level = WIRE_BOUNDED;
    else
        return false;
    return true;
}

bool hrana_wish_read_begin(const char *text, struct hrana_wish *out)
{
    out->begin_immediate = strcmp(text, "immediate") == 0;
    return out->begin_immediate || strcmp(text, "deferred") == 0;
}

enum err hrana_wish_of(const struct exchange *x, struct hrana_wish *out)
{
    char text[64];
    *out = (struct hrana_wish){.level = WIRE_SESSION};
    bool known = hrana_wish_read_level(x->node->config->http_read, out) &&
                 hrana_wish_read_begin(x->node->config->http_begin, out);
    CHECK(known); /* door_settings.c */
    if (find(x, "lectern-read", "read", text, sizeof text) && !hrana_wish_read_level(text, out))
        return err_fail(ERR_PROTOCOL, "lectern-read (or ?read=) is any, bounded:MILLISECONDS, "
                                      "session or strong");
    if (find(x, "lectern-begin", "begin", text, sizeof text) && !hrana_wish_read_begin(text, out))
        return err_fail(ERR_PROTOCOL, "lectern-begin (or ?begin=) is deferred or immediate");
    if (find(x, "lectern-timeout", "timeout", text, sizeof text) &&
        !read_ms(text, &out->timeout_ms))
        return err_fail(
            ERR_PROTOCOL,
            "lectern-timeout (or ?timeout=) is a number of milliseconds, a day at most");
    return ERR_OK;
}
