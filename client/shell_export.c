/* Room: client.   Thread: one.   Owns: the file of a dump, until it is whole.
 *
 * Not here: how a database is copied (export.c), how it is written as SQL (shell_dump.c). */
#include "client/shell_export.h"

#include "client/shell.h"
#include "client/shell_command.h"
#include "client/shell_dump.h"
#include "client/shell_progress.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT_TIMEOUT_MS 30000u  /* for each answer */
#define DUMP_TIMEOUT_MS   600000u /* for each statement */
#define EXIT_INTERRUPT    130

static const char export_usage[] =
    "Usage: lectern export [--connect ADDRESS[,ADDRESS...]] [--timeout MS] FILE\n"
    "Copies the whole database, as it is at one moment, into the SQLite file FILE, which must not\n"
    "exist, while writes go on. A follower gives it if there is one.\n"
    "ADDRESS is HOST:PORT of any node; default: $LECTERN_ADDRESS, or " SHELL_DEFAULT_ADDRESS ".\n"
    "\n"
    "  --timeout MS   give up when no node gave anything for so long (30000)\n"
    "  -h --help\n"
    "\n"
    "Exit status: 0; 1 after an error; 2 when the command line is wrong; 130 after Ctrl-C.\n"
    "See lectern(1).\n";

static const char dump_usage[] =
    "Usage: lectern dump [--connect ADDRESS[,ADDRESS...]] [--timeout MS] [FILE]\n"
    "Writes the whole database, as it is at one moment, as SQL for sqlite3 or `lectern load`\n"
    "(virtual tables: sqlite3 only): to\n"
    "standard output, or into FILE, which must not exist.\n"
    "ADDRESS is HOST:PORT of any node; default: $LECTERN_ADDRESS, or " SHELL_DEFAULT_ADDRESS ".\n"
    "\n"
    "  --timeout MS   how long one statement may take (600000)\n"
    "  -h --help\n"
    "\n"
    "Exit status: 0; 1 after an error; 2 when the command line is wrong; 130 after Ctrl-C.\n"
    "See lectern(1).\n";

struct options {
    const char *connect, *file; /* file: NULL: none */
    int64_t timeout_ms;
};

/* What both commands take. -1: go on; else the exit code. */
static int take_options_and_file(const char *command, const char *usage, int argc, char **argv,
                                 struct options *o)
{
    enum { OPT_CONNECT = 256, OPT_TIMEOUT, OPT_HELP = 'h' };
    static const struct option flags[] = {{"connect", required_argument, NULL, OPT_CONNECT},
                                          {"timeout", required_argument, NULL, OPT_TIMEOUT},
                                          {"help", no_argument, NULL, OPT_HELP},
                                          {NULL, 0, NULL, 0}};
    int id;
    optind = 0; /* begin anew, and take options anywhere */
    while ((id = getopt_long(argc, argv, "h", flags, NULL)) != -1) {
        if (id == OPT_CONNECT) {
            o->connect = optarg;
        } else if (id == OPT_TIMEOUT) {
            o->timeout_ms = (int64_t)command_number(
                command, optarg, "--timeout wants milliseconds, not ", COMMAND_TIMEOUT_MAX);
        } else if (id == OPT_HELP) {
            (void)fputs(usage, stdout);
            return 0;
        } else {
            return 2; /* getopt has said why */
        }
    }
    if (optind < argc)
        o->file = argv[optind++];
    if (optind < argc)
        command_usage_error(command, "one argument too many: ", argv[optind]);
    return -1;
}

/* --- export ----------------------------------------------------------------------------------- */

struct exporting {
    struct progress progress;
    const char *file;
    uint64_t total;
};

static int on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct exporting *x = arg;
    x->total = total;
    progress_show(&x->progress, done, total, NULL, done, x->file);
    return shell_interrupted != 0;
}

int shell_export(int argc, char **argv)
{
    struct options o = {.timeout_ms = EXPORT_TIMEOUT_MS};
    int code = take_options_and_file("export", export_usage, argc, argv, &o);
    if (code >= 0)
        return code;
    if (o.file == NULL)
        command_usage_error("export", "to which file?", "");
    lectern *db = command_open(command_address(o.connect), o.timeout_ms);
    if (db == NULL)
        return 1;
    struct exporting x = {.file = o.file};
    progress_init(&x.progress);
    int rc = lectern_export(db, o.file, on_progress, &x);
    progress_clear(&x.progress);
    double seconds = progress_seconds(&x.progress);
    if (rc == LECTERN_OK)
        (void)printf("exported %.1f MB to %s in %.1f s (%.1f MB/s)\n", (double)x.total / 1e6,
                     o.file, seconds, (double)x.total / 1e6 / seconds);
    else
        (void)fprintf(stderr, "Error: %s\n", lectern_errmsg(db));
    command_close(db);
    return rc == LECTERN_OK ? 0 : shell_interrupted != 0 ? EXIT_INTERRUPT : 1;
}

/* --- dump ------------------------------------------------------------------------------------- */

/* Closes the dump's file; one that is not whole goes. */
static void end_file(struct shell *sh, const char *file)
{
    bool bad = fflush(sh->out) != 0 || ferror(sh->out) || fsync(fileno(sh->out)) != 0;
    bad = fclose(sh->out) != 0 || bad;
    sh->out = stdout;
    if (bad)
        shell_complain(sh, "cannot write %s: %s", file, strerror(errno));
    if (sh->failures > 0 || shell_interrupted != 0)
        (void)unlink(file);
}

int shell_dump_command(int argc, char **argv)
{
    struct options o = {.timeout_ms = DUMP_TIMEOUT_MS};
    int code = take_options_and_file("dump", dump_usage, argc, argv, &o);
    if (code >= 0)
        return code;
    struct shell sh = {.out = stdout};
    if (o.file != NULL && strcmp(o.file, "-") != 0) {
        sh.out = fopen(o.file, "wxe");
        if (sh.out == NULL) {
            (void)fprintf(stderr, "Error: cannot make %s: %s\n", o.file, strerror(errno));
            return 1;
        }
    }
    sh.db = command_open(command_address(o.connect), o.timeout_ms);
    if (sh.db == NULL)
        sh.failures++; /* complained about */
    else
        shell_dump(&sh, NULL, 0);
    if (sh.out != stdout)
        end_file(&sh, o.file);
    else if (fflush(stdout) != 0)
        shell_complain(&sh, "cannot write the output: %s", strerror(errno));
    command_close(sh.db);
    if (shell_interrupted != 0)
        return EXIT_INTERRUPT;
    return sh.failures > 0 ? 1 : 0;
}
