/* Room: client. Thread: one. Owns: its session and the rows of one answer.
 *
 *     cluster list                     STATUS, as a table
 *     cluster add|remove|...           CLUSTER; the server's sentence is the answer
 *
 * Not here: what may be done (the leader's node/admin.c decides and says so). */
#include "client/shell_cluster.h"

#include "client/shell.h"
#include "client/shell_command.h"
#include "client/shell_run.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS  60000u
#define ROWS_MAX    32
#define ADDRESS_MAX 256 /* with its final zero; a node takes no longer one */
#define CELL_MAX    600
#define STATUS_MAX  64 /* columns of STATUS that we look at */

static const char usage_text[] =
    "Usage: lectern cluster [--connect ADDRESS[,ADDRESS...]] COMMAND\n"
    "Shows and changes the members of a Lectern cluster.\n"
    "ADDRESS is HOST:PORT of any node; default: $LECTERN_ADDRESS, or " SHELL_DEFAULT_ADDRESS ".\n"
    "\n"
    "  list                who is a member, and how each one is\n"
    "  add PEER_ADDRESS    a member for a node to come: start `lecternd --join` with that\n"
    "                      --peer-listen, it takes the place (--join alone does both)\n"
    "  remove ID           a node that is dead or to be taken away; a leader hands over first\n"
    "  promote ID          a replica gets a vote\n"
    "  demote ID           a voter becomes a replica, which has none\n"
    "  transfer [ID]       another voter leads\n"
    "\n"
    "  --force             also when it may stop the cluster, or the replica is far behind\n"
    "  --timeout MS        how long to wait (60000)\n"
    "  -h --help\n"
    "\n"
    "Each command ends when its change is committed. Exit status: 0; 1 after an error; 2 when the\n"
    "command line is wrong; 130 after Ctrl-C. See lectern(1).\n";

/* --- the list --------------------------------------------------------------------------------- */

enum column {
    COL_ID,
    COL_ROLE,
    COL_PEER,
    COL_CLIENT,
    COL_SEQ,
    COL_LAG,
    COL_WAL,
    COL_LOG,
    COL_SNAPSHOT,
    COL_CHECKSUM,
    COL_VERSION,
    COL_STATE,
    COLUMNS
};

static const char *const titles[COLUMNS] = {"id",       "role",     "peer",    "client",
                                            "seq",      "lag",      "wal",     "log",
                                            "snapshot", "checksum", "version", "state"};

struct table {
    char names[STATUS_MAX][32]; /* of STATUS's columns */
    uint32_t n_names;
    char cells[ROWS_MAX][COLUMNS][CELL_MAX];
    unsigned n_rows;
};

static enum err on_columns(void *arg, const char *const *names, uint32_t n)
{
    struct table *t = arg;
    t->n_names = n < STATUS_MAX ? n : STATUS_MAX;
    for (uint32_t i = 0; i < t->n_names; i++)
        (void)snprintf(t->names[i], sizeof t->names[i], "%.31s", names[i]);
    return ERR_OK;
}

/* The value of STATUS's column NAME; NULL when it is not there or NULL. */
static const struct shell_value *value_of(const struct table *t, const struct shell_value *v,
                                          uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < t->n_names && i < n; i++)
        if (strcmp(t->names[i], name) == 0)
            return v[i].type == LECTERN_NULL ? NULL : &v[i];
    return NULL;
}

static void put_value(char *out, const struct shell_value *v)
{
    if (v == NULL)
        (void)snprintf(out, CELL_MAX, "-");
    else if (v->type == LECTERN_INTEGER)
        (void)snprintf(out, CELL_MAX, "%" PRId64, v->integer);
    else if (v->type == LECTERN_TEXT)
        (void)snprintf(out, CELL_MAX, "%.*s",
                       (int)(v->text.len < CELL_MAX ? v->text.len : CELL_MAX - 1), v->text.bytes);
    else
        (void)snprintf(out, CELL_MAX, "?");
}

static double megabytes(const struct shell_value *v)
{
    return v == NULL || v->type != LECTERN_INTEGER ? 0.0 : (double)v->integer / 1e6;
}

static void put_age(char *out, size_t max, int64_t seconds)
{
    if (seconds < 120)
        (void)snprintf(out, max, "%" PRId64 " s ago", seconds);
    else if (seconds < 7200)
        (void)snprintf(out, max, "%" PRId64 " min ago", seconds / 60);
    else
        (void)snprintf(out, max, "%" PRId64 " h ago", seconds / 3600);
}

static void put_snapshot(char *out, const struct shell_value *index, const struct shell_value *age)
{
    char text[64] = "";
    if (index == NULL || index->type != LECTERN_INTEGER || index->integer == 0) {
        (void)snprintf(out, CELL_MAX, "none");
        return;
    }
    if (age != NULL && age->type == LECTERN_INTEGER)
        put_age(text, sizeof text, age->integer);
    (void)snprintf(out, CELL_MAX, "%" PRId64 "%s%s", index->integer, text[0] != 0 ? ", " : "",
                   text);
}

static void put_log(char *out, const struct shell_value *bytes, const struct shell_value *first,
                    const struct shell_value *last)
{
    if (first == NULL || last == NULL || first->type != LECTERN_INTEGER ||
        last->type != LECTERN_INTEGER)
        (void)snprintf(out, CELL_MAX, "-");
    else if (last->integer < first->integer)
        (void)snprintf(out, CELL_MAX, "%.1f MB, empty", megabytes(bytes));
    else
        (void)snprintf(out, CELL_MAX, "%.1f MB, %" PRId64 "..%" PRId64, megabytes(bytes),
                       first->integer, last->integer);
}

/* One word for both roles: a voter that leads is the leader. */
static void put_role(char *out, const struct shell_value *raft, const struct shell_value *member)
{
    put_value(out, raft);
    if (strcmp(out, "leader") != 0)
        put_value(out, member);
}

static enum err on_row(void *arg, const struct shell_value *v, uint32_t n)
{
    struct table *t = arg;
    if (t->n_rows == ROWS_MAX)
        return ERR_OK;
    char(*cells)[CELL_MAX] = t->cells[t->n_rows++];
    put_value(cells[COL_ID], value_of(t, v, n, "node"));
    put_role(cells[COL_ROLE], value_of(t, v, n, "role"), value_of(t, v, n, "member"));
    put_value(cells[COL_STATE], value_of(t, v, n, "state"));
    put_value(cells[COL_PEER], value_of(t, v, n, "peer"));
    put_value(cells[COL_CLIENT], value_of(t, v, n, "address"));
    put_value(cells[COL_SEQ], value_of(t, v, n, "seq"));
    put_value(cells[COL_LAG], value_of(t, v, n, "lag"));
    (void)snprintf(cells[COL_WAL], CELL_MAX, "%.1f MB", megabytes(value_of(t, v, n, "wal_bytes")));
    put_log(cells[COL_LOG], value_of(t, v, n, "log_bytes"), value_of(t, v, n, "log_first"),
            value_of(t, v, n, "log_last"));
    put_snapshot(cells[COL_SNAPSHOT], value_of(t, v, n, "snapshot"),
                 value_of(t, v, n, "snapshot_age"));
    put_value(cells[COL_CHECKSUM], value_of(t, v, n, "checksum"));
    put_value(cells[COL_VERSION], value_of(t, v, n, "version"));
    return ERR_OK;
}

static void print_line(const char *const cells[COLUMNS], const int widths[COLUMNS])
{
    for (int c = 0; c < COLUMNS; c++) {
        bool number = c == COL_ID || c == COL_SEQ || c == COL_LAG || c == COL_WAL;
        const char *text = cells[c][0] == 0 ? "-" : cells[c];
        if (c == COLUMNS - 1)
            (void)printf("%s\n", text);
        else if (number)
            (void)printf("%*s  ", widths[c], text);
        else
            (void)printf("%-*s  ", widths[c], text);
    }
}

static void print_table(const struct table *t)
{
    int widths[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) {
        widths[c] = (int)strlen(titles[c]);
        for (unsigned r = 0; r < t->n_rows; r++)
            if ((int)strlen(t->cells[r][c]) > widths[c])
                widths[c] = (int)strlen(t->cells[r][c]);
    }
    print_line(titles, widths);
    for (unsigned r = 0; r < t->n_rows; r++) {
        const char *cells[COLUMNS];
        for (int c = 0; c < COLUMNS; c++)
            cells[c] = t->cells[r][c];
        print_line(cells, widths);
    }
}

static int run_list(lectern *db, enum err *e)
{
    struct table *t = calloc(1, sizeof *t);
    struct shell_handler h = {.columns = on_columns, .row = on_row, .arg = t};
    lectern_stmt *stmt = NULL;
    if (t == NULL) {
        *e = err_fail(ERR_NOMEM, "out of memory");
        return LECTERN_DONE;
    }
    int rc = lectern_prepare_status(db, &stmt);
    if (rc == LECTERN_OK)
        rc = shell_step_all(stmt, &h, e);
    if (rc == LECTERN_DONE && *e == ERR_OK)
        print_table(t);
    else if (rc != LECTERN_DONE)
        (void)fprintf(stderr, "Error: %s\n", lectern_errmsg(db));
    (void)lectern_finalize(stmt);
    free(t);
    return rc;
}

/* --- changes ---------------------------------------------------------------------------------- */

/* The last column is the server's sentence. */
static enum err on_done(void *arg, const struct shell_value *v, uint32_t n)
{
    (void)arg;
    if (n > 0 && v[n - 1].type == LECTERN_TEXT)
        (void)printf("%.*s\n", (int)v[n - 1].text.len, v[n - 1].text.bytes);
    return ERR_OK;
}

enum wants { WANTS_NOTHING, WANTS_ID, MAY_HAVE_ID, WANTS_ADDRESS };

static const struct command {
    const char *name;
    enum wants wants;
    struct lectern_member_change w; /* not of the list */
} commands[] = {
    {"list", WANTS_NOTHING, {0}}, /* the first: see run() */
    {"add", WANTS_ADDRESS, {.change = LECTERN_MEMBER_ADD, .role = LECTERN_REPLICA}},
    {"remove", WANTS_ID, {.change = LECTERN_MEMBER_REMOVE}},
    {"promote", WANTS_ID, {.change = LECTERN_MEMBER_ROLE, .role = LECTERN_VOTER}},
    {"demote", WANTS_ID, {.change = LECTERN_MEMBER_ROLE, .role = LECTERN_REPLICA}},
    {"transfer", MAY_HAVE_ID, {.change = LECTERN_MEMBER_TRANSFER}},
};

static uint64_t take_number(const char *text, const char *what, uint64_t max)
{
    return command_number("cluster", text, what, max);
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    command_usage_error("cluster", "there is no command ", name);
}

static void take_argument(const struct command *c, const char *text,
                          struct lectern_member_change *w)
{
    if (c->wants == WANTS_NOTHING && text != NULL)
        command_usage_error("cluster", "list takes no argument: ", text);
    if (c->wants == WANTS_ID && text == NULL)
        command_usage_error("cluster", "wanted the id of a node after ", c->name);
    if (c->wants == WANTS_ADDRESS && text == NULL)
        command_usage_error("cluster", "wanted the peer address, HOST:PORT, after ", c->name);
    if (c->wants == WANTS_ADDRESS) {
        const char *colon = strrchr(text, ':');
        if (colon == NULL || colon == text || colon[1] == 0 || strlen(text) >= ADDRESS_MAX)
            command_usage_error("cluster", "not HOST:PORT: ", text);
        (void)take_number(colon + 1, "a port is 1 to 65535, not ", 65535);
        w->address = text;
    } else if (text != NULL) {
        w->id = take_number(text, "not the id of a node: ", INT64_MAX);
    }
}

struct options {
    const char *connect;
    uint32_t timeout_ms;
    bool force;
};

static void take_cluster_options(int argc, char **argv, struct options *o)
{
    enum { OPT_CONNECT = 256, OPT_FORCE, OPT_TIMEOUT, OPT_HELP = 'h' };
    static const struct option flags[] = {{"connect", required_argument, NULL, OPT_CONNECT},
                                          {"force", no_argument, NULL, OPT_FORCE},
                                          {"timeout", required_argument, NULL, OPT_TIMEOUT},
                                          {"help", no_argument, NULL, OPT_HELP},
                                          {NULL, 0, NULL, 0}};
    int id;
    optind = 0; /* begin anew, and take options anywhere */
    while ((id = getopt_long(argc, argv, "h", flags, NULL)) != -1) {
        if (id == OPT_CONNECT)
            o->connect = optarg;
        else if (id == OPT_FORCE)
            o->force = true;
        else if (id == OPT_TIMEOUT)
            o->timeout_ms = (uint32_t)take_number(optarg, "--timeout wants milliseconds, not ",
                                                  COMMAND_TIMEOUT_MAX);
        else if (id != OPT_HELP)
            exit(2); /* getopt has said why */
        if (id == OPT_HELP) {
            (void)fputs(usage_text, stdout);
            exit(0);
        }
    }
}

static int run_change(lectern *db, const struct lectern_member_change *w, enum err *e)
{
    struct shell_handler h = {.row = on_done};
    lectern_stmt *stmt = NULL;
    int rc = lectern_prepare_member_change(db, w, &stmt);
    if (rc == LECTERN_OK)
        rc = shell_step_all(stmt, &h, e);
    /* The sentence of the failure stays that of the step. */
    if (rc != LECTERN_DONE) {
        (void)fflush(stdout);
        (void)fprintf(stderr, "Error: %s\n", lectern_errmsg(db));
    }
    (void)lectern_finalize(stmt);
    return rc;
}

static bool run(const struct options *o, const struct command *c, struct lectern_member_change *w)
{
    enum err e = ERR_OK;
    lectern *db = command_open(command_address(o->connect), o->timeout_ms);
    if (db == NULL)
        return false; /* complained about */
    w->force = o->force;
    int rc = c == &commands[0] ? run_list(db, &e) : run_change(db, w, &e);
    if (e != ERR_OK)
        (void)fprintf(stderr, "Error: %s\n", err_text());
    command_close(db);
    return rc == LECTERN_DONE && e == ERR_OK;
}

int shell_cluster(int argc, char **argv)
{
    struct options o = {.timeout_ms = TIMEOUT_MS};
    take_cluster_options(argc, argv, &o);
    if (optind == argc)
        command_usage_error("cluster", "no command", "");
    const struct command *c = find(argv[optind++]);
    struct lectern_member_change w = c->w;
    take_argument(c, optind < argc ? argv[optind++] : NULL, &w);
    if (optind < argc)
        command_usage_error("cluster", "one argument too many: ", argv[optind]);
    bool done = run(&o, c, &w);
    if (!done && shell_interrupted != 0)
        return EXIT_INTERRUPT;
    return fflush(stdout) == 0 && done ? 0 : 1;
}
