/* Room: node. The answer to STATUS: one row for each member. Thread: loop. */
#ifndef NODE_STATUS_H
#define NODE_STATUS_H

#include "node/gossip.h"
#include "node/members_view.h"
#include "node/node.h"

/* What is known of a member, and what the list of members says. */
struct status_row {
    struct gossip_news news;
    struct member member;
    bool listed; /* it is a member */
    bool heard;
    bool silent;        /* nothing came for SILENT_MS, or ever */
    uint64_t silent_ms; /* since it was heard of */
    const char *role;   /* "follower", "candidate", "leader", "stopped" or "unknown" */
    uint64_t lag;       /* transactions that another one has and it has not */
};

#define STATUS_ROWS_MAX (CLUSTER_MAX + 1)

/* All members, and this node, also when it is none (any more, or yet). How many. */
unsigned status_collect(struct node *n, struct status_row rows[STATUS_ROWS_MAX]) ON_LOOP;
/* Fills R's answer. */
void status_answer(struct node *n, struct request *r) ON_LOOP;

#endif
