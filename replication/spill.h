/* Room: replication. Bytes at offsets, in memory up to a bound; what is older goes to a temporary
 * file without a name. For transactions that are larger than the memory a node may take.
 * Thread: owner. */
#ifndef REPLICATION_SPILL_H
#define REPLICATION_SPILL_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Their files' names: the database's and this behind it. */
#define SPILL_OVERLAY ".overlay" /* of the writer's view */
#define SPILL_STASH   ".stash"   /* parts of a transaction on their way in */

/* A window [from, end) of offsets that moves on: written from front to back, and again anywhere
 * inside. It lies in chunks: chunks[0] is number `first` of the offsets; the first `filed` of them
 * are in the file and the others in memory. */
struct spill {
    char *path;
    uint64_t memory_max; /* bytes of chunks in memory */
    uint64_t chunk;      /* bytes of one */
    uint64_t reserve;    /* 0: no look at the room left on the disk */
    int fd;              /* -1: nothing is in the file, there is none */
    uint8_t **chunks;    /* NULL: in the file */
    size_t first, count, cap, filed;
    uint8_t *spare[8]; /* freed chunks, for the next ones */
    size_t n_spare;
};

/* PATH: where the file is made and at once unlinked when it is needed; only one at a time may use
 * it. (A kill between the two leaves an empty file, which goes here.) */
void spill_init(struct spill *s, const char *path, uint64_t memory_max);
/* For bytes that are written twice more when they are committed, to the log and to the WAL:
 * ERR_FULL when there would not be room for that and RESERVE bytes. */
void spill_set_reserve(struct spill *s, uint64_t reserve);
void spill_fini(struct spill *s);

/* Bytes behind all others, or inside; an empty store begins where the first write is. ERR_FULL: the
 * disk is; nothing behind the others was written then. */
MUST_USE enum err spill_write(struct spill *s, uint64_t offset, const void *p, size_t n);
/* All of them must have been written. */
MUST_USE enum err spill_read(const struct spill *s, uint64_t offset, void *p, size_t n);
/* As many bytes from OFFSET as lie in one piece, at most *n; *n says how many. NULL: they are in
 * the file. Valid until the next write. */
const uint8_t *spill_piece(const struct spill *s, uint64_t offset, uint64_t *n);
/* Bytes before OFFSET, or from END on, are not needed any more. */
void spill_drop_before(struct spill *s, uint64_t offset);
void spill_drop_from(struct spill *s, uint64_t end);
/* Nothing is needed any more, and the file is gone. */
void spill_empty(struct spill *s);

#endif
