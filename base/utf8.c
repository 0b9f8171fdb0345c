/* Room: base.   Thread: any. The table of RFC 3629, section 4, as comparisons. */
#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

static bool continues(uint8_t c)
{
    return (c & 0xc0) == 0x80;
}

/* Is C the second byte of a character that begins with FIRST? The others are only continuations. */
static bool second_fits(uint8_t first, uint8_t c)
{
    switch (first) {
    case 0xe0: /* below: overlong */
        return c >= 0xa0 && c <= 0xbf;
    case 0xed: /* above: surrogates */
        return c >= 0x80 && c <= 0x9f;
    case 0xf0:
        return c >= 0x90 && c <= 0xbf;
    case 0xf4: /* above: beyond U+10FFFF */
        return c >= 0x80 && c <= 0x8f;
    default:
        return continues(c);
    }
}

size_t utf8_length(const void *p, size_t n)
{
    const uint8_t *c = p;
    size_t length;
    if (c[0] < 0x80)
        return 1;
    if (c[0] >= 0xc2 && c[0] <= 0xdf)
        length = 2;
    else if (c[0] >= 0xe0 && c[0] <= 0xef)
        length = 3;
    else if (c[0] >= 0xf0 && c[0] <= 0xf4)
        length = 4;
    else
        return 0;
    if (n < length || !second_fits(c[0], c[1]))
        return 0;
    for (size_t i = 2; i < length; i++)
        if (!continues(c[i]))
            return 0;
    return length;
}

size_t utf8_span(const void *p, size_t n)
{
    const uint8_t *c = p;
    size_t at = 0;
    while (at < n) {
        uint64_t eight;
        if (n - at >= sizeof eight) { /* most text is ASCII */
            memcpy(&eight, c + at, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        size_t length = utf8_length(c + at, n - at);
        if (length == 0)
            break;
        at += length;
    }
    return at;
}

bool utf8_valid(const void *p, size_t n)
{
    return utf8_span(p, n) == n;
}
