/* Room: node. Room on the disk of the data directory, looked at before it is needed: below
 * --disk-reserve the leader refuses writes, or hands over to a node that has room. What meets a
 * full disk all the same waits where it is (the log, the lane). Thread: loop. */
#ifndef NODE_DISK_WATCH_H
#define NODE_DISK_WATCH_H

#include "node/node.h"

struct disk_watch;

struct disk_watch *disk_watch_new(struct node *n) ON_LOOP;
/* After the loop has ended. NULL is ignored. */
void disk_watch_free(struct disk_watch *d);
/* Looks now and then, on libuv's threads: a disk that hangs does not hang the loop. */
void disk_watch_timer(struct disk_watch *d, uint64_t now_ms) ON_LOOP;
/* Less is left than the reserve. */
bool disk_watch_is_low(const struct disk_watch *d) ON_LOOP;
/* Bytes left for us, as of the last look; UINT64_MAX: not known. */
uint64_t disk_watch_free_bytes(const struct disk_watch *d) ON_LOOP;
/* "the disk of node 1 has ...": while it is low. SENTENCE: ERR_TEXT_MAX. */
void disk_watch_describe(const struct disk_watch *d, char *sentence) ON_LOOP;

#endif
