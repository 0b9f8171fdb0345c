/* liblectern: programs talk to a Lectern cluster. The one installed header.
 *
 * The calls mirror SQLite's C interface: same order of arguments, same types, same result codes,
 * same meaning. Where it must differ, it says so here:
 *
 *  - A `lectern` is a session with a cluster, not with a file. It finds the leader for writes and
 *    the nearest healthy node for reads, and goes on with another node when one is lost.
 *  - Every call ends: it obeys the session's time limit (lectern_timeout, 30 seconds at first).
 *  - A write is numbered and done at most once, however often it had to be sent. When nobody can
 *    tell any more whether it was done, the result is LECTERN_UNKNOWN: look before you repeat it.
 *  - An open transaction lives on one node. When that node or its leadership is lost, the result
 *    is LECTERN_TXN_LOST: nothing of it was written, begin again (lectern_transaction does).
 *  - No BUSY for a short while: waiting for the writer is the server's work, up to the time limit.
 *  - A session's statements run one after the other. One that waits while a SELECT is only fetched
 *    in part makes the rest of its rows come into memory, up to 64 MiB; with more left, the other
 *    statement is LECTERN_BUSY.
 *  - Changes made by triggers and foreign keys do not count in lectern_total_changes, and the SQL
 *    functions changes() and total_changes() know nothing of earlier requests: use the calls.
 *
 * Threads: a session, its statements and everything on one lectern_cluster may be used from any
 * thread at any time. A call that waits keeps no other from running or from ending in its own time.
 * As with one connection of SQLite, threads that share a session share its last error, its
 * transaction and the order of its statements. One statement is stepped by one thread at a time:
 * where SQLite would let the second wait, its lectern_step is LECTERN_MISUSE here; and resetting or
 * finalizing the statement does not wait, but ends the other thread's step (LECTERN_MISUSE).
 * What was opened is not closed (LECTERN_BUSY) while a call on it waits. Functions of the program
 * (callbacks, the body of a transaction) run on the thread that waits or polls, without any lock;
 * those of lectern_start and lectern_batch_start one at a time on a cluster. lectern_interrupt may
 * be called at any moment, also from a signal handler. A child of fork() must not use what its
 * parent opened, not even to close it: both would read and write the same connections.
 *
 * Memory: no call aborts for want of memory: LECTERN_NOMEM. NULL handles are LECTERN_MISUSE, or a
 * harmless value; so are the 32 statements and batches of a session that were finalized last, of
 * which lectern_errmsg says so (of NULL no session is known). A session that was closed is gone, as
 * in SQLite. */
#ifndef LECTERN_H
#define LECTERN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LECTERN_API __attribute__((visibility("default")))
#else
#define LECTERN_API
#endif

#define LECTERN_VERSION_NUMBER 1000 /* major * 1000000 + minor * 1000 + patch */

typedef struct lectern lectern;
typedef struct lectern_stmt lectern_stmt;
typedef struct lectern_cluster lectern_cluster;
typedef struct lectern_batch lectern_batch;

/* --- result codes: SQLite's, and five of our own --------------------------------------------- */

enum {
    LECTERN_OK = 0,
    LECTERN_ERROR = 1,
    LECTERN_PERM = 3,
    LECTERN_ABORT = 4,
    LECTERN_BUSY = 5,
    LECTERN_LOCKED = 6,
    LECTERN_NOMEM = 7,
    LECTERN_READONLY = 8,
    LECTERN_INTERRUPT = 9,
    LECTERN_IOERR = 10, /* also: a read whose node was lost amid its rows; run it again */
    LECTERN_CORRUPT = 11,
    LECTERN_FULL = 13,
    LECTERN_CANTOPEN = 14, /* malformed URL, no address of it resolves, or nobody answers there */
    LECTERN_PROTOCOL = 15, /* what answers there is no Lectern, or of another version */
    LECTERN_SCHEMA = 17,
    LECTERN_TOOBIG = 18,
    LECTERN_CONSTRAINT = 19,
    LECTERN_MISMATCH = 20,
    LECTERN_MISUSE = 21,
    LECTERN_AUTH = 23, /* a statement that cannot be replicated */
    LECTERN_RANGE = 25,
    LECTERN_NOTADB = 26,
    LECTERN_ROW = 100,
    LECTERN_DONE = 101,
    /* Whether the write was done cannot be known. Look (SELECT) before you repeat it. */
    LECTERN_UNKNOWN = 64,
    /* The open transaction was rolled back by the cluster. Begin it again. */
    LECTERN_TXN_LOST = 65,
    /* The same, as lectern_extended_errcode has it: for it was idle (transaction-idle-timeout) or
     * open (transaction-timeout) for too long. */
    LECTERN_TXN_TIMEOUT = LECTERN_TXN_LOST | 1 << 8,
    /* The cluster has no leader, or could not be reached, in time. Nothing was done. */
    LECTERN_UNAVAILABLE = 66,
    /* The time limit passed. Nothing was done (a write of which that is not sure is UNKNOWN). */
    LECTERN_TIMEOUT = 67,
    /* The write was done by an earlier attempt; the rows of its RETURNING were too many to be kept.
     */
    LECTERN_ROWS_LOST = 68,
};

enum {
    LECTERN_INTEGER = 1,
    LECTERN_FLOAT = 2,
    LECTERN_TEXT = 3,
    LECTERN_BLOB = 4,
    LECTERN_NULL = 5,
};

typedef void (*lectern_destructor)(void *);
#define LECTERN_STATIC    ((lectern_destructor)0)
#define LECTERN_TRANSIENT ((lectern_destructor)-1)

/* --- sessions ----------------------------------------------------------------------------------
 *
 * URL: "lectern://host:port,host:port/db?read=session&timeout=30000", or just "host:port,...".
 * Addresses of one or more nodes; the others are learnt from them. Port 7701 unless given; IPv6 in
 * brackets. db: "" or "main". Parameters: read=any|bounded:MS|session|strong; timeout=MS;
 * name=TEXT for the server's log. */

/* As sqlite3_open: *DB is there also after an error, for lectern_errmsg (NULL without memory), and
 * is to be closed. Waits for one node to answer; where nobody listens, or somebody who is no
 * Lectern, not for the whole time limit but for 2 seconds: nodes may be starting. */
LECTERN_API int lectern_open(const char *url, lectern **db);
/* Also with NULL. BUSY: some statements or batches are not finalized, a call of it is under way, or
 * others use the cluster that lectern_open made. Rolls back. In a callback of its own only for
 * sessions of lectern_open_session (else MISUSE). */
LECTERN_API int lectern_close(lectern *db);

/* The time limit of every call from now on, milliseconds, 1 to 86,400,000. It counts for each step
 * anew, not while the program does something else with its rows. */
LECTERN_API int lectern_timeout(lectern *db, int64_t ms);
enum { LECTERN_READ_ANY, LECTERN_READ_BOUNDED, LECTERN_READ_SESSION, LECTERN_READ_STRONG };
/* BOUND_MS: of LECTERN_READ_BOUNDED; not looked at with another level. */
LECTERN_API int lectern_read_level(lectern *db, int level, int64_t bound_ms);
/* Ends what runs on DB soon, with LECTERN_INTERRUPT. Any thread, any moment. A write that could not
 * be stopped any more ends as it ended. */
LECTERN_API void lectern_interrupt(lectern *db);

LECTERN_API int lectern_errcode(lectern *db);
LECTERN_API int lectern_extended_errcode(lectern *db);
/* A sentence: what happened and, for our own codes, what to do. Valid until the next call on DB. */
LECTERN_API const char *lectern_errmsg(lectern *db);
LECTERN_API const char *lectern_errstr(int code);
/* Byte in the statement where the error is, -1: unknown. */
LECTERN_API int lectern_error_offset(lectern *db);

LECTERN_API int64_t lectern_changes(lectern *db);
LECTERN_API int64_t lectern_total_changes(lectern *db);
LECTERN_API int64_t lectern_last_insert_rowid(lectern *db);
/* 0: a transaction is open. */
LECTERN_API int lectern_get_autocommit(lectern *db);

/* The newest transaction that this session has seen or made. Reads at level `session` see at least
 * this on any node, also after a reconnect. */
LECTERN_API uint64_t lectern_position(lectern *db);
/* The session goes on from POSITION, of another session or process of the same cluster: its reads
 * wait until their node has so much, its writes do not. What the program sets counts, also when it
 * is lower than before; answers raise it again to what they saw. One that no node ever reaches (of
 * another cluster, forged) makes reads end with LECTERN_TIMEOUT: set 0. Do not trust a number that
 * comes back from strangers (a cookie): sign it, or bound it by another session's position. */
LECTERN_API int lectern_set_position(lectern *db, uint64_t position);

enum {
    LECTERN_INFO_ADDRESS, /* host:port of the node that answered last */
    LECTERN_INFO_NODE,    /* its number, as text */
    LECTERN_INFO_SERVER,  /* its version of Lectern */
    LECTERN_INFO_SQLITE,  /* and of SQLite */
    LECTERN_INFO_CLUSTER, /* the cluster's id, 16 hexadecimal digits */
};
/* "" when not known yet, or without memory for it. Valid until the next call on DB. */
LECTERN_API const char *lectern_info(lectern *db, int what);
LECTERN_API const char *lectern_libversion(void);

/* --- statements ------------------------------------------------------------------------------- */

/* As sqlite3_prepare_v3. The statement is compiled by a node (one round trip), kept on the server,
 * and prepared anew by itself after a change of schema, a reconnect or a failover. N: bytes of SQL,
 * -1: up to its zero. */
LECTERN_API int lectern_prepare(lectern *db, const char *sql, int n, lectern_stmt **stmt,
                                const char **tail);
/* No round trip: the whole text is one statement, and its errors come when it runs. What SQLite
 * knows only by compiling is not known before: column and parameter counts and names are 0 and
 * NULL, and bind takes any index. For programs that must not wait. */
enum { LECTERN_PREPARE_LAZY = 1, LECTERN_PREPARE_ONCE = 2 /* will run once: do not keep it */ };
LECTERN_API int lectern_prepare_v3(lectern *db, const char *sql, int n, unsigned flags,
                                   lectern_stmt **stmt, const char **tail);
/* As in SQLite, both return how the last run of STMT failed, and lectern_errmsg says it again,
 * whatever else was run since. */
LECTERN_API int lectern_finalize(lectern_stmt *stmt);
LECTERN_API int lectern_reset(lectern_stmt *stmt);
LECTERN_API int lectern_clear_bindings(lectern_stmt *stmt);
LECTERN_API const char *lectern_sql(lectern_stmt *stmt);
LECTERN_API lectern *lectern_db_handle(lectern_stmt *stmt);
LECTERN_API int lectern_stmt_readonly(lectern_stmt *stmt);
LECTERN_API int lectern_stmt_isexplain(lectern_stmt *stmt);
LECTERN_API int lectern_stmt_busy(lectern_stmt *stmt);

LECTERN_API int lectern_bind_null(lectern_stmt *stmt, int index);
LECTERN_API int lectern_bind_int(lectern_stmt *stmt, int index, int value);
LECTERN_API int lectern_bind_int64(lectern_stmt *stmt, int index, int64_t value);
LECTERN_API int lectern_bind_double(lectern_stmt *stmt, int index, double value);
/* The destructor is called also when the call fails, but, as SQLite's manual has it, not for NULL,
 * nor for a blob of fewer than no bytes (MISUSE). */
LECTERN_API int lectern_bind_text(lectern_stmt *stmt, int index, const char *text, int n,
                                  lectern_destructor destructor);
LECTERN_API int lectern_bind_blob(lectern_stmt *stmt, int index, const void *bytes, int n,
                                  lectern_destructor destructor);
LECTERN_API int lectern_bind_zeroblob(lectern_stmt *stmt, int index, int n);
LECTERN_API int lectern_bind_parameter_count(lectern_stmt *stmt);
LECTERN_API int lectern_bind_parameter_index(lectern_stmt *stmt, const char *name);
LECTERN_API const char *lectern_bind_parameter_name(lectern_stmt *stmt, int index);

/* LECTERN_ROW, LECTERN_DONE, or an error. Rows stream: memory holds a few hundred KiB of them, on
 * both sides. A read outside of a transaction sees one state from its first row to its last. A
 * write (INSERT ... RETURNING) is done when its first row is there. While it waits, callbacks of
 * other sessions of the same cluster may run (lectern_start). A SELECT of which nothing is fetched
 * for 10 seconds, while its node has more rows to send, is ended with LECTERN_TIMEOUT. */
LECTERN_API int lectern_step(lectern_stmt *stmt);
LECTERN_API int lectern_column_count(lectern_stmt *stmt);
LECTERN_API int lectern_data_count(lectern_stmt *stmt);
LECTERN_API const char *lectern_column_name(lectern_stmt *stmt, int column);
LECTERN_API const char *lectern_column_decltype(lectern_stmt *stmt, int column);
LECTERN_API int lectern_column_type(lectern_stmt *stmt, int column);
LECTERN_API int lectern_column_int(lectern_stmt *stmt, int column);
LECTERN_API int64_t lectern_column_int64(lectern_stmt *stmt, int column);
LECTERN_API double lectern_column_double(lectern_stmt *stmt, int column);
/* Zero-terminated; as in SQLite, numbers are turned into text, and the pointer is good until the
 * next step, reset or conversion of this column. */
LECTERN_API const unsigned char *lectern_column_text(lectern_stmt *stmt, int column);
LECTERN_API const void *lectern_column_blob(lectern_stmt *stmt, int column);
LECTERN_API int lectern_column_bytes(lectern_stmt *stmt, int column);

/* As sqlite3_exec: all statements of SQL, one after the other, one round trip each. *MESSAGE: free
 * with lectern_free. */
LECTERN_API int lectern_exec(lectern *db, const char *sql,
                             int (*row)(void *arg, int n, char **values, char **names), void *arg,
                             char **message);
LECTERN_API void lectern_free(void *p);
/* 1: SQL ends with a complete statement, as sqlite3_complete. */
LECTERN_API int lectern_complete(const char *sql);

/* --- several statements as one ---------------------------------------------------------------- */

/* A batch: all of its statements or none, in one round trip, one transaction. Not for BEGIN, COMMIT
 * and the like. Inside an open transaction it is a savepoint of it. */
LECTERN_API int lectern_batch_new(lectern *db, lectern_batch **batch);
/* Adds STMT as it is bound now; STMT may be bound anew and added again, or finalized. */
LECTERN_API int lectern_batch_add(lectern_batch *batch, lectern_stmt *stmt);
LECTERN_API int lectern_batch_add_sql(lectern_batch *batch, const char *sql);
LECTERN_API int lectern_batch_run(lectern_batch *batch);
/* Of statement I, from 0, after a run. */
LECTERN_API int64_t lectern_batch_changes(lectern_batch *batch, int i);
LECTERN_API int64_t lectern_batch_last_insert_rowid(lectern_batch *batch, int i);
/* The rows of statement I (a SELECT, RETURNING), once, to be stepped and finalized; they outlive
 * the batch. */
LECTERN_API int lectern_batch_rows(lectern_batch *batch, int i, lectern_stmt **rows);
/* After an error: the statement that failed, -1: none in particular. */
LECTERN_API int lectern_batch_failed(lectern_batch *batch);
/* Empties it, to be filled again. */
LECTERN_API int lectern_batch_clear(lectern_batch *batch);
LECTERN_API int lectern_batch_free(lectern_batch *batch);

/* Runs BEGIN (NULL: "BEGIN IMMEDIATE"), then BODY, then COMMIT; ROLLBACK when BODY returns anything
 * but LECTERN_OK, which is then the result. What may be tried again is, BODY and all, until the
 * time limit: LECTERN_TXN_LOST, LECTERN_BUSY, LECTERN_UNAVAILABLE. BODY must change nothing that a
 * second run would spoil. After a loss all statements fail with LECTERN_TXN_LOST until BODY has
 * returned; then it is run again, unless it returned an error of its own. LECTERN_UNKNOWN of the
 * COMMIT is not tried again. BODY must not end the transaction: LECTERN_MISUSE, after the fact. The
 * time limit is that of each statement, and says how long it is run again; a last run that began in
 * time goes on to its end. */
LECTERN_API int lectern_transaction(lectern *db, const char *begin,
                                    int (*body)(lectern *db, void *arg), void *arg);

/* --- without waiting: from a foreign event loop ----------------------------------------------- */

/* Connections to one cluster, to be shared by many sessions: one TCP connection for each node, and
 * any number of requests in flight on it. Does not wait: connects as it is needed. */
LECTERN_API int lectern_cluster_open(const char *url, lectern_cluster **cluster);
/* LECTERN_BUSY: it has sessions, a thread waits on it, or this is a callback. Also with NULL. */
LECTERN_API int lectern_cluster_close(lectern_cluster *cluster);
/* A session over CLUSTER; does not wait. URL's parameters count. */
LECTERN_API int lectern_open_session(lectern_cluster *cluster, lectern **db);
/* The cluster of DB, also of one that lectern_open made; never to be closed by the caller. */
LECTERN_API lectern_cluster *lectern_cluster_of(lectern *db);
/* One descriptor: whenever it is readable (level), call lectern_poll. It stands for sockets, timers
 * and deadlines. */
LECTERN_API int lectern_fd(lectern_cluster *cluster);
/* Does what can be done now and runs callbacks; waits for at most WAIT_MS (0: not at all, -1: until
 * something was done, by this thread or one that waits beside it). MISUSE: from a callback of
 * lectern_start or lectern_batch_start. */
LECTERN_API int lectern_poll(lectern_cluster *cluster, int wait_ms);

/* Called for each row: use lectern_column_*; anything but 0 cancels the statement, which then ends
 * with LECTERN_ABORT. */
typedef int (*lectern_on_row)(void *arg, lectern_stmt *stmt);
/* Called once, at the end, from lectern_poll (or from a waiting call on the same cluster), never
 * from lectern_start: RESULT is LECTERN_DONE or an error, with lectern_errmsg of the session. The
 * statement may be bound, started and finalized here. Not called for a statement that was reset or
 * finalized before, nor for a batch that was freed: that ends it, too. */
typedef void (*lectern_on_end)(void *arg, lectern_stmt *stmt, int result);
/* Runs STMT without waiting. Statements of one session run one after the other, in the order of
 * their starts; those of different sessions side by side. */
LECTERN_API int lectern_start(lectern_stmt *stmt, lectern_on_row row, lectern_on_end end,
                              void *arg);
/* The same for a batch; STMT of the callback is NULL. */
LECTERN_API int lectern_batch_start(lectern_batch *batch, lectern_on_end end, void *arg);

/* --- the cluster itself ----------------------------------------------------------------------- */

/* One row for each node; columns as in docs/PROTOCOL.md, section STATUS. */
LECTERN_API int lectern_prepare_status(lectern *db, lectern_stmt **stmt);

enum {
    LECTERN_MEMBER_ADD = 1, /* at `address`; id: the dead member that it replaces, or 0 */
    LECTERN_MEMBER_REMOVE = 2,
    LECTERN_MEMBER_ROLE = 3,
    LECTERN_MEMBER_TRANSFER = 4, /* leadership to id, 0: to whom it suits best */
};
enum { LECTERN_VOTER, LECTERN_REPLICA, LECTERN_SPARE };
struct lectern_member_change {
    int change, role, force; /* force: also when it may cost the majority */
    uint64_t id;
    const char *address; /* of the peer listener, ADD only */
};
/* One row: id, cluster_id, database_id, index, text. */
LECTERN_API int lectern_prepare_member_change(lectern *db,
                                              const struct lectern_member_change *change,
                                              lectern_stmt **stmt);

/* A consistent copy of the whole database into the file PATH (which must not exist; PATH.partial
 * until it is whole), from a node that need not be the leader, while writes go on: a state not
 * older than this session has seen. Each page is compared with its hash. PROGRESS (may be NULL),
 * with bytes: anything but 0 ends it with LECTERN_INTERRUPT. On an error there is no file. Not
 * inside a transaction. The time limit counts for the next page from any node, not for the whole.
 */
LECTERN_API int lectern_export(lectern *db, const char *path,
                               int (*progress)(void *arg, uint64_t done, uint64_t total),
                               void *arg);

#ifdef __cplusplus
}
#endif

#endif
