/* Room: client. A small blocking client of the native protocol: one request at a time, rows handed
 * on as they come, in constant memory. Used by the shell.
 *
 * It knows several addresses and moves to the next one when a connection is lost, if that is safe:
 *
 *     lost while                                 what the caller sees
 *     nothing runs, no transaction               nothing: the next request connects again
 *     a read runs, no row was handed on yet      nothing: it is sent again to the next address
 *     a write was not sent whole                 nothing: it is sent to the next address
 *     a write was sent                           ERR_UNKNOWN: it may or may not be done
 *     a transaction is open                      ERR_TXN_LOST; ERR_UNKNOWN if COMMIT was on its way
 *
 * Every wait has a deadline. Thread: one at a time, except conn_cancel. */
#ifndef CLIENT_CONNECTION_H
#define CLIENT_CONNECTION_H

#include "base/err.h"
#include "client/wire.h"
#include "client/wire_cluster.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Addresses in a list; a cluster has 3 to 7 nodes. */
#define CONN_ADDRESSES_MAX 32
/* Defaults, in milliseconds: for one address to accept and to say WELCOME; and for silence of a
 * server that works on a request (a CREATE INDEX over a large table is silent for long). */
#define CONN_CONNECT_MS 3000u
#define CONN_SILENCE_MS 600000u
/* Added to a request's own time limit before we give the server up; also the time that a cancelled
 * request has for its answer. */
#define CONN_GRACE_MS 5000u

struct conn;

struct conn_options {
    const char *addresses; /* "host:port,host:port" */
    const char *client;    /* our name and version, for the server's log */
    uint32_t connect_ms;   /* 0: CONN_CONNECT_MS */
    uint32_t silence_ms;   /* 0: CONN_SILENCE_MS */
};

struct conn_param {
    const char *name; /* NULL or "": positional */
    struct wire_value value;
};

struct conn_query {
    const char *sql; /* one statement */
    size_t sql_len;
    const struct conn_param *params;
    uint32_t n_params;
    enum wire_level level;
    uint32_t bound_ms;   /* WIRE_BOUNDED */
    uint32_t timeout_ms; /* 0: the server's default */
};

struct conn_column {
    const char *name, *type; /* borrowed for the call, not zero-terminated */
    size_t name_len, type_len;
};

/* Called while an answer streams; an error returned cancels the request and is passed through.
 * Values are borrowed for the call. Must not call back into the connection. */
struct conn_handler {
    enum err (*columns)(void *arg, const struct conn_column *columns, uint32_t n);
    enum err (*row)(void *arg, const struct wire_value *values, uint32_t n);
    void *arg;
};

struct conn_error {
    enum err code;
    int32_t sqlite_code; /* extended; 0: not SQLite's */
    int32_t offset;      /* in the statement; -1: unknown */
    const char *message; /* zero-terminated; valid until the next call */
};

/* Checks the address list and connects to the first node that answers. On an error *C may still be
 * there (when only the nodes are missing): the next request tries again. Without memory: NULL. */
MUST_USE enum err conn_open(const struct conn_options *o, struct conn **c);
/* C may be NULL. */
void conn_close(struct conn *c);

/* Runs one statement; both return the error that conn_error describes. DONE may be NULL. */
MUST_USE enum err conn_query(struct conn *c, const struct conn_query *q,
                             const struct conn_handler *h, struct wire_done *done);
/* One row for each node that the server knows. */
MUST_USE enum err conn_status(struct conn *c, const struct conn_handler *h);
/* Changes the members of the cluster: one row (wire_cluster.h). W->timeout_ms is set, at most a
 * day. ERR_UNKNOWN: as for a write. */
MUST_USE enum err conn_cluster(struct conn *c, const struct wire_cluster *w,
                               const struct conn_handler *h);
/* Ends the running request soon: CANCEL the first time, giving the connection up the second time.
 * Any thread, also a signal handler; without a running request it does nothing. */
void conn_cancel(struct conn *c);

/* About the last call that failed. */
const struct conn_error *conn_error(const struct conn *c);
bool conn_in_transaction(const struct conn *c);
/* Newest sequence seen: session reads carry it. */
uint64_t conn_seq(const struct conn *c);
/* The node at the other end; "" and 0 while not connected. */
const char *conn_address(const struct conn *c);
uint64_t conn_node(const struct conn *c);
const char *conn_server_version(const struct conn *c);
const char *conn_sqlite_version(const struct conn *c);

#endif
