/* Room: replication. Thread: owner; the parts' bytes may be read anywhere while nobody changes the
 * transaction.
 * Owns: a sealed transaction's memory, but not its frames: those are the view's overlay's.
 * Not here: making one (view.c), using one up (publish.c). */
#include "replication/txn.h"

#include "base/check.h"
#include "replication/view.h"

#include <stdlib.h>

uint64_t repl_txn_seq(const struct repl_txn *txn)
{
    return txn->seq;
}

unsigned repl_txn_parts(const struct repl_txn *txn)
{
    return txn->n_parts;
}

const uint8_t *repl_txn_part(const struct repl_txn *txn, unsigned i, size_t *len)
{
    CHECK(i < txn->n_parts);
    CHECK(txn->parts[i].bytes != NULL); /* else taken before */
    *len = txn->parts[i].len;
    return txn->parts[i].bytes;
}

uint8_t *repl_txn_part_take(struct repl_txn *txn, unsigned i, size_t *len)
{
    CHECK(i < txn->n_parts);
    uint8_t *bytes = txn->parts[i].bytes;
    CHECK(bytes != NULL);
    *len = txn->parts[i].len;
    txn->parts[i].bytes = NULL;
    return bytes;
}

size_t repl_txn_bytes(const struct repl_txn *txn)
{
    size_t n = 0;
    for (unsigned i = 0; i < txn->n_parts; i++)
        n += txn->parts[i].len;
    return n;
}

void repl_txn_free(struct repl_txn *txn)
{
    if (txn == NULL)
        return;
    for (unsigned i = 0; i < txn->n_parts; i++)
        free(txn->parts[i].bytes);
    free(txn->parts);
    free(txn->frame_page);
    free(txn->pages);
    view_txn_freed(txn->view);
    free(txn);
}
