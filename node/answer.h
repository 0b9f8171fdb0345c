/* Room: node. The end of an answer: its last frame, what is said when it is cut short, and the
 * bytes of it that were sent. Thread: loop. */
#ifndef NODE_ANSWER_H
#define NODE_ANSWER_H

#include "base/thread.h"
#include "node/request.h"

/* Appends R's last frame. How long an answer gets is the client's doing: one that does not fit is
 * an error, no more. */
void answer_put_end(struct request *r) ON_LOOP;
/* The rest of the answer is dropped, for CODE and WHY (ERR_ROWS_LOST for a write, which is done);
 * an error stays what it is. */
void answer_cut(struct request *r, enum err code, const char *why) ON_LOOP;
/* Whose disk it is: the client may not know which node ran its statement. */
void answer_name_node(struct request *r, uint64_t node_id) ON_LOOP;
/* An attempt at R may have been done: only a leader's word about its number, or ERR_UNKNOWN, may be
 * said. */
void answer_admit_doubt(struct request *r) ON_LOOP;
/* Nothing of what is there is wanted. */
void answer_empty(struct answer *a) ON_LOOP;
/* What was sent of it gives its memory back when it is half of it: so the copies of a long one,
 * taken in small parts, are about as long as itself, all together. */
void answer_forget_sent(struct answer *a) ON_LOOP;

#endif
