/* Room: client.   Thread: any.   Owns: nothing.
 *
 * A wrong port is a common mistake: whoever made it is told whom they met. */
#include "client/link_greeting.h"

#include "client/wire.h"

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

/* Zero-terminated: as text when it is, else as hexadecimal digits. */
static void show(char out[3 * SHOWN + 1], const uint8_t *bytes, size_t n)
{
    size_t shown = n > SHOWN ? SHOWN : n, len = shown;
    while (len > 0 && (bytes[len - 1] == '\r' || bytes[len - 1] == '\n'))
        len--;
    out[0] = '\0';
    if (len > 0 && all_printable(bytes, len))
        (void)snprintf(out, 3 * SHOWN + 1, "%.*s", (int)len, (const char *)bytes);
    else
        for (size_t i = 0; i < shown; i++)
            (void)snprintf(out + 3 * i, 4, i + 1 < shown ? "%02x " : "%02x", bytes[i]);
}

bool greeting_may_follow(const uint8_t *bytes, size_t n)
{
    struct rd head = rd_of(bytes, n);
    if (n >= WIRE_LENGTH_BYTES) {
        uint32_t length = rd_u32(&head);
        if (length < WIRE_HEAD_BYTES || length > GREETING_MAX)
            return false;
    }
    return n <= WIRE_LENGTH_BYTES || bytes[WIRE_LENGTH_BYTES] == WIRE_WELCOME ||
           bytes[WIRE_LENGTH_BYTES] == WIRE_ERROR;
}

enum err greeting_of_stranger(const char *address, const uint8_t *bytes, size_t n)
{
    char shown[3 * SHOWN + 1];
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++)
        if (n >= strangers[i].len && memcmp(bytes, strangers[i].begin, strangers[i].len) == 0)
            return err_fail(ERR_PROTOCOL,
                            "what answers at %s is no Lectern server (its first bytes look like "
                            "%s)",
                            address, strangers[i].name);
    show(shown, bytes, n);
    return err_fail(ERR_PROTOCOL, "what answers at %s is no Lectern server (its first bytes: %s)",
                    address, shown);
}

enum err greeting_cut_short(const char *address, const uint8_t *bytes, size_t n, const char *then)
{
    char shown[3 * SHOWN + 1];
    show(shown, bytes, n);
    return err_fail(ERR_PROTOCOL,
                    "what answers at %s is no Lectern server (it said %s, and then %s)", address,
                    shown, then);
}
