/* Room: node. Fetching the database from another node (docs/STORAGE.md, "Catching up"): a thread
 * that speaks to the other nodes' clients' ports as a client does, while this node serves nothing.
 *
 *     fetch_start -> [thread: rounds] -> LOOP_FETCHED -> fetch_result -> fetch_free
 *
 * When it has succeeded, DIR holds a whole verified database with its record, and the node starts
 * again (startup.c). */
#ifndef NODE_FETCH_H
#define NODE_FETCH_H

#include "base/mail.h"
#include "base/thread.h"
#include "node/request.h"

#include <stdbool.h>
#include <stdint.h>

#define FETCH_SOURCES_MAX 32

struct fetch;

struct fetch_config {
    const char *path; /* DIR/main.db */
    uint64_t own_id, cluster_id, database_id;
    uint64_t index_min;   /* a state before this entry of the log is of no use; 0: any */
    const char *contacts; /* "host:port,..." to begin with, or NULL: fetch_sources will tell */
    struct mail *loop;    /* LOOP_FETCHED goes there */
};

/* Another node, as gossip knows it. */
struct fetch_source {
    uint64_t id; /* 0: not known */
    char address[256];
    bool leads;
    uint64_t lag; /* transactions behind the newest that is known */
};

enum fetch_phase { FETCH_SEARCHES, FETCH_LOOKS, FETCH_ROUND, FETCH_LAST_ROUND, FETCH_VERIFIES };

struct fetch_progress {
    enum fetch_phase phase;
    unsigned round;
    uint32_t pages_done, pages;
    uint64_t bytes;    /* taken from the network, in all */
    uint64_t from;     /* node, 0: none or not known */
    char problem[200]; /* why the last source was given up; "": none */
};

/* Starts the thread. */
MUST_USE enum err fetch_start(const struct fetch_config *c, struct fetch **out) ON_LOOP;
/* Who can be asked now; a copy is made. Tell it again when it changes. */
void fetch_sources(struct fetch *f, const struct fetch_source *sources, unsigned n) ON_LOOP;
void fetch_get_progress(struct fetch *f, struct fetch_progress *out);
/* One sentence of at most ERR_TEXT_MAX bytes: "this node is fetching the database from ...". */
void fetch_describe(struct fetch *f, char *sentence);
/* Asks it to end; LOOP_FETCHED follows as soon as the disk lets it. */
void fetch_cancel(struct fetch *f) ON_LOOP;
/* After LOOP_FETCHED. ERR_OK: COMPLETE is on the disk. ERR_CANCELLED; else the disk failed for
 * good, and SENTENCE (ERR_TEXT_MAX) says how. */
enum err fetch_result(struct fetch *f, char *sentence) ON_LOOP;
/* After LOOP_FETCHED; what was fetched stays. NULL is ignored. */
void fetch_free(struct fetch *f) ON_LOOP;

#endif
