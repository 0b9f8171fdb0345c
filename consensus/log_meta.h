/* Room: consensus. The two small files beside the segments (docs/FORMATS.md):
 *   identity  whose log this is, which one of theirs, and whether its making was finished
 *   meta      term and vote as one record, with the last position known to be synced
 * Thread: loop before the log starts, then disk; blocks. */
#ifndef CONSENSUS_LOG_META_H
#define CONSENSUS_LOG_META_H

#include "consensus/log_file.h"

#include <stdbool.h>

enum log_identity { LOG_IDENTITY_NONE, LOG_IDENTITY_MAKING, LOG_IDENTITY_READY };

struct log_owner {
    uint64_t cluster_id, node_id;
    uint64_t incarnation; /* random: another one after the directory was lost; 0: from before there
                             were incarnations */
};

/* Reads DIR/identity. NONE: there is no such file. ERR_FORMAT: newer; ERR_CORRUPT. */
MUST_USE enum err log_identity_read(const char *dir, struct log_owner *owner,
                                    enum log_identity *state);
/* ERR_CONFIG: FOUND, in DIR, is of another cluster or node. */
MUST_USE enum err log_identity_expect(const char *dir, const struct log_owner *found,
                                      uint64_t cluster_id, uint64_t node_id);
/* Replaces it, durably, whole or not at all. */
MUST_USE enum err log_identity_write(struct log_files *f, const char *dir,
                                     const struct log_owner *owner, enum log_identity state);

struct log_meta_record {
    uint64_t seq; /* log_meta_write raises it */
    uint64_t term, vote;
    /* The segment of this epoch exists, and is durable up to this offset. */
    uint64_t synced_epoch, synced_offset;
};

struct log_meta {
    int fd;
    char *path;
    uint64_t cluster_id, node_id;
    struct log_meta_record now;
};

/* A new file with FIRST; not durable in its directory until that is synced. */
MUST_USE enum err log_meta_create(struct log_files *f, const char *dir, uint64_t cluster_id,
                                  uint64_t node_id, const struct log_meta_record *first,
                                  struct log_meta *m);
/* ERR_CORRUPT when no slot is whole, or the file is gone or is another node's. One damaged slot is
 * repaired by the next write. */
MUST_USE enum err log_meta_open(const char *dir, uint64_t cluster_id, uint64_t node_id,
                                bool read_only, struct log_meta *m);
/* Makes NEXT durable, in both slots; seq is set here. */
MUST_USE enum err log_meta_write(struct log_files *f, struct log_meta *m,
                                 const struct log_meta_record *next);
void log_meta_fini(struct log_meta *m);

#endif
