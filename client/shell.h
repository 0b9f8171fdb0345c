/* Room: client. The shell's state, shared by its parts: shell.c (options, start, signals),
 * shell_run.c (statements), shell_input.c (lines to statements), shell_edit.c (line editing),
 * shell_dot.c and shell_dump.c (dot commands), shell_print.c (output modes). Thread: one. */
#ifndef CLIENT_SHELL_H
#define CLIENT_SHELL_H

#include "client/lectern.h"
#include "client/shell_print.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define SHELL_DEFAULT_ADDRESS "127.0.0.1:7701"
#define SHELL_VERSION         "0.1.0"
/* A statement may take so long when nothing else is said: as long as a node lets it. */
#define SHELL_TIMEOUT_MS 600000

#define EXIT_INTERRUPT 130 /* after Ctrl-C */

struct shell_edit;

struct shell {
    lectern *db;
    struct print_settings print;
    FILE *out;
    bool out_once; /* .once: back to standard output after the next statement */
    bool interactive, bail, echo, changes, timer;
    bool quit;
    unsigned failures, failures_before; /* in all; before the current input began */
    int exit_code;                      /* .exit CODE */
    int level;                          /* LECTERN_READ_... */
    uint32_t bound_ms, timeout_ms;      /* timeout: 0: the default */
    /* Where the input stands, for messages. */
    unsigned line;           /* of the statement's beginning; 0: not from lines */
    unsigned depth;          /* of .read */
    struct shell_edit *edit; /* NULL: no line editing */
};

/* Set by Ctrl-C; whoever acts on it clears it. */
extern volatile sig_atomic_t shell_interrupted;

/* Says what went wrong, once, on standard error; counts it. */
void shell_complain(struct shell *sh, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The output goes to standard output again. */
void shell_output_reset(struct shell *sh);
/* The current input must end here: .quit, Ctrl-C, or its first error with --bail. */
bool shell_must_stop(const struct shell *sh);

#endif
