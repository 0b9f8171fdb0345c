/* Room: node. The reader pool: threads and connections that run read-only statements on the
 * published files.
 *
 * A request whose answer is longer than a block is cut: the block goes to the loop (LOOP_ROWS), the
 * statement is parked with its connection, and no thread waits for a slow client; when the client
 * has taken the block the loop sends the request back (readers_run).
 *
 * A read transaction (BEGIN READONLY) is a snapshot: a connection of its own, with the state of
 * that moment, for one session, until COMMIT or ROLLBACK. Each of its statements is a request like
 * any other. There are as many as `read-transactions` says, beside the connections for statements.
 *
 * A statement, or a snapshot, that holds the WAL back for too long is ended with ERR_TIMEOUT:
 * reader_watch.h. */
#ifndef NODE_READERS_H
#define NODE_READERS_H

#include "base/mail.h"
#include "base/thread.h"
#include "node/config.h"
#include "node/reader_watch.h"
#include "node/request.h"
#include "replication/replication.h"

struct readers;
/* An open read transaction. Whoever has a request of its session has it. */
struct snapshot;

/* Threads and connections come as they are needed, up to the configured numbers. LOOP gets
 * LOOP_ROWS and LOOP_ANSWER letters. DB must outlive the pool. */
MUST_USE enum err readers_open(const struct config *config, struct repl_db *db, struct mail *loop,
                               struct readers **out);
/* Ends all: waits for the running statements, which must have been cancelled. Parked requests must
 * have been sent back. */
void readers_close(struct readers *readers);
/* A new request, or one that came by LOOP_ROWS and goes on. Thread: loop. */
void readers_run(struct readers *readers, struct request *r) ON_LOOP;
/* Ends a snapshot that no request is under way in. */
void readers_end_snapshot(struct readers *readers, struct snapshot *s) ON_LOOP;
/* It kept the WAL of this node from starting over, and has to end: the sentence that says so. NULL:
 * it may stay. */
const char *snapshot_must_end(const struct snapshot *s) ON_LOOP;
/* Answers requests that still wait for a connection and are cancelled (ERR_CANCELLED) or past their
 * deadline (ERR_TIMEOUT). Cancels statements that hold the WAL back for too long (reader_watch.h):
 * those that wait for their client have to be sent back here. */
void readers_expire(struct readers *readers, uint64_t now_ms) ON_LOOP;
/* How much there is to do, for metrics. */
struct readers_state {
    unsigned busy, waiting;                /* statements */
    unsigned snapshots, snapshots_waiting; /* read transactions */
};
void readers_look(struct readers *readers, struct readers_state *out) ON_LOOP;

#endif
