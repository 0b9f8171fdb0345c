/* Room: base. Bytes out and bytes in, both with bounds.
 *
 * struct buf grows up to a maximum that its maker must give. A put beyond it, or a failed
 * allocation, marks the buffer `failed` and drops the bytes; the caller asks once, at the end
 * (buf_status). struct rd reads a borrowed range: a get beyond the end returns zero and marks it
 * `failed`. Integers are little-endian. Thread: any, one at a time. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data;
    size_t len, cap, max;
    enum err failed; /* ERR_OK, ERR_TOO_BIG or ERR_NOMEM */
};

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
/* Empties it and clears `failed`; keeps the memory. */
void buf_reset(struct buf *b);
/* Room for N more bytes at the end, uninitialised, counted in len; NULL when over the maximum. */
void *buf_extend(struct buf *b, size_t n);
void buf_put(struct buf *b, const void *p, size_t n);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_f64(struct buf *b, double v);
/* u32 length, then the bytes (no final zero). */
void buf_put_str(struct buf *b, const char *s, size_t n);
void buf_put_cstr(struct buf *b, const char *s);
/* Text at the end, no length and no zero. */
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Overwrites 4 bytes put earlier (a length known only at the end). */
void buf_patch_u32(struct buf *b, size_t offset, uint32_t v);
/* Drops the first N bytes. */
void buf_consume(struct buf *b, size_t n);
MUST_USE enum err buf_status(const struct buf *b);
/* Passes the memory on (free it with free()); the buffer is empty after. */
uint8_t *buf_take(struct buf *b, size_t *len);

struct rd {
    const uint8_t *p, *end;
    bool failed;
};

struct rd rd_of(const void *p, size_t n);
size_t rd_left(const struct rd *r);
uint8_t rd_u8(struct rd *r);
uint16_t rd_u16(struct rd *r);
uint32_t rd_u32(struct rd *r);
uint64_t rd_u64(struct rd *r);
double rd_f64(struct rd *r);
/* Borrows N bytes; NULL when there are fewer. */
const uint8_t *rd_bytes(struct rd *r, size_t n);
/* u32 length and the bytes; *n = 0 and NULL on failure. Not zero-terminated. */
const char *rd_str(struct rd *r, size_t *n);

/* Fixed-offset access for formats drawn in docs/FORMATS.md. */
uint16_t get_le16(const void *p);
uint32_t get_le32(const void *p);
uint64_t get_le64(const void *p);
void set_le16(void *p, uint16_t v);
void set_le32(void *p, uint32_t v);
void set_le64(void *p, uint64_t v);
uint32_t get_be32(const void *p);
void set_be32(void *p, uint32_t v);

#endif
