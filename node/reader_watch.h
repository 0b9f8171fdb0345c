/* Room: node. Which statements read at this moment, and those among them that keep the WAL from
 * starting over: named in the log, and in the end ended, so that the WAL stays bounded.
 *
 * While a read transaction is open, no checkpoint goes beyond what it sees, and no restart of the
 * WAL is possible. Only when the WAL is over `wal-limit` and its restart is held back does anything
 * happen here: past `reader-warn` a statement is named, past `reader-limit` it is ended.
 *
 * That alone does not bound the WAL: reads may relieve each other, so that there is always one. So
 * after an end, no new statement begins until the WAL has started over, for GATE_MS at most; and
 * when the restart was held back for twice reader-limit, those that still run at the end of such a
 * pause are ended as well, whatever their age. */
#ifndef NODE_READER_WATCH_H
#define NODE_READER_WATCH_H

#include "base/list.h"
#include "base/thread.h"
#include "node/config.h"
#include "node/request.h"
#include "replication/replication.h"

struct reader_watch;

/* One statement, or a read transaction, from its begin to its end; in the memory of whoever runs
 * it. */
struct reading {
    struct list link;
    struct request *r; /* the statement; NULL between those of a transaction */
    uint64_t session_id;
    uint64_t began_ms;  /* monotonic */
    _Atomic bool holds; /* it has a read transaction: said by the thread that runs it */
    bool named;
    _Atomic bool ended; /* told to end, for the reason `sentence`: written before */
    char sentence[ERR_TEXT_MAX];
};

struct reader_watch *reader_watch_new(const struct config *config, struct repl_db *db);
void reader_watch_free(struct reader_watch *w);
/* R lives until reader_watch_end. */
void reader_watch_begin(struct reader_watch *w, struct reading *g, struct request *r) ON_READER;
void reader_watch_end(struct reader_watch *w, struct reading *g) ON_READER;
/* The same transaction goes on with the statement R, or rests: NULL. */
void reader_watch_turn(struct reader_watch *w, struct reading *g, struct request *r) ON_READER;

/* Looks at all of them; call every now and then. Statements that are to end are cancelled: running
 * ones see it, who holds a parked one has to send it on (session.c does). True: another process may
 * hold the WAL back; let a thread that may block call reader_watch_look_outside. */
bool reader_watch_look(struct reader_watch *w, uint64_t now_ms) ON_LOOP;
/* Ends the statement G, whose client let it wait for WAITED_MS while others waited for its place.
 * Its request is in the hands of the loop, and is cancelled as above. */
void reader_watch_give_up(struct reading *g, uint64_t waited_ms) ON_LOOP;
/* May new statements begin? False for GATE_MS at most. Any thread. */
bool reader_watch_is_open(const struct reader_watch *w);
/* Finds the other processes that read the database's files, and says so in the log. Blocks. */
void reader_watch_look_outside(struct reader_watch *w);

#endif
