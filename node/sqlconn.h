/* Room: node. One SQLite connection as the node uses it: guarded, with its prepared statements
 * kept, and interruptible. Readers and the writer lane run every client's statement through here.
 * Thread: the one that owns the connection (reader or owner), called ANY because both do. */
#ifndef NODE_SQLCONN_H
#define NODE_SQLCONN_H

#include "base/err.h"
#include "node/request.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sqlconn;
struct sqlstmt;

/* Takes CONN over (closed by sqlconn_close). TICK (may be NULL) is called every few hundred
 * microseconds of a running statement (the lane publishes from it); true interrupts the statement,
 * whose answer is then ERR_NOT_LEADER: nothing of it was committed. */
struct sqlconn *sqlconn_new(sqlite3 *conn, bool (*tick)(void *ctx), void *ctx);
void sqlconn_close(struct sqlconn *c);
sqlite3 *sqlconn_handle(struct sqlconn *c);

/* Runs a fixed statement of ours (BEGIN, COMMIT, SAVEPOINT ...), prepared once. The result is
 * SQLite's extended code. */
int sqlconn_exec(struct sqlconn *c, const char *sql);

/* Prepares (or finds) and binds R's statement. An error is put into R's answer. *stmt = NULL with
 * ERR_OK: nothing to run. Statements that are not read-only are refused on a READ_ONLY connection:
 * the answer's `not_read_only` is set and ERR_FORBIDDEN returned. */
MUST_USE enum err sqlconn_begin(struct sqlconn *c, struct request *r, bool read_only,
                                struct sqlstmt **stmt);
/* Steps, adding COLUMNS (once) and ROWS frames to the answer, until the end (*more = false) or
 * until the answer holds at least BLOCK bytes (*more = true). An error is put into R's answer. */
MUST_USE enum err sqlconn_rows(struct sqlconn *c, struct sqlstmt *stmt, struct request *r,
                               size_t block, bool *more);
/* Gives the statement back; after the last sqlconn_rows, or instead of more. */
void sqlconn_end(struct sqlconn *c, struct sqlstmt *stmt);
/* All three in one: the whole answer in memory, at most MAX bytes (above: ERR_TOO_BIG). The error
 * is in R's answer too, so the result may be ignored. *writes: the statement is one that may change
 * the database. */
enum err sqlconn_run(struct sqlconn *c, struct request *r, size_t max, bool *writes);

/* Prepares R's statement, the first of its text, and puts a DESCRIPTION into the answer; runs
 * nothing. The error is in R's answer too. */
enum err sqlconn_describe(struct sqlconn *c, struct request *r);

/* Puts SQLite's own code, message and offset into R's answer. */
enum err sqlconn_fail(struct sqlconn *c, struct request *r, int rc);
/* Between two statements of R: is it cancelled, out of time, or must the connection's owner (tick)
 * have it stop? As if a statement had been interrupted. */
enum err sqlconn_go_on(struct sqlconn *c, struct request *r);
/* Lets VACUUM through the guard while on. */
void sqlconn_allow_vacuum(struct sqlconn *c, bool on);
/* While on, a request's statement may not begin, end or roll back a transaction or savepoint
 * (ERR_FORBIDDEN), whatever its text looks like: for a connection whose transaction several
 * requests share. sqlconn_exec may. */
void sqlconn_forbid_transactions(struct sqlconn *c, bool on);

#endif
