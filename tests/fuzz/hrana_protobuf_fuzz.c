/* Room: tests. Fuzz target: Hrana's Protobuf. Three bytes, the kind of a message and its length;
 * the message, in pieces: what comes out is touched to its last byte and its conditions are walked.
 * What is behind it is taken for a statement's frames, as a leader elsewhere could send them, and
 * written in all answers: Protobuf must come out, or an error in its place.
 *
 * Not here: the native frames themselves (wire_client_fuzz.c). */
#include "base/check.h"
#include "base/sizes.h"
#include "node/http/hrana_protobuf.h"
#include "node/http/protobuf_read.h"
#include "tests/fuzz/hrana_replies.h"
#include "tests/fuzz/touch_hrana.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- reading --- */

static enum err decode(uint8_t kind, struct hrana_reader *r)
{
    struct hrana_body body;
    struct hrana_message m;
    if (kind == 2) {
        TRY(r->form->message(r, &m));
        touch_message(&m);
        return ERR_OK;
    }
    TRY(kind == 0 ? r->form->pipeline(r, &body) : r->form->cursor(r, &body));
    touch_body(&body);
    return ERR_OK;
}

/* PIECE: bytes that come at a time. */
static enum err read_message(uint8_t kind, const uint8_t *p, size_t n, size_t piece)
{
    struct arena a;
    struct hrana_reader r;
    enum err e = ERR_OK;
    arena_init(&a, MIB(1));
    hrana_reader_init(&r, &hrana_protobuf, HRANA_3, &a);
    for (size_t at = 0; at < n && e == ERR_OK; at += piece)
        e = hrana_reader_feed(&r, p + at, n - at < piece ? n - at : piece);
    if (e == ERR_OK)
        e = decode(kind, &r);
    CHECK(e == ERR_OK || e == ERR_PROTOCOL || e == ERR_TOO_BIG);
    hrana_reader_fini(&r);
    arena_fini(&a);
    return e;
}

static uint32_t work;

static struct protobuf whole_of(const void *p, size_t n)
{
    work = PROTOBUF_WORK_MAX;
    return protobuf_of(p, n, &work);
}

/* --- writing --- */

/* Fields of tags from 1 to MOST, to the end. */
static void is_protobuf(struct buf *b, uint32_t most)
{
    CHECK(buf_status(b) == ERR_OK);
    struct protobuf m = whole_of(b->data, b->len);
    while (protobuf_next(&m))
        CHECK(m.tag <= most);
    CHECK(m.status == ERR_OK);
    buf_reset(b);
}

/* The frames as a cursor tells them, up to one that cannot be read. */
static void put_entries(struct hrana_writer *w, const struct buf *frames)
{
    struct wire_frame f;
    struct rd values;
    uint32_t n = 0, rows;
    size_t used;
    for (size_t at = 0; at < frames->len; at += used) {
        if (wire_next(frames->data + at, frames->len - at, WIRE_FRAME_MAX, &f, &used) != ERR_OK ||
            used == 0)
            return;
        if (f.type != WIRE_ROWS) {
            if (hrana_write_step_begin(w, 0, &f, &n) != ERR_OK)
                return;
            continue;
        }
        if (wire_get_rows(&f, n, &rows, &values) != ERR_OK)
            return;
        while (rows-- > 0 && w->out->failed == ERR_OK)
            if (hrana_write_row(w, n, &values) != ERR_OK)
                return;
    }
}

static void write_answer(const uint8_t *p, size_t n)
{
    struct buf frames, out;
    buf_init(&frames, n);
    buf_put(&frames, p, n);
    buf_init(&out, MIB(1));
    struct hrana_replies replies;
    hrana_replies_of(&replies, frames);
    struct hrana_writer w = hrana_writer_of(&hrana_protobuf, &out);
    for (size_t i = 0; i < HRANA_REPLIES; i++)
        hrana_write_reply(&w, &replies.all[i]);
    w.form->end_pipeline(&w, "baton", NULL);
    is_protobuf(&out, 3);
    for (size_t i = 0; i < HRANA_REPLIES; i++) {
        hrana_write_response(&w, (int32_t)n, &replies.all[i]);
        is_protobuf(&out, 4);
    }
    w.form->begin_fetched(&w, 1);
    put_entries(&w, &frames);
    w.form->end_fetched(&w, true);
    if (out.failed == ERR_OK)
        is_protobuf(&out, 3);
    buf_fini(&frames);
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    const uint8_t *p = data + 3;
    uint8_t kind = data[0] % 3;
    size_t left = size - 3, n = get_le16(data + 1);
    if (n > left)
        n = left;
    enum err whole = read_message(kind, p, n, n + 1);
    enum err pieces = read_message(kind, p, n, 7);
    CHECK(pieces == whole || pieces == ERR_TOO_BIG);
    write_answer(p + n, left - n);
    return 0;
}
