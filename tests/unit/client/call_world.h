/* Room: tests. A cluster of fake nodes that know who leads and remember numbered writes, and a
 * program that calls it. What a node does wrong is said per node. Thread: one, but the nodes' own.
 */
#ifndef TESTS_UNIT_CLIENT_CALL_WORLD_H
#define TESTS_UNIT_CLIENT_CALL_WORLD_H

#include "client/stream.h"
#include "tests/unit/client/fake_node.h"

#define WORLD_NODES    3u
#define WORLD_SEEN_MAX 512u

/* What a node does with QUERY, BATCH, DESCRIBE, CLUSTER. */
enum how {
    WELL,         /* runs it, answers */
    DO_AND_CLOSE, /* runs it, and the connection ends */
    CLOSE,        /* does not run it */
    DO_AND_HUSH,  /* runs it, answers nothing */
    HUSH,         /* neither */
    ERR,          /* answers `code` */
    GARBAGE,      /* a DONE that makes no sense */
    HEAD_CLOSE,   /* runs it, answers columns, and the connection ends */
    PART_CLOSE,   /* and rows */
};

struct request_seen {
    unsigned node;
    enum wire_type type;
    struct wire_query query; /* without its statements */
    struct wire_id id;
    uint32_t keep;
    char sql[64]; /* "" when the text was not sent */
};

struct world {
    unsigned n;
    struct fake_node *nodes[WORLD_NODES];
    struct node_place {
        struct world *world;
        unsigned index;
    } places[WORLD_NODES];
    struct url url;
    struct lectern_cluster *cluster;
    struct stream *stream;
};

/* N nodes, 1 leads; the URL names all of them. */
void world_begin(struct world *w, unsigned n);
/* The same, the URL names the first USED of them. */
void world_begin_with(struct world *w, unsigned n, unsigned used);
void world_end(struct world *w);
/* From now on, for the next TIMES requests (0: for ever). NODE: 1, 2, 3. */
void world_does(struct world *w, unsigned node, enum how how, unsigned times);
void world_fails(struct world *w, unsigned node, enum err code, unsigned times);
/* What STATUS tells from now on. 0: nobody leads. */
void world_leads(struct world *w, unsigned node);
void world_state(struct world *w, unsigned node, const char *state);
/* Nobody has heard of it: STATUS has its row, and no address. */
void world_unheard(struct world *w, unsigned node, bool on);
/* STATUS is answered with ERROR. */
void world_no_status(struct world *w, bool on);
/* What RESOLVE is answered with: DONE or an error; ERR_NOT_FOUND: as it really was, and what was
 * not done never will be. */
void world_resolves(struct world *w, enum err code);
/* The seq of EXPIRED's, and so often it is answered to numbered writes. */
void world_expires(struct world *w, unsigned times, uint64_t covers);
/* Each SELECT and RETURNING: so many ROWS frames of so many rows. */
void world_rows(struct world *w, unsigned frames, uint32_t rows);

/* Requests in the order of their coming; copies. */
unsigned world_seen(struct world *w);
struct request_seen world_request(struct world *w, unsigned i);
/* None of those before count. */
void world_forget_requests(struct world *w);
/* How often a write was run. */
unsigned world_runs(struct world *w, uint64_t number);

/* A call and what came of it. */
struct asked {
    struct call *call;
    bool ended;
    struct call_end end;
    char message[ERR_TEXT_MAX];
    unsigned columns, frames, steps, descriptions, restarts;
    uint64_t rows, bytes;
    bool take; /* call_took at once */
};

/* That note what comes in A, which is emptied; the end frees its call. */
void ask_events(struct call_events *events, struct asked *a);
/* Starts; SQL decides the kind as a program would: SELECT, BEGIN, COMMIT, else a write. */
void ask(struct world *w, struct asked *a, const char *sql, uint64_t timeout_ms);
void ask_as(struct world *w, struct asked *a, enum wire_type type, enum call_kind kind,
            enum wire_level level, uint32_t keep, const char *sql, uint64_t timeout_ms);
/* Turns the loop until it ended; more than LIMIT_MS of felt time are a failure. Frees the call. */
void wait_end(struct world *w, struct asked *a, uint64_t limit_ms);
/* Both, within ten seconds. */
enum err run_sql(struct world *w, const char *sql, struct asked *a);
void turn_for(struct world *w, uint64_t ms);
/* Turns until node NODE has got so many QUERYs in all. */
void wait_requests(struct world *w, unsigned node, unsigned n);

#endif
