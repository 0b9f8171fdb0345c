/* Room: client. Thread: one at a time; blocks.
 * Owns: PATH.partial, its descriptor and lock; the hash of each of its pages; one connection.
 * Invariants:
 *   - hashes[i] is that of what was last written to page i + 1, or 0 (a hole), or NOTHING;
 *   - PATH gets its name only when the whole was read back with the checksum that the node gave for
 *     one state, and is on the disk;
 *   - nothing that a node says is believed: sizes are bounded, a page counts by what it hashes to.
 * Not here: which node, and what then (export.c); frames (image_client.c).
 *
 * The rounds are those of a node that fetches (node/fetch.c): first pages of a changing database,
 * then, when little differs, a pinned image of one state. What a node serves is in WAL mode; the
 * copy stands alone, so its header says rollback journal, which is what SQLite begins with. */
#include "client/image_copy.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/page_hash.h"
#include "client/image_client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LAST_ROUND_BYTES MIB(64) /* so little is left that one pinned image may serve it */
#define ROUNDS_MAX       8       /* and then the last one, however much is left */
#define TRIES_MAX        3       /* with one node, when the checksum is wrong */
#define NOTHING          1u      /* in place of a hash: nobody knows what is there */
#define READ_BYTES       MIB(1)
#define BEHIND_BYTES     MIB(8)      /* the kernel is asked to begin writing after so much */
#define PAGES_MAX        0xfffffffeu /* of an SQLite database */

struct image_copy {
    char *path, *partial;
    int fd;
    bool finished;
    image_copy_progress progress;
    image_copy_stop stop;
    void *arg;
    uint32_t page_size, lock_page; /* 0: not known yet */
    uint64_t database_id;
    uint32_t pages; /* of the image that was looked at last */
    uint64_t checksum;
    uint64_t *hashes;
    uint32_t n_hashes; /* room */
    uint32_t *differing;
    size_t n_differing, differing_room;
    uint64_t unwritten, last_ms;
    struct image_client *client;
};

static uint64_t offset_of(const struct image_copy *c, uint32_t page_no)
{
    return (uint64_t)(page_no - 1) * c->page_size;
}

static enum err no_memory(const struct image_copy *c)
{
    return err_fail(ERR_NOMEM, "%s: out of memory for the hashes of %u pages", c->partial,
                    c->pages);
}

/* --- open, close ------------------------------------------------------------------------------ */

/* The file is not ours to remove. */
static enum err give_back(struct image_copy *c, enum err e)
{
    (void)close(c->fd);
    c->fd = -1;
    return e;
}

static enum err make_file(struct image_copy *c)
{
    struct stat st, ours;
    if (lstat(c->path, &st) == 0)
        return err_fail(ERR_MISUSE, "%s is there: an export does not overwrite", c->path);
    TRY(file_open(c->partial, O_RDWR | O_CREAT | O_NOFOLLOW, 0644, &c->fd));
    if (flock(c->fd, LOCK_EX | LOCK_NB) != 0) {
        enum err e = errno == EWOULDBLOCK ? ERR_LOCKED : ERR_IO;
        e = err_fail(e, "cannot lock %s: %s", c->partial,
                     e == ERR_LOCKED ? "another export writes to it" : strerror(errno));
        return give_back(c, e);
    }
    /* Between our open and our lock its owner may have given it its final name. */
    if (fstat(c->fd, &ours) != 0 || lstat(c->partial, &st) != 0 || ours.st_ino != st.st_ino ||
        ours.st_dev != st.st_dev)
        return give_back(c, err_fail(ERR_LOCKED, "another export has just written %s", c->partial));
    return ftruncate(c->fd, 0) == 0 ? ERR_OK : file_error("cut", c->partial);
}

enum err image_copy_new(const char *path, image_copy_progress progress, image_copy_stop stop,
                        void *arg, struct image_copy **out)
{
    size_t n = strlen(path);
    *out = NULL;
    struct image_copy *c = calloc(1, sizeof *c);
    if (c == NULL)
        return err_fail(ERR_NOMEM, "out of memory");
    c->fd = -1;
    c->progress = progress;
    c->stop = stop;
    c->arg = arg;
    c->path = strdup(path);
    c->partial = malloc(n + sizeof ".partial");
    enum err e = ERR_OK;
    if (c->path == NULL || c->partial == NULL) {
        e = err_fail(ERR_NOMEM, "out of memory");
    } else {
        memcpy(c->partial, path, n);
        memcpy(c->partial + n, ".partial", sizeof ".partial");
        e = make_file(c);
    }
    if (e != ERR_OK) {
        image_copy_free(c);
        return e;
    }
    *out = c;
    return ERR_OK;
}

void image_copy_free(struct image_copy *c)
{
    if (c == NULL)
        return;
    CHECK(c->client == NULL);
    if (c->fd >= 0 && !c->finished)
        (void)unlink(c->partial); /* while the lock is held: it is surely ours */
    if (c->fd >= 0)
        (void)close(c->fd);
    free(c->path);
    free(c->partial);
    free(c->hashes);
    free(c->differing);
    free(c);
}

uint64_t image_copy_last_ms(const struct image_copy *c)
{
    return c->last_ms;
}

/* --- what the node has ------------------------------------------------------------------------ */

static enum err judge_image(struct image_copy *c, const struct wire_image *w)
{
    bool size_is_right = w->page_size >= 512 && w->page_size <= PAGE_SIZE_MAX &&
                         (w->page_size & (w->page_size - 1)) == 0;
    if (!size_is_right || w->pages == 0 || w->pages > PAGES_MAX)
        return err_fail(ERR_PROTOCOL, "an image of %u pages of %u bytes", w->pages, w->page_size);
    if (c->page_size != 0 && w->database_id != c->database_id)
        return err_fail(ERR_CONFIG, "it has another database (id %" PRIu64 ")", w->database_id);
    if (w->page_size != c->page_size) { /* a database is made with one size, for good */
        if (c->page_size != 0)
            return err_fail(ERR_PROTOCOL, "pages of %u bytes, and of %u before", w->page_size,
                            c->page_size);
        c->page_size = w->page_size;
        c->lock_page = page_hash_lock_page(w->page_size);
        c->database_id = w->database_id;
    }
    c->pages = w->pages;
    c->checksum = w->checksum;
    return ERR_OK;
}

/* ERR_FULL now is better than after an hour. */
static enum err expect_room(struct image_copy *c)
{
    struct stat st;
    struct statvfs fs;
    if (fstat(c->fd, &st) != 0 || fstatvfs(c->fd, &fs) != 0)
        return file_error("ask the free space for", c->partial);
    uint64_t has = (uint64_t)fs.f_bavail * fs.f_frsize, there = (uint64_t)st.st_blocks * 512;
    uint64_t bytes = (uint64_t)c->pages * c->page_size, needs = bytes > there ? bytes - there : 0;
    if (needs <= has)
        return ERR_OK;
    return err_fail(ERR_FULL,
                    "%s needs %" PRIu64 " more bytes, its file system has %" PRIu64
                    ": make room, or export elsewhere",
                    c->partial, needs, has);
}

/* Room for the hashes of N pages: it grows with answers that came, not with what a node claims. */
static enum err grow(struct image_copy *c, uint32_t n)
{
    if (n > c->n_hashes) {
        uint64_t *more = realloc(c->hashes, n * sizeof *more);
        if (more == NULL)
            return no_memory(c);
        c->hashes = more;
        for (uint32_t i = c->n_hashes; i < n; i++)
            more[i] = 0; /* a hole in the file: zeros */
        c->n_hashes = n;
    }
    if (c->n_differing + WIRE_IMAGE_HASHES_MAX > c->differing_room) {
        size_t room = 2 * c->differing_room + WIRE_IMAGE_HASHES_MAX;
        uint32_t *more = realloc(c->differing, room * sizeof *more);
        if (more == NULL)
            return no_memory(c);
        c->differing = more;
        c->differing_room = room;
    }
    return ERR_OK;
}

/* Which of the node's pages differ from ours? */
static enum err scan(struct image_copy *c)
{
    c->n_differing = 0;
    uint64_t *hashes = malloc(WIRE_IMAGE_HASHES_MAX * sizeof *hashes);
    if (hashes == NULL)
        return no_memory(c);
    enum err e = ERR_OK;
    for (uint64_t first = 1; e == ERR_OK && first <= c->pages; first += WIRE_IMAGE_HASHES_MAX) {
        uint64_t left = c->pages - first + 1;
        uint32_t n = (uint32_t)(left < WIRE_IMAGE_HASHES_MAX ? left : WIRE_IMAGE_HASHES_MAX);
        e = image_client_hashes(c->client, (uint32_t)first, n, hashes);
        if (e == ERR_OK)
            e = grow(c, (uint32_t)first + n - 1);
        for (uint32_t i = 0; e == ERR_OK && i < n; i++) {
            uint32_t page_no = (uint32_t)first + i;
            if (page_no != c->lock_page && hashes[i] != c->hashes[page_no - 1])
                c->differing[c->n_differing++] = page_no;
        }
    }
    free(hashes);
    return e;
}

/* --- pages ------------------------------------------------------------------------------------ */

static enum err report(struct image_copy *c, size_t left)
{
    uint64_t total = (uint64_t)c->pages * c->page_size, missing = (uint64_t)left * c->page_size;
    if (c->stop(c->arg) || c->progress(c->arg, total - missing, total) != 0)
        return err_fail(ERR_CANCELLED, "the export was interrupted");
    return ERR_OK;
}

/* ERR_IO of the network never comes from here, so it is our disk's. */
static enum err write_page(void *ctx, uint32_t page_no, const uint8_t *page)
{
    struct image_copy *c = ctx;
    c->hashes[page_no - 1] = NOTHING; /* a failed write leaves nobody knows what */
    TRY(file_write_at(c->fd, c->partial, page, c->page_size, offset_of(c, page_no)));
    c->hashes[page_no - 1] = page_hash(page_no, page, c->page_size);
    c->unwritten += c->page_size;
    if (c->unwritten >= BEHIND_BYTES) {
        c->unwritten = 0;
        (void)sync_file_range(c->fd, 0, 0,
                              SYNC_FILE_RANGE_WRITE); /* a hint: the sync comes later */
    }
    return ERR_OK;
}

static enum err pull(struct image_copy *c)
{
    uint32_t chunk = wire_image_pages_max(c->page_size);
    TRY(report(c, c->n_differing));
    for (size_t at = 0; at < c->n_differing;) {
        size_t left = c->n_differing - at;
        uint32_t n = left < chunk ? (uint32_t)left : chunk;
        struct wire_image_pages p;
        TRY(image_client_pages(c->client, c->differing + at, n, c->page_size, &p));
        TRY(wire_each_image_page(&p, c->differing + at, n, write_page, c));
        c->last_ms = clock_mono_ms();
        at += n;
        TRY(report(c, c->n_differing - at));
    }
    return ERR_OK;
}

/* --- rounds ----------------------------------------------------------------------------------- */

static enum err round_begin(struct image_copy *c, bool pin, struct wire_image *w)
{
    TRY(image_client_begin(c->client, pin, w));
    TRY(judge_image(c, w));
    TRY(expect_room(c));
    return scan(c);
}

/* Over the changing database, until little differs. */
static enum err rounds(struct image_copy *c)
{
    for (unsigned round = 1; round < ROUNDS_MAX; round++) {
        struct wire_image w;
        TRY(round_begin(c, false, &w));
        if (c->n_differing * (uint64_t)c->page_size <= LAST_ROUND_BYTES)
            return ERR_OK;
        TRY(pull(c));
    }
    return ERR_OK;
}

static uint64_t sum_up(const struct image_copy *c)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c->pages && i < c->n_hashes; i++)
        sum ^= i + 1 == c->lock_page ? 0 : c->hashes[i];
    return sum;
}

/* One state, whole: its checksum is the proof. */
static enum err last_round(struct image_copy *c, uint64_t min_seq)
{
    struct wire_image w;
    TRY(round_begin(c, true, &w));
    if (w.seq < min_seq)
        return err_fail(ERR_NOT_FOUND,
                        "it is behind: at transaction %" PRIu64 ", this session knows %" PRIu64,
                        w.seq, min_seq);
    TRY(pull(c));
    uint64_t sum = sum_up(c);
    if (sum == w.checksum)
        return ERR_OK;
    return err_fail(ERR_DIVERGED, "the pages have checksum %016" PRIx64 ", the image %016" PRIx64,
                    sum, w.checksum);
}

static enum err take_all(struct image_copy *c, uint64_t min_seq)
{
    for (unsigned tries = 1;; tries++) {
        TRY(rounds(c));
        enum err e = last_round(c, min_seq);
        /* A page that changed there and back while hashes were asked for: look again. */
        if (e != ERR_DIVERGED || tries == TRIES_MAX)
            return e;
    }
}

enum err image_copy_from(struct image_copy *c, const char *address, uint64_t cluster_id,
                         uint64_t min_seq)
{
    CHECK(!c->finished);
    struct dial_stop stop = {.wake_fd = -1, .stop = c->stop, .arg = c->arg};
    TRY(image_client_open(address, "liblectern export", cluster_id, &stop, &c->client));
    enum err e = take_all(c, min_seq);
    image_client_close(c->client);
    c->client = NULL;
    return e;
}

/* --- the end ---------------------------------------------------------------------------------- */

/* What the disk gives back, not what the kernel kept. */
static enum err read_back(struct image_copy *c)
{
    uint32_t at_once = (uint32_t)(READ_BYTES / c->page_size), wrong = 0;
    uint8_t *pages = malloc(READ_BYTES);
    if (pages == NULL)
        return no_memory(c);
    enum err e = file_sync(c->fd, c->partial);
    (void)posix_fadvise(c->fd, 0, 0, POSIX_FADV_DONTNEED);
    for (uint32_t done = 0; e == ERR_OK && done < c->pages;) {
        uint32_t n = c->pages - done < at_once ? c->pages - done : at_once;
        size_t got = 0, want = (size_t)n * c->page_size;
        e = file_read_at(c->fd, c->partial, pages, want, offset_of(c, done + 1), &got);
        memset(pages + got, 0, want - got);
        for (uint32_t i = 0; e == ERR_OK && i < n; i++, done++) {
            uint64_t hash = page_hash(done + 1, pages + (size_t)i * c->page_size, c->page_size);
            if (done + 1 != c->lock_page && hash != c->hashes[done]) {
                c->hashes[done] = hash;
                wrong++;
            }
        }
        if (e == ERR_OK)
            e = report(c, 0);
    }
    free(pages);
    if (e == ERR_OK && wrong > 0)
        return err_fail(ERR_DIVERGED, "%s: %u pages read back differently than they were written",
                        c->partial, wrong);
    return e;
}

/* Versions 2 in bytes 18 and 19 of the file would make SQLite look for a WAL (file format, section
 * 1.3.3). */
static enum err leave_wal_mode(struct image_copy *c)
{
    static const uint8_t magic[16] = "SQLite format 3", rollback[2] = {1, 1};
    uint8_t head[20];
    size_t got;
    TRY(file_read_at(c->fd, c->partial, head, sizeof head, 0, &got));
    if (got < sizeof head || memcmp(head, magic, sizeof magic) != 0)
        return err_fail(ERR_FORMAT, "%s: what the node gave does not begin as a database",
                        c->partial);
    return file_write_at(c->fd, c->partial, rollback, sizeof rollback, 18);
}

/* Never over another file, also one that came meanwhile. */
static enum err give_name(struct image_copy *c)
{
    if (renameat2(AT_FDCWD, c->partial, AT_FDCWD, c->path, RENAME_NOREPLACE) == 0)
        return ERR_OK;
    if (errno == EINVAL || errno == ENOSYS) { /* a file system without it */
        if (link(c->partial, c->path) == 0) {
            (void)unlink(c->partial);
            return ERR_OK;
        }
        if (errno == EPERM || errno == EOPNOTSUPP) { /* nor links */
            struct stat st;
            if (lstat(c->path, &st) != 0 && rename(c->partial, c->path) == 0)
                return ERR_OK;
        }
    }
    return file_error("rename", c->partial);
}

enum err image_copy_finish(struct image_copy *c)
{
    CHECK(c->pages > 0 && sum_up(c) == c->checksum);
    if (ftruncate(c->fd, (off_t)((uint64_t)c->pages * c->page_size)) != 0)
        return file_error("cut", c->partial);
    TRY(read_back(c));
    TRY(leave_wal_mode(c));
    TRY(file_sync(c->fd, c->partial));
    TRY(give_name(c));
    c->finished = true;
    enum err e = file_sync_dir_of(c->path);
    if (e != ERR_OK)
        (void)unlink(c->path); /* nobody can say whether it would be there after a power cut */
    return e;
}
