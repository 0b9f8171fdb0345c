/* Room: node. Thread: loop.
 *
 *   log longer than log-keep and a quarter -> LANE_CUT: a state of now, the WAL is synced
 *   -> LOOP_CUT: cns_cut(its entry, its note, log-keep) -> whole old segments go
 *
 * Segments go whole and are made in advance, so after a cut the log may still be longer than that:
 * the next cut waits until it has grown by a segment above its least since then. */
#include "node/log_cut.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <inttypes.h>
#include <stdlib.h>

#define SEGMENT_MIN KIB(256)

uint64_t log_cut_segment_bytes(uint64_t keep)
{
    uint64_t bytes = keep / 4;
    if (bytes < SEGMENT_MIN)
        bytes = SEGMENT_MIN;
    return bytes < LOG_SEGMENT_BYTES ? bytes : LOG_SEGMENT_BYTES;
}

void log_cut_timer(struct node *n)
{
    struct cns_status st;
    uint64_t keep = n->config->log_keep_bytes;
    if (n->cutting || n->failed || !n->lane_started)
        return;
    cns_get_status(n->cns, &st);
    uint64_t segment = log_cut_segment_bytes(keep);
    if (st.log_bytes < n->log_after_cut)
        n->log_after_cut = st.log_bytes;
    if (st.log_bytes <= keep + keep / 4 || st.log_bytes < n->log_after_cut + segment)
        return;
    struct lane_cut *c = MEM_NEW(struct lane_cut);
    c->letter.kind = LANE_CUT;
    c->asked_ms = clock_mono_ms();
    n->cutting = true;
    n->log_after_cut = st.log_bytes;
    lane_send(n->lane, &c->letter);
}

void log_cut_go(struct node *n, struct lane_cut *c)
{
    uint8_t note[CNS_SNAPSHOT_DATA_MAX];
    size_t len = note_encode(&c->mark, note);
    struct cns_status st;
    n->cutting = false;
    if (n->cns != NULL && c->mark.index > 0) {
        cns_get_status(n->cns, &st);
        enum err e = c->mark.index <= st.snapshot_index
                         ? ERR_OK
                         : cns_cut(n->cns, c->mark.index, note, len, n->config->log_keep_bytes);
        if (e == ERR_OK)
            log_info("node",
                     "cut index=%" PRIu64 " seq=%" PRIu64 " log_bytes=%" PRIu64 " sync_ms=%" PRIu64,
                     c->mark.index, c->mark.seq, st.log_bytes, clock_mono_ms() - c->asked_ms);
        else if (e != ERR_BUSY)
            log_warn("node", "cut index=%" PRIu64 " reason=\"%s\"", c->mark.index, err_text());
    }
    free(c);
}
