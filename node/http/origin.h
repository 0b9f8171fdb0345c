/* Room: node/http. Which pages that a browser shows may use this node (http-cors). A browser says
 * whose page a request comes from (the header `origin`); other programs say nothing of it. Thread:
 * loop. */
#ifndef NODE_HTTP_ORIGIN_H
#define NODE_HTTP_ORIGIN_H

#include "node/http/exchange.h"

#include <stdbool.h>

/* The origin that is told to the browser as one that may read the answer; NULL: none. */
const char *origin_of_readers(const struct exchange *x) ON_LOOP;
/* Does X come from a page that is neither this node's own nor one of http-cors? */
bool origin_is_foreign(const struct exchange *x) ON_LOOP;
/* Did X come by a name that may be anybody's: no address, not localhost, of no setting? */
bool origin_host_is_strange(const struct exchange *x) ON_LOOP;
/* Answer X so. */
void origin_refuse_host(struct exchange *x) ON_LOOP;
void origin_refuse(struct exchange *x) ON_LOOP;

#endif
