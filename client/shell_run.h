/* Room: client. Statements of the shell's user and of the shell itself. Thread: one. */
#ifndef CLIENT_SHELL_RUN_H
#define CLIENT_SHELL_RUN_H

#include "base/buf.h"
#include "client/shell.h"
#include "client/shell_value.h"

#include <stddef.h>
#include <stdint.h>

/* Runs one statement and prints its answer, or complains. */
void shell_run(struct shell *sh, const char *sql, size_t n);
/* Runs a statement of the shell's own; PARAMS are N_PARAMS texts. Complains when it fails. */
MUST_USE enum err shell_query(struct shell *sh, const char *sql, const char *const *params,
                              uint32_t n_params, const struct shell_handler *h);
/* Steps STMT to its end. LECTERN_DONE, or an error of the session; *e: of H or our own, which ended
 * it. */
int shell_step_all(lectern_stmt *stmt, const struct shell_handler *h, enum err *e);
/* Level and time limit, as they are set, for the session; true. */
bool shell_apply_settings(struct shell *sh);
/* Makes Ctrl-C (in a signal handler) reach the request that runs; false: none runs. */
bool shell_run_interrupt(void);
/* STATUS, printed in the shell's mode (columns instead of list). */
void shell_status(struct shell *sh);

/* A small answer in memory: all cells as text. */
struct fetched {
    struct buf cells;
    uint32_t columns;
    uint64_t rows;
    char names[32][32]; /* of the first columns, cut */
};

void fetched_init(struct fetched *f);
void fetched_fini(struct fetched *f);
struct shell_handler fetched_handler(struct fetched *f);
/* Walks the cells row by row; zero-terminated, NULL for an SQL NULL. Begin with fetched_cells. */
struct rd fetched_cells(const struct fetched *f);
const char *fetched_next(struct rd *r, size_t *n);
/* As shell_query, into F (initialised). */
MUST_USE enum err shell_fetch(struct shell *sh, const char *sql, const char *const *params,
                              uint32_t n_params, struct fetched *f);
MUST_USE enum err shell_fetch_status(struct shell *sh, struct fetched *f);

#endif
