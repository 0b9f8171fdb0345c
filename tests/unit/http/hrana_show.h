/* Room: tests. Hrana's requests from JSON or Protobuf, as short text to compare with; or why they
 * are none.
 *
 *     execute "SELECT ?" (1.5) norows | close */
#ifndef TESTS_UNIT_HTTP_HRANA_SHOW_H
#define TESTS_UNIT_HTTP_HRANA_SHOW_H

#include "base/buf.h"
#include "node/http/hrana_json.h"
#include "node/http/hrana_protobuf.h"

enum show_form { PIPELINE_2, PIPELINE_3, CURSOR, V1_EXECUTE, V1_BATCH, OLDEST, WS_1, WS_2, WS_3 };

void show_stmt(struct buf *out, const struct hrana_stmt *s);
void show_body(struct buf *out, const struct hrana_body *body);
void show_message(struct buf *out, const struct hrana_message *m);
/* Reads N bytes at P and decodes them, with ARENA_MAX bytes of memory. OUT: what came of it, or
 * "error: " and the sentence; zero-terminated. Returns what the decoder did. */
enum err show_bytes(const struct hrana_form *of, enum show_form form, const void *p, size_t n,
                    size_t arena_max, struct buf *out);
/* The same of JSON. */
enum err show_json(enum show_form form, const char *text, size_t n, size_t arena_max,
                   struct buf *out);
/* Fails the test unless TEXT is shown as WANTED. */
void expect_shown(const char *file, int line, enum show_form form, const char *text,
                  const char *wanted);

/* The same of Protobuf. */
void expect_bytes_shown(const char *file, int line, enum show_form form, const struct buf *bytes,
                        const char *wanted);

#define EXPECT_SHOWN(form, text, wanted) expect_shown(__FILE__, __LINE__, form, text, wanted)
#define EXPECT_BYTES_SHOWN(form, bytes, wanted)                                                    \
    expect_bytes_shown(__FILE__, __LINE__, form, bytes, wanted)

#endif
