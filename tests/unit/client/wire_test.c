/* Room: tests. client/wire: heads and greetings as docs/PROTOCOL.md draws them, and what every
 * decoder does with frames that are cut, changed, or random. Requests: wire_request_test.c;
 * answers: wire_answer_test.c. */
#include "client/wire.h"
#include "client/wire_cluster.h"

#include "base/rng.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/client/wire_samples.h"

#include <stdlib.h>
#include <string.h>

#define BIG MIB(80)

TEST(wire_hello_has_the_documented_bytes)
{
    static const uint8_t drawn[] = {0x19, 0,    0, 0, 1, 0, 0, 0, 0,   0,   0, 0, 0, 0x4c, 0x43,
                                    0x54, 0x4e, 2, 0, 2, 0, 0, 0, 'm', 'e', 0, 0, 0, 0};
    struct buf b;
    struct wire_hello h;
    buf_init(&b, 100);
    wire_put_hello(&b, "me", "");
    EXPECT_EQ(b.len, sizeof drawn);
    EXPECT(memcmp(b.data, drawn, sizeof drawn) == 0);
    struct wire_frame f = sample_frame(&b);
    EXPECT_OK(wire_get_hello(&f, &h));
    EXPECT(h.client_len == 2 && memcmp(h.client, "me", 2) == 0 && h.database_len == 0);
    b.data[17] = 3; /* another version */
    f = sample_frame(&b);
    EXPECT_ERR(ERR_VERSION, wire_get_hello(&f, &h));
    EXPECT_EQ(h.version, 3);
    b.data[13] = 'G'; /* another protocol */
    f = sample_frame(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_hello(&f, &h));
    buf_fini(&b);
}

/* A version 1 head has no stream: the magic stands where version 2 has the request. */
static const uint8_t hello_v1[] = {0x15, 0, 0, 0, 1, 0, 0,   0,   0, 0x4c, 0x43, 0x54, 0x4e,
                                   1,    0, 2, 0, 0, 0, 'm', 'e', 0, 0,    0,    0};

TEST(wire_version_1_reads_why_it_is_refused)
{
    struct wire_frame f;
    struct wire_hello h;
    struct buf b;
    size_t used;
    EXPECT_OK(wire_next(hello_v1, sizeof hello_v1, 1024, &f, &used));
    EXPECT(used == sizeof hello_v1 && f.type == WIRE_HELLO);
    EXPECT_ERR(ERR_VERSION, wire_get_hello(&f, &h));
    EXPECT_EQ(h.version, 1);
    f.body = rd_of("\2\0", 2); /* no such version has that head */
    EXPECT_ERR(ERR_PROTOCOL, wire_get_hello(&f, &h));
    buf_init(&b, 1000);
    wire_put_hello(&b, "me", "");
    b.data[17] = 1; /* nor version 1 this one */
    f = sample_frame(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_hello(&f, &h));
    buf_reset(&b);
    struct wire_error e = {
        .code = ERR_VERSION, .sqlite_code = 15, .offset = -1, .message = "old", .message_len = 3};
    wire_put_error_v1(&b, &e);
    static const uint8_t drawn[] = {0x21, 0, 0, 0, 69,   0,    0,    0,    0,   16,  0,  0, 0,
                                    15,   0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0,   0,   0,  0, 0,
                                    0,    0, 0, 0, 3,    0,    0,    0,    'o', 'l', 'd'};
    EXPECT_OK(buf_status(&b));
    EXPECT_EQ(b.len, sizeof drawn);
    EXPECT(memcmp(b.data, drawn, sizeof drawn) == 0);
    /* The same bytes are what a server of version 1 says to our HELLO. */
    f = sample_frame(&b);
    EXPECT_ERR(ERR_VERSION, wire_get_error(&f, &e));
    EXPECT(strstr(err_text(), "version 1") != NULL);
    b.data[9] = 0; /* nothing went wrong there: no error */
    f = sample_frame(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_error(&f, &e));
    b.data[9] = 16;
    buf_put_u8(&b, 0); /* a byte more */
    set_le32(b.data, (uint32_t)b.len - WIRE_LENGTH_BYTES);
    f = sample_frame(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_error(&f, &e));
    for (size_t n = b.len - 2; n > WIRE_HEAD_BYTES; n--) { /* and nothing shorter */
        set_le32(b.data, (uint32_t)n - WIRE_LENGTH_BYTES);
        b.len = n;
        f = sample_frame(&b);
        EXPECT_ERR(ERR_PROTOCOL, wire_get_error(&f, &e));
    }
    buf_fini(&b);
}

TEST(wire_next_wants_whole_frames_and_judges_early)
{
    struct buf b;
    struct wire_frame f;
    size_t used;
    buf_init(&b, 1000);
    wire_put_cancel(&b, sample_id());
    EXPECT_EQ(b.len, WIRE_HEAD_BYTES);
    for (size_t n = 0; n < b.len; n++) {
        EXPECT_OK(wire_next(b.data, n, 9, &f, &used));
        EXPECT_EQ(used, 0);
    }
    EXPECT_OK(wire_next(b.data, b.len, 9, &f, &used));
    EXPECT(used == b.len && f.type == WIRE_CANCEL && rd_left(&f.body) == 0);
    EXPECT(f.id.stream == SAMPLE_STREAM && f.id.request == SAMPLE_REQUEST);
    EXPECT_ERR(ERR_TOO_BIG, wire_next(b.data, b.len, 8, &f, &used));
    b.data[4] = 12; /* no such type: known before the rest has come */
    EXPECT_ERR(ERR_PROTOCOL, wire_next(b.data, 5, 1000, &f, &used));
    b.data[4] = WIRE_CANCEL;
    b.data[0] = 8; /* no room for the request */
    EXPECT_ERR(ERR_PROTOCOL, wire_next(b.data, 4, 1000, &f, &used));
    set_le32(b.data, UINT32_MAX);
    EXPECT_ERR(ERR_TOO_BIG, wire_next(b.data, 4, WIRE_FRAME_MAX, &f, &used));
    buf_fini(&b);
}

TEST(wire_frames_are_where_they_belong)
{
    struct buf b;
    struct wire_frame f;
    size_t used;
    buf_init(&b, 1000);
    for (unsigned i = 0; i < n_samples; i++) {
        buf_reset(&b);
        samples[i].put(&b);
        bool was_zero = get_le32(b.data + 5) == 0;
        set_le32(b.data + 5, was_zero ? 1 : 0);
        enum err e = wire_next(b.data, b.len, 1000, &f, &used);
        EXPECT_EQ(e, b.data[4] == WIRE_ERROR ? ERR_OK : ERR_PROTOCOL);
    }
    buf_fini(&b);
}

TEST(wire_never_writes_a_frame_over_the_limit)
{
    struct buf b;
    struct wire_value v = {.type = WIRE_BLOB};
    char *bytes = calloc(1, WIRE_FRAME_MAX);
    EXPECT(bytes != NULL);
    buf_init(&b, BIG);
    wire_put_status(&b, sample_id());
    size_t before = b.len;
    v.text.bytes = bytes;
    v.text.len = (uint32_t)WIRE_FRAME_MAX - (WIRE_HEAD_BYTES - WIRE_LENGTH_BYTES) - 5 + 1;
    size_t begun = wire_begin(&b, WIRE_ROWS, sample_id());
    wire_put_value(&b, &v);
    wire_end(&b, begun);
    EXPECT_EQ(buf_status(&b), ERR_TOO_BIG);
    EXPECT_EQ(b.len, before);
    buf_reset(&b);
    v.text.len = (uint32_t)WIRE_FRAME_MAX - (WIRE_HEAD_BYTES - WIRE_LENGTH_BYTES) - 5;
    begun = wire_begin(&b, WIRE_ROWS, sample_id());
    wire_put_value(&b, &v);
    wire_end(&b, begun);
    struct wire_frame f = sample_frame(&b);
    EXPECT_OK(wire_get_value(&f.body, &v));
    EXPECT_EQ(rd_left(&f.body), 0);
    free(bytes);
    buf_fini(&b);
}

TEST(wire_a_frame_without_room_is_taken_back_whole)
{
    struct buf b;
    struct wire_frame f;
    size_t used;
    buf_init(&b, 3 * WIRE_HEAD_BYTES - 1);
    wire_put_ping(&b, 1);
    wire_put_ping(&b, 2);
    for (unsigned i = 0; i < n_samples; i++) {
        samples[i].put(&b);
        EXPECT_EQ(b.failed, ERR_TOO_BIG);
        EXPECT_EQ(b.len, 2 * WIRE_HEAD_BYTES);
        b.failed = ERR_OK;
    }
    EXPECT_OK(wire_next(b.data + WIRE_HEAD_BYTES, b.len - WIRE_HEAD_BYTES, 1000, &f, &used));
    EXPECT(f.type == WIRE_PING && f.id.request == 2 && used == WIRE_HEAD_BYTES);
    buf_fini(&b);
}

/* DATA in a block of its own exact size, so that a sanitizer sees one byte too many. */
static enum err decode_exactly(const uint8_t *data, size_t n)
{
    struct wire_frame f;
    size_t used;
    uint8_t *exact = malloc(n + (n == 0));
    EXPECT(exact != NULL);
    memcpy(exact, data, n);
    enum err e = wire_next(exact, n, WIRE_FRAME_MAX, &f, &used);
    if (e == ERR_OK && used > 0) {
        EXPECT(used <= n);
        e = sample_decode(f, exact, n);
    }
    free(exact);
    return e;
}

TEST(wire_every_frame_is_taken_whole_and_never_cut)
{
    struct buf b;
    buf_init(&b, 4096);
    for (unsigned i = 0; i < n_samples; i++) {
        buf_reset(&b);
        samples[i].put(&b);
        EXPECT_OK(decode_exactly(b.data, b.len));
        size_t whole = b.len;
        buf_put_u8(&b, 0);
        for (size_t n = WIRE_HEAD_BYTES; n <= whole + 1; n++) {
            set_le32(b.data, (uint32_t)n - WIRE_LENGTH_BYTES); /* its length is told truly */
            enum err e = decode_exactly(b.data, n);
            if (e != (n == whole ? ERR_OK : ERR_PROTOCOL))
                test_fail(__FILE__, __LINE__, "%s of %zu bytes instead of %zu: %s", samples[i].name,
                          n, whole, err_name((int)e));
        }
    }
    buf_fini(&b);
}

TEST(wire_every_flipped_byte_is_survived)
{
    static const uint8_t flips[] = {0x01, 0x80, 0xff};
    struct buf b;
    unsigned refused = 0, taken = 0;
    buf_init(&b, 4096);
    for (unsigned i = 0; i < n_samples; i++) {
        buf_reset(&b);
        samples[i].put(&b);
        for (size_t at = 0; at < 3 * b.len; at++) {
            b.data[at / 3] ^= flips[at % 3];
            enum err e = decode_exactly(b.data, b.len);
            EXPECT(e == ERR_OK || e == ERR_PROTOCOL || e == ERR_TOO_BIG || e == ERR_VERSION);
            refused += e != ERR_OK;
            taken += e == ERR_OK;
            b.data[at / 3] ^= flips[at % 3];
        }
    }
    EXPECT(refused > 500 && taken > 500); /* lengths and types; values */
    buf_fini(&b);
}

/* Any of the types that have a decoder here. */
static uint8_t some_type(struct rng *rng)
{
    return (uint8_t)(rng_once_in(rng, 2) ? WIRE_HELLO + rng_below(rng, WIRE_PING)
                                         : WIRE_WELCOME + rng_below(rng, 8));
}

TEST(wire_decoders_stay_inside_of_mutated_frames)
{
    struct rng rng = {test_seed()};
    struct buf b;
    buf_init(&b, 4096);
    for (uint64_t round = 0; round < test_rounds(200000); round++) {
        buf_reset(&b);
        samples[rng_below(&rng, n_samples)].put(&b);
        for (uint64_t hits = rng_below(&rng, 4); hits > 0; hits--)
            b.data[rng_below(&rng, b.len)] = (uint8_t)rng_u64(&rng);
        if (rng_once_in(&rng, 4)) /* a length field somewhere */
            set_le32(b.data + rng_below(&rng, b.len - 3), (uint32_t)rng_below(&rng, 300));
        if (rng_once_in(&rng, 4))
            b.data[4] = some_type(&rng); /* another one's decoder */
        if (rng_once_in(&rng, 4))
            b.len = rng_below(&rng, b.len + 1);
        if (rng_once_in(&rng, 2) && b.len >= 4) /* so that most of them pass wire_next */
            set_le32(b.data, (uint32_t)(b.len - 4));
        enum err e = decode_exactly(b.data, b.len);
        EXPECT(e == ERR_OK || e == ERR_PROTOCOL || e == ERR_TOO_BIG || e == ERR_VERSION);
    }
    buf_fini(&b);
}

TEST(wire_cluster_comes_back_and_nothing_else_is_taken)
{
    struct wire_cluster c = {.op = WIRE_CLUSTER_ADD,
                             .role = WIRE_STANDBY,
                             .flags = WIRE_CLUSTER_FORCE,
                             .timeout_ms = 7,
                             .id = 1ull << 50,
                             .address = "[::1]:7801"};
    struct wire_cluster back;
    struct buf b;
    buf_init(&b, 1000);
    wire_put_cluster(&b, sample_id(), &c);
    struct wire_frame f = sample_frame(&b);
    EXPECT(f.type == WIRE_CLUSTER);
    EXPECT_OK(wire_get_cluster(&f, &back));
    EXPECT(back.op == c.op && back.role == c.role && back.flags == c.flags && back.id == c.id &&
           back.timeout_ms == 7 && strcmp(back.address, c.address) == 0);
    /* op, role, flags, a length, a byte of the address: each alone is enough to be refused */
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{13, 0},  {13, 5}, {13, 2},   {14, 3}, {15, 4},
                 {28, 11}, {28, 9}, {32, ' '}, {34, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint8_t good = b.data[wrong[i].at];
        b.data[wrong[i].at] = wrong[i].value;
        f = sample_frame(&b);
        EXPECT_ERR(ERR_PROTOCOL, wire_get_cluster(&f, &back));
        b.data[wrong[i].at] = good;
    }
    buf_reset(&b);
    c.address[0] = 0; /* ADD without an address */
    wire_put_cluster(&b, sample_id(), &c);
    f = sample_frame(&b);
    EXPECT_ERR(ERR_PROTOCOL, wire_get_cluster(&f, &back));
    buf_fini(&b);
}
