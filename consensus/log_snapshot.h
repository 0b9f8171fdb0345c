/* Room: consensus. The snapshot record, raft/snapshot: what the log may begin behind
 * (docs/FORMATS.md). Thread: any, one at a time; blocks. */
#ifndef CONSENSUS_LOG_SNAPSHOT_H
#define CONSENSUS_LOG_SNAPSHOT_H

#include "consensus/consensus.h"
#include "consensus/log_file.h"

struct log_snapshot {
    struct cns_snapshot s; /* s.index 0: there is none */
    uint64_t epoch; /* segments of a lower one are void: the log begins anew behind s.index */
};

/* A copy with a reference of its own on the members. */
struct cns_snapshot log_snapshot_copy(const struct cns_snapshot *s);
/* Drops the members and zeroes it. */
void log_snapshot_drop(struct cns_snapshot *s);
/* Why S cannot be a record, as an error; our caller's mistake, found before anything is written. */
MUST_USE enum err log_snapshot_check(const struct cns_snapshot *s);

/* Reads DIR/snapshot. No such file: ERR_OK and index 0. ERR_FORMAT: newer; ERR_CORRUPT: damaged, or
 * of another cluster or node. The caller drops OUT->s. */
MUST_USE enum err log_snapshot_read(const char *dir, uint64_t cluster_id, uint64_t node_id,
                                    struct log_snapshot *out);

/* Makes NEW the record, durably, whole or not at all. *renamed: it may be in place although the
 * call failed; false, and ERR_FULL: nothing has changed, try again when there is room. */
MUST_USE enum err log_snapshot_write(struct log_files *f, const char *dir, uint64_t cluster_id,
                                     uint64_t node_id, const struct log_snapshot *now,
                                     bool *renamed);

#endif
