/* Room: node/http. Compression of answers (RFC 1952), in pieces. Thread: loop. */
#ifndef NODE_HTTP_GZIP_H
#define NODE_HTTP_GZIP_H

#include "base/buf.h"
#include "base/sizes.h"

#include <stdbool.h>
#include <stddef.h>

/* What one takes. */
#define GZIP_BYTES KIB(40)

struct gzip;

enum gzip_end {
    GZIP_MORE,  /* some of it may be kept back */
    GZIP_FLUSH, /* all that was put so far can be read */
    GZIP_WHOLE  /* it was the last piece */
};

struct gzip *gzip_new(void);
void gzip_free(struct gzip *g);
/* Appends to OUT what N more bytes become. */
void gzip_put(struct gzip *g, const void *p, size_t n, enum gzip_end end, struct buf *out);

/* Does a client that sent this header `accept-encoding` want gzip (RFC 9110, 12.5.3)? */
bool gzip_is_wanted(const char *accept_encoding);

#endif
