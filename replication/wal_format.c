/* Room: replication. Thread: any.
 * Owns: nothing; all state is the caller's.
 * Invariants: a chain moves on exactly when a frame was written or found valid. A frame counts when
 *   the salts, the chain and a page number above zero agree, and a transaction when its commit
 * frame does: the same rules as SQLite's recovery, so that both always see the same transactions.
 * Not here: which page is where (wal_index.c), what a frame means (publish.c, apply.c).
 *
 * All integers of the file are big-endian. The checksum sums 32-bit words in the order that the
 * magic's lowest bit names; we write little-endian words, as SQLite does on this kind of machine,
 * and read both. */
#include "replication/wal_format.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "we write the native word order");

#define WAL_MAGIC        0x377f0682u /* | 1: big-endian words are summed */
#define WAL_VERSION      3007000u
#define WAL_SUMMED_BYTES 24u /* of the header */
#define SCAN_BYTES       KIB(128)

/* Not get_le32: a call for each of a page's thousand words would double the time of a frame. */
static inline uint32_t word(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Fibonacci-weighted sum, two words a step. N is a multiple of 8. */
static void chain_add(struct wal_chain *c, const uint8_t *p, size_t n)
{
    uint32_t a = c->s[0], b = c->s[1];
    if (c->big_endian) {
        for (const uint8_t *end = p + n; p < end; p += 8) {
            a += __builtin_bswap32(word(p)) + b;
            b += __builtin_bswap32(word(p + 4)) + a;
        }
    } else {
        for (const uint8_t *end = p + n; p < end; p += 8) {
            a += word(p) + b;
            b += word(p + 4) + a;
        }
    }
    c->s[0] = a;
    c->s[1] = b;
}

static bool page_size_valid(uint32_t n)
{
    return n >= 512 && n <= PAGE_SIZE_MAX && (n & (n - 1)) == 0;
}

bool wal_header_decode(const uint8_t p[WAL_HEADER_BYTES], struct wal_header *h)
{
    uint32_t magic = get_be32(p);
    *h = (struct wal_header){
        .page_size = get_be32(p + 8),
        .checkpoint_seq = get_be32(p + 12),
        .salt = {get_be32(p + 16), get_be32(p + 20)},
        .chain.big_endian = (magic & 1) != 0,
    };
    if ((magic & ~1u) != WAL_MAGIC || get_be32(p + 4) != WAL_VERSION ||
        !page_size_valid(h->page_size))
        return false;
    chain_add(&h->chain, p, WAL_SUMMED_BYTES);
    return h->chain.s[0] == get_be32(p + 24) && h->chain.s[1] == get_be32(p + 28);
}

void wal_header_encode(struct wal_header *h, uint8_t out[WAL_HEADER_BYTES])
{
    CHECK(page_size_valid(h->page_size));
    set_be32(out, WAL_MAGIC);
    set_be32(out + 4, WAL_VERSION);
    set_be32(out + 8, h->page_size);
    set_be32(out + 12, h->checkpoint_seq);
    set_be32(out + 16, h->salt[0]);
    set_be32(out + 20, h->salt[1]);
    h->chain = (struct wal_chain){.big_endian = false};
    chain_add(&h->chain, out, WAL_SUMMED_BYTES);
    set_be32(out + 24, h->chain.s[0]);
    set_be32(out + 28, h->chain.s[1]);
}

void wal_frame_encode(const struct wal_header *h, struct wal_chain *chain,
                      const struct wal_frame *f, const uint8_t *page,
                      uint8_t out[WAL_FRAME_HEADER_BYTES])
{
    CHECK(f->page_no != 0);
    set_be32(out, f->page_no);
    set_be32(out + 4, f->pages_after);
    set_be32(out + 8, h->salt[0]);
    set_be32(out + 12, h->salt[1]);
    chain_add(chain, out, 8); /* the salts are compared, not summed */
    chain_add(chain, page, h->page_size);
    set_be32(out + 16, chain->s[0]);
    set_be32(out + 20, chain->s[1]);
}

bool wal_frame_decode(const struct wal_header *h, struct wal_chain *chain,
                      const uint8_t head[WAL_FRAME_HEADER_BYTES], const uint8_t *page,
                      struct wal_frame *f)
{
    if (get_be32(head + 8) != h->salt[0] || get_be32(head + 12) != h->salt[1] ||
        get_be32(head) == 0)
        return false;
    struct wal_chain moved = *chain;
    chain_add(&moved, head, 8);
    chain_add(&moved, page, h->page_size);
    if (moved.s[0] != get_be32(head + 16) || moved.s[1] != get_be32(head + 20))
        return false;
    *chain = moved;
    *f = (struct wal_frame){.page_no = get_be32(head), .pages_after = get_be32(head + 4)};
    return true;
}

static enum err wal_read(sqlite3_file *wal, uint8_t *p, size_t n, uint64_t offset)
{
    int rc = wal->pMethods->xRead(wal, p, (int)n, (sqlite3_int64)offset);
    if (rc == SQLITE_OK)
        return ERR_OK;
    /* The size was asked a moment ago: a short read means that somebody cuts the file meanwhile. */
    return err_fail(ERR_IO, "cannot read %zu bytes of the WAL at %llu: %s", n,
                    (unsigned long long)offset,
                    rc == SQLITE_IOERR_SHORT_READ ? "the file became shorter" : sqlite3_errstr(rc));
}

/* Decodes N frames at P, the first is FRAME. False: an invalid one was met, nothing behind counts.
 */
static bool scan_frames(struct wal_scan *out, struct wal_chain *chain, const uint8_t *p, uint32_t n,
                        uint32_t frame, wal_visit visit, void *ctx)
{
    const size_t frame_bytes = WAL_FRAME_HEADER_BYTES + out->header.page_size;
    for (uint32_t i = 0; i < n; i++, p += frame_bytes, frame++) {
        struct wal_frame f;
        const uint8_t *page = p + WAL_FRAME_HEADER_BYTES;
        if (!wal_frame_decode(&out->header, chain, p, page, &f))
            return false;
        out->valid = frame;
        if (visit != NULL)
            visit(ctx, frame, &f, page);
        if (f.pages_after == 0)
            continue;
        out->frames = frame;
        out->commits++;
        out->pages_after = f.pages_after;
        out->chain = *chain;
    }
    return true;
}

enum err wal_scan_file(sqlite3_file *wal, struct wal_scan *out, wal_visit visit, void *ctx)
{
    *out = (struct wal_scan){0};
    sqlite3_int64 size = 0;
    int rc = wal->pMethods->xFileSize(wal, &size);
    if (rc != SQLITE_OK)
        return err_fail(ERR_IO, "cannot ask for the size of the WAL: %s", sqlite3_errstr(rc));
    out->file_bytes = (uint64_t)size;
    if (size < (sqlite3_int64)WAL_HEADER_BYTES)
        return ERR_OK;

    uint8_t head[WAL_HEADER_BYTES];
    TRY(wal_read(wal, head, sizeof head, 0));
    out->has_header = wal_header_decode(head, &out->header);
    if (!out->has_header)
        return ERR_OK;
    out->chain = out->header.chain;

    const uint32_t page_size = out->header.page_size;
    const size_t frame_bytes = WAL_FRAME_HEADER_BYTES + page_size;
    const uint64_t whole = (out->file_bytes - WAL_HEADER_BYTES) / frame_bytes;
    const uint32_t last = whole > UINT32_MAX - 1 ? UINT32_MAX - 1 : (uint32_t)whole;
    const uint32_t batch = (uint32_t)(SCAN_BYTES / frame_bytes);
    CHECK(batch > 0);
    uint8_t *frames = mem_alloc(batch * frame_bytes);
    struct wal_chain chain = out->chain;
    enum err e = ERR_OK;
    bool valid = true;
    for (uint32_t first = 1, n; e == ERR_OK && valid && first <= last; first += n) {
        n = last - first + 1 < batch ? last - first + 1 : batch;
        e = wal_read(wal, frames, n * frame_bytes, wal_frame_offset(first, page_size));
        if (e == ERR_OK)
            valid = scan_frames(out, &chain, frames, n, first, visit, ctx);
    }
    free(frames);
    return e;
}

/* Frames behind an invalid one that are looked at. One of the same WAL would be the next; a few
 * more, for a whole damaged sector. */
#define BEHIND_FRAMES 16u

enum err wal_look_behind(sqlite3_file *wal, const struct wal_scan *scan, enum wal_rest *out)
{
    const struct wal_header *h = &scan->header;
    *out = WAL_REST_NONE;
    if (!scan->has_header) {
        *out = scan->file_bytes > 0 ? WAL_REST_HEADER : WAL_REST_NONE;
        return ERR_OK;
    }
    if (scan->valid > scan->frames)
        *out = WAL_REST_OPEN;
    for (uint32_t i = 1; i <= BEHIND_FRAMES; i++) {
        uint8_t head[WAL_FRAME_HEADER_BYTES];
        const uint64_t at = wal_frame_offset(scan->valid + i, h->page_size);
        if (scan->valid > UINT32_MAX - 1 - i || at + sizeof head > scan->file_bytes)
            break;
        TRY(wal_read(wal, head, sizeof head, at));
        if (get_be32(head + 8) == h->salt[0] && get_be32(head + 12) == h->salt[1])
            *out = i == 1 ? WAL_REST_TORN : WAL_REST_FRAME;
    }
    return ERR_OK;
}

void wal_rest_sentence(char *to, size_t n, const char *path, const struct wal_scan *scan,
                       enum wal_rest rest)
{
    const uint32_t frame = scan->valid + 1, first = scan->frames + 1;
    const uint32_t page_size = scan->header.page_size;
    if (rest == WAL_REST_HEADER)
        (void)snprintf(to, n, "%s: its header is damaged, no transaction in it counts", path);
    else if (rest == WAL_REST_OPEN)
        (void)snprintf(to, n,
                       "%s ends inside a transaction, of frames %u to %u: a crash came while it "
                       "was written, or it is damaged; it does not count",
                       path, first, scan->valid);
    else
        (void)snprintf(to, n,
                       "frame %u in %s, at byte %llu, %s; the transactions from frame %u on do not "
                       "count",
                       frame, path, (unsigned long long)wal_frame_offset(frame, page_size),
                       rest == WAL_REST_FRAME
                           ? "is damaged"
                           : "is not whole: a crash came while it was written, or it is damaged",
                       first);
}
