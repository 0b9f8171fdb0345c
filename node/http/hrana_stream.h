/* Room: node/http. A Hrana stream: a session of this node, the texts that it stored, and its
 * requests, one after the other.
 *
 *     hrana_stream_run -> hrana_run.c (steps, conditions) -> hrana_ask.c (QUERY, BATCH, DESCRIBE)
 *                                                                -> channel -> session
 *     events           <- hrana_run.c                     <-  frames  <-
 *
 * A stream without a transaction and without stored texts is nothing but the numbers in its baton
 * (struct hrana_memory): it may be closed here and opened elsewhere. Thread: loop. */
#ifndef NODE_HTTP_HRANA_STREAM_H
#define NODE_HTTP_HRANA_STREAM_H

#include "base/thread.h"
#include "node/http/hrana.h"
#include "node/http/hrana_error.h"
#include "node/node.h"

struct hrana_stream;

/* What a session's SQL can see of the requests before, but for an open transaction. */
struct hrana_memory {
    uint64_t seq; /* newest sequence seen */
    bool unsure;  /* it may have seen newer ones: the next read at level session is a strong one */
    int64_t last_insert_rowid;
    bool foreign_keys;
};

/* How reads are answered, and how long a statement may take: by header or URL parameter. */
struct hrana_wish {
    enum wire_level level;
    uint32_t bound_ms, timeout_ms; /* 0: the node's default */
    bool begin_immediate;          /* BEGIN is BEGIN IMMEDIATE, but of what runs as one step */
};

/* What a request tells while it runs; the frames are borrowed. Callbacks may be NULL, but on_over.
 * None but on_over may close the stream, or run the next request. */
struct hrana_events {
    void *ctx;
    /* A step's COLUMNS frame, then its ROWS frames, then its end. */
    void (*on_columns)(void *ctx, uint32_t step, struct wire_frame *f);
    void (*on_rows)(void *ctx, uint32_t step, struct wire_frame *f);
    void (*on_step)(void *ctx, uint32_t step, const struct wire_done *d, bool read_only);
    void (*on_step_error)(void *ctx, uint32_t step, struct hrana_error *e); /* takes E */
    void (*on_description)(void *ctx, struct wire_frame *f);
    /* What was told of steps is void: the batch is run again, from its beginning. NULL: what was
     * told cannot be taken back, so nothing is tried that might have to be. */
    void (*on_restart)(void *ctx);
    /* The request is over; ERROR (taken): it failed as a whole, or NULL. */
    void (*on_over)(void *ctx, struct hrana_error *error);
};

struct hrana_stream *hrana_stream_open(struct node *n, const struct hrana_memory *memory) ON_LOOP;
/* What runs is cancelled, an open transaction rolled back. No event follows. */
void hrana_stream_close(struct hrana_stream *s) ON_LOOP;
/* Runs Q (EXECUTE, BATCH, SEQUENCE, DESCRIBE, STORE_SQL, CLOSE_SQL, GET_AUTOCOMMIT), which must
 * stay until on_over. One at a time. EVENTS are copied. on_over may come before it returns. */
void hrana_stream_run(struct hrana_stream *s, const struct hrana_request *q,
                      const struct hrana_wish *wish, const struct hrana_events *events) ON_LOOP;
/* Its rows go out as its client takes them, which its connection judges (http_conn.c): here they
 * may wait. */
void hrana_stream_follow_client(struct hrana_stream *s) ON_LOOP;
/* It is closed behind its only request: a transaction that is open then is rolled back. */
void hrana_stream_ends(struct hrana_stream *s) ON_LOOP;
/* Its read transactions may take as long as they take: for requests of this node's own. */
void hrana_stream_take_time(struct hrana_stream *s) ON_LOOP;
/* Ends the running request soon: on_over comes. */
void hrana_stream_cancel(struct hrana_stream *s) ON_LOOP;
/* No further step of the running batch begins until hrana_stream_resume. */
void hrana_stream_pause(struct hrana_stream *s) ON_LOOP;
void hrana_stream_resume(struct hrana_stream *s) ON_LOOP;
/* Rows are told only while there is room for them: N bytes of ROWS frames (hrana_rows_bytes) were
 * taken. 0: some of one; an open transaction is in use all the same. */
void hrana_stream_took(struct hrana_stream *s, size_t n) ON_LOOP;
/* Bytes that are kept for the client elsewhere: MORE and LESS of them, in the stream's room. */
void hrana_stream_keep(struct hrana_stream *s, size_t more, size_t less) ON_LOOP;
static inline size_t hrana_rows_bytes(const struct wire_frame *f)
{
    return WIRE_HEAD_BYTES + rd_left(&f->body);
}

bool hrana_stream_is_autocommit(const struct hrana_stream *s) ON_LOOP;
/* Has it nothing that another stream with its memory would not have? */
bool hrana_stream_is_bare(const struct hrana_stream *s) ON_LOOP;
struct hrana_memory hrana_stream_memory(const struct hrana_stream *s) ON_LOOP;

/* More was applied here, or time went by: answers that wait for what this node passed on
 * (hrana_ask.c). */
void hrana_streams_applied(struct node *n) ON_LOOP;
/* Before the loop sleeps: cancels what was to be cancelled from within an event, goes on with what
 * was at work for too long. node.hrana_rests is not empty after: the loop is not to sleep. */
void hrana_streams_go_on(struct node *n) ON_LOOP;
void hrana_streams_timer(struct node *n, uint64_t now_ms) ON_LOOP;

#endif
