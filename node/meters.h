/* Room: node. What this process has counted since it began: any thread adds, without a lock and
 * without waiting; /metrics reads (http/metrics.h). They outlive a node that is opened anew.
 * Thread: any. */
#ifndef NODE_METERS_H
#define NODE_METERS_H

#include "base/err.h"
#include "base/histogram.h"

#include <stdint.h>

/* Which door bytes, connections and requests come through. NODE: between this node and
 * another one. */
enum meter_door { METER_NATIVE, METER_HTTP, METER_NODE, METER_DOORS };

/* What a request is. */
enum meter_request {
    METER_READ,
    METER_WRITE,
    METER_BATCH,
    METER_TRANSACTION, /* BEGIN, COMMIT, ROLLBACK and their kin */
    METER_DESCRIBE,
    METER_STATUS,
    METER_CLUSTER,
    METER_IMAGE,
    METER_REQUESTS
};

/* Where a write's time goes. QUEUE: per request, until the writer takes it. The others: per
 * transaction (of many requests). COMMIT: sealed, until a majority has it. */
enum meter_stage {
    METER_STAGE_QUEUE,
    METER_STAGE_RUN,
    METER_STAGE_SEAL,
    METER_STAGE_COMMIT,
    METER_STAGE_PUBLISH,
    METER_STAGES
};

enum meter_counter {
    METER_COMMITS,       /* transactions committed and published, as leader */
    METER_COMMIT_BYTES,  /* of their pages */
    METER_APPLIED,       /* entries of others, applied */
    METER_LEADER_SEEN,   /* this node heard of another leader than before */
    METER_FORWARDED,     /* requests passed on to the leader */
    METER_READS_ENDED,   /* statements ended because they kept back the WAL, or others */
    METER_HTTP_INFORMED, /* HTTP answers 1xx, 2xx ... 5xx: five in a row */
    METER_HTTP_OK,
    METER_HTTP_MOVED,
    METER_HTTP_REFUSED,
    METER_HTTP_FAILED,
    METER_CHECKS_REFUSED, /* of these, answers to balancers that ask where to go */
    METER_HTTP_FOREIGN,   /* of these, answers to what is no HTTP that is spoken here */
    METER_REFUSED_NATIVE, /* connections over the limit, as in enum meter_door */
    METER_REFUSED_HTTP,
    METER_COUNTERS
};

/* Up and down: how many there are. */
enum meter_level { METER_SESSIONS, METER_TRANSACTIONS, METER_WEBSOCKETS, METER_LEVELS };

void meters_count(enum meter_counter c, uint64_t n);
void meters_move(enum meter_level l, int by);
void meters_error(enum err code);
void meters_accepted(enum meter_door d);
void meters_received(enum meter_door d, uint64_t bytes);
void meters_sent(enum meter_door d, uint64_t bytes);
/* A request was answered, NS after it came. */
void meters_request(enum meter_door d, enum meter_request kind, uint64_t ns);
void meters_stage(enum meter_stage s, uint64_t ns);
/* Requests of one transaction. */
void meters_batch(uint64_t requests);
/* A read waited for a reader; a reader was busy with it (a long answer: several times). */
void meters_read_waited(uint64_t ns);
void meters_read_ran(uint64_t ns);

/* --- for /metrics: sums over all threads --- */

#define METER_ERRORS 32 /* above the highest number of err.def */

struct meters {
    uint64_t counters[METER_COUNTERS];
    int64_t levels[METER_LEVELS];
    uint64_t errors[METER_ERRORS];
    uint64_t accepted[METER_DOORS], received[METER_DOORS], sent[METER_DOORS];
    uint64_t requests[METER_DOORS][METER_REQUESTS];
    struct histogram_copy request_ns[METER_REQUESTS], stage_ns[METER_STAGES];
    struct histogram_copy batch, read_waited_ns, read_ran_ns;
};
void meters_collect(struct meters *out);
/* Since the process began. */
uint64_t meters_age_ms(void);

#endif
