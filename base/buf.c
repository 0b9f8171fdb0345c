/* Room: base. Thread: any, one at a time. Lectern runs on little-endian machines only (checked
 * below), so loads and stores are plain copies. */
#include "base/buf.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "formats are stored as they lie in memory");

#define BUF_FIRST 256

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = ERR_OK;
}

static bool grow(struct buf *b, size_t need)
{
    size_t cap = b->cap == 0 ? BUF_FIRST : b->cap;
    while (cap < need)
        cap = cap > b->max / 2 ? b->max : cap * 2;
    uint8_t *data = realloc(b->data, cap);
    if (data == NULL) {
        b->failed = ERR_NOMEM;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void *buf_extend(struct buf *b, size_t n)
{
    if (b->failed != ERR_OK)
        return NULL;
    if (n > b->max - b->len) {
        b->failed = ERR_TOO_BIG;
        return NULL;
    }
    if (n > b->cap - b->len && !grow(b, b->len + n))
        return NULL;
    void *p = b->data + b->len;
    b->len += n;
    return p;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    void *to = buf_extend(b, n);
    if (to != NULL)
        memcpy(to, p, n);
}

void buf_put_u8(struct buf *b, uint8_t v)
{
    buf_put(b, &v, sizeof v);
}

void buf_put_u16(struct buf *b, uint16_t v)
{
    buf_put(b, &v, sizeof v);
}

void buf_put_u32(struct buf *b, uint32_t v)
{
    buf_put(b, &v, sizeof v);
}

void buf_put_u64(struct buf *b, uint64_t v)
{
    buf_put(b, &v, sizeof v);
}

void buf_put_f64(struct buf *b, double v)
{
    buf_put(b, &v, sizeof v);
}

void buf_put_str(struct buf *b, const char *s, size_t n)
{
    if (n > UINT32_MAX) {
        b->failed = ERR_TOO_BIG;
        return;
    }
    buf_put_u32(b, (uint32_t)n);
    buf_put(b, s, n);
}

void buf_put_cstr(struct buf *b, const char *s)
{
    buf_put_str(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *to = n < 0 ? NULL : buf_extend(b, (size_t)n + 1);
    if (to != NULL) {
        (void)vsnprintf(to, (size_t)n + 1, format, again);
        b->len--; /* the final zero stays behind the end */
    }
    va_end(again);
}

void buf_patch_u32(struct buf *b, size_t offset, uint32_t v)
{
    if (b->failed != ERR_OK)
        return;
    CHECK(offset + sizeof v <= b->len);
    memcpy(b->data + offset, &v, sizeof v);
}

void buf_consume(struct buf *b, size_t n)
{
    CHECK(n <= b->len);
    if (n == 0)
        return;
    b->len -= n;
    memmove(b->data, b->data + n, b->len);
}

enum err buf_status(const struct buf *b)
{
    return b->failed;
}

uint8_t *buf_take(struct buf *b, size_t *len)
{
    uint8_t *data = b->data;
    *len = b->len;
    *b = (struct buf){.max = b->max};
    return data;
}

struct rd rd_of(const void *p, size_t n)
{
    const uint8_t *start = p;
    return (struct rd){.p = start, .end = n == 0 ? start : start + n};
}

size_t rd_left(const struct rd *r)
{
    return (size_t)(r->end - r->p);
}

const uint8_t *rd_bytes(struct rd *r, size_t n)
{
    if (r->failed || n > rd_left(r)) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->p;
    if (n != 0)
        r->p += n;
    return p;
}

#define RD_INT(name, type)                                                                         \
    type name(struct rd *r)                                                                        \
    {                                                                                              \
        type v = 0;                                                                                \
        const uint8_t *p = rd_bytes(r, sizeof v);                                                  \
        if (p != NULL)                                                                             \
            memcpy(&v, p, sizeof v);                                                               \
        return v;                                                                                  \
    }

RD_INT(rd_u8, uint8_t)
RD_INT(rd_u16, uint16_t)
RD_INT(rd_u32, uint32_t)
RD_INT(rd_u64, uint64_t)
RD_INT(rd_f64, double)

const char *rd_str(struct rd *r, size_t *n)
{
    *n = rd_u32(r);
    const uint8_t *p = rd_bytes(r, *n);
    if (r->failed)
        *n = 0;
    return (const char *)p;
}

uint16_t get_le16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

uint32_t get_le32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

uint64_t get_le64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

void set_le16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

void set_le32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

void set_le64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

uint32_t get_be32(const void *p)
{
    return __builtin_bswap32(get_le32(p));
}

void set_be32(void *p, uint32_t v)
{
    set_le32(p, __builtin_bswap32(v));
}
