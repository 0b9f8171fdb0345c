/* Room: tests. WebSockets: the upgrade, messages in pieces of any size, and all the ways to end. */
#include "node/http/websocket.h"
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/http/http_handlers.h"
#include "tests/unit/http/http_stage.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- a handler: echoes, or does what a message says --- */

static struct websocket *paused;
#define FLOOD      300 /* messages of 100,000 bytes */
#define BUSY_BYTES 200 /* of a message */

static unsigned opens, messages, overs, drains;
static size_t flood_left;

static void flood_on(struct websocket *ws)
{
    thread_expect_loop();
    while (flood_left > 0 && !websocket_is_full(ws)) {
        struct buf b;
        buf_init(&b, SIZE_MAX);
        memset(buf_extend(&b, 100000), 'f', 100000);
        websocket_send_binary(ws, &b);
        buf_fini(&b);
        flood_left--;
    }
}

static void on_open(struct websocket *ws)
{
    (void)ws;
    opens++;
}

static void on_message(struct websocket *ws, bool text, const uint8_t *p, size_t n)
{
    struct buf b;
    thread_expect_loop();
    messages++;
    if (n == 5 && memcmp(p, "close", 5) == 0) {
        websocket_close(ws, WEBSOCKET_POLICY, "because");
        return;
    }
    if (n == 5 && memcmp(p, "pause", 5) == 0) {
        paused = ws;
        websocket_pause(ws);
    }
    if (n == 5 && memcmp(p, "flood", 5) == 0) {
        flood_left = FLOOD;
        flood_on(ws);
        return;
    }
    if (n == BUSY_BYTES) /* keeps the loop for a millisecond */
        for (uint64_t begun = uv_hrtime(); uv_hrtime() - begun < 1000000;)
            ;
    buf_init(&b, SIZE_MAX);
    buf_put(&b, p, n);
    if (text)
        websocket_send_text(ws, &b);
    else
        websocket_send_binary(ws, &b);
    buf_fini(&b);
}

static void on_drain(struct websocket *ws)
{
    drains++;
    flood_on(ws);
}

static void on_over(struct websocket *ws)
{
    overs++;
    if (paused == ws)
        paused = NULL;
}

static const char *const protocols[] = {"hrana3", "hrana2", "hrana1", NULL};
static const struct websocket_handler echo = {.protocols = protocols,
                                              .on_open = on_open,
                                              .on_message = on_message,
                                              .on_drain = on_drain,
                                              .on_over = on_over};

/* --- a client --- */

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* RFC 6455, 1.3 */
#define HEAD                                                                                       \
    "GET /any/path HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, "          \
    "Upgrade\r\n"
#define GOOD HEAD "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n"

static struct router router;

static struct http_options options(void)
{
    struct http_options o = http_options_default();
    router = test_router;
    router.websockets = &echo;
    o.router = &router;
    o.body_max = 1000000;
    return o;
}

static void open_stage(struct http_stage *s)
{
    stage_open(s, options());
}

static int open_socket(struct http_stage *s)
{
    int fd = client_dial(s);
    client_say_text(s, fd, GOOD "\r\n");
    char *a = client_hear(s, fd, "\r\n\r\n", NULL);
    EXPECT(strncmp(a, "HTTP/1.1 101 ", 13) == 0);
    free(a);
    return fd;
}

/* One frame of a client: masked. */
static void put_frame(struct buf *b, uint8_t first, const void *p, size_t n)
{
    static const uint8_t mask[4] = {0x12, 0x34, 0x56, 0x78};
    const uint8_t *bytes = p;
    buf_put_u8(b, first);
    if (n < 126) {
        buf_put_u8(b, (uint8_t)(0x80 | n));
    } else if (n < 65536) {
        buf_put_u8(b, 0x80 | 126);
        buf_put_u8(b, (uint8_t)(n >> 8));
        buf_put_u8(b, (uint8_t)n);
    } else {
        buf_put_u8(b, 0x80 | 127);
        for (int i = 7; i >= 0; i--)
            buf_put_u8(b, (uint8_t)((uint64_t)n >> (8 * i)));
    }
    buf_put(b, mask, 4);
    for (size_t i = 0; i < n; i++)
        buf_put_u8(b, bytes[i] ^ mask[i % 4]);
}

/* Says frames, hears until the end; returns what came, *CODE of the close or 0. */
static char *say_frames(struct http_stage *s, struct buf *b, size_t piece, unsigned *code,
                        size_t *n)
{
    int fd = open_socket(s);
    client_say(s, fd, b->data, b->len, piece);
    char *a = client_hear_all(s, fd, n);
    *code = 0;
    for (size_t at = 0; at + 2 <= *n;) { /* of frames below 64 KiB */
        size_t len = (uint8_t)a[at + 1], head = 2;
        if (len == 126) {
            len = (size_t)(uint8_t)a[at + 2] << 8 | (uint8_t)a[at + 3];
            head = 4;
        }
        if ((uint8_t)a[at] == 0x88 && len >= 2)
            *code = (unsigned)((uint8_t)a[at + 2] << 8 | (uint8_t)a[at + 3]);
        at += head + len;
    }
    (void)close(fd);
    stage_turn(s);
    return a;
}

TEST(websocket_opens_as_the_rfc_says)
{
    static const struct {
        const char *more, *answer, *protocol;
    } asks[] = {
        {"", "HTTP/1.1 101 ", NULL},
        {"Sec-WebSocket-Protocol: hrana2,hrana1\r\n", "HTTP/1.1 101 ", "hrana2"},
        {"Sec-WebSocket-Protocol: x, hrana1 ,hrana3\r\n", "HTTP/1.1 101 ", "hrana1"},
        {"Sec-WebSocket-Protocol: x, y\r\n", "HTTP/1.1 400 ", NULL},
        {"Sec-WebSocket-Protocol: hrana\r\n", "HTTP/1.1 400 ", NULL},
        {"Sec-WebSocket-Extensions: permessage-deflate\r\n", "HTTP/1.1 101 ", NULL},
        {"Content-Length: 0\r\n", "HTTP/1.1 101 ", NULL},
        {"Content-Length: 3\r\n", "HTTP/1.1 400 ", NULL},
    };
    struct http_stage s;
    open_stage(&s);
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        char protocol[64] = "";
        int fd = client_dial(&s);
        client_say_text(&s, fd, GOOD);
        client_say_text(&s, fd, asks[i].more);
        client_say_text(&s, fd, "\r\n");
        char *a = client_hear(&s, fd, "\r\n\r\n", NULL);
        EXPECT(strncmp(a, asks[i].answer, 13) == 0);
        if (strstr(a, "101") != NULL)
            EXPECT(strstr(a, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") != NULL);
        if (asks[i].protocol != NULL)
            (void)snprintf(protocol, sizeof protocol, "sec-websocket-protocol: %s\r\n",
                           asks[i].protocol);
        EXPECT(strstr(a, protocol) != NULL);
        EXPECT(asks[i].protocol != NULL || strstr(a, "sec-websocket-protocol") == NULL);
        EXPECT(strstr(a, "sec-websocket-extensions") == NULL);
        free(a);
        (void)close(fd);
    }
    stage_close(&s);
    EXPECT_EQ(opens, overs);
}

TEST(websocket_refuses_a_wrong_upgrade)
{
    static const struct {
        const char *request;
        int status;
    } asks[] = {
        {HEAD "Sec-WebSocket-Key: " KEY "\r\n\r\n", 426},
        {HEAD "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: " KEY "\r\n\r\n", 426},
        {HEAD "Sec-WebSocket-Version: 13\r\n\r\n", 400},
        {HEAD "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n", 400},
        {HEAD "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=!\r\n\r\n",
         400},
        {GOOD "Origin: https://evil.example\r\n\r\n", 403},
        /* No upgrade at all, and an unknown path. */
        {"GET /any HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", 404},
        {"GET /any HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 404},
    };
    struct http_stage s;
    open_stage(&s);
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        char line[32];
        int fd = client_dial(&s);
        client_say_text(&s, fd, asks[i].request);
        char *a = client_hear(&s, fd, "\"code\"", NULL);
        (void)snprintf(line, sizeof line, "HTTP/1.1 %d ", asks[i].status);
        if (strncmp(a, line, 13) != 0)
            test_fail(__FILE__, __LINE__, "%zu: %s", i, a);
        EXPECT(asks[i].status != 426 || strstr(a, "sec-websocket-version: 13\r\n") != NULL);
        free(a);
        (void)close(fd);
    }
    EXPECT_EQ(opens, 0);
    stage_close(&s);
}

TEST(websocket_goes_on_over_http_when_another_protocol_is_offered)
{
    struct http_stage s;
    open_stage(&s);
    int fd = client_dial(&s);
    client_say_text(&s, fd,
                    "GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
                    "GET /echo?2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    char *a = client_hear_all(&s, fd, NULL);
    EXPECT(strstr(a, "query=2") != NULL);
    free(a);
    (void)close(fd);
    stage_close(&s);
}

TEST(websocket_echoes_messages_in_pieces_of_any_size)
{
    struct http_stage s;
    struct buf b;
    static char large[70000];
    open_stage(&s);
    memset(large, 'L', sizeof large);
    buf_init(&b, SIZE_MAX);
    put_frame(&b, 0x81, "hello", 5);
    put_frame(&b, 0x01, "frag", 4);
    put_frame(&b, 0x89, "ping!", 5); /* between fragments */
    put_frame(&b, 0x00, "", 0);
    put_frame(&b, 0x80, "ment", 4);
    put_frame(&b, 0x82, "", 0);
    put_frame(&b, 0x82, large, 300);
    put_frame(&b, 0x8a, "pong", 4);
    put_frame(&b, 0x81, "\xc3\xa4", 2);
    put_frame(&b, 0x88, "\x03\xe8", 2);
    static const size_t pieces[] = {0, 1, 2, 3, 5, 7, 11, 64, 300};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        unsigned code;
        size_t n;
        char *a = say_frames(&s, &b, pieces[i], &code, &n);
        /* A pong may overtake messages. */
        EXPECT(memmem(a, n, "\x8a\x05ping!", 7) != NULL);
        EXPECT(memmem(a, n, "\x81\x05hello", 7) != NULL);
        EXPECT(memmem(a, n,
                      "\x81\x08"
                      "fragment\x82\x00\x82\x7e\x01\x2cLLL",
                      19) != NULL);
        EXPECT(code == 1000);
        EXPECT(memcmp(a + n - 8, "\x81\x02\xc3\xa4\x88\x02\x03\xe8", 8) == 0);
        free(a);
    }
    EXPECT_EQ(messages, 5 * (sizeof pieces / sizeof pieces[0]));
    EXPECT_EQ(overs, sizeof pieces / sizeof pieces[0]);
    buf_reset(&b);
    put_frame(&b, 0x82, large, sizeof large);
    int fd = open_socket(&s);
    client_say(&s, fd, b.data, b.len, 1000);
    char *a = client_hear(&s, fd, "LLLLLLLLLL", NULL);
    free(a);
    (void)close(fd);
    buf_fini(&b);
    stage_close(&s);
}

TEST(websocket_ends_what_is_broken_with_its_code)
{
    static const struct {
        const char *name;
        uint8_t first;
        const char *bytes;
        size_t n;
        unsigned code;
    } broken[] = {
        {"an extension's bit", 0xc1, "x", 1, 1002},
        {"a reserved opcode", 0x83, "x", 1, 1002},
        {"a reserved control", 0x8b, "x", 1, 1002},
        {"a continuation of nothing", 0x80, "x", 1, 1002},
        {"a ping in pieces", 0x09, "x", 1, 1002},
        {"a close of one byte", 0x88, "x", 1, 0},
        {"a close with a wrong code", 0x88, "\x03\xed", 2, 1002},
        {"bad text", 0x81, "\xff\x41", 2, 1007},
        {"text that stops in a character", 0x81, "\xe2\x82", 2, 1007},
        {"a surrogate", 0x81, "\xed\xa0\x80", 3, 1007},
    };
    struct http_stage s;
    struct buf b;
    unsigned code;
    size_t n;
    open_stage(&s);
    buf_init(&b, SIZE_MAX);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
        for (size_t piece = 0; piece < 2; piece++) {
            buf_reset(&b);
            put_frame(&b, broken[i].first, broken[i].bytes, broken[i].n);
            put_frame(&b, 0x81, "after", 5);
            char *a = say_frames(&s, &b, piece, &code, &n);
            if (code != broken[i].code)
                test_fail(__FILE__, __LINE__, "%s: %u", broken[i].name, code);
            free(a);
        }
    /* Unmasked. */
    buf_reset(&b);
    buf_put(&b, "\x81\x05hello", 7);
    free(say_frames(&s, &b, 0, &code, &n));
    EXPECT_EQ(code, 1002);
    EXPECT_EQ(messages, 0);
    EXPECT_EQ(opens, overs);
    buf_fini(&b);
    stage_close(&s);
}

TEST(websocket_limits_messages)
{
    struct http_stage s;
    struct buf b;
    unsigned code;
    size_t n;
    static char part[500001];
    open_stage(&s);
    buf_init(&b, SIZE_MAX);
    /* By its head alone. */
    put_frame(&b, 0x82, "", 0);
    b.data[1] = 0x80 | 127;
    b.len = 2;
    buf_put(&b, "\0\0\0\0\x10\0\0\0mask.", 13);
    free(say_frames(&s, &b, 0, &code, &n));
    EXPECT_EQ(code, 1009);
    /* In parts. */
    buf_reset(&b);
    put_frame(&b, 0x02, part, sizeof part);
    put_frame(&b, 0x80, part, sizeof part);
    free(say_frames(&s, &b, 0, &code, &n));
    EXPECT_EQ(code, 1009);
    EXPECT_EQ(messages, 0);
    buf_fini(&b);
    stage_close(&s);
}

TEST(websocket_refuses_messages_when_memory_is_short)
{
    struct http_stage s;
    struct buf b;
    unsigned code;
    size_t n, others = 0;
    static char large[900000];
    open_stage(&s);
    thread_expect_loop();
    waiting_set(&s.waiting, &others, s.waiting.limit);
    buf_init(&b, SIZE_MAX);
    put_frame(&b, 0x82, large, sizeof large);
    free(say_frames(&s, &b, 0, &code, &n));
    EXPECT_EQ(code, 1013);
    EXPECT_EQ(messages, 0);
    waiting_set(&s.waiting, &others, 0);
    buf_fini(&b);
    stage_close(&s);
}

/* FD, to which nothing but empty messages was said, is told that it was too slow. */
static void expect_late(struct http_stage *s, int fd)
{
    size_t n;
    char *a = client_hear(s, fd, "in time", &n);
    size_t at = 0; /* behind the empty messages that were answered */
    while (at + 4 < n && a[at + 1] == 0)
        at += 2;
    uint8_t close_head[] = {0x88, (uint8_t)(n - at - 2), 1008 >> 8, 1008 & 255};
    EXPECT(memcmp(a + at, close_head, sizeof close_head) == 0);
    free(a);
    (void)close(fd);
    stage_turn(s);
}

/* Who begins a message and does not go on takes its memory for no longer than a body's sender. */
TEST(websocket_waits_for_the_rest_of_a_message_as_for_a_body)
{
    struct http_stage s;
    struct http_options o = options();
    struct buf b;
    static char large[900000];
    o.body_ms = 1500;
    stage_open(&s, o);
    buf_init(&b, SIZE_MAX);
    put_frame(&b, 0x82, large, sizeof large);
    unsigned before = messages;
    int idle = open_socket(&s), steady = open_socket(&s), most = open_socket(&s),
        head = open_socket(&s), fragment = open_socket(&s), small = open_socket(&s);
    client_say(&s, most, b.data, b.len - 1, 0);
    client_say(&s, head, b.data, 1, 0);
    client_say(&s, fragment, "\x02\x80mask", 6, 0);
    buf_reset(&b);
    put_frame(&b, 0x82, large, 20000);
    size_t sent = 0;
    for (unsigned i = 0; i < 20; i++) {
        /* 1 KiB and more in each of its waits; and messages that end, each with the next one's
         * beginning. */
        size_t part = b.len / 20 + 1;
        client_say(&s, steady, b.data + sent, sent + part < b.len ? part : b.len - sent, 0);
        sent += part;
        client_say(&s, small, i == 0 ? "\x81" : "\x80mask\x81", i == 0 ? 1 : 6, 0);
        stage_for(&s, 90);
    }
    EXPECT_EQ(messages - before, 1 + 19);
    expect_late(&s, most);
    expect_late(&s, head);
    expect_late(&s, fragment);
    expect_late(&s, small);
    /* Who said nothing yet, or all, may wait. */
    buf_reset(&b);
    put_frame(&b, 0x81, "close", 5);
    client_say(&s, idle, b.data, b.len, 0);
    client_say(&s, steady, b.data, b.len, 0);
    free(client_hear(&s, idle, "because", NULL));
    free(client_hear(&s, steady, "because", NULL));
    (void)close(idle);
    (void)close(steady);
    buf_fini(&b);
    stage_close(&s);
}

/* While we do not read, a client may not be blamed for what does not come. */
TEST(websocket_does_not_wait_for_what_it_does_not_read)
{
    struct http_stage s;
    struct http_options o = options();
    struct buf b;
    o.body_ms = 100;
    stage_open(&s, o);
    buf_init(&b, SIZE_MAX);
    put_frame(&b, 0x81, "pause", 5);
    put_frame(&b, 0x81, "then this", 9);
    int fd = open_socket(&s);
    client_say(&s, fd, b.data, b.len - 4, 0);
    EXPECT(paused != NULL);
    client_say(&s, fd, b.data + b.len - 4, 4, 0);
    stage_for(&s, 400);
    thread_expect_loop();
    EXPECT(paused != NULL);
    websocket_resume(paused);
    free(client_hear(&s, fd, "then this", NULL));
    (void)close(fd);
    buf_fini(&b);
    stage_close(&s);
}

TEST(websocket_closes_from_here)
{
    struct http_stage s;
    struct buf b;
    open_stage(&s);
    buf_init(&b, SIZE_MAX);
    put_frame(&b, 0x81, "close", 5);
    put_frame(&b, 0x81, "after", 5);
    int fd = open_socket(&s);
    client_say(&s, fd, b.data, b.len, 0);
    char *a = client_hear(&s, fd, "because", NULL);
    EXPECT(memcmp(a,
                  "\x88\x09\x03\xf0"
                  "because",
                  11) == 0);
    EXPECT(messages == 1 && overs == 0); /* waits for the client's close */
    free(a);
    buf_reset(&b);
    put_frame(&b, 0x88, "\x03\xf0", 2);
    client_say(&s, fd, b.data, b.len, 0);
    EXPECT(client_is_ended(&s, fd));
    EXPECT_EQ(overs, 1);
    (void)close(fd);
    buf_fini(&b);
    stage_close(&s);
}

TEST(websocket_stops_reading_while_its_handler_is_busy)
{
    struct http_stage s;
    struct buf b;
    enum { N = 100000 };
    open_stage(&s);
    buf_init(&b, SIZE_MAX);
    put_frame(&b, 0x81, "pause", 5);
    for (unsigned i = 0; i < N; i++)
        put_frame(&b, 0x81, "number", 6);
    int fd = open_socket(&s);
    size_t sent = 0;
    for (unsigned i = 0; i < 100 && sent < b.len; i++) {
        ssize_t n = write(fd, b.data + sent, b.len - sent);
        sent += n > 0 ? (size_t)n : 0;
        stage_turn(&s);
    }
    EXPECT(paused != NULL && messages < 1000);
    unsigned before = messages;
    stage_for(&s, 20);
    EXPECT_EQ(messages, before);
    thread_expect_loop();
    websocket_resume(paused);
    client_say(&s, fd, b.data + sent, b.len - sent, 0);
    for (unsigned i = 0; i < 1000 && messages < N + 1; i++) {
        char room[65536];
        while (read(fd, room, sizeof room) > 0)
            ;
        stage_for(&s, 1);
    }
    EXPECT_EQ(messages, N + 1);
    (void)close(fd);
    buf_fini(&b);
    stage_close(&s);
}

TEST(websocket_gives_the_others_their_turn)
{
    static const char busy[BUSY_BYTES];
    enum { SENT = 300 };
    struct http_stage s;
    struct buf b;
    open_stage(&s);
    buf_init(&b, SIZE_MAX);
    for (unsigned i = 0; i < SENT; i++)
        put_frame(&b, 0x82, busy, sizeof busy);
    put_frame(&b, 0x88, "\x03\xe8", 2);
    int fd = open_socket(&s);
    EXPECT(write(fd, b.data, b.len) == (ssize_t)b.len);
    while (messages == 0)
        stage_turn(&s);
    EXPECT(messages < SENT / 3);
    size_t n;
    free(client_hear_all(&s, fd, &n));
    EXPECT(messages == SENT && n == SENT * (4 + BUSY_BYTES) + 4);
    (void)close(fd);
    buf_fini(&b);
    stage_close(&s);
}

TEST(websocket_waits_for_a_client_that_takes_nothing)
{
    struct http_stage s;
    struct buf b;
    open_stage(&s);
    buf_init(&b, SIZE_MAX);
    put_frame(&b, 0x81, "flood", 5);
    int fd = open_socket(&s);
    client_say(&s, fd, b.data, b.len, 0);
    stage_for(&s, 30);
    EXPECT(flood_left > 0 && s.waiting.bytes < 600000);
    size_t got = 0;
    for (unsigned i = 0; i < 100000 && got < FLOOD * 100010; i++) {
        char room[65536];
        ssize_t n = read(fd, room, sizeof room);
        got += n > 0 ? (size_t)n : 0;
        stage_turn(&s);
    }
    EXPECT_EQ(got, FLOOD * 100010);
    EXPECT(drains > 0);
    (void)close(fd);
    buf_fini(&b);
    stage_close(&s);
}

TEST(websocket_says_goodbye_when_the_node_stops)
{
    struct http_stage s;
    open_stage(&s);
    int fd = open_socket(&s), late = client_dial(&s);
    thread_expect_loop();
    http_listener_refuse(s.listener);
    char *a = client_hear(&s, fd, "stops", NULL);
    EXPECT(memcmp(a, "\x88\x11\x03\xe9", 4) == 0);
    free(a);
    EXPECT(http_listener_is_quiet(s.listener));
    client_say_text(&s, late, GOOD "\r\n");
    a = client_hear_all(&s, late, NULL);
    EXPECT(strncmp(a, "HTTP/1.1 503 ", 13) == 0);
    free(a);
    (void)close(late);
    (void)close(fd);
    for (unsigned i = 0; i < 100 && overs == 0; i++)
        stage_for(&s, 10);
    EXPECT_EQ(overs, 1);
    stage_close(&s);
}
