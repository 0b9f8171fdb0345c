/* Room: replication. Its door: the only header of this room that node/ includes.
 *
 * Pages and files, no Raft. A repl_db is one SQLite database on this node's disk. All calls run on
 * its owner thread except where ON_READER or "any thread" is said. DESIGN in short:
 *
 *   leader    repl_view_open -> SQL on repl_view_connect's connections -> COMMIT ->
 *             repl_view_seal (SEALED, PACKED) -> [somebody orders the entries] -> repl_db_publish
 *   follower  [ordered entries] -> repl_db_apply
 *   readers   repl_reader_open: stock VFS, published states only
 *
 * Sequence: transactions of a database are numbered 1, 2, 3, ... without gaps; 0 is the empty
 * database. Position: a sequence and the checksum of the database at it. Checksum: XOR over all
 * pages of the hash of (page number, content); pages past the end count nothing; the lock-byte page
 * counts nothing.
 *
 * After ERR_DIVERGED, ERR_CORRUPT or ERR_IO from publish, apply or upkeep the database is stopped:
 * every later call answers ERR_STOPPED with the first sentence. Nothing is guessed. */
#ifndef REPLICATION_REPLICATION_H
#define REPLICATION_REPLICATION_H

#include "base/err.h"
#include "base/histogram.h"
#include "base/sizes.h"
#include "base/thread.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct repl_db;
struct repl_view;
struct repl_txn;

struct repl_position {
    uint64_t seq;
    uint64_t checksum;
};

struct repl_config {
    const char *path;        /* DIR/main.db; DIR exists */
    uint64_t database_id;    /* in every entry; a foreign one is refused */
    uint32_t page_size;      /* of a new database; an existing one keeps its own */
    uint64_t txn_bytes_max;  /* captured bytes of one transaction; above: SQLITE_FULL */
    uint64_t txn_accept_max; /* of another node's: one that is over it is forged */
    uint64_t txn_memory_max; /* of them in memory; the others in a temporary file in DIR */
    uint64_t disk_reserve;   /* a transaction that would leave less room on the disk: SQLITE_FULL */
    uint64_t entry_bytes_max;      /* one part of a packed transaction */
    uint64_t wal_checkpoint_bytes; /* a checkpoint starts above this WAL size */
    uint64_t wal_restart_bytes;    /* upkeep asks for quiet above this WAL size */
    /* A page that was read differs from its hash: SENTENCE names it. On the thread that read; the
     * reading statement fails with SQLITE_IOERR. May be NULL. */
    void (*on_damage)(void *ctx, const char *sentence);
    void *ctx;
};

/* Fills C with the defaults of base/sizes.h. */
void repl_config_init(struct repl_config *c, const char *path);

/* Opens or creates the database, recovers its WAL, loads the hash of every page from the file
 * `hashes` (pages in the WAL are hashed anew; a `hashes` that is lost or does not fit is made again
 * from the pages, which takes long and is logged), and takes the WAL's WRITE and CHECKPOINT locks
 * until close. No page of main.db is read here: each is compared with its hash when somebody reads
 * it (verify_vfs.h). Other processes can read, and get SQLITE_BUSY when they write.
 * ERR_LOCKED: another process writes to it. ERR_FORMAT: not a database of ours. ERR_CORRUPT:
 * damaged. The position may be unknown (another program checkpointed and removed the WAL while the
 * node was stopped): repl_db_position_known; the caller then finds the sequence for the checksum in
 * the log and adopts it, or refuses to serve. */
MUST_USE enum err repl_db_open(const struct repl_config *c, struct repl_db **db) ON_OWNER;
/* Clean stop: checkpoints all, notes the position, keeps the WAL file. Views, connections and
 * readers must be closed. Frees DB also on error. */
MUST_USE enum err repl_db_close(struct repl_db *db) ON_OWNER;

bool repl_db_position_known(const struct repl_db *db) ON_OWNER;
MUST_USE enum err repl_db_adopt_position(struct repl_db *db, uint64_t seq) ON_OWNER;
/* Newest published position; while it is unknown: sequence 0 and the checksum of the content. */
struct repl_position repl_db_position(const struct repl_db *db) ON_OWNER;
/* Reads every page of the published database and compares with the page hashes. ERR_CORRUPT names
 * the first page that differs, and where it lies. Long: for tests. */
MUST_USE enum err repl_db_verify(struct repl_db *db) ON_OWNER;
/* The same for the next PAGES pages, round and round: small steps for idle moments. */
MUST_USE enum err repl_db_scrub(struct repl_db *db, uint32_t pages) ON_OWNER;
/* Reads and hashes every page anew, whatever the file `hashes` said, and makes that file again: for
 * a checksum that is not the log's. Afterwards repl_db_position has the checksum of what the files
 * really contain; when it is the log's now, only `hashes` was wrong, else pages differ. The
 * position may be known or not afterwards. Long, with lines in the log. No view may be open. */
MUST_USE enum err repl_db_rehash(struct repl_db *db) ON_OWNER;

/* --- a stopped node's files (check.c)
 * --------------------------------------------------------------------
 */

struct repl_check {
    uint64_t database_id, seq, checksum; /* seq 0 and !position_known: it cannot be told */
    uint32_t page_size, pages;
    uint32_t wal_frames, wal_commits; /* that count */
    uint64_t wal_bytes;               /* of the file */
    bool position_known;
    bool closed; /* a clean stop, and nothing was added since */
    bool
        hashes_fit; /* the file `hashes` is whole, and right for each page that is not in the WAL */
    unsigned damages; /* sentences about damage */
};
/* DAMAGE false: something that a crash may leave, or that is worth knowing. */
typedef void (*repl_check_say)(void *ctx, bool damage, const char *sentence);
/* Reads all of the database at PATH (as in repl_config): `position`, the WAL, each page, `hashes`,
 * and says what is wrong, page by page. Opens nothing for writing and leaves nothing behind. Any
 * thread; blocks for long. ERR_OK: all was read, look at `damages`. ERR_NOT_FOUND: there is no
 * database. ERR_LOCKED: a process uses it. ERR_CORRUPT, ERR_FORMAT: `position` or main.db cannot be
 * made sense of: nothing else was looked at. */
MUST_USE enum err repl_check(const char *path, repl_check_say say, void *ctx,
                             struct repl_check *out);

/* Asks for all that is published now to survive a power cut: the WAL is synced on the checkpoint
 * thread. repl_db_durable, any thread: the newest sequence that does. */
void repl_db_want_durable(struct repl_db *db) ON_OWNER;
uint64_t repl_db_durable(const struct repl_db *db);

/* Facts for status and metrics; any thread. */
struct repl_stats {
    uint64_t published_seq, checksum;
    uint64_t wal_bytes, wal_backfilled_bytes, wal_restarts, checkpoints;
    uint32_t pages, page_size;
    uint64_t restart_waits_ms; /* readers have held the WAL's restart back for so long; 0: nobody */
    bool waits_for_room;       /* the disk is full: see repl_db_publish */
};
void repl_db_stats(const struct repl_db *db, struct repl_stats *out);
/* Adds how long the checkpoints took, since the opening, to OUT. */
void repl_db_checkpoint_times(const struct repl_db *db, struct histogram_copy *out);

/* --- the leader's side ------------------------------------------------------------------------ */

/* Opens the writer's view at the published position. One view at a time. */
MUST_USE enum err repl_view_open(struct repl_db *db, struct repl_view **view) ON_OWNER;
/* A connection that sees and makes unpublished states. Foreign keys are on, wal_autocheckpoint off.
 * Several may be open; SQLite's one-writer rule holds among them. Close with sqlite3_close. */
MUST_USE enum err repl_view_connect(struct repl_view *view, sqlite3 **conn) ON_OWNER;
/* After a statement: ERR_IO once the view's temporary file cannot be made, written or read (but for
 * want of room). SQLite's own error does not say so. Nothing is sealed any more: close the view. */
MUST_USE enum err repl_view_check(const struct repl_view *view) ON_OWNER;
/* After a COMMIT: takes what was committed since the last seal as one transaction, packed for the
 * log. *txn = NULL when nothing was written. WALL_MS goes into the entry, and so does a copy of
 * SECTION, the caller's own bytes about this transaction: into its last part. LEN: at most
 * OUTCOMES_SECTION_MAX, and a page must fit entry_bytes_max beside it. */
MUST_USE enum err repl_view_seal(struct repl_view *view, uint64_t wall_ms, const uint8_t *section,
                                 size_t len, struct repl_txn **txn) ON_OWNER;
/* Sequence of the newest sealed transaction: what a statement run now can see. */
uint64_t repl_view_seq(const struct repl_view *view) ON_OWNER;
/* Drops everything unpublished. Its connections must be closed and its transactions freed. */
void repl_view_close(struct repl_view *view) ON_OWNER;

uint64_t repl_txn_seq(const struct repl_txn *txn);
/* How many entries carry it; at least one. */
unsigned repl_txn_parts(const struct repl_txn *txn);
/* Makes entry I (from 0) of it, in memory that is the caller's (free with free()). The same bytes
 * each time, until the transaction is published or freed. ERR_IO: the temporary file. */
MUST_USE enum err repl_txn_part(const struct repl_txn *txn, unsigned i, uint8_t **bytes,
                                size_t *len) ON_OWNER;
/* Bytes of its pages and its section: what its entries have together before they are packed. */
uint64_t repl_txn_bytes(const struct repl_txn *txn);
/* For one that was never ordered; the view must be closed right after. */
void repl_txn_free(struct repl_txn *txn);

/* The transaction was ordered: makes it visible to readers, in the order of the seals. Frees TXN,
 * but with ERR_FULL: the disk is full, nothing happened, TXN is as it was and the call is to be
 * made again when there is room. (repl_db_apply likewise.) */
MUST_USE enum err repl_db_publish(struct repl_db *db, struct repl_txn *txn) ON_OWNER;

/* --- the follower's side ---------------------------------------------------------------------- */

/* What an entry says of itself, after its checksum was verified. */
struct repl_entry {
    uint64_t database_id, seq, wall_ms, checksum_before, checksum_after;
    uint32_t part, parts, pages_after, page_size;
    const uint8_t *section; /* in the last part; borrowed from the entry's bytes */
    size_t section_len;
};
/* ERR_CORRUPT: damaged. ERR_FORMAT: a newer version. Any thread. */
MUST_USE enum err repl_entry_read(const uint8_t *p, size_t n, struct repl_entry *out);

/* Applies the next ordered entry. Entries that the database already has are skipped; the parts of a
 * cut transaction are collected and applied at the last. Before it becomes visible the checksums
 * before and after are compared: ERR_DIVERGED says what differs. No view may be open. */
MUST_USE enum err repl_db_apply(struct repl_db *db, const uint8_t *p, size_t n) ON_OWNER;
/* The first N entries of TXN were ordered, but its leader lost its office before the others were:
 * as if repl_db_apply had got them. They are put aside; nothing is applied yet. ERR_FULL: call
 * again when there is room. */
MUST_USE enum err repl_db_apply_sealed(struct repl_db *db, const struct repl_txn *txn,
                                       unsigned n) ON_OWNER;
/* A new leader's term began: parts of a transaction that its old leader never finished are dropped.
 */
void repl_db_apply_reset(struct repl_db *db) ON_OWNER;

/* A diagnosis for a database whose checksum is not the log's (compare.c): give it the log's
 * entries, newest first, those of later sequences too. It compares the newest version of each page.
 */
struct repl_compare;
struct repl_compare *repl_compare_new(struct repl_db *db) ON_OWNER;
MUST_USE enum err repl_compare_entry(struct repl_compare *c, const uint8_t *p, size_t n) ON_OWNER;
/* What differs, as a part of a sentence with at most MAX bytes; frees C. */
void repl_compare_end(struct repl_compare *c, char *sentence, size_t max) ON_OWNER;

/* --- both --------------------------------------------------------------------------------------
 */

/* Checkpoints and WAL restarts; call often (after each batch, and when idle), cheap when there is
 * nothing to do; the checkpoint itself runs on a thread of its own. QUIET: nothing is sealed and
 * unpublished and no transaction is open on the view (always true on a follower). *wants_quiet: the
 * WAL should be restarted and only a quiet moment is missing; the writer lane then pauses until it
 * has published what it has. */
MUST_USE enum err repl_db_upkeep(struct repl_db *db, bool quiet, bool *wants_quiet) ON_OWNER;

/* Who read is gone: the restart of a long WAL is tried at the next upkeep, not after the pause that
 * the attempts in vain have led to. Any thread. */
void repl_db_restart_soon(struct repl_db *db);

/* A read-only connection of the stock VFS on the published files. Close with sqlite3_close. */
MUST_USE enum err repl_reader_open(const struct repl_db *db, sqlite3 **conn) ON_READER;
/* Newest published sequence; any thread. A read that begins after this returned N sees at least N.
 */
uint64_t repl_db_published(const struct repl_db *db);
/* At least the sequence that any read transaction begun before this call can see; any thread. */
uint64_t repl_db_published_upper(const struct repl_db *db);

/* --- images: one consistent state, read page by page for another node ---------------------------
 *
 * The fetching node asks for the hashes, compares them with what it has, and asks for the pages
 * that differ; several rounds over changing pages, the last one on one pinned image. */

struct repl_image_head {
    uint64_t database_id, seq, checksum;
    uint32_t pages, page_size;
};

struct repl_image;
/* Pins the published state as a reader does: the WAL cannot restart until it is closed, so keep it
 * short. To be used and closed by one thread at a time, any. */
MUST_USE enum err repl_image_open(struct repl_db *db, struct repl_image **out,
                                  struct repl_image_head *head) ON_OWNER;
/* The pages PAGE_NOS[0..n) as they are in the image, each compared with its hash, into OUT (n times
 * the page size). A number beyond the image's end: ERR_NOT_FOUND. ERR_CORRUPT: this node is
 * damaged.
 */
MUST_USE enum err repl_image_read(struct repl_image *image, const uint32_t *page_nos, unsigned n,
                                  uint8_t *out) ON_READER;
void repl_image_close(struct repl_image *image) ON_READER;
/* Hashes of the pages FIRST .. FIRST + N - 1 as published about now; 0 beyond the end. Any thread.
 */
void repl_db_hashes(const struct repl_db *db, uint32_t first, unsigned n, uint64_t *out);

/* --- fetching: a database made from another node's image ----------------------------------------
 *
 * All on one thread, any, while the database is closed. From repl_fetch_open on, main.db is gone
 * (its pages wait in main.db.fetch, to be made use of); it comes back, whole and verified, with
 * repl_fetch_install, or never. A crash anywhere leaves one of the states of repl_fetch_state. */

enum repl_fetch_state {
    REPL_FETCH_NONE,    /* no fetch was begun: main.db is what it is */
    REPL_FETCH_BEGUN,   /* main.db.fetch has some pages: go on with repl_fetch_open */
    REPL_FETCH_COMPLETE /* whole, verified, durable: repl_fetch_install */
};
/* PATH: as in repl_config. COMPLETE: *head and the note that repl_fetch_complete was given (at most
 * REPL_FETCH_NOTE_MAX bytes into NOTE). */
#define REPL_FETCH_NOTE_MAX KIB(64)
MUST_USE enum err repl_fetch_look(const char *path, enum repl_fetch_state *state,
                                  struct repl_image_head *head, uint8_t *note, size_t *note_len);

struct repl_fetch;
/* Long work tells how far it is: DONE of TOTAL pages; false ends it with ERR_CANCELLED. */
typedef bool (*repl_progress)(void *ctx, uint32_t done, uint32_t total);
/* Takes what there is of the old database, WAL and all, out of the way, and hashes its pages. Pages
 * of another size are of no use and dropped. */
MUST_USE enum err repl_fetch_open(const char *path, uint64_t database_id, uint32_t page_size,
                                  repl_progress progress, void *ctx, struct repl_fetch **out);
/* Compares HASHES of the pages FIRST .. FIRST + N - 1 with ours; the numbers of those that differ
 * into PAGE_NOS (room for N), how many as result. */
unsigned repl_fetch_differ(struct repl_fetch *f, uint32_t first, unsigned n, const uint64_t *hashes,
                           uint32_t *page_nos);
/* The image has about PAGES pages. ERR_FULL: "needs N more bytes, its file system has M"; what is
 * there stays, try again later. Each write asks this for itself. */
MUST_USE enum err repl_fetch_expect(struct repl_fetch *f, uint32_t pages);
/* One page of the image. ERR_FULL: as above. */
MUST_USE enum err repl_fetch_write(struct repl_fetch *f, uint32_t page_no, const uint8_t *page);
/* The checksum that the first PAGES pages have now, without reading them. */
uint64_t repl_fetch_checksum(const struct repl_fetch *f, uint32_t pages);
/* All of HEAD's image is here: cuts the file to it, syncs, reads all of it back and compares with
 * HEAD's checksum, then makes the word COMPLETE durable together with NOTE. ERR_DIVERGED: the
 * checksum differs: fetch what differs again. */
MUST_USE enum err repl_fetch_complete(struct repl_fetch *f, const struct repl_image_head *head,
                                      const uint8_t *note, size_t note_len);
/* Keeps what was fetched for the next try. */
void repl_fetch_close(struct repl_fetch *f);
/* COMPLETE -> main.db with its `position` and `hashes`; NONE afterwards. */
MUST_USE enum err repl_fetch_install(const char *path);
/* Removes the database, and whatever was fetched, with all that belongs to it: repl_db_open then
 * makes an empty one, to be built from the log. A crash inside leaves the database as it was or
 * BEGUN: look, and drop again. */
MUST_USE enum err repl_fetch_drop(const char *path);

#endif
