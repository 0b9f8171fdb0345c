/* Room: tests. Answers of statements, as a session's frames. */
#ifndef TESTS_UNIT_HTTP_HRANA_ANSWER_H
#define TESTS_UNIT_HTTP_HRANA_ANSWER_H

#include "base/rng.h"
#include "node/http/hrana.h"

/* NAMES and TYPES: N columns, TYPES with "" for none. VALUES: ROWS x N. Freed by answer_free. */
struct hrana_result *answer_new(uint32_t n, const char *const *names, const char *const *types,
                                uint32_t rows, const struct wire_value *values);
/* Without columns: a write that changed CHANGES rows, the last one at ROWID. */
struct hrana_result *answer_write(int64_t changes, int64_t rowid, uint64_t seq);
void answer_free(struct hrana_result *r);
/* GOOD's frames as a leader that sends nonsense would send them: cut, with bytes changed, in memory
 * of exactly that size. free() FRAMES.data. */
struct hrana_result answer_broken(struct rng *rng, const struct hrana_result *good);

#define VALUE_NULL                                                                                 \
    {                                                                                              \
        .type = WIRE_NULL                                                                          \
    }
#define VALUE_INTEGER(v)                                                                           \
    {                                                                                              \
        .type = WIRE_INTEGER, .integer = (v)                                                       \
    }
#define VALUE_FLOAT(v)                                                                             \
    {                                                                                              \
        .type = WIRE_FLOAT, .real = (v)                                                            \
    }
#define VALUE_TEXT(s)                                                                              \
    {                                                                                              \
        .type = WIRE_TEXT, .text = {(s), sizeof(s) - 1 }                                           \
    }
#define VALUE_BLOB(s)                                                                              \
    {                                                                                              \
        .type = WIRE_BLOB, .text = {(s), sizeof(s) - 1 }                                           \
    }

#endif
