/* Room: client. The native protocol, version 2, defined once: docs/PROTOCOL.md draws it byte by
 * byte.
 *
 * A connection carries frames both ways. Integers are little-endian.
 *
 *     u32 length of what follows    u8 type    u32 stream    u32 request    body
 *
 * The length counts all behind itself, and is at most WIRE_FRAME_MAX.
 *
 * Stream 0 is the connection itself: the client begins with HELLO, the server answers WELCOME, or
 * ERROR and closes; PING is answered by PONG at any time. Every other stream is a session of its
 * own: its requests run one after the other, answers come in their order, and it may have a
 * transaction open; streams do not wait for each other, and their frames come in any mixture.
 *
 *     QUERY    ->  [COLUMNS ROWS*] DONE             |  ERROR   (also after some ROWS)
 *     BATCH    ->  ([COLUMNS ROWS*] STEP)* DONE     |  ERROR   (nothing of it was done)
 *     DESCRIBE ->  DESCRIPTION                      |  ERROR
 *     STATUS   ->  COLUMNS ROWS* DONE               |  ERROR
 *     CLUSTER  ->  COLUMNS ROWS* DONE               |  ERROR
 *     CANCEL   ->  nothing; its head names the request to end, which then answers ERROR (one that
 *                  is finished or unknown is left alone)
 *     CREDIT   ->  nothing; so many more bytes of ROWS frames may come on its stream
 *     CLOSE    ->  nothing; the stream ends: what runs is cancelled, a transaction rolled back
 *     FORGET   ->  nothing; a kept statement is needed no more
 *
 * A server sends ROWS only while the stream's window is above zero: it begins at WIRE_WINDOW, each
 * ROWS frame takes its whole length from it, CREDIT gives back. So a client that does not read one
 * answer holds up that stream and no other.
 *
 * What a session carries from one request to the next, but for an open transaction, the client
 * carries: the newest sequence seen, last_insert_rowid, PRAGMA foreign_keys. It can therefore go
 * on anywhere.
 *
 * Decoders never trust a length, a count or a type: every getter is bounds-checked. */
#ifndef CLIENT_WIRE_H
#define CLIENT_WIRE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_MAGIC        0x4e54434cu /* "LCTN" */
#define WIRE_VERSION      2u
#define WIRE_HEAD_BYTES   13u
#define WIRE_LENGTH_BYTES 4u
#define WIRE_WINDOW       262144u     /* of a new stream, bytes of ROWS frames */
#define WIRE_WINDOW_MAX   1073741824u /* CREDIT that lifts it above: broken protocol */
#define WIRE_WRITER_BYTES 16u
/* What a server takes of one connection. */
#define WIRE_STREAMS_MAX    16384u
#define WIRE_KEPT_MAX       4096u              /* statements */
#define WIRE_KEPT_BYTES_MAX (4u * 1024 * 1024) /* of their texts together */

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_QUERY = 2,
    WIRE_STATUS = 3,
    WIRE_CANCEL = 4,
    WIRE_CLUSTER = 5, /* the members change: wire_cluster.h */
    WIRE_BATCH = 6,
    WIRE_DESCRIBE = 7,
    WIRE_CREDIT = 8,
    WIRE_CLOSE = 9,
    WIRE_FORGET = 10,
    WIRE_PING = 11,
    WIRE_IMAGE_BEGIN = 32, /* one node fetches another's database: wire_image.h */
    WIRE_IMAGE_ASK_HASHES = 33,
    WIRE_IMAGE_ASK_PAGES = 34,
    WIRE_WELCOME = 65,
    WIRE_COLUMNS = 66,
    WIRE_ROWS = 67,
    WIRE_DONE = 68,
    WIRE_ERROR = 69,
    WIRE_STEP = 70,
    WIRE_DESCRIPTION = 71,
    WIRE_PONG = 72,
    WIRE_IMAGE = 96,
    WIRE_IMAGE_HASHES = 97,
    WIRE_IMAGE_PAGES = 98,
};

enum wire_level { WIRE_ANY = 0, WIRE_BOUNDED = 1, WIRE_SESSION = 2, WIRE_STRONG = 3 };

/* Which request on which stream. */
struct wire_id {
    uint32_t stream, request;
};

/* Flags of QUERY, BATCH and DESCRIBE. */
enum {
    WIRE_FORWARDED = 1,        /* from another node: do not forward again */
    WIRE_FOREIGN_KEYS_OFF = 2, /* the session said PRAGMA foreign_keys = OFF */
    WIRE_NUMBERED = 4,         /* not DESCRIBE: `number` and its companions are there */
    /* QUERY, numbered: the COMMIT of a transaction whose connection was lost. Never run: DONE if it
     * was done, ERR_TXN_LOST if it was not and never will be */
    WIRE_RESOLVE = 8,
    /* Numbered: it was sent before, and that attempt may still be on its way. */
    WIRE_AGAIN = 16,
    /* Only within the transaction that is open on the stream: ERR_TXN_LOST when there is none. So
     * what was sent ahead behind a BEGIN never runs by itself. Not with RESOLVE. */
    WIRE_INSIDE = 32,
    /* A parameter without a value is an error; else it is NULL. */
    WIRE_ALL_PARAMETERS = 64,
};

/* Flags of DONE and ERROR: the state of the session after the request. */
enum {
    WIRE_IN_TRANSACTION = 1,
    WIRE_ELSEWHERE = 2,       /* this node passed the request on: another one leads */
    WIRE_NO_FOREIGN_KEYS = 4, /* PRAGMA foreign_keys is OFF */
    WIRE_SETTLED = 8,  /* ERROR of a numbered write: this is what was noted of it, for good */
    WIRE_TIME_UP = 16, /* ERR_TXN_LOST: the transaction was idle, or open, for too long */
};

enum wire_value_type {
    WIRE_NULL = 0,
    WIRE_INTEGER = 1,
    WIRE_FLOAT = 2,
    WIRE_TEXT = 3,
    WIRE_BLOB = 4,
};

struct wire_value {
    enum wire_value_type type;
    union {
        int64_t integer;
        double real;
        struct {
            const char *bytes; /* borrowed; text is UTF-8 by promise only, not zero-terminated */
            uint32_t len;
        } text; /* and blob */
    };
};

struct wire_hello {
    uint32_t magic;
    uint16_t version;
    const char *client, *database; /* borrowed, with lengths; database: "" is the default one */
    size_t client_len, database_len;
};

struct wire_welcome {
    uint16_t version;
    uint64_t node_id, cluster_id;
    uint64_t seq;                /* newest transaction that the node has published */
    const char *server, *sqlite; /* version texts */
    size_t server_len, sqlite_len;
};

/* One statement and its parameters. */
struct wire_statement {
    uint32_t keep;   /* 0: no; else with a text: remember it under this number on this connection;
                        without: the text remembered so */
    const char *sql; /* borrowed */
    size_t sql_len;
    uint32_t n_params;
    struct rd params; /* n_params times: str name ("" is positional), value */
};

/* A numbered write is done at most once, however often it is sent: docs/PROTOCOL.md, section 10. */
struct wire_number {
    uint8_t writer[WIRE_WRITER_BYTES]; /* random, of one session */
    uint64_t number;                   /* 1, 2, 3, ... of its writes */
    uint64_t acked;                    /* all up to this number are answered */
    uint64_t since; /* no attempt at it can have been done at this sequence or before */
};

/* QUERY, DESCRIBE: one statement; BATCH: any number from 1. */
struct wire_query {
    enum wire_level level;
    uint16_t flags;
    uint32_t bound_ms;         /* WIRE_BOUNDED: how old the state may be */
    uint32_t timeout_ms;       /* 0: the server's default */
    uint64_t min_seq;          /* newest sequence that the session has seen */
    int64_t last_insert_rowid; /* what the session's SQL must see */
    struct wire_number number; /* WIRE_NUMBERED; else zeros */
    uint32_t n_statements;
    struct rd statements; /* n_statements times: wire_get_statement */
};

/* PONG. */
struct wire_pong {
    uint64_t seq;       /* newest transaction that the node has published */
    uint64_t leader_id; /* whom it follows, 0: nobody */
    uint8_t serves;     /* 1: it has a database and answers reads */
};

struct wire_step {
    int64_t changes, last_insert_rowid;
};

/* DESCRIPTION: what SQLite knows of a statement before it runs. */
enum {
    WIRE_STATEMENT_READONLY = 1,
    WIRE_STATEMENT_EXPLAIN = 2,
    WIRE_STATEMENT_EMPTY = 4, /* nothing but blanks and comments */
};
struct wire_description {
    uint32_t used; /* bytes of the text up to the end of its first statement */
    uint8_t flags;
    uint32_t n_params, n_columns;
    struct rd params;  /* n_params times: str name, "" for `?` */
    struct rd columns; /* n_columns times: str name, str declared type */
};

struct wire_done {
    uint64_t seq; /* newest sequence that the answer could see */
    int64_t changes, last_insert_rowid;
    uint8_t flags;
};

struct wire_error {
    enum err code;
    int32_t sqlite_code; /* ERR_SQL: SQLite's extended code; else a primary one that fits, or 0 */
    int32_t offset;      /* byte in the statement where it is wrong, -1 unknown */
    uint64_t seq;        /* newest sequence that the failure could see, as in DONE; 0: none */
    uint8_t flags;
    uint32_t statement; /* BATCH: which of its statements failed, from 0 */
    const char *message;
    size_t message_len;
};

/* --- writing: each appends one whole frame; buf_status tells at the end -------------------------
 */

void wire_put_hello(struct buf *b, const char *client, const char *database);
void wire_put_welcome(struct buf *b, const struct wire_welcome *w);
/* QUERY, BATCH, DESCRIBE: begin, then for each statement begin, parameters, end; then end. Q's
 * statements are not looked at. */
size_t wire_begin_query(struct buf *b, enum wire_type type, struct wire_id id,
                        const struct wire_query *q);
size_t wire_begin_statement(struct buf *b, uint32_t keep, const char *sql, size_t sql_len);
void wire_put_param(struct buf *b, const char *name, const struct wire_value *v);
void wire_end_statement(struct buf *b, size_t begun, uint32_t n_params);
void wire_end_query(struct buf *b, size_t begun, uint32_t n_statements);
void wire_put_status(struct buf *b, struct wire_id id);
void wire_put_cancel(struct buf *b, struct wire_id id);
void wire_put_credit(struct buf *b, uint32_t stream, uint32_t bytes);
void wire_put_close(struct buf *b, uint32_t stream);
void wire_put_forget(struct buf *b, uint32_t keep);
/* REQUEST comes back in the PONG. */
void wire_put_ping(struct buf *b, uint32_t request);
void wire_put_pong(struct buf *b, uint32_t request, const struct wire_pong *p);
void wire_put_step(struct buf *b, struct wire_id id, const struct wire_step *s);
/* The parameters and columns are written as they stand in D's ranges. */
void wire_put_description(struct buf *b, struct wire_id id, const struct wire_description *d);
void wire_put_done(struct buf *b, struct wire_id id, const struct wire_done *d);
void wire_put_error(struct buf *b, struct wire_id id, const struct wire_error *e);
/* ERROR as version 1 framed it: the answer to a HELLO of that version (wire_get_hello has said so
 * in `version`), so that an old program prints the sentence. */
void wire_put_error_v1(struct buf *b, const struct wire_error *e);
/* Frames whose body the caller writes with buf_put_*: begin, body, end. COLUMNS: u32 n, n times
 * (str name, str declared type). ROWS: u32 rows, then rows x columns values. */
size_t wire_begin(struct buf *b, enum wire_type type, struct wire_id id);
/* A frame that came out longer than WIRE_FRAME_MAX is taken back whole, and B marked ERR_TOO_BIG;
 * so is one for which there was no room or no memory. The frames before it stay whole. */
void wire_end(struct buf *b, size_t begun);
void wire_put_value(struct buf *b, const struct wire_value *v);
/* A whole COLUMNS: N names without declared types. */
void wire_put_columns(struct buf *b, struct wire_id id, const char *const *names, uint32_t n);

/* --- reading -------------------------------------------------------------------------------------
 */

struct wire_frame {
    enum wire_type type;
    struct wire_id id;
    struct rd body; /* borrowed from the input */
};

/* Looks at the first N bytes of the input. *used = 0: more is needed. Otherwise the frame is whole
 * and takes *used bytes. MAX bounds the length in the frame's head, so the input needs room for
 * MAX + WIRE_LENGTH_BYTES. ERR_TOO_BIG: longer than MAX; ERR_PROTOCOL: an unknown type, too short,
 * or on a stream where it cannot be (HELLO, WELCOME, PING, PONG, FORGET: 0; ERROR: any; all others:
 * not 0). After both the input has no more frames: answer and close. */
MUST_USE enum err wire_next(const uint8_t *p, size_t n, size_t max, struct wire_frame *f,
                            size_t *used);
/* A body was read up to R: nothing may be missing, and nothing left. ERR_PROTOCOL; WHAT: of what.
 */
MUST_USE enum err wire_whole(const struct rd *r, const char *what);
/* ERR_PROTOCOL: not our protocol; ERR_VERSION: another version of it (version is set; also 1, whose
 * heads were shorter). */
MUST_USE enum err wire_get_hello(struct wire_frame *f, struct wire_hello *h);
MUST_USE enum err wire_get_welcome(struct wire_frame *f, struct wire_welcome *w);
/* QUERY, BATCH, DESCRIBE. Checks all statements and parameters too (types, lengths, counts), so
 * that wire_get_statement and wire_get_param cannot fail after. ERR_TOO_BIG: more than
 * SQL_TEXT_MAX, SQL_PARAMS_MAX or BATCH_STATEMENTS_MAX: this request fails, the stream goes on.
 * ERR_PROTOCOL: all else: answer and close. */
MUST_USE enum err wire_get_query(struct wire_frame *f, struct wire_query *q);
MUST_USE enum err wire_get_statement(struct rd *r, struct wire_statement *s);
MUST_USE enum err wire_get_param(struct rd *r, const char **name, size_t *name_len,
                                 struct wire_value *v);
MUST_USE enum err wire_get_value(struct rd *r, struct wire_value *v);
MUST_USE enum err wire_get_credit(struct wire_frame *f, uint32_t *bytes);
MUST_USE enum err wire_get_forget(struct wire_frame *f, uint32_t *keep);
/* CANCEL, CLOSE, PING, STATUS: frames without a body. */
MUST_USE enum err wire_get_nothing(struct wire_frame *f);
MUST_USE enum err wire_get_pong(struct wire_frame *f, struct wire_pong *p);
MUST_USE enum err wire_get_step(struct wire_frame *f, struct wire_step *s);
/* Checks the names too, not that `used` is within the text. */
MUST_USE enum err wire_get_description(struct wire_frame *f, struct wire_description *d);
/* COLUMNS: checked; COLUMNS: n times str name, str declared type. */
MUST_USE enum err wire_get_columns(struct wire_frame *f, uint32_t *n, struct rd *columns);
/* ROWS of N_COLUMNS each, checked to the last value; VALUES: rows x n_columns values. */
MUST_USE enum err wire_get_rows(struct wire_frame *f, uint32_t n_columns, uint32_t *rows,
                                struct rd *values);
MUST_USE enum err wire_get_done(struct wire_frame *f, struct wire_done *d);
/* A code that we do not know reads as ERR_PROTOCOL; never ERR_OK. Fails with ERR_VERSION: a server
 * of version 1 does not understand our HELLO. */
MUST_USE enum err wire_get_error(struct wire_frame *f, struct wire_error *e);

#endif
