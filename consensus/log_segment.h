/* Room: consensus. The bytes of a log segment, and reading them with every check
 * (docs/FORMATS.md). No state of the log here. Thread: any, one at a time. */
#ifndef CONSENSUS_LOG_SEGMENT_H
#define CONSENSUS_LOG_SEGMENT_H

#include "base/buf.h"
#include "consensus/io.h"

#define LOG_SEGMENT_HEAD_BYTES 80u
/* The head has a block of its own: it is written once, never again beside records. */
#define LOG_RECORDS_AT        4096u
#define LOG_RECORD_HEAD_BYTES 48u
#define LOG_FORMAT_VERSION    1u

/* A segment's first bytes. */
struct log_segment_head {
    uint64_t cluster_id, node_id;
    uint64_t epoch;       /* rises with every segment ever made: the newer one rules */
    uint64_t first_index; /* everything from here on in older segments is void */
    uint64_t prev_term;   /* of entry first_index - 1; 0 when there is none */
    uint64_t chain;       /* checksum chain after entry first_index - 1 */
    uint64_t salt;        /* random: nothing outside this file can look like a record of it */
};

void log_segment_head_encode(uint8_t out[LOG_SEGMENT_HEAD_BYTES], const struct log_segment_head *h);
/* PATH is for the sentence. ERR_FORMAT: newer; ERR_CORRUPT. */
MUST_USE enum err log_segment_head_decode(const uint8_t *p, const char *path,
                                          struct log_segment_head *h);

struct log_record {
    uint64_t index, term, offset;
    enum cns_kind kind;
    uint32_t len;
    const uint8_t *payload; /* borrowed until the next read; NULL when not asked for */
    uint64_t chain;         /* after this record */
};

/* Bytes that a record of LEN payload bytes takes. */
uint64_t log_record_bytes(uint64_t len);
/* Writes the record of ITEM for OFFSET at OUT (log_record_bytes of it); everything before SYNCED in
 * this file is durable already. Returns the chain after it. */
uint64_t log_record_encode(uint8_t *out, const struct cns_item *item, uint64_t offset,
                           uint64_t synced, uint64_t salt, uint64_t chain);

/* Walks a segment. Fill with log_cursor_init; the descriptor and the path are borrowed. */
struct log_cursor {
    int fd;
    const char *path;
    uint64_t salt, offset, end; /* END: the file's size */
    uint64_t index, term;       /* of the record before */
    uint64_t chain;
    uint8_t *window; /* file bytes [window_at, window_at + window_n) */
    uint64_t window_at;
    size_t window_n, window_cap;
};

enum log_step {
    LOG_STEP_RECORD, /* a whole, verified record */
    LOG_STEP_ZEROS,  /* nothing was ever written here, or the file ends */
    LOG_STEP_BAD,    /* something else; err_text() says what */
    LOG_STEP_FAILED  /* the file cannot be read; err_text() */
};

/* Starts at OFFSET, behind entry INDEX - 1 of TERM, where the chain is CHAIN. */
void log_cursor_init(struct log_cursor *c, int fd, const char *path, uint64_t size, uint64_t salt);
void log_cursor_seek(struct log_cursor *c, uint64_t offset, uint64_t index, uint64_t term,
                     uint64_t chain);
void log_cursor_fini(struct log_cursor *c);
/* WITH_PAYLOAD: reads and verifies the payload too; otherwise only the head (its own checksum, and
 * the order) is checked and the payload skipped. */
enum log_step log_cursor_next(struct log_cursor *c, bool with_payload, struct log_record *out);

/* After a bad record (or zeros) at the cursor: is there anything but zeros behind it (*rest), and a
 * record that was written when the cursor's offset was already durable (*proof: its offset; 0:
 * none)? Such a record proves damage: a torn write has no successors. */
MUST_USE enum err log_cursor_look_behind(struct log_cursor *c, bool *rest, uint64_t *proof);

#endif
