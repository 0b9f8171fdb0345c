/* Room: client. The program `lectern`: an SQL shell for a cluster, with the manners of sqlite3's.
 *
 * Thread: one.   Owns: the shell's state, the signal handler.
 *
 *     options -> lectern_open -> [--cmd] -> SQL of the command line, or terminal, or file/pipe ->
 * exit
 *
 * Not here: everything that happens between (shell_input.c and the files it names). */
#include "client/shell.h"

#include "client/shell_cluster.h"
#include "client/shell_command.h"
#include "client/shell_dot.h"
#include "client/shell_edit.h"
#include "client/shell_export.h"
#include "client/shell_input.h"
#include "client/shell_load.h"
#include "client/shell_run.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COMMANDS_MAX 64

volatile sig_atomic_t shell_interrupted;
static volatile sig_atomic_t connecting; /* for the signal handler */

static void on_interrupt(int signal)
{
    (void)signal;
    /* The second one while the first is not answered: leave. */
    if (shell_interrupted++ > 0)
        _exit(EXIT_INTERRUPT);
    if (connecting)
        command_leave();
    if (!shell_run_interrupt())
        shell_edit_interrupt();
}

void shell_complain(struct shell *sh, const char *format, ...)
{
    va_list args;
    (void)fflush(sh->out);
    (void)fputs("Error: ", stderr);
    if (!sh->interactive && sh->line > 0)
        (void)fprintf(stderr, "near line %u: ", sh->line);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)putc('\n', stderr);
    sh->failures++;
}

void shell_output_reset(struct shell *sh)
{
    if (sh->out != stdout && fclose(sh->out) != 0) {
        sh->out = stdout;
        shell_complain(sh, "cannot write the output: %s", strerror(errno));
    }
    sh->out = stdout;
    sh->out_once = false;
}

bool shell_must_stop(const struct shell *sh)
{
    return sh->quit || shell_interrupted != 0 || (sh->bail && sh->failures > sh->failures_before);
}

/* --- options ---------------------------------------------------------------------------------- */

enum option_id {
    OPT_MODE = 256, /* the name of the option is the mode */
    OPT_HEADER,
    OPT_NOHEADER,
    OPT_BAIL,
    OPT_BATCH,
    OPT_CMD,
    OPT_ECHO,
    OPT_NULLVALUE,
    OPT_SEPARATOR,
    OPT_READ,
    OPT_TIMEOUT,
    OPT_VERSION,
    OPT_HELP = 'h',
};

static const struct option options[] = {
    {"box", no_argument, NULL, OPT_MODE},
    {"column", no_argument, NULL, OPT_MODE},
    {"csv", no_argument, NULL, OPT_MODE},
    {"json", no_argument, NULL, OPT_MODE},
    {"line", no_argument, NULL, OPT_MODE},
    {"list", no_argument, NULL, OPT_MODE},
    {"markdown", no_argument, NULL, OPT_MODE},
    {"quote", no_argument, NULL, OPT_MODE},
    {"table", no_argument, NULL, OPT_MODE},
    {"tabs", no_argument, NULL, OPT_MODE},
    {"header", no_argument, NULL, OPT_HEADER},
    {"headers", no_argument, NULL, OPT_HEADER},
    {"noheader", no_argument, NULL, OPT_NOHEADER},
    {"bail", no_argument, NULL, OPT_BAIL},
    {"batch", no_argument, NULL, OPT_BATCH},
    {"cmd", required_argument, NULL, OPT_CMD},
    {"echo", no_argument, NULL, OPT_ECHO},
    {"nullvalue", required_argument, NULL, OPT_NULLVALUE},
    {"separator", required_argument, NULL, OPT_SEPARATOR},
    {"read", required_argument, NULL, OPT_READ},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static const char help_text[] =
    "Usage: lectern [OPTIONS] [ADDRESS[,ADDRESS...]] [SQL...]\n"
    "       lectern cluster COMMAND     members: lectern cluster --help\n"
    "       lectern load FILE           a SQLite file, or SQL, into the cluster\n"
    "       lectern dump [FILE]         the database as SQL\n"
    "       lectern export FILE         a copy of the database as a SQLite file\n"
    "       lectern check DIR           verify the files of a stopped node\n"
    "Runs SQL on a Lectern cluster: the SQL of the command line, or of standard input.\n"
    "ADDRESS is HOST:PORT of any node; default: $LECTERN_ADDRESS, or " SHELL_DEFAULT_ADDRESS ".\n"
    "\n"
    "      --box --column --csv --json --line --list --markdown --quote --table --tabs\n"
    "                        how rows look (default: box at a terminal, else list)\n"
    "      --header          show the names of columns (--noheader: do not)\n"
    "      --nullvalue TEXT  show NULL as TEXT\n"
    "      --separator TEXT  between the columns of the modes list and csv\n"
    "      --cmd SQL         run SQL, or a dot command, first; may be repeated\n"
    "      --bail            stop at the first error\n"
    "      --batch           no prompt, also at a terminal\n"
    "      --echo            show each statement before it runs\n"
    "      --read LEVEL      how new a read must be: any, bounded:MS, session (default), strong\n"
    "      --timeout MS      a statement ends after MS milliseconds (600000)\n"
    "      -h --help --version\n"
    "\n"
    "Exit status: 0; 1 after an error; 2 when the command line is wrong; 130 after Ctrl-C.\n"
    ".help in the shell lists its commands. See lectern(1).\n";

struct arguments {
    const char *commands[COMMANDS_MAX];
    int n_commands;
    const char *mode, *null_value, *separator;
    int headers; /* -1: as the mode has it */
    bool batch;
};

_Noreturn static void usage_error(const char *what, const char *value)
{
    (void)fprintf(stderr, "lectern: %s%s\nTry 'lectern --help'.\n", what, value);
    exit(2);
}

static void take_timeout(struct shell *sh, const char *text)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (*end != '\0' || !isdigit((unsigned char)text[0]) || v > UINT32_MAX)
        usage_error("--timeout wants milliseconds, not ", text);
    sh->timeout_ms = (uint32_t)v;
}

static void take_option(struct shell *sh, struct arguments *a, int id, const char *name)
{
    switch (id) {
    case OPT_MODE:
        a->mode = name;
        break;
    case OPT_HEADER:
    case OPT_NOHEADER:
        a->headers = id == OPT_HEADER;
        break;
    case OPT_BAIL:
        sh->bail = true;
        break;
    case OPT_BATCH:
        a->batch = true;
        break;
    case OPT_ECHO:
        sh->echo = true;
        break;
    case OPT_CMD:
        if (a->n_commands == COMMANDS_MAX)
            usage_error("too many --cmd", "");
        a->commands[a->n_commands++] = optarg;
        break;
    case OPT_NULLVALUE:
        a->null_value = optarg;
        break;
    case OPT_SEPARATOR:
        a->separator = optarg;
        break;
    case OPT_READ:
        if (!shell_set_level(sh, optarg))
            usage_error("--read wants any, bounded:MS, session or strong, not ", optarg);
        break;
    case OPT_TIMEOUT:
        take_timeout(sh, optarg);
        break;
    case OPT_VERSION:
        (void)printf("lectern " SHELL_VERSION " (SQLite %s for its syntax)\n",
                     sqlite3_libversion());
        exit(0);
    case OPT_HELP:
        (void)fputs(help_text, stdout);
        exit(0);
    default:
        usage_error("wrong options", "");
    }
}

/* sqlite3's options have one dash; we take both, since everybody's fingers know those. */
static void take_shell_options(struct shell *sh, struct arguments *a, int argc, char **argv)
{
    int id, index = 0;
    while ((id = getopt_long_only(argc, argv, "+h", options, &index)) != -1)
        take_option(sh, a, id, id == '?' ? "" : options[index].name);
}

/* An address and no SQL: a word without blanks, dots first excluded, that ends in :digits or in a
 * list of such. */
static bool looks_like_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    return text[0] != '.' && colon != NULL && colon[1] != '\0' &&
           strspn(colon + 1, "0123456789") == strlen(colon + 1) &&
           strpbrk(text, " \t\n;'\"()") == NULL;
}

static void apply_print_options(struct shell *sh, const struct arguments *a)
{
    struct print_settings *s = &sh->print;
    (void)print_set_mode(s, a->mode != NULL ? a->mode : sh->interactive ? "box" : "list");
    if (a->mode != NULL && s->mode == PRINT_CSV) /* as sqlite3 -csv; .mode csv has CR LF */
        (void)snprintf(s->row_separator, sizeof s->row_separator, "\n");
    if (a->headers >= 0) {
        s->headers = a->headers != 0;
        s->headers_set = true;
    }
    if (a->null_value != NULL)
        (void)snprintf(s->null_value, sizeof s->null_value, "%s", a->null_value);
    if (a->separator != NULL)
        (void)snprintf(s->separator, sizeof s->separator, "%s", a->separator);
}

/* --- start ------------------------------------------------------------------------------------ */

static void set_up_process(void)
{
    struct sigaction act = {.sa_handler = on_interrupt};
    (void)sigaction(SIGINT, &act, NULL); /* without SA_RESTART: a wait must notice */
    (void)setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        (void)setlocale(LC_CTYPE, "C.UTF-8"); /* text is UTF-8 whatever the locale says */
}

static bool connect_shell(struct shell *sh, const char *addresses)
{
    connecting = 1;
    int rc = command_connect(addresses, &sh->db);
    connecting = 0;
    if (rc == LECTERN_OK)
        return shell_apply_settings(sh);
    (void)fprintf(stderr, "Error: %s\n", lectern_errmsg(sh->db));
    return false;
}

static void greet(const struct shell *sh)
{
    /* Each answer is valid until the next call. */
    (void)printf("Lectern %s", lectern_info(sh->db, LECTERN_INFO_SERVER));
    (void)printf(": node %s", lectern_info(sh->db, LECTERN_INFO_NODE));
    (void)printf(" at %s", lectern_info(sh->db, LECTERN_INFO_ADDRESS));
    (void)printf(" (SQLite %s)\nEnter \".help\" for help.\n",
                 lectern_info(sh->db, LECTERN_INFO_SQLITE));
}

static void run_input(struct shell *sh, char **sql, int n)
{
    if (n > 0) {
        for (int i = 0; i < n && !shell_must_stop(sh); i++)
            shell_input_text(sh, sql[i]);
        return;
    }
    if (sh->interactive)
        sh->edit = shell_edit_open();
    if (sh->edit == NULL) {
        shell_input_file(sh, stdin);
        return;
    }
    greet(sh);
    shell_input_terminal(sh);
    shell_edit_close(sh->edit);
}

/* The server's program beside this one, else the one in PATH: it knows the files. */
static int check_directory(char **argv)
{
    char path[4096];
    char server[] = "lecternd";
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof server);
    while (n > 0 && path[n - 1] != '/')
        n--;
    if (n > 0) {
        memcpy(path + n, server, sizeof server);
        (void)execv(path, argv);
    }
    (void)execvp(server, argv);
    (void)fprintf(stderr, "Error: cannot run lecternd, which checks the files: %s\n",
                  strerror(errno));
    return 1;
}

/* A lone word that is no whole statement of SQL: a command that was mistyped. */
static bool looks_like_command(const char *text)
{
    static const char *const statements[] = {"begin",  "commit",  "end",    "rollback",
                                             "vacuum", "analyze", "reindex"};
    for (const char *p = text; *p != '\0'; p++)
        if (!isalpha((unsigned char)*p))
            return false;
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++)
        if (strcasecmp(text, statements[i]) == 0)
            return false;
    return text[0] != '\0';
}

static int no_command(const char *text)
{
    (void)fprintf(
        stderr,
        "Error: no command %s: there are cluster, load, dump, export and check; an address "
        "needs its port (%s:7701), SQL needs whole statements (lectern ADDRESS "
        "\"SELECT 1\")\n",
        text, text);
    return 1;
}

int main(int argc, char **argv)
{
    struct shell sh = {.out = stdout, .level = LECTERN_READ_SESSION};
    struct arguments a = {.headers = -1};
    if (argc > 1 && strcmp(argv[1], "cluster") == 0)
        return shell_cluster(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "load") == 0)
        return shell_load(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "dump") == 0)
        return shell_dump_command(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "export") == 0)
        return shell_export(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "check") == 0)
        return check_directory(argv);
    if (argc > 1 && looks_like_command(argv[1]))
        return no_command(argv[1]);
    set_up_process();
    print_settings_init(&sh.print);
    take_shell_options(&sh, &a, argc, argv);
    const char *address = getenv("LECTERN_ADDRESS");
    if (address == NULL || *address == '\0')
        address = SHELL_DEFAULT_ADDRESS;
    if (optind < argc && looks_like_address(argv[optind])) {
        address = argv[optind++];
        take_shell_options(&sh, &a, argc, argv); /* options may stand behind the address, too */
    }
    sh.interactive = optind == argc && !a.batch && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    apply_print_options(&sh, &a);
    if (!connect_shell(&sh, address)) {
        (void)lectern_close(sh.db);
        return 1;
    }
    for (int i = 0; i < a.n_commands && !shell_must_stop(&sh); i++)
        shell_input_text(&sh, a.commands[i]);
    if (!shell_must_stop(&sh))
        run_input(&sh, argv + optind, argc - optind);
    shell_output_reset(&sh);
    if (fflush(stdout) != 0)
        shell_complain(&sh, "cannot write the output: %s", strerror(errno));
    (void)lectern_close(sh.db);
    if (shell_interrupted && !sh.interactive)
        return EXIT_INTERRUPT;
    /* At a terminal the errors were seen; a program needs the code. */
    return sh.exit_code != 0 ? sh.exit_code : sh.failures > 0 && !sh.interactive ? 1 : 0;
}
