/* Room: client.   Thread: one; on_interrupt in a signal handler.
 * Owns: which session Ctrl-C ends. */
#include "client/shell_command.h"

#include "client/shell.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_MS "5000" /* until a first node answers */
#define URL_MAX    8192

/* For the signal handler; NULL: none. A pointer is stored whole on every machine that Lectern runs
 * on. */
static lectern *volatile session;

static void on_interrupt(int number)
{
    lectern *db = session;
    (void)number;
    if (shell_interrupted++ > 0)
        _exit(EXIT_INTERRUPT);
    if (db == NULL)
        command_leave(); /* while it connects: nothing was begun */
    lectern_interrupt(db);
}

_Noreturn void command_leave(void)
{
    static const char said[] = "Error: interrupted\n";
    ssize_t n = write(STDERR_FILENO, said, sizeof said - 1);
    (void)n; /* nobody to tell */
    _exit(EXIT_INTERRUPT);
}

const char *command_address(const char *connect)
{
    if (connect == NULL || connect[0] == 0)
        connect = getenv("LECTERN_ADDRESS");
    return connect == NULL || connect[0] == 0 ? SHELL_DEFAULT_ADDRESS : connect;
}

int command_connect(const char *addresses, lectern **db)
{
    char url[URL_MAX];
    const char *own = strstr(addresses, "timeout=") != NULL ? "" : "&timeout=" CONNECT_MS;
    int n = snprintf(url, sizeof url, "%s%cname=lectern%%20" SHELL_VERSION "%s", addresses,
                     strchr(addresses, '?') == NULL ? '?' : '&', own);
    return lectern_open(n < (int)sizeof url ? url : addresses, db);
}

lectern *command_open(const char *addresses, int64_t timeout_ms)
{
    struct sigaction act = {.sa_handler = on_interrupt}; /* no SA_RESTART: a wait must notice */
    lectern *db = NULL;
    (void)sigaction(SIGINT, &act, NULL);
    int rc = command_connect(addresses, &db);
    if (rc == LECTERN_OK)
        rc = lectern_timeout(db, timeout_ms);
    if (rc != LECTERN_OK) {
        (void)fprintf(stderr, "Error: %s\n", lectern_errmsg(db));
        (void)lectern_close(db);
        return NULL;
    }
    session = db;
    return db;
}

void command_close(lectern *db)
{
    session = NULL;
    (void)lectern_close(db);
}

_Noreturn void command_usage_error(const char *command, const char *what, const char *value)
{
    (void)fprintf(stderr, "lectern %s: %s%s\nTry 'lectern %s --help'.\n", command, what, value,
                  command);
    exit(2);
}

uint64_t command_number(const char *command, const char *text, const char *what, uint64_t max)
{
    char *end;
    unsigned long long v = strtoull(text, &end, 10);
    if (*end != 0 || !isdigit((unsigned char)text[0]) || v == 0 || v > max)
        command_usage_error(command, what, text);
    return v;
}
