/* Room: client. A cluster as a program sees it: its members, a link to each that is needed, which
 * of them leads, which is near and healthy. `lectern_cluster` of the public header. Thread: the
 * loop's.
 */
#ifndef CLIENT_CLUSTER_H
#define CLIENT_CLUSTER_H

#include "client/lectern.h"
#include "client/link.h"
#include "client/url.h"

struct lectern_cluster;

MUST_USE enum err cluster_new(const struct url *url, struct lectern_cluster **out);
/* All streams are freed before. */
void cluster_free(struct lectern_cluster *c);
struct loop *cluster_loop(struct lectern_cluster *c);
const struct url *cluster_url(const struct lectern_cluster *c);
/* Held over every public call; recursive, for callbacks. */
void cluster_lock(struct lectern_cluster *c);
void cluster_unlock(struct lectern_cluster *c);
/* Another thread waits for the lock. Any thread. */
bool cluster_is_wanted(const struct lectern_cluster *c);
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
