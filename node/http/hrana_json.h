/* Room: node/http. Hrana as JSON, both ways (hrana_form.h), and the forms that are JSON only: Hrana
 * 1 over HTTP, and the one before it. Thread: any, one at a time. */
#ifndef NODE_HTTP_HRANA_JSON_H
#define NODE_HTTP_HRANA_JSON_H

#include "node/http/hrana_form.h"
#include "node/http/json_read.h"

extern const struct hrana_form hrana_json;

/* --- reading: parts of hrana_json --- */

void *hrana_json_reader_new(struct arena *arena);
void hrana_json_reader_free(void *state);
MUST_USE enum err hrana_json_feed(void *state, const void *p, size_t n);
/* POST /v2/pipeline, /v3/pipeline. */
MUST_USE enum err hrana_json_pipeline(struct hrana_reader *r, struct hrana_body *out);
/* POST /v3/cursor. */
MUST_USE enum err hrana_json_cursor(struct hrana_reader *r, struct hrana_body *out);
/* A message over a WebSocket. */
MUST_USE enum err hrana_json_message(struct hrana_reader *r, struct hrana_message *out);

/* --- reading: decoders of a reader of hrana_json --- */

/* The text is complete: its value. */
MUST_USE enum err hrana_json_root(struct hrana_reader *r, const struct json **root);
/* POST /v1/execute and /v1/batch. */
MUST_USE enum err hrana_json_v1_execute(struct hrana_reader *r, struct hrana_body *out);
MUST_USE enum err hrana_json_v1_batch(struct hrana_reader *r, struct hrana_body *out);
/* POST /: its statements are one transaction, so several come out as BEGIN, each if the one before
 * was well, COMMIT, ROLLBACK; a single one as it is, so that PRAGMA and VACUUM work. */
MUST_USE enum err hrana_json_statements(struct hrana_reader *r, struct hrana_body *out);

/* --- writing, with a writer of hrana_json --- */

/* /v1/: {"result":...}. *ERROR: the reply is an error, or its frames are: nothing was written, and
 * it is the answer (freed by the caller; hrana_error_status). */
void hrana_json_put_v1(struct hrana_writer *w, const struct hrana_reply *r,
                       struct hrana_error **error);
/* POST /: R is of the batch that hrana_json_statements made. A statement that failed is told in its
 * place; *ERROR, as above: the batch failed as a whole, or could not be committed. */
void hrana_json_put_statements(struct hrana_writer *w, const struct hrana_reply *r,
                               struct hrana_error **error);

#endif
