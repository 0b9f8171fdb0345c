/* Room: client.   Thread: any.   Owns: nothing.
 *
 * A wrong port is a common mistake: whoever made it is told whom they met. */
#include "client/link_greeting.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define SHOWN 32 /* bytes */

static const struct {
    const char *begin, *name;
    size_t len;
} strangers[] = {
    {"HTTP/", "HTTP", 5},
    {"SSH-", "SSH", 4},
    {"220", "a mail or FTP server", 3},
    {"\x15\x03", "TLS", 2},
    {"-ERR", "Redis, or a mail server", 4},
    {"<!", "HTML", 2},
};

static bool all_printable(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] < ' ' || p[i] > '~')
            return false;
    return true;
}

enum err greeting_of_stranger(const char *address, const uint8_t *bytes, size_t n)
{
    char shown[3 * SHOWN + 1] = "";
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++)
        if (n >= strangers[i].len && memcmp(bytes, strangers[i].begin, strangers[i].len) == 0)
            return err_fail(ERR_PROTOCOL,
                            "what answers at %s is no Lectern server (its first bytes look like "
                            "%s)",
                            address, strangers[i].name);
    if (n > SHOWN)
        n = SHOWN;
    if (all_printable(bytes, n))
        (void)snprintf(shown, sizeof shown, "%.*s", (int)n, (const char *)bytes);
    else
        for (size_t i = 0; i < n; i++)
            (void)snprintf(shown + 3 * i, sizeof shown - 3 * i, "%02x ", bytes[i]);
    return err_fail(ERR_PROTOCOL, "what answers at %s is no Lectern server (its first bytes: %s)",
                    address, shown);
}
