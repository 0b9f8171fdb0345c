/* Room: tests. base/buf: bounds in both directions. */
#include "base/buf.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

TEST(buf_refuses_more_than_its_maximum)
{
    struct buf b;
    buf_init(&b, 8);
    buf_put_u64(&b, 1);
    EXPECT_OK(buf_status(&b));
    buf_put_u8(&b, 1);
    EXPECT_EQ(buf_status(&b), ERR_TOO_BIG);
    EXPECT_EQ(b.len, 8);
    buf_fini(&b);
}

TEST(buf_round_trip_of_every_type)
{
    struct buf b;
    size_t n;
    buf_init(&b, 1000);
    buf_put_u8(&b, 0xfe);
    buf_put_u16(&b, 0xfedc);
    buf_put_u32(&b, 0xfedcba98u);
    buf_put_u64(&b, 0xfedcba9876543210u);
    buf_put_f64(&b, -0.5);
    buf_put_cstr(&b, "lectern");
    EXPECT_OK(buf_status(&b));
    struct rd r = rd_of(b.data, b.len);
    EXPECT_EQ(rd_u8(&r), 0xfe);
    EXPECT_EQ(rd_u16(&r), 0xfedc);
    EXPECT_EQ(rd_u32(&r), 0xfedcba98u);
    EXPECT_EQ(rd_u64(&r), 0xfedcba9876543210u);
    EXPECT(rd_f64(&r) < -0.4);
    const char *s = rd_str(&r, &n);
    EXPECT(n == 7 && memcmp(s, "lectern", 7) == 0);
    EXPECT(!r.failed && rd_left(&r) == 0);
    EXPECT_EQ(rd_u8(&r), 0);
    EXPECT(r.failed);
    buf_fini(&b);
}

TEST(rd_refuses_a_string_longer_than_the_rest)
{
    uint8_t bytes[6] = {200, 0, 0, 0, 'a', 'b'};
    size_t n;
    struct rd r = rd_of(bytes, sizeof bytes);
    EXPECT(rd_str(&r, &n) == NULL && n == 0 && r.failed);
}
