/* Room: client.   Thread: one.   Owns: nothing.
 *
 * One table of commands; a command may be shortened as in sqlite3 (.tab, .h). What only a local
 * file can do (.open, .backup, .import, .load, ...) is not here.
 *
 * Not here: .dump (shell_dump.c). */
#include "client/shell_dot.h"

#include "client/shell_dump.h"
#include "client/shell_input.h"
#include "client/shell_literal.h"
#include "client/shell_run.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_MAX  32
#define WIDTH_MAX 10000

struct command {
    const char *name;
    int least, most; /* arguments */
    void (*run)(struct shell *sh, int n, char **args);
    const char *usage, *help;
};

/* --- words ------------------------------------------------------------------------------------ */

/* \t, \n, \r, \\, \0ooo of a double-quoted word, in place. */
static void unescape(char *text)
{
    char *to = text;
    for (char *p = text; *p != '\0'; p++) {
        if (*p != '\\' || p[1] == '\0') {
            *to++ = *p;
            continue;
        }
        p++;
        const char *found = strchr("t\tn\nr\r", *p);
        if (found != NULL && isalpha((unsigned char)*p)) {
            *to++ = found[1];
        } else if (*p >= '0' && *p <= '7') {
            int v = 0;
            for (int i = 0; i < 3 && *p >= '0' && *p <= '7'; i++)
                v = v * 8 + (*p++ - '0');
            p--;
            *to++ = (char)v;
        } else {
            *to++ = *p;
        }
    }
    *to = '\0';
}

/* Cuts LINE into words, at blanks; "..." and '...' hold blanks. Returns how many. */
static int split_words(char *line, char **words)
{
    int n = 0;
    char *p = line;
    while (n < ARGS_MAX) {
        while (isspace((unsigned char)*p))
            p++;
        if (*p == '\0')
            return n;
        char quote = *p == '"' || *p == '\'' ? *p++ : '\0';
        char *begin = p;
        while (*p != '\0' && (quote != '\0' ? *p != quote : !isspace((unsigned char)*p)))
            p += quote == '"' && *p == '\\' && p[1] != '\0' ? 2 : 1;
        if (*p != '\0')
            *p++ = '\0';
        if (quote == '"')
            unescape(begin);
        words[n++] = begin;
    }
    return n;
}

static bool truth(struct shell *sh, const char *word, bool *value)
{
    static const char *const yes[] = {"on", "yes", "true", "1"}, *const no[] = {"off", "no",
                                                                                "false", "0"};
    for (int i = 0; i < 4; i++) {
        if (strcasecmp(word, yes[i]) == 0 || strcasecmp(word, no[i]) == 0) {
            *value = strcasecmp(word, yes[i]) == 0;
            return true;
        }
    }
    shell_complain(sh, "\"%s\" is neither on nor off", word);
    return false;
}

/* A whole number of at most LIMIT either way; complains otherwise. */
static bool number(struct shell *sh, const char *word, int limit, int *value)
{
    char *end;
    long v = strtol(word, &end, 10);
    if (end == word || *end != '\0' || v > limit || v < -limit) {
        shell_complain(sh, "\"%s\" is not a number of at most %d", word, limit);
        return false;
    }
    *value = (int)v;
    return true;
}

static void copy_setting(char to[PRINT_SETTING_MAX], const char *word)
{
    (void)snprintf(to, PRINT_SETTING_MAX, "%s", word);
}

/* --- the schema ------------------------------------------------------------------------------- */

/* Prints names in columns of one screen, as ls and sqlite3 do. */
static void put_names(FILE *out, const struct fetched *f)
{
    struct rd r = fetched_cells(f);
    size_t widest = 0, n;
    for (uint64_t i = 0; i < f->rows; i++) {
        (void)fetched_next(&r, &n);
        widest = n > widest ? n : widest;
    }
    size_t across = 80 / (widest + 2);
    across = across == 0 ? 1 : across;
    size_t down = (f->rows + across - 1) / across;
    for (size_t row = 0; row < down; row++) {
        for (size_t at = row; at < f->rows; at += down) {
            r = fetched_cells(f);
            const char *name = "";
            for (size_t i = 0; i <= at; i++)
                name = fetched_next(&r, &n);
            (void)fprintf(out, "%s%-*s", at < down ? "" : "  ", (int)widest,
                          name == NULL ? "" : name);
        }
        (void)putc('\n', out);
    }
}

static void list_names(struct shell *sh, const char *sql, int n, char **args)
{
    struct fetched f;
    const char *params[] = {n > 0 ? args[0] : "%"};
    fetched_init(&f);
    if (shell_fetch(sh, sql, params, 1, &f) == ERR_OK)
        put_names(sh->out, &f);
    fetched_fini(&f);
}

static void run_tables(struct shell *sh, int n, char **args)
{
    list_names(sh,
               "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE "
               "'sqlite\\_%' ESCAPE '\\' AND name LIKE ?1 ORDER BY 1",
               n, args);
}

static void run_indexes(struct shell *sh, int n, char **args)
{
    list_names(
        sh, "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name LIKE ?1 ORDER BY 1",
        n, args);
}

static enum err put_schema_row(void *arg, const struct shell_value *v, uint32_t n)
{
    (void)n;
    if (v[0].type == LECTERN_TEXT)
        (void)fprintf(arg, "%.*s;\n", (int)v[0].text.len, v[0].text.bytes);
    return ERR_OK;
}

static void run_schema(struct shell *sh, int n, char **args)
{
    const char *params[] = {n > 0 ? args[0] : "%"};
    struct shell_handler h = {.row = put_schema_row, .arg = sh->out};
    enum err err = shell_query(sh,
                               "SELECT sql FROM sqlite_schema WHERE sql NOT NULL AND (name LIKE ?1 "
                               "OR tbl_name LIKE ?1) ORDER BY rowid",
                               params, 1, &h);
    (void)err; /* complained about */
}

static void run_dump(struct shell *sh, int n, char **args)
{
    shell_dump(sh, args, n);
}

/* --- output ----------------------------------------------------------------------------------- */

static void run_mode(struct shell *sh, int n, char **args)
{
    struct print_settings *s = &sh->print;
    if (n == 0) {
        (void)fprintf(sh->out, "current output mode: %s\n", print_mode_name(s->mode));
        return;
    }
    if (!print_set_mode(s, args[0])) {
        shell_complain(sh, "mode should be one of: box column csv insert json line list markdown "
                           "quote table tabs");
        return;
    }
    s->wrap = 0;
    for (int i = 1; i < n; i++) {
        if (strcmp(args[i], "--wrap") == 0 && i + 1 < n) {
            if (number(sh, args[++i], WIDTH_MAX, &s->wrap))
                s->wrap = abs(s->wrap);
        } else if (s->mode == PRINT_INSERT && i == 1) {
            FILE *f = fmemopen(s->insert_table, sizeof s->insert_table, "w");
            if (f != NULL) {
                literal_put_name(f, args[i], strlen(args[i]));
                (void)fclose(f);
            }
        } else {
            shell_complain(sh, "unknown option of .mode: %s", args[i]);
        }
    }
}

static void run_headers(struct shell *sh, int n, char **args)
{
    (void)n;
    if (truth(sh, args[0], &sh->print.headers))
        sh->print.headers_set = true;
}

static void run_nullvalue(struct shell *sh, int n, char **args)
{
    (void)n;
    copy_setting(sh->print.null_value, args[0]);
}

static void run_separator(struct shell *sh, int n, char **args)
{
    unescape(args[0]);
    copy_setting(sh->print.separator, args[0]);
    if (n > 1) {
        unescape(args[1]);
        copy_setting(sh->print.row_separator, args[1]);
    }
}

static void run_width(struct shell *sh, int n, char **args)
{
    memset(sh->print.widths, 0, sizeof sh->print.widths);
    for (int i = 0; i < n; i++)
        if (!number(sh, args[i], WIDTH_MAX, &sh->print.widths[i]))
            return;
}

static void open_output(struct shell *sh, int n, char **args, bool once)
{
    shell_output_reset(sh);
    if (n == 0 || strcmp(args[0], "stdout") == 0)
        return;
    if (args[0][0] == '|') {
        shell_complain(sh, "output to a program is not supported: use a pipe of your shell");
        return;
    }
    FILE *f = strcmp(args[0], "off") == 0 ? fopen("/dev/null", "we") : fopen(args[0], "we");
    if (f == NULL) {
        shell_complain(sh, "cannot open \"%s\": %s", args[0], strerror(errno));
        return;
    }
    sh->out = f;
    sh->out_once = once;
}

static void run_output(struct shell *sh, int n, char **args)
{
    open_output(sh, n, args, false);
}

static void run_once(struct shell *sh, int n, char **args)
{
    open_output(sh, n, args, true);
}

static void run_print(struct shell *sh, int n, char **args)
{
    for (int i = 0; i < n; i++)
        (void)fprintf(sh->out, "%s%s", i > 0 ? " " : "", args[i]);
    (void)putc('\n', sh->out);
}

/* --- switches --------------------------------------------------------------------------------- */

static void run_timer(struct shell *sh, int n, char **args)
{
    (void)n;
    (void)truth(sh, args[0], &sh->timer);
}

static void run_changes(struct shell *sh, int n, char **args)
{
    (void)n;
    (void)truth(sh, args[0], &sh->changes);
}

static void run_bail(struct shell *sh, int n, char **args)
{
    (void)n;
    (void)truth(sh, args[0], &sh->bail);
}

static void run_echo(struct shell *sh, int n, char **args)
{
    (void)n;
    (void)truth(sh, args[0], &sh->echo);
}

static bool milliseconds(const char *word, uint32_t *ms)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(word, &end, 10);
    if (!isdigit((unsigned char)word[0]) || *end != '\0' || errno != 0 || v > UINT32_MAX)
        return false;
    *ms = (uint32_t)v;
    return true;
}

static void run_timeout(struct shell *sh, int n, char **args)
{
    (void)n;
    if (!milliseconds(args[0], &sh->timeout_ms))
        shell_complain(sh, "\"%s\" is not a number of milliseconds", args[0]);
    else
        (void)shell_apply_settings(sh);
}

/* --- the cluster ------------------------------------------------------------------------------ */

static const char *const level_names[] = {"any", "bounded", "session", "strong"};

bool shell_set_level(struct shell *sh, const char *text)
{
    uint32_t ms;
    for (int i = 0; i < 4; i++) {
        if (i != LECTERN_READ_BOUNDED && strcmp(text, level_names[i]) == 0) {
            sh->level = i;
            return shell_apply_settings(sh);
        }
    }
    if (strncmp(text, "bounded:", 8) != 0 || !milliseconds(text + 8, &ms))
        return false;
    sh->level = LECTERN_READ_BOUNDED;
    sh->bound_ms = ms;
    return shell_apply_settings(sh);
}

static void put_level(const struct shell *sh)
{
    (void)fputs(level_names[sh->level], sh->out);
    if (sh->level == LECTERN_READ_BOUNDED)
        (void)fprintf(sh->out, " %u", sh->bound_ms);
    (void)putc('\n', sh->out);
}

static void run_read_level(struct shell *sh, int n, char **args)
{
    char text[64];
    if (n == 0) {
        put_level(sh);
        return;
    }
    (void)snprintf(text, sizeof text, n > 1 ? "%s:%s" : "%s%s", args[0], n > 1 ? args[1] : "");
    if (!shell_set_level(sh, text))
        shell_complain(sh, "usage: .read-level any | bounded MS | session | strong");
}

static void run_status(struct shell *sh, int n, char **args)
{
    (void)n;
    (void)args;
    shell_status(sh);
}

/* The named cells of one row of STATUS; "" where there is none. */
static void pick(const struct fetched *f, struct rd *r, const char *const *names, int n,
                 const char **cells)
{
    for (int k = 0; k < n; k++)
        cells[k] = "";
    for (uint32_t i = 0; i < f->columns; i++) {
        size_t len;
        const char *cell = fetched_next(r, &len);
        for (int k = 0; k < n && i < 32; k++)
            if (strcmp(f->names[i], names[k]) == 0 && cell != NULL)
                cells[k] = cell;
    }
}

static void put_nodes(struct shell *sh, bool leader_only)
{
    static const char *const names[] = {"node", "address", "role", "lag", "state"};
    struct fetched f;
    bool found = false;
    fetched_init(&f);
    if (shell_fetch_status(sh, &f) != ERR_OK) {
        fetched_fini(&f);
        return;
    }
    struct rd r = fetched_cells(&f);
    for (uint64_t i = 0; i < f.rows; i++) {
        const char *cell[5];
        pick(&f, &r, names, 5, cell);
        bool leader = strcmp(cell[2], "leader") == 0;
        found = found || leader;
        if (leader_only && leader)
            (void)fprintf(sh->out, "%s %s\n", cell[0], cell[1]);
        if (!leader_only)
            (void)fprintf(sh->out, "%s %s %s%s%s%s%s\n", cell[0], cell[1], cell[2],
                          cell[3][0] != '\0' ? " lag " : "", cell[3], cell[4][0] != '\0' ? " " : "",
                          cell[4]);
    }
    if (leader_only && !found)
        shell_complain(sh, "no leader is known to node %s",
                       lectern_info(sh->db, LECTERN_INFO_NODE));
    fetched_fini(&f);
}

static void run_nodes(struct shell *sh, int n, char **args)
{
    (void)n;
    (void)args;
    put_nodes(sh, false);
}

static void run_leader(struct shell *sh, int n, char **args)
{
    (void)n;
    (void)args;
    put_nodes(sh, true);
}

/* --- the shell itself ------------------------------------------------------------------------- */

static void run_read(struct shell *sh, int n, char **args)
{
    (void)n;
    if (sh->depth >= INPUT_DEPTH_MAX) {
        shell_complain(sh, ".read is nested more than %u deep", INPUT_DEPTH_MAX);
        return;
    }
    FILE *f = fopen(args[0], "re");
    if (f == NULL) {
        shell_complain(sh, "cannot open \"%s\": %s", args[0], strerror(errno));
        return;
    }
    sh->depth++;
    shell_input_file(sh, f);
    sh->depth--;
    (void)fclose(f);
}

static void put_quoted_setting(FILE *out, const char *name, const char *text)
{
    (void)fprintf(out, "%12s: \"", name);
    for (; *text != '\0'; text++) {
        const char *found = strchr("\tt\nn\rr\"\"\\\\", *text);
        if (found != NULL)
            (void)fprintf(out, "\\%c", found[1]);
        else
            (void)putc(*text, out);
    }
    (void)fputs("\"\n", out);
}

static void put_server(struct shell *sh)
{
    /* Each answer is valid until the next call. */
    (void)fprintf(sh->out, "%12s: node %s", "server", lectern_info(sh->db, LECTERN_INFO_NODE));
    (void)fprintf(sh->out, " at %s", lectern_info(sh->db, LECTERN_INFO_ADDRESS));
    (void)fprintf(sh->out, ", Lectern %s", lectern_info(sh->db, LECTERN_INFO_SERVER));
    (void)fprintf(sh->out, ", SQLite %s\n", lectern_info(sh->db, LECTERN_INFO_SQLITE));
}

static void run_show(struct shell *sh, int n, char **args)
{
    const struct print_settings *s = &sh->print;
    (void)n;
    (void)args;
    (void)fprintf(sh->out, "%12s: %s\n", "echo", sh->echo ? "on" : "off");
    (void)fprintf(sh->out, "%12s: %s\n", "headers", s->headers ? "on" : "off");
    (void)fprintf(sh->out, "%12s: %s\n", "mode", print_mode_name(s->mode));
    put_quoted_setting(sh->out, "nullvalue", s->null_value);
    put_quoted_setting(sh->out, "colseparator", s->separator);
    put_quoted_setting(sh->out, "rowseparator", s->row_separator);
    (void)fprintf(sh->out, "%12s:", "width");
    for (unsigned i = 0; i < PRINT_WIDTHS_MAX && s->widths[i] != 0; i++)
        (void)fprintf(sh->out, " %d", s->widths[i]);
    (void)putc('\n', sh->out);
    (void)fprintf(sh->out, "%12s: ", "read-level");
    put_level(sh);
    (void)fprintf(sh->out, "%12s: %u\n", "timeout", sh->timeout_ms);
    put_server(sh);
}

static void run_quit(struct shell *sh, int n, char **args)
{
    (void)args;
    (void)n;
    sh->quit = true;
}

static void run_exit(struct shell *sh, int n, char **args)
{
    sh->quit = true;
    if (n > 0)
        (void)number(sh, args[0], 255, &sh->exit_code);
}

static void run_help(struct shell *sh, int n, char **args);

static const struct command commands[] = {
    {"bail", 1, 1, run_bail, "on|off", "Stop after an error"},
    {"changes", 1, 1, run_changes, "on|off", "Show the number of rows changed"},
    {"dump", 0, ARGS_MAX, run_dump, "?TABLE?...", "The database, or tables LIKE TABLE, as SQL"},
    {"echo", 1, 1, run_echo, "on|off", "Show each statement before it runs"},
    {"exit", 0, 1, run_exit, "?CODE?", "Leave, with this exit code"},
    {"headers", 1, 1, run_headers, "on|off", "Show the names of columns"},
    {"help", 0, 1, run_help, "?COMMAND?", "Show this"},
    {"indexes", 0, 1, run_indexes, "?TABLE?", "List the indexes"},
    {"leader", 0, 0, run_leader, "", "The cluster's leader: node and address"},
    {"mode", 0, 4, run_mode, "MODE ?OPTIONS?",
     "Output: box column csv insert json line list markdown quote table tabs\n"
     "                           insert ?TABLE?; aligned modes: --wrap COLUMNS"},
    {"nodes", 0, 0, run_nodes, "", "The cluster's nodes in short"},
    {"nullvalue", 1, 1, run_nullvalue, "TEXT", "Show NULL as TEXT"},
    {"once", 1, 1, run_once, "FILE", "The next statement's output goes to FILE"},
    {"output", 0, 1, run_output, "?FILE?", "Output goes to FILE; without FILE back to the screen"},
    {"print", 0, ARGS_MAX, run_print, "TEXT...", "Print TEXT"},
    {"quit", 0, 0, run_quit, "", "Leave"},
    {"read", 1, 1, run_read, "FILE", "Run the commands in FILE"},
    {"read-level", 0, 2, run_read_level, "?LEVEL?",
     "How new a read must be: any, bounded MS, session, strong"},
    {"schema", 0, 1, run_schema, "?PATTERN?", "The CREATE statements"},
    {"separator", 1, 2, run_separator, "COL ?ROW?", "Separators of the modes list and csv"},
    {"show", 0, 0, run_show, "", "Show the settings"},
    {"status", 0, 0, run_status, "", "Each node's role, term, position and lag"},
    {"tables", 0, 1, run_tables, "?PATTERN?", "List the tables and views"},
    {"timeout", 1, 1, run_timeout, "MS", "A statement ends after MS; 0: 600000"},
    {"timer", 1, 1, run_timer, "on|off", "Show how long each statement took"},
    {"width", 0, ARGS_MAX, run_width, "N...",
     "Widths of the aligned modes; negative: to the right"},
};

#define COMMANDS (sizeof commands / sizeof commands[0])

static void run_help(struct shell *sh, int n, char **args)
{
    const char *wanted = n > 0 ? args[0] + (args[0][0] == '.') : "";
    bool found = false;
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strncmp(commands[i].name, wanted, strlen(wanted)) != 0)
            continue;
        int used = fprintf(sh->out, ".%s %s", commands[i].name, commands[i].usage);
        (void)fprintf(sh->out, "%*s%s\n", used < 26 ? 27 - used : 1, "", commands[i].help);
        found = true;
    }
    if (!found)
        (void)fprintf(sh->out, "Nothing matches '%s'\n", wanted);
}

static const struct command *find_command(const char *word)
{
    const struct command *found = NULL;
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, word) == 0)
            return &commands[i];
        if (found == NULL && *word != '\0' && strncmp(commands[i].name, word, strlen(word)) == 0)
            found = &commands[i];
    }
    return found;
}

void shell_dot(struct shell *sh, char *line)
{
    char *words[ARGS_MAX];
    if (sh->echo)
        (void)fprintf(sh->out, "%s\n", line);
    int n = split_words(line + 1, words);
    const struct command *c = n == 0 ? NULL : find_command(words[0]);
    if (c == NULL)
        shell_complain(sh, "unknown command: \".%s\". Enter \".help\" for help",
                       n == 0 ? "" : words[0]);
    else if (n - 1 < c->least || n - 1 > c->most)
        shell_complain(sh, "usage: .%s %s", c->name, c->usage);
    else
        c->run(sh, n - 1, words + 1);
    (void)fflush(sh->out);
}
