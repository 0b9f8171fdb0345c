/* Room: replication. A database built from another node's image: the pages.
 * Thread: any, one at a time; the database is closed.
 * Owns: struct repl_fetch: the descriptor of main.db.fetch, locked, and the hash of each of its
 *   pages.
 * Invariants:
 *   - a page's hash in `digest` is that of what was last read from the file or written to it, or
 *     UNREADABLE;
 *   - main.db.fetched is written only when all pages were read back from the disk and found right,
 *     and no page is written after it.
 * Not here: names, their order, installing (fetch_files.c); the bytes of main.db.fetched
 * (fetched.c).
 *
 * SQLite never sees main.db.fetch. What a crash leaves in it is hashed again and compared with the
 * source page by page, so nothing in it needs to be believed. Who asks which pages is the node. */
#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "replication/digest.h"
#include "replication/fetch_files.h"
#include "replication/fetched.h"
#include "replication/hashes.h"
#include "replication/replication.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Read at once when all pages are hashed: long enough for a disk to stream. */
#define READ_BYTES MIB(1)
/* The kernel is asked to begin writing after so much, so that the sync at the end is short. */
#define WRITE_BEHIND_BYTES MIB(8)
/* In place of the hash of a page that the disk does not give back: it is fetched anew. A page with
 * this hash by chance is, too. */
#define UNREADABLE 1u

struct repl_fetch {
    struct fetch_files files;
    int fd;
    uint64_t database_id;
    uint32_t page_size, lock_page;
    struct digest *digest;
    repl_progress progress;
    void *ctx;
    uint32_t room_pages; /* the disk had room for so many when last asked */
    uint64_t written;    /* bytes since the kernel was last asked to write */
    bool complete;       /* main.db.fetched is there */
    bool doubtful;       /* it may be there, but could not be made durable */
    bool reread;         /* the disk gave back something else than was written, once */
};

static uint64_t offset_of(const struct repl_fetch *f, uint32_t page_no)
{
    return (uint64_t)(page_no - 1) * f->page_size;
}

/* --- hashing what is there -------------------------------------------------------------------- */

/* PAGES pages from FIRST on, as the disk has them, into BUFFER. A page that it cannot give counts
 * as zeros here, and unreadable[i] is true. Bytes behind the end are zeros. */
static void read_pages(const struct repl_fetch *f, uint32_t first, uint32_t pages, uint8_t *buffer,
                       bool *unreadable)
{
    size_t n = (size_t)pages * f->page_size, got = 0;
    memset(unreadable, 0, pages * sizeof *unreadable);
    if (file_read_at(f->fd, f->files.fetch, buffer, n, offset_of(f, first), &got) == ERR_OK) {
        memset(buffer + got, 0, n - got);
        return;
    }
    for (uint32_t i = 0; i < pages; i++) {
        uint8_t *page = buffer + (size_t)i * f->page_size;
        unreadable[i] = file_read_at(f->fd, f->files.fetch, page, f->page_size,
                                     offset_of(f, first + i), &got) != ERR_OK;
        if (unreadable[i])
            log_warn("replication", "page to be fetched anew page=%u reason=\"%s\"", first + i,
                     err_text());
        memset(page + (unreadable[i] ? 0 : got), 0,
               unreadable[i] ? f->page_size : f->page_size - got);
    }
}

/* Calls VISIT with the hash of each of the first PAGES pages, in order; false from it, or from the
 * progress, ends it: ERR_CANCELLED. */
typedef void (*visit_hash)(struct repl_fetch *f, uint32_t page_no, uint64_t hash);

static enum err each_hash(struct repl_fetch *f, uint32_t pages, visit_hash visit)
{
    uint32_t at_once = (uint32_t)(READ_BYTES / f->page_size);
    uint8_t *buffer = mem_alloc(READ_BYTES);
    bool *unreadable = mem_alloc(at_once * sizeof *unreadable);
    enum err e = ERR_OK;
    for (uint32_t done = 0; done < pages && e == ERR_OK;) {
        uint32_t n = pages - done < at_once ? pages - done : at_once;
        read_pages(f, done + 1, n, buffer, unreadable);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t page_no = done + 1 + i;
            const uint8_t *page = buffer + (size_t)i * f->page_size;
            visit(f, page_no,
                  unreadable[i] ? UNREADABLE : digest_page_hash(page_no, page, f->page_size));
        }
        done += n;
        if (f->progress != NULL && !f->progress(f->ctx, done, pages))
            e = err_fail(ERR_CANCELLED, "%s: cancelled at page %u of %u", f->files.fetch, done,
                         pages);
    }
    free(buffer);
    free(unreadable);
    return e;
}

static void note_hash(struct repl_fetch *f, uint32_t page_no, uint64_t hash)
{
    digest_set(f->digest, page_no, hash);
}

/* --- open, close ------------------------------------------------------------------------------ */

/* What a file says of its own pages: 0 when it is no database. */
static uint32_t page_size_of_file(int fd, const char *path)
{
    static const uint8_t magic[16] = "SQLite format 3";
    uint8_t head[18];
    size_t got = 0;
    if (file_read_at(fd, path, head, sizeof head, 0, &got) != ERR_OK || got < sizeof head ||
        memcmp(head, magic, sizeof magic) != 0)
        return 0;
    uint32_t n = (uint32_t)head[16] << 8 | head[17];
    return n == 1 ? PAGE_SIZE_MAX : n; /* file format, section 1.3.2 */
}

static enum err cut(struct repl_fetch *f, uint64_t bytes)
{
    return ftruncate(f->fd, (off_t)bytes) == 0 ? ERR_OK : file_error("cut", f->files.fetch);
}

/* Hashes the pages that may be of use; the rest of the file goes. */
static enum err take_stock(struct repl_fetch *f)
{
    uint64_t bytes, keep;
    TRY(file_size(f->fd, f->files.fetch, &bytes));
    uint32_t theirs = page_size_of_file(f->fd, f->files.fetch);
    keep = bytes - bytes % f->page_size;
    if ((theirs != 0 && theirs != f->page_size) || keep / f->page_size > REPL_PAGES_MAX)
        keep = 0;
    if (keep != bytes)
        TRY(cut(f, keep));
    digest_resize(f->digest, (uint32_t)(keep / f->page_size));
    (void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    TRY(each_hash(f, (uint32_t)(keep / f->page_size), note_hash));
    log_info("replication", "fetch begun path=%s pages_there=%u page_size=%u", f->files.fetch,
             digest_pages(f->digest), f->page_size);
    return ERR_OK;
}

enum err repl_fetch_open(const char *path, uint64_t database_id, uint32_t page_size,
                         repl_progress progress, void *ctx, struct repl_fetch **out)
{
    *out = NULL;
    TRY(image_head_check(&(struct repl_image_head){.pages = 1, .page_size = page_size}, path));
    struct repl_fetch *f = MEM_NEW(struct repl_fetch);
    *f = (struct repl_fetch){.fd = -1,
                             .database_id = database_id,
                             .page_size = page_size,
                             .lock_page = digest_lock_page(page_size),
                             .digest = digest_new(page_size),
                             .progress = progress,
                             .ctx = ctx};
    fetch_files_init(&f->files, path);
    enum err e = fetch_files_begin(&f->files, &f->fd);
    if (e == ERR_OK)
        e = take_stock(f);
    if (e != ERR_OK) {
        repl_fetch_close(f);
        return e;
    }
    *out = f;
    return ERR_OK;
}

void repl_fetch_close(struct repl_fetch *f)
{
    if (f == NULL)
        return;
    if (f->fd >= 0)
        (void)close(f->fd);
    fetch_files_fini(&f->files);
    digest_free(f->digest);
    free(f);
}

/* --- pages ------------------------------------------------------------------------------------ */

unsigned repl_fetch_differ(struct repl_fetch *f, uint32_t first, unsigned n, const uint64_t *hashes,
                           uint32_t *page_nos)
{
    unsigned differ = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t page_no = (uint64_t)first + i;
        bool is_page = page_no != 0 && page_no <= REPL_PAGES_MAX && page_no != f->lock_page;
        if (is_page && hashes[i] != digest_get(f->digest, (uint32_t)page_no))
            page_nos[differ++] = (uint32_t)page_no;
    }
    return differ;
}

/* ERR_FULL unless the disk has room for the first PAGES pages. */
enum err repl_fetch_expect(struct repl_fetch *f, uint32_t pages)
{
    struct stat st;
    struct statvfs fs;
    if (pages <= f->room_pages)
        return ERR_OK;
    if (fstat(f->fd, &st) != 0 || fstatvfs(f->fd, &fs) != 0)
        return file_error("ask the free space for", f->files.fetch);
    uint64_t has = (uint64_t)fs.f_bavail * fs.f_frsize, there = (uint64_t)st.st_blocks * 512;
    uint64_t bytes = (uint64_t)pages * f->page_size, needs = bytes > there ? bytes - there : 0;
    if (needs > has)
        return err_fail(ERR_FULL,
                        "%s needs %llu more bytes for a database of %u pages, its file system has "
                        "%llu; make room, it goes on by itself",
                        f->files.fetch, (unsigned long long)needs, pages, (unsigned long long)has);
    f->room_pages = pages;
    return ERR_OK;
}

static enum err clear_doubt(struct repl_fetch *f)
{
    if (f->doubtful)
        TRY(fetch_files_unsay(&f->files));
    f->doubtful = false;
    return ERR_OK;
}

static void write_behind(struct repl_fetch *f)
{
    f->written += f->page_size;
    if (f->written < WRITE_BEHIND_BYTES)
        return;
    f->written = 0;
    /* Only a hint: what matters is the sync of repl_fetch_complete. */
    (void)sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

enum err repl_fetch_write(struct repl_fetch *f, uint32_t page_no, const uint8_t *page)
{
    if (page_no == 0 || page_no > REPL_PAGES_MAX)
        return err_fail(ERR_PROTOCOL, "%s: there cannot be a page %u", f->files.fetch, page_no);
    if (f->complete)
        return err_fail(ERR_MISUSE, "%s is complete: it cannot be written to", f->files.fetch);
    if (page_no == f->lock_page)
        return ERR_OK; /* never used */
    TRY(repl_fetch_expect(f, page_no));
    TRY(clear_doubt(f));
    /* A failed write leaves nobody knows what. */
    if (page_no <= digest_pages(f->digest))
        digest_set(f->digest, page_no, UNREADABLE);
    TRY(file_write_at(f->fd, f->files.fetch, page, f->page_size, offset_of(f, page_no)));
    digest_set(f->digest, page_no, digest_page_hash(page_no, page, f->page_size));
    write_behind(f);
    return ERR_OK;
}

uint64_t repl_fetch_checksum(const struct repl_fetch *f, uint32_t pages)
{
    /* Those beyond our end have hash 0. */
    if (pages >= digest_pages(f->digest))
        return digest_checksum(f->digest);
    return digest_preview_begin(f->digest, pages).checksum;
}

/* --- complete --------------------------------------------------------------------------------- */

/* What a head from another node can be wrong about. */
static enum err check_head(const struct repl_fetch *f, const struct repl_image_head *h)
{
    TRY(image_head_check(h, "the image's head"));
    if (h->database_id != f->database_id || h->page_size != f->page_size)
        return err_fail(ERR_FORMAT,
                        "the image is of database %llu with pages of %u bytes, wanted was %llu "
                        "with %u",
                        (unsigned long long)h->database_id, h->page_size,
                        (unsigned long long)f->database_id, f->page_size);
    uint64_t checksum = repl_fetch_checksum(f, h->pages);
    if (checksum == h->checksum)
        return ERR_OK;
    return err_fail(ERR_DIVERGED,
                    "%s has checksum %016llx over %u pages, the image at sequence %llu has "
                    "%016llx: not all pages that differ were fetched",
                    f->files.fetch, (unsigned long long)checksum, h->pages,
                    (unsigned long long)h->seq, (unsigned long long)h->checksum);
}

/* repl_db_open could make nothing of anything else. */
static enum err check_first_page(struct repl_fetch *f)
{
    uint8_t versions[2] = {0};
    size_t got = 0;
    TRY(file_read_at(f->fd, f->files.fetch, versions, sizeof versions, 18, &got));
    if (page_size_of_file(f->fd, f->files.fetch) == f->page_size && versions[0] == 2 &&
        versions[1] == 2)
        return ERR_OK;
    return err_fail(ERR_FORMAT,
                    "the image's first page does not begin a database in WAL mode with pages of %u "
                    "bytes",
                    f->page_size);
}

static void compare_hash(struct repl_fetch *f, uint32_t page_no, uint64_t hash)
{
    if (page_no == f->lock_page || hash == digest_get(f->digest, page_no))
        return;
    log_warn("replication", "page reads back differently page=%u path=%s", page_no, f->files.fetch);
    digest_set(f->digest, page_no, hash);
}

/* What the disk gives back, not what the kernel kept: after a failed sync, those differ. */
static enum err read_back(struct repl_fetch *f, uint32_t pages)
{
    uint64_t wanted = digest_checksum(f->digest);
    TRY(file_sync(f->fd, f->files.fetch));
    (void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    TRY(each_hash(f, pages, compare_hash));
    if (digest_checksum(f->digest) == wanted)
        return ERR_OK;
    bool again = f->reread;
    f->reread = true;
    if (again)
        return err_fail(ERR_CORRUPT,
                        "%s: pages read back differently than they were written, twice: the disk "
                        "or the memory of this machine is failing; replace it",
                        f->files.fetch);
    return err_fail(ERR_DIVERGED, "%s: pages read back differently than they were written",
                    f->files.fetch);
}

static void give_hashes(void *ctx, uint32_t first, unsigned n, uint64_t *out)
{
    const struct repl_fetch *f = ctx;
    for (unsigned i = 0; i < n; i++)
        out[i] = digest_get(f->digest, first + i);
}

enum err repl_fetch_complete(struct repl_fetch *f, const struct repl_image_head *head,
                             const uint8_t *note, size_t note_len)
{
    if (f->complete)
        return err_fail(ERR_MISUSE, "%s is complete already", f->files.fetch);
    if (note_len > REPL_FETCH_NOTE_MAX)
        return err_fail(ERR_TOO_BIG, "%s: a note of %zu bytes, at most %llu are kept",
                        f->files.fetched, note_len, REPL_FETCH_NOTE_MAX);
    TRY(check_head(f, head));
    TRY(repl_fetch_expect(f, head->pages));
    TRY(check_first_page(f));
    TRY(clear_doubt(f));
    TRY(cut(f, (uint64_t)head->pages * f->page_size));
    digest_resize(f->digest, head->pages);
    TRY(read_back(f, head->pages));
    CHECK(digest_checksum(f->digest) == head->checksum);
    /* After the last write to the pages: it must be the newer file (hashes_is_current). */
    TRY(hashes_create(f->files.hashes, head->database_id, head->page_size, head->pages, give_hashes,
                      f));
    f->doubtful = true;
    TRY(fetched_write(f->files.fetched, head, note, note_len));
    f->doubtful = false;
    f->complete = true;
    log_info("replication", "fetch complete path=%s seq=%llu checksum=%016llx pages=%u",
             f->files.fetch, (unsigned long long)head->seq, (unsigned long long)head->checksum,
             head->pages);
    return ERR_OK;
}
