/* Room: replication. Thread: any; blocks.
 * Owns: nothing beyond the calls.
 * Invariants: a file of this name was written whole, synced and renamed (file_replace), so one
 *   whose checksum is wrong was damaged later; magic and checksum stay where they are in all
 *   versions.
 * Not here: when it is written and removed (fetch.c, fetch_files.c). */
#include "replication/fetched.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/sizes.h"

#include <string.h>

#define VERSION        1u
#define HEAD_BYTES     48u
#define CHECKSUM_BYTES 8u
#define FILE_BYTES_MAX (HEAD_BYTES + REPL_FETCH_NOTE_MAX + CHECKSUM_BYTES)

static const uint8_t magic[8] = {'L', 'E', 'C', 'T', 'F', 'E', 'T', 0};

enum err image_head_check(const struct repl_image_head *h, const char *where)
{
    bool power_of_two = (h->page_size & (h->page_size - 1)) == 0;
    if (h->page_size < 512 || h->page_size > PAGE_SIZE_MAX || !power_of_two)
        return err_fail(ERR_FORMAT, "%s: a page size of %u is not one of SQLite's", where,
                        h->page_size);
    if (h->pages == 0 || h->pages > REPL_PAGES_MAX)
        return err_fail(ERR_FORMAT, "%s: a database of %u pages cannot be", where, h->pages);
    return ERR_OK;
}

enum err fetched_write(const char *path, const struct repl_image_head *head, const uint8_t *note,
                       size_t note_len)
{
    struct buf b;
    if (note_len > REPL_FETCH_NOTE_MAX)
        return err_fail(ERR_TOO_BIG, "%s: a note of %zu bytes, at most %llu are kept", path,
                        note_len, REPL_FETCH_NOTE_MAX);
    buf_init(&b, FILE_BYTES_MAX);
    buf_put(&b, magic, sizeof magic);
    buf_put_u32(&b, VERSION);
    buf_put_u32(&b, head->page_size);
    buf_put_u64(&b, head->database_id);
    buf_put_u64(&b, head->seq);
    buf_put_u64(&b, head->checksum);
    buf_put_u32(&b, head->pages);
    buf_put_u32(&b, (uint32_t)note_len);
    buf_put(&b, note, note_len);
    buf_put_u64(&b, hash64(b.data, b.len, 0));
    enum err e = buf_status(&b);
    if (e == ERR_OK)
        e = file_replace(path, b.data, b.len);
    buf_fini(&b);
    return e;
}

static enum err decode(const char *path, const uint8_t *p, size_t n, struct repl_image_head *head,
                       uint8_t *note, size_t *note_len)
{
    if (n < HEAD_BYTES + CHECKSUM_BYTES || memcmp(p, magic, sizeof magic) != 0 ||
        get_le64(p + n - CHECKSUM_BYTES) != hash64(p, n - CHECKSUM_BYTES, 0))
        return err_fail(ERR_CORRUPT, "%s is damaged", path);
    struct rd r = rd_of(p + sizeof magic, n - sizeof magic - CHECKSUM_BYTES);
    uint32_t version = rd_u32(&r);
    if (version != VERSION)
        return err_fail(ERR_FORMAT,
                        "%s has format version %u, this program reads %u: use the program version "
                        "that wrote it",
                        path, version, VERSION);
    head->page_size = rd_u32(&r);
    head->database_id = rd_u64(&r);
    head->seq = rd_u64(&r);
    head->checksum = rd_u64(&r);
    head->pages = rd_u32(&r);
    uint32_t len = rd_u32(&r);
    if (r.failed || len > REPL_FETCH_NOTE_MAX || len != rd_left(&r))
        return err_fail(ERR_CORRUPT, "%s: a note of %u bytes in a file of %zu", path, len, n);
    TRY(image_head_check(head, path));
    if (note == NULL)
        return ERR_OK;
    memcpy(note, rd_bytes(&r, len), len);
    *note_len = len;
    return ERR_OK;
}

enum err fetched_read(const char *path, struct repl_image_head *head, uint8_t *note,
                      size_t *note_len)
{
    struct buf b;
    CHECK((note == NULL) == (note_len == NULL));
    buf_init(&b, FILE_BYTES_MAX);
    enum err e = file_read_all(path, &b);
    if (e == ERR_TOO_BIG)
        e = err_fail(ERR_CORRUPT, "%s is damaged: it is longer than it can be", path);
    if (e == ERR_OK)
        e = decode(path, b.data, b.len, head, note, note_len);
    buf_fini(&b);
    return e;
}
