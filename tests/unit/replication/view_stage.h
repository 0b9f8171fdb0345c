/* Room: tests. A database with its writer's view, one connection and the transactions in flight,
 * for the tests of the view. Failures end the test. Thread: the test's, as owner. */
#ifndef TESTS_UNIT_REPLICATION_VIEW_STAGE_H
#define TESTS_UNIT_REPLICATION_VIEW_STAGE_H

#include "replication/replication.h"

#include <stdbool.h>

#define STAGE_FLIGHT_MAX 64

struct stage {
    struct repl_db *db;
    struct repl_view *view;
    sqlite3 *conn;
    struct repl_txn *flight[STAGE_FLIGHT_MAX]; /* sealed, not published; oldest first */
    unsigned n_flight;
};

/* Of a database in the test's directory. */
struct repl_config stage_config(const char *name);
void stage_open(struct stage *s, const struct repl_config *c) ON_OWNER;
/* Verifies every page before. */
void stage_close(struct stage *s) ON_OWNER;
/* Drops the view with all that is unpublished. */
void stage_drop_view(struct stage *s) ON_OWNER;
void stage_open_view(struct stage *s) ON_OWNER;
/* Seals what was committed: true when there was something. */
bool stage_seal(struct stage *s) ON_OWNER;
/* SQL, one commit, sealed. */
void stage_commit(struct stage *s, const char *sql) ON_OWNER;
void stage_publish(struct stage *s) ON_OWNER; /* the oldest */
void stage_publish_all(struct stage *s) ON_OWNER;
/* The hash of all rows of tables t..., and the names of the schema. */
uint64_t stage_content(sqlite3 *conn);
/* What a stock reader sees. */
uint64_t stage_published_content(const struct stage *s);
/* The bytes of the real files, through the keeper. */
uint64_t stage_files_hash(const struct stage *s);

#endif
