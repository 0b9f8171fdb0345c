/* Room: node/http.   Thread: any, one at a time.   Owns: nothing.
 * Invariants: what was appended is UTF-8 and, when all that was begun is ended, one JSON value.
 * Not here: a full buffer (buf_status tells at the end), and reading (json_read.c). */
#include "node/http/json_write.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_writer json_writer_of(struct buf *out)
{
    return (struct json_writer){.out = out};
}

static void put(struct json_writer *j, const char *text, size_t n)
{
    if (j->comma)
        buf_put_u8(j->out, ',');
    buf_put(j->out, text, n);
    j->comma = true;
}

static void open(struct json_writer *j, const char *bracket)
{
    put(j, bracket, 1);
    j->comma = false;
}

static void close(struct json_writer *j, char bracket)
{
    buf_put_u8(j->out, (uint8_t)bracket);
    j->comma = true;
}

void json_begin_object(struct json_writer *j)
{
    open(j, "{");
}

void json_end_object(struct json_writer *j)
{
    close(j, '}');
}

void json_begin_array(struct json_writer *j)
{
    open(j, "[");
}

void json_end_array(struct json_writer *j)
{
    close(j, ']');
}

void json_key(struct json_writer *j, const char *key)
{
    put(j, "\"", 1);
    buf_put(j->out, key, strlen(key));
    buf_put(j->out, "\":", 2);
    j->comma = false;
}

void json_null(struct json_writer *j)
{
    put(j, "null", 4);
}

void json_bool(struct json_writer *j, bool v)
{
    put(j, v ? "true" : "false", v ? 4 : 5);
}

/* The digits of V at the end of ROOM: faster than printf, which a result calls for each value. */
static char *digits(uint64_t v, char room[32])
{
    char *p = room + 32;
    do {
        *--p = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return p;
}

static char *signed_digits(int64_t v, char room[32])
{
    char *p = digits(v < 0 ? 0 - (uint64_t)v : (uint64_t)v, room);
    if (v < 0)
        *--p = '-';
    return p;
}

static void put_number(struct json_writer *j, char room[32], char *p, bool as_text)
{
    size_t n = (size_t)(room + 32 - p);
    if (as_text)
        put(j, "\"", 1);
    if (as_text)
        buf_put(j->out, p, n);
    else
        put(j, p, n);
    if (as_text)
        buf_put_u8(j->out, '"');
}

void json_int(struct json_writer *j, int64_t v)
{
    char room[32];
    put_number(j, room, signed_digits(v, room), false);
}

void json_uint(struct json_writer *j, uint64_t v)
{
    char room[32];
    put_number(j, room, digits(v, room), false);
}

void json_int_text(struct json_writer *j, int64_t v)
{
    char room[32];
    put_number(j, room, signed_digits(v, room), true);
}

void json_uint_text(struct json_writer *j, uint64_t v)
{
    char room[32];
    put_number(j, room, digits(v, room), true);
}

void json_real(struct json_writer *j, double v)
{
    char text[40];
    if (isnan(v)) {
        json_null(j);
        return;
    }
    if (isinf(v)) {
        put(j, v < 0 ? "-1e999" : "1e999", v < 0 ? 6 : 5);
        return;
    }
    if (v == 0 && signbit(v)) { /* -0 is an integer to many, and 0 */
        put(j, "-0.0", 4);
        return;
    }
    int n = 0;
    for (int digits_wanted = 15; digits_wanted <= 17; digits_wanted++) {
        n = snprintf(text, sizeof text, "%.*g", digits_wanted, v);
        double back = strtod(text, NULL);
        if (memcmp(&back, &v, sizeof v) == 0)
            break;
    }
    put(j, text, (size_t)n);
}

/* The characters that JSON wants escaped: quote, backslash, and below blank. */
static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

static void put_escaped(struct buf *out, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    static const char letters[] = "btn\0fr"; /* of 8 to 13 */
    if (c == '"' || c == '\\') {
        const uint8_t two[] = {'\\', c};
        buf_put(out, two, sizeof two);
    } else if (c >= 8 && c <= 13 && letters[c - 8] != 0) {
        const uint8_t two[] = {'\\', (uint8_t)letters[c - 8]};
        buf_put(out, two, sizeof two);
    } else {
        const uint8_t six[] = {'\\', 'u', '0', '0', (uint8_t)hex[c >> 4], (uint8_t)hex[c & 15]};
        buf_put(out, six, sizeof six);
    }
}

void json_text(struct json_writer *j, const char *p, size_t n)
{
    const uint8_t *c = (const uint8_t *)p;
    size_t at = 0;
    put(j, "\"", 1);
    while (at < n) {
        size_t good = utf8_span(c + at, n - at), end = at + good;
        while (at < end) {
            size_t run = at;
            while (run < end && is_plain(c[run]))
                run++;
            buf_put(j->out, c + at, run - at);
            if (run < end)
                put_escaped(j->out, c[run++]);
            at = run;
        }
        if (at < n) {
            buf_put(j->out, "\xef\xbf\xbd", 3); /* U+FFFD, for one byte */
            at++;
        }
    }
    buf_put_u8(j->out, '"');
}

void json_cstr(struct json_writer *j, const char *text)
{
    json_text(j, text, strlen(text));
}

void json_base64(struct json_writer *j, const void *p, size_t n)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = p;
    put(j, "\"", 1);
    uint8_t *out = buf_extend(j->out, (n * 4 + 2) / 3);
    for (size_t i = 0; out != NULL && i < n; i += 3) {
        size_t left = n - i < 3 ? n - i : 3;
        uint32_t v = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                     (left > 2 ? in[i + 2] : 0);
        for (size_t k = 0; k <= left; k++)
            *out++ = (uint8_t)alphabet[v >> (18 - 6 * k) & 63];
    }
    buf_put_u8(j->out, '"');
}
