/* Room: client. Dot commands, with sqlite3's spelling. Thread: one. */
#ifndef CLIENT_SHELL_DOT_H
#define CLIENT_SHELL_DOT_H

#include "client/shell.h"

/* Runs the command in LINE (with its dot); LINE is changed. Complains when it fails. */
void shell_dot(struct shell *sh, char *line);
/* Takes "any", "bounded:MS", "session" or "strong"; false: none of them. */
bool shell_set_level(struct shell *sh, const char *text);

#endif
