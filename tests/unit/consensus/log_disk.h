/* Room: tests. A disk that forgets, under the log's writer. It records each call; a crash after the
 * first K calls is then built as files in a fresh directory: what was synced is there; of what was
 * not, nothing, all, or any part (by sectors of 512 bytes for contents, any prefix for names, and
 * any of the removals). */
#ifndef TESTS_UNIT_CONSENSUS_LOG_DISK_H
#define TESTS_UNIT_CONSENSUS_LOG_DISK_H

#include "base/buf.h"
#include "base/rng.h"
#include "consensus/log_file.h"

#define OPS    4000u
#define INODES 400u
#define NAMES  64u

enum op_kind { OP_CREATE, OP_WRITE, OP_SYNC, OP_SYNC_FAILED, OP_RENAME, OP_REMOVE, OP_SYNC_DIR };
struct op {
    enum op_kind kind;
    unsigned inode;
    char name[64], to[64];
    uint64_t offset, n;
    uint8_t *data;
};
struct name {
    char name[64]; /* "" : free */
    unsigned inode;
};
struct disk {
    struct cns_log_file_calls calls;
    struct op ops[OPS];
    unsigned n_ops;
    struct name live[NAMES];  /* names now */
    struct name start[NAMES]; /* names, and inodes' contents, when the recording began */
    unsigned n_inodes, n_start;
    unsigned fail_sync;          /* the n-th sync from now fails */
    struct buf contents[INODES]; /* of the first n_start inodes */
};

/* What a crash leaves of that which was not synced. */
enum leaves { LEAVES_NOTHING, LEAVES_ALL, LEAVES_PARTS, N_LEAVES };

/* Begins a recording on DIR, made when missing; what is there is durable. Large: never on a stack.
 */
void disk_begin(struct disk *d, const char *dir);
void disk_end(struct disk *d);
/* The disk as it is found after a crash behind the first K calls, as files in DIR. */
void disk_crash(const struct disk *d, unsigned k, enum leaves leaves, struct rng *r,
                const char *dir);
/* Empties DIR, made when missing. */
void disk_clear_dir(const char *dir);

#endif
