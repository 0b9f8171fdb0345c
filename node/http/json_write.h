/* Room: node/http. JSON to outside, appended to a buffer as it is made: commas are this file's
 * affair, the order of the calls is the caller's. Thread: any, one at a time.
 *
 *     json_begin_object(j);  json_key(j, "baton");  json_null(j);  json_end_object(j); */
#ifndef NODE_HTTP_JSON_WRITE_H
#define NODE_HTTP_JSON_WRITE_H

#include "base/buf.h"

#include <stdbool.h>

struct json_writer {
    struct buf *out;
    bool comma; /* before the next value or key */
};

struct json_writer json_writer_of(struct buf *out);
void json_begin_object(struct json_writer *j);
void json_end_object(struct json_writer *j);
void json_begin_array(struct json_writer *j);
void json_end_array(struct json_writer *j);
/* KEY is ours: printable ASCII without quotes. */
void json_key(struct json_writer *j, const char *key);
void json_null(struct json_writer *j);
void json_bool(struct json_writer *j, bool v);
void json_int(struct json_writer *j, int64_t v);
void json_uint(struct json_writer *j, uint64_t v);
/* A whole number as a string: JavaScript's numbers end at 2^53. */
void json_int_text(struct json_writer *j, int64_t v);
void json_uint_text(struct json_writer *j, uint64_t v);
/* The shortest text that reads as the same double. JSON has no words for infinity and NaN:
 * infinity is +-1e999, which reads as it; NaN, which SQLite does not store, is null. */
void json_real(struct json_writer *j, double v);
/* Any bytes: what is not UTF-8 becomes U+FFFD. */
void json_text(struct json_writer *j, const char *p, size_t n);
void json_cstr(struct json_writer *j, const char *text);
/* Base64 with the standard alphabet, without `=`. */
void json_base64(struct json_writer *j, const void *p, size_t n);

#endif
