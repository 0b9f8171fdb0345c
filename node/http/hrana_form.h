/* Room: node/http. The forms that Hrana is spoken in: JSON (hrana_json.h) and Protobuf
 * (hrana_protobuf.h). Who runs requests knows none of them by name: a path, or a subprotocol of a
 * WebSocket, chooses one.
 *
 *     bytes -> hrana_reader_feed -> form.pipeline, .cursor, .message -> struct hrana_*
 *           <- hrana_write_*, form.*                                 <- struct hrana_reply, entries
 *
 * Reading: all of the result lives in the reader's arena. An error is of the whole message (HTTP
 * 400, the end of a WebSocket): ERR_PROTOCOL, its sentence with the place
 * ("requests[0].stmt.args[1].value: ..."), or ERR_TOO_BIG: a limit, or the arena is full. What
 * Hrana does not know is passed over, but for request types, conditions and values: to run
 * something else than was asked is worse than not to run.
 *
 * Writing: appended to the writer's buffer; buf_status tells at the end. Rows come as frames of the
 * native protocol, our own or another node's, and are not trusted.
 * Source: Hrana 1, 2 and 3 and "Hrana over HTTP" (tursodatabase/libsql, docs/).
 * Thread: any, one at a time. */
#ifndef NODE_HTTP_HRANA_FORM_H
#define NODE_HTTP_HRANA_FORM_H

#include "base/arena.h"
#include "node/http/hrana.h"
#include "node/http/json_write.h"

struct hrana_form;

/* --- reading --- */

struct hrana_reader {
    const struct hrana_form *form;
    enum hrana_version version;
    struct arena *arena;
    void *state; /* the form's own: what came so far */
};

typedef enum err hrana_decoder(struct hrana_reader *r, struct hrana_body *out);

void hrana_reader_init(struct hrana_reader *r, const struct hrana_form *form,
                       enum hrana_version version, struct arena *arena);
void hrana_reader_fini(struct hrana_reader *r);
/* Bytes of the one message, in any pieces; copied. After an error no more may be fed. */
MUST_USE enum err hrana_reader_feed(struct hrana_reader *r, const void *p, size_t n);

/* For a form: the reader's arena is full. ERR_TOO_BIG. */
enum err hrana_no_room(const struct arena *arena) __attribute__((cold));

/* --- writing --- */

/* The last bytes of a buffer that answers go to: kept for errors and for the answer's end. */
#define HRANA_ANSWER_RESERVE 4096u

struct hrana_writer {
    const struct hrana_form *form;
    struct buf *out;
    bool apart;              /* entries of a cursor stand each for itself, not within an answer */
    struct json_writer json; /* JSON: to the same buffer */
    size_t open[3];          /* Protobuf: where messages began that are not ended */
};

struct hrana_writer hrana_writer_of(const struct hrana_form *form, struct buf *out);

/* A pipeline's answer: form.begin_pipeline, each reply in its order, form.end_pipeline. A reply
 * can be written, and let go, as soon as it is there.
 * A reply whose frames are broken, or that does not fit, becomes an error in its place: those
 * before it stay. */
void hrana_write_reply(struct hrana_writer *w, const struct hrana_reply *r);
/* The same over a WebSocket, as a message with the number of its request; of FETCH_CURSOR see
 * form.begin_fetched. */
void hrana_write_response(struct hrana_writer *w, int32_t request_id, const struct hrana_reply *r);

/* Why R failed; NULL: it did not. The only statement's error is the request's. */
const struct hrana_error *hrana_reply_error(const struct hrana_reply *r);
/* R was run, and cannot be told, for WHY (taken): this is told, of the whole of it. A step with an
 * error, behind which steps were run that need it, is nothing that drivers expect. If a step failed
 * by itself, that is it. */
struct hrana_error *hrana_reply_untold(const struct hrana_reply *r, struct hrana_error *why);

/* An entry of a cursor. COLUMNS: the step's frame, or NULL: it has none. *N_COLUMNS is for the
 * rows. ERR_PROTOCOL: the frame is broken; nothing was written. */
MUST_USE enum err hrana_write_step_begin(struct hrana_writer *w, uint32_t step,
                                         struct wire_frame *columns, uint32_t *n_columns);
/* One row of those that wire_get_rows gave. ERR_PROTOCOL: likewise. */
MUST_USE enum err hrana_write_row(struct hrana_writer *w, uint32_t n_columns, struct rd *values);

/* What a writer was, for whoever may have to take back what he writes. */
struct hrana_mark {
    struct hrana_writer writer;
    size_t len;
    enum err failed;
};

struct hrana_mark hrana_mark(const struct hrana_writer *w);
void hrana_undo(struct hrana_writer *w, const struct hrana_mark *m);
/* E: what writing R said. NULL: all is well, or the buffer was marked before: nothing can be told.
 * Otherwise all since M was taken back, and this is why. */
struct hrana_error *hrana_undo_if(struct hrana_writer *w, const struct hrana_mark *m,
                                  const struct hrana_reply *r, enum err e);

/* --- a form --- */

struct hrana_form {
    const char *content_type; /* of answers */
    bool binary;              /* its messages over a WebSocket */

    void *(*reader_new)(struct arena *arena);
    void (*reader_free)(void *state);
    enum err (*feed)(void *state, const void *p, size_t n);
    /* The message is complete: a body of a pipeline, of a cursor; a message over a WebSocket. Each
     * at most once. */
    hrana_decoder *pipeline, *cursor;
    enum err (*message)(struct hrana_reader *r, struct hrana_message *out);

    /* BATON and BASE_URL: NULL: none. They stand last, since they are known last. */
    void (*begin_pipeline)(struct hrana_writer *w);
    void (*end_pipeline)(struct hrana_writer *w, const char *baton, const char *base_url);
    /* ERROR NULL: all is well. */
    void (*put_hello)(struct hrana_writer *w, const struct hrana_error *error);

    /* Over HTTP: the head, then entries. */
    void (*begin_cursor)(struct hrana_writer *w, const char *baton, const char *base_url);
    /* Over a WebSocket: begin, entries, end. */
    void (*begin_fetched)(struct hrana_writer *w, int32_t request_id);
    void (*end_fetched)(struct hrana_writer *w, bool done);
    void (*put_step_end)(struct hrana_writer *w, const struct wire_done *d, bool read_only);
    void (*put_step_error)(struct hrana_writer *w, uint32_t step, const struct hrana_error *e);
    /* The cursor ends with it. */
    void (*put_cursor_error)(struct hrana_writer *w, const struct hrana_error *e);

    /* For hrana_form.c, which takes back what they leave half written. REQUEST_ID: NULL: of a
     * pipeline. */
    enum err (*put_response)(struct hrana_writer *w, const int32_t *request_id,
                             const struct hrana_reply *r);
    void (*put_error)(struct hrana_writer *w, const int32_t *request_id,
                      const struct hrana_error *e);
    enum err (*put_step_begin)(struct hrana_writer *w, uint32_t step, uint32_t n_columns,
                               struct rd columns);
    enum err (*put_row)(struct hrana_writer *w, uint32_t n_columns, struct rd *values);
};

#endif
