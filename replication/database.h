/* Room: replication. The database object as the files of this room share it; nobody else includes
 * this. Thread: owner, except the fields marked atomic. */
#ifndef REPLICATION_DATABASE_H
#define REPLICATION_DATABASE_H

#include "replication/digest.h"
#include "replication/position.h"
#include "replication/replication.h"
#include "replication/stored.h"
#include "replication/verify_vfs.h"
#include "replication/wal_format.h"
#include "replication/wal_index.h"

#include <stdatomic.h>

/* What helps against a database that is damaged or differs; the log is checked by itself. */
#define REBUILD_ADVICE                                                                             \
    "stop this node, remove its main.db, main.db-wal, main.db-shm and position (but keep raft), "  \
    "and start it: it builds the database again from its log"

struct checkpointer; /* checkpoint.c: its thread and connection */
struct applier;      /* apply.c */

struct repl_db {
    struct repl_config config; /* path is owned: a copy */
    char *wal_path, *position_path;

    /* The keeper: a stock connection, open as long as this object. Its files are the only way to
     * the database, the WAL and the shared memory (POSIX locks: never open them a second time). */
    sqlite3 *keeper;
    sqlite3_file *db_file, *wal_file; /* below verification: what is there */
    sqlite3_file *verified_wal;       /* the same WAL, each page compared with its hash */
    struct wal_index *index;
    bool holds_write, holds_checkpoint;
    bool holds_readers; /* read-mark locks 1..4, between the decision to restart and the new WAL */

    /* The WAL as published. */
    struct wal_header wal;  /* its header; salts match the wal-index */
    struct wal_chain chain; /* after the last published frame */
    uint32_t frames, pages; /* published frames; database size in pages */
    bool has_wal; /* false: the WAL file is empty, the next frame is the first of a new one */

    struct digest *digest;     /* published */
    struct stored *stored;     /* of main.db and of the WAL's frames */
    struct verify_vfs *verify; /* the VFS of all our connections */
    struct position_file *position_file;
    struct position_record record;
    bool position_known;
    struct repl_position position; /* published; unknown: 0 and the checksum */

    struct repl_view *view;
    struct checkpointer *checkpointer;

    struct applier *applier; /* apply.c: parts of a cut transaction, and room for frames */

    uint32_t scrub_next;
    bool rehashed; /* all pages were read since the opening: `hashes` is right */

    bool stopped; /* after an error that must not be guessed about */
    enum err stopped_code;
    char stopped_text[ERR_TEXT_MAX];

    _Atomic uint64_t published, publishing; /* sequences: after, before the index moves */
    _Atomic uint64_t durable;               /* sequence: survives a power cut */
    _Atomic uint64_t stat_checksum, stat_wal_bytes, stat_backfilled_bytes, stat_restarts,
        stat_checkpoints;
    struct histogram stat_checkpoint_times; /* ns */
    _Atomic uint32_t stat_pages;
    _Atomic unsigned stat_waits_for_room;  /* enum room_for: what met a full disk last */
    _Atomic uint64_t stat_restart_held_ms; /* clock: since when readers hold it back; 0: nobody */
    _Atomic bool restart_soon;             /* repl_db_restart_soon */
};

/* database_open.c: repl_db_open. */

/* Stops the database with this thread's sentence; returns CODE. */
enum err database_stop(struct repl_db *db, enum err code) ON_OWNER;
/* ERR_STOPPED with the first sentence, or ERR_OK. */
MUST_USE enum err database_check(const struct repl_db *db) ON_OWNER;
/* Reads the published content of a page: from the WAL when it is there, else from the database
 * file. */
MUST_USE enum err database_read_page(struct repl_db *db, uint32_t page_no, uint8_t *page) ON_OWNER;
/* The published pages' hashes, made of the stored ones and of the WAL's frames, and their sum. */
void database_build_digest(struct repl_db *db) ON_OWNER;
/* stored_read: a page of main.db, whatever the WAL has. CTX: the database. */
enum err database_read_stored(void *ctx, uint32_t page_no, uint8_t *page);
/* The error for an SQLite result code: "cannot WHAT PATH: ...". A page that verification refused is
 * ERR_CORRUPT with its sentence, which must still be this thread's. */
MUST_USE enum err sqlite_error(int rc, const char *what, const char *path);
/* As sqlite_error, for a call on F itself: says also what the system said. */
MUST_USE enum err sqlite_file_error(int rc, sqlite3_file *f, const char *what, const char *path);
/* Notes the published position in `position` as the one that the files contain, durably. */
MUST_USE enum err database_note_closed(struct repl_db *db) ON_OWNER;
/* Who met a full disk, or met none. */
enum room_for { ROOM_TO_PUBLISH = 1, ROOM_TO_CHECKPOINT = 2 };
void database_note_room(struct repl_db *db, enum room_for what, bool full) ON_OWNER;
/* Sequence SEQ survives a power cut; never goes back. Any thread. */
void database_note_durable(struct repl_db *db, uint64_t seq);
/* Copies the published state to the fields that other threads read. */
void database_note_stats(struct repl_db *db) ON_OWNER;
/* Gives back all locks and memory, whatever of it there is. The WAL file stays. */
void database_free(struct repl_db *db) ON_OWNER;

/* publish.c: what leader and follower share. */
struct publish_frames {
    bool new_wal;
    struct wal_header header; /* of the new WAL */
    uint32_t first_frame, n_frames;
    const uint32_t *frame_page;
    uint32_t pages_after;
    const uint32_t *chain; /* [2], after the last frame; read when `write` has returned */
    /* Writes all frames with database_write_wal; a new WAL's header is there already. */
    enum err (*write)(struct repl_db *db, void *ctx);
    void *ctx;
    const struct txn_page *pages;
    uint32_t n_pages;
    uint64_t seq, checksum_after;
};
struct txn_page;
MUST_USE enum err publish_frames(struct repl_db *db, const struct publish_frames *p) ON_OWNER;

/* Writes N bytes of the WAL file; nobody sees them before the index shows them. */
MUST_USE enum err database_write_wal(struct repl_db *db, const uint8_t *p, size_t n,
                                     uint64_t offset) ON_OWNER;

/* apply.c */
void apply_close(struct repl_db *db) ON_OWNER;

/* checkpoint.c */
MUST_USE enum err checkpoint_open(struct repl_db *db) ON_OWNER;
void checkpoint_close(struct repl_db *db) ON_OWNER;            /* waits for a running one */
MUST_USE enum err checkpoint_all(struct repl_db *db) ON_OWNER; /* at a clean stop; best effort */
/* The first frames of a new WAL are about to be seen; what was published before is in main.db,
 * durably. */
void checkpoint_wal_begun(struct repl_db *db) ON_OWNER;
/* Waits until nobody copies, another process neither: CHECKPOINT is ours until the next start. */
MUST_USE enum err checkpoint_hold(struct repl_db *db) ON_OWNER;
/* Follower: may the next apply begin a new WAL? Then the read-mark locks 1..4 are held
 * (holds_readers). */
bool checkpoint_restart_ready(struct repl_db *db) ON_OWNER;
/* After the first publication in a new WAL, or when it will not come: gives the read-mark locks
 * back. */
void checkpoint_release_readers(struct repl_db *db) ON_OWNER;

#endif
