/* Room: tests. base/utf8 against RFC 3629's definition, over every sequence that can matter. */
#include "base/utf8.h"
#include "tests/lib/test.h"

#include <stdint.h>
#include <string.h>

/* The definition, forwards: every code point's own form. */
static size_t encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3f));
    out[0] = (uint8_t)(first[n] | c);
    return n;
}

TEST(utf8_takes_all_characters_and_nothing_else)
{
    static uint8_t known[0x10000]; /* by the first two bytes: can a character begin so? */
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        uint8_t p[4];
        size_t n = encode(c, p);
        bool surrogate = c >= 0xd800 && c <= 0xdfff;
        EXPECT(utf8_length(p, n) == (surrogate ? 0 : n));
        EXPECT(n == 1 || utf8_length(p, n - 1) == 0); /* cut short */
        if (n > 1 && !surrogate)
            known[p[0] << 8 | p[1]] = 1;
    }
    for (uint32_t two = 0x8000; two < 0x10000; two++) {
        const uint8_t p[4] = {(uint8_t)(two >> 8), (uint8_t)two, 0x80, 0x80};
        EXPECT((utf8_length(p, sizeof p) != 0) == known[two]);
    }
}

TEST(utf8_span_ends_where_it_is_wrong)
{
    uint8_t text[64];
    for (size_t bad = 0; bad < sizeof text; bad++) {
        memset(text, 'a', sizeof text);
        text[bad] = 0xff;
        EXPECT_EQ(utf8_span(text, sizeof text), bad);
        EXPECT(!utf8_valid(text, sizeof text) && utf8_valid(text, bad));
    }
}
