/* Room: client. Several statements as one: `lectern_batch` of the public header. Thread: under the
 * cluster's lock. */
#ifndef CLIENT_BATCH_H
#define CLIENT_BATCH_H

#include "client/handle.h"

#define BATCH_ALIVE 0x42415443u
#define BATCH_DEAD  0x62617463u

struct lectern_batch;

/* The session was interrupted. */
void batch_interrupt(struct lectern_batch *b);
struct lectern_batch *batch_of_link(struct list *l);

#endif
