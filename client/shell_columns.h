/* Room: client. The modes that line cells up: column, box, table, markdown. Thread: one. */
#ifndef CLIENT_SHELL_COLUMNS_H
#define CLIENT_SHELL_COLUMNS_H

#include "base/buf.h"
#include "base/err.h"
#include "client/shell_print.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct columns;

/* NULL: out of memory. SETTINGS and OUT are borrowed until shell_columns_free. */
struct columns *shell_columns_new(const struct print_settings *settings, FILE *out, uint32_t n);
void shell_columns_free(struct columns *c);
/* Adds one cell: first the N names, then row by row. */
MUST_USE enum err shell_columns_cell(struct columns *c, const char *text, size_t n);
/* Prints all that is kept, and the lower edge. Nothing at all when there was no row. */
void shell_columns_end(struct columns *c);

#endif
