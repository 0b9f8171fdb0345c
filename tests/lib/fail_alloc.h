/* Room: tests. The n-th allocation fails: malloc, calloc and realloc, and what calls them (strdup,
 * getaddrinfo, ...).
 *
 *     for (uint64_t n = 1;; n++) {
 *         fail_alloc_at(n);
 *         ... all of the scenario: each step ERR_OK or ERR_NOMEM, and nothing leaks ...
 *         if (!fail_alloc_end())
 *             break;  // it took fewer than n
 *     }
 *
 * Counts this thread's allocations only: other threads (a fake node) are left alone. Under
 * ThreadSanitizer, and under clang's AddressSanitizer, nothing ever fails: fail_alloc_works() says
 * so. Under gcc's AddressSanitizer strdup does not. */
#ifndef TESTS_LIB_FAIL_ALLOC_H
#define TESTS_LIB_FAIL_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

bool fail_alloc_works(void);
/* The Nth allocation from now on fails, once. 1 is the next one. */
void fail_alloc_at(uint64_t n);
/* The Nth and all that follow. */
void fail_alloc_from(uint64_t n);
/* From here on none fails. Whether one has. */
bool fail_alloc_end(void);

#endif
