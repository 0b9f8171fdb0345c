/* Room: client. A cluster as a program sees it: its members, a link to each that is needed, which
 * of them leads, which is near and healthy. `lectern_cluster` of the public header. Thread: the
 * loop's.
 */
#ifndef CLIENT_CLUSTER_H
#define CLIENT_CLUSTER_H

#include "client/lectern.h"
#include "client/link.h"
#include "client/url.h"

#include <pthread.h>

struct lectern_cluster;

MUST_USE enum err cluster_new(const struct url *url, struct lectern_cluster **out);
/* All streams are freed before. */
void cluster_free(struct lectern_cluster *c);
struct loop *cluster_loop(struct lectern_cluster *c);
const struct url *cluster_url(const struct lectern_cluster *c);
/* Held over every public call; recursive, for callbacks. */
void cluster_lock(struct lectern_cluster *c);
void cluster_unlock(struct lectern_cluster *c);
/* Gives the lock away, however often the caller has it; to be got back that often. */
unsigned cluster_release(struct lectern_cluster *c);
void cluster_regain(struct lectern_cluster *c, unsigned levels);
/* Waits without the lock for WAKE (of CLOCK_MONOTONIC), at most until UNTIL_MS (WAIT_FOR_EVER). May
 * come back for no reason. */
void cluster_sleep(struct lectern_cluster *c, pthread_cond_t *wake, uint64_t until_ms);
/* What the public calls keep for a cluster (client/run.h), theirs to free; NULL at first. */
void cluster_set_face(struct lectern_cluster *c, void *face);
void *cluster_face(const struct lectern_cluster *c);
unsigned cluster_sessions(const struct lectern_cluster *c);
/* A number for a statement to be kept, of its own within the cluster; 0 never. */
uint32_t cluster_next_keep(struct lectern_cluster *c);
/* Its statement is finalized: FORGET everywhere. */
void cluster_forget(struct lectern_cluster *c, uint32_t keep);
/* 0: not known yet (no node has answered). */
uint64_t cluster_id(const struct lectern_cluster *c);

#endif
