/* Room: node/http. Protobuf from outside, field by field, where it lies. The parser is nanopb's,
 * its lower half (tags, varints, lengths) without its generated structures: nothing is copied, and
 * nothing is allocated, so no message is larger in memory than it is.
 *
 *     while (protobuf_next(m))
 *         switch (m->tag) {
 *         case 1: TRY(protobuf_text(m, "sql", &sql)); break;         "stmt.sql: must be UTF-8"
 *         }
 *     return m->status;
 *
 * Messages lie on the stacks of their readers, each below the one that it is in. What is not taken
 * is passed over. Of a value that comes more than once the last one counts; an embedded message
 * that comes twice would have to be merged, which no encoder makes necessary: it is refused.
 * All errors are ERR_PROTOCOL, with the place in the sentence, but where it is said. Thread: any.
 */
#ifndef NODE_HTTP_PROTOBUF_READ_H
#define NODE_HTTP_PROTOBUF_READ_H

#include "node/http/hrana.h"

#define PROTOBUF_DEPTH_MAX 64u /* messages within messages: as JSON_DEPTH_MAX */
/* Looks at fields, for one outermost message: it is read in one go, and the loop waits meanwhile.
 * An argument takes three: this is for more of them than 16 MiB of JSON can have. */
#define PROTOBUF_WORK_MAX 2800000u

struct protobuf {
    const struct protobuf *up; /* the message that it is in; NULL: none */
    const char *name;          /* of the field there */
    int64_t index;             /* of a repeated field; below 0: it is not */
    uint32_t depth;
    const uint8_t *p, *end; /* what was not looked at */
    uint32_t seen;          /* embedded messages: bits of tags */
    uint32_t *work;         /* looks that are left */

    uint32_t tag; /* of the field that stands next */
    int wire;     /* its wire type */
    bool taken;
    enum err status; /* why there are no more fields */
};

/* What N bytes at P hold. *WORK, PROTOBUF_WORK_MAX at first, is for this message and all in it. */
struct protobuf protobuf_of(const void *p, size_t n, uint32_t *work);
/* The next field: its tag; false: there is none, or it is broken (status), or there was too much to
 * look at: ERR_TOO_BIG. */
bool protobuf_next(struct protobuf *m);
/* How many fields TAG are to come: of a field that repeats, before the first call of next. */
uint32_t protobuf_count(const struct protobuf *m, uint32_t tag);

/* Each of the following takes the field that protobuf_next has come to. NAME is for the sentence.
 * What is handed out of texts and bytes is borrowed. */

MUST_USE enum err protobuf_bool(struct protobuf *m, const char *name, bool *out);
MUST_USE enum err protobuf_int32(struct protobuf *m, const char *name, int32_t *out);
MUST_USE enum err protobuf_uint32(struct protobuf *m, const char *name, uint32_t *out);
MUST_USE enum err protobuf_uint64(struct protobuf *m, const char *name, uint64_t *out);
MUST_USE enum err protobuf_sint64(struct protobuf *m, const char *name, int64_t *out);
MUST_USE enum err protobuf_double(struct protobuf *m, const char *name, double *out);
/* UTF-8. */
MUST_USE enum err protobuf_text(struct protobuf *m, const char *name, struct hrana_text *out);
MUST_USE enum err protobuf_bytes(struct protobuf *m, const char *name, struct hrana_text *out);
/* An embedded message, into OUT; also ERR_TOO_BIG: it is in too many others. */
MUST_USE enum err protobuf_message(struct protobuf *m, const char *name, struct protobuf *out);
/* The same for a field that repeats. */
MUST_USE enum err protobuf_item(struct protobuf *m, const char *name, uint32_t index,
                                struct protobuf *out);

/* "requests[0].stmt: ...", of the outermost "the message: ...". NAME: of a field of M; NULL: M
 * itself. */
enum err protobuf_fail(const struct protobuf *m, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

#endif
