/* Room: replication. The bytes of the WAL that only the writer's view sees, at the offsets that
 * they have in the file: in memory, and what is over its bound in a temporary file. Thread: owner.
 */
#ifndef REPLICATION_OVERLAY_H
#define REPLICATION_OVERLAY_H

#include "base/err.h"
#include "replication/spill.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offsets in the WAL file, in order:
 *
 *   0 ......... low ............ sealed ........... end
 *     real file     sealed, not      written by the
 *                   published        running transaction
 */
struct overlay {
    uint64_t low, sealed, end;
    uint64_t unsealed_max; /* bytes */
    bool rewritten;        /* the running transaction wrote over bytes that were there */
    struct spill bytes;    /* [low, end) */
};

/* The real file counts up to LOW. UNSEALED_MAX: what one transaction may write. Beyond MEMORY_MAX
 * bytes the oldest are kept in a file, made at PATH when it is needed. */
void overlay_init(struct overlay *o, uint64_t low, uint64_t unsealed_max, const char *path,
                  uint64_t memory_max);
void overlay_fini(struct overlay *o);
/* ERR_FULL: the running transaction is over its maximum, or the disk is full. ERR_MISUSE: a write
 * into the sealed part, or behind a gap. Nothing was written then. */
MUST_USE enum err overlay_write(struct overlay *o, uint64_t offset, const void *p, size_t n);
/* Copies bytes of [low, end). */
MUST_USE enum err overlay_read(const struct overlay *o, uint64_t offset, void *p, size_t n);
/* Bytes of [low, end) in one piece: a pointer into the overlay when they lie so, else copied to
 * SCRATCH. Valid until the next write. NULL: the file cannot be read, the sentence is set. */
const uint8_t *overlay_peek(const struct overlay *o, uint64_t offset, size_t n, uint8_t *scratch);
/* [0, SEALED) is a transaction's or older: it will not be written again. */
void overlay_seal(struct overlay *o, uint64_t sealed);
/* Drops what was written behind the sealed part: a transaction that was rolled back. */
void overlay_drop_unsealed(struct overlay *o);
/* The N bytes from `low` are in the real file now. */
void overlay_forget(struct overlay *o, uint64_t n);
/* A new WAL begins at offset 0: nothing is in the real file, nothing in memory. All that was sealed
 * must have been forgotten. */
void overlay_restart(struct overlay *o);

#endif
