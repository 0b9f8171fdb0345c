/* Room: node/http. Batons: what a Hrana client gets with each answer and sends with its next
 * request, so that the stream goes on.
 *
 * The baton of a stream without a transaction holds all there is to know of it, signed, so that any
 * node goes on with it at any time. The baton of a stream that lives in one node (a transaction, or
 * stored texts) names node, process and stream, and counts, so that a request that comes twice is
 * noticed. Layout: docs/FORMATS.md. Thread: any. */
#ifndef NODE_HTTP_BATON_H
#define NODE_HTTP_BATON_H

#include "node/cluster_key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BATON_TEXT_MAX 128 /* with the final zero */

struct baton {
    bool held;        /* it lives in one node: the next four say where */
    bool or_bare;     /* not there any more, it was one without a transaction and stored texts; what
                       * it saw may be newer than `seq` */
    uint64_t node_id; /* which */
    uint64_t process; /* a random number of that node's process */
    uint64_t stream;  /* of that process */
    uint32_t count;   /* of the stream's answers */
    bool foreign_keys;
    uint64_t seq; /* newest sequence seen */
    int64_t last_insert_rowid;
};

/* URL-safe base64, zero-terminated. */
void baton_write(const struct cluster_keys *keys, const struct baton *b, char out[BATON_TEXT_MAX]);
/* False: not a baton, or not one of this cluster. */
bool baton_read(const struct cluster_keys *keys, const char *text, size_t n, struct baton *out);

#endif
