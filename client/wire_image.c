/* Room: client.   Thread: any.   Owns: nothing.
 * Not here: what an image is (node/image.c serves it, node/fetch.c takes it). */
#include "client/wire_image.h"

#include "base/check.h"

#define PAGE_BYTES_MIN 512u /* SQLite's smallest page */
#define PIN            1u
#define IMAGE_VERSION  1u

unsigned wire_image_pages_max(uint32_t page_size)
{
    CHECK(page_size >= PAGE_BYTES_MIN && page_size <= PAGE_SIZE_MAX);
    return (unsigned)(WIRE_IMAGE_PAGES_BYTES_MAX / page_size);
}

static bool page_size_valid(uint32_t n)
{
    return n >= PAGE_BYTES_MIN && n <= PAGE_SIZE_MAX && (n & (n - 1)) == 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

void wire_put_image_begin(struct buf *b, struct wire_id id, bool pin)
{
    size_t begun = wire_begin(b, WIRE_IMAGE_BEGIN, id);
    buf_put_u8(b, pin ? PIN : 0);
    wire_end(b, begun);
}

void wire_put_image_ask_hashes(struct buf *b, struct wire_id id, uint32_t first, uint32_t n)
{
    CHECK(first > 0 && n > 0 && n <= WIRE_IMAGE_HASHES_MAX);
    size_t begun = wire_begin(b, WIRE_IMAGE_ASK_HASHES, id);
    buf_put_u32(b, first);
    buf_put_u32(b, n);
    wire_end(b, begun);
}

void wire_put_image_ask_pages(struct buf *b, struct wire_id id, const uint32_t *page_nos,
                              uint32_t n)
{
    CHECK(n > 0 && n <= WIRE_IMAGE_PAGES_BYTES_MAX / PAGE_BYTES_MIN);
    size_t begun = wire_begin(b, WIRE_IMAGE_ASK_PAGES, id);
    for (uint32_t i = 0; i < n; i++)
        buf_put_u32(b, page_nos[i]);
    wire_end(b, begun);
}

void wire_put_image(struct buf *b, struct wire_id id, const struct wire_image *image)
{
    CHECK(image->record_len <= WIRE_IMAGE_RECORD_MAX);
    size_t begun = wire_begin(b, WIRE_IMAGE, id);
    buf_put_u32(b, IMAGE_VERSION);
    buf_put_u32(b, image->page_size);
    buf_put_u32(b, image->pages);
    buf_put_u64(b, image->database_id);
    buf_put_u64(b, image->seq);
    buf_put_u64(b, image->checksum);
    buf_put_u64(b, image->index);
    buf_put_str(b, (const char *)image->record, image->record_len);
    wire_end(b, begun);
}

void wire_put_image_hashes(struct buf *b, struct wire_id id, uint32_t first, const uint64_t *hashes,
                           uint32_t n)
{
    size_t begun = wire_begin(b, WIRE_IMAGE_HASHES, id);
    buf_put_u32(b, first);
    for (uint32_t i = 0; i < n; i++)
        buf_put_u64(b, hashes[i]);
    wire_end(b, begun);
}

void wire_put_image_pages(struct buf *b, struct wire_id id, const uint32_t *page_nos, uint32_t n,
                          const uint8_t *pages, uint32_t page_size)
{
    CHECK(page_size_valid(page_size) && n <= wire_image_pages_max(page_size));
    size_t begun = wire_begin(b, WIRE_IMAGE_PAGES, id);
    buf_put_u32(b, page_size);
    for (uint32_t i = 0; i < n; i++) {
        buf_put_u32(b, page_nos[i]);
        buf_put(b, pages + (size_t)i * page_size, page_size);
    }
    wire_end(b, begun);
}

/* --- reading ---------------------------------------------------------------------------------- */

static enum err is_whole(const struct rd *r, const char *what)
{
    if (r->failed || rd_left(r) != 0)
        return err_fail(ERR_PROTOCOL, "%s of a wrong length", what);
    return ERR_OK;
}

enum err wire_get_image_begin(struct wire_frame *f, bool *pin)
{
    uint8_t flags = rd_u8(&f->body);
    TRY(is_whole(&f->body, "IMAGE_BEGIN"));
    if ((flags & ~PIN) != 0)
        return err_fail(ERR_PROTOCOL, "IMAGE_BEGIN with unknown flags %u", flags);
    *pin = flags != 0;
    return ERR_OK;
}

enum err wire_get_image_ask_hashes(struct wire_frame *f, uint32_t *first, uint32_t *n)
{
    *first = rd_u32(&f->body);
    *n = rd_u32(&f->body);
    TRY(is_whole(&f->body, "IMAGE_ASK_HASHES"));
    if (*first == 0 || *n == 0 || *n > WIRE_IMAGE_HASHES_MAX || *n > UINT32_MAX - *first)
        return err_fail(ERR_PROTOCOL, "hashes of %u pages from %u on are no range", *n, *first);
    return ERR_OK;
}

enum err wire_get_image_ask_pages(struct wire_frame *f, struct rd *page_nos, uint32_t *n)
{
    struct rd r = f->body;
    size_t bytes = rd_left(&r);
    uint32_t last = 0;
    if (bytes == 0 || bytes % 4 != 0 || bytes / 4 > WIRE_IMAGE_PAGES_BYTES_MAX / PAGE_BYTES_MIN)
        return err_fail(ERR_PROTOCOL, "IMAGE_ASK_PAGES of a wrong length");
    *page_nos = r;
    *n = (uint32_t)(bytes / 4);
    for (uint32_t i = 0; i < *n; i++) {
        uint32_t page_no = rd_u32(&r);
        if (page_no <= last)
            return err_fail(ERR_PROTOCOL, "page numbers that do not rise: %u after %u", page_no,
                            last);
        last = page_no;
    }
    return ERR_OK;
}

enum err wire_get_image(struct wire_frame *f, struct wire_image *image)
{
    uint32_t version = rd_u32(&f->body);
    if (!f->body.failed && version != IMAGE_VERSION)
        return err_fail(ERR_VERSION, "images of version %u, this node reads %u", version,
                        IMAGE_VERSION);
    image->page_size = rd_u32(&f->body);
    image->pages = rd_u32(&f->body);
    image->database_id = rd_u64(&f->body);
    image->seq = rd_u64(&f->body);
    image->checksum = rd_u64(&f->body);
    image->index = rd_u64(&f->body);
    image->record = (const uint8_t *)rd_str(&f->body, &image->record_len);
    TRY(is_whole(&f->body, "IMAGE"));
    if (!page_size_valid(image->page_size) || image->pages == 0 || image->pages > UINT32_MAX - 1 ||
        image->record_len > WIRE_IMAGE_RECORD_MAX)
        return err_fail(ERR_PROTOCOL, "an image of %u pages of %u bytes with a record of %zu",
                        image->pages, image->page_size, image->record_len);
    return ERR_OK;
}

enum err wire_get_image_hashes(struct wire_frame *f, uint32_t *first, uint32_t *n,
                               struct rd *hashes)
{
    *first = rd_u32(&f->body);
    size_t bytes = rd_left(&f->body);
    if (f->body.failed || bytes % 8 != 0 || bytes / 8 > WIRE_IMAGE_HASHES_MAX)
        return err_fail(ERR_PROTOCOL, "IMAGE_HASHES of a wrong length");
    *n = (uint32_t)(bytes / 8);
    *hashes = f->body;
    return ERR_OK;
}

enum err wire_get_image_pages(struct wire_frame *f, struct wire_image_pages *p)
{
    p->page_size = rd_u32(&f->body);
    size_t bytes = rd_left(&f->body);
    if (f->body.failed || !page_size_valid(p->page_size) || bytes % (p->page_size + 4) != 0 ||
        bytes / (p->page_size + 4) > wire_image_pages_max(p->page_size))
        return err_fail(ERR_PROTOCOL, "IMAGE_PAGES of a wrong length");
    p->n = (uint32_t)(bytes / (p->page_size + 4));
    p->pages = f->body;
    return ERR_OK;
}

enum err wire_each_image_page(struct wire_image_pages *p, const uint32_t *asked, uint32_t n,
                              enum err (*take)(void *ctx, uint32_t page_no, const uint8_t *page),
                              void *ctx)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t page_no = rd_u32(&p->pages);
        const uint8_t *page = rd_bytes(&p->pages, p->page_size);
        while (at < n && asked[at] != page_no)
            at++;
        if (at == n || page == NULL)
            return err_fail(ERR_PROTOCOL, "page %u was not asked for", page_no);
        TRY(take(ctx, page_no, page));
        at++;
    }
    return ERR_OK;
}
