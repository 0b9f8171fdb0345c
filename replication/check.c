/* Room: replication. Reads the files of a stopped node and says what is wrong with them.
 * Thread: any; blocks.
 * Owns: the descriptors and arrays of one check.
 * Invariants: nothing is written, made, locked or recovered: SQLite never sees the files.
 * Not here: what a running node finds (verify_vfs.c), what is done about it (node). */
#include "replication/replication.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "replication/digest.h"
#include "replication/hash_array.h"
#include "replication/hashes.h"
#include "replication/position.h"
#include "replication/wal_format.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* SQLite's locks of a database file (os.h: PENDING and on). Who has it open holds one of them. */
#define SQLITE_LOCK_BYTES     0x40000000
#define SQLITE_LOCK_BYTES_LEN 512

struct check {
    const char *path;
    char *wal_path, *position_path, *hashes_path;
    int db_fd, wal_fd; /* -1: none */
    repl_check_say say;
    void *ctx;
    struct repl_check *out;
    struct position_record record;
    uint32_t pages_in_file;
    struct wal_scan scan;
    enum wal_rest rest;
    /* Of the WAL's valid frames; those that count are copied to in_wal. */
    struct hash_array *frame_page, *frame_hash;
    struct hash_array *frame_of_page; /* newest frame that counts; 0: none */
    struct hashes_file *hashes;
};

static void say(struct check *c, bool damage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void say(struct check *c, bool damage, const char *format, ...)
{
    char sentence[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    c->out->damages += damage;
    if (c->say != NULL)
        c->say(c->ctx, damage, sentence);
}

/* --- the WAL ---------------------------------------------------------------------------------- */

/* What wal_scan_file needs of an sqlite3_file, over a descriptor. */
struct fd_file {
    sqlite3_file base;
    int fd;
};

static int fd_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
    size_t got = 0;
    if (file_read_at(((struct fd_file *)(void *)f)->fd, "the WAL", p, (size_t)n, (uint64_t)offset,
                     &got) != ERR_OK)
        return SQLITE_IOERR_READ;
    return got == (size_t)n ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int fd_size(sqlite3_file *f, sqlite3_int64 *size)
{
    uint64_t bytes = 0;
    if (file_size(((struct fd_file *)(void *)f)->fd, "the WAL", &bytes) != ERR_OK)
        return SQLITE_IOERR_FSTAT;
    *size = (sqlite3_int64)bytes;
    return SQLITE_OK;
}

static const sqlite3_io_methods fd_methods = {
    .iVersion = 1, .xRead = fd_read, .xFileSize = fd_size};

static void note_frame(void *ctx, uint32_t frame, const struct wal_frame *f, const uint8_t *page)
{
    struct check *c = ctx;
    if (c->scan.header.page_size != c->record.page_size)
        return;
    hash_array_set(c->frame_page, frame, f->page_no);
    hash_array_set(c->frame_hash, frame, digest_page_hash(f->page_no, page, c->record.page_size));
}

static enum err read_wal(struct check *c)
{
    struct fd_file f = {.base.pMethods = &fd_methods, .fd = c->wal_fd};
    if (c->wal_fd < 0)
        return ERR_OK;
    TRY(wal_scan_file(&f.base, &c->scan, note_frame, c));
    c->out->wal_bytes = c->scan.file_bytes;
    TRY(wal_look_behind(&f.base, &c->scan, &c->rest));
    if (!c->scan.has_header)
        return ERR_OK;
    if (c->scan.header.page_size != c->record.page_size) {
        say(c, true, "%s has pages of %u bytes, %s says %u", c->wal_path, c->scan.header.page_size,
            c->position_path, c->record.page_size);
        c->scan.frames = c->scan.commits = 0;
        c->rest = WAL_REST_NONE; /* said already */
        return ERR_OK;
    }
    c->out->wal_frames = c->scan.frames;
    c->out->wal_commits = c->scan.commits;
    for (uint32_t n = 1; n <= c->scan.frames; n++)
        hash_array_set(c->frame_of_page, (uint32_t)hash_array_get(c->frame_page, n), n);
    return ERR_OK;
}

/* --- the pages -------------------------------------------------------------------------------- */

static enum err find_size(struct check *c)
{
    uint64_t bytes = 0;
    const uint32_t page_size = c->record.page_size;
    TRY(file_size(c->db_fd, c->path, &bytes));
    if (bytes % page_size != 0)
        say(c, true, "%s has %llu bytes, not a number of whole pages of %u", c->path,
            (unsigned long long)bytes, page_size);
    uint64_t pages = bytes / page_size;
    if (pages >= UINT32_MAX)
        return err_fail(ERR_CORRUPT, "%s has %llu bytes: no database is so large", c->path,
                        (unsigned long long)bytes);
    c->pages_in_file = (uint32_t)pages;
    c->out->pages = c->scan.frames > 0 ? c->scan.pages_after : c->pages_in_file;
    if (c->out->pages > pages + c->scan.frames + 1) {
        say(c, true, "%s says that the database has %u pages, but %s has %u and the WAL %u frames",
            c->wal_path, c->out->pages, c->path, c->pages_in_file, c->scan.frames);
        c->out->pages = c->pages_in_file;
    }
    return ERR_OK;
}

static enum err open_hashes(struct check *c)
{
    enum err e =
        hashes_open(c->hashes_path, c->record.database_id, c->record.page_size, true, &c->hashes);
    c->out->hashes_fit = e == ERR_OK;
    if (e == ERR_NOT_FOUND)
        say(c, false, "%s is missing: pages are not compared, and the next start reads all of them",
            c->hashes_path);
    else if (e == ERR_CORRUPT)
        say(c, true, "%s; pages are not compared, and the next start reads all of them",
            err_text());
    return e == ERR_NOT_FOUND || e == ERR_CORRUPT ? ERR_OK : e;
}

/* One page of main.db that no frame has. WANTED: NULL: not known. */
static enum err check_page(struct check *c, uint32_t page_no, uint8_t *page, const uint64_t *wanted,
                           uint64_t *hash)
{
    const uint32_t page_size = c->record.page_size;
    const uint64_t at = (uint64_t)(page_no - 1) * page_size;
    size_t got = 0;
    *hash = 0;
    if (page_no > c->pages_in_file) {
        say(c, true, "page %u is neither in %s nor in its WAL", page_no, c->path);
        return ERR_OK;
    }
    enum err e = file_read_at(c->db_fd, c->path, page, page_size, at, &got);
    if (e == ERR_IO) { /* of this page: the others are read all the same */
        say(c, true, "page %u, at byte %llu: %s", page_no, (unsigned long long)at, err_text());
        return ERR_OK;
    }
    TRY(e);
    memset(page + got, 0, page_size - got);
    *hash = digest_page_hash(page_no, page, page_size);
    if (wanted == NULL || *wanted == *hash)
        return ERR_OK;
    c->out->hashes_fit = false;
    say(c, true,
        "page %u in %s, at byte %llu, is damaged: its hash is %016llx, written was %016llx",
        page_no, c->path, (unsigned long long)at, (unsigned long long)*hash,
        (unsigned long long)*wanted);
    return ERR_OK;
}

/* The pages of one block of `hashes`. */
static enum err check_block(struct check *c, uint32_t block, uint8_t *page)
{
    uint64_t wanted[HASHES_PER_BLOCK];
    bool valid = false;
    const uint32_t first = block * HASHES_PER_BLOCK + 1, pages = c->out->pages;
    const uint32_t n = pages - first + 1 < HASHES_PER_BLOCK ? pages - first + 1 : HASHES_PER_BLOCK;
    bool needed = false;
    if (c->hashes != NULL)
        TRY(hashes_read_block(c->hashes, block, wanted, &valid));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t page_no = first + i;
        const uint32_t frame = (uint32_t)hash_array_get(c->frame_of_page, page_no);
        uint64_t hash = frame == 0 ? 0 : hash_array_get(c->frame_hash, frame);
        if (page_no == digest_lock_page(c->record.page_size))
            continue;
        if (frame == 0)
            TRY(check_page(c, page_no, page, valid ? &wanted[i] : NULL, &hash));
        needed |= frame == 0;
        c->out->checksum ^= hash;
    }
    if (c->hashes != NULL && !valid && needed) {
        c->out->hashes_fit = false;
        say(c, block < hashes_blocks(c->hashes),
            "%s: block %u, of pages %u to %u, is %s: the next start reads these pages",
            c->hashes_path, block, first, first + n - 1,
            block < hashes_blocks(c->hashes) ? "damaged" : "missing");
    }
    return ERR_OK;
}

static enum err check_pages(struct check *c)
{
    uint8_t *page = mem_alloc(c->record.page_size);
    const uint32_t pages = c->out->pages;
    enum err e = ERR_OK;
    for (uint32_t b = 0; e == ERR_OK && (uint64_t)b * HASHES_PER_BLOCK < pages; b++)
        e = check_block(c, b, page);
    free(page);
    return e;
}

/* --- the position ----------------------------------------------------------------------------- */

static void know(struct check *c, uint64_t seq)
{
    c->out->seq = seq;
    c->out->position_known = true;
}

static void position_of_wal(struct check *c)
{
    const struct position_record *r = &c->record;
    for (unsigned i = 0; i < r->n_wals; i++)
        if (memcmp(r->wals[i].salt, c->scan.header.salt, sizeof r->wals[i].salt) == 0)
            know(c, r->wals[i].seq + c->scan.commits);
}

static void position_of_content(struct check *c)
{
    const struct position_record *r = &c->record;
    if (r->closed && r->closed_checksum == c->out->checksum)
        know(c, r->closed_seq);
    for (unsigned i = 0; i < r->n_wals && !c->out->position_known; i++)
        if (r->wals[i].checksum == c->out->checksum)
            know(c, r->wals[i].seq);
}

static void say_position(struct check *c)
{
    const struct position_record *r = &c->record;
    if (c->out->position_known) {
        if (r->closed && !c->out->closed)
            say(c, true,
                "%s was left at sequence %llu, checksum %016llx, and is now at %llu, %016llx: it "
                "is damaged, or another program wrote to it",
                c->path, (unsigned long long)r->closed_seq, (unsigned long long)r->closed_checksum,
                (unsigned long long)c->out->seq, (unsigned long long)c->out->checksum);
    } else if (c->scan.frames > 0) {
        say(c, true, "%s (salts %08x %08x) was not begun by this node: another program wrote to %s",
            c->wal_path, c->scan.header.salt[0], c->scan.header.salt[1], c->path);
    } else {
        say(c, r->closed, "%s has checksum %016llx, which %s does not know: %s", c->path,
            (unsigned long long)c->out->checksum, c->position_path,
            c->rest != WAL_REST_NONE ? "it is damaged, as its WAL is, or has a part of that"
            : r->closed              ? "it is damaged, or another program wrote to it"
                                     : "its WAL was removed by another program, or it is damaged");
    }
}

/* Damage of the WAL counts when what is left cannot be gone on from, as a start will see: else the
 * next start takes up what the log has. */
static void say_rest(struct check *c)
{
    char sentence[ERR_TEXT_MAX];
    if (c->rest == WAL_REST_NONE)
        return;
    const bool goes_on = c->out->position_known && (!c->record.closed || c->out->closed);
    wal_rest_sentence(sentence, sizeof sentence, c->wal_path, &c->scan, c->rest);
    say(c, !goes_on, "%s: %s", sentence,
        !goes_on         ? "the next start builds the database anew, from its log or another node"
        : c->out->closed ? "the database file has all of it, the next start goes on from there"
                         : "the next start takes it from the log");
}

static void find_position(struct check *c)
{
    const struct position_record *r = &c->record;
    if (c->scan.frames > 0)
        position_of_wal(c);
    else
        position_of_content(c);
    c->out->closed = r->closed && c->out->position_known && r->closed_seq == c->out->seq &&
                     r->closed_checksum == c->out->checksum;
    say_rest(c);
    say_position(c);
}

/* --- all of it -------------------------------------------------------------------------------- */

/* A lock of another process on the file. */
static enum err check_unused(const struct check *c)
{
    struct flock l = {.l_type = F_WRLCK,
                      .l_whence = SEEK_SET,
                      .l_start = SQLITE_LOCK_BYTES,
                      .l_len = SQLITE_LOCK_BYTES_LEN};
    if (fcntl(c->db_fd, F_OFD_GETLK, &l) != 0)
        return file_error("ask the locks of", c->path);
    if (l.l_type == F_UNLCK)
        return ERR_OK;
    return err_fail(ERR_LOCKED, "a process uses %s: stop the node, or whoever it is, first",
                    c->path);
}

static enum err check_all(struct check *c)
{
    TRY(file_open(c->path, O_RDONLY, 0, &c->db_fd));
    TRY(check_unused(c));
    enum err e = position_look(c->position_path, &c->record);
    if (e == ERR_NOT_FOUND)
        return err_fail(ERR_CORRUPT,
                        "%s exists without %s: not a database of this program, or its "
                        "position was lost",
                        c->path, c->position_path);
    TRY(e);
    if (c->record.page_size < 512 || (c->record.page_size & (c->record.page_size - 1)) != 0)
        return err_fail(ERR_CORRUPT, "%s says pages of %u bytes", c->position_path,
                        c->record.page_size);
    c->out->database_id = c->record.database_id;
    c->out->page_size = c->record.page_size;
    e = file_open(c->wal_path, O_RDONLY, 0, &c->wal_fd);
    if (e != ERR_NOT_FOUND)
        TRY(e);
    TRY(read_wal(c));
    TRY(find_size(c));
    TRY(open_hashes(c));
    TRY(check_pages(c));
    find_position(c);
    return ERR_OK;
}

enum err repl_check(const char *path, repl_check_say say_it, void *ctx, struct repl_check *out)
{
    *out = (struct repl_check){0};
    struct check c = {
        .path = path,
        .wal_path = mem_printf("%s-wal", path),
        .position_path = file_beside(path, "position"),
        .hashes_path = file_beside(path, "hashes"),
        .db_fd = -1,
        .wal_fd = -1,
        .say = say_it,
        .ctx = ctx,
        .out = out,
        .frame_page = hash_array_new(),
        .frame_hash = hash_array_new(),
        .frame_of_page = hash_array_new(),
    };
    enum err e = check_all(&c);
    hashes_close(c.hashes);
    if (c.db_fd >= 0)
        (void)close(c.db_fd);
    if (c.wal_fd >= 0)
        (void)close(c.wal_fd);
    hash_array_free(c.frame_page);
    hash_array_free(c.frame_hash);
    hash_array_free(c.frame_of_page);
    free(c.wal_path);
    free(c.position_path);
    free(c.hashes_path);
    return e;
}
