/* Room: node/http. Hrana's requests and answers, decoded: the same whether they came as JSON or as
 * Protobuf, over HTTP or a WebSocket.
 *
 *     bytes -> hrana_form -> struct hrana_request -> hrana_stream
 *           <- hrana_form <- struct hrana_reply   <-
 *
 * Everything of a request lives in the arena of the message that it came with, or in its bytes.
 * Source: Hrana 1, 2 and 3 specifications (tursodatabase/libsql, docs/HRANA_*_SPEC.md).
 * Thread: loop. */
#ifndef NODE_HTTP_HRANA_H
#define NODE_HTTP_HRANA_H

#include "base/buf.h"
#include "client/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is decoded is bounded by these and by the arena; above: an error of the message. */
#define HRANA_STEPS_MAX  10000u /* of one batch */
#define HRANA_STORED_MAX 256u   /* texts of one stream; drivers keep 30, or 100 over a WebSocket */

/* What a message may ask for: the number in the URL, or in the WebSocket's subprotocol. */
enum hrana_version { HRANA_1 = 1, HRANA_2 = 2, HRANA_3 = 3 };

struct hrana_text {
    const char *p; /* UTF-8 by promise only, not zero-terminated; NULL: it did not come */
    size_t n;
};

/* --- requests --- */

struct hrana_arg {
    struct hrana_text name; /* with or without : @ $ before it; empty: positional */
    struct wire_value value;
};

/* Decoded as it came: that a text is not over SQL_TEXT_MAX, the arguments not over SQL_PARAMS_MAX
 * and not of both kinds is for whoever runs it, since it is an error of this statement alone. */
struct hrana_stmt {
    struct hrana_text sql;
    int32_t sql_id; /* instead of `sql`, when by_id */
    bool by_id, want_rows;
    uint32_t n_args, n_named_args;
    const struct hrana_arg *args, *named_args;
    uint64_t replication_index; /* run on a state that is not older; 0: any */
};

enum hrana_cond_type {
    HRANA_OK,    /* `step` was run and succeeded */
    HRANA_ERROR, /* `step` was run and failed */
    HRANA_NOT,   /* the one part */
    HRANA_AND,
    HRANA_OR,
    HRANA_IS_AUTOCOMMIT,
};

struct hrana_cond {
    enum hrana_cond_type type;
    uint32_t step; /* before the one that it is the condition of */
    uint32_t n_parts;
    const struct hrana_cond *const *parts;
};

struct hrana_step {
    const struct hrana_cond *condition; /* NULL: always */
    struct hrana_stmt stmt;
};

struct hrana_batch {
    uint32_t n_steps;
    const struct hrana_step *steps;
    uint64_t replication_index;
};

enum hrana_type {
    HRANA_CLOSE,
    HRANA_EXECUTE,
    HRANA_BATCH,
    HRANA_SEQUENCE,
    HRANA_DESCRIBE,
    HRANA_STORE_SQL,
    HRANA_CLOSE_SQL,
    HRANA_GET_AUTOCOMMIT,
    /* WebSocket only: the streams and cursors that a pipeline or a request line stands for. */
    HRANA_OPEN_STREAM,
    HRANA_CLOSE_STREAM,
    HRANA_OPEN_CURSOR,
    HRANA_CLOSE_CURSOR,
    HRANA_FETCH_CURSOR,
};

struct hrana_request {
    enum hrana_type type;
    struct hrana_stmt stmt;   /* EXECUTE; of SEQUENCE and DESCRIBE only the text */
    struct hrana_batch batch; /* BATCH, OPEN_CURSOR */
    int32_t sql_id;           /* STORE_SQL (the text is stmt.sql), CLOSE_SQL */
    int32_t stream_id, cursor_id;
    uint32_t max_count; /* FETCH_CURSOR */
};

/* A body over HTTP, of whatever form: a pipeline's requests; of a cursor one OPEN_CURSOR; of
 * Hrana 1 one EXECUTE or BATCH, and of the oldest form a BATCH, without a baton. */
struct hrana_body {
    struct hrana_text baton;
    uint32_t n_requests;
    const struct hrana_request *requests;
};

enum hrana_message_type { HRANA_HELLO, HRANA_REQUEST };

/* A message over a WebSocket. */
struct hrana_message {
    enum hrana_message_type type;
    struct hrana_text jwt; /* HELLO */
    int32_t request_id;    /* REQUEST, with the next two */
    const char *refused;   /* why it cannot be run as it is, or NULL; then REQUEST is empty */
    struct hrana_request request;
};

/* --- answers --- */

/* CODE is one that drivers know, "SQLITE_CONSTRAINT" say; a literal. */
struct hrana_error {
    const char *code;
    char *message; /* malloc'ed */
    bool done;     /* of an answer: what was asked for was done, and may not be asked for again */
};

/* What one statement answered, as the frames of the native protocol have it. */
struct hrana_result {
    struct buf frames; /* COLUMNS, ROWS: whole frames */
    struct wire_done done;
    bool read_only;   /* it cannot have written: its changes are not told */
    uint64_t took_us; /* from when it was asked; of a batch that runs as one, all of it */
};

/* The rule for what drivers are told of a write; a statement that changed nothing inserted no row,
 * whatever last_insert_rowid still says. */
static inline uint64_t hrana_affected(const struct wire_done *d, bool read_only)
{
    return read_only || d->changes < 0 ? 0 : (uint64_t)d->changes;
}
static inline bool hrana_has_rowid(const struct wire_done *d, bool read_only)
{
    return !read_only && d->changes > 0 && d->last_insert_rowid != 0;
}

/* A step of a batch: neither: it was not run. */
struct hrana_step_reply {
    struct hrana_result *result;
    struct hrana_error *error;
};

struct hrana_reply {
    enum hrana_type type;
    struct hrana_error *error;      /* the request failed; or NULL */
    struct hrana_step_reply *steps; /* BATCH: n_steps; EXECUTE: 1 */
    uint32_t n_steps;
    struct buf description;     /* DESCRIBE: the frame */
    bool is_autocommit;         /* GET_AUTOCOMMIT */
    bool done;                  /* something was written, or a transaction begun or ended */
    uint64_t replication_index; /* newest sequence that the answer could see */
};

#endif
