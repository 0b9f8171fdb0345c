/* Room: client. From lines to statements and dot commands, whoever the lines come from. Each runs
 * until its input ends or shell_must_stop. Thread: one. */
#ifndef CLIENT_SHELL_INPUT_H
#define CLIENT_SHELL_INPUT_H

#include "client/shell.h"

#include <stdio.h>

/* Text of one statement that is collected before we give it up; the server refuses less. */
#define INPUT_STATEMENT_MAX (64ull * 1024 * 1024)
/* One dot command. */
#define INPUT_PIECE_BYTES 65536u
/* .read inside of .read. */
#define INPUT_DEPTH_MAX 25u

/* A file or a pipe. */
void shell_input_file(struct shell *sh, FILE *in);
/* A person: prompts, line editing, Ctrl-C. */
void shell_input_terminal(struct shell *sh);
/* A text of the command line: one dot command, or statements. */
void shell_input_text(struct shell *sh, const char *text);

#endif
