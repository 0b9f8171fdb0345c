/* Room: node/http.   Thread: any.   Owns: nothing.
 * Invariants: what is taken has one spelling, but for its padding.
 * Not here: writing (json_write.c), the URL-safe alphabet (no driver sends it). */
#include "node/http/base64.h"

#include <stdint.h>

/* 0 to 63, or 64: not of the alphabet. */
static uint32_t digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* The last group of 2 or 3 characters: 1 or 2 bytes, and the bits behind them zero. */
static bool last_group(const char *p, size_t n, uint8_t *out)
{
    uint32_t v = 0, used = n == 2 ? 8 : 16;
    for (size_t i = 0; i < n; i++) {
        uint32_t d = digit(p[i]);
        if (d == 64)
            return false;
        v |= d << (18 - 6 * i);
    }
    out[0] = (uint8_t)(v >> 16);
    if (n == 3)
        out[1] = (uint8_t)(v >> 8);
    return (v & (0xffffffu >> used)) == 0;
}

bool base64_decode(const char *p, size_t n, void *out, size_t *out_len)
{
    uint8_t *to = out;
    for (int i = 0; i < 2 && n > 0 && p[n - 1] == '='; i++)
        n--;
    size_t left = n % 4;
    if (left == 1)
        return false;
    for (; n > left; n -= 4, p += 4) {
        uint32_t a = digit(p[0]), b = digit(p[1]), c = digit(p[2]), d = digit(p[3]);
        if (((a | b | c | d) & 64) != 0)
            return false;
        uint32_t v = a << 18 | b << 12 | c << 6 | d;
        *to++ = (uint8_t)(v >> 16);
        *to++ = (uint8_t)(v >> 8);
        *to++ = (uint8_t)v;
    }
    if (left > 0 && !last_group(p, left, to))
        return false;
    to += left > 0 ? left - 1 : 0;
    *out_len = (size_t)(to - (uint8_t *)out);
    return true;
}
