/* Room: node. A client's request and its answer: the object that travels from a session to the
 * writer lane or to a reader and back.
 *
 * Exactly one thread has it at a time: whoever took its letter. `cancelled` is the one field that
 * the loop may set while another thread has it. */
#ifndef NODE_REQUEST_H
#define NODE_REQUEST_H

#include "base/buf.h"
#include "base/list.h"
#include "client/wire.h"
#include "node/sqltext.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct admin_request;
struct image;
struct kept;
struct session;
struct snapshot;

/* What travels in the mailboxes between the threads; every kind is listed here. */
enum letter_kind {
    /* loop -> lane */
    LANE_REQUEST,  /* struct request */
    LANE_ENTRY,    /* struct lane_entry: a committed entry */
    LANE_ROLE,     /* struct lane_role: leader of a term now, or not any more */
    LANE_GONE,     /* struct lane_session: it ended */
    LANE_USED,     /* struct lane_session: its client takes rows, so its transaction is not idle */
    LANE_PROPOSED, /* struct lane_proposal, back: consensus has it */
    LANE_STOP,     /* struct lane_stop */
    LANE_CUT,      /* struct lane_cut: make the newest state durable */
    LANE_IMAGE,    /* struct lane_image: pin what is published, for another node */
    /* loop -> readers */
    READ_REQUEST, /* struct request */
    /* loop -> image thread, and back */
    IMAGE_READ,        /* struct request: pages for another node */
    IMAGE_CLOSE,       /* struct image */
    LOOP_IMAGE_READ,   /* struct request: they are in its answer */
    LOOP_IMAGE_CLOSED, /* struct image */
    /* fetching thread -> loop */
    LOOP_FETCHED, /* struct fetch: it ended (fetch_result) */
    /* lane -> loop */
    LOOP_PROPOSAL, /* struct lane_proposal: one entry */
    LOOP_APPLIED,  /* struct lane_applied */
    LOOP_SERVING,  /* struct lane_serving: the lane takes writes of this term */
    LOOP_FAILED,   /* struct lane_failed: the database stopped */
    LOOP_STOPPED,  /* struct lane_stop, done */
    LOOP_CUT,      /* struct lane_cut: the log may be cut behind this state */
    LOOP_IMAGE,    /* struct lane_image: pinned, or why not */
    /* lane, readers -> loop */
    LOOP_ANSWER,  /* struct request */
    LOOP_CONFIRM, /* struct request: an answer that a majority must confirm first */
    LOOP_ROWS,    /* struct request: some rows, more to come; it comes back by READ_REQUEST */
};

struct letter {
    struct list link;
    enum letter_kind kind;
};

struct answer {
    struct buf out; /* whole frames: COLUMNS, ROWS */
    size_t sent;    /* of it, from its beginning: the session's */
    enum err code;
    int32_t sqlite_code, offset;
    char *message; /* of an error; malloc'ed, NULL: the code's own */
    uint64_t seq;  /* newest sequence that the statement could see */
    int64_t changes, last_insert_rowid;
    uint32_t statement; /* BATCH: which of its statements failed, from 0 */
    bool in_transaction;
    bool settled;       /* an error that is noted for its number: no other attempt tells more */
    bool time_up;       /* ERR_TXN_LOST: by one of the two limits of time */
    bool not_read_only; /* a reader's refusal: route it to the writer */
};

struct request {
    struct letter letter; /* first: a letter is its object */
    struct session *session;
    uint64_t session_id;
    struct wire_id id;
    uint8_t *frame; /* the bytes that `query` points into; owned */
    size_t frame_len;
    size_t bytes; /* that it counts for: its frame, and kept texts, which may be forgotten by now */
    struct wire_query query;
    struct wire_statement statement; /* the one that runs, of the query's */
    uint32_t statement_at;           /* which of them that is, from 0 */
    struct rd statements_left;       /* those behind it */
    struct kept **kept;              /* texts kept on the connection that it refers to, in order */
    uint32_t n_kept, kept_at;
    enum sql_kind kind;
    bool is_batch;                 /* all of `query.statements`, or none */
    bool is_describe;              /* the statement is only prepared: sqlconn_describe */
    bool is_status;                /* STATUS, not a query */
    bool forwarded;                /* by another node, which is not to be sent to again */
    bool elsewhere;                /* it was passed on to another node */
    bool in_doubt;                 /* an attempt at it may have been done: see session.c */
    enum wire_type image_frame;    /* one of WIRE_IMAGE_BEGIN ...: another node's; 0: a query */
    struct image *image;           /* that it waits for or reads from: image.c */
    struct admin_request *cluster; /* CLUSTER, not a query (admin.c); owned */
    bool foreign_keys;
    char *no_room;             /* a sentence: it may read only, the disk is nearly full; or NULL */
    int64_t last_insert_rowid; /* what SQL's last_insert_rowid() must see: the session's */
    uint64_t came_ns;          /* monotonic */
    uint64_t deadline_ms;      /* monotonic: the statement is interrupted */
    _Atomic bool cancelled;
    struct answer answer;
    bool interactive;   /* runs inside a transaction of its session: can never be run again */
    bool alone;         /* the lane: not to share a transaction with others */
    bool tried;         /* the lane: it ran into another writer since it began to wait */
    bool needs_confirm; /* nothing was written: see LOOP_CONFIRM */
    uint64_t ran_in_term;
    struct cursor_state *cursor; /* a reader's, between two LOOP_ROWS */
    struct snapshot *snapshot;   /* the session's read transaction (readers.h), or NULL */
    bool begins_snapshot;        /* BEGIN READONLY: `snapshot` is set when it comes back */
};

/* Takes BODY (a copy is made) of a decoded query. Its first statement is the current one. Thread:
 * loop. */
struct request *request_new(struct session *session, uint64_t session_id, struct wire_id id,
                            const struct wire_query *q, const uint8_t *body, size_t body_len);
/* The texts of its statements that come without one, in their order: takes KEPT (malloc'ed) and a
 * reference to each. Thread: loop. */
void request_use_kept(struct request *r, struct kept **kept, uint32_t n);
/* The request of F (QUERY, BATCH or DESCRIBE), which was decoded to Q; KEPT as above, or NULL.
 * Thread: loop. */
struct request *request_of_frame(struct session *session, uint64_t session_id,
                                 const struct wire_frame *f, const struct wire_query *q,
                                 const uint8_t *body, size_t body_len, struct kept **kept,
                                 uint32_t n_kept);
/* It will not run: its bytes go, what is answered stays. */
void request_drop_query(struct request *r);
/* Is it a write that is done at most once? Only the question what became of it? */
bool request_is_numbered(const struct request *r);
bool request_is_resolve(const struct request *r);
/* BATCH: `statement` is the first one (again), or the next one; false: that was the last. */
void request_first_statement(struct request *r);
bool request_next_statement(struct request *r);
void request_free(struct request *r);
/* Room for DONE or an ERROR behind an answer that filled all of its space. Before wire_put_done. */
void request_make_room_for_end(struct request *r);
/* Forgets a former answer, before another attempt. */
void request_clear_answer(struct request *r);
/* The answer is this error; the sentence is copied; drops rows that were not sent. */
void request_fail(struct request *r, enum err code, const char *sentence);
/* As request_fail with this thread's err_text(). */
void request_fail_text(struct request *r, enum err code);

#endif
