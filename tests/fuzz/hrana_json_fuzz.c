/* Room: tests. Fuzz target: Hrana's JSON. The first byte chooses the form; the rest is read, up to
 * a zero byte, as a message: what comes out is touched to its last byte and its conditions are
 * walked. What is behind the zero byte is taken for a statement's frames, as a leader elsewhere
 * could send them, and written in all forms: JSON must come out, or an error.
 *
 * Not here: the native frames themselves (wire_client_fuzz.c). */
#include "base/check.h"
#include "base/sizes.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_json.h"
#include "tests/fuzz/hrana_replies.h"
#include "tests/fuzz/touch_hrana.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- reading --- */

static enum err decode(uint8_t form, struct hrana_reader *r)
{
    static hrana_decoder *const decoders[] = {hrana_json_pipeline, hrana_json_pipeline,
                                              hrana_json_cursor,   hrana_json_v1_execute,
                                              hrana_json_v1_batch, hrana_json_statements};
    struct hrana_body body = {0};
    struct hrana_message m = {0};
    if (form >= 6) {
        TRY(hrana_json_message(r, &m));
        touch_message(&m);
        return ERR_OK;
    }
    TRY(decoders[form](r, &body));
    touch_body(&body);
    return ERR_OK;
}

static void read_message(uint8_t form, const uint8_t *p, size_t n)
{
    static const enum hrana_version versions[] = {HRANA_2, HRANA_3, HRANA_3, HRANA_1,
                                                  HRANA_1, HRANA_1, HRANA_1, HRANA_3};
    struct arena a;
    struct hrana_reader r;
    arena_init(&a, MIB(1));
    hrana_reader_init(&r, &hrana_json, versions[form], &a);
    enum err e = hrana_reader_feed(&r, p, n);
    if (e == ERR_OK)
        e = decode(form, &r);
    CHECK(e == ERR_OK || e == ERR_PROTOCOL || e == ERR_TOO_BIG);
    hrana_reader_fini(&r);
    arena_fini(&a);
}

/* --- writing --- */

static void is_json(struct buf *b)
{
    struct arena a;
    const struct json *root;
    CHECK(buf_status(b) == ERR_OK);
    arena_init(&a, MIB(64));
    struct json_reader *r = json_reader_new(&a);
    CHECK(json_feed(r, b->data, b->len) == ERR_OK && json_end(r, &root) == ERR_OK);
    json_reader_free(r);
    arena_fini(&a);
    buf_reset(b);
}

static void write_answer(const uint8_t *p, size_t n)
{
    struct buf frames, out;
    buf_init(&frames, n);
    buf_put(&frames, p, n);
    buf_init(&out, MIB(1));
    struct hrana_replies replies;
    hrana_replies_of(&replies, frames);
    struct hrana_error *error;
    struct hrana_writer w = hrana_writer_of(&hrana_json, &out);
    w.form->begin_pipeline(&w);
    for (size_t i = 0; i < HRANA_REPLIES; i++)
        hrana_write_reply(&w, &replies.all[i]);
    w.form->end_pipeline(&w, NULL, NULL);
    is_json(&out);
    for (size_t i = 0; i < 2; i++) {
        w = hrana_writer_of(&hrana_json, &out);
        hrana_json_put_v1(&w, &replies.all[i], &error);
        CHECK(error == NULL || out.len == 0);
        if (error == NULL)
            is_json(&out);
        hrana_error_free(error);
    }
    w = hrana_writer_of(&hrana_json, &out);
    hrana_json_put_statements(&w, &replies.all[1], &error);
    CHECK(error == NULL || out.len == 0);
    if (error == NULL)
        is_json(&out);
    hrana_error_free(error);
    buf_fini(&frames);
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const uint8_t *zero = memchr(data + 1, 0, size - 1);
    size_t n = zero == NULL ? size - 1 : (size_t)(zero - data - 1);
    read_message(data[0] % 8, data + 1, n);
    if (zero != NULL)
        write_answer(zero + 1, size - n - 2);
    return 0;
}
