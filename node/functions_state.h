/* Room: node. What the files of node/functions*.c share. Thread: the connection's.
 *
 * An argument is what Python's sqlite3 module makes of it: NULL None, INTEGER int, REAL float, TEXT
 * str, BLOB bytes. Where the Python function raises, ours is an error with a sentence. */
#ifndef NODE_FUNCTIONS_STATE_H
#define NODE_FUNCTIONS_STATE_H

#include "node/functions_zone.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct function {
    const char *name; /* NULL ends a list */
    int arguments;
    int flags; /* SQLITE_DETERMINISTIC or 0 */
    void (*call)(sqlite3_context *, int, sqlite3_value **);
    void (*step)(sqlite3_context *, int, sqlite3_value **); /* with `final`: an aggregate */
    void (*final)(sqlite3_context *);
};

extern const struct function functions_bits[], functions_date[], functions_hash[],
    functions_number[], functions_regexp[], functions_stat[], functions_text[], functions_uuid[];

/* One for each connection. */
struct functions {
    int (*stop)(void *ctx);
    void *stop_ctx;
    uint64_t asked_ns; /* when `stop` was asked last */
    struct zones zones;
};

/* TEXT or BLOB; `units` are code points or bytes. Borrowed from the value. */
struct fn_string {
    const char *p;
    size_t n;
    int64_t units;
    bool is_text;
};

/* The function's result is this error. */
void fn_raise(sqlite3_context *ctx, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* May this call go on? If not, the result is SQLITE_INTERRUPT already. For each call that may take
 * longer than some microseconds. */
bool fn_go_on(sqlite3_context *ctx);
/* Is there a NULL among the arguments? */
bool fn_any_null(int n, sqlite3_value **v);
/* The TEXT of V (Python refuses what is no UTF-8, so do we); false: the result is an error. */
bool fn_text(sqlite3_context *ctx, sqlite3_value *v, struct fn_string *s);
/* The TEXT or BLOB of V; anything else is an error "NAME: WHAT ...". */
bool fn_string(sqlite3_context *ctx, sqlite3_value *v, const char *name, struct fn_string *s);
/* Memory for a result of N bytes, for fn_result; NULL: too long or no memory, and said so. */
char *fn_room(sqlite3_context *ctx, uint64_t n);
/* Takes P (of fn_room). */
void fn_result(sqlite3_context *ctx, char *p, size_t n, bool is_text);
/* Python's a * b, for REPEAT and django_format_dtdelta. */
void fn_multiply(sqlite3_context *ctx, sqlite3_value *a, sqlite3_value *b, const char *name);

#endif
