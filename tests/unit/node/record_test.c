/* The note and the record come back as they were, and nothing else is taken for one. */
#include "node/record.h"

#include "base/sizes.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

static const struct lane_mark mark = {
    .index = 77, .seq = 70, .checksum = 0xfedcba9876543210, .pages = 1234, .page_size = 4096};

static struct cns_snapshot snapshot(void)
{
    struct cns_snapshot s = {.index = 77, .term = 5, .members_index = 3, .highest_id = 9};
    uint8_t *members = malloc(40);
    memset(members, 'm', 40);
    s.members = cns_payload_take(members, 40);
    s.data_len = note_encode(&mark, s.data);
    return s;
}

TEST(record_note_comes_back)
{
    struct cns_snapshot s = snapshot();
    struct lane_mark m;
    EXPECT_OK(note_decode(&s, &m));
    EXPECT(m.index == 77 && m.seq == 70 && m.checksum == mark.checksum && m.pages == 1234 &&
           m.page_size == 4096);
    size_t len = s.data_len;
    for (s.data_len = 0; s.data_len < len; s.data_len++)
        EXPECT_ERR(ERR_CORRUPT, note_decode(&s, &m));
    s.data_len = len + 1;
    EXPECT_ERR(ERR_CORRUPT, note_decode(&s, &m));
    s.data_len = len;
    s.data[0] = 2;
    EXPECT_ERR(ERR_FORMAT, note_decode(&s, &m));
    s.data[0] = 1;
    s.data[4] = 1; /* a page size of 4097 */
    EXPECT_ERR(ERR_CORRUPT, note_decode(&s, &m));
    cns_payload_unref(s.members);
}

TEST(record_comes_back_and_no_flipped_bit_does)
{
    struct cns_snapshot s = snapshot(), out;
    struct lane_mark m;
    struct buf b;
    buf_init(&b, KIB(64));
    record_put(&b, &s);
    EXPECT_OK(buf_status(&b));
    EXPECT_OK(record_get(b.data, b.len, &out));
    EXPECT(out.index == 77 && out.term == 5 && out.members_index == 3 && out.highest_id == 9);
    EXPECT(out.members->len == 40 && memcmp(out.members->data, s.members->data, 40) == 0);
    EXPECT_OK(note_decode(&out, &m));
    EXPECT(m.seq == 70);
    cns_payload_unref(out.members);
    for (size_t i = 0; i < 8 * b.len; i++) {
        b.data[i / 8] ^= (uint8_t)(1u << (i % 8));
        EXPECT_ERR(ERR_CORRUPT, record_get(b.data, b.len, &out));
        b.data[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    for (size_t n = 0; n < b.len; n++)
        EXPECT_ERR(ERR_CORRUPT, record_get(b.data, n, &out));
    buf_fini(&b);
    cns_payload_unref(s.members);
}
