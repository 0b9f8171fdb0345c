/* Room: node. Regular expressions in Python's syntax, written anew in PCRE2's. Thread: any. */
#ifndef NODE_FUNCTIONS_PATTERN_H
#define NODE_FUNCTIONS_PATTERN_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

struct pattern {
    char *text; /* for pcre2_compile, with PCRE2_UTF; free with sqlite3_free */
    size_t n;
    bool ascii;      /* (?a): without PCRE2_UCP */
    const char *why; /* when there is no text: what is wrong; NULL: out of memory */
    size_t at;       /* ... and where, in bytes */
};

/* The Python pattern P[0..N), which is UTF-8. */
void pattern_translate(const char *p, size_t n, struct pattern *out);

#endif
