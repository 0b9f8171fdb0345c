/* Room: replication. The file `position` beside main.db: which sequence the files contain.
 *
 * Two slots, each with its own checksum and a rising number, written alternately and synced: a torn
 * write leaves the older one. Each slot holds the records for the current WAL and for the one
 * before, and the record of a clean stop. docs/FORMATS.md draws it. Thread: owner. */
#ifndef REPLICATION_POSITION_H
#define REPLICATION_POSITION_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct position_wal {
    uint32_t salt[2];
    uint64_t seq;      /* before the WAL's first frame */
    uint64_t checksum; /* of the database there */
};

struct position_record {
    uint64_t database_id;
    uint32_t page_size;
    unsigned n_wals; /* 0..2; [0] is the newest */
    struct position_wal wals[2];
    bool closed; /* a clean stop left these: */
    uint64_t closed_seq, closed_checksum;
};

struct position_file;

/* ERR_NOT_FOUND: no such file. ERR_CORRUPT: neither slot is valid. ERR_FORMAT: a newer version. */
MUST_USE enum err position_open(const char *path, struct position_file **out,
                                struct position_record *record);
/* The newest record, without opening anything for writing. */
MUST_USE enum err position_look(const char *path, struct position_record *record);
MUST_USE enum err position_create(const char *path, const struct position_record *record,
                                  struct position_file **out);
/* Durable when it returns. */
MUST_USE enum err position_write(struct position_file *p, const struct position_record *record);
void position_close(struct position_file *p);

#endif
