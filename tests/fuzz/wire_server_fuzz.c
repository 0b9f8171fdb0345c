/* Room: tests. Fuzz target: what a node reads from a client. Any bytes as a stream of frames; each
 * goes to the getter of its type, and requests are put again: the same bytes must come out, so that
 * the decoder can have lost, invented or mixed up nothing.
 *
 * Not here: what a client reads (wire_client_fuzz.c); mutation without a fuzzer (wire_test.c). */
#include "base/check.h"
#include "base/sizes.h"
#include "client/wire.h"
#include "client/wire_cluster.h"
#include "client/wire_image.h"
#include "tests/fuzz/touch.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* BYTES are the whole frame as it came. */
static void same(const struct buf *b, const uint8_t *bytes, size_t n)
{
    CHECK(buf_status(b) == ERR_OK && b->len == n && memcmp(b->data, bytes, n) == 0);
}

static void put_statement(struct buf *b, struct rd *statements)
{
    struct wire_statement s;
    enum err e = wire_get_statement(statements, &s);
    CHECK(e == ERR_OK);
    size_t begun = wire_begin_statement(b, s.keep, s.sql, s.sql_len);
    for (uint32_t i = 0; i < s.n_params; i++) {
        struct wire_value v;
        const char *name;
        size_t n;
        e = wire_get_param(&s.params, &name, &n, &v);
        CHECK(e == ERR_OK);
        buf_put_str(b, name, n);
        wire_put_value(b, &v);
    }
    CHECK(rd_left(&s.params) == 0);
    wire_end_statement(b, begun, s.n_params);
}

static void one_query(struct wire_frame *f, const uint8_t *bytes, size_t n)
{
    struct wire_query q;
    struct buf b;
    if (wire_get_query(f, &q) != ERR_OK)
        return;
    buf_init(&b, n);
    size_t begun = wire_begin_query(&b, f->type, f->id, &q);
    for (uint32_t i = 0; i < q.n_statements; i++)
        put_statement(&b, &q.statements);
    CHECK(rd_left(&q.statements) == 0);
    wire_end_query(&b, begun, q.n_statements);
    same(&b, bytes, n);
    buf_fini(&b);
}

static void one_cluster(struct wire_frame *f, const uint8_t *bytes, size_t n)
{
    struct wire_cluster w;
    struct buf b;
    if (wire_get_cluster(f, &w) != ERR_OK)
        return;
    CHECK(strnlen(w.address, sizeof w.address) < sizeof w.address);
    buf_init(&b, n);
    wire_put_cluster(&b, f->id, &w);
    same(&b, bytes, n);
    buf_fini(&b);
}

static void one_hello(struct wire_frame *f)
{
    struct wire_hello h;
    struct wire_error error = {.code = ERR_VERSION};
    struct buf b;
    enum err e = wire_get_hello(f, &h);
    if (e == ERR_OK) {
        touch(h.client, h.client_len);
        touch(h.database, h.database_len);
    } else if (e == ERR_VERSION) {
        buf_init(&b, KIB(1));
        error.message = err_text();
        error.message_len = strlen(error.message);
        wire_put_error_v1(&b, &error);
        CHECK(buf_status(&b) == ERR_OK && (h.version != WIRE_VERSION || f->id.request != 0));
        buf_fini(&b);
    }
}

static void one_number(struct wire_frame *f, const uint8_t *bytes, size_t n)
{
    uint32_t number;
    struct buf b;
    buf_init(&b, WIRE_HEAD_BYTES + 4);
    if (f->type == WIRE_CREDIT && wire_get_credit(f, &number) == ERR_OK && f->id.request == 0) {
        wire_put_credit(&b, f->id.stream, number);
        same(&b, bytes, n);
    } else if (f->type == WIRE_FORGET && wire_get_forget(f, &number) == ERR_OK &&
               f->id.request == 0) {
        wire_put_forget(&b, number);
        same(&b, bytes, n);
    }
    buf_fini(&b);
}

static void one_image(struct wire_frame *f)
{
    struct rd r;
    uint32_t first, n;
    bool pin;
    if (f->type == WIRE_IMAGE_BEGIN && wire_get_image_begin(f, &pin) == ERR_OK)
        touch(&pin, sizeof pin);
    else if (f->type == WIRE_IMAGE_ASK_HASHES && wire_get_image_ask_hashes(f, &first, &n) == ERR_OK)
        CHECK(first > 0 && n > 0 && n <= WIRE_IMAGE_HASHES_MAX);
    else if (f->type == WIRE_IMAGE_ASK_PAGES && wire_get_image_ask_pages(f, &r, &n) == ERR_OK)
        touch(r.p, 4 * (size_t)n);
}

static void one_frame(struct wire_frame *f, const uint8_t *bytes, size_t n)
{
    if (f->type == WIRE_HELLO)
        one_hello(f);
    else if (f->type == WIRE_QUERY || f->type == WIRE_BATCH || f->type == WIRE_DESCRIBE)
        one_query(f, bytes, n);
    else if (f->type == WIRE_CLUSTER)
        one_cluster(f, bytes, n);
    else if (f->type == WIRE_CREDIT || f->type == WIRE_FORGET)
        one_number(f, bytes, n);
    else if (f->type >= WIRE_IMAGE_BEGIN && f->type <= WIRE_IMAGE_ASK_PAGES)
        one_image(f);
    else if (wire_get_nothing(f) == ERR_OK)
        CHECK(n == WIRE_HEAD_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (;;) {
        struct wire_frame f;
        size_t used;
        if (wire_next(data, size, WIRE_FRAME_MAX, &f, &used) != ERR_OK || used == 0)
            return 0;
        CHECK(used <= size);
        one_frame(&f, data, used);
        data += used;
        size -= used;
    }
}
