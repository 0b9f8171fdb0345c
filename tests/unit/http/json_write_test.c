/* Room: tests. node/http/json_write, read back by node/http/json_read. */
#include "base/rng.h"
#include "node/http/json_read.h"
#include "node/http/json_write.h"
#include "tests/lib/test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void expect_text(struct buf *b, const char *wanted)
{
    EXPECT_OK(buf_status(b));
    if (b->len != strlen(wanted) || memcmp(b->data, wanted, b->len) != 0)
        test_fail(__FILE__, __LINE__, "%.*s, not %s", (int)b->len, (char *)b->data, wanted);
    buf_reset(b);
}

TEST(json_writes_what_it_is_told)
{
    struct buf b;
    buf_init(&b, 1000);
    struct json_writer j = json_writer_of(&b);
    json_begin_object(&j);
    json_key(&j, "a");
    json_begin_array(&j);
    json_int(&j, INT64_MIN);
    json_uint(&j, UINT64_MAX);
    json_int_text(&j, -1);
    json_uint_text(&j, 0);
    json_begin_array(&j);
    json_end_array(&j);
    json_bool(&j, true);
    json_bool(&j, false);
    json_end_array(&j);
    json_key(&j, "b");
    json_null(&j);
    json_end_object(&j);
    expect_text(&b, "{\"a\":[-9223372036854775808,18446744073709551615,\"-1\",\"0\",[],true,"
                    "false],\"b\":null}");
    j = json_writer_of(&b);
    json_text(&j, "a\"\\\b\t\n\v\f\r\0\x7f\xff\xc3\xa4\xc3", 15);
    expect_text(&b,
                "\"a\\\"\\\\\\b\\t\\n\\u000b\\f\\r\\u0000\x7f\xef\xbf\xbd\xc3\xa4\xef\xbf\xbd\"");
    static const char *const base64[] = {
        "\"\"",       "\"Zg\"",      "\"Zm8\"",     "\"Zm9v\"",
        "\"Zm9vYg\"", "\"Zm9vYmE\"", "\"Zm9vYmFy\""}; /* RFC 4648, section 10 */
    for (size_t n = 0; n <= 6; n++) {
        j = json_writer_of(&b);
        json_base64(&j, "foobar", n);
        expect_text(&b, base64[n]);
    }
    buf_fini(&b);
}

/* Writes V, reads it, and wants the same bits. */
static void expect_same(double v)
{
    struct buf b;
    struct arena a;
    const struct json *root = NULL;
    double back = 0;
    buf_init(&b, 100);
    arena_init(&a, 1000);
    struct json_writer j = json_writer_of(&b);
    json_real(&j, v);
    struct json_reader *r = json_reader_new(&a);
    EXPECT_OK(json_feed(r, b.data, b.len));
    EXPECT_OK(json_end(r, &root));
    EXPECT(json_double(root, &back) && memcmp(&back, &v, sizeof v) == 0);
    json_reader_free(r);
    arena_fini(&a);
    buf_fini(&b);
}

TEST(json_reals_come_back_as_they_were)
{
    static const double some[] = {0,       -0.0,          0.1,    1e22,     1e-7,
                                  DBL_MAX, DBL_MIN,       5e-324, INFINITY, -INFINITY,
                                  1.0 / 3, 123456789.125, 1e15,   1.5e300,  -2.5};
    struct rng rng = {test_seed()};
    struct buf b;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        expect_same(some[i]);
    for (uint64_t i = 0; i < test_rounds(20000); i++) {
        uint64_t bits = rng_u64(&rng);
        double v;
        memcpy(&v, &bits, sizeof v);
        if (!isnan(v))
            expect_same(v);
    }
    buf_init(&b, 100);
    struct json_writer j = json_writer_of(&b);
    json_real(&j, NAN);
    expect_text(&b, "null");
    j = json_writer_of(&b);
    json_real(&j, 0.1);
    expect_text(&b, "0.1");
    j = json_writer_of(&b);
    json_real(&j, -0.0);
    expect_text(&b, "-0.0");
    buf_fini(&b);
}

TEST(json_text_of_any_bytes_can_be_read)
{
    struct rng rng = {test_seed()};
    for (uint64_t round = 0; round < test_rounds(20000); round++) {
        char text[40];
        struct buf b;
        struct arena a;
        const struct json *root = NULL;
        size_t n = rng_below(&rng, sizeof text);
        for (size_t i = 0; i < n; i++)
            text[i] = (char)rng_u64(&rng);
        buf_init(&b, 1000);
        arena_init(&a, 10000);
        struct json_writer j = json_writer_of(&b);
        json_text(&j, text, n);
        struct json_reader *r = json_reader_new(&a);
        EXPECT_OK(json_feed(r, b.data, b.len));
        EXPECT_OK(json_end(r, &root));
        EXPECT(json_is(root, JSON_STRING));
        json_reader_free(r);
        arena_fini(&a);
        buf_fini(&b);
    }
}
