/* Room: tests. Answers that are compressed: for whom, whole and in pieces, and what they are when
 * they are unpacked. */
#include "node/http/gzip.h"

#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/http/http_handlers.h"
#include "tests/unit/http/http_stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

TEST(gzip_is_for_clients_that_want_it)
{
    static const struct {
        const char *header;
        bool wanted;
    } asks[] = {
        {"", false},
        {"gzip", true},
        {"GZip", true},
        {"x-gzip", true},
        {"gzip, deflate, br", true},
        {"deflate,br , gzip;q=0.5", true},
        {"deflate, br", false},
        {"gzipped", false},
        {"gzip;q=0", false},
        {"gzip; q=0.000", false},
        {"gzip ; Q=0.001", true},
        {"gzip;q=1.000", true},
        {"gzip;q=", false},
        {"gzip;level=1", false},
        {"*", true},
        {"*;q=0", false},
        {"*, gzip;q=0", false},
        {"identity", false},
        {"identity;q=1, gzip;q=0.5", false},
        {"identity;q=0.5, gzip;q=0.5", true},
        {"identity;q=0, *", true},
        {";q=1, ,,", false},
    };
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++)
        if (gzip_is_wanted(asks[i].header) != asks[i].wanted)
            test_fail(__FILE__, __LINE__, "\"%s\"", asks[i].header);
}

static void open_stage(struct http_stage *s)
{
    struct http_options o = http_options_default();
    o.router = &test_router;
    o.compress = true;
    stage_open(s, o);
}

/* Unpacks N bytes as far as they go. Returns how many came out; *WHOLE: the end was among them. */
static size_t unpack(const void *p, size_t n, uint8_t *out, size_t size, bool *whole)
{
    z_stream z = {0};
    EXPECT(inflateInit2(&z, 16 + MAX_WBITS) == Z_OK);
    memcpy(&z.next_in, &p, sizeof p);
    z.avail_in = (unsigned)n;
    z.next_out = out;
    z.avail_out = (unsigned)size;
    int rc = inflate(&z, Z_SYNC_FLUSH);
    EXPECT(rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR);
    *whole = rc == Z_STREAM_END;
    EXPECT(inflateEnd(&z) == Z_OK);
    return size - z.avail_out;
}

/* Takes the chunks' frames off the N bytes at BODY, in place. Returns how many are left. */
static size_t join_chunks(char *body, size_t n)
{
    size_t at = 0, len = 0;
    while (at < n) {
        char *end;
        size_t chunk = strtoul(body + at, &end, 16);
        at = (size_t)(end - body) + 2;
        if (chunk == 0 || at + chunk > n)
            break;
        memmove(body + len, body + at, chunk);
        len += chunk;
        at += chunk + 2;
    }
    return len;
}

static char *say(struct http_stage *s, const char *what, const char *accept, size_t *n)
{
    struct buf b;
    int fd = client_dial(s);
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, "%s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAccept-Encoding: %s\r\n\r\n",
               what, accept);
    client_say(s, fd, b.data, b.len, 0);
    buf_fini(&b);
    char *a = client_hear_all(s, fd, n);
    (void)close(fd);
    return a;
}

static uint8_t out[TEST_FLOOD_BYTES + 1000];

TEST(http_compresses_a_long_answer)
{
    static const struct {
        const char *what;
        size_t n;
        bool chunked;
    } asks[] = {{"GET /words", TEST_WORDS_BYTES, false},
                {"GET /large", TEST_FLOOD_BYTES, true},
                {"GET /flood", TEST_FLOOD_BYTES, true}};
    struct http_stage s;
    open_stage(&s);
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        size_t n;
        bool whole;
        char *a = say(&s, asks[i].what, "gzip", &n);
        char *body = strstr(a, "\r\n\r\n") + 4;
        n -= (size_t)(body - a);
        EXPECT(strstr(a, "content-encoding: gzip\r\n") != NULL);
        EXPECT(strstr(a, "vary: accept-encoding\r\n") != NULL);
        EXPECT((strstr(a, "transfer-encoding: chunked\r\n") != NULL) == asks[i].chunked);
        if (asks[i].chunked)
            n = join_chunks(body, n);
        size_t got = unpack(body, n, out, sizeof out, &whole);
        EXPECT(whole && got == asks[i].n && n < got / 5);
        free(a);
    }
    stage_close(&s);
}

TEST(http_sends_the_others_as_they_are)
{
    static const char *const asks[][2] = {
        {"GET /echo", "gzip"}, {"GET /large", "br"}, {"GET /large", "gzip;q=0"}};
    struct http_stage s;
    size_t n;
    open_stage(&s);
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        char *a = say(&s, asks[i][0], asks[i][1], &n);
        EXPECT(strstr(a, "content-encoding") == NULL);
        EXPECT(i == 0 || n > TEST_FLOOD_BYTES);
        EXPECT((strstr(a, "vary: accept-encoding\r\n") != NULL) == (i > 0));
        free(a);
    }
    /* HEAD has the same headers. */
    char *a = say(&s, "HEAD /large", "gzip", &n);
    EXPECT(strstr(a, "content-encoding: gzip\r\n") != NULL);
    EXPECT(strcmp(strstr(a, "\r\n\r\n"), "\r\n\r\n") == 0);
    free(a);
    stage_close(&s);
}

TEST(http_compresses_a_long_answer_a_part_at_a_time)
{
    struct http_stage s;
    open_stage(&s);
    int greedy = client_dial(&s), other = client_dial(&s);
    client_say_text(&s, greedy, "GET /large HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n");
    EXPECT(s.waiting.bytes > TEST_FLOOD_BYTES);
    client_say_text(&s, other, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    free(client_hear(&s, other, "body=", NULL));
    EXPECT(s.waiting.bytes > TEST_FLOOD_BYTES); /* it is not made yet */
    (void)close(greedy);
    (void)close(other);
    stage_close(&s);
}

/* A client reads what was put before the next piece is there, and sees that the rest is missing. */
TEST(http_sends_each_compressed_piece_in_time)
{
    struct http_stage s;
    bool whole;
    size_t n;
    char rest;
    open_stage(&s);
    int fd = client_dial(&s);
    client_say_text(&s, fd, "GET /half HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n");
    char *a = client_hear(&s, fd, "\r\n\r\n", &n); /* one packet: the head goes with the piece */
    char *body = strstr(a, "\r\n\r\n") + 4;
    n = join_chunks(body, n - (size_t)(body - a));
    EXPECT_EQ(unpack(body, n, out, sizeof out, &whole), 6);
    EXPECT(memcmp(out, "piece ", 6) == 0 && !whole);
    free(a);
    thread_expect_loop();
    exchange_break(test_later);
    stage_turn(&s);
    EXPECT(recv(fd, &rest, 1, 0) < 0 && errno == ECONNRESET);
    (void)close(fd);
    stage_close(&s);
}
