/* Room: replication. A sealed transaction: what publish needs to make it visible, and its entries
 * for the log. Made by view.c, used up by publish.c. Thread: owner. */
#ifndef REPLICATION_TXN_H
#define REPLICATION_TXN_H

#include "replication/replication.h"
#include "replication/txn_codec.h"
#include "replication/wal_format.h"

struct txn_page {
    uint32_t page_no;
    uint32_t frame; /* the view's, from 1; 0 on a follower */
    uint64_t hash;  /* digest_page_hash of the new content */
};

struct repl_txn {
    struct repl_view *view; /* whose overlay holds the frames */
    uint64_t seq, checksum_before, checksum_after;
    uint32_t pages_after;
    /* The frames, as SQLite wrote them, at their offsets in the overlay. */
    bool new_wal; /* frame 1 of a restarted WAL: `header` is its header, also in the overlay at 0 */
    struct wal_header header;
    uint32_t first_frame, n_frames;
    uint32_t chain[2];      /* after the last frame */
    uint32_t *frame_page;   /* n_frames page numbers, for the wal-index */
    struct txn_page *pages; /* the distinct pages with page_no <= pages_after, newest content */
    uint32_t n_pages;
    /* Its entries, each made when it is asked for. */
    uint64_t wall_ms;
    uint8_t *section; /* of the last one; NULL: none */
    size_t section_len;
    uint32_t part_pages, n_parts; /* pages of every part but the last */
};

#endif
