/* Room: replication. The WAL file format: https://www.sqlite.org/fileformat2.html section 4.
 * Thread: any. */
#ifndef REPLICATION_WAL_FORMAT_H
#define REPLICATION_WAL_FORMAT_H

#include "base/err.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAL_HEADER_BYTES       32u
#define WAL_FRAME_HEADER_BYTES 24u

/* The running checksum: chained from the WAL header over all frames. */
struct wal_chain {
    uint32_t s[2];
    bool big_endian; /* of the words that are summed: the magic's lowest bit */
};

struct wal_header {
    uint32_t page_size, checkpoint_seq, salt[2];
    struct wal_chain chain; /* after the header */
};

struct wal_frame {
    uint32_t page_no;
    uint32_t pages_after; /* database size in pages if it ends a transaction, else 0 */
};

static inline uint64_t wal_frame_offset(uint32_t frame /* from 1 */, uint32_t page_size)
{
    return WAL_HEADER_BYTES + (uint64_t)(frame - 1) * (WAL_FRAME_HEADER_BYTES + page_size);
}

/* False: not a valid header (bad magic, format, page size or checksum). */
bool wal_header_decode(const uint8_t p[WAL_HEADER_BYTES], struct wal_header *h);
/* Sets h->chain for the header that it writes (native word order). */
void wal_header_encode(struct wal_header *h, uint8_t out[WAL_HEADER_BYTES]);
/* Writes a frame's header for PAGE and moves the chain on. */
void wal_frame_encode(const struct wal_header *h, struct wal_chain *chain,
                      const struct wal_frame *f, const uint8_t *page,
                      uint8_t out[WAL_FRAME_HEADER_BYTES]);
/* Checks salts and chain; moves the chain on only when the frame is valid. */
bool wal_frame_decode(const struct wal_header *h, struct wal_chain *chain,
                      const uint8_t head[WAL_FRAME_HEADER_BYTES], const uint8_t *page,
                      struct wal_frame *f);

/* What a WAL file holds that counts: the frames up to the last valid commit frame. */
struct wal_scan {
    bool has_header; /* false: empty or no valid header: nothing counts */
    struct wal_header header;
    struct wal_chain chain; /* after the last counted frame */
    uint32_t frames;        /* counted frames (mxFrame) */
    uint32_t valid;         /* frames until the first that is not valid: at least `frames` */
    uint32_t commits;       /* commit frames among them: transactions */
    uint32_t pages_after;   /* of the last commit frame, 0 when there is none */
    uint64_t file_bytes;
};
/* VISIT (may be NULL) is called for every valid frame, also for those behind the last commit. */
typedef void (*wal_visit)(void *ctx, uint32_t frame, const struct wal_frame *f,
                          const uint8_t *page);
MUST_USE enum err wal_scan_file(sqlite3_file *wal, struct wal_scan *out, wal_visit visit,
                                void *ctx);

/* What a WAL holds of this life of it that does not count. */
enum wal_rest {
    WAL_REST_NONE,
    WAL_REST_HEADER, /* no valid header: nothing in the file counts */
    WAL_REST_FRAME,  /* a frame is damaged: others of the same WAL lie behind it */
    WAL_REST_TORN,   /* the last frame is not whole: torn, or damaged */
    WAL_REST_OPEN    /* whole frames without the one that would end their transaction */
};
/* Looks behind what SCAN of the same file found. */
MUST_USE enum err wal_look_behind(sqlite3_file *wal, const struct wal_scan *scan,
                                  enum wal_rest *out);
/* The sentence about a REST that is not NONE: file, frame, byte, and what does not count. */
void wal_rest_sentence(char *to, size_t n, const char *path, const struct wal_scan *scan,
                       enum wal_rest rest);

#endif
