/* Room: node/http. JSON from outside, as a tree in an arena.
 *
 * The text may come in any pieces (json_feed), and each byte is looked at once, so a large body
 * costs the loop no long stop. The parser is yajl: it checks the grammar and UTF-8, gives lengths,
 * so that \u0000 does not end a string, and keeps no tree of its own. All limits are the arena's
 * and the depth. Thread: any, one at a time. */
#ifndef NODE_HTTP_JSON_READ_H
#define NODE_HTTP_JSON_READ_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 64u /* a batch's conditions may nest, nothing else does */

enum json_type {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};

struct json {
    enum json_type type;
    uint32_t n_children;
    const char *key; /* of an object's member; zero-terminated, may hold zeros before */
    size_t key_len;
    const char *text; /* STRING: decoded; NUMBER: as it was written. Zero-terminated as well */
    size_t len;
    struct json *first, *last; /* child: ARRAY, OBJECT */
    struct json *next;         /* sibling */
};

struct json_reader;

/* What is read lives in ARENA. */
struct json_reader *json_reader_new(struct arena *arena);
void json_reader_free(struct json_reader *r);
/* ERR_PROTOCOL: not JSON (err_text says where and why); ERR_TOO_BIG: deeper than JSON_DEPTH_MAX or
 * over the arena's maximum. After an error no more may be fed. */
MUST_USE enum err json_feed(struct json_reader *r, const void *p, size_t n);
/* The text is complete: *ROOT is its value. ERR_PROTOCOL, and *ROOT all the same, with
 * texts that are none: half of a surrogate pair, as JavaScript writes a text that was cut within a
 * character. */
MUST_USE enum err json_end(struct json_reader *r, const struct json **root);

/* The member KEY of an object, the last one if there are several; NULL: none, or not an object. */
const struct json *json_get(const struct json *object, const char *key);
bool json_is(const struct json *v, enum json_type type); /* also of NULL: false */
/* A NUMBER or STRING that is a whole decimal number within the type; false: it is not. */
bool json_int64(const struct json *v, int64_t *out);
bool json_uint64(const struct json *v, uint64_t *out);
/* A NUMBER. */
bool json_double(const struct json *v, double *out);

#define JSON_EACH(v, parent)                                                                       \
    for (const struct json *v = (parent)->first; (v) != NULL; (v) = (v)->next)

#endif
