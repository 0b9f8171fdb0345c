/* Room: node. SQL functions that Lectern has and SQLite has not: docs/FUNCTIONS.md lists them.
 *
 * They are those that Django's SQLite backend registers in Python, with the results that Python
 * gives. Thread: the connection's. */
#ifndef NODE_FUNCTIONS_H
#define NODE_FUNCTIONS_H

#include <sqlite3.h>

/* Makes them known to CONN; what they keep goes when CONN is closed. STOP(CTX) has the signature of
 * SQLite's progress handler and is asked between the steps of long work, at most once in a
 * millisecond: nonzero ends the statement with SQLITE_INTERRUPT. NULL: never. */
void functions_register(sqlite3 *conn, int (*stop)(void *ctx), void *ctx);

#endif
