/* Room: node. Thread: loop.
 * Invariants: a disk that cannot be asked counts as one with room: what is full then says so
 * itself. Not here: what is refused (route.c), and what waits (the log, the lane). */
#include "node/disk_watch.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/gossip.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS      500
#define HAND_OVER_MS 60000 /* between two attempts to find a leader with room */
#define HEARD_MS     3000

struct disk_watch {
    struct node *node;
    uv_fs_t look;
    bool looking, low, failed;
    uint64_t looked_ms, handed_ms, free_bytes;
};

struct disk_watch *disk_watch_new(struct node *n)
{
    struct disk_watch *d = MEM_NEW(struct disk_watch);
    d->node = n;
    d->free_bytes = UINT64_MAX;
    return d;
}

void disk_watch_free(struct disk_watch *d)
{
    if (d == NULL)
        return;
    CHECK(!d->looking);
    free(d);
}

/* A voter that is well and has room; 0: none. */
static uint64_t find_leader(const struct node *n, uint64_t now_ms) ON_LOOP
{
    unsigned members = 0;
    const struct cns_server *servers = cns_members(n->cns, &members);
    for (unsigned i = 0; i < members; i++) {
        const struct gossip_news *news = gossip_of(n->gossip, servers[i].id);
        if (servers[i].id != n->config->id && servers[i].role == CNS_VOTER && news != NULL &&
            now_ms <= news->heard_ms + HEARD_MS && !news->waits_for_room &&
            strcmp(news->state, "ok") == 0)
            return servers[i].id;
    }
    return 0;
}

/* Rather than refuse for ever. */
static void hand_over(struct disk_watch *d, uint64_t now_ms) ON_LOOP
{
    struct node *n = d->node;
    if (n->cns == NULL || n->role != CNS_LEADER || n->stage != NODE_SERVING ||
        (d->handed_ms != 0 && now_ms < d->handed_ms + HAND_OVER_MS))
        return;
    uint64_t to = find_leader(n, now_ms);
    if (to == 0)
        return;
    d->handed_ms = now_ms;
    enum err e = cns_transfer(n->cns, to);
    log_warn("disk", "hands-over to=%" PRIu64 " free=%" PRIu64 " result=%s", to, d->free_bytes,
             err_name((int)e));
}

static void judge(struct disk_watch *d) ON_LOOP
{
    uint64_t reserve = d->node->config->disk_reserve_bytes;
    /* A little more than what was too little, so that it does not flicker. */
    bool low = d->low ? d->free_bytes < reserve + reserve / 8 : d->free_bytes < reserve;
    if (low != d->low && low)
        log_warn("disk", "low free=%" PRIu64 " disk_reserve=%" PRIu64 " data=%s", d->free_bytes,
                 reserve, d->node->config->data);
    else if (low != d->low)
        log_info("disk", "room-again free=%" PRIu64, d->free_bytes);
    d->low = low;
    if (low)
        hand_over(d, clock_mono_ms());
}

static void on_looked(uv_fs_t *req)
{
    struct disk_watch *d = req->data;
    thread_expect_loop();
    d->looking = false;
    const uv_statfs_t *st = req->ptr;
    if (req->result == 0 && st != NULL) {
        d->free_bytes = st->f_bavail * st->f_bsize;
        d->failed = false;
        judge(d);
    } else if (!d->failed) {
        d->failed = true;
        log_warn("disk", "the room of %s cannot be asked: %s", d->node->config->data,
                 uv_strerror((int)req->result));
    }
    uv_fs_req_cleanup(req);
}

void disk_watch_timer(struct disk_watch *d, uint64_t now_ms)
{
    struct node *n = d->node;
    if (d->looking || n->config->disk_reserve_bytes == 0 || n->stage != NODE_SERVING ||
        (d->looked_ms != 0 && now_ms < d->looked_ms + LOOK_MS))
        return;
    d->looked_ms = now_ms;
    d->look.data = d;
    d->looking = uv_fs_statfs(&n->loop, &d->look, n->config->data, on_looked) == 0;
}

bool disk_watch_is_low(const struct disk_watch *d)
{
    return d->low;
}

uint64_t disk_watch_free_bytes(const struct disk_watch *d)
{
    return d->free_bytes;
}

static uint64_t mib(uint64_t bytes)
{
    return bytes / MIB(1);
}

void disk_watch_describe(const struct disk_watch *d, char *sentence)
{
    (void)snprintf(
        sentence, ERR_TEXT_MAX,
        "the disk of node %" PRIu64 " has %" PRIu64 " MiB left, below its disk-reserve of %" PRIu64
        " MiB: free some space there; reads go on",
        d->node->config->id, mib(d->free_bytes), mib(d->node->config->disk_reserve_bytes));
}
