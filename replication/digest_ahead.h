/* Room: replication. The digest of the writer's view: the published one (digest.h) and on top of it
 * the pages of sealed, unpublished transactions. Thread: owner. */
#ifndef REPLICATION_DIGEST_AHEAD_H
#define REPLICATION_DIGEST_AHEAD_H

#include "replication/digest.h"

#include <stddef.h>
#include <stdint.h>

struct digest_ahead {
    const struct digest *published;
    uint64_t published_seq, newest_seq;
    uint32_t lock_page;
    uint32_t pages;    /* of the database after the newest transaction */
    uint64_t checksum; /* likewise */
    struct ahead_page {
        uint32_t page_no; /* 0: free */
        uint32_t seq;     /* its low half: see is_ahead */
        uint64_t hash;
    } * slots; /* open addressing; counts only when its transaction is not published */
    size_t cap, used;
    uint64_t rebuilt_seq; /* published then: no slot is older */
};

/* The published state at SEQ is the beginning. */
void digest_ahead_init(struct digest_ahead *a, const struct digest *published, uint64_t seq,
                       uint32_t page_size);
void digest_ahead_fini(struct digest_ahead *a);
uint64_t digest_ahead_get(const struct digest_ahead *a, uint32_t page_no);
/* Transaction SEQ ends with PAGES pages in the database: those beyond count nothing any more. Goes
 * before its digest_ahead_set calls. */
void digest_ahead_resize(struct digest_ahead *a, uint64_t seq, uint32_t pages);
/* Transaction SEQ left this content. The lock-byte page counts nothing. */
void digest_ahead_set(struct digest_ahead *a, uint64_t seq, uint32_t page_no, uint64_t hash);
/* The published digest contains all up to SEQ now. */
void digest_ahead_published(struct digest_ahead *a, uint64_t seq);

#endif
