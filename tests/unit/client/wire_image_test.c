/* The frames of images: there and back, and nothing that is cut, too long or senseless is taken. */
#include "client/wire_image.h"

#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

static const struct wire_id ID = {.stream = 3, .request = 7};

static struct wire_frame whole(const struct buf *b)
{
    struct wire_frame f;
    size_t used;
    EXPECT_OK(buf_status(b));
    EXPECT_OK(wire_next(b->data, b->len, WIRE_FRAME_MAX, &f, &used));
    EXPECT(used == b->len && f.id.stream == ID.stream && f.id.request == ID.request);
    return f;
}

static const struct wire_image example = {.database_id = 7,
                                          .seq = 1000,
                                          .checksum = 0x1234567890abcdef,
                                          .pages = 600,
                                          .page_size = 4096,
                                          .index = 1010,
                                          .record = (const uint8_t *)"record",
                                          .record_len = 6};

TEST(wire_image_heads_come_back)
{
    struct buf b;
    struct wire_image w;
    bool pin = false;
    buf_init(&b, MIB(4));
    wire_put_image(&b, ID, &example);
    struct wire_frame f = whole(&b);
    EXPECT_OK(wire_get_image(&f, &w));
    EXPECT(w.database_id == 7 && w.seq == 1000 && w.checksum == example.checksum);
    EXPECT(w.pages == 600 && w.page_size == 4096 && w.index == 1010);
    EXPECT(w.record_len == 6 && memcmp(w.record, "record", 6) == 0);
    for (int i = 0; i < 2; i++) {
        buf_reset(&b);
        wire_put_image_begin(&b, ID, i == 1);
        f = whole(&b);
        EXPECT_OK(wire_get_image_begin(&f, &pin));
        EXPECT(pin == (i == 1));
    }
    buf_fini(&b);
}

TEST(wire_image_hashes_and_pages_come_back)
{
    static const uint64_t hashes[3] = {1, UINT64_MAX, 0};
    static const uint32_t page_nos[2] = {5, 9};
    struct buf b;
    struct rd r;
    struct wire_image_pages p;
    uint32_t first, n;
    uint8_t *pages = malloc(2 * 512);
    memset(pages, 'a', 512);
    memset(pages + 512, 'b', 512);
    buf_init(&b, MIB(4));
    wire_put_image_ask_hashes(&b, ID, 17, 65536);
    struct wire_frame f = whole(&b);
    EXPECT_OK(wire_get_image_ask_hashes(&f, &first, &n));
    EXPECT(first == 17 && n == 65536);
    buf_reset(&b);
    wire_put_image_hashes(&b, ID, 17, hashes, 3);
    f = whole(&b);
    EXPECT_OK(wire_get_image_hashes(&f, &first, &n, &r));
    EXPECT(first == 17 && n == 3 && rd_u64(&r) == 1 && rd_u64(&r) == UINT64_MAX);
    buf_reset(&b);
    wire_put_image_ask_pages(&b, ID, page_nos, 2);
    f = whole(&b);
    EXPECT_OK(wire_get_image_ask_pages(&f, &r, &n));
    EXPECT(n == 2 && rd_u32(&r) == 5 && rd_u32(&r) == 9);
    buf_reset(&b);
    wire_put_image_pages(&b, ID, page_nos, 2, pages, 512);
    f = whole(&b);
    EXPECT_OK(wire_get_image_pages(&f, &p));
    EXPECT(p.n == 2 && p.page_size == 512 && rd_u32(&p.pages) == 5);
    EXPECT(rd_bytes(&p.pages, 512)[0] == 'a');
    EXPECT(rd_u32(&p.pages) == 9 && rd_bytes(&p.pages, 512)[511] == 'b');
    buf_fini(&b);
    free(pages);
}

/* Every frame shortened at every byte, and with a byte too many: an error, and no read beyond (the
 * sanitizer looks on). A list of pages may be whole at a shorter length. */
TEST(wire_image_refuses_frames_of_a_wrong_length)
{
    struct buf b;
    struct wire_image w;
    bool pin;
    uint32_t first, n;
    buf_init(&b, KIB(4));
    wire_put_image(&b, ID, &example);
    size_t len = b.len - WIRE_HEAD_BYTES;
    for (size_t cut = 0; cut <= len + 1; cut++) {
        uint8_t *body = malloc(cut == 0 ? 1 : cut);
        memset(body, 0, cut);
        memcpy(body, b.data + WIRE_HEAD_BYTES, cut < len ? cut : len);
        struct wire_frame f = {.type = WIRE_IMAGE, .body = rd_of(body, cut)};
        enum err e = wire_get_image(&f, &w);
        EXPECT((e == ERR_OK) == (cut == len));
        f.body = rd_of(body, cut);
        e = wire_get_image_begin(&f, &pin);
        EXPECT(e == ERR_OK ? cut == 1 : true);
        f.body = rd_of(body, cut);
        e = wire_get_image_ask_hashes(&f, &first, &n);
        EXPECT(e == ERR_OK ? cut == 8 : true);
        free(body);
    }
    buf_fini(&b);
}

static enum err ask_pages(const uint32_t *page_nos, uint32_t n)
{
    struct buf b;
    struct rd r;
    uint32_t got;
    buf_init(&b, MIB(1));
    for (uint32_t i = 0; i < n; i++)
        buf_put_u32(&b, page_nos[i]);
    struct wire_frame f = {.type = WIRE_IMAGE_ASK_PAGES, .body = rd_of(b.data, b.len)};
    enum err e = wire_get_image_ask_pages(&f, &r, &got);
    buf_fini(&b);
    return e;
}

TEST(wire_image_refuses_what_makes_no_sense)
{
    static const uint32_t zero[] = {0}, twice[] = {3, 3}, back[] = {4, 3};
    EXPECT_ERR(ERR_PROTOCOL, ask_pages(zero, 1));
    EXPECT_ERR(ERR_PROTOCOL, ask_pages(twice, 2));
    EXPECT_ERR(ERR_PROTOCOL, ask_pages(back, 2));
    uint32_t *many = malloc(2049 * sizeof *many);
    for (uint32_t i = 0; i < 2049; i++)
        many[i] = i + 1;
    EXPECT_OK(ask_pages(many, 2048));
    EXPECT_ERR(ERR_PROTOCOL, ask_pages(many, 2049));
    free(many);

    static const struct {
        uint32_t page_size, pages;
    } bad[] = {{0, 1}, {511, 1}, {513, 1}, {131072, 1}, {4096, 0}, {4096, UINT32_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct wire_image w = example, out;
        struct buf b;
        w.page_size = bad[i].page_size;
        w.pages = bad[i].pages;
        buf_init(&b, KIB(4));
        wire_put_image(&b, ID, &w);
        struct wire_frame f = whole(&b);
        EXPECT_ERR(ERR_PROTOCOL, wire_get_image(&f, &out));
        buf_fini(&b);
    }
}
