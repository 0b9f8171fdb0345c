/* Room: client.   Thread: one.   Owns: the batch that is being filled.
 *
 * Not here: what is sent. */
#include "client/shell_load_batch.h"

#include <stdlib.h>

struct load_batch {
    struct load *load;
    lectern_batch *batch;
    unsigned n;
    size_t size;
    uint64_t done, bytes, failed_place;
    uint64_t places[LOAD_BATCH_ROWS];
};

struct load_batch *load_batch_new(struct load *l)
{
    struct load_batch *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    b->load = l;
    if (lectern_batch_new(l->db, &b->batch) != LECTERN_OK) {
        free(b);
        return NULL;
    }
    return b;
}

void load_batch_free(struct load_batch *b)
{
    if (b == NULL)
        return;
    (void)lectern_batch_free(b->batch);
    free(b);
}

static enum err fail(struct load_batch *b, int rc)
{
    int i = lectern_batch_failed(b->batch);
    b->failed_place = i >= 0 && (unsigned)i < b->n ? b->places[i] : b->n > 0 ? b->places[0] : 0;
    return load_failed(b->load, rc, "");
}

enum err load_batch_flush(struct load_batch *b)
{
    if (b->n == 0)
        return ERR_OK;
    TRY(load_may_go_on());
    int rc = lectern_batch_run(b->batch);
    /* Rows that are lost are no loss: the batch is done, which is what we asked for. */
    if (rc != LECTERN_OK && rc != LECTERN_ROWS_LOST)
        return fail(b, rc);
    b->done += b->n;
    b->bytes += b->size;
    b->n = 0;
    b->size = 0;
    rc = lectern_batch_clear(b->batch);
    return rc == LECTERN_OK ? ERR_OK : fail(b, rc);
}

/* Room for one more of BYTES: one that is larger than a batch goes alone. */
static enum err make_room(struct load_batch *b, size_t bytes)
{
    bool full = b->n == LOAD_BATCH_ROWS || b->size + bytes > b->load->batch_bytes;
    return full ? load_batch_flush(b) : ERR_OK;
}

static enum err added(struct load_batch *b, int rc, size_t bytes, uint64_t place)
{
    if (rc != LECTERN_OK) {
        b->failed_place = place;
        return load_failed(b->load, rc, "");
    }
    b->places[b->n++] = place;
    b->size += bytes;
    return ERR_OK;
}

enum err load_batch_add(struct load_batch *b, lectern_stmt *stmt, size_t bytes, uint64_t place)
{
    TRY(make_room(b, bytes));
    return added(b, lectern_batch_add(b->batch, stmt), bytes, place);
}

enum err load_batch_add_sql(struct load_batch *b, const char *sql, size_t bytes, uint64_t place)
{
    TRY(make_room(b, bytes));
    return added(b, lectern_batch_add_sql(b->batch, sql), bytes, place);
}

uint64_t load_batch_place(const struct load_batch *b)
{
    return b->failed_place;
}

uint64_t load_batch_done(const struct load_batch *b)
{
    return b->done;
}

uint64_t load_batch_bytes(const struct load_batch *b)
{
    return b->bytes;
}
