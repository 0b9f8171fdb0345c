/* Room: tests. A node for the client's tests: SQLite behind the native protocol, in a thread of its
 * own, on a free port. Two of them on one file play a cluster. It can misbehave on request. */
#ifndef TESTS_UNIT_CLIENT_SHELL_SERVER_H
#define TESTS_UNIT_CLIENT_SHELL_SERVER_H

#include <stdbool.h>
#include <stdint.h>

struct server;

/* What it does wrong, each when a statement contains the text (NULL: never). */
struct server_faults {
    const char *drop;          /* closes the connection and runs nothing */
    const char *run_and_drop;  /* runs it, closes without an answer */
    const char *half_and_drop; /* sends the COLUMNS and some ROWS, then closes */
    const char *silent;        /* answers nothing, ever */
    const char *not_leader;    /* answers ERROR NOT_LEADER */
    const char *goodbye;       /* ERROR with request 0, then closes */
    const char *garbage;       /* bytes that are no frame */
    const char *lose_txn;      /* rolls back and answers TXN_LOST */
    bool once;                 /* only the first time */
    bool refuse;               /* ERROR instead of WELCOME */
};

struct server_options {
    const char *database; /* a file; NULL: in memory */
    uint64_t node_id, cluster_id;
    uint16_t port; /* 0: a free one */
    struct server_faults faults;
};

struct server *server_start(const struct server_options *o);
void server_stop(struct server *s);
uint16_t server_port(const struct server *s);
/* "127.0.0.1:PORT"; valid until server_stop. */
const char *server_address(const struct server *s);
/* How many connections said HELLO; how many statements came; the largest min_seq that came. */
unsigned server_connections(struct server *s);
unsigned server_statements(struct server *s);
uint64_t server_min_seq(struct server *s);

#endif
