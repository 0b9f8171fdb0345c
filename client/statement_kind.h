/* Room: client. What a statement may do, as far as its words tell: decides what is safe to send
 * again after a lost connection. In doubt it is a write. Thread: any. */
#ifndef CLIENT_STATEMENT_KIND_H
#define CLIENT_STATEMENT_KIND_H

#include <stdbool.h>
#include <stddef.h>

enum statement_kind {
    STATEMENT_READ,      /* changes nothing */
    STATEMENT_BEGIN,     /* opens a transaction: dies with its connection */
    STATEMENT_SAVEPOINT, /* the same, or belongs to the one that is open */
    STATEMENT_COMMIT,    /* may end a transaction well */
    STATEMENT_WRITE,     /* all else */
};

enum statement_kind statement_kind(const char *sql, size_t n);
/* INSERT, UPDATE, DELETE, REPLACE, also behind WITH: what sqlite3_changes speaks of. */
bool statement_counts(const char *sql, size_t n);
/* 1: EXPLAIN, 2: EXPLAIN QUERY PLAN, else 0. */
int statement_explains(const char *sql, size_t n);

#endif
