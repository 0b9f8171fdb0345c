/* Room: client. Statements on their way to the cluster in batches of bounded size: each batch is
 * done whole or not at all, once, whoever leads meanwhile. Thread: one. */
#ifndef CLIENT_SHELL_LOAD_BATCH_H
#define CLIENT_SHELL_LOAD_BATCH_H

#include "client/shell_load.h"

struct load_batch;

/* NULL: no memory. */
struct load_batch *load_batch_new(struct load *l);
/* Drops what was not sent. B may be NULL. */
void load_batch_free(struct load_batch *b);
/* STMT as it is bound now, of about BYTES; PLACE (a line, a row) is for load_batch_place. Sends
 * what is there when that is enough. */
MUST_USE enum err load_batch_add(struct load_batch *b, lectern_stmt *stmt, size_t bytes,
                                 uint64_t place);
MUST_USE enum err load_batch_add_sql(struct load_batch *b, const char *sql, size_t bytes,
                                     uint64_t place);
/* Sends what is there. */
MUST_USE enum err load_batch_flush(struct load_batch *b);
/* After an error: the place of the statement that failed, else of the batch's first. */
uint64_t load_batch_place(const struct load_batch *b);
/* Statements that are acknowledged, and their bytes. */
uint64_t load_batch_done(const struct load_batch *b);
uint64_t load_batch_bytes(const struct load_batch *b);

#endif
