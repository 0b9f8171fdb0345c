/* Room: tests. node/http/base64: what drivers send, and nothing else. */
#include "base/buf.h"
#include "base/rng.h"
#include "node/http/base64.h"
#include "node/http/json_write.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

static bool decodes_to(const char *text, const char *bytes, size_t n)
{
    size_t len = strlen(text), got = 99;
    char *copy = malloc(len + 1), *out = malloc(BASE64_ROOM(len));
    memcpy(copy, text, len); /* without the zero: a read beyond is seen */
    copy = realloc(copy, len == 0 ? 1 : len);
    bool ok = base64_decode(copy, len, out, &got) && got == n && memcmp(out, bytes, n) == 0;
    free(copy);
    free(out);
    return ok;
}

static bool is_refused(const char *text)
{
    char out[64];
    size_t n;
    return !base64_decode(text, strlen(text), out, &n);
}

TEST(base64_takes_padding_or_none)
{
    EXPECT(decodes_to("", "", 0));
    EXPECT(decodes_to("Zg==", "f", 1) && decodes_to("Zg", "f", 1) && decodes_to("Zg=", "f", 1));
    EXPECT(decodes_to("Zm8=", "fo", 2) && decodes_to("Zm8", "fo", 2));
    EXPECT(decodes_to("Zm9v", "foo", 3) && decodes_to("Zm9vYg==", "foob", 4));
    EXPECT(decodes_to("AQIDBA", "\1\2\3\4", 4)); /* the Rust core's */
    EXPECT(decodes_to("+/+/", "\xfb\xff\xbf", 3));
    EXPECT(decodes_to("AAAA", "\0\0\0", 3));
}

TEST(base64_refuses_what_no_bytes_have)
{
    static const char *const wrong[] = {
        "A",    "A=",    "AAAAA", "Zm9v!", "Zm9",  "Zh==",      "Zm9v ",      " Zm9v", "Z\nm9v",
        "-_-_", "Zg===", "====",  "Zm=v",  "=Zm9", "Zm9v=Zm9v", "\303\244AA", "AB"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (!is_refused(wrong[i]))
            test_fail(__FILE__, __LINE__, "\"%s\" is taken", wrong[i]);
}

TEST(base64_reads_what_json_base64_writes)
{
    struct rng rng = {test_seed()};
    uint8_t bytes[100], back[200];
    for (uint64_t round = test_rounds(2000); round > 0; round--) {
        struct buf b;
        size_t n = rng_below(&rng, sizeof bytes), got;
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)rng_u64(&rng);
        buf_init(&b, 1000);
        struct json_writer j = json_writer_of(&b);
        json_base64(&j, bytes, n);
        EXPECT(base64_decode((const char *)b.data + 1, b.len - 2, back, &got));
        EXPECT(got == n && memcmp(bytes, back, n) == 0);
        buf_fini(&b);
    }
}
