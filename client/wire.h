/* Room: client. The native protocol, defined once: docs/PROTOCOL.md draws it byte by byte.
 *
 * A connection carries frames both ways. Integers are little-endian.
 *
 *     u32 length of what follows    u8 type    u32 request    body
 *
 * The length counts type, request and body, and is at most WIRE_FRAME_MAX.
 *
 * The client begins with HELLO, the server answers WELCOME or ERROR and closes. Then requests; the
 * answers of one connection come in the order of its requests:
 *
 *     QUERY   ->  [COLUMNS ROWS*] DONE   |  ERROR   (an ERROR may also come after some ROWS)
 *     STATUS  ->  COLUMNS ROWS* DONE     |  ERROR
 *     CLUSTER ->  COLUMNS ROWS* DONE     |  ERROR
 *     CANCEL  ->  nothing; its request number is the one to end, which then answers ERROR (one that
 *                 is finished or unknown is left alone)
 *
 * Decoders never trust a length, a count or a type: every getter is bounds-checked. */
#ifndef CLIENT_WIRE_H
#define CLIENT_WIRE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_MAGIC        0x4e54434cu /* "LCTN" */
#define WIRE_VERSION      1u
#define WIRE_HEAD_BYTES   9u
#define WIRE_LENGTH_BYTES 4u

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_QUERY = 2,
    WIRE_STATUS = 3,
    WIRE_CANCEL = 4,
    WIRE_CLUSTER = 5,      /* the members change: wire_cluster.h */
    WIRE_IMAGE_BEGIN = 32, /* one node fetches another's database: wire_image.h */
    WIRE_IMAGE_ASK_HASHES = 33,
    WIRE_IMAGE_ASK_PAGES = 34,
    WIRE_WELCOME = 65,
    WIRE_COLUMNS = 66,
    WIRE_ROWS = 67,
    WIRE_DONE = 68,
    WIRE_ERROR = 69,
    WIRE_IMAGE = 96,
    WIRE_IMAGE_HASHES = 97,
    WIRE_IMAGE_PAGES = 98,
};

enum wire_level { WIRE_ANY = 0, WIRE_BOUNDED = 1, WIRE_SESSION = 2, WIRE_STRONG = 3 };

/* Flags of a QUERY. */
enum {
    WIRE_FORWARDED = 1,        /* from another node: do not forward again */
    WIRE_FOREIGN_KEYS_OFF = 2, /* the session said PRAGMA foreign_keys = OFF */
};

/* Flags of DONE and ERROR: the state of the connection after the request. */
enum {
    WIRE_IN_TRANSACTION = 1,
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
    const char *server, *sqlite; /* version texts */
    size_t server_len, sqlite_len;
};

struct wire_query {
    enum wire_level level;
    uint8_t flags;
    uint32_t bound_ms;         /* WIRE_BOUNDED: how old the state may be */
    uint32_t timeout_ms;       /* 0: the server's default */
    uint64_t min_seq;          /* WIRE_SESSION: newest sequence that the client has seen */
    int64_t last_insert_rowid; /* WIRE_FORWARDED: what the session's SQL must see */
    const char *sql;
    size_t sql_len;
    uint32_t n_params;
    struct rd params; /* n_params times: str name ("" is positional), value */
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
    const char *message;
    size_t message_len;
};

/* --- writing: each appends one whole frame; buf_status tells at the end -------------------------
 */

void wire_put_hello(struct buf *b, const char *client, const char *database);
void wire_put_welcome(struct buf *b, uint32_t request, uint64_t node_id, uint64_t cluster_id,
                      const char *server, const char *sqlite);
/* Begins a QUERY without parameters; add them with wire_put_param; wire_end_query closes the frame.
 */
size_t wire_begin_query(struct buf *b, uint32_t request, const struct wire_query *q);
void wire_put_param(struct buf *b, const char *name, const struct wire_value *v);
void wire_end_query(struct buf *b, size_t begun, uint32_t n_params);
void wire_put_status(struct buf *b, uint32_t request);
void wire_put_cancel(struct buf *b, uint32_t request);
void wire_put_done(struct buf *b, uint32_t request, const struct wire_done *d);
void wire_put_error(struct buf *b, uint32_t request, const struct wire_error *e);
/* Frames whose body the caller writes with buf_put_*: begin, body, end. COLUMNS: u32 n, n times
 * (str name, str declared type). ROWS: u32 rows, then rows x columns values. */
size_t wire_begin(struct buf *b, enum wire_type type, uint32_t request);
/* A frame that came out longer than WIRE_FRAME_MAX is taken back whole, and B marked ERR_TOO_BIG.
 */
void wire_end(struct buf *b, size_t begun);
void wire_put_value(struct buf *b, const struct wire_value *v);
/* A whole COLUMNS: N names without declared types. */
void wire_put_columns(struct buf *b, uint32_t request, const char *const *names, uint32_t n);

/* --- reading -------------------------------------------------------------------------------------
 */

struct wire_frame {
    enum wire_type type;
    uint32_t request;
    struct rd body; /* borrowed from the input */
};

/* Looks at the first N bytes of the input. *used = 0: more is needed. Otherwise the frame is whole
 * and takes *used bytes. MAX bounds the length in the frame's head, so the input needs room for
 * MAX + WIRE_LENGTH_BYTES. ERR_TOO_BIG: longer than MAX; ERR_PROTOCOL: an unknown type or too
 * short. After both the stream has no more frames: answer and close. */
MUST_USE enum err wire_next(const uint8_t *p, size_t n, size_t max, struct wire_frame *f,
                            size_t *used);
/* ERR_PROTOCOL: not our protocol; ERR_VERSION: another version of it (version is set). */
MUST_USE enum err wire_get_hello(struct wire_frame *f, struct wire_hello *h);
MUST_USE enum err wire_get_welcome(struct wire_frame *f, struct wire_welcome *w);
/* Checks the parameters too (types, lengths, count), so that wire_get_param cannot fail after.
 * ERR_TOO_BIG: more than SQL_TEXT_MAX or SQL_PARAMS_MAX. ERR_PROTOCOL: all else. Both: answer and
 * close. */
MUST_USE enum err wire_get_query(struct wire_frame *f, struct wire_query *q);
MUST_USE enum err wire_get_param(struct rd *r, const char **name, size_t *name_len,
                                 struct wire_value *v);
MUST_USE enum err wire_get_value(struct rd *r, struct wire_value *v);
MUST_USE enum err wire_get_done(struct wire_frame *f, struct wire_done *d);
/* A code that we do not know reads as ERR_PROTOCOL; never ERR_OK. */
MUST_USE enum err wire_get_error(struct wire_frame *f, struct wire_error *e);

#endif
