/* Room: node/http.   Thread: any, one at a time.   Owns: nothing.
 * Invariants: what was appended is Protobuf when all that was begun is ended, and its texts are
 * UTF-8.
 * Not here: a full buffer (buf_status tells at the end), and reading (protobuf_read.c). The only
 * file that sees nanopb's encoder. */
#include "node/http/protobuf_write.h"

#include "base/check.h"
#include "base/utf8.h"

#include <pb_encode.h>
#include <string.h>

/* A few bytes as nanopb makes them. */
struct piece {
    uint8_t bytes[16];
    pb_ostream_t to;
};

static void open_piece(struct piece *p)
{
    p->to = pb_ostream_from_buffer(p->bytes, sizeof p->bytes);
}

static void put_piece(struct buf *out, struct piece *p, bool ok)
{
    CHECK(ok); /* a tag and a number are 15 bytes at most */
    buf_put(out, p->bytes, p->to.bytes_written);
}

void protobuf_put_uint(struct buf *out, uint32_t tag, uint64_t v)
{
    struct piece p;
    open_piece(&p);
    put_piece(out, &p, pb_encode_tag(&p.to, PB_WT_VARINT, tag) && pb_encode_varint(&p.to, v));
}

/* A negative one has 10 bytes, as one of 64 bits. */
void protobuf_put_int32(struct buf *out, uint32_t tag, int32_t v)
{
    protobuf_put_uint(out, tag, (uint64_t)(int64_t)v);
}

void protobuf_put_sint(struct buf *out, uint32_t tag, int64_t v)
{
    struct piece p;
    open_piece(&p);
    put_piece(out, &p, pb_encode_tag(&p.to, PB_WT_VARINT, tag) && pb_encode_svarint(&p.to, v));
}

void protobuf_put_double(struct buf *out, uint32_t tag, double v)
{
    struct piece p;
    open_piece(&p);
    put_piece(out, &p, pb_encode_tag(&p.to, PB_WT_64BIT, tag) && pb_encode_fixed64(&p.to, &v));
}

void protobuf_put_bytes(struct buf *out, uint32_t tag, const void *bytes, size_t n)
{
    struct piece p;
    open_piece(&p);
    put_piece(out, &p, pb_encode_tag(&p.to, PB_WT_STRING, tag) && pb_encode_varint(&p.to, n));
    buf_put(out, bytes, n);
}

/* With U+FFFD in the place of each byte that is none of UTF-8. */
static void put_mended(struct buf *out, uint32_t tag, const uint8_t *p, size_t n)
{
    size_t text = protobuf_begin(out, tag);
    while (n > 0) {
        size_t good = utf8_span(p, n);
        buf_put(out, p, good);
        if (good < n) {
            buf_put(out, "\xef\xbf\xbd", 3);
            good++;
        }
        p += good;
        n -= good;
    }
    protobuf_end(out, text);
}

void protobuf_put_text(struct buf *out, uint32_t tag, const char *p, size_t n)
{
    if (utf8_valid(p, n))
        protobuf_put_bytes(out, tag, p, n);
    else
        put_mended(out, tag, (const uint8_t *)p, n);
}

void protobuf_put_cstr(struct buf *out, uint32_t tag, const char *text)
{
    protobuf_put_text(out, tag, text, strlen(text));
}

size_t protobuf_begin(struct buf *out, uint32_t tag)
{
    struct piece p;
    open_piece(&p);
    put_piece(out, &p, tag == 0 || pb_encode_tag(&p.to, PB_WT_STRING, tag));
    buf_put_u8(out, 0); /* its length */
    return out->len;
}

void protobuf_end(struct buf *out, size_t begun)
{
    struct piece p;
    if (out->failed != ERR_OK)
        return; /* nobody will read it */
    CHECK(begun > 0 && begun <= out->len);
    size_t n = out->len - begun;
    open_piece(&p);
    bool ok = pb_encode_varint(&p.to, n);
    CHECK(ok);
    size_t more = p.to.bytes_written - 1;
    if (more > 0 && buf_extend(out, more) == NULL)
        return;
    if (more > 0)
        memmove(out->data + begun + more, out->data + begun, n);
    memcpy(out->data + begun - 1, p.bytes, p.to.bytes_written);
}
