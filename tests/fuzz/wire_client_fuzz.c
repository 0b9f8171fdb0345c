/* Room: tests. Fuzz target: what a client (and a node that fetches an image) reads from a server.
 * Any bytes as a stream of frames; each goes to the getter of its type, ROWS under the COLUMNS that
 * came before. Frames of numbers are put again: the same bytes must come out.
 *
 * Not here: what a node reads (wire_server_fuzz.c). */
#include "base/check.h"
#include "base/sizes.h"
#include "client/wire.h"
#include "client/wire_image.h"
#include "tests/fuzz/touch.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(struct buf *b, const uint8_t *bytes, size_t n)
{
    CHECK(buf_status(b) == ERR_OK && b->len == n && memcmp(b->data, bytes, n) == 0);
    buf_fini(b);
}

static void touch_texts(struct rd r, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        size_t len;
        const char *s = rd_str(&r, &len);
        CHECK(!r.failed);
        touch(s, len);
    }
    CHECK(rd_left(&r) == 0);
}

static void one_rows(struct wire_frame *f, uint32_t width)
{
    struct rd r;
    uint32_t rows;
    if (wire_get_rows(f, width, &rows, &r) != ERR_OK)
        return;
    for (uint64_t i = 0; i < (uint64_t)rows * width; i++) {
        struct wire_value v;
        enum err e = wire_get_value(&r, &v);
        CHECK(e == ERR_OK);
        if (v.type == WIRE_TEXT || v.type == WIRE_BLOB)
            touch(v.text.bytes, v.text.len);
    }
    CHECK(rd_left(&r) == 0);
}

static void one_description(struct wire_frame *f, const uint8_t *bytes, size_t n)
{
    struct wire_description d;
    struct buf b;
    if (wire_get_description(f, &d) != ERR_OK)
        return;
    touch_texts(d.params, d.n_params);
    touch_texts(d.columns, 2ull * d.n_columns);
    buf_init(&b, n);
    wire_put_description(&b, f->id, &d);
    same(&b, bytes, n);
}

static void one_error(struct wire_frame *f, const uint8_t *bytes, size_t n)
{
    struct wire_error e;
    struct buf b;
    uint32_t code = rd_left(&f->body) < 4 ? 0 : get_le32(f->body.p);
    if (wire_get_error(f, &e) != ERR_OK)
        return;
    CHECK(e.code != ERR_OK);
    touch(e.message, e.message_len);
    if ((uint32_t)e.code != code) { /* one that we do not know */
        CHECK(e.code == ERR_PROTOCOL);
        return;
    }
    buf_init(&b, n);
    wire_put_error(&b, f->id, &e);
    same(&b, bytes, n);
}

static void one_welcome(struct wire_frame *f, const uint8_t *bytes, size_t n)
{
    struct wire_welcome w;
    struct buf b;
    if (wire_get_welcome(f, &w) != ERR_OK)
        return;
    touch(w.server, w.server_len);
    touch(w.sqlite, w.sqlite_len);
    if (f->id.request != 0)
        return;
    buf_init(&b, n);
    wire_put_welcome(&b, &w);
    same(&b, bytes, n);
}

static void one_of_numbers(struct wire_frame *f, const uint8_t *bytes, size_t n)
{
    struct wire_step step;
    struct wire_done done;
    struct wire_pong pong;
    struct buf b;
    buf_init(&b, n);
    if (f->type == WIRE_STEP && wire_get_step(f, &step) == ERR_OK)
        wire_put_step(&b, f->id, &step);
    else if (f->type == WIRE_DONE && wire_get_done(f, &done) == ERR_OK)
        wire_put_done(&b, f->id, &done);
    else if (f->type == WIRE_PONG && wire_get_pong(f, &pong) == ERR_OK)
        wire_put_pong(&b, f->id.request, &pong);
    else
        return;
    same(&b, bytes, n);
}

static void one_image(struct wire_frame *f)
{
    struct wire_image w;
    struct wire_image_pages p;
    struct rd r;
    uint32_t first, n;
    if (f->type == WIRE_IMAGE && wire_get_image(f, &w) == ERR_OK)
        touch(w.record, w.record_len);
    else if (f->type == WIRE_IMAGE_HASHES && wire_get_image_hashes(f, &first, &n, &r) == ERR_OK)
        touch(r.p, 8 * (size_t)n);
    else if (f->type == WIRE_IMAGE_PAGES && wire_get_image_pages(f, &p) == ERR_OK)
        touch(p.pages.p, p.n * (size_t)(4 + p.page_size));
}

static void one_frame(struct wire_frame *f, const uint8_t *bytes, size_t n, uint32_t *width)
{
    struct rd columns;
    uint32_t wide;
    if (f->type == WIRE_COLUMNS && wire_get_columns(f, &wide, &columns) == ERR_OK) {
        CHECK(wide > 0 && wide <= SQL_COLUMNS_MAX);
        touch_texts(columns, 2ull * wide);
        *width = wide;
    } else if (f->type == WIRE_ROWS) {
        one_rows(f, *width);
    } else if (f->type == WIRE_DESCRIPTION) {
        one_description(f, bytes, n);
    } else if (f->type == WIRE_ERROR) {
        one_error(f, bytes, n);
    } else if (f->type == WIRE_WELCOME) {
        one_welcome(f, bytes, n);
    } else if (f->type >= WIRE_IMAGE) {
        one_image(f);
    } else {
        one_of_numbers(f, bytes, n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t width = 0;
    for (;;) {
        struct wire_frame f;
        size_t used;
        if (wire_next(data, size, WIRE_FRAME_MAX, &f, &used) != ERR_OK || used == 0)
            return 0;
        CHECK(used <= size);
        one_frame(&f, data, used, &width);
        data += used;
        size -= used;
    }
}
