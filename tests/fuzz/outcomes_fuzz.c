/* Room: tests. Fuzz target: the section of a log entry that carries the outcomes of numbered
 * writes. What is read whole is put again: the same bytes must come out; and every outcome can be
 * answered under another request's id without a frame that reaches beyond it. */
#include "base/check.h"
#include "node/outcome_section.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void answer(const struct outcome *done)
{
    struct buf b;
    struct wire_id id = {.stream = 9, .request = UINT32_MAX};
    size_t at = 0;
    buf_init(&b, OUTCOME_ROWS_MAX);
    outcome_put_frames(&b, done, id);
    CHECK(buf_status(&b) == ERR_OK && b.len == done->frames_len);
    while (at < b.len) {
        struct wire_frame f;
        size_t used;
        enum err e = wire_next(b.data + at, b.len - at, OUTCOME_ROWS_MAX, &f, &used);
        CHECK(e == ERR_OK && used > 0);
        CHECK(f.id.stream == id.stream && f.id.request == id.request);
        at += used;
    }
    CHECK(!done->rows_lost || b.len == 0);
    buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rd r = rd_of(data, size);
    struct buf b;
    uint32_t n;
    bool whole = section_get_head(&r, &n) == ERR_OK;
    buf_init(&b, size);
    if (whole)
        section_put_head(&b, n);
    for (uint32_t i = 0; whole && i < n; i++) {
        struct outcome_record o;
        whole = section_get(&r, &o) == ERR_OK;
        if (!whole)
            break;
        CHECK(o.number > o.acked);
        answer(&o.done);
        section_put(&b, &o);
    }
    if (whole && section_get_end(&r) == ERR_OK)
        CHECK(buf_status(&b) == ERR_OK && b.len == size && memcmp(b.data, data, size) == 0);
    buf_fini(&b);
    return 0;
}
