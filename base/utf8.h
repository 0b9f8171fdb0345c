/* Room: base. Is it UTF-8? (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.)
 * Thread: any. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that P begins with, 1 to 4; 0: the first of these N bytes begins none. N
 * is not 0. */
size_t utf8_length(const void *p, size_t n);
bool utf8_valid(const void *p, size_t n);
/* How many of the first N bytes are UTF-8. */
size_t utf8_span(const void *p, size_t n);

#endif
