/* Room: tests. Handlers of the test's port:
 *
 *     /echo       verb, path, query and body          /early     answers at its head
 *     /headers    what was asked for                  /later     when the test says
 *     /stream?N   N pieces                            /flood     as much as TEST_FLOOD_BYTES
 *     /large      TEST_FLOOD_BYTES, also late         /busy      keeps the loop for a millisecond
 *     /broken     an answer that breaks off           /version   a word
 *     /half       the half of one; the test says on   /words     TEST_WORDS_BYTES
 *     /data       as /echo, of what is to be kept from pages at names of their own */
#ifndef TESTS_UNIT_HTTP_HTTP_HANDLERS_H
#define TESTS_UNIT_HTTP_HTTP_HANDLERS_H

#include "node/http/router.h"

#define TEST_FLOOD_BYTES 20000000u
#define TEST_FLOOD_PIECE 65536u
#define TEST_WORDS_BYTES 2000u

extern const struct router test_router;
/* Of all exchanges: heads, pieces of bodies, ends. */
extern unsigned test_begins, test_bodies, test_overs;
extern struct exchange *test_later; /* waits for test_answer_later; has sent its half */
extern size_t test_flood_left;

void test_answer_later(void);

#endif
