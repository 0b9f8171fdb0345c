/* Room: replication. One pinned state of the database, read page by page for another node.
 * Thread: opened by the owner; then one at a time, any.
 * Owns: a reader's connection inside a read transaction, and its own mappings of the wal-index.
 * Invariants:
 *   - `limit` is the pinned frame when the read transaction is inside the WAL, and 0 when the
 *     database file alone is the pinned state;
 *   - after the opening nothing of struct repl_db is touched.
 * Not here: who asks for which pages (node).
 *
 * The pin is SQLite's: BEGIN and a first read. What it pinned is known exactly, because only the
 * owner publishes and restarts the WAL, and the owner is here. One thing moves meanwhile: a
 * checkpoint may finish. So, when the transaction is there:
 *
 *   nBackfill < mxFrame    it holds one of the read marks 1..4, for mark 0 is given only when all
 *                          is copied: the WAL stays, and frames up to mxFrame with it
 *   nBackfill == mxFrame   it holds mark 0, or one of the others if the copy ended just now. Either
 *                          way the file has all of the state, and keeps it: under mark 0 nobody
 *                          copies anything, under another nothing beyond mxFrame. With mark 0 the
 *                          WAL may be begun anew: it must not be looked at, and is not
 *
 * Pages are found with our own eyes in the wal-index (SQLite gives no pages, only rows), and read
 * through the connection's files. */
#include "base/check.h"
#include "base/mem.h"
#include "replication/database.h"
#include "replication/fetched.h"

#include <stdlib.h>
#include <string.h>

struct repl_image {
    sqlite3 *conn; /* in a read transaction */
    sqlite3_file *db_file, *wal_file;
    struct wal_index *index;
    uint32_t limit, pages, page_size;
    uint64_t seq;
    char *path; /* for sentences */
};

static void image_free(struct repl_image *image)
{
    wal_index_close(image->index);
    CHECK(sqlite3_close(image->conn) == SQLITE_OK); /* ends the transaction */
    free(image->path);
    free(image);
}

void repl_image_close(struct repl_image *image)
{
    if (image != NULL)
        image_free(image);
}

/* PRAGMA schema_version reads page 1 and no schema. */
static enum err pin(struct repl_image *image, const char *vfs)
{
    sqlite3 **c = &image->conn;
    int rc = sqlite3_open_v2(image->path, c, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, vfs);
    if (rc == SQLITE_OK)
        rc = sqlite3_extended_result_codes(*c, 1);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(*c, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(*c, "BEGIN; PRAGMA schema_version", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(*c, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&image->db_file);
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(*c, "main", SQLITE_FCNTL_JOURNAL_POINTER,
                                  (void *)&image->wal_file);
    TRY(sqlite_error(rc, "pin a state of", image->path));
    CHECK(sqlite3_txn_state(*c, "main") == SQLITE_TXN_READ);
    return ERR_OK;
}

/* After the pin. */
static enum err find_limit(struct repl_image *image, const struct repl_db *db) ON_OWNER
{
    struct wal_index_state x;
    TRY(wal_index_open(image->db_file, image->page_size, &image->index));
    TRY(wal_index_read(image->index, &x));
    if (x.frames != db->frames || x.backfilled > x.frames)
        return err_fail(ERR_CORRUPT,
                        "the wal-index of %s says %u frames, %u backfilled; this node published "
                        "%u: another program wrote to it",
                        image->path, x.frames, x.backfilled, db->frames);
    image->limit = x.backfilled == x.frames ? 0 : x.frames;
    return ERR_OK;
}

enum err repl_image_open(struct repl_db *db, struct repl_image **out, struct repl_image_head *head)
{
    *out = NULL;
    TRY(database_check(db));
    if (!db->position_known)
        return err_fail(ERR_MISUSE, "%s: its sequence is unknown, it cannot be given to others",
                        db->config.path);
    struct repl_image *image = MEM_NEW(struct repl_image);
    image->path = mem_strdup(db->config.path);
    image->pages = db->pages;
    image->page_size = db->config.page_size;
    image->seq = db->position.seq;
    enum err e = pin(image, verify_vfs_of(db->verify)->zName);
    if (e == ERR_OK)
        e = find_limit(image, db);
    if (e != ERR_OK) {
        image_free(image);
        return e;
    }
    *head = (struct repl_image_head){.database_id = db->config.database_id,
                                     .seq = db->position.seq,
                                     .checksum = db->position.checksum,
                                     .pages = db->pages,
                                     .page_size = db->config.page_size};
    *out = image;
    return ERR_OK;
}

static enum err read_page(struct repl_image *image, uint32_t page_no, uint8_t *page)
{
    uint32_t frame = 0;
    int n = (int)image->page_size, rc;
    if (page_no == 0 || page_no > image->pages)
        return err_fail(ERR_NOT_FOUND, "page %u of %u pages of %s at sequence %llu", page_no,
                        image->pages, image->path, (unsigned long long)image->seq);
    if (page_no == digest_lock_page(image->page_size)) { /* never used, not in the checksum */
        memset(page, 0, image->page_size);
        return ERR_OK;
    }
    if (image->limit > 0)
        TRY(wal_index_find(image->index, page_no, image->limit, &frame));
    if (frame > 0)
        rc = image->wal_file->pMethods->xRead(
            image->wal_file, page, n,
            (sqlite3_int64)(wal_frame_offset(frame, image->page_size) + WAL_FRAME_HEADER_BYTES));
    else
        rc = image->db_file->pMethods->xRead(image->db_file, page, n,
                                             (sqlite3_int64)(page_no - 1) * n);
    /* Behind the end of the database file: zeros, by SQLite's rule and ours. A frame is whole. */
    if (rc == SQLITE_IOERR_SHORT_READ && frame == 0)
        rc = SQLITE_OK;
    return sqlite_file_error(rc, frame > 0 ? image->wal_file : image->db_file, "read a page of",
                             image->path);
}

enum err repl_image_read(struct repl_image *image, const uint32_t *page_nos, unsigned n,
                         uint8_t *out)
{
    for (unsigned i = 0; i < n; i++)
        TRY(read_page(image, page_nos[i], out + (size_t)i * image->page_size));
    return ERR_OK;
}

/* Beside publications: some hashes may be older than others. What comes of it is compared in a
 * later round, the last time against a pinned image. */
void repl_db_hashes(const struct repl_db *db, uint32_t first, unsigned n, uint64_t *out)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t page_no = (uint64_t)first + i;
        bool is_page = page_no != 0 && page_no <= REPL_PAGES_MAX;
        out[i] = is_page ? digest_get(db->digest, (uint32_t)page_no) : 0;
    }
}
