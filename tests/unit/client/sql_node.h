/* Room: tests. A fake node that knows SQL: what it is asked runs on SQLite, on a database in
 * memory, so that the library's calls can be compared with SQLite's own on another one.
 *
 * One session at a time: all streams share the connection. Windows count: a SELECT stops when its
 * stream's is used up. Batches are all or none. */
#ifndef TESTS_UNIT_CLIENT_SQL_NODE_H
#define TESTS_UNIT_CLIENT_SQL_NODE_H

#include "tests/unit/client/fake_node.h"

struct sql_node;

struct sql_node *sql_node_start(void);
void sql_node_stop(struct sql_node *n);
struct fake_node *sql_node_fake(struct sql_node *n);
/* "lectern://host:port"; valid until sql_node_stop. */
const char *sql_node_url(struct sql_node *n);
/* The next QUERY or BATCH answers this and is not run. ERR_OK: none. */
void sql_node_fail_next(struct sql_node *n, enum err code, const char *text);
/* QUERY and BATCH are not answered as long as it is on, only CANCEL is. */
void sql_node_hold(struct sql_node *n, bool on);
/* Texts that are remembered under numbers now. */
unsigned sql_node_kept(struct sql_node *n);

#endif
