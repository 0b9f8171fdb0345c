/* Room: client. Line editing and history at a terminal, by libedit. Thread: one. */
#ifndef CLIENT_SHELL_EDIT_H
#define CLIENT_SHELL_EDIT_H

#include "base/err.h"

#include <stddef.h>

struct shell_edit;

/* Loads the history from ~/.lectern_history (made with mode 0600 when there is something to save).
 * NULL: no terminal that libedit can use. */
struct shell_edit *shell_edit_open(void);
/* Saves the history. E may be NULL. */
void shell_edit_close(struct shell_edit *e);
/* One line without its end, in *LINE until the next call. ERR_CANCELLED: Ctrl-C; ERR_CLOSED: the
 * end of the input. */
MUST_USE enum err shell_edit_line(struct shell_edit *e, const char *prompt, const char **line,
                                  size_t *n);

/* Makes shell_edit_line return ERR_CANCELLED, now or when it is next called. For the handler of
 * Ctrl-C; harmless without a line editor. */
void shell_edit_interrupt(void);

#endif
