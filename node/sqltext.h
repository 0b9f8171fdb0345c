/* Room: node. What a statement's text says before SQLite has seen it: the first guess for routing.
 *
 * Only a guess: correctness never rests on it. A reader connection refuses to write and hands a
 * statement that is not read-only back (it then goes to the writer), and the writer runs anything.
 * Thread: any. */
#ifndef NODE_SQLTEXT_H
#define NODE_SQLTEXT_H

#include <stdbool.h>
#include <stddef.h>

enum sql_kind {
    SQL_EMPTY,       /* white space and comments only */
    SQL_READ,        /* SELECT, VALUES, WITH ... SELECT, EXPLAIN, PRAGMA: probably read-only */
    SQL_WRITE,       /* anything else */
    SQL_ALONE,       /* VACUUM: cannot share a transaction */
    SQL_TRANSACTION, /* BEGIN, SAVEPOINT, COMMIT, END, RELEASE, ROLLBACK */
    SQL_FOREIGN_KEYS /* PRAGMA foreign_keys, alone, plain value or none: a setting of the session */
};

/* Skips white space, comments and semicolons. Returns the number of bytes skipped. */
size_t sql_skip_space(const char *sql, size_t n);
enum sql_kind sql_classify(const char *sql, size_t n);
/* Of SQL_READ: is it SELECT, VALUES or WITH ... SELECT? These never write; PRAGMA, and to SQLite
 * what EXPLAIN explains, may. */
bool sql_is_query(const char *sql, size_t n);
/* Is it ROLLBACK (and not ROLLBACK TO)? */
bool sql_is_rollback(const char *sql, size_t n);
/* What a statement does to the transaction, when that is all it does: nothing but white space,
 * comments and semicolons stands behind it. */
enum sql_step {
    SQL_STEP_NONE,     /* none of these; also SAVEPOINT, RELEASE, ROLLBACK TO */
    SQL_STEP_BEGIN,    /* BEGIN [DEFERRED] [TRANSACTION]: it may turn out to be a read only */
    SQL_STEP_WRITE,    /* BEGIN IMMEDIATE, BEGIN EXCLUSIVE */
    SQL_STEP_READONLY, /* BEGIN READONLY, BEGIN TRANSACTION READONLY: libSQL's, not SQLite's */
    SQL_STEP_COMMIT,   /* COMMIT, END */
    SQL_STEP_ROLLBACK, /* ROLLBACK */
};
enum sql_step sql_step_of(const char *sql, size_t n);
/* For SQL_FOREIGN_KEYS: 1 on, 0 off, -1 when it asks. */
int sql_foreign_keys_value(const char *sql, size_t n);

#endif
