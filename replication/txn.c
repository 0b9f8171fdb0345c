/* Room: replication. Thread: owner.
 * Owns: a sealed transaction's memory, but not its frames: those are the view's overlay's.
 * Not here: making one (view.c), using one up (publish.c). */
#include "replication/txn.h"

#include "base/check.h"
#include "base/mem.h"
#include "replication/view.h"

#include <stdlib.h>

/* After one with more pages its memory is worth giving back. */
#define PAGES_LARGE 16384u

uint64_t repl_txn_seq(const struct repl_txn *txn)
{
    return txn->seq;
}

unsigned repl_txn_parts(const struct repl_txn *txn)
{
    return txn->n_parts;
}

enum err repl_txn_part(const struct repl_txn *txn, unsigned i, uint8_t **bytes, size_t *len)
{
    const uint32_t first = i * txn->part_pages;
    CHECK(i < txn->n_parts);
    const uint32_t left = txn->n_pages - first;
    const uint32_t n = left < txn->part_pages ? left : txn->part_pages;
    struct repl_entry head;
    view_entry_head(txn->view, txn, &head);
    head.part = i;
    if (i + 1 == txn->n_parts) {
        head.section = txn->section;
        head.section_len = txn->section_len;
    }
    struct txn_encoder *e = txn_encoder_new(&head, n);
    for (uint32_t k = first; k < first + n; k++) {
        const uint8_t *page = view_page(txn->view, txn->pages[k].frame);
        if (page == NULL) {
            txn_encoder_free(e);
            return ERR_IO;
        }
        txn_encoder_page(e, txn->pages[k].page_no, page);
    }
    *bytes = txn_encoder_finish(e, len);
    return ERR_OK;
}

uint64_t repl_txn_bytes(const struct repl_txn *txn)
{
    return (uint64_t)txn->n_pages * txn->header.page_size + txn->section_len;
}

void repl_txn_free(struct repl_txn *txn)
{
    if (txn == NULL)
        return;
    const bool large = txn->n_pages > PAGES_LARGE;
    free(txn->frame_page);
    free(txn->pages);
    free(txn->section);
    view_txn_freed(txn->view);
    free(txn);
    if (large)
        mem_give_back();
}
