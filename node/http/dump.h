/* Room: node/http. GET /dump: the whole database as SQL text, as sqlite3's .dump, of one moment.
 * Thread: loop. */
#ifndef NODE_HTTP_DUMP_H
#define NODE_HTTP_DUMP_H

#include "node/http/exchange.h"

extern const struct handler dump_handler;

#endif
