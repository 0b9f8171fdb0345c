/* Room: tests.   Thread: any.   Owns: nothing.
 * Not here: what is written of them (hrana_json_*_test.c). */
#include "tests/unit/http/hrana_answer.h"

#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

static const struct wire_id id = {.stream = 3, .request = 7};

struct hrana_result *answer_write(int64_t changes, int64_t rowid, uint64_t seq)
{
    struct hrana_result *r = MEM_NEW(struct hrana_result);
    buf_init(&r->frames, MIB(4));
    r->done = (struct wire_done){.seq = seq, .changes = changes, .last_insert_rowid = rowid};
    r->took_us = 1250;
    return r;
}

struct hrana_result *answer_new(uint32_t n, const char *const *names, const char *const *types,
                                uint32_t rows, const struct wire_value *values)
{
    struct hrana_result *r = answer_write(0, 0, 0);
    r->read_only = true;
    size_t begun = wire_begin(&r->frames, WIRE_COLUMNS, id);
    buf_put_u32(&r->frames, n);
    for (uint32_t i = 0; i < n; i++) {
        buf_put_cstr(&r->frames, names[i]);
        buf_put_cstr(&r->frames, types[i]);
    }
    wire_end(&r->frames, begun);
    for (uint32_t row = 0; row < rows; row++) { /* a frame for each: they are joined again */
        begun = wire_begin(&r->frames, WIRE_ROWS, id);
        buf_put_u32(&r->frames, 1);
        for (uint32_t i = 0; i < n; i++)
            wire_put_value(&r->frames, &values[row * n + i]);
        wire_end(&r->frames, begun);
    }
    return r;
}

void answer_free(struct hrana_result *r)
{
    buf_fini(&r->frames);
    free(r);
}

struct hrana_result answer_broken(struct rng *rng, const struct hrana_result *good)
{
    size_t n = rng_once_in(rng, 3) ? rng_below(rng, good->frames.len) : good->frames.len;
    uint8_t *bytes = malloc(n + (n == 0)); /* exactly so long */
    memcpy(bytes, good->frames.data, n);
    for (uint64_t k = rng_below(rng, 4); n > 0 && k > 0; k--)
        bytes[rng_below(rng, n)] = (uint8_t)(rng_u64(rng) >> rng_below(rng, 9));
    return (struct hrana_result){.frames = {.data = bytes, .len = n, .cap = n, .max = n}};
}
