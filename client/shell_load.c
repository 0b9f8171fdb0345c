/* Room: client.   Thread: one.   Owns: the command's state.
 *
 *     options -> which kind of file? -> load_db or load_sql -> foreign keys checked -> what was
 * done
 *
 * Foreign keys are off in the session while it loads, as in sqlite3's own .dump: rows come table by
 * table. */
#include "client/shell_load.h"

#include "base/sizes.h"
#include "client/shell.h"
#include "client/shell_command.h"
#include "client/shell_load_batch.h"
#include "client/shell_text.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TIMEOUT_MS     600000u
#define MAGIC_BYTES    16
#define VIOLATIONS_MAX 10 /* are named */

static const char usage_text[] =
    "Usage: lectern load [--connect ADDRESS[,ADDRESS...]] [OPTIONS] FILE\n"
    "Loads a SQLite database, or a file of SQL (- is standard input), into a Lectern cluster.\n"
    "ADDRESS is HOST:PORT of any node; default: $LECTERN_ADDRESS, or " SHELL_DEFAULT_ADDRESS ".\n"
    "\n"
    "  --atomic          all in one transaction: nothing of it, or everything\n"
    "  --batch-bytes N   of one batch of rows or statements (1048576)\n"
    "  --timeout MS      how long one batch, or one index, may take (600000)\n"
    "  -h --help\n"
    "\n"
    "A database: none of its tables may be there yet. A file of SQL: its own transactions stay\n"
    "what they are, all else goes in batches. Exit status: 0; 1 after an error; 2 when the "
    "command\n"
    "line is wrong; 130 after Ctrl-C. See lectern(1).\n";

/* --- for the parts ------------------------------------------------------------------------------
 */

enum err load_failed(const struct load *l, int rc, const char *what)
{
    int code = rc & 0xff;
    /* A transaction that was too slow would be too slow again. */
    if (lectern_extended_errcode(l->db) == LECTERN_TXN_TIMEOUT)
        return err_fail(ERR_TIMEOUT, "%s%s%s: %s, or raise that limit on all nodes", what,
                        *what == 0 ? "" : ": ", lectern_errmsg(l->db),
                        l->atomic ? "load without --atomic"
                                  : "take BEGIN and COMMIT out of the file");
    enum err e = code == LECTERN_TXN_LOST    ? ERR_TXN_LOST
                 : code == LECTERN_UNKNOWN   ? ERR_UNKNOWN
                 : code == LECTERN_INTERRUPT ? ERR_CANCELLED
                 : code == LECTERN_NOMEM     ? ERR_NOMEM
                                             : ERR_SQL;
    return err_fail(e, "%s%s%s", what, *what == 0 ? "" : ": ", lectern_errmsg(l->db));
}

enum err load_may_go_on(void)
{
    return shell_interrupted == 0 ? ERR_OK : err_fail(ERR_CANCELLED, "interrupted");
}

enum err load_run(struct load *l, const char *sql, const char *what)
{
    TRY(load_may_go_on());
    int rc = lectern_exec(l->db, sql, NULL, NULL, NULL);
    return rc == LECTERN_OK || rc == LECTERN_ROWS_LOST ? ERR_OK : load_failed(l, rc, what);
}

static int take_number(void *arg, int n, char **values, char **names)
{
    int64_t *to = arg;
    (void)names;
    if (n > 0 && values[0] != NULL)
        *to = strtoll(values[0], NULL, 10);
    return 0;
}

enum err load_ask_number(struct load *l, const char *sql, const char *what, int64_t *to)
{
    TRY(load_may_go_on());
    int rc = lectern_exec(l->db, sql, take_number, to, NULL);
    return rc == LECTERN_OK ? ERR_OK : load_failed(l, rc, what);
}

enum err load_begin(struct load *l)
{
    return load_run(l, "BEGIN IMMEDIATE", "BEGIN");
}

enum err load_end(struct load *l, enum err e)
{
    char why[ERR_TEXT_MAX];
    if (e == ERR_OK)
        return load_run(l, "COMMIT", "COMMIT");
    (void)snprintf(why, sizeof why, "%s", err_text());
    if (!lectern_get_autocommit(l->db)) /* when this fails, too, the session's end does it */
        (void)lectern_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
    return err_fail(e, "%s", why);
}

/* --- the end ------------------------------------------------------------------------------------
 */

static int note_violation(void *arg, int n, char **values, char **names)
{
    uint64_t *violations = arg;
    (void)names;
    if ((*violations)++ < VIOLATIONS_MAX && n >= 3)
        (void)fprintf(stderr, "Warning: %s, row %s: its parent in %s is not there\n",
                      values[0] == NULL ? "?" : values[0], values[1] == NULL ? "?" : values[1],
                      values[2] == NULL ? "?" : values[2]);
    return 0;
}

/* A file whose foreign keys were never enforced is loaded as it is, and somebody hears of it. */
static void check_foreign_keys(struct load *l)
{
    uint64_t violations = 0;
    progress_clear(&l->progress);
    int rc = lectern_exec(l->db, "PRAGMA foreign_key_check", note_violation, &violations, NULL);
    if (rc != LECTERN_OK)
        (void)fprintf(stderr, "Warning: foreign keys were not checked: %s\n",
                      lectern_errmsg(l->db));
    if (violations > VIOLATIONS_MAX)
        (void)fprintf(stderr, "Warning: %" PRIu64 " rows without their parents in all\n",
                      violations);
}

static void say_what_was_done(struct load *l, bool is_db)
{
    double seconds = progress_seconds(&l->progress);
    if (is_db)
        (void)printf(
            "loaded %" PRIu64 " tables, %" PRIu64 " rows, %.1f MB in %.1f s (%.0f rows/s)\n",
            l->tables, l->rows, (double)l->bytes / 1e6, seconds, (double)l->rows / seconds);
    else
        (void)printf("ran %" PRIu64 " statements, %.1f MB in %.1f s (%.0f/s)\n", l->statements,
                     (double)l->bytes / 1e6, seconds, (double)l->statements / seconds);
}

/* After an error: what stands in the cluster now. */
static void say_what_stands(const struct load *l, bool is_db, enum err e)
{
    if (!l->began)
        return; /* the error says so */
    if (l->atomic && e != ERR_UNKNOWN)
        (void)fprintf(stderr, "Nothing was loaded.\n");
    else if (l->atomic)
        (void)fprintf(stderr, "All of it was loaded, or nothing: look before you try again.\n");
    else if (is_db && l->tables == 0 && l->rows == 0)
        (void)fprintf(stderr, "No row was loaded; look for tables that stand there empty.\n");
    else if (is_db)
        (void)fprintf(stderr,
                      "Loaded before: %" PRIu64 " whole tables, %" PRIu64
                      " rows in all. Drop the tables before you try again, or use --atomic.\n",
                      l->tables, l->rows);
    else
        (void)fprintf(stderr, "Done before: %" PRIu64 " statements.\n", l->statements);
    if (!l->atomic && (e == ERR_CANCELLED || e == ERR_UNKNOWN))
        (void)fprintf(stderr, "What was under way is done as a whole, or not at all.\n");
}

/* --- the command --------------------------------------------------------------------------------
 */

/* By its first characters: no statement and no comment begins with what is no text. */
static bool may_be_sql(const char *head, size_t n)
{
    const char *end = head + n;
    unsigned code;
    for (const char *p = head; p < end && p < head + MAGIC_BYTES;) {
        size_t used = text_char(p, end, &code);
        if (used == 0 || (code < ' ' && !isspace((int)code)))
            return false;
        p += used;
    }
    return true;
}

static enum err look_at_file(const char *path, FILE **in, bool *is_db)
{
    static const char magic[MAGIC_BYTES] = "SQLite format 3";
    struct stat about;
    char head[2 * MAGIC_BYTES]; /* a character of the first half is whole */
    *is_db = false;
    if (strcmp(path, "-") == 0) {
        *in = stdin;
        return ERR_OK;
    }
    *in = fopen(path, "re");
    if (*in == NULL)
        return err_fail(ERR_NOT_FOUND, "cannot open %s: %s", path, strerror(errno));
    if (fstat(fileno(*in), &about) == 0 && S_ISFIFO(about.st_mode))
        return ERR_OK; /* cannot be read again: SQL, as on standard input */
    size_t n = fread(head, 1, sizeof head, *in);
    if (n < sizeof head && ferror(*in))
        return err_fail(ERR_IO, "cannot read %s: %s", path, strerror(errno));
    *is_db = n >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
    if (!*is_db && !may_be_sql(head, n))
        return err_fail(ERR_FORMAT,
                        "%s is neither a SQLite database (its beginning is another) nor SQL in "
                        "UTF-8: is it compressed, encrypted, in UTF-16, or damaged? Nothing was "
                        "loaded",
                        path);
    if (!*is_db)
        (void)fseeko(*in, 0, SEEK_SET);
    return ERR_OK;
}

static enum err load_file(struct load *l, FILE *in, bool is_db)
{
    TRY(load_run(l, "PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys"));
    TRY(is_db ? load_db(l) : load_sql(l, in));
    check_foreign_keys(l);
    return ERR_OK;
}

static int run(struct load *l, const char *connect, int64_t timeout_ms)
{
    FILE *in = NULL;
    bool is_db;
    enum err e = look_at_file(l->file, &in, &is_db);
    if (e != ERR_OK) {
        (void)fprintf(stderr, "Error: %s\n", err_text());
    } else {
        l->db = command_open(connect, timeout_ms);
        if (l->db == NULL)
            e = ERR_CLOSED; /* complained about */
    }
    if (l->db != NULL) {
        progress_init(&l->progress);
        e = load_file(l, in, is_db);
        progress_clear(&l->progress);
        if (e == ERR_OK) {
            say_what_was_done(l, is_db);
        } else {
            (void)fprintf(stderr, "Error: %s\n",
                          shell_interrupted != 0 ? "interrupted" : err_text());
            say_what_stands(l, is_db, e);
        }
        command_close(l->db);
    }
    if (in != NULL && in != stdin)
        (void)fclose(in);
    if (shell_interrupted != 0 && e != ERR_OK)
        return EXIT_INTERRUPT;
    return e == ERR_OK ? 0 : 1;
}

int shell_load(int argc, char **argv)
{
    enum { OPT_CONNECT = 256, OPT_ATOMIC, OPT_BATCH_BYTES, OPT_TIMEOUT, OPT_HELP = 'h' };
    static const struct option flags[] = {{"connect", required_argument, NULL, OPT_CONNECT},
                                          {"atomic", no_argument, NULL, OPT_ATOMIC},
                                          {"batch-bytes", required_argument, NULL, OPT_BATCH_BYTES},
                                          {"timeout", required_argument, NULL, OPT_TIMEOUT},
                                          {"help", no_argument, NULL, OPT_HELP},
                                          {NULL, 0, NULL, 0}};
    struct load l = {.batch_bytes = LOAD_BATCH_BYTES};
    const char *connect = NULL;
    int64_t timeout_ms = TIMEOUT_MS;
    int id;
    optind = 0; /* begin anew, and take options anywhere */
    while ((id = getopt_long(argc, argv, "h", flags, NULL)) != -1) {
        if (id == OPT_CONNECT) {
            connect = optarg;
        } else if (id == OPT_ATOMIC) {
            l.atomic = true;
        } else if (id == OPT_BATCH_BYTES) {
            l.batch_bytes = command_number(
                "load", optarg, "--batch-bytes wants 1 to 16777216, not ", LOAD_BATCH_BYTES_MAX);
        } else if (id == OPT_TIMEOUT) {
            timeout_ms = (int64_t)command_number(
                "load", optarg, "--timeout wants milliseconds, not ", COMMAND_TIMEOUT_MAX);
        } else if (id == OPT_HELP) {
            (void)fputs(usage_text, stdout);
            return 0;
        } else {
            return 2; /* getopt has said why */
        }
    }
    if (optind == argc)
        command_usage_error("load", "which file?", "");
    l.file = argv[optind++];
    if (optind < argc)
        command_usage_error("load", "one argument too many: ", argv[optind]);
    return run(&l, command_address(connect), timeout_ms);
}
