/* Room: node/http. Protobuf to outside, appended to a buffer as it is made: the order of the calls
 * is the caller's. Thread: any, one at a time.
 *
 *     size_t error = protobuf_begin(out, 2);
 *     protobuf_put_text(out, 1, message, n);
 *     protobuf_end(out, error);
 *
 * A length stands before what it counts, and is known after it: one byte is kept for it, and what
 * was written moves when it takes more. So all lengths are as short as they can be. */
#ifndef NODE_HTTP_PROTOBUF_WRITE_H
#define NODE_HTTP_PROTOBUF_WRITE_H

#include "base/buf.h"

/* uint32, uint64, bool. */
void protobuf_put_uint(struct buf *out, uint32_t tag, uint64_t v);
void protobuf_put_int32(struct buf *out, uint32_t tag, int32_t v);
void protobuf_put_sint(struct buf *out, uint32_t tag, int64_t v);
void protobuf_put_double(struct buf *out, uint32_t tag, double v);
/* Any bytes: what is not UTF-8 becomes U+FFFD. */
void protobuf_put_text(struct buf *out, uint32_t tag, const char *p, size_t n);
void protobuf_put_cstr(struct buf *out, uint32_t tag, const char *text);
void protobuf_put_bytes(struct buf *out, uint32_t tag, const void *p, size_t n);

/* A message in a field; TAG 0: by itself, with nothing but its length before it. Returns what ends
 * it. */
size_t protobuf_begin(struct buf *out, uint32_t tag);
void protobuf_end(struct buf *out, size_t begun);

#endif
