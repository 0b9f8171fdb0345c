/* Room: node. Thread: any.
 * Invariants: a section that was read to its end has no byte without a meaning; the frames of an
 *   outcome are whole, of the kinds that an answer has, and their rows fit their columns.
 * Not here: what the outcomes mean (outcomes.c), the entry around them (replication/). */
#include "node/outcome_section.h"

#include "base/check.h"

#include <string.h>

#define VERSION      1u
#define AT_STREAM    (WIRE_LENGTH_BYTES + 1u)
#define AT_REQUEST   (WIRE_LENGTH_BYTES + 5u)
#define KEPT_STREAM  1u /* what the ids of kept frames say */
#define KEPT_REQUEST 0u

enum { FLAG_ROWS_LOST = 1, FLAG_FAILED = 2 };

/* --- writing ---------------------------------------------------------------------------------- */

void section_put_head(struct buf *b, uint32_t n)
{
    buf_put_u8(b, VERSION);
    buf_put_u32(b, n);
}

void section_put(struct buf *b, const struct outcome_record *r)
{
    const struct outcome *done = &r->done;
    CHECK(done->frames_len <= OUTCOME_ROWS_MAX);
    buf_put(b, r->writer, sizeof r->writer);
    buf_put_u64(b, r->number);
    buf_put_u64(b, r->acked);
    buf_put_u64(b, (uint64_t)done->changes);
    buf_put_u64(b, (uint64_t)done->last_insert_rowid);
    buf_put_u8(
        b, (uint8_t)((done->rows_lost ? FLAG_ROWS_LOST : 0u) | (done->failed ? FLAG_FAILED : 0u)));
    buf_put_u32(b, (uint32_t)done->frames_len);
    outcome_put_frames(b, done, (struct wire_id){KEPT_STREAM, KEPT_REQUEST});
}

void outcome_put_frames(struct buf *b, const struct outcome *done, struct wire_id id)
{
    uint8_t *p = done->frames_len == 0 ? NULL : buf_extend(b, done->frames_len);
    size_t at = 0;
    if (p == NULL) /* nothing, or B is full and says so */
        return;
    memcpy(p, done->frames, done->frames_len);
    while (at < done->frames_len) {
        CHECK(done->frames_len - at >= WIRE_HEAD_BYTES);
        set_le32(p + at + AT_STREAM, id.stream);
        set_le32(p + at + AT_REQUEST, id.request);
        at += WIRE_LENGTH_BYTES + get_le32(p + at);
    }
    CHECK(at == done->frames_len);
}

/* --- reading ---------------------------------------------------------------------------------- */

static enum err wrong(const char *what)
{
    return err_fail(ERR_CORRUPT,
                    "the outcomes of numbered writes in an entry of the log: %s is wrong", what);
}

enum err section_get_head(struct rd *r, uint32_t *n)
{
    uint8_t version = rd_u8(r);
    *n = rd_u32(r);
    if (r->failed || *n == 0)
        return wrong("their number");
    if (version != VERSION)
        return err_fail(ERR_FORMAT,
                        "an entry of the log has outcomes of format version %u; this program reads "
                        "version %u: use the same program version on all nodes",
                        version, VERSION);
    return ERR_OK;
}

/* One frame of an answer. COLUMNS: of those before it, 0 when there were none. */
static enum err check_frame(struct wire_frame *f, bool failed, uint32_t *columns)
{
    struct wire_step step;
    struct wire_error error;
    struct rd rest;
    uint32_t rows;
    if (f->id.stream != KEPT_STREAM || f->id.request != KEPT_REQUEST)
        return wrong("the head of a frame");
    if (failed)
        return f->type == WIRE_ERROR ? wire_get_error(f, &error) : wrong("the kind of a frame");
    if (f->type == WIRE_COLUMNS)
        return wire_get_columns(f, columns, &rest);
    if (f->type == WIRE_ROWS && *columns > 0)
        return wire_get_rows(f, *columns, &rows, &rest);
    if (f->type != WIRE_STEP)
        return wrong("the kind of a frame");
    *columns = 0;
    return wire_get_step(f, &step);
}

static enum err check_frames(const struct outcome *o)
{
    size_t at = 0, used;
    uint32_t columns = 0;
    unsigned n = 0;
    if (o->frames_len > OUTCOME_ROWS_MAX || (o->rows_lost && (o->failed || o->frames_len > 0)))
        return wrong("what is kept of an answer");
    for (; at < o->frames_len; at += used, n++) {
        struct wire_frame f;
        enum err e = wire_next(o->frames + at, o->frames_len - at, OUTCOME_ROWS_MAX, &f, &used);
        if (e != ERR_OK || used == 0 || check_frame(&f, o->failed, &columns) != ERR_OK)
            return wrong("a frame");
    }
    return o->failed && n != 1 ? wrong("the number of frames") : ERR_OK;
}

enum err section_get(struct rd *r, struct outcome_record *out)
{
    *out = (struct outcome_record){0};
    const uint8_t *writer = rd_bytes(r, sizeof out->writer);
    if (writer != NULL)
        memcpy(out->writer, writer, sizeof out->writer);
    out->number = rd_u64(r);
    out->acked = rd_u64(r);
    out->done.changes = (int64_t)rd_u64(r);
    out->done.last_insert_rowid = (int64_t)rd_u64(r);
    uint8_t flags = rd_u8(r);
    out->done.frames = (const uint8_t *)rd_str(r, &out->done.frames_len);
    if (r->failed)
        return wrong("their length");
    if ((flags & ~(FLAG_ROWS_LOST | FLAG_FAILED)) != 0)
        return err_fail(ERR_FORMAT,
                        "an outcome in an entry of the log has flags 0x%x that this program does "
                        "not know: use the same program version on all nodes",
                        flags);
    if (out->number == 0 || out->acked >= out->number)
        return wrong("the number of a write");
    out->done.rows_lost = (flags & FLAG_ROWS_LOST) != 0;
    out->done.failed = (flags & FLAG_FAILED) != 0;
    return check_frames(&out->done);
}

enum err section_get_end(struct rd *r)
{
    return rd_left(r) == 0 ? ERR_OK : wrong("their length");
}
