/* Room: node. The bytes in which a log entry carries the outcomes of its numbered writes
 * (docs/FORMATS.md, part A, 3a), and the frames of one outcome. Thread: any. */
#ifndef NODE_OUTCOME_SECTION_H
#define NODE_OUTCOME_SECTION_H

#include "base/buf.h"
#include "base/sizes.h"
#include "client/wire.h"

#include <stdbool.h>

/* Of one answer's frames that are kept: larger ones are told by ERR_ROWS_LOST. */
#define OUTCOME_ROWS_MAX KIB(4)
/* Bytes of an outcome in a section, without its frames; of a section without outcomes. */
#define OUTCOME_BYTES      (WIRE_WRITER_BYTES + 4u * 8u + 1u + 4u)
#define SECTION_HEAD_BYTES 5u

struct outcome {
    int64_t changes, last_insert_rowid;
    bool rows_lost;        /* it had frames, too many to keep */
    bool failed;           /* nothing was done: the only frame is its ERROR */
    const uint8_t *frames; /* COLUMNS, ROWS, STEP as they were answered; borrowed */
    size_t frames_len;
};

struct outcome_record {
    uint8_t writer[WIRE_WRITER_BYTES];
    uint64_t number, acked;
    struct outcome done;
};

/* A whole section is a head with the number of its records, then these. */
void section_put_head(struct buf *b, uint32_t n);
void section_put(struct buf *b, const struct outcome_record *r);

/* Reading, of bytes that anybody may have made: head, then N times the next one, then the end.
 * ERR_CORRUPT: no section; ERR_FORMAT: of a newer version. */
MUST_USE enum err section_get_head(struct rd *r, uint32_t *n);
MUST_USE enum err section_get(struct rd *r, struct outcome_record *out);
MUST_USE enum err section_get_end(struct rd *r);

/* Frames as they were kept, now for the request ID. They are whole. */
void outcome_put_frames(struct buf *b, const struct outcome *done, struct wire_id id);

#endif
