/* Room: tests. The program `lectern` itself, against SQLite behind the native protocol: in a pipe
 * beside sqlite3 (the same text is expected), and at a terminal. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/client/shell_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGS_MAX 16

/* What a program did. */
struct ran {
    int code;
    char *out, *err;
};

/* The program under test lies beside the tests: build/VARIANT/lectern. */
static const char *shell_path(void)
{
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 20);
    EXPECT(n > 0);
    path[n] = '\0';
    for (int i = 0; i < 2; i++)
        *strrchr(path, '/') = '\0';
    (void)snprintf(path + strlen(path), 20, "/lectern");
    return path;
}

static char *content(const char *path)
{
    struct buf b;
    size_t n;
    buf_init(&b, MIB(256));
    EXPECT_OK(file_read_all(path, &b));
    buf_put_u8(&b, 0);
    EXPECT_OK(buf_status(&b));
    return (char *)buf_take(&b, &n);
}

static void put_file(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "we");
    EXPECT(f != NULL);
    EXPECT(fwrite(text, 1, n, f) == n);
    EXPECT(fclose(f) == 0);
}

static void redirect(const char *path, int flags, int to)
{
    int fd = open(path, flags, 0600);
    if (fd < 0 || dup2(fd, to) < 0)
        _exit(99);
}

/* Runs a program with its input from a file. ARGV ends with NULL; its first word is searched. */
static struct ran run_program(const char *const *argv, const char *input)
{
    const char *out = test_path("stdout"), *err = test_path("stderr");
    int status;
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        redirect(input, O_RDONLY, 0);
        redirect(out, O_WRONLY | O_CREAT | O_TRUNC, 1);
        redirect(err, O_WRONLY | O_CREAT | O_TRUNC, 2);
        (void)setenv("HOME", test_dir(), 1);
        (void)unsetenv("LECTERN_ADDRESS");
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(98);
    }
    EXPECT(pid > 0 && waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status))
        test_fail(__FILE__, __LINE__, "%s: signal %d: %s", argv[0], WTERMSIG(status), content(err));
    return (struct ran){WEXITSTATUS(status), content(out), content(err)};
}

/* lectern ADDRESS ARGS < TEXT. ARGS is one string of words, separated by blanks. */
static struct ran run_shell_bytes(const struct server *s, const char *args, const char *text,
                                  size_t n)
{
    const char *argv[ARGS_MAX] = {shell_path()};
    int argc = 1;
    char *words = mem_strdup(args), *rest = words, *word;
    while ((word = strsep(&rest, " ")) != NULL && argc < ARGS_MAX - 2)
        if (*word != '\0')
            argv[argc++] = word;
    argv[argc++] = server_address(s);
    put_file(test_path("input.sql"), text, n);
    struct ran r = run_program(argv, test_path("input.sql"));
    free(words);
    return r;
}

static struct ran run_shell(const struct server *s, const char *args, const char *text)
{
    return run_shell_bytes(s, args, text, strlen(text));
}

static void ran_free(struct ran *r)
{
    free(r->out);
    free(r->err);
}

static void expect_text(const char *where, const char *got, const char *wanted)
{
    size_t i = 0;
    if (strcmp(got, wanted) == 0)
        return;
    while (got[i] != '\0' && got[i] == wanted[i])
        i++;
    size_t from = i > 60 ? i - 60 : 0;
    test_fail(__FILE__, __LINE__, "%s: differs at byte %zu:\n--- got\n%.300s\n--- wanted\n%.300s",
              where, i, got + from, wanted + from);
}

/* Runs TEXT and expects success and this output. */
static void expect_out(const struct server *s, const char *args, const char *text,
                       const char *wanted)
{
    struct ran r = run_shell(s, args, text);
    expect_text("standard error", r.err, "");
    expect_text(text, r.out, wanted);
    EXPECT_EQ(r.code, 0);
    ran_free(&r);
}

/* Runs TEXT in both shells and expects the same output. */
static void expect_as_sqlite3(const char *args, const char *text)
{
    struct server *s = server_start(&(struct server_options){0});
    struct ran ours = run_shell(s, args, text);
    const char *argv[] = {"sqlite3", "-batch", ":memory:", NULL};
    struct ran theirs = run_program(argv, test_path("input.sql"));
    if (theirs.code == 98)
        test_fail(__FILE__, __LINE__, "sqlite3 (package sqlite3) is needed to compare with");
    expect_text("standard error", ours.err, "");
    expect_text(text, ours.out, theirs.out);
    ran_free(&ours);
    ran_free(&theirs);
    server_stop(s);
}

#define SAMPLE                                                                                     \
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL, \"d e\" BLOB);\n"                       \
    "INSERT INTO t VALUES(1,'one',1.5,x'00ff'),(2,'it''s, \"two\"',-0.1,NULL),(-3,NULL,1e300,"     \
    "''),(4,'a\nb','12',4),(5,'tab\there',3.0,0.1);\n"

/* --- output ----------------------------------------------------------------------------------- */

TEST(shell_prints_every_mode_as_sqlite3_does)
{
    static const char *const modes[] = {"list", "csv",   "line",     "quote",  "tabs", "insert x",
                                        "box",  "table", "markdown", "column", "json"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        for (int headers = 0; headers < 2; headers++) {
            char *text = mem_printf(SAMPLE ".headers %s\n.mode %s\n"
                                           "SELECT a, b, c FROM t;\nSELECT 1 AS x WHERE 0;\n"
                                           "SELECT a AS \"the first\", 1e999, -1e999, 123456789012 "
                                           "FROM t LIMIT 1;\n.nullvalue NIL\nSELECT NULL, b FROM t "
                                           "WHERE b IS NULL;",
                                    headers ? "on" : "off", modes[i]);
            if (strcmp(modes[i], "json") != 0 && strcmp(modes[i], "quote") != 0) {
                expect_as_sqlite3("", text);
            } else { /* they write more digits than a double has; infinity is our own there */
                char *cut = strstr(text, ", 1e999, -1e999");
                memmove(cut, cut + 15, strlen(cut + 15) + 1);
                cut = strstr(text, "-0.1");
                memmove(cut + 2, ".5  ", 2);
                expect_as_sqlite3("", text);
            }
            free(text);
        }
    }
}

TEST(shell_dot_commands_answer_as_sqlite3_does)
{
    expect_as_sqlite3("",
                      SAMPLE "CREATE TABLE other(x);CREATE INDEX i ON t(b);CREATE VIEW v AS "
                             "SELECT 1;\n.tables\n.tables o%\n.indexes\n.indexes t\n.print a 'b "
                             "c' \"d\\te\"\n.separator ; \"\\n--\\n\"\nSELECT 1,2;\n"
                             ".width 3 -4\n.mode column\nSELECT 1,2;\n.schema other\n"
                             ".mode csv\nSELECT 1,'a b';\n.mode list\n.headers on\n"
                             ".changes on\nINSERT INTO other VALUES(1),(2);\n");
    expect_as_sqlite3("", "CREATE TABLE a_table_with_a_long_name(x);CREATE TABLE "
                          "b_table_with_a_long_name(x);CREATE TABLE c_table_with_a_long_name(x);"
                          "CREATE TABLE d(x);\n.tables\n");
}

TEST(shell_aligns_by_the_width_of_characters)
{
    struct server *s = server_start(&(struct server_options){0});
    expect_out(s, "--box", "SELECT '日本' AS x, 'é' AS y UNION ALL SELECT 'abcde', 'e\xcc\x81x';",
               "┌───────┬────┐\n│   x   │ y  │\n├───────┼────┤\n│ 日本  │ é  │\n"
               "│ abcde │ e\xcc\x81x │\n└───────┴────┘\n");
    /* What could steer a terminal is shown, not sent. */
    expect_out(s, "--table", "SELECT 'a' || char(27) || 'b' AS x, CAST(x'ff41' AS TEXT) AS y;",
               "+------+----+\n|  x   | y  |\n+------+----+\n| a^[b | \xef\xbf\xbd"
               "A |\n+------+----+\n");
    expect_out(s, "--json", "SELECT CAST(x'ff41' AS TEXT) AS y, char(1) AS z;",
               "[{\"y\":\"\\ufffdA\",\"z\":\"\\u0001\"}]\n");
    server_stop(s);
}

TEST(shell_writes_files)
{
    struct server *s = server_start(&(struct server_options){0});
    char *text = mem_printf(".once %s\nSELECT 1;\nSELECT 2;\n.output %s\nSELECT 3;\nSELECT 4;\n"
                            ".output\nSELECT 5;\n",
                            test_path("one"), test_path("two"));
    expect_out(s, "", text, "2\n5\n");
    char *one = content(test_path("one")), *two = content(test_path("two"));
    expect_text(".once", one, "1\n");
    expect_text(".output", two, "3\n4\n");
    free(text);
    free(one);
    free(two);
    server_stop(s);
}

/* --- input ------------------------------------------------------------------------------------ */

TEST(shell_reads_all_shapes_of_input)
{
    struct server *s = server_start(&(struct server_options){0});
    expect_out(s, "", "\xef\xbb\xbfSELECT 1;\r\nSELECT\r\n2\r\n;\r\n", "1\n2\n");
    expect_out(s, "", "SELECT 1; SELECT 2; SELECT\n3", "1\n2\n3\n");
    expect_out(s, "", "-- one;\n/* two;\n three; */ SELECT 'a;\nb'; -- end", "a;\nb\n");
    expect_out(s, "", "# not SQL\n\n;;\n.print x\nSELECT '\n.print y\n'", "x\n\n.print y\n\n");
    expect_out(s, "",
               "CREATE TABLE t(a);CREATE TABLE l(a);\nCREATE TRIGGER g AFTER INSERT ON t "
               "BEGIN\n INSERT INTO l VALUES(1);\n INSERT INTO l VALUES(2);\nEND;\n"
               "INSERT INTO t VALUES(1);SELECT count(*) FROM l;",
               "2\n");
    expect_out(s, "", "", "");
    expect_out(s, "--header --csv", "SELECT 1 AS a, 'x y' AS b", "a,b\n1,\"x y\"\n");
    server_stop(s);
}

TEST(shell_takes_sql_from_the_command_line)
{
    struct server *s = server_start(&(struct server_options){0});
    const char *argv[] = {shell_path(), "--cmd",           ".mode csv",
                          "-header",    server_address(s), "SELECT 1 AS a; SELECT 2 AS b",
                          ".print x",   "SELECT 3",        NULL};
    struct ran r = run_program(argv, "/dev/null");
    expect_text("standard error", r.err, "");
    expect_text("output", r.out, "a\r\n1\r\nb\r\n2\r\nx\n3\r\n3\r\n");
    EXPECT_EQ(r.code, 0);
    ran_free(&r);
    server_stop(s);
}

TEST(shell_tells_errors_with_their_line)
{
    struct server *s = server_start(&(struct server_options){0});
    struct ran r = run_shell(s, "",
                             "SELECT 1;\n\n-- x\nSELECT\n  y\n;\nSELECT 2;\n.nonsense\n"
                             "SELECT 3; SELEKT;\nSELECT 4");
    expect_text("output", r.out, "1\n2\n3\n4\n");
    expect_text("errors", r.err,
                "Error: near line 4: no such column: y\n"
                "Error: near line 8: unknown command: \".nonsense\". Enter \".help\" for help\n"
                "Error: near line 9: near \"SELEKT\": syntax error\n");
    EXPECT_EQ(r.code, 1);
    ran_free(&r);
    r = run_shell(s, "--bail", "SELECT 1;\nSELECT y;\nSELECT 2;");
    expect_text("output", r.out, "1\n");
    EXPECT_EQ(r.code, 1);
    ran_free(&r);
    r = run_shell(s, "--nonsense", "");
    EXPECT_EQ(r.code, 2);
    ran_free(&r);
    server_stop(s);
}

TEST(shell_reads_files_within_files)
{
    struct server *s = server_start(&(struct server_options){0});
    char *text = mem_printf("SELECT 1;\n.read %s\nSELECT 3;\n", test_path("inner.sql"));
    put_file(test_path("inner.sql"), "SELECT 2;\n\nSELECT x;\n", 20);
    struct ran r = run_shell(s, "", text);
    expect_text("output", r.out, "1\n2\n3\n");
    expect_text("errors", r.err, "Error: near line 3: no such column: x\n");
    EXPECT_EQ(r.code, 1);
    ran_free(&r);
    r = run_shell(s, "--bail", text);
    expect_text("output", r.out, "1\n2\n");
    ran_free(&r);
    free(text);
    text = mem_printf(".read %s\n", test_path("loop.sql"));
    put_file(test_path("loop.sql"), text, strlen(text));
    r = run_shell(s, "", text);
    EXPECT(strstr(r.err, "nested more than") != NULL);
    ran_free(&r);
    free(text);
    server_stop(s);
}

TEST(shell_stops_when_no_node_is_left_or_a_transaction_is_lost)
{
    struct server_options o = {.faults = {.lose_txn = "needle"}};
    struct server *s = server_start(&o);
    struct ran r = run_shell(s, "",
                             "CREATE TABLE t(a);\nBEGIN;\nINSERT INTO t VALUES(1);\n"
                             "INSERT INTO t VALUES('needle');\nINSERT INTO t VALUES(3);\n"
                             "COMMIT;\n");
    EXPECT_EQ(r.code, 1);
    expect_text("errors", r.err, "Error: near line 4: the leader was lost\n");
    ran_free(&r);
    expect_out(s, "", "SELECT count(*) FROM t;", "0\n");
    const char *argv[] = {shell_path(), "127.0.0.1:1", "SELECT 1", NULL};
    r = run_program(argv, "/dev/null");
    EXPECT_EQ(r.code, 1);
    EXPECT(strstr(r.err, "127.0.0.1:1: cannot connect: Connection refused") != NULL);
    ran_free(&r);
    server_stop(s);
}

TEST(shell_shows_the_cluster)
{
    struct server *s = server_start(&(struct server_options){.node_id = 1});
    char *wanted = mem_printf("1 %s follower serving\n2 10.0.0.2:7701 leader serving\n"
                              "2 10.0.0.2:7701\nsession\nbounded 50\n",
                              server_address(s));
    expect_out(s, "", ".nodes\n.leader\n.read-level\n.read-level bounded 50\n.read-level\n",
               wanted);
    struct ran r = run_shell(s, "", ".status\n");
    EXPECT(strncmp(r.out, "node  address", 13) == 0);
    EXPECT(strstr(r.out, "10.0.0.2:7701") != NULL);
    ran_free(&r);
    r = run_shell(s, "--json", ".status\n");
    EXPECT(strstr(r.out, "[{\"node\":1,\"address\":\"127.0.0.1:") == r.out);
    ran_free(&r);
    free(wanted);
    server_stop(s);
}

/* --- .dump ------------------------------------------------------------------------------------ */

#define DUMPED                                                                                     \
    SAMPLE "CREATE TABLE k(id INTEGER PRIMARY KEY AUTOINCREMENT, v);INSERT INTO k(v) VALUES"       \
           "(1e999),(-1e999),(1.0),(0.1),(1e-280),(9007199254740993),(-9223372036854775808),"      \
           "(x''),('line\r\nend'),('\\n\n'),(1e17),(-0.0);\n"                                      \
           "CREATE TABLE \"odd \"\" name\"(\"select\" TEXT, g AS (1), \"x y\");"                   \
           "INSERT INTO \"odd \"\" name\" VALUES('q''', 5);\n"                                     \
           "CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID;INSERT INTO w VALUES(1,2);\n"           \
           "CREATE INDEX ti ON t(b);CREATE VIEW tv AS SELECT a FROM t;\n"                          \
           "CREATE TRIGGER tt AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END;\n"                  \
           "CREATE VIRTUAL TABLE f USING fts5(body);INSERT INTO f VALUES('some words');\n"

TEST(shell_dumps_as_sqlite3_does)
{
    expect_as_sqlite3("", DUMPED ".dump\n");
    expect_as_sqlite3("", SAMPLE "ANALYZE;\n.dump t\n");
}

/* Reads a dump into a database file by sqlite3, and prints the question's answer. */
static char *ask_sqlite3(const char *dump, const char *question)
{
    const char *make[] = {"sqlite3", "-batch", "-bail", test_path("copy.db"), NULL};
    const char *ask[] = {"sqlite3", "-batch", test_path("copy.db"), question, NULL};
    (void)unlink(test_path("copy.db"));
    put_file(test_path("dump.sql"), dump, strlen(dump));
    struct ran r = run_program(make, test_path("dump.sql"));
    expect_text("sqlite3 reads our dump", r.err, "");
    ran_free(&r);
    r = run_program(ask, "/dev/null");
    expect_text("sqlite3 reads the copy", r.err, "");
    free(r.err);
    return r.out;
}

TEST(shell_dump_gives_every_value_back)
{
    static const char question[] =
        "SELECT id, typeof(v), CASE typeof(v) WHEN 'real' THEN printf('%!.17g', v) "
        "ELSE hex(v) END FROM k;";
    struct server *s = server_start(&(struct server_options){.database = test_path("a.db")});
    char *text =
        mem_printf("%s%s", DUMPED,
                   "INSERT INTO k(v) VALUES(CAST(x'410042' AS TEXT)),(CAST(x'ff' AS TEXT));"
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 500) "
                   "INSERT INTO k(v) SELECT random() / 3.7 * pow(10, random() % 250) FROM n;"
                   "INSERT INTO k(v) VALUES(pow(2, -1074)),(-pow(2, -1074)),(pow(2, -1022));"
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 500) "
                   "INSERT INTO k(v) SELECT (1 + abs(random()) / 1e19) * pow(10, -280 - i % 44) "
                   "FROM n;");
    expect_out(s, "", text, "");
    struct ran dump = run_shell(s, "", ".dump\n"), answer = run_shell(s, "", question);
    EXPECT_EQ(dump.code, 0);
    char *copy = ask_sqlite3(dump.out, question);
    expect_text("the copy", copy, answer.out);
    free(copy);
    copy =
        ask_sqlite3(dump.out, "SELECT body FROM f WHERE f MATCH 'words'; PRAGMA integrity_check");
    expect_text("the copy", copy, "some words\nok\n");
    free(copy);
    free(text);
    ran_free(&dump);
    ran_free(&answer);
    server_stop(s);
}

/* A schema and rows like those of real exports: statements of hundreds of KB over many lines. */
static char *make_large_sql(size_t *n)
{
    struct buf b;
    buf_init(&b, MIB(64));
    buf_printf(&b, "CREATE TABLE [track]([id] INTEGER PRIMARY KEY, [name] TEXT);\r\n");
    for (int statement = 0; statement < 20; statement++) {
        buf_printf(&b, "INSERT INTO [track] VALUES\r\n");
        for (int row = 0; row < 10000; row++)
            buf_printf(&b, "    (%d, 'The name; of ''%d''')%s\r\n", statement * 10000 + row, row,
                       row == 9999 ? ";" : ",");
    }
    buf_put_u8(&b, 0);
    EXPECT_OK(buf_status(&b));
    *n = b.len - 1;
    return (char *)buf_take(&b, n);
}

TEST(shell_takes_large_scripts_in_linear_time)
{
    struct server *s = server_start(&(struct server_options){0});
    size_t n;
    char *text = make_large_sql(&n);
    uint64_t begun = test_cpu_ms();
    expect_out(s, "", text, "");
    EXPECT(test_cpu_ms() - begun < 20000);
    expect_out(s, "", "SELECT count(*), max(name) FROM track;", "200000|The name; of '9999'\n");
    free(text);
    server_stop(s);
}

/* --- at a terminal ---------------------------------------------------------------------------- */

struct terminal {
    int fd;
    pid_t pid;
    struct buf seen;
    size_t at; /* what was looked for already */
};

static void terminal_open(struct terminal *t, const struct server *s)
{
    struct winsize size = {.ws_row = 24, .ws_col = 100};
    buf_init(&t->seen, MIB(1));
    t->at = 0;
    t->pid = forkpty(&t->fd, NULL, NULL, &size);
    EXPECT(t->pid >= 0);
    if (t->pid == 0) {
        (void)setenv("HOME", test_dir(), 1);
        (void)setenv("TERM", "xterm", 1);
        execl(shell_path(), "lectern", server_address(s), (char *)NULL);
        _exit(98);
    }
}

/* Waits until TEXT was shown, after what was found before. */
static void terminal_wait(struct terminal *t, const char *text)
{
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    for (;;) {
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        void *found = t->seen.len == t->at
                          ? NULL
                          : memmem(t->seen.data + t->at, t->seen.len - t->at, text, strlen(text));
        if (found != NULL) {
            t->at = (size_t)((uint8_t *)found - t->seen.data) + strlen(text);
            return;
        }
        if (clock_mono_ms() >= end || poll(&p, 1, 1000) < 0)
            break;
        if (p.revents == 0)
            continue;
        char piece[4096];
        ssize_t n = read(t->fd, piece, sizeof piece);
        if (n <= 0)
            break;
        buf_put(&t->seen, piece, (size_t)n);
    }
    test_fail(__FILE__, __LINE__, "\"%s\" was not shown after: %.*s", text,
              (int)(t->seen.len - t->at), (const char *)t->seen.data + t->at);
}

static void terminal_type(struct terminal *t, const char *text)
{
    EXPECT(write(t->fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static int terminal_close(struct terminal *t)
{
    int status;
    char piece[4096];
    while (read(t->fd, piece, sizeof piece) > 0)
        ;
    EXPECT(waitpid(t->pid, &status, 0) == t->pid);
    (void)close(t->fd);
    buf_fini(&t->seen);
    EXPECT(WIFEXITED(status));
    return WEXITSTATUS(status);
}

TEST(shell_at_a_terminal)
{
    struct server *s = server_start(&(struct server_options){.node_id = 4});
    struct terminal t;
    struct stat st;
    terminal_open(&t, s);
    terminal_wait(&t, "node 4 at ");
    terminal_wait(&t, "lectern> ");
    terminal_type(&t, "SELECT 1 AS one,\n");
    terminal_wait(&t, "   ...> ");
    terminal_type(&t, "2 AS two;\n");
    terminal_wait(&t, "│ one │ two │");
    terminal_wait(&t, "lectern> ");
    terminal_type(&t, "BEGIN;\n");
    terminal_wait(&t, "lectern*> ");
    terminal_type(&t, "ROLLBACK; SELECT 1, oops;\n");
    terminal_wait(&t, "Error: no such column: oops");
    terminal_wait(&t, "^--- error here");
    terminal_wait(&t, "lectern> ");
    terminal_type(&t, ".quit\n");
    EXPECT_EQ(terminal_close(&t), 0);
    EXPECT(stat(test_path(".lectern_history"), &st) == 0);
    EXPECT_EQ(st.st_mode & 0777, 0600);
    char *history = content(test_path(".lectern_history"));
    EXPECT(strstr(history, "BEGIN;") != NULL);
    free(history);
    server_stop(s);
}

TEST(shell_interrupts_a_statement_and_a_line)
{
    struct server *s = server_start(&(struct server_options){0});
    struct terminal t;
    terminal_open(&t, s);
    terminal_wait(&t, "lectern> ");
    terminal_type(&t, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT "
                      "count(*) FROM n;\n");
    while (server_statements(s) == 0) /* it runs when the server has it */
        (void)usleep(1000);
    terminal_type(&t, "\003");
    terminal_wait(&t, "Error: interrupted");
    terminal_wait(&t, "lectern> ");
    terminal_type(&t, "SELECT 'half a\n");
    terminal_wait(&t, "   ...> ");
    terminal_type(&t, "\003");
    terminal_wait(&t, "lectern> ");
    terminal_type(&t, "SELECT 'a whole one';\n");
    terminal_wait(&t, "│ a whole one   │");
    terminal_wait(&t, "lectern> ");
    terminal_type(&t, "\003");
    terminal_wait(&t, "lectern> ");
    terminal_type(&t, "\003");
    EXPECT_EQ(terminal_close(&t), 0);
    server_stop(s);
}

TEST(shell_in_a_pipe_leaves_no_history)
{
    struct server *s = server_start(&(struct server_options){0});
    struct stat st;
    expect_out(s, "", "SELECT 1;\n", "1\n");
    EXPECT(stat(test_path(".lectern_history"), &st) != 0 && errno == ENOENT);
    server_stop(s);
}

TEST(shell_man_pages_are_well_formed)
{
    static const char *const pages[] = {"docs/man/lectern.1", "docs/man/lecternd.8"};
    struct stat st;
    for (size_t i = 0; i < 2; i++) {
        if (stat(pages[i], &st) != 0)
            test_fail(__FILE__, __LINE__, "%s is missing (run from the top of the tree)", pages[i]);
        const char *argv[] = {"man", "--warnings", "-l", pages[i], NULL};
        struct ran r = run_program(argv, "/dev/null");
        if (r.code == 98)
            (void)printf("no man here\n");
        else
            expect_text(pages[i], r.err, "");
        EXPECT(r.code == 98 || (r.code == 0 && strlen(r.out) > 500));
        ran_free(&r);
    }
}

/* The page and the table of settings name the same settings. */
TEST(shell_man_page_has_every_setting)
{
    char *page = content("docs/man/lecternd.8"), *table = content("node/config.def");
    unsigned settings = 0, documented = 0;
    for (char *at = strstr(table, "CONF(\""); at != NULL; at = strstr(at + 1, "CONF(\"")) {
        size_t n = strcspn(at + 6, "\"");
        bool is_switch = strncmp(at + 6 + n, "\", SWITCH", 9) == 0;
        char *wanted = mem_printf("\n.It Fl -%.*s%s", (int)n, at + 6, is_switch ? "\n" : " Ar ");
        if (strstr(page, wanted) == NULL)
            test_fail(__FILE__, __LINE__, "docs/man/lecternd.8 lacks --%.*s", (int)n, at + 6);
        settings++;
        free(wanted);
    }
    for (char *at = strstr(page, "\n.It Fl -"); at != NULL; at = strstr(at + 1, "\n.It Fl -"))
        documented++;
    EXPECT(settings > 10);
    EXPECT_EQ(documented, settings + 2); /* --config, --help and --version */
    free(page);
    free(table);
}
