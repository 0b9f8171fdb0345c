/* Room: replication. What publish.c and checkpoint.c need of the writer's view. Thread: owner. */
#ifndef REPLICATION_VIEW_H
#define REPLICATION_VIEW_H

#include "replication/replication.h"
#include "replication/txn.h"

/* What all entries of T say of themselves; part 0. */
void view_entry_head(const struct repl_view *v, const struct repl_txn *t, struct repl_entry *head);
/* The page in a frame of the overlay; valid until the next call. NULL: it cannot be read, the
 * sentence is set. */
const uint8_t *view_page(const struct repl_view *v, uint32_t frame);
/* Calls WRITE for the overlay's bytes [offset, offset + n) in pieces, in order. All must be there.
 */
typedef enum err (*view_write)(void *ctx, const uint8_t *p, size_t n, uint64_t offset);
MUST_USE enum err view_each(struct repl_view *v, uint64_t offset, uint64_t n, view_write write,
                            void *ctx);
/* They are in the real file now: the overlay forgets them, reads fall through. */
void view_forget(struct repl_view *v, uint64_t offset, uint64_t n);
/* A connection is inside a transaction. */
bool view_in_use(const struct repl_view *v);
/* Quiet, everything published and checkpointed: sets nBackfill = mxFrame in the private wal-index,
 * so that SQLite restarts the WAL by itself at its next write. */
void view_allow_restart(struct repl_view *v);
/* Sealed and not yet published transactions. */
unsigned view_unpublished(const struct repl_view *v);
/* publish.c tells that the oldest sealed transaction was published. */
void view_published(struct repl_view *v, const struct repl_txn *t);
/* repl_txn_free tells that one of its transactions is gone. */
void view_txn_freed(struct repl_view *v);

#endif
