/* Room: tests. Requests that are wrong, or that two readers of HTTP would read differently: each is
 * answered with its status as JSON, nothing behind it is read, and the connection ends. */
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/http/http_handlers.h"
#include "tests/unit/http/http_stage.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POST  "POST /echo HTTP/1.1\r\nHost: h\r\n"
#define CHUNK POST "Transfer-Encoding: chunked\r\n\r\n"
#define NEXT  "GET /echo?smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

static const struct {
    const char *name, *request;
    int status;
} bad[] = {
    {"both lengths", POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"both lengths, turned",
     POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
    {"two lengths", POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400},
    {"the same length twice", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
    {"a list of lengths", POST "Content-Length: 3, 3\r\n\r\nabc", 400},
    {"a negative length", POST "Content-Length: -3\r\n\r\nabc", 400},
    {"a length with a sign", POST "Content-Length: +3\r\n\r\nabc", 400},
    {"a length in hex", POST "Content-Length: 0x3\r\n\r\nabc", 400},
    {"a length with a space", POST "Content-Length: 1 3\r\n\r\nabc", 400},
    {"an empty length", POST "Content-Length: \r\n\r\n", 400},
    {"a length of 2^64", POST "Content-Length: 18446744073709551616\r\n\r\n", 400},
    {"a folded coding", POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
    {"a folded header", POST "X: a\r\n\tb\r\n\r\n", 400},
    {"a folded first header", "GET /echo HTTP/1.1\r\n Host: h\r\n\r\n", 400},
    {"an unknown coding", POST "Transfer-Encoding: gzip\r\n\r\n", 501},
    {"a coding behind chunked", POST "Transfer-Encoding: chunked, gzip\r\n\r\n", 400},
    {"a coding before chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
    {"chunked twice",
     POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"xchunked", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
    {"a quoted chunked", POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501},
    {"chunked with a vertical tab", POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 400},
    {"a space before the colon", POST "Content-Length : 3\r\n\r\nabc", 400},
    {"a space before the colon of the coding", POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
     400},
    {"a tab before the colon", POST "Content-Length\t: 3\r\n\r\nabc", 400},
    {"a header without a colon", POST "Content-Length\r\n\r\n", 400},
    {"a header without a name", POST ": x\r\n\r\n", 400},
    {"a name with a control byte", POST "X\1Y: x\r\n\r\n", 400},
    {"a value with a control byte", POST "X: a\1b\r\n\r\n", 400},
    {"a bare LF", "GET /echo HTTP/1.1\nHost: h\n\n", 400},
    {"a bare LF behind a header", "GET /echo HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400},
    {"a bare CR", "GET /echo HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400},
    {"an end of CR LF LF", "GET /echo HTTP/1.1\r\nHost: h\r\n\n", 400},
    {"no host", "GET /echo HTTP/1.1\r\n\r\n", 400},
    {"two hosts", "GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
    {"a host with a space", "GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"a host with a user", "GET /echo HTTP/1.1\r\nHost: a@b\r\n\r\n", 400},
    {"no version", "GET /echo\r\nHost: h\r\n\r\n", 505},
    {"version 2", "GET /echo HTTP/2.0\r\nHost: h\r\n\r\n", 505},
    {"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
    {"version 1.2", "GET /echo HTTP/1.2\r\nHost: h\r\n\r\n", 505},
    {"an unknown method", "BREW /echo HTTP/1.1\r\nHost: h\r\n\r\n", 501},
    {"a method in lower case", "get /echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"a proxy's method", "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 501},
    {"a target that is no path", "GET echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"a star", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"a space in the target", "GET /ec ho HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"a control byte in the target", "GET /ec\1ho HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"spaces before the method", "  GET /echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"TLS", "\x16\x03\x01\x02", 400},
    {"old HTTP with a coding", "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400},
    {"a chunk's size in words", CHUNK "three\r\nabc\r\n0\r\n\r\n", 400},
    {"a negative chunk", CHUNK "-1\r\nabc\r\n0\r\n\r\n", 400},
    {"a chunk of 0x", CHUNK "0x3\r\nabc\r\n0\r\n\r\n", 400},
    {"a chunk with a space", CHUNK " 3\r\nabc\r\n0\r\n\r\n", 400},
    {"a chunk of 2^64", CHUNK "10000000000000000\r\nabc\r\n0\r\n\r\n", 400},
    {"a chunk without a size", CHUNK "\r\nabc\r\n0\r\n\r\n", 400},
    {"a chunk's size with a bare LF", CHUNK "3\nabc\r\n0\r\n\r\n", 400},
    {"a chunk with more behind it", CHUNK "3\r\nabcd\r\n0\r\n\r\n", 400},
    {"a chunk that ends with LF", CHUNK "3\r\nabc\n0\r\n\r\n", 400},
    {"a CR in a chunk's extension", CHUNK "3;a\rb\r\nabc\r\n0\r\n\r\n", 400},
    {"a LF in a chunk's extension", CHUNK "3;a\nb\r\nabc\r\n0\r\n\r\n", 400},
    {"a CR in an extension's value", CHUNK "3;a=b\rc\r\nabc\r\n0\r\n\r\n", 400},
    {"a CR in a quoted extension", CHUNK "3;a=\"b\rc\"\r\nabc\r\n0\r\n\r\n", 400},
    {"a LF in an extension's value", CHUNK "3;a=b\nc\r\nabc\r\n0\r\n\r\n", 400},
    {"a bare LF behind the last chunk", CHUNK "0\n\r\n", 400},
    {"a bare LF for the trailers", CHUNK "0\r\n\n", 400},
    {"a bare LF behind the trailers", CHUNK "0\r\nX: y\r\n\n", 400},
    {"a trailer that ends with LF", CHUNK "0\r\nX: y\n\r\n", 400},
    {"a bare CR in a trailer", CHUNK "0\r\nX: y\rz\r\n\r\n", 400},
    {"a folded trailer", CHUNK "0\r\nX: y\r\n z\r\n\r\n", 400},
    {"a trailer without a name", CHUNK "0\r\n: y\r\n\r\n", 400},
    {"two spaces before the target", "GET  /echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"two spaces before the version", "GET /echo  HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"another protocol", "GET /echo RTSP/1.0\r\nHost: h\r\n\r\n", 400},
    {"a target without a host", "GET http:///echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"a target with another host", "GET http://a/echo HTTP/1.1\r\nHost: b\r\n\r\n", 400},
    {"a target with a user", "GET http://u@h/echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"a target with another port", "GET http://h:1/echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    {"a host that is a path", "GET /echo HTTP/1.1\r\nHost: h?x\r\n\r\n", 400},
    {"a compressed body", POST "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 415},
    {"two expectations", POST "Expect: 100-continue\r\nExpect: x\r\nContent-Length: 3\r\n\r\nabc",
     417},
};

/* The whole answer to REQUEST and, behind it, a second request. */
static char *answer_to(struct http_stage *s, const char *request, size_t piece)
{
    int fd = client_dial(s);
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, "%s%s", request, NEXT);
    client_say(s, fd, b.data, b.len, piece);
    buf_fini(&b);
    char *a = client_hear_all(s, fd, NULL);
    (void)close(fd);
    stage_turn(s);
    return a;
}

static void expect_refused(const char *name, const char *answer, int status)
{
    char line[32];
    (void)snprintf(line, sizeof line, "HTTP/1.1 %d ", status);
    const char *body = strstr(answer, "\r\n\r\n");
    if (strncmp(answer, line, strlen(line)) != 0 || strstr(answer + 1, "HTTP/1.1 ") != NULL ||
        strstr(answer, "smuggled") != NULL || body == NULL ||
        strncmp(body + 4, "{\"error\":\"", 10) != 0 || strstr(body, "\"message\":\"") == NULL ||
        strstr(body, "\"code\":\"") == NULL || strstr(answer, "connection: close\r\n") == NULL ||
        strstr(answer, "content-type: application/json\r\n") == NULL)
        test_fail(__FILE__, __LINE__, "%s: wanted %d, got: %s", name, status, answer);
}

TEST(http_refuses_what_is_wrong_or_can_be_read_in_two_ways)
{
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    stage_open(&s, o);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (size_t piece = 0; piece < 2; piece++) {
            char *a = answer_to(&s, bad[i].request, piece);
            expect_refused(bad[i].name, a, bad[i].status);
            free(a);
        }
    stage_close(&s);
}

TEST(http_ignores_trailers)
{
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    stage_open(&s, o);
    int fd = client_dial(&s);
    client_say_text(
        &s, fd, CHUNK "3\r\nabc\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: x\r\n\r\n" NEXT);
    char *a = client_hear(&s, fd, "query=smuggled body=", NULL);
    EXPECT(strstr(a, "body=abcHTTP/1.1 200 OK") != NULL);
    free(a);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_says_what_is_wrong_with_a_head)
{
#define GET "GET /echo HTTP/1.1\r\nHost: h\r\n"
    static const struct {
        const char *head, *said;
    } heads[] = {
        {"GET /echo HTTP/1.1\nHost: h\n\n", "LF alone"},
        {GET "A: b\rc\r\n\r\n", "CR stands alone"},
        {GET " folded\r\n\r\n", "begins with a space"},
        {GET ": b\r\n\r\n", "no name"},
        {GET "A: \1\r\n\r\n", "control byte"},
        {GET "A : b\r\n\r\n", "space before its colon"},
        {GET "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "content-length is there twice"},
        {GET "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer-encoding"},
        {GET "Content-Length: x\r\n\r\n", "content-length is no number"},
        {"\x16\3\1\2\1", "looks like TLS"},
        {"hello\r\n\r\n", "not METHOD TARGET HTTP/1.1"},
    };
#undef GET
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    stage_open(&s, o);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        char *a = answer_to(&s, heads[i].head, 0);
        expect_refused(heads[i].said, a, 400);
        if (strstr(a, heads[i].said) == NULL)
            test_fail(__FILE__, __LINE__, "%s: %s", heads[i].said, a);
        free(a);
    }
    stage_close(&s);
}

TEST(http_reads_nothing_behind_a_zero_byte)
{
    static const char text[] = "GET /echo HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n" NEXT;
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    stage_open(&s, o);
    int fd = client_dial(&s);
    client_say(&s, fd, text, sizeof text - 1, 0);
    char *a = client_hear_all(&s, fd, NULL);
    expect_refused("a zero", a, 400);
    free(a);
    (void)close(fd);
    stage_close(&s);
}

/* A head with N headers, its URL and its values this long. */
static void put_head(struct buf *b, size_t url, unsigned headers, size_t value)
{
    buf_printf(b, "GET /echo?");
    if (url > 6)
        memset(buf_extend(b, url - 6), 'u', url - 6);
    buf_printf(b, " HTTP/1.1\r\nHost: h\r\n");
    for (unsigned i = 1; i < headers; i++) {
        buf_printf(b, "X-%u: ", i);
        if (value > 0)
            memset(buf_extend(b, value), 'v', value);
        buf_printf(b, "\r\n");
    }
    buf_printf(b, "Connection: close\r\n\r\n");
}

TEST(http_limits_heads_and_urls)
{
    static const struct {
        size_t url;
        unsigned headers;
        size_t value;
        int status;
    } heads[] = {
        {8192, 1, 0, 200},  {8193, 1, 0, 414},    {17000, 1, 0, 414},  {100000, 1, 0, 414},
        {6, 99, 0, 200},    {6, 100, 0, 431},     {6, 2, 16000, 200},  {6, 2, 17000, 431},
        {6, 99, 1000, 431}, {8192, 2, 8192, 431}, {6, 2, 500000, 431},
    };
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    stage_open(&s, o);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        for (size_t piece = 0; piece < 2; piece++) {
            struct buf b;
            char line[32];
            buf_init(&b, SIZE_MAX);
            put_head(&b, heads[i].url, heads[i].headers, heads[i].value);
            int fd = client_dial(&s);
            client_say(&s, fd, b.data, b.len, piece * 1000);
            char *a = client_hear_all(&s, fd, NULL);
            (void)snprintf(line, sizeof line, "HTTP/1.1 %d ", heads[i].status);
            if (strncmp(a, line, strlen(line)) != 0)
                test_fail(__FILE__, __LINE__, "head %zu: wanted %s, got %s", i, line, a);
            free(a);
            buf_fini(&b);
            (void)close(fd);
        }
    stage_close(&s);
}

TEST(http_limits_bodies)
{
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    o.body_max = 1000;
    stage_open(&s, o);
    /* Before it is sent. */
    char *a = answer_to(&s, POST "Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n", 0);
    expect_refused("a length over the limit", a, 413);
    EXPECT_EQ(test_begins, 0);
    free(a);
    a = answer_to(&s, CHUNK "3e9\r\n", 0);
    expect_refused("a chunk's length over the limit", a, 413);
    free(a);
    a = answer_to(&s, CHUNK "ffffffffffffffff\r\n", 0);
    expect_refused("the longest chunk", a, 413);
    free(a);
    /* As it comes. */
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, CHUNK);
    for (unsigned i = 0; i < 5; i++) {
        buf_printf(&b, "c8\r\n");
        memset(buf_extend(&b, 200), 'x', 200);
        buf_printf(&b, "\r\n");
    }
    size_t whole = b.len;
    buf_printf(&b, "1\r\nx\r\n0\r\n\r\n");
    buf_put_u8(&b, 0);
    a = answer_to(&s, (const char *)b.data, 0);
    expect_refused("chunks over the limit", a, 413);
    free(a);
    memcpy(b.data + whole, "0\r\n\r\n", 6);
    a = answer_to(&s, POST "Connection: close\r\nContent-Length: 0\r\n\r\n", 0);
    EXPECT(strncmp(a, "HTTP/1.1 200", 12) == 0);
    free(a);
    int fd = client_dial(&s);
    client_say(&s, fd, b.data, whole + 5, 0);
    a = client_hear(&s, fd, "body=xxx", NULL);
    EXPECT(strncmp(a, "HTTP/1.1 200", 12) == 0);
    free(a);
    (void)close(fd);
    EXPECT(test_bodies > 0 && test_overs == test_begins);
    buf_fini(&b);
    stage_close(&s);
}

TEST(http_limits_what_comes_between_chunks)
{
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    stage_open(&s, o);
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, CHUNK);
    for (unsigned i = 0; i < 1000; i++)
        buf_printf(&b, "1;extension=value\r\nx\r\n");
    buf_put_u8(&b, 0);
    char *a = answer_to(&s, (const char *)b.data, 0);
    expect_refused("extensions", a, 400);
    free(a);
    buf_reset(&b);
    buf_printf(&b, CHUNK "0\r\n");
    for (unsigned i = 0; i < 1000; i++)
        buf_printf(&b, "Trailer: value\r\n");
    buf_put_u8(&b, 0);
    a = answer_to(&s, (const char *)b.data, 0);
    expect_refused("trailers", a, 400);
    free(a);
    buf_fini(&b);
    stage_close(&s);
}

TEST(http_refuses_connections_above_its_number)
{
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    o.connections_max = 2;
    stage_open(&s, o);
    int one = client_dial(&s), two = client_dial(&s), more[HTTP_SPARE_MAX], three;
    char *a;
    for (unsigned i = 0; i < HTTP_SPARE_MAX; i++)
        more[i] = client_dial(&s);
    three = client_dial(&s);
    a = client_hear_all(&s, three, NULL);
    expect_refused("one that has no place to ask", a, 503);
    free(a);
    (void)close(three);
    client_say_text(&s, more[0], "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    a = client_hear_all(&s, more[0], NULL);
    expect_refused("what is more than to tell", a, 503);
    free(a);
    client_say_text(&s, more[1], "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    a = client_hear_all(&s, more[1], NULL);
    EXPECT(strncmp(a, "HTTP/1.1 200", 12) == 0 && strstr(a, "connection: close\r\n") != NULL);
    free(a);
    (void)close(two);
    stage_for(&s, 20); /* the others that are more stay, and are in nobody's way */
    int four = client_dial(&s);
    client_say_text(&s, four, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    a = client_hear(&s, four, "body=", NULL);
    EXPECT(strncmp(a, "HTTP/1.1 200", 12) == 0);
    free(a);
    for (unsigned i = 0; i < HTTP_SPARE_MAX; i++)
        (void)close(more[i]);
    (void)close(one);
    (void)close(four);
    stage_close(&s);
}

/* Those that are refused and stay do not add up: a node needs its descriptors for its log. */
TEST(http_holds_few_connections_that_it_refused)
{
    enum { MAX = 2, OPENED = 400, ENDING = 128 };
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    o.connections_max = MAX;
    stage_open(&s, o);
    int fds[OPENED];
    unsigned before = test_descriptors();
    for (unsigned i = 0; i < OPENED; i++)
        fds[i] = client_dial(&s);
    stage_for(&s, 50);
    unsigned held = test_descriptors() - before - OPENED;
    EXPECT_EQ(held, MAX + HTTP_SPARE_MAX + ENDING);
    char *a = client_hear(&s, fds[OPENED - 1], "http-connections", NULL);
    expect_refused("the last of them", a, 503);
    free(a);
    for (unsigned i = 0; i < OPENED; i++)
        (void)close(fds[i]);
    stage_close(&s);
}

TEST(http_refuses_bodies_when_memory_is_short)
{
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &test_router;
    stage_open(&s, o);
    size_t others = 0;
    thread_expect_loop();
    waiting_set(&s.waiting, &others, s.waiting.limit);
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, POST "Content-Length: 4000000\r\n\r\n");
    memset(buf_extend(&b, 4000000), 'x', 4000000);
    int fd = client_dial(&s);
    client_say(&s, fd, b.data, b.len, 0);
    char *a = client_hear_all(&s, fd, NULL);
    expect_refused("a body without room", a, 503);
    free(a);
    (void)close(fd);
    waiting_set(&s.waiting, &others, 0);
    buf_fini(&b);
    stage_close(&s);
}
