/* Room: client. .dump: the database as SQL text that sqlite3 reads back. Thread: one. */
#ifndef CLIENT_SHELL_DUMP_H
#define CLIENT_SHELL_DUMP_H

#include "client/shell.h"

/* Tables whose name is LIKE one of the N patterns; all when N is 0. Schema and rows are read in one
 * read transaction, so that they belong to one moment. Complains when it fails, and then ends the
 * text with ROLLBACK. */
void shell_dump(struct shell *sh, char *const *patterns, int n);

#endif
