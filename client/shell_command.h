/* Room: client. What the commands of the program `lectern` share (cluster, load, dump, export): the
 * session, Ctrl-C, words of the command line. Thread: one. */
#ifndef CLIENT_SHELL_COMMAND_H
#define CLIENT_SHELL_COMMAND_H

#include "client/lectern.h"

#include <stdint.h>

/* Options that each of them takes. */
#define COMMAND_TIMEOUT_MAX 86400000ul /* milliseconds: a day */

/* CONNECT, or $LECTERN_ADDRESS, or the default. */
const char *command_address(const char *connect);
/* lectern_open, with our name for the server's log, and not as long a wait for a first answer. */
int command_connect(const char *addresses, lectern **db);
/* A session for this command, that Ctrl-C interrupts (shell_interrupted is then set; a second one
 * leaves at once). NULL: complained about on standard error. */
lectern *command_open(const char *addresses, int64_t timeout_ms);
void command_close(lectern *db);
/* In a signal handler, while there is nothing to end and nothing to tidy up: says so, exits with
 * 130. */
_Noreturn void command_leave(void);

/* Says what is wrong with the command line of `lectern COMMAND`, and exits with 2. */
_Noreturn void command_usage_error(const char *command, const char *what, const char *value);
/* A decimal number from 1 to MAX, or command_usage_error. */
uint64_t command_number(const char *command, const char *text, const char *what, uint64_t max);

#endif
