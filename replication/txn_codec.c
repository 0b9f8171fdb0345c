/* Room: replication. Thread: any.
 * Owns: the encoder's buffers until txn_encoder_finish passes them on.
 * Invariants: pages come in strictly rising order over all parts of a transaction; no byte of an
 *   entry is without meaning, so equal transactions packed alike are equal bytes, and what is
 *   decoded was checked to its last byte.
 * Not here: which pages (view.c), what becomes of them (apply.c).
 *
 *   head 64 | u32 length, section | u32 pages here | pages ... | u64 XXH3 of all before
 *   page: u32 number, u8 encoding, u32 length, bytes
 *
 * docs/FORMATS.md draws it byte by byte; integers are little-endian. */
#include "replication/txn_codec.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC           0x4e58544cu /* "LTXN" */
#define VERSION         1u
#define AT_SECTION      64u
#define HEAD_BYTES      68u /* with the length of the section */
#define PAGE_HEAD_BYTES 9u
#define CHECKSUM_BYTES  8u
#define ENTRY_BYTES_MIN (HEAD_BYTES + 4 + CHECKSUM_BYTES)

enum page_encoding { PAGE_RAW, PAGE_LZ4 };

/* --- writing ---------------------------------------------------------------------------------- */

struct txn_encoder {
    struct repl_entry head;
    struct buf part;
    size_t at_count; /* where the number of pages stands */
    uint32_t n_pages, last_page_no;
    char *packed; /* page_size bytes */
};

uint32_t txn_part_pages(uint32_t page_size, uint64_t part_max)
{
    const uint64_t page = PAGE_HEAD_BYTES + (uint64_t)page_size;
    CHECK(part_max >= ENTRY_BYTES_MIN + page);
    const uint64_t n = (part_max - ENTRY_BYTES_MIN) / page;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

struct txn_encoder *txn_encoder_new(const struct repl_entry *head, uint32_t pages)
{
    CHECK(head->seq != 0 && head->pages_after != 0 && head->part < head->parts);
    CHECK(head->section_len <= OUTCOMES_SECTION_MAX);
    CHECK(head->section_len == 0 || head->part + 1 == head->parts);
    struct txn_encoder *e = MEM_NEW(struct txn_encoder);
    struct buf *b = &e->part;
    e->head = *head;
    e->packed = mem_alloc(head->page_size);
    buf_init(b, ENTRY_BYTES_MIN + head->section_len +
                    (size_t)pages * (PAGE_HEAD_BYTES + (size_t)head->page_size));
    buf_put_u32(b, MAGIC);
    buf_put_u16(b, VERSION);
    buf_put_u16(b, 0); /* flags */
    buf_put_u64(b, head->database_id);
    buf_put_u32(b, head->page_size);
    buf_put_u32(b, head->pages_after);
    buf_put_u64(b, head->seq);
    buf_put_u32(b, head->part);
    buf_put_u32(b, head->parts);
    buf_put_u64(b, head->wall_ms);
    buf_put_u64(b, head->checksum_before);
    buf_put_u64(b, head->checksum_after);
    CHECK(b->failed != ERR_OK || b->len == AT_SECTION);
    buf_put_str(b, (const char *)head->section, head->section_len);
    e->at_count = b->len;
    buf_put_u32(b, 0); /* pages, known at the end */
    return e;
}

void txn_encoder_page(struct txn_encoder *e, uint32_t page_no, const uint8_t *page)
{
    CHECK(page_no > e->last_page_no && page_no <= e->head.pages_after);
    e->last_page_no = page_no;
    const int raw = (int)e->head.page_size;
    /* Room for one byte less than the page: 0 when it does not gain. */
    const int packed = LZ4_compress_default((const char *)page, e->packed, raw, raw - 1);
    const size_t n = (size_t)(packed > 0 ? packed : raw);
    buf_put_u32(&e->part, page_no);
    buf_put_u8(&e->part, packed > 0 ? PAGE_LZ4 : PAGE_RAW);
    buf_put_u32(&e->part, (uint32_t)n);
    buf_put(&e->part, packed > 0 ? e->packed : (const char *)page, n);
    e->n_pages++;
}

void txn_encoder_free(struct txn_encoder *e)
{
    if (e == NULL)
        return;
    buf_fini(&e->part);
    free(e->packed);
    free(e);
}

uint8_t *txn_encoder_finish(struct txn_encoder *e, size_t *len)
{
    buf_patch_u32(&e->part, e->at_count, e->n_pages);
    buf_put_u64(&e->part, 0);
    CHECK(buf_status(&e->part) == ERR_OK); /* no more pages than were promised */
    uint8_t *bytes = buf_take(&e->part, len);
    const size_t summed = *len - CHECKSUM_BYTES;
    set_le64(bytes + summed, hash64(bytes, summed, 0));
    txn_encoder_free(e);
    return bytes;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Everything that a head can say wrongly although its checksum holds. */
static enum err head_check(const struct repl_entry *h)
{
    const uint32_t size = h->page_size;
    const char *wrong = NULL;
    if (size < 512 || size > PAGE_SIZE_MAX || (size & (size - 1)) != 0)
        wrong = "page size";
    else if (h->seq == 0)
        wrong = "sequence";
    else if (h->parts == 0 || h->part >= h->parts)
        wrong = "number of parts";
    else if (h->pages_after == 0)
        wrong = "database size";
    else if (h->section_len > OUTCOMES_SECTION_MAX ||
             (h->section_len > 0 && h->part + 1 != h->parts))
        wrong = "section";
    if (wrong != NULL)
        return err_fail(ERR_CORRUPT,
                        "entry of transaction seq=%llu part=%u/%u: its %s is "
                        "impossible",
                        (unsigned long long)h->seq, h->part, h->parts, wrong);
    return ERR_OK;
}

/* Reads the head and leaves PAGES behind the number of pages, without the checksum. */
static enum err entry_open(const uint8_t *p, size_t n, struct repl_entry *h, struct rd *pages,
                           uint32_t *n_pages)
{
    if (n < ENTRY_BYTES_MIN || get_le32(p) != MAGIC)
        return err_fail(ERR_CORRUPT, "these %zu bytes are not a transaction entry", n);
    const size_t summed = n - CHECKSUM_BYTES;
    if (get_le64(p + summed) != hash64(p, summed, 0))
        return err_fail(ERR_CORRUPT,
                        "a transaction entry of %zu bytes is damaged: its checksum is "
                        "wrong",
                        n);
    struct rd r = rd_of(p, summed);
    (void)rd_u32(&r);
    const uint16_t version = rd_u16(&r), flags = rd_u16(&r);
    if (version != VERSION || flags != 0)
        return err_fail(ERR_FORMAT,
                        "a transaction entry has format version %u, flags %#x; this "
                        "program reads version %u: use the same program version on all "
                        "nodes",
                        version, flags, VERSION);
    *h = (struct repl_entry){.database_id = rd_u64(&r)};
    h->page_size = rd_u32(&r);
    h->pages_after = rd_u32(&r);
    h->seq = rd_u64(&r);
    h->part = rd_u32(&r);
    h->parts = rd_u32(&r);
    h->wall_ms = rd_u64(&r);
    h->checksum_before = rd_u64(&r);
    h->checksum_after = rd_u64(&r);
    h->section = (const uint8_t *)rd_str(&r, &h->section_len);
    *n_pages = rd_u32(&r);
    if (r.failed)
        return err_fail(ERR_CORRUPT,
                        "entry of transaction seq=%llu part=%u/%u: its section is longer than the "
                        "entry",
                        (unsigned long long)h->seq, h->part, h->parts);
    *pages = r;
    return head_check(h);
}

enum err repl_entry_read(const uint8_t *p, size_t n, struct repl_entry *out)
{
    struct rd pages;
    uint32_t n_pages;
    return entry_open(p, n, out, &pages, &n_pages);
}

enum err txn_decoder_init(struct txn_decoder *d, const uint8_t *p, size_t n)
{
    *d = (struct txn_decoder){0};
    return entry_open(p, n, &d->head, &d->pages, &d->n_pages);
}

static enum err page_wrong(const struct txn_decoder *d, const char *what)
{
    return err_fail(ERR_CORRUPT, "entry of transaction seq=%llu part=%u: %s after page %u",
                    (unsigned long long)d->head.seq, d->head.part, what, d->last_page_no);
}

enum err txn_decoder_page(struct txn_decoder *d, uint32_t *page_no, uint8_t *page, bool *done)
{
    const uint32_t page_size = d->head.page_size;
    *done = d->n_pages == 0;
    if (*done)
        return rd_left(&d->pages) == 0 ? ERR_OK : page_wrong(d, "bytes that belong to nothing");
    const uint32_t number = rd_u32(&d->pages);
    const uint8_t encoding = rd_u8(&d->pages);
    const uint32_t n = rd_u32(&d->pages);
    const uint8_t *bytes = rd_bytes(&d->pages, n);
    if (bytes == NULL)
        return page_wrong(d, "the end, with pages missing");
    if (number <= d->last_page_no || number > d->head.pages_after)
        return page_wrong(d, "a page number out of order");
    if (encoding == PAGE_RAW && n == page_size)
        memcpy(page, bytes, n);
    else if (encoding != PAGE_LZ4 || n >= page_size ||
             LZ4_decompress_safe((const char *)bytes, (char *)page, (int)n, (int)page_size) !=
                 (int)page_size)
        return page_wrong(d, "a page that cannot be unpacked");
    *page_no = d->last_page_no = number;
    d->n_pages--;
    return ERR_OK;
}
