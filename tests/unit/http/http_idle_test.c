/* Room: tests. What a connection costs while nobody says anything on it. */
#include "node/http/websocket.h"
#include "tests/lib/test.h"
#include "tests/unit/http/http_handlers.h"
#include "tests/unit/http/http_stage.h"

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#define IDLE 1000

static void on_message(struct websocket *ws, bool text, const uint8_t *p, size_t n)
{
    struct buf b;
    thread_expect_loop();
    (void)text;
    buf_init(&b, SIZE_MAX);
    buf_put(&b, p, n);
    websocket_send_text(ws, &b);
    buf_fini(&b);
}

static const char *const protocols[] = {NULL};
static const struct websocket_handler quiet = {.protocols = protocols, .on_message = on_message};

/* Opens IDLE connections that have asked something and said REQUEST; bytes of memory of each. */
static size_t cost_of(struct http_stage *s, int *fds, const char *request, const char *wanted)
{
    size_t before = mallinfo2().uordblks;
    for (unsigned i = 0; i < IDLE; i++) {
        fds[i] = client_dial(s);
        client_say_text(s, fds[i], request);
        free(client_hear(s, fds[i], wanted, NULL));
    }
    stage_for(s, 10);
    return (mallinfo2().uordblks - before) / IDLE;
}

static void expect_cheap(const char *request, const char *wanted, size_t most)
{
    struct http_stage s;
    static int fds[IDLE];
    struct http_options o = http_options_default();
    struct router r = test_router;
    r.websockets = &quiet;
    o.router = &r;
    o.connections_max = IDLE;
    stage_open(&s, o);
    size_t bytes = cost_of(&s, fds, request, wanted);
    thread_expect_loop();
    EXPECT_EQ(http_listener_connections(s.listener), IDLE);
    EXPECT_EQ(s.waiting.bytes, 0);
    printf("%zu bytes of memory for each idle connection\n", bytes);
    EXPECT(bytes <= most); /* under a sanitizer: 0 */
    for (unsigned i = 0; i < IDLE; i++)
        (void)close(fds[i]);
    stage_for(&s, 20);
    stage_close(&s);
}

TEST(http_idle_connection_keeps_no_buffer)
{
    expect_cheap("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n", "body=", 1024);
}

TEST(websocket_idle_connection_keeps_no_buffer)
{
    expect_cheap("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                 "\x81\x83mask\x0c\x03\x10",
                 "\x81\x03"
                 "abc",
                 1536);
}
