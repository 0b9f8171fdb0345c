/* Room: tests. Fuzz target: what a node reads from a WebSocket's client, behind its upgrade. The
 * bytes are said twice, at once and in pieces: the messages must be the same,
 * none may be over the limit, and nothing may follow the end. */
#include "node/http/websocket.h"
#include "tests/fuzz/http_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf *record;
static unsigned open_now;

static void on_open(struct websocket *ws)
{
    (void)ws;
    open_now++;
}

static void on_message(struct websocket *ws, bool text, const uint8_t *p, size_t n)
{
    struct buf b;
    thread_expect_loop();
    CHECK(n <= 5000 && open_now == 1);
    buf_printf(record, "%d [", text);
    buf_put(record, p, n);
    buf_printf(record, "]\n");
    buf_init(&b, SIZE_MAX);
    buf_put(&b, p, n);
    if (n > 0 && p[0] == 'c')
        websocket_close(ws, WEBSOCKET_NORMAL, "asked for");
    else if (text)
        websocket_send_text(ws, &b);
    else
        websocket_send_binary(ws, &b);
    buf_fini(&b);
}

static void on_over(struct websocket *ws)
{
    (void)ws;
    CHECK(open_now == 1);
    open_now--;
}

static const char *const protocols[] = {NULL};
static const struct websocket_handler echo = {
    .protocols = protocols, .on_open = on_open, .on_message = on_message, .on_over = on_over};
static const struct route routes[] = {{HTTP_VERB_OTHER, NULL, NULL}};
static const struct router router = {.routes = routes, .websockets = &echo};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char upgrade[] =
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    struct buf whole, pieces;
    if (size < 2 || size > 20000)
        return 0;
    fuzz_open(&router);
    buf_init(&whole, SIZE_MAX);
    buf_init(&pieces, SIZE_MAX);
    record = &whole;
    fuzz_say(upgrade, data + 1, size - 1, size);
    record = &pieces;
    fuzz_say(upgrade, data + 1, size - 1, size < 100 ? 1 : data[0] + size / 500 + 1u);
    CHECK(open_now == 0);
    CHECK(whole.len == pieces.len &&
          (whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0));
    buf_fini(&whole);
    buf_fini(&pieces);
    return 0;
}
