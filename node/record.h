/* Room: node. Where the files are in the log, as bytes (docs/FORMATS.md, part C): the *note*, which
 * is the node's data in Raft's snapshot record, and the *record*, which is all of such a record on
 * its way to another node, and beside a fetched database. Thread: any. */
#ifndef NODE_RECORD_H
#define NODE_RECORD_H

#include "base/buf.h"
#include "consensus/consensus.h"

/* A state of the database between two transactions, and the log's entry that it follows. */
struct lane_mark {
    uint64_t index;
    uint64_t seq, checksum;
    uint32_t pages, page_size;
};

/* Writes the note of M (not its index: the record has it); its length. */
size_t note_encode(const struct lane_mark *m, uint8_t out[CNS_SNAPSHOT_DATA_MAX]);
/* ERR_FORMAT: of another version; ERR_CORRUPT: not a note. */
MUST_USE enum err note_decode(const struct cns_snapshot *s, struct lane_mark *out);

void record_put(struct buf *b, const struct cns_snapshot *s);
/* OUT->members is one reference of the caller's. ERR_FORMAT, ERR_CORRUPT. */
MUST_USE enum err record_get(const uint8_t *p, size_t n, struct cns_snapshot *out);

#endif
