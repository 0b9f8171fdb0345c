/* Room: replication. What the files hold, as hashes: of each page in main.db itself (*stored*), and
 * of each frame in the WAL. *Published* (digest.h) is the newest of both.
 *
 * The WAL's frames are known from the moment before readers may see them until the next WAL begins.
 * A page's stored hash follows main.db by folding: when the wal-index says that frames up to N are
 * in the database file (nBackfill), whoever copied them, their hashes become those of their pages.
 * The file `hashes` (hashes.h) follows by stored_flush.
 *
 * Pages whose stored hash may be anything: those with a frame in the WAL that is not folded, and
 * those beyond the end of the database. Nobody reads them from main.db.
 *
 * Thread: owner, where nothing else is said. */
#ifndef REPLICATION_STORED_H
#define REPLICATION_STORED_H

#include "base/err.h"
#include "replication/hashes.h"

#include <stdbool.h>
#include <stdint.h>

struct stored;

/* HASHES_PATH: the file, which need not exist. */
struct stored *stored_new(const char *hashes_path, uint64_t database_id, uint32_t page_size);
void stored_free(struct stored *s);

/* --- opening ---------------------------------------------------------------------------------- */

/* A page's content in main.db, not verified. */
typedef enum err (*stored_read)(void *ctx, uint32_t page_no, uint8_t *page);

/* Loads the hashes of PAGES pages of main.db. Those that the file does not have, or not whole, are
 * read with READ; *read_pages: how many. A file that is missing or damaged is no error; one of a
 * newer version is (ERR_FORMAT). */
MUST_USE enum err stored_load(struct stored *s, uint32_t pages, stored_read read, void *ctx,
                              uint32_t *read_pages);
/* False: there was no file, or main.db was written by somebody else after it. */
MUST_USE enum err stored_is_current(struct stored *s, const char *db_path, bool *current);
/* Reads all PAGES pages anew, whatever the file says; stored_flush then makes a new file. DIFFERS
 * is called for each page whose hash was another one. No checkpoint may run. */
MUST_USE enum err stored_rehash(struct stored *s, uint32_t pages, stored_read read,
                                void (*differs)(void *ctx, uint32_t page_no), void *read_ctx,
                                void *differs_ctx);
/* The wal-index' word nBackfill, valid until stored_free: from here on pages are folded, and
 * verification is on (stored_is_armed). */
void stored_arm(struct stored *s, const uint32_t *backfilled);
bool stored_is_armed(const struct stored *s); /* any thread */

/* --- the WAL ---------------------------------------------------------------------------------- */

/* Frame FRAME (from 1) holds PAGE_NO with this hash; it counts when stored_set_frames says so.
 * PAGE_NO 0: a frame that nobody reads, because its transaction has a newer one of the same page,
 * or cuts the page off. */
void stored_frame(struct stored *s, uint32_t frame, uint32_t page_no, uint64_t hash);
/* Frames 1 .. FRAMES are known; before anybody may see them. */
void stored_set_frames(struct stored *s, uint32_t frames);
/* A new WAL: no frames. All must be folded and in the file: stored_durable says so. Before the
 * wal-index shows it, and before frames are added. */
void stored_restart(struct stored *s);

/* --- any thread ------------------------------------------------------------------------------- */

/* What main.db holds for PAGE_NO, as far as it was folded. */
uint64_t stored_page(const struct stored *s, uint32_t page_no);
/* The hash of FRAME's page; false: there is no such frame, or nobody reads it. */
bool stored_frame_hash(const struct stored *s, uint32_t frame, uint32_t *page_no, uint64_t *hash);
/* How many frames are known: those that are published or are about to be. */
uint32_t stored_frames(const struct stored *s);
/* Folds what the wal-index says is copied; then, as stored_page. */
uint64_t stored_page_folded(struct stored *s, uint32_t page_no);

/* --- the checkpoint thread (one at a time) ------------------------------------------------------
 */

/* Folds, brings the file up to date and syncs it. ERR_FULL: to be repeated. */
MUST_USE enum err stored_flush(struct stored *s);
/* So many frames of this WAL are in the file, durably. Any thread. */
uint32_t stored_durable(const struct stored *s);
/* The file says that it is newer than main.db: at a clean stop, after stored_flush. */
MUST_USE enum err stored_touch(struct stored *s);

#endif
