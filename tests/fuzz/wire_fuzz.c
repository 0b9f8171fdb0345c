/* Room: tests. Fuzzing of the native protocol's decoders: any bytes as a stream of frames, every
 * getter on every frame. A crash, a sanitizer's report or a CHECK is a finding.
 *
 * Not here: random mutation without a fuzzer (tests/unit/client/wire_test.c). */
#include "base/check.h"
#include "base/sizes.h"
#include "client/wire.h"
#include "client/wire_cluster.h"
#include "client/wire_image.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte of a borrowed range, so that a wrong one is seen by the sanitizer. */
static void touch(const void *p, size_t n)
{
    volatile uint8_t sum = 0;
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + bytes[i]);
}

static void one_query(struct wire_frame f)
{
    struct wire_query q;
    if (wire_get_query(&f, &q) != ERR_OK)
        return;
    touch(q.sql, q.sql_len);
    for (uint32_t i = 0; i < q.n_params; i++) {
        struct wire_value v;
        const char *name;
        size_t n;
        CHECK(wire_get_param(&q.params, &name, &n, &v) == ERR_OK);
        touch(name, n);
        if (v.type == WIRE_TEXT || v.type == WIRE_BLOB)
            touch(v.text.bytes, v.text.len);
    }
    CHECK(rd_left(&q.params) == 0);
}

static void one_cluster(struct wire_frame f)
{
    struct wire_cluster w;
    if (wire_get_cluster(&f, &w) == ERR_OK)
        CHECK(strnlen(w.address, sizeof w.address) < sizeof w.address);
}

static void one_image(struct wire_frame f)
{
    struct wire_frame copy = f;
    struct wire_image w;
    struct wire_image_pages p;
    struct rd r;
    uint32_t first, n;
    bool pin;
    if (wire_get_image_begin(&copy, &pin) == ERR_OK)
        touch(&pin, sizeof pin);
    copy = f;
    if (wire_get_image(&copy, &w) == ERR_OK)
        touch(w.record, w.record_len);
    copy = f;
    if (wire_get_image_ask_hashes(&copy, &first, &n) == ERR_OK)
        CHECK(first > 0 && n <= WIRE_IMAGE_HASHES_MAX);
    copy = f;
    if (wire_get_image_ask_pages(&copy, &r, &n) == ERR_OK)
        touch(r.p, 4 * (size_t)n);
    copy = f;
    if (wire_get_image_hashes(&copy, &first, &n, &r) == ERR_OK)
        touch(r.p, 8 * (size_t)n);
    copy = f;
    if (wire_get_image_pages(&copy, &p) == ERR_OK)
        touch(p.pages.p, p.n * (size_t)(4 + p.page_size));
}

static void one_frame(struct wire_frame f)
{
    struct wire_frame copy = f;
    struct wire_hello h;
    struct wire_welcome w;
    struct wire_error e;
    struct wire_done d;
    one_query(f);
    one_cluster(f);
    one_image(f);
    if (wire_get_hello(&copy, &h) == ERR_OK)
        touch(h.client, h.client_len);
    copy = f;
    if (wire_get_welcome(&copy, &w) == ERR_OK)
        touch(w.sqlite, w.sqlite_len);
    copy = f;
    if (wire_get_error(&copy, &e) == ERR_OK) {
        CHECK(e.code != ERR_OK);
        touch(e.message, e.message_len);
    }
    copy = f;
    if (wire_get_done(&copy, &d) == ERR_OK)
        touch(&d, sizeof d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (;;) {
        struct wire_frame f;
        size_t used;
        if (wire_next(data, size, WIRE_FRAME_MAX, &f, &used) != ERR_OK || used == 0)
            return 0;
        CHECK(used <= size);
        one_frame(f);
        data += used;
        size -= used;
    }
}
