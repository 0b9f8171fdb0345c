/* Room: client. A session on its way through the cluster, and its calls: one request each, sent to
 * the node that fits, sent again elsewhere when that is safe, ended by an answer or at its
 * deadline.
 *
 *   call_start --> waits for its turn --> waits for a node --> sent --> answered --> on_end
 *                                              ^                |
 *                                              +--- lost: may it be sent again? ---+--> on_end
 *
 *   lost while                           then
 *   not sent whole                       sent to another node
 *   a read, no row handed on             sent to another node
 *   a read, rows were handed on          ERR_CLOSED
 *   a numbered write                     sent again under its number; ERR_UNKNOWN at the deadline
 *   a COMMIT                             asked for under its number (WIRE_RESOLVE): done, or
 *                                        ERR_TXN_LOST; ERR_UNKNOWN at the deadline
 *   any other in a transaction           ERR_TXN_LOST
 *
 * Thread: the loop's. */
#ifndef CLIENT_STREAM_H
#define CLIENT_STREAM_H

#include "client/cluster.h"

/* A session: what it carries between its requests. */
struct stream;

MUST_USE enum err stream_new(struct lectern_cluster *c, struct stream **out);
/* Its calls are ended and freed before. Rolls back. */
void stream_free(struct stream *s);
bool stream_in_transaction(const struct stream *s);
/* A transaction was lost, and the next call tells the program. */
bool stream_has_lost(const struct stream *s);
uint64_t stream_position(const struct stream *s);
/* What the program says; answers that are newer raise it. */
void stream_set_position(struct stream *s, uint64_t seq);
/* The program set it, and no node told of anything so new. */
bool stream_is_ahead(const struct stream *s);
int64_t stream_last_insert_rowid(const struct stream *s);
/* Of the node that answered last; "" and 0 before. */
const char *stream_address(const struct stream *s);
uint64_t stream_node(const struct stream *s);
const char *stream_server_version(const struct stream *s);
const char *stream_sqlite_version(const struct stream *s);

enum call_kind {
    CALL_READ,   /* the nearest healthy node; nothing changes */
    CALL_WRITE,  /* the leader, numbered */
    CALL_BEGIN,  /* the leader, not numbered: dies with its connection */
    CALL_COMMIT, /* may end a transaction well */
    CALL_ADMIN,  /* CLUSTER: the leader, never sent twice */
};

struct call_end {
    enum err code; /* ERR_OK: DONE */
    int32_t sqlite_code, offset;
    uint32_t statement; /* BATCH: which failed */
    const char *message;
    size_t message_len;
    int64_t changes, last_insert_rowid;
    bool was_sent; /* something of it may have run */
    bool time_up;  /* ERR_TXN_LOST: the transaction was idle, or open, for too long */
};

/* From loop_turn, never from call_start or call_cancel. Ranges are borrowed for the event. */
struct call_events {
    void *ctx;
    void (*on_columns)(void *ctx, uint32_t n, struct rd columns);
    /* A whole ROWS frame, checked: ROWS x columns values. FRAME_BYTES: for call_took. */
    void (*on_rows)(void *ctx, uint32_t rows, struct rd values, uint32_t frame_bytes);
    void (*on_step)(void *ctx, const struct wire_step *step); /* BATCH */
    void (*on_description)(void *ctx, const struct wire_description *d);
    /* An attempt failed after it gave columns or steps, but no rows: they will come again. */
    void (*on_restart)(void *ctx);
    void (*on_end)(void *ctx, const struct call_end *end); /* once; call_free from here is right */
};

struct call;

/* TYPE: QUERY, BATCH, DESCRIBE, STATUS, CLUSTER. */
MUST_USE enum err call_new(struct stream *s, enum wire_type type, enum call_kind kind,
                           const struct call_events *events, struct call **out);
/* Not while it runs: cancel it and wait for its end. */
void call_free(struct call *c);
/* Statements, before the start. The text and PARAMS (n_params times name, value, as in
 * wire_statement) are copied. KEEP: of cluster_next_keep, 0: none. ERR_TOO_BIG, ERR_NOMEM. */
MUST_USE enum err call_add_statement(struct call *c, uint32_t keep, const char *sql, size_t sql_len,
                                     const void *params, size_t params_len, uint32_t n_params);
struct wire_cluster;
MUST_USE enum err call_set_change(struct call *c, const struct wire_cluster *change);
/* For reads. */
void call_set_level(struct call *c, enum wire_level level, uint32_t bound_ms);
/* A DESCRIBE of what is to run at the leader. */
void call_set_for_write(struct call *c);
/* A CALL_BEGIN that belongs to the transaction before it, if there was one. */
void call_set_savepoint(struct call *c);
/* Runs in turn after the stream's calls before it. DEADLINE_MS: clock_mono_ms. */
void call_start(struct call *c, uint64_t deadline_ms);
/* A new deadline, while rows are taken. */
void call_set_deadline(struct call *c, uint64_t deadline_ms);
/* CANCEL is sent; on_end follows in time, with ERR_CANCELLED or how it ended, at the latest soon
 * after. */
void call_cancel(struct call *c);
/* So many bytes of ROWS frames were used up: the node may send more. Also after the end. */
void call_took(struct call *c, uint32_t frame_bytes);

#endif
