/* Room: node/http. Hrana as JSON, both ways: what came as struct hrana_*, and results as text.
 *
 * Reading: from the tree of json_read.h; all of the result lives in ARENA or in the tree's own. An
 * error is of the whole message (HTTP 400, the end of a WebSocket): ERR_PROTOCOL, its sentence with
 * the place ("requests[0].stmt.args[1].value: ..."), or ERR_TOO_BIG: a limit, or the arena is full.
 * What Hrana does not know is passed over, but for request types, conditions and values: to run
 * something else than was asked is worse than not to run.
 *
 * Writing: rows come as frames of the native protocol, our own or another node's, and are not
 * trusted. Source: Hrana 1, 2 and 3 and "Hrana over HTTP" (tursodatabase/libsql, docs/).
 * Thread: any, one at a time. */
#ifndef NODE_HTTP_HRANA_JSON_H
#define NODE_HTTP_HRANA_JSON_H

#include "base/arena.h"
#include "node/http/hrana.h"
#include "node/http/json_read.h"
#include "node/http/json_write.h"

/* --- reading --- */

/* POST /v2/pipeline, /v3/pipeline. */
MUST_USE enum err hrana_json_pipeline(const struct json *root, enum hrana_version version,
                                      struct arena *arena, struct hrana_body *out);
/* POST /v3/cursor. */
MUST_USE enum err hrana_json_cursor(const struct json *root, struct arena *arena,
                                    struct hrana_body *out);
/* POST /v1/execute and /v1/batch. */
MUST_USE enum err hrana_json_v1_execute(const struct json *root, struct arena *arena,
                                        struct hrana_body *out);
MUST_USE enum err hrana_json_v1_batch(const struct json *root, struct arena *arena,
                                      struct hrana_body *out);
/* POST /: its statements are one transaction, so several come out as BEGIN, each if the one before
 * was well, COMMIT, ROLLBACK; a single one as it is, so that PRAGMA and VACUUM work. */
MUST_USE enum err hrana_json_statements(const struct json *root, struct arena *arena,
                                        struct hrana_body *out);
/* A message over a WebSocket. */
MUST_USE enum err hrana_json_message(const struct json *root, enum hrana_version version,
                                     struct arena *arena, struct hrana_message *out);

/* --- writing: appended to the writer's buffer; buf_status tells at the end --- */

/* A pipeline's answer: begin, each reply in its order, end. BATON and BASE_URL: NULL is null. They
 * stand last, since they are known last: a reply can be written, and let go, as soon as it is
 * there.
 * A reply whose frames are broken, or that does not fit, becomes an error in its place: the replies
 * before it stay. The buffer's last HRANA_JSON_RESERVE bytes are kept for errors and for the end.
 */
#define HRANA_JSON_RESERVE 4096u
void hrana_json_begin_pipeline(struct json_writer *j);
void hrana_json_put_reply(struct json_writer *j, const struct hrana_reply *r);
void hrana_json_end_pipeline(struct json_writer *j, const char *baton, const char *base_url);

/* A WebSocket's: response_ok or response_error; of FETCH_CURSOR see below. ERROR NULL: hello_ok. */
void hrana_json_put_response(struct json_writer *j, int32_t request_id,
                             const struct hrana_reply *r);
void hrana_json_put_hello(struct json_writer *j, const struct hrana_error *error);

/* /v1/: {"result":...}. *ERROR: the reply is an error, or its frames are: nothing was written, and
 * it is the answer (freed by the caller; hrana_error_status). */
void hrana_json_put_v1(struct json_writer *j, const struct hrana_reply *r,
                       struct hrana_error **error);
/* POST /: R is of the batch that hrana_json_statements made. A statement that failed is told in its
 * place; *ERROR, as above: the batch failed as a whole, or could not be committed. */
void hrana_json_put_statements(struct json_writer *j, const struct hrana_reply *r,
                               struct hrana_error **error);

/* A cursor's entries: lines of their own (over HTTP) or an array's values (fetch_cursor). */
struct hrana_entries {
    struct json_writer j;
    bool lines;
};

/* Over HTTP: the first line, then entries, each ending in a newline. */
void hrana_json_begin_cursor(struct hrana_entries *c, struct buf *out, const char *baton,
                             const char *base_url);
/* Over a WebSocket: begin, entries, end. */
void hrana_json_begin_fetched(struct hrana_entries *c, struct buf *out, int32_t request_id);
void hrana_json_end_fetched(struct hrana_entries *c, bool done);

/* COLUMNS: the step's frame, or NULL: it has none. *N_COLUMNS is for the rows. ERR_PROTOCOL: the
 * frame is broken; nothing was written. */
MUST_USE enum err hrana_json_put_step_begin(struct hrana_entries *c, uint32_t step,
                                            struct wire_frame *columns, uint32_t *n_columns);
/* One row of those that wire_get_rows gave. ERR_PROTOCOL: likewise. */
MUST_USE enum err hrana_json_put_row(struct hrana_entries *c, uint32_t n_columns,
                                     struct rd *values);
void hrana_json_put_step_end(struct hrana_entries *c, const struct wire_done *d, bool read_only);
void hrana_json_put_step_error(struct hrana_entries *c, uint32_t step, const struct hrana_error *e);
/* The cursor ends with it. */
void hrana_json_put_cursor_error(struct hrana_entries *c, const struct hrana_error *e);

#endif
