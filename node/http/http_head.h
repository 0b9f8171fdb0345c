/* Room: node/http. The head of a request: read byte by byte, parsed, judged. What two readers of
 * HTTP could read differently is refused (RFC 9112), so that a request has one reading, whoever
 * stands between its client and us.   Thread: loop. */
#ifndef NODE_HTTP_HTTP_HEAD_H
#define NODE_HTTP_HTTP_HEAD_H

#include "base/thread.h"
#include "node/http/exchange.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct llhttp__internal_s; /* llhttp_t */

/* --- lines up to an empty one: of a head, and of the trailers behind a body --- */

enum http_scan { HTTP_SCAN_MORE, HTTP_SCAN_WHOLE, HTTP_SCAN_BAD };
struct http_lines {
    uint8_t before;  /* the byte before the next one */
    bool inside;     /* of a line */
    const char *bad; /* why, after BAD */
};
/* Looks at N more bytes. WHOLE: the empty line ends with the first *USED of them. BAD: a line that
 * ends otherwise than with CR LF, or begins with a space (on both, readers of HTTP disagree: RFC
 * 9112, 2.2 and 5.2) or with a colon (llhttp lets a header without a name pass); control bytes. */
enum http_scan http_lines_scan(struct http_lines *s, const uint8_t *p, size_t n, size_t *used);

/* --- a head --- */

struct http_verdict {
    int status; /* 0: nothing is wrong */
    const char *code, *message;
};
struct http_verdict http_bad_request(const char *message);
extern const struct http_verdict http_too_large; /* a body */
extern const struct http_verdict http_full;      /* no place for a connection */

struct http_head {
    uint64_t length; /* that the body says to have, when it is not chunked */
    bool chunked;
    bool keep;    /* its client wants the connection kept */
    bool expects; /* 100-continue is owed */
    /* Bytes of the head's end that PARSER wants next, with the body's settings. */
    uint8_t rest[2];
    size_t n_rest;
};
/* Reads the N bytes at X->head, which were scanned whole: fills X's side of the request, and
 * *HEAD. PARSER is where the body begins. */
struct http_verdict http_head_read(struct exchange *x, struct llhttp__internal_s *parser, size_t n,
                                   size_t body_max, struct http_head *head) ON_LOOP;

#endif
