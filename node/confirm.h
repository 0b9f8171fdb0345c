/* Room: node. Answers without a commit behind them: a leader that does not know yet that it was
 * deposed must not give them. A ReadIndex round that begins after the statement ran proves that
 * this node still led then; one round serves all that wait. Thread: loop. */
#ifndef NODE_CONFIRM_H
#define NODE_CONFIRM_H

#include "node/node.h"

/* R's answer is ready: sends it when a majority confirmed, else ERR_NOT_LEADER (its session runs it
 * elsewhere: nothing was written) or, inside a transaction, ERR_TXN_LOST. */
void confirm_answer(struct node *n, struct request *r) ON_LOOP;
/* The node stops: everything that waits is answered so. */
void confirm_refuse_all(struct node *n, enum err code, const char *sentence) ON_LOOP;

#endif
