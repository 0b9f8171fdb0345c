/* Room: client.   Thread: any.   Owns: nothing.
 *
 * Invariants: every call takes at least one byte or ends the cell, so a caller's loop ends.
 *
 * Widths come from wcwidth(3): the shell sets a UTF-8 locale at its start (shell.c). */
#include "client/shell_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <wchar.h>

#define REPLACEMENT "\xef\xbf\xbd"
#define TAB_STOP    8

size_t text_char(const char *p, const char *end, unsigned *code)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char c = (unsigned char)*p;
    size_t n = c < 0x80 ? 1 : c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : 2;
    if (c < 0x80) {
        *code = c;
        return 1;
    }
    if (c < 0xc2 || c > 0xf4 || (size_t)(end - p) < n)
        return 0;
    unsigned v = c & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if (((unsigned char)p[i] & 0xc0) != 0x80)
            return 0;
        v = v << 6 | ((unsigned char)p[i] & 0x3f);
    }
    if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        return 0;
    *code = v;
    return n;
}

/* One character's shape on the terminal. */
struct shape {
    size_t bytes, width;
    const char *text; /* NULL: the bytes themselves */
    size_t text_len;
    char room[TAB_STOP];
};

static void shape_of(const char *p, const char *end, size_t at, struct shape *s)
{
    unsigned code = 0;
    *s = (struct shape){.bytes = text_char(p, end, &code), .width = 1};
    if (s->bytes == 0) {
        s->bytes = 1;
        s->text = REPLACEMENT;
        s->text_len = sizeof REPLACEMENT - 1;
    } else if (code == '\t') {
        s->width = s->text_len = TAB_STOP - at % TAB_STOP;
        for (size_t i = 0; i < s->width; i++)
            s->room[i] = ' ';
        s->text = s->room;
    } else if (code < ' ' || code == 0x7f) {
        s->room[0] = '^';
        s->room[1] = (char)(code ^ 0x40);
        s->text = s->room;
        s->width = s->text_len = 2;
    } else if (code >= 0x80) {
        int w = wcwidth((wchar_t)code);
        if (code < 0xa0) { /* the other control characters: terminals obey them too */
            s->text = REPLACEMENT;
            s->text_len = sizeof REPLACEMENT - 1;
        } else if (w >= 0) {
            s->width = (size_t)w;
        }
    }
}

size_t text_line(const char **p, const char *end, size_t max_width, struct buf *out)
{
    const char *at = *p;
    size_t width = 0;
    while (at < end && *at != '\n' && *at != '\r') {
        struct shape s;
        shape_of(at, end, width, &s);
        if (max_width != 0 && width > 0 && width + s.width > max_width) {
            *p = at;
            return width;
        }
        buf_put(out, s.text != NULL ? s.text : at, s.text != NULL ? s.text_len : s.bytes);
        width += s.width;
        at += s.bytes;
    }
    if (at < end && *at == '\r')
        at++;
    if (at < end && *at == '\n')
        at++;
    *p = at < end ? at : NULL;
    return width;
}
