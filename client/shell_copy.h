/* Room: client. A copy of the cluster's whole database for a dump: one state, however large and
 * however long the reading takes. Thread: one. */
#ifndef CLIENT_SHELL_COPY_H
#define CLIENT_SHELL_COPY_H

#include "client/shell_dump.h"

struct shell_copy;

/* Exports SH's database into a file of DIR that loses its name as soon as it is whole. NULL: failed
 * and complained about; nothing is left. */
struct shell_copy *shell_copy_open(struct shell *sh, const char *dir);
/* C may be NULL. */
void shell_copy_close(struct shell_copy *c);
/* Valid until the close. */
struct dump_source shell_copy_source(struct shell_copy *c);

#endif
