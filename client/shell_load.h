/* Room: client. `lectern load`: a SQLite file, or a file of SQL, into the cluster. shell_load.c is
 * the command, shell_load_db.c and shell_load_schema.c take SQLite files, shell_load_sql.c takes
 * SQL; all send through shell_load_batch.c. Thread: one. */
#ifndef CLIENT_SHELL_LOAD_H
#define CLIENT_SHELL_LOAD_H

#include "base/err.h"
#include "client/lectern.h"
#include "client/shell_progress.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define LOAD_BATCH_BYTES     (1024u * 1024) /* of one batch, about */
#define LOAD_BATCH_BYTES_MAX (16ull * 1024 * 1024)
#define LOAD_BATCH_ROWS      1000
#define LOAD_TXN_TRIES       5 /* of one transaction whose leader is lost */

struct load {
    lectern *db;
    const char *file;
    bool atomic, began; /* began: something may have been written */
    size_t batch_bytes;
    struct progress progress;
    uint64_t total; /* rows to come, or bytes of text; 0: not known */
    /* What is acknowledged. */
    uint64_t tables, rows, statements, bytes;
};

/* A session's failure as one of ours: ERR_TXN_LOST, ERR_TIMEOUT (the transaction was open for too
 * long), ERR_UNKNOWN, ERR_CANCELLED, else ERR_SQL. The sentence is WHAT, a colon, and the
 * session's. */
enum err load_failed(const struct load *l, int rc, const char *what);
/* Ctrl-C was pressed: ERR_CANCELLED. */
MUST_USE enum err load_may_go_on(void);
/* One statement without an answer. */
MUST_USE enum err load_run(struct load *l, const char *sql, const char *what);
/* The one number that SQL gives. */
MUST_USE enum err load_ask_number(struct load *l, const char *sql, const char *what, int64_t *to);
/* BEGIN; and COMMIT, or ROLLBACK when E is an error, which is then the result. */
MUST_USE enum err load_begin(struct load *l);
MUST_USE enum err load_end(struct load *l, enum err e);

/* The two kinds of files. */
MUST_USE enum err load_db(struct load *l);
MUST_USE enum err load_sql(struct load *l, FILE *in);

/* The command; ARGV[0] is "load". The exit code. */
int shell_load(int argc, char **argv);

#endif
