/* Room: node/http. A statement's answer, frame by frame: for whoever writes it in another form.
 * The frames may come from another node: each is checked before anything of it is handed out.
 * Thread: any.
 *
 *     TRY(hrana_frames_open(&f, result));   its columns
 *     do TRY(hrana_frames_next(&f, &rows, &values)) while (rows > 0);   ROWS x N_COLUMNS values */
#ifndef NODE_HTTP_HRANA_FRAMES_H
#define NODE_HTTP_HRANA_FRAMES_H

#include "node/http/hrana.h"

struct hrana_frames {
    const uint8_t *p; /* borrowed from the result */
    size_t left;
    uint32_t n_columns; /* 0: the statement has none, and no rows */
    struct rd columns;  /* n_columns times: str name, str declared type ("": none) */
};

/* ERR_PROTOCOL: the first frame is broken, or no COLUMNS. */
MUST_USE enum err hrana_frames_open(struct hrana_frames *f, const struct hrana_result *r);
/* *ROWS = 0: there are no more. ERR_PROTOCOL: a frame is broken, or no ROWS. */
MUST_USE enum err hrana_frames_next(struct hrana_frames *f, uint32_t *rows, struct rd *values);

/* What FRAME, which is to be a DESCRIPTION and no more, holds. ERR_PROTOCOL: it is broken. */
MUST_USE enum err hrana_frames_description(const struct buf *frame, struct wire_description *out);

#endif
