/* Room: tests. A stage for one writer lane: the test plays the loop and the consensus, so that it
 * decides when an entry is committed, late or never. */
#ifndef TESTS_UNIT_NODE_STAGE_H
#define TESTS_UNIT_NODE_STAGE_H

#include "node/lane.h"

struct stage {
    struct config config;
    struct mail loop;
    struct lane *lane;
    struct list outstanding; /* struct held: proposed, not committed */
    unsigned n_outstanding, max_outstanding, n_proposals;
    uint64_t index, term, delay_ms, serving_term, timeout_ms;
    bool keeps_proposals; /* the lane is not told that its parts were proposed */
    bool cut;             /* nothing is committed any more */
    unsigned cut_after;   /* so many entries are committed, then `cut` is set; 0: never */
    struct list log;      /* struct logged: what was committed, from index 1 on */
    struct list answers;  /* struct request, in the order of their coming */
    unsigned n_answers;
    uint64_t next_session;
    uint64_t replay_bytes_max; /* of the log, read at a start */
    bool failed, stopped;
};

void stage_open(struct stage *s, const char *dir);
/* The node ends and starts again: the same files, the same log. It follows. */
void stage_restart(struct stage *s) ON_LOOP;
void stage_close(struct stage *s) ON_LOOP;
/* The same, when the lane was told to stop already. */
void stage_end(struct stage *s) ON_LOOP;
/* Makes the lane leader of TERM and waits until it serves. */
void stage_lead(struct stage *s, uint64_t term) ON_LOOP;
/* Another node leads from TERM on: entries of older terms that were not committed are lost. */
void stage_depose(struct stage *s, uint64_t term) ON_LOOP;
/* The entries that FROM's log has and TO's has not are committed at TO, a follower. */
void stage_copy_log(struct stage *to, const struct stage *from) ON_LOOP;
/* A request that came over the wire, of N statements: QUERY or BATCH. NUMBER: NULL, or with
 * WIRE_NUMBERED in FLAGS. */
struct request *stage_make(uint64_t session, uint32_t id, enum wire_type type, unsigned flags,
                           const struct wire_number *number, const char *const *sql, unsigned n);
/* Sends it as it is. */
void stage_send_request(struct stage *s, struct request *r) ON_LOOP;
/* SQL as a QUERY that came over the wire, decoded; request_free it. */
struct request *stage_request(uint64_t session, uint32_t id, const char *sql);
void stage_send(struct stage *s, uint64_t session, uint32_t id, const char *sql) ON_LOOP;
/* Handles what comes for up to MS, commits what is due. */
void stage_step(struct stage *s, uint64_t ms) ON_LOOP;
/* Steps until `cut_after` is reached; fails after TEST_HANG_MS. */
void stage_wait_cut(struct stage *s) ON_LOOP;
/* Steps until N proposals are not committed; fails after TEST_HANG_MS. */
void stage_wait_outstanding(struct stage *s, unsigned n) ON_LOOP;
/* Steps until N answers are there; fails after TEST_HANG_MS. */
void stage_wait(struct stage *s, unsigned n) ON_LOOP;
/* Takes the answer of request ID out, NULL when it is not there. */
struct request *stage_take(struct stage *s, uint32_t id) ON_LOOP;
/* Sends, waits, takes; its code must be CODE; frees it. */
void stage_expect(struct stage *s, uint64_t session, enum err code, const char *sql) ON_LOOP;
/* One number read by a stock connection of its own; -1 when there is none. */
int64_t stage_number(struct stage *s, const char *sql);

#endif
