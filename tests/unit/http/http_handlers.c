/* Room: tests.   Thread: loop.   Owns: what an exchange's state points to. */
#include "tests/unit/http/http_handlers.h"

#include "base/mem.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

unsigned test_begins, test_bodies, test_overs;
struct exchange *test_later;
size_t test_flood_left;

static void begin(struct exchange *x)
{
    struct buf *b = MEM_NEW(struct buf);
    buf_init(b, SIZE_MAX);
    x->state = b;
    test_begins++;
}

static void body(struct exchange *x, const uint8_t *p, size_t n)
{
    buf_put(x->state, p, n);
    test_bodies++;
}

static void over(struct exchange *x)
{
    if (x->state != NULL)
        buf_fini(x->state);
    free(x->state);
    test_overs++;
    if (test_later == x)
        test_later = NULL;
}

static void echo(struct exchange *x)
{
    struct buf *b = x->state, out;
    thread_expect_loop();
    buf_init(&out, SIZE_MAX);
    buf_printf(&out, "verb=%d path=%s query=%s body=", (int)x->verb, x->path, x->query);
    buf_put(&out, b->data, b->len);
    exchange_answer(x, 200, "text/plain", &out);
    buf_fini(&out);
}

static bool comes_empty(struct exchange *x, const char *param) ON_LOOP
{
    char value[16] = "?";
    return exchange_param(x, param, value, sizeof value) && value[0] == 0;
}

static void headers(struct exchange *x)
{
    struct buf out;
    char a[32] = "";
    thread_expect_loop();
    buf_init(&out, SIZE_MAX);
    EXPECT(exchange_param(x, "a", a, sizeof a));
    buf_printf(&out, "one=<%s> empty=<%s> none=%d a=<%s> bad=%d zero=%d long=%d none=%d end",
               exchange_header(x, "x-one"), exchange_header(x, "x-empty"),
               exchange_header(x, "x-none") != NULL, a, comes_empty(x, "bad"),
               comes_empty(x, "zero"), comes_empty(x, "long"), comes_empty(x, "none"));
    exchange_answer(x, 200, "text/plain", &out);
    buf_fini(&out);
}

static void word(struct exchange *x)
{
    struct buf out;
    thread_expect_loop();
    test_begins++;
    buf_init(&out, SIZE_MAX);
    buf_printf(&out, "version");
    exchange_answer(x, 200, "text/plain", &out);
    buf_fini(&out);
}

static void put_piece(struct exchange *x)
{
    struct buf out;
    thread_expect_loop();
    buf_init(&out, SIZE_MAX);
    buf_printf(&out, "piece ");
    exchange_put(x, &out);
    buf_fini(&out);
}

static void stream(struct exchange *x)
{
    thread_expect_loop();
    exchange_begin(x, 200, "text/plain");
    for (int i = 0; i < x->query[0] - '0'; i++)
        put_piece(x);
    exchange_finish(x);
}

static void broken(struct exchange *x)
{
    thread_expect_loop();
    exchange_begin(x, 200, "text/plain");
    put_piece(x);
    exchange_break(x);
}

static void half(struct exchange *x)
{
    thread_expect_loop();
    exchange_begin(x, 200, "text/plain");
    put_piece(x);
    test_later = x;
}

static void words(struct exchange *x)
{
    struct buf out;
    thread_expect_loop();
    buf_init(&out, SIZE_MAX);
    memset(buf_extend(&out, TEST_WORDS_BYTES), 'w', TEST_WORDS_BYTES);
    exchange_answer(x, 200, "text/plain", &out);
    buf_fini(&out);
}

static void flood_on(struct exchange *x)
{
    thread_expect_loop();
    while (test_flood_left > 0 && !exchange_is_full(x)) {
        struct buf out;
        size_t n = test_flood_left < TEST_FLOOD_PIECE ? test_flood_left : TEST_FLOOD_PIECE;
        buf_init(&out, SIZE_MAX);
        memset(buf_extend(&out, n), 'f', n);
        exchange_put(x, &out);
        buf_fini(&out);
        test_flood_left -= n;
    }
    if (test_flood_left == 0)
        exchange_finish(x);
}

static void flood(struct exchange *x)
{
    thread_expect_loop();
    test_flood_left = TEST_FLOOD_BYTES;
    exchange_begin(x, 200, "text/plain");
    flood_on(x);
}

static void large(struct exchange *x)
{
    struct buf out;
    thread_expect_loop();
    buf_init(&out, SIZE_MAX);
    memset(buf_extend(&out, TEST_FLOOD_BYTES), 'l', TEST_FLOOD_BYTES);
    exchange_answer(x, 200, "text/plain", &out);
    buf_fini(&out);
}

static void busy(struct exchange *x)
{
    uint64_t begun = uv_hrtime();
    while (uv_hrtime() - begun < 1000000)
        ;
    echo(x);
}

static void later(struct exchange *x)
{
    test_later = x;
}

void test_answer_later(void)
{
    EXPECT(test_later != NULL);
    echo(test_later);
}

static const struct handler echo_handler = {
    .on_begin = begin, .on_body = body, .on_end = echo, .on_over = over};
static const struct handler data_handler = {
    .on_begin = begin, .on_body = body, .on_end = echo, .on_over = over, .gives_data = true};
static const struct handler early_handler = {.on_begin = word, .on_body = body, .on_over = over};
static const struct handler headers_handler = {
    .on_begin = begin, .on_body = body, .on_end = headers, .on_over = over};
static const struct handler stream_handler = {
    .on_begin = begin, .on_body = body, .on_end = stream, .on_over = over};
static const struct handler broken_handler = {
    .on_begin = begin, .on_body = body, .on_end = broken, .on_over = over};
static const struct handler half_handler = {
    .on_begin = begin, .on_body = body, .on_end = half, .on_over = over};
static const struct handler words_handler = {
    .on_begin = begin, .on_body = body, .on_end = words, .on_over = over};
static const struct handler flood_handler = {
    .on_begin = begin, .on_body = body, .on_end = flood, .on_drain = flood_on, .on_over = over};
static const struct handler large_handler = {
    .on_begin = begin, .on_body = body, .on_end = large, .on_over = over, .only_tells = true};
static const struct handler busy_handler = {
    .on_begin = begin, .on_body = body, .on_end = busy, .on_over = over};
static const struct handler later_handler = {
    .on_begin = begin, .on_body = body, .on_end = later, .on_over = over};

static const struct route routes[] = {{HTTP_VERB_GET, "/echo", &echo_handler},
                                      {HTTP_VERB_POST, "/echo", &echo_handler},
                                      {HTTP_VERB_GET, "/data", &data_handler},
                                      {HTTP_VERB_POST, "/early", &early_handler},
                                      {HTTP_VERB_GET, "/version", &early_handler},
                                      {HTTP_VERB_GET, "/headers", &headers_handler},
                                      {HTTP_VERB_GET, "/stream", &stream_handler},
                                      {HTTP_VERB_GET, "/broken", &broken_handler},
                                      {HTTP_VERB_GET, "/half", &half_handler},
                                      {HTTP_VERB_GET, "/words", &words_handler},
                                      {HTTP_VERB_GET, "/flood", &flood_handler},
                                      {HTTP_VERB_GET, "/large", &large_handler},
                                      {HTTP_VERB_GET, "/busy", &busy_handler},
                                      {HTTP_VERB_GET, "/later", &later_handler},
                                      {HTTP_VERB_GET, "/dev/:name/echo", &echo_handler},
                                      {HTTP_VERB_GET, "/below/...", &echo_handler},
                                      {HTTP_VERB_OTHER, NULL, NULL}};
const struct router test_router = {.routes = routes};
