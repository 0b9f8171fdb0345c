/* Room: node/http.   Thread: any.   Owns: nothing.
 * Invariants: p <= end, and a message is within the one that it is in, so no byte is handed out
 * that is not of the message; a sentence is bounded whatever the bytes hold.
 * Not here: which fields there are (hrana_protobuf_read.c). The only file that sees nanopb's
 * decoder. */
#include "node/http/protobuf_read.h"

#include "base/check.h"
#include "base/utf8.h"

#include <pb_decode.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- where, and what is wrong there --- */

static void path_of(const struct protobuf *m, char *out, size_t size)
{
    out[0] = 0;
    if (m->up == NULL)
        return;
    path_of(m->up, out, size);
    size_t n = strlen(out);
    (void)snprintf(out + n, size - n, "%s%s", n == 0 ? "" : ".", m->name);
    n = strlen(out);
    if (m->index >= 0)
        (void)snprintf(out + n, size - n, "[%u]", (unsigned)m->index);
}

enum err protobuf_fail(const struct protobuf *m, const char *name, const char *format, ...)
{
    const struct protobuf field = {.up = m, .name = name, .index = -1};
    char path[160], what[200];
    va_list args;
    path_of(name == NULL ? m : &field, path, sizeof path);
    va_start(args, format);
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return err_fail(ERR_PROTOCOL, "%s: %s", path[0] == 0 ? "the message" : path, what);
}

/* --- fields --- */

struct protobuf protobuf_of(const void *p, size_t n, uint32_t *work)
{
    static const uint8_t nothing[1];
    const uint8_t *from = n > 0 ? p : nothing;
    return (struct protobuf){.p = from, .end = from + n, .index = -1, .work = work, .taken = true};
}

static pb_istream_t stream_of(const struct protobuf *m)
{
    return pb_istream_from_buffer(m->p, (size_t)(m->end - m->p));
}

/* IN has read on in M. */
static void read_to(struct protobuf *m, const pb_istream_t *in)
{
    CHECK(in->bytes_left <= (size_t)(m->end - m->p));
    m->p = m->end - in->bytes_left;
}

/* A number of one byte, as most tags and many values are: nanopb, which calls for each byte, would
 * take ten times as long. */
static bool is_short(const struct protobuf *m)
{
    return m->p < m->end && *m->p < 0x80;
}

/* Passes over a field that nobody took. */
static bool skip(struct protobuf *m)
{
    uint64_t v;
    if (m->wire == PB_WT_VARINT && is_short(m)) {
        m->p++;
        return true;
    }
    pb_istream_t in = stream_of(m);
    if (m->wire == PB_WT_VARINT ? !pb_decode_varint(&in, &v)
                                : !pb_skip_field(&in, (pb_wire_type_t)m->wire))
        return false;
    read_to(m, &in);
    return true;
}

static bool end(struct protobuf *m, enum err status)
{
    m->p = m->end;
    m->tag = 0;
    m->taken = true;
    m->status = status;
    return false;
}

static bool read_tag(struct protobuf *m)
{
    pb_wire_type_t wire;
    bool eof;
    if (is_short(m)) {
        m->tag = *m->p >> 3;
        m->wire = *m->p++ & 7;
        return true;
    }
    pb_istream_t in = stream_of(m);
    if (!pb_decode_tag(&in, &wire, &m->tag, &eof))
        return false;
    m->wire = (int)wire;
    read_to(m, &in);
    return true;
}

static enum err too_much(const struct protobuf *m)
{
    (void)protobuf_fail(m, NULL, "there are too many fields to look at (%u)", PROTOBUF_WORK_MAX);
    return ERR_TOO_BIG;
}

bool protobuf_next(struct protobuf *m)
{
    if (!m->taken && !skip(m))
        return end(m, protobuf_fail(m, NULL, "field %u is broken", m->tag));
    if (m->p == m->end)
        return end(m, m->status);
    if (*m->work == 0)
        return end(m, too_much(m));
    --*m->work;
    if (!read_tag(m))
        return end(m, protobuf_fail(m, NULL, "ends within the tag of a field"));
    if (m->tag == 0)
        return end(m, protobuf_fail(m, NULL, "is no Protobuf: a field has the tag 0"));
    m->taken = false;
    return true;
}

uint32_t protobuf_count(const struct protobuf *m, uint32_t tag)
{
    struct protobuf copy = *m;
    uint32_t n = 0;
    /* Of what is broken the walk itself will speak. */
    while (protobuf_next(&copy))
        n += copy.tag == tag;
    return n;
}

/* --- values --- */

/* Begins to take the field, which must have WIRE. */
static enum err take(struct protobuf *m, const char *name, pb_wire_type_t wire, pb_istream_t *in)
{
    CHECK(m->tag != 0 && !m->taken);
    if (m->wire != (int)wire)
        return protobuf_fail(m, name, "has the wire type %d, and must have %d", m->wire, (int)wire);
    *in = stream_of(m);
    m->taken = true;
    return ERR_OK;
}

/* OK: what nanopb said of the field that it has read. */
static enum err took(struct protobuf *m, const char *name, const pb_istream_t *in, bool ok)
{
    if (!ok)
        return protobuf_fail(m, name, "cannot be read (%s)", PB_GET_ERROR(in));
    read_to(m, in);
    return ERR_OK;
}

enum err protobuf_bool(struct protobuf *m, const char *name, bool *out)
{
    pb_istream_t in;
    TRY(take(m, name, PB_WT_VARINT, &in));
    return took(m, name, &in, pb_decode_bool(&in, out));
}

enum err protobuf_uint32(struct protobuf *m, const char *name, uint32_t *out)
{
    pb_istream_t in;
    TRY(take(m, name, PB_WT_VARINT, &in));
    return took(m, name, &in, pb_decode_varint32(&in, out));
}

/* Negative numbers come in 10 bytes by the book, in 5 from the TypeScript client. */
enum err protobuf_int32(struct protobuf *m, const char *name, int32_t *out)
{
    uint32_t v;
    TRY(protobuf_uint32(m, name, &v));
    *out = (int32_t)v;
    return ERR_OK;
}

enum err protobuf_uint64(struct protobuf *m, const char *name, uint64_t *out)
{
    pb_istream_t in;
    TRY(take(m, name, PB_WT_VARINT, &in));
    return took(m, name, &in, pb_decode_varint(&in, out));
}

enum err protobuf_sint64(struct protobuf *m, const char *name, int64_t *out)
{
    pb_istream_t in;
    TRY(take(m, name, PB_WT_VARINT, &in));
    return took(m, name, &in, pb_decode_svarint(&in, out));
}

enum err protobuf_double(struct protobuf *m, const char *name, double *out)
{
    pb_istream_t in;
    TRY(take(m, name, PB_WT_64BIT, &in));
    return took(m, name, &in, pb_decode_fixed64(&in, out));
}

enum err protobuf_bytes(struct protobuf *m, const char *name, struct hrana_text *out)
{
    pb_istream_t in, inner;
    TRY(take(m, name, PB_WT_STRING, &in));
    if (!pb_make_string_substream(&in, &inner))
        return took(m, name, &in, false);
    read_to(m, &in); /* which does not count the bytes of INNER any more */
    out->n = inner.bytes_left;
    out->p = (const char *)m->p - out->n;
    return ERR_OK;
}

enum err protobuf_text(struct protobuf *m, const char *name, struct hrana_text *out)
{
    TRY(protobuf_bytes(m, name, out));
    return utf8_valid(out->p, out->n) ? ERR_OK : protobuf_fail(m, name, "must be UTF-8");
}

static enum err open_message(struct protobuf *m, const char *name, int64_t index,
                             struct protobuf *out)
{
    struct hrana_text bytes;
    TRY(protobuf_bytes(m, name, &bytes));
    *out = protobuf_of(bytes.p, bytes.n, m->work);
    out->up = m;
    out->name = name;
    out->index = index;
    out->depth = m->depth + 1;
    if (out->depth < PROTOBUF_DEPTH_MAX)
        return ERR_OK;
    (void)protobuf_fail(out, NULL, "nests deeper than %u levels", PROTOBUF_DEPTH_MAX);
    return ERR_TOO_BIG;
}

enum err protobuf_message(struct protobuf *m, const char *name, struct protobuf *out)
{
    CHECK(m->tag < 32);
    uint32_t bit = UINT32_C(1) << m->tag;
    if ((m->seen & bit) != 0)
        return protobuf_fail(m, name, "comes twice");
    m->seen |= bit;
    return open_message(m, name, -1, out);
}

enum err protobuf_item(struct protobuf *m, const char *name, uint32_t index, struct protobuf *out)
{
    return open_message(m, name, index, out);
}
