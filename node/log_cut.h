/* Room: node. When the Raft log is cut: by bytes, and never behind what the files hold durably.
 * Thread: loop. */
#ifndef NODE_LOG_CUT_H
#define NODE_LOG_CUT_H

#include "node/node.h"

/* Looks at the log's length; asks the lane for a state to cut behind when it is too long. */
void log_cut_timer(struct node *n) ON_LOOP;
/* LOOP_CUT: the files hold the state. */
void log_cut_go(struct node *n, struct lane_cut *c) ON_LOOP;
/* The size of the log's segments for --log-keep KEEP. */
uint64_t log_cut_segment_bytes(uint64_t keep);

#endif
