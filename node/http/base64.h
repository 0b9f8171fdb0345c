/* Room: node/http. Base64 from outside (RFC 4648, the standard alphabet); writing is json_base64.
 * Thread: any. */
#ifndef NODE_HTTP_BASE64_H
#define NODE_HTTP_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Room for what N characters can hold, at most. */
#define BASE64_ROOM(n) ((n) / 4 * 3 + 3)

/* Decodes N characters at P into OUT (BASE64_ROOM(N) bytes). Padding may be there or not, as the
 * drivers differ. False: a character outside of the alphabet, a length that no bytes have, or bits
 * behind the last byte that are not zero. */
bool base64_decode(const char *p, size_t n, void *out, size_t *out_len);

#endif
