/* Room: tests. Fuzz target: what a node reads from an HTTP client. The bytes are said twice, at
 * once and in pieces: the requests that were understood must be the same, whatever a network cuts.
 * Each exchange that begins ends once.   Not here: frames of WebSockets (websocket_fuzz.c). */
#include "base/mem.h"
#include "node/http/exchange.h"
#include "tests/fuzz/http_kit.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf *record; /* of the requests that came whole */
static unsigned begun, over;

static void on_begin(struct exchange *x)
{
    struct buf *b = MEM_NEW(struct buf);
    buf_init(b, 5000);
    x->state = b;
    begun++;
}

static void on_body(struct exchange *x, const uint8_t *p, size_t n)
{
    struct buf *b = x->state;
    CHECK(b->len + n <= 5000);
    buf_put(b, p, n);
}

static void on_end(struct exchange *x)
{
    struct buf *b = x->state, empty;
    char value[64] = "";
    thread_expect_loop();
    (void)exchange_param(x, "q", value, sizeof value);
    CHECK(strlen(value) < sizeof value);
    buf_printf(record, "%d %s?%s %s [", (int)x->verb, x->path, x->query, value);
    buf_put(record, b->data, b->len);
    buf_printf(record, "]\n");
    buf_init(&empty, 1);
    exchange_answer(x, 200, "text/plain", &empty);
}

static void on_over(struct exchange *x)
{
    buf_fini(x->state);
    free(x->state);
    over++;
}

static const struct handler all = {
    .on_begin = on_begin, .on_body = on_body, .on_end = on_end, .on_over = on_over};
static const struct route routes[] = {
    {HTTP_VERB_GET, "/...", &all}, {HTTP_VERB_POST, "/...", &all}, {HTTP_VERB_OTHER, NULL, NULL}};
static const struct router router = {.routes = routes};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, pieces;
    if (size < 2 || size > 20000)
        return 0;
    fuzz_open(&router);
    buf_init(&whole, SIZE_MAX);
    buf_init(&pieces, SIZE_MAX);
    record = &whole;
    fuzz_say("", data + 1, size - 1, size);
    record = &pieces;
    fuzz_say("", data + 1, size - 1, size < 100 ? 1 : data[0] + size / 500 + 1u);
    CHECK(begun == over);
    CHECK(whole.len == pieces.len &&
          (whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0));
    buf_fini(&whole);
    buf_fini(&pieces);
    return 0;
}
