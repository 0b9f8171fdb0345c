/* Room: tests. node/http/protobuf_read and protobuf_write: the encoding, both ways. */
#include "base/rng.h"
#include "base/sizes.h"
#include "node/http/protobuf_read.h"
#include "node/http/protobuf_write.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

static void expect_bytes(int line, struct buf *b, const void *wanted, size_t n)
{
    EXPECT_OK(buf_status(b));
    if (b->len != n || memcmp(b->data, wanted, n) != 0) {
        char found[200] = "";
        for (size_t i = 0; i < b->len && i < 60; i++)
            (void)snprintf(found + 3 * i, sizeof found - 3 * i, " %02x", b->data[i]);
        test_fail(__FILE__, line, "%zu bytes:%s", b->len, found);
    }
    buf_reset(b);
}

#define EXPECT_BYTES(b, wanted) expect_bytes(__LINE__, b, wanted, sizeof(wanted) - 1)

static uint32_t work;

static struct protobuf whole_of(const void *p, size_t n)
{
    work = PROTOBUF_WORK_MAX;
    return protobuf_of(p, n, &work);
}

/* --- writing --- */

TEST(protobuf_writes_values)
{
    struct buf b;
    buf_init(&b, KIB(64));
    protobuf_put_uint(&b, 1, 0);
    protobuf_put_uint(&b, 1, 150);
    EXPECT_BYTES(&b, "\x08\x00\x08\x96\x01"); /* the manual's example */
    protobuf_put_uint(&b, 16, UINT64_MAX);
    EXPECT_BYTES(&b, "\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    protobuf_put_int32(&b, 1, -2);
    EXPECT_BYTES(&b, "\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    protobuf_put_sint(&b, 2, -1);
    protobuf_put_sint(&b, 2, 1);
    protobuf_put_sint(&b, 2, INT64_MIN);
    EXPECT_BYTES(&b, "\x10\x01\x10\x02\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    protobuf_put_double(&b, 3, 1.5);
    EXPECT_BYTES(&b, "\x19\0\0\0\0\0\0\xf8\x3f");
    protobuf_put_bytes(&b, 5, NULL, 0);
    protobuf_put_bytes(&b, 5, "\xff\0", 2);
    EXPECT_BYTES(&b, "\x2a\0\x2a\x02\xff\0");
    protobuf_put_cstr(&b, 4, "\xc3\xa4");
    EXPECT_BYTES(&b, "\x22\x02\xc3\xa4");
    protobuf_put_cstr(&b, 4, "a\xff\xfeg\xc3");
    EXPECT_BYTES(&b, "\x22\x0b"
                     "a\xef\xbf\xbd\xef\xbf\xbdg\xef\xbf\xbd");
    buf_fini(&b);
}

/* A length is as short as it can be, whatever it is, also within others. */
TEST(protobuf_writes_lengths)
{
    static const size_t sizes[] = {0, 1, 126, 127, 128, 129, 16381, 16383, 16384, 2097151, 2097152};
    struct buf b;
    uint8_t *bytes = malloc(MIB(3));
    buf_init(&b, MIB(8));
    for (size_t i = 0; i < MIB(3); i++)
        bytes[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct protobuf m, inner;
        struct hrana_text text;
        uint64_t v;
        buf_reset(&b);
        buf_put_u8(&b, 'x');
        size_t outer = protobuf_begin(&b, 3), message = protobuf_begin(&b, 1);
        protobuf_put_bytes(&b, 2, bytes, sizes[i]);
        protobuf_end(&b, message);
        protobuf_put_uint(&b, 4, sizes[i]);
        protobuf_end(&b, outer);
        EXPECT(b.data[0] == 'x');
        m = whole_of(b.data + 1, b.len - 1);
        EXPECT(protobuf_next(&m) && m.tag == 3);
        EXPECT_OK(protobuf_message(&m, "a", &inner));
        EXPECT(protobuf_next(&inner) && inner.tag == 1);
        struct protobuf innermost;
        EXPECT_OK(protobuf_message(&inner, "b", &innermost));
        EXPECT(protobuf_next(&innermost) && innermost.tag == 2);
        EXPECT_OK(protobuf_bytes(&innermost, "c", &text));
        EXPECT(text.n == sizes[i] && memcmp(text.p, bytes, sizes[i]) == 0);
        EXPECT(!protobuf_next(&innermost) && innermost.status == ERR_OK);
        EXPECT(protobuf_next(&inner) && inner.tag == 4);
        EXPECT_OK(protobuf_uint64(&inner, "d", &v));
        EXPECT(v == sizes[i] && !protobuf_next(&inner) && !protobuf_next(&m));
        /* 3 tags and 3 lengths, a number, its tag. */
        size_t heads = b.len - 1 - sizes[i];
        EXPECT(sizes[i] < 118 ? heads == 8 : heads > 8);
    }
    buf_reset(&b);
    size_t apart = protobuf_begin(&b, 0);
    protobuf_put_bytes(&b, 1, "a", 1);
    protobuf_end(&b, apart);
    EXPECT_BYTES(&b, "\x03\x0a\x01"
                     "a");
    free(bytes);
    buf_fini(&b);
}

/* At every size of the buffer: all of it, or a mark and no byte too many. */
TEST(protobuf_writes_no_more_than_fits)
{
    bool whole = false;
    for (size_t max = 0; max < 320; max++) {
        struct buf b;
        buf_init(&b, max);
        size_t outer = protobuf_begin(&b, 1), inner = protobuf_begin(&b, 2);
        for (int i = 0; i < 20; i++) {
            protobuf_put_cstr(&b, 3, "abcdefg\xff");
            protobuf_put_sint(&b, 4, -100);
        }
        protobuf_end(&b, inner);
        protobuf_end(&b, outer);
        EXPECT(b.len <= max && (b.failed == ERR_OK || b.failed == ERR_TOO_BIG));
        EXPECT(!whole || b.failed == ERR_OK);
        whole = b.failed == ERR_OK;
        buf_fini(&b);
    }
    EXPECT(whole);
}

/* --- reading --- */

static struct protobuf first_of(const void *p, size_t n)
{
    struct protobuf m = whole_of(p, n);
    EXPECT(protobuf_next(&m));
    return m;
}

#define FIRST(bytes) first_of(bytes, sizeof(bytes) - 1)

TEST(protobuf_reads_values)
{
    struct hrana_text text;
    int32_t i32;
    uint32_t u32;
    uint64_t u64;
    int64_t i64;
    double real;
    bool truth;
    struct protobuf m = FIRST("\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    EXPECT_OK(protobuf_int32(&m, "a", &i32));
    EXPECT(i32 == -2);
    m = FIRST("\x08\xfe\xff\xff\xff\x0f"); /* as the TypeScript client writes it */
    EXPECT_OK(protobuf_int32(&m, "a", &i32));
    EXPECT(i32 == -2);
    m = FIRST("\x08\x96\x81\x80\x00"); /* longer than it must be */
    EXPECT_OK(protobuf_uint32(&m, "a", &u32));
    EXPECT(u32 == 150);
    m = FIRST("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    EXPECT_OK(protobuf_uint64(&m, "a", &u64));
    EXPECT(u64 == UINT64_MAX);
    m = FIRST("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    EXPECT_OK(protobuf_sint64(&m, "a", &i64));
    EXPECT(i64 == INT64_MIN);
    m = FIRST("\x09\0\0\0\0\0\0\xf8\xbf");
    EXPECT_OK(protobuf_double(&m, "a", &real));
    EXPECT(real == -1.5);
    m = FIRST("\x08\x02");
    EXPECT_OK(protobuf_bool(&m, "a", &truth));
    EXPECT(truth);
    m = FIRST("\x0a\x03"
              "a\0b");
    EXPECT_OK(protobuf_text(&m, "a", &text));
    EXPECT(text.n == 3 && memcmp(text.p, "a\0b", 3) == 0);
    m = FIRST("\x0a\x00");
    EXPECT_OK(protobuf_bytes(&m, "a", &text));
    EXPECT(text.n == 0 && text.p != NULL);
    m = whole_of(NULL, 0);
    EXPECT(!protobuf_next(&m) && m.status == ERR_OK);
}

TEST(protobuf_passes_over_what_nobody_takes)
{
    static const char bytes[] = "\x08\x96\x01"          /* 1: a number */
                                "\x12\x02\x08\x01"      /* 2: bytes */
                                "\x19\1\2\3\4\5\6\7\10" /* 3: 64 bits */
                                "\x25\1\2\3\4"          /* 4: 32 bits */
                                "\x12\x00"              /* 2, empty */
                                "\xf8\xff\xff\xff\x0f\x07";
    struct protobuf m = whole_of(bytes, sizeof bytes - 1);
    static const uint32_t tags[] = {1, 2, 3, 4, 2, 0x1fffffff};
    EXPECT(protobuf_count(&m, 2) == 2 && protobuf_count(&m, 9) == 0);
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        EXPECT(protobuf_next(&m) && m.tag == tags[i]);
    EXPECT(!protobuf_next(&m) && m.status == ERR_OK && m.tag == 0);
    EXPECT(!protobuf_next(&m));
}

static void expect_broken(int line, const char *bytes, size_t n, const char *why)
{
    struct protobuf m = whole_of(bytes, n);
    while (protobuf_next(&m))
        ;
    if (m.status != ERR_PROTOCOL || strstr(err_text(), why) == NULL)
        test_fail(__FILE__, line, "%s", err_text());
}

#define EXPECT_BROKEN(bytes, why) expect_broken(__LINE__, bytes, sizeof(bytes) - 1, why)

TEST(protobuf_refuses_what_is_broken)
{
    struct hrana_text text;
    struct protobuf inner;
    uint32_t u32;
    uint64_t u64;
    EXPECT_BROKEN("\x08", "the message: field 1 is broken");
    EXPECT_BROKEN("\x08\xff", "field 1 is broken");
    EXPECT_BROKEN("\x88", "ends within the tag");
    EXPECT_BROKEN("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "the tag of a field");
    EXPECT_BROKEN("\x00", "tag 0");
    EXPECT_BROKEN("\x0a\x02\x01", "field 1 is broken");
    EXPECT_BROKEN("\x0a\xff\xff\xff\xff\x0f", "field 1 is broken");
    EXPECT_BROKEN("\x09\1\2\3\4\5\6\7", "field 1 is broken");
    EXPECT_BROKEN("\x0d\1\2\3", "field 1 is broken");
    EXPECT_BROKEN("\x0b\x0c", "field 1 is broken"); /* a group */
    EXPECT_BROKEN("\x0e", "field 1 is broken");
    struct protobuf m = FIRST("\x08\x80\x80\x80\x80\x10");
    EXPECT_ERR(ERR_PROTOCOL, protobuf_uint32(&m, "a", &u32));
    EXPECT(strcmp(err_text(), "a: cannot be read (varint overflow)") == 0);
    m = FIRST("\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02");
    EXPECT_ERR(ERR_PROTOCOL, protobuf_uint64(&m, "a", &u64));
    m = FIRST("\x0a\x01\xff");
    EXPECT_ERR(ERR_PROTOCOL, protobuf_text(&m, "a", &text));
    EXPECT(strcmp(err_text(), "a: must be UTF-8") == 0);
    m = FIRST("\x08\x01");
    EXPECT_ERR(ERR_PROTOCOL, protobuf_bytes(&m, "a", &text));
    EXPECT(strcmp(err_text(), "a: has the wire type 0, and must have 2") == 0);
    m = FIRST("\x0a\x00\x0a\x00");
    EXPECT_OK(protobuf_message(&m, "a", &inner));
    EXPECT(protobuf_next(&m));
    EXPECT_ERR(ERR_PROTOCOL, protobuf_message(&m, "a", &inner));
    EXPECT(strcmp(err_text(), "a: comes twice") == 0);
}

/* Messages within messages end; the sentence says where, as far as it has room. */
TEST(protobuf_bounds_the_depth)
{
    struct protobuf all[PROTOBUF_DEPTH_MAX + 2];
    struct buf b, more;
    buf_init(&b, KIB(4));
    buf_init(&more, KIB(4));
    for (uint32_t i = 0; i <= PROTOBUF_DEPTH_MAX; i++) {
        buf_reset(&more);
        protobuf_put_bytes(&more, 1, b.data, b.len);
        struct buf swap = b;
        b = more;
        more = swap;
    }
    all[0] = whole_of(b.data, b.len);
    for (uint32_t i = 0; i <= PROTOBUF_DEPTH_MAX; i++) {
        EXPECT(protobuf_next(&all[i]));
        enum err e = protobuf_item(&all[i], "inner", i, &all[i + 1]);
        EXPECT_ERR(i + 1 < PROTOBUF_DEPTH_MAX ? ERR_OK : ERR_TOO_BIG, e);
        if (e != ERR_OK)
            break;
    }
    EXPECT(strncmp(err_text(), "inner[0].inner[1].inner[2]", 26) == 0);
    EXPECT(strstr(err_text(), "nests deeper than 64 levels") != NULL);
    buf_fini(&b);
    buf_fini(&more);
}

/* Of however many fields of however many messages, so much is looked at and no more. */
TEST(protobuf_bounds_the_work)
{
    struct buf b;
    struct protobuf inner;
    size_t looks = 0;
    buf_init(&b, KIB(4));
    size_t message = protobuf_begin(&b, 1);
    for (int i = 0; i < 10; i++)
        protobuf_put_uint(&b, 7, 300);
    protobuf_end(&b, message);
    struct protobuf m = whole_of(b.data, b.len);
    work = 8;
    EXPECT(protobuf_count(&m, 1) == 1 && work == 7);
    EXPECT(protobuf_next(&m));
    EXPECT_OK(protobuf_message(&m, "a", &inner));
    while (protobuf_next(&inner))
        looks++;
    EXPECT(looks == 6 && inner.status == ERR_TOO_BIG);
    EXPECT(strncmp(err_text(), "a: there are too many fields to look at", 39) == 0);
    EXPECT(!protobuf_next(&m) && m.status == ERR_OK); /* for the end no look is needed */
    work = 10;
    m = protobuf_of(b.data, b.len, &work);
    EXPECT(protobuf_next(&m));
    EXPECT_OK(protobuf_message(&m, "a", &inner));
    EXPECT(protobuf_count(&inner, 7) == 9 && !protobuf_next(&inner));
    EXPECT(inner.status == ERR_TOO_BIG);
    buf_fini(&b);
}

/* Any bytes, exactly so long: no byte behind them is read, and what is handed out is of them. */
TEST(protobuf_reads_any_bytes)
{
    struct rng rng = {test_seed()};
    for (uint64_t round = test_rounds(30000); round > 0; round--) {
        size_t n = rng_below(&rng, 40);
        uint8_t *bytes = malloc(n + (n == 0));
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)(rng_u64(&rng) >> (rng_once_in(&rng, 2) ? 59 : 56));
        struct protobuf m = whole_of(bytes, n);
        struct hrana_text text;
        uint64_t v;
        double real;
        size_t seen = 0;
        (void)protobuf_count(&m, 1);
        while (protobuf_next(&m)) {
            enum err e = ERR_OK;
            EXPECT(m.tag != 0 && ++seen <= n);
            switch (rng_below(&rng, 4)) {
            case 0:
                e = protobuf_bytes(&m, "a", &text);
                EXPECT(e != ERR_OK || ((const uint8_t *)text.p >= bytes &&
                                       (const uint8_t *)text.p + text.n <= bytes + n));
                break;
            case 1:
                e = protobuf_uint64(&m, "a", &v);
                break;
            case 2:
                e = protobuf_double(&m, "a", &real);
                break;
            default:
                break;
            }
            EXPECT(e == ERR_OK || e == ERR_PROTOCOL);
            if (e != ERR_OK)
                break;
        }
        free(bytes);
    }
}
