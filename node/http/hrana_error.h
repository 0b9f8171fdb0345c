/* Room: node/http. What drivers are told of a failure: one table, from our errors and SQLite's to
 * the codes and texts that libSQL's drivers know, and the statuses of the forms that answer by
 * status. Thread: any. */
#ifndef NODE_HTTP_HRANA_ERROR_H
#define NODE_HTTP_HRANA_ERROR_H

#include "node/http/hrana.h"

/* Of a message that breaks the protocol: the whole of it is refused, HTTP 400. It is the code that
 * the TypeScript client gives to such an error of its own. */
#define HRANA_PROTOCOL_ERROR "HRANA_PROTO_ERROR"

/* CODE is a literal. */
struct hrana_error *hrana_error_new(const char *code, const char *format, ...)
    __attribute__((format(printf, 2, 3), malloc));
struct hrana_error *hrana_error_copy(const struct hrana_error *e);
/* The same with the beginning of its sentence alone, when that is long. */
#define HRANA_ERROR_SHORT 200u
struct hrana_error *hrana_error_short(const struct hrana_error *e);
/* The answer of a request would be over http-answer-bytes, MAX. DONE: see struct hrana_error. */
struct hrana_error *hrana_error_too_large(bool done, uint64_t max);
/* E is of a step, and others of the same request were done. */
struct hrana_error *hrana_error_partly(const struct hrana_error *e);
/* There is no memory for it now (waiting-bytes). */
struct hrana_error *hrana_error_no_room(bool done);
/* NULL: nothing. */
void hrana_error_free(struct hrana_error *e);

/* What a session answered in an ERROR frame. */
struct hrana_error *hrana_error_of_wire(const struct wire_error *e);
/* The same for an error of this process with its sentence (err_text()); not of ERR_OK. */
struct hrana_error *hrana_error_of(enum err code, const char *sentence);

/* "SQLITE_CONSTRAINT" for every SQLITE_CONSTRAINT_*; one that SQLite does not have is
 * SQLITE_ERROR. */
const char *hrana_sqlite_name(int32_t sqlite_code);
/* For /v1/ and the oldest form. 400: the request is wrong, as it stands it will never do; 503: it
 * may be sent again; 500: the node or its disk is at fault, or the outcome is not known, or it was
 * done and cannot be told. */
int hrana_error_status(const struct hrana_error *e);

#endif
