/* Room: replication. The file `hashes` beside main.db: the hash (digest.h) of every page that
 * main.db holds, so that a start need not read them. docs/FORMATS.md draws it: a head that is
 * written once, then blocks of HASHES_PER_BLOCK hashes, each with a checksum of its own. Block B
 * (from 0) holds the pages B * HASHES_PER_BLOCK + 1 and on.
 * Thread: any, one at a time. Every call blocks on the disk. */
#ifndef REPLICATION_HASHES_H
#define REPLICATION_HASHES_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define HASHES_PER_BLOCK 511u

struct hashes_file;

/* The hashes of the N pages from FIRST on; 0 beyond the end. */
typedef void (*hashes_source)(void *ctx, uint32_t first, unsigned n, uint64_t *out);

/* Makes a new file of PAGES hashes that SOURCE gives, durably, in place of the one that there is: a
 * crash leaves the old or the new one. main.db must not be written after this call began (see
 * hashes_is_current). */
MUST_USE enum err hashes_create(const char *path, uint64_t database_id, uint32_t page_size,
                                uint32_t pages, hashes_source source, void *ctx);
/* ERR_NOT_FOUND: there is none. ERR_FORMAT: a newer version. ERR_CORRUPT: its head is damaged, or
 * it is of another database. */
MUST_USE enum err hashes_open(const char *path, uint64_t database_id, uint32_t page_size,
                              bool read_only, struct hashes_file **out);
void hashes_close(struct hashes_file *f);
/* Blocks that the file has, whole or damaged. */
uint32_t hashes_blocks(const struct hashes_file *f);
/* *valid: its checksum is right. A block beyond the end is not. */
MUST_USE enum err hashes_read_block(struct hashes_file *f, uint32_t block,
                                    uint64_t out[HASHES_PER_BLOCK], bool *valid);
MUST_USE enum err hashes_write_block(struct hashes_file *f, uint32_t block,
                                     const uint64_t hashes[HASHES_PER_BLOCK]);
MUST_USE enum err hashes_sync(struct hashes_file *f);
/* Notes that the file is newer than all that was written to main.db before. */
MUST_USE enum err hashes_touch(struct hashes_file *f);
/* False: main.db (DB_PATH) was written after the last write to the file, so by somebody else. */
MUST_USE enum err hashes_is_current(struct hashes_file *f, const char *db_path, bool *current);

#endif
