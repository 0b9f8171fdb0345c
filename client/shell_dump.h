/* Room: client. The database as SQL text that sqlite3 reads back. Thread: one. */
#ifndef CLIENT_SHELL_DUMP_H
#define CLIENT_SHELL_DUMP_H

#include "client/shell.h"
#include "client/shell_value.h"

#include <stdbool.h>

/* Where the statements of a dump run; all of them see one state. */
struct dump_source {
    /* Hands H what SQL answers; PARAM is ?1, NULL: there is none. Complains when it fails. */
    enum err (*query)(void *arg, const char *sql, const char *param, const struct shell_handler *h);
    void *arg;
};

/* Tables whose name is LIKE one of the N patterns; all when N is 0. Writes to SH's output. False:
 * it failed and was complained about, and the text ends with ROLLBACK. */
bool shell_dump_from(struct shell *sh, const struct dump_source *from, char *const *patterns,
                     int n);
/* .dump: from SH's session, in one read transaction (or the open one), which bounds the rows of one
 * table by the server's answer-bytes. Complains when it fails. */
void shell_dump(struct shell *sh, char *const *patterns, int n);

#endif
