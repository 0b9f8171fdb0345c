/* Room: client.   Thread: one.   Owns: the file of a dump, FILE.partial until it is whole.
 *
 * Not here: how a database is copied (export.c, shell_copy.c), how it is written as SQL
 * (shell_dump.c). */
#include "client/shell_export.h"

#include "client/shell.h"
#include "client/shell_command.h"
#include "client/shell_copy.h"
#include "client/shell_progress.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define EXPORT_TIMEOUT_MS 30000u /* for each answer */

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
    "(virtual tables: sqlite3 only): to standard output, or into FILE, which must not exist.\n"
    "It is copied first: beside FILE, else into $TMPDIR (/var/tmp), for as long as that takes.\n"
    "ADDRESS is HOST:PORT of any node; default: $LECTERN_ADDRESS, or " SHELL_DEFAULT_ADDRESS ".\n"
    "\n"
    "  --timeout MS   give up when no node gave anything for so long (30000)\n"
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

/* FILE.partial, ours alone; NULL: failed and complained about. */
static FILE *open_partial(struct shell *sh, const char *file, const char *partial)
{
    if (access(file, F_OK) == 0) {
        shell_complain(sh, "cannot make %s: %s", file, strerror(EEXIST));
        return NULL;
    }
    FILE *out = fopen(partial, "ae"); /* what a killed dump has left goes when it is surely ours */
    if (out != NULL && flock(fileno(out), LOCK_EX | LOCK_NB) == 0 && ftruncate(fileno(out), 0) == 0)
        return out;
    shell_complain(sh, "cannot make %s: %s", partial,
                   errno == EWOULDBLOCK ? "another dump writes it" : strerror(errno));
    if (out != NULL)
        (void)fclose(out);
    return NULL;
}

static bool name_it(const char *partial, const char *file)
{
    if (renameat2(AT_FDCWD, partial, AT_FDCWD, file, RENAME_NOREPLACE) == 0)
        return true;
    return errno != EEXIST && link(partial, file) == 0 && unlink(partial) == 0;
}

/* Closes the dump's file, which gets its name if it is WHOLE, and goes otherwise. */
static void end_file(struct shell *sh, const char *file, const char *partial, bool whole)
{
    if (fflush(sh->out) != 0 || ferror(sh->out) || fsync(fileno(sh->out)) != 0) {
        shell_complain(sh, "cannot write %s: %s", partial, strerror(errno));
        whole = false;
    }
    if (whole && !name_it(partial, file)) {
        shell_complain(sh, "cannot make %s: %s", file, strerror(errno));
        whole = false;
    }
    if (!whole)
        (void)unlink(partial);
    (void)fclose(sh->out);
    sh->out = stdout;
}

/* Where there is room for a copy: beside FILE; NULL: where programs have their large files. */
static const char *room_for_copy(const char *file, char *to, size_t room)
{
    const char *slash = file == NULL ? NULL : strrchr(file, '/'), *dir = getenv("TMPDIR");
    if (file == NULL)
        return dir == NULL || dir[0] == 0 ? "/var/tmp" : dir;
    (void)snprintf(to, room, "%.*s", slash == NULL ? 1 : (int)(slash - file) + 1,
                   slash == NULL ? "." : file);
    return to;
}

static bool dump(struct shell *sh, const char *file)
{
    char dir[PATH_MAX];
    struct shell_copy *copy = shell_copy_open(sh, room_for_copy(file, dir, sizeof dir));
    if (copy == NULL)
        return false;
    struct dump_source from = shell_copy_source(copy);
    bool whole = shell_dump_from(sh, &from, NULL, 0) && shell_interrupted == 0;
    shell_copy_close(copy);
    return whole;
}

int shell_dump_command(int argc, char **argv)
{
    struct options o = {.timeout_ms = EXPORT_TIMEOUT_MS};
    struct shell sh = {.out = stdout};
    char partial[PATH_MAX];
    int code = take_options_and_file("dump", dump_usage, argc, argv, &o);
    if (code >= 0)
        return code;
    const char *file = o.file != NULL && strcmp(o.file, "-") != 0 ? o.file : NULL;
    if (file != NULL && snprintf(partial, sizeof partial, "%s.partial", file) >= PATH_MAX)
        command_usage_error("dump", "too long a name: ", file);
    sh.db = command_open(command_address(o.connect), o.timeout_ms);
    if (sh.db == NULL)
        return 1; /* complained about */
    if (file != NULL)
        sh.out = open_partial(&sh, file, partial);
    bool whole = sh.out != NULL && dump(&sh, file);
    if (file != NULL && sh.out != NULL)
        end_file(&sh, file, partial, whole);
    else if (fflush(stdout) != 0)
        shell_complain(&sh, "cannot write the output: %s", strerror(errno));
    command_close(sh.db);
    if (shell_interrupted != 0 && !whole)
        return EXIT_INTERRUPT;
    return sh.failures > 0 ? 1 : 0;
}
