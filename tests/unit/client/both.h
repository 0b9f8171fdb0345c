/* Room: tests. The same calls on SQLite and on the library: a session with a node that runs SQLite
 * (sql_node.h), beside a database of SQLite's own. What both say must be the same. */
#ifndef TESTS_UNIT_CLIENT_BOTH_H
#define TESTS_UNIT_CLIENT_BOTH_H

#include "client/lectern.h"
#include "tests/lib/test.h"
#include "tests/unit/client/sql_node.h"

#include <sqlite3.h>

struct both {
    struct sql_node *node;
    lectern *db;
    sqlite3 *lite;
};

struct both both_open(void);
void both_close(struct both *b);
/* Runs SQL on both; the results must be the same. */
void both_exec(struct both *b, const char *sql);

struct both_stmt {
    lectern_stmt *db;
    sqlite3_stmt *lite;
};
/* A statement that both can prepare. */
struct both_stmt both_prepare(struct both *b, const char *sql);
/* Steps both; the code that both gave. */
int both_step(struct both *b, struct both_stmt *s);
int both_reset(struct both_stmt *s);
void both_finalize(struct both_stmt *s);

/* The session's code, with its sentence when it is not WANTED. */
#define EXPECT_CODE(wanted, db, expr)                                                              \
    do {                                                                                           \
        int expect_code_ = (expr);                                                                 \
        if (expect_code_ != (wanted))                                                              \
            test_fail(__FILE__, __LINE__, "%s: wanted %d, got %d: %s", #expr, (wanted),            \
                      expect_code_, lectern_errmsg(db));                                           \
    } while (0)

#define EXPECT_TEXT(wanted, expr)                                                                  \
    do {                                                                                           \
        const char *expect_text_ = (const char *)(expr);                                           \
        if (expect_text_ == NULL || strcmp(expect_text_, (wanted)) != 0)                           \
            test_fail(__FILE__, __LINE__, "%s: wanted \"%s\", got \"%s\"", #expr, (wanted),        \
                      expect_text_ == NULL ? "(NULL)" : expect_text_);                             \
    } while (0)

#endif
