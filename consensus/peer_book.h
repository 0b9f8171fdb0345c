/* Room: consensus. Who is who: the incarnation with which each member was first met, and the ids
 * that were removed, kept in the file `peers` (docs/FORMATS.md, part B).
 *
 * Why: votes and acknowledgements are promises of a log directory, not of an id. A node that lost
 * its directory and comes back under its old id has forgotten its promises; a majority that counts
 * it may elect a leader without a committed entry. So the first directory that was met under an id
 * is the only one that is ever listened to under it.
 * Thread: loop; the file is written on a thread of libuv's pool. */
#ifndef CONSENSUS_PEER_BOOK_H
#define CONSENSUS_PEER_BOOK_H

#include "base/thread.h"
#include "consensus/peer_wire.h"

#include <stdbool.h>
#include <uv.h>

struct peer_book;

struct peer_book_config {
    uv_loop_t *loop;
    const char *dir; /* of the file; NULL: nothing is kept (tests of other things) */
    uint64_t cluster_id, self;
    uint64_t incarnation; /* of DIR itself: the file of another one is refused */
    void *ctx;
    /* More of what was noted is durable now. */
    void (*on_durable)(void *ctx);
};

/* Reads the file; blocks. No file: a new book. ERR_CORRUPT: it is damaged; ERR_FORMAT: newer;
 * ERR_CONFIG: of another node or directory. The sentences say what to do. */
MUST_USE enum err peer_book_open(const struct peer_book_config *c, struct peer_book **out) ON_LOOP;
/* What peer_book_open would say about the file in DIR, which is that of node SELF, without changing
 * anything: ERR_OK also when there is no file. Thread: any; blocks. */
MUST_USE enum err peer_book_look(const char *dir, uint64_t cluster_id, uint64_t self,
                                 uint64_t incarnation);
/* A write under way is waited for, nothing new is begun; then CLOSED, and it is freed. */
void peer_book_close(struct peer_book *b, void (*closed)(void *ctx), void *ctx) ON_LOOP;

/* What the member ID is that greets, or answers, with INCARNATION (> 0). */
enum peer_verdict {
    PEER_KNOWN,      /* it is who it was, and that is durable */
    PEER_WAITS,      /* met now for the first time: ask again at on_durable */
    PEER_LOST_FILES, /* it was known with another incarnation */
    PEER_REMOVED,    /* this id was removed */
    PEER_NO_ROOM     /* too many ids are remembered */
};
enum peer_verdict peer_book_meet(struct peer_book *b, uint64_t id, uint64_t incarnation) ON_LOOP;

/* ID was removed from the cluster: for good. Durable some time later: until then a restarted node
 * knows the id as no member, which is refused as well. */
void peer_book_remove(struct peer_book *b, uint64_t id) ON_LOOP;
bool peer_book_removed(const struct peer_book *b, uint64_t id) ON_LOOP;
/* A directory was met under ID, in this process or before. */
bool peer_book_met(const struct peer_book *b, uint64_t id) ON_LOOP;

/* The sentence about ID for people; N: its room. */
void peer_book_sentence(char *to, size_t n, uint64_t id, enum peer_standing s);

#endif
