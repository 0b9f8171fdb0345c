/* Room: tests. Thread: owner. */
#include "tests/unit/replication/fetch_stage.h"

#include "base/file.h"
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"

#include <stdlib.h>
#include <string.h>

struct repl_image *fetching_image(struct repl_db *db, struct repl_image_head *head)
{
    struct repl_image *image;
    EXPECT_OK(repl_image_open(db, &image, head));
    EXPECT_EQ(head->database_id, db->config.database_id);
    EXPECT_EQ(head->seq, repl_db_position(db).seq);
    EXPECT_EQ(head->checksum, repl_db_position(db).checksum);
    EXPECT_EQ(head->page_size, db->config.page_size);
    return image;
}

/* The tests' one thread is now this, now that. */
enum err fetching_read(struct repl_image *image, uint32_t page_no, uint8_t *page)
{
    thread_become(THREAD_READER);
    thread_expect_reader();
    enum err e = repl_image_read(image, &page_no, 1, page);
    thread_become(THREAD_OWNER);
    return e;
}

void fetching_close(struct repl_image *image)
{
    thread_become(THREAD_READER);
    thread_expect_reader();
    repl_image_close(image);
    thread_become(THREAD_OWNER);
}

uint8_t *fetching_read_all(struct repl_image *image, const struct repl_image_head *head)
{
    uint8_t *pages = mem_alloc((size_t)head->pages * head->page_size);
    uint64_t checksum = 0;
    for (uint32_t i = 1; i <= head->pages; i++) {
        uint8_t *page = pages + (size_t)(i - 1) * head->page_size;
        EXPECT_OK(fetching_read(image, i, page));
        checksum ^= digest_page_hash(i, page, head->page_size);
    }
    EXPECT_EQ(checksum, head->checksum);
    return pages;
}

struct repl_fetch *fetching_open(const char *path, uint32_t page_size)
{
    struct repl_fetch *f;
    EXPECT_OK(repl_fetch_open(path, REPLICA_DATABASE_ID, page_size, NULL, NULL, &f));
    return f;
}

/* The pages of IMAGE that PAGE_NOS names; pages it does not have are left out. */
static unsigned copy(struct repl_image *image, struct repl_fetch *f, uint32_t page_size,
                     const uint32_t *page_nos, unsigned n)
{
    unsigned copied = 0;
    uint8_t *page = mem_alloc(page_size);
    for (unsigned i = 0; i < n; i++) {
        enum err e = fetching_read(image, page_nos[i], page);
        if (e == ERR_NOT_FOUND)
            continue;
        EXPECT_OK(e);
        EXPECT_OK(repl_fetch_write(f, page_nos[i], page));
        copied++;
    }
    free(page);
    return copied;
}

static unsigned differ(struct repl_db *source, struct repl_fetch *f, uint32_t first, unsigned n,
                       uint32_t *page_nos) ON_OWNER
{
    uint64_t hashes[STAGE_PAGES];
    repl_db_hashes(source, first, n, hashes);
    return repl_fetch_differ(f, first, n, hashes, page_nos);
}

unsigned fetching_round(struct repl_db *source, struct repl_fetch *f, void (*between)(void *),
                        void *ctx)
{
    unsigned copied = 0;
    for (uint32_t first = 1; first <= source->pages; first += STAGE_PAGES) {
        struct repl_image_head head;
        uint32_t page_nos[STAGE_PAGES];
        unsigned n = differ(source, f, first, STAGE_PAGES, page_nos);
        if (between != NULL)
            between(ctx);
        if (n == 0)
            continue;
        struct repl_image *image = fetching_image(source, &head);
        copied += copy(image, f, head.page_size, page_nos, n);
        fetching_close(image);
    }
    return copied;
}

unsigned fetching_last_round(struct repl_db *source, struct repl_fetch *f, struct repl_image *image,
                             const struct repl_image_head *head, void (*between)(void *), void *ctx)
{
    unsigned copied = 0;
    for (uint32_t first = 1; first <= head->pages; first += STAGE_PAGES) {
        uint32_t page_nos[STAGE_PAGES], left = head->pages - first + 1;
        if (between != NULL)
            between(ctx);
        unsigned n = differ(source, f, first, left < STAGE_PAGES ? left : STAGE_PAGES, page_nos);
        copied += copy(image, f, head->page_size, page_nos, n);
    }
    return copied;
}

void fetching_expect_file(const char *path, const uint8_t *pages, size_t n)
{
    struct buf b;
    buf_init(&b, n + 1);
    EXPECT_OK(file_read_all(path, &b));
    EXPECT_EQ(b.len, n);
    EXPECT(memcmp(b.data, pages, n) == 0);
    buf_fini(&b);
}
