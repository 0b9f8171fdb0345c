/* Room: node. The writer lane: one per database, one thread (the owner), everything that changes
 * it.
 *
 * On every node it applies or publishes the committed entries. On the leader it also runs the
 * writes: it collects what waits into one SQLite transaction with a savepoint each (lane_batch.c),
 * gives each interactive transaction a connection of its own (lane_txn.c), seals, proposes, goes on
 * with the next at once, and answers when the entry is committed and published (lane_flight.c).
 *
 * The rule for answers: no answer leaves before everything it saw is committed. */
#ifndef NODE_LANE_H
#define NODE_LANE_H

#include "base/mail.h"
#include "base/thread.h"
#include "consensus/consensus.h"
#include "node/config.h"
#include "node/record.h"
#include "node/request.h"
#include "replication/replication.h"

struct lane;
struct outcomes;

/* --- letters --- */

struct lane_entry {
    struct letter letter;
    uint64_t index, term;
    enum cns_kind kind;
    struct cns_payload *payload; /* a reference of its own; NULL unless a command */
};

struct lane_role {
    struct letter letter;
    bool leader, stopped; /* stopped: no entry comes any more */
    uint64_t term;
};

/* LANE_GONE, LANE_USED. */
struct lane_session {
    struct letter letter;
    uint64_t session_id;
};

struct lane_stop {
    struct letter letter;
    enum err result;
    char text[ERR_TEXT_MAX];
};

struct lane_proposal {
    struct letter letter;
    uint64_t term;
    size_t bytes;
    bool one_of_many;            /* to be sent back as LANE_PROPOSED: more is made then */
    struct cns_payload *payload; /* NULL: consensus has it */
};

struct lane_applied {
    struct letter letter;
    uint64_t index, seq;
};

struct lane_serving {
    struct letter letter;
    uint64_t term;
};

/* LANE_CUT, LOOP_CUT: the state that the log may be cut behind, when the files hold it. */
struct lane_cut {
    struct letter letter;
    uint64_t asked_ms; /* by the loop, monotonic */
    struct lane_mark mark;
};

/* LANE_IMAGE, LOOP_IMAGE: a pinned state for another node (image.c). */
struct lane_image {
    struct letter letter;
    struct request *request;
    struct repl_image *image;
    struct repl_image_head head;
    struct lane_mark mark;
    enum err code;
    char text[ERR_TEXT_MAX];
};

struct lane_failed {
    struct letter letter;
    enum err code;
    char text[ERR_TEXT_MAX];
};

/* --- the lane --- */

/* Opens the database (blocks). Thread: main, before lane_start. */
MUST_USE enum err lane_open(const struct config *config, struct mail *loop,
                            struct lane **out) ON_OWNER;
/* The database, for readers, statistics and the start-up checks. */
struct repl_db *lane_db(struct lane *lane);
/* What is known of numbered writes, to be filled from the log before lane_start: it begins with
 * nothing that the database contains. Thread: main. */
struct outcomes *lane_outcomes(struct lane *lane);
/* Starts the thread; from here on everything goes through letters. APPLIED: index of the newest
 * entry that the database contains; the next letter's entry is the one after it. */
MUST_USE enum err lane_start(struct lane *lane, uint64_t applied) ON_LOOP;
/* Sends any LANE_ letter; the lane owns it then. LANE_REQUEST comes back as LOOP_ANSWER. Requests
 * leave together at lane_flush, so that those of one turn of the loop cost one wake-up and share a
 * batch; all other letters leave at once, with the requests before them. */
void lane_send(struct lane *lane, struct letter *letter) ON_LOOP;
/* Before the loop sleeps, and after it read its sockets. */
void lane_flush(struct lane *lane) ON_LOOP;
/* After LOOP_STOPPED (or before lane_start): joins the thread and frees. */
void lane_close(struct lane *lane);

#endif
