/* Room: node/http. A value in a tree and the way to it, as one thing: so that a reader's error can
 * say where without anything being kept for that.
 *
 *     struct spot stmt = spot_get(&top, "stmt"), sql = spot_get(&stmt, "sql");
 *     TRY(spot_text(&sql, &out->sql));        "stmt.sql: must be a string"
 *
 * Spots lie on the stacks of their readers, each below the one that it hangs from. All errors are
 * ERR_PROTOCOL with the place in the sentence, but where it is said. Thread: any. */
#ifndef NODE_HTTP_JSON_SPOT_H
#define NODE_HTTP_JSON_SPOT_H

#include "node/http/hrana_form.h"
#include "node/http/json_read.h"

struct spot {
    const struct json *v; /* NULL: there is none */
    const struct spot *up;
    const char *key; /* in `up`; NULL: at `index` */
    uint32_t index;
};

/* "requests[0].stmt: ...", of the root "the message: ...". */
enum err spot_fail(const struct spot *s, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Neither missing nor null. */
bool spot_is_there(const struct spot *s);
struct spot spot_get(const struct spot *object, const char *key);
/* The first of an array's children, and the next: their `v` is NULL behind the last one. */
struct spot spot_first(const struct spot *array);
void spot_next(struct spot *child);

MUST_USE enum err spot_need(const struct spot *s, enum json_type type, const char *what);
MUST_USE enum err spot_text(const struct spot *s, struct hrana_text *out);
/* OUT is left as it is when there is none, or null. */
MUST_USE enum err spot_maybe_text(const struct spot *s, struct hrana_text *out);
MUST_USE enum err spot_int32(const struct spot *s, int32_t *out);
MUST_USE enum err spot_uint32(const struct spot *s, uint32_t *out);
/* An array, or nothing: *N zeroed things of SIZE bytes each at *OUT, one for each child. Also
 * ERR_TOO_BIG. */
MUST_USE enum err spot_array(const struct spot *s, struct arena *arena, size_t size, uint32_t *n,
                             void **out);
/* N bytes at P, which is what S holds, as a value of TYPE. */
MUST_USE enum err spot_bytes(const struct spot *s, enum wire_value_type type, const char *p,
                             size_t n, struct wire_value *out);
/* A string of base64, as a blob. Also ERR_TOO_BIG. */
MUST_USE enum err spot_base64(const struct spot *s, struct arena *arena, struct wire_value *out);
/* The member "replication_index", a string from most drivers, a number from Go's: into *OUT, if it
 * is the newer one. */
MUST_USE enum err spot_replication_index(const struct spot *object, uint64_t *out);
/* The word that says which kind of thing an object is: a string for spot_is_word. */
MUST_USE enum err spot_type(const struct spot *s, struct spot *type);
bool spot_is_word(const struct spot *s, const char *word);
/* WHAT "type of a value", say. */
enum err spot_unknown(const struct spot *type, const char *what) __attribute__((cold));

#endif
