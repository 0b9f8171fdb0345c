/* Room: node/http. What hrana_stream.c, hrana_run.c and hrana_ask.c share: a stream from within. */
#ifndef NODE_HTTP_HRANA_STATE_H
#define NODE_HTTP_HRANA_STATE_H

#include "node/channel.h"
#include "node/http/hrana_batch.h"
#include "node/http/hrana_stream.h"
#include "node/http/writer_pool.h"
#include "node/session.h"
#include "node/sqltext.h"

/* So long streams are at work before the loop looks at the others; who has more to do rests until
 * then: what is answered at once may be very many statements, and stored texts may be long. */
#define HRANA_TURN_NS 5000000u

struct hrana_stored {
    struct list link; /* of a stream */
    int32_t id;
    size_t n;
    char text[]; /* n bytes */
};

/* How the steps of a batch are run (hrana_run.c). */
enum hrana_mode {
    HRANA_STEP_BY_STEP,
    HRANA_AS_ONE,      /* an atomic batch, as one BATCH */
    HRANA_IN_SNAPSHOT, /* step by step, but BEGIN is BEGIN READONLY */
};

/* What is asked of the session at this moment, and how it ended (hrana_ask.c). */
struct hrana_ask {
    bool under_way; /* no answer yet, or the answer waits for `wait_seq` */
    bool read_only, is_commit, is_rollback;
    uint32_t request;      /* its number on the stream */
    uint64_t began_ns;     /* when it was asked */
    struct writer *writer; /* it is numbered */
    bool ended;            /* DONE, ERROR or DESCRIPTION came */
    struct wire_done done;
    struct hrana_error *error; /* of an ERROR */
    enum err code;
    int32_t sqlite_code;
    bool time_up;                     /* of ERR_TXN_LOST */
    uint64_t wait_seq, wait_until_ms; /* this node is to have applied that before it is told */
};

struct hrana_stream {
    struct channel channel; /* first: a stream is its channel */
    struct session *session;
    struct hrana_memory memory;
    struct list stored; /* struct hrana_stored */
    unsigned n_stored;
    uint64_t number; /* among those that rest (hrana_held.c); 0: it never did */
    uint32_t count;  /* of its batons */
    bool reserved;   /* its next baton was told already: it has to be held under it */
    bool in_transaction;
    bool lost;         /* the transaction was, and the program has not ended it yet; */
    bool time_up;      /* for it was idle or open for too long */
    bool cancelled;    /* the request */
    bool paused;       /* no step begins */
    bool busy;         /* hrana_run_go is at work */
    bool telling;      /* frames are handed out: the session is at work */
    bool leaving;      /* a snapshot is rolled back, before the batch begins again */
    bool closing;      /* to be freed when it is busy no more */
    struct list waits; /* of node.hrana_waits, by ask.wait_seq */
    struct list later; /* of node.hrana_cancels */
    struct list rests; /* of node.hrana_rests */
    bool fleeting;     /* closed behind its request */
    struct hrana_ask ask;
    /* the request under way: hrana_run.c */
    const struct hrana_request *q; /* NULL: none */
    struct hrana_wish wish;
    struct hrana_events events;
    enum hrana_mode mode;
    struct hrana_shape shape;
    uint32_t step, n_steps;
    bool told; /* something of the steps */
    const struct hrana_step *steps;
    struct hrana_step one; /* EXECUTE: the only step */
    struct hrana_text *texts;
    enum hrana_outcome *outcomes;
    size_t sequence_at; /* SEQUENCE: bytes of the text that are done */
};

/* --- hrana_stream.c --- */

/* The text of a statement; NULL: no such one is stored. */
struct hrana_error *hrana_text_of(const struct hrana_stream *s, const struct hrana_stmt *stmt,
                                  struct hrana_text *out) ON_LOOP;
/* NULL: done. */
struct hrana_error *hrana_store(struct hrana_stream *s, int32_t id,
                                const struct hrana_text *sql) ON_LOOP;
/* What is not there is left alone. */
void hrana_forget(struct hrana_stream *s, int32_t id) ON_LOOP;
/* The request is over: ERROR (taken) or NULL. */
void hrana_over(struct hrana_stream *s, struct hrana_error *error) ON_LOOP;

/* --- hrana_run.c --- */

void hrana_run_begin(struct hrana_stream *s) ON_LOOP;
/* The session answered. */
void hrana_run_go(struct hrana_stream *s) ON_LOOP;
/* Frames of the answer under way. */
void hrana_run_frame(struct hrana_stream *s, struct wire_frame *f) ON_LOOP;

/* --- hrana_ask.c --- */

/* Asks the session for a statement with text TEXT, as QUERY or DESCRIBE. An error: it was not
 * asked. */
struct hrana_error *hrana_ask_statement(struct hrana_stream *s, enum wire_type type,
                                        const struct hrana_text *text,
                                        const struct hrana_stmt *stmt) ON_LOOP;
/* Steps FIRST to FIRST + N - 1 as one BATCH. */
struct hrana_error *hrana_ask_batch(struct hrana_stream *s, uint32_t first, uint32_t n) ON_LOOP;
extern const struct channel_outlet hrana_outlet;

#endif
