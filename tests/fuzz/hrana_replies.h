/* Room: tests. For fuzz targets: replies of each kind whose frames are what the fuzzer gave. */
#ifndef TESTS_FUZZ_HRANA_REPLIES_H
#define TESTS_FUZZ_HRANA_REPLIES_H

#include "node/http/hrana.h"

#define HRANA_REPLIES 3u

struct hrana_replies {
    struct hrana_result result;
    struct hrana_step_reply steps[5];
    struct hrana_reply all[HRANA_REPLIES]; /* an execute, a batch, a describe */
};

/* R points into itself: it stays where it is. FRAMES are borrowed. */
static inline void hrana_replies_of(struct hrana_replies *r, struct buf frames)
{
    *r = (struct hrana_replies){
        .result = {.frames = frames, .done = {.changes = 1, .seq = frames.len}}};
    r->steps[0].result = r->steps[1].result = &r->result;
    r->all[0] = (struct hrana_reply){.type = HRANA_EXECUTE, .steps = r->steps, .n_steps = 1};
    r->all[1] = (struct hrana_reply){.type = HRANA_BATCH, .steps = r->steps, .n_steps = 5};
    r->all[2] = (struct hrana_reply){.type = HRANA_DESCRIBE, .description = frames};
}

#endif
