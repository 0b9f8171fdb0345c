/* Room: node/http.   Thread: any.   Owns: nothing.
 * Invariants: `left` bytes at `p` are still to be looked at, and a frame is looked at once.
 * Not here: what is written of them (hrana_json_write.c, hrana_json_oldest.c,
 * hrana_protobuf_write.c). */
#include "node/http/hrana_frames.h"

#include "base/sizes.h"

static enum err next_frame(struct hrana_frames *f, struct wire_frame *out)
{
    size_t used;
    if (wire_next(f->p, f->left, WIRE_FRAME_MAX, out, &used) != ERR_OK)
        return ERR_PROTOCOL; /* also for a length that cannot be */
    if (used == 0)
        return err_fail(ERR_PROTOCOL, "an answer ends within a frame");
    f->p += used;
    f->left -= used;
    return ERR_OK;
}

enum err hrana_frames_open(struct hrana_frames *f, const struct hrana_result *r)
{
    struct wire_frame frame;
    *f = (struct hrana_frames){.p = r->frames.data, .left = r->frames.len};
    if (f->left == 0)
        return ERR_OK;
    TRY(next_frame(f, &frame));
    if (frame.type != WIRE_COLUMNS)
        return err_fail(ERR_PROTOCOL, "an answer begins with a frame of type %d", (int)frame.type);
    return wire_get_columns(&frame, &f->n_columns, &f->columns);
}

enum err hrana_frames_next(struct hrana_frames *f, uint32_t *rows, struct rd *values)
{
    struct wire_frame frame;
    *rows = 0;
    while (f->left > 0 && *rows == 0) {
        TRY(next_frame(f, &frame));
        if (frame.type != WIRE_ROWS)
            return err_fail(ERR_PROTOCOL, "a frame of type %d among rows", (int)frame.type);
        TRY(wire_get_rows(&frame, f->n_columns, rows, values));
    }
    return ERR_OK;
}

enum err hrana_frames_description(const struct buf *frame, struct wire_description *out)
{
    struct wire_frame f;
    size_t used;
    if (wire_next(frame->data, frame->len, WIRE_FRAME_MAX, &f, &used) != ERR_OK)
        return ERR_PROTOCOL;
    if (used == 0 || used != frame->len || f.type != WIRE_DESCRIPTION)
        return err_fail(ERR_PROTOCOL, "a description is not one frame");
    return wire_get_description(&f, out);
}
