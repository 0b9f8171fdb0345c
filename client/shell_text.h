/* Room: client. Text on a terminal: how wide it is, and where a cell's lines end. Thread: any. */
#ifndef CLIENT_SHELL_TEXT_H
#define CLIENT_SHELL_TEXT_H

#include "base/buf.h"

#include <stddef.h>

/* Takes the next line of a cell from [*p, END): up to a line end, or MAX_WIDTH columns (0: no
 * limit). Appends what is to be shown to OUT (tabs as blanks, other control characters as ^X, bytes
 * that are no UTF-8 as U+FFFD) and returns its width in columns. *p goes to the rest, NULL at the
 * end. */
size_t text_line(const char **p, const char *end, size_t max_width, struct buf *out);

/* Bytes of the UTF-8 character at P and its code point; 0 when it is not UTF-8. */
size_t text_char(const char *p, const char *end, unsigned *code);

#endif
