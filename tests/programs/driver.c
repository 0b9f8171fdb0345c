/* Room: tests. A program on liblectern that does what lines on standard input say, so that a Python
 * test can kill, pause and cut nodes between two calls and see what a C program sees.
 *
 * A line: a command and its arguments, separated by tabs; \n \t \\ stand for those characters.
 * S, K, C are numbers below SLOTS of sessions, statements and clusters.
 *
 *     open S URL            cluster C URL          session S C            close S
 *     close_cluster C       timeout S MS           level S LEVEL MS       set_position S POSITION
 *     exec S SQL            query S SQL PARAM...   batch S SQL SQL...     transaction S SQL SQL...
 *     prepare S K SQL FLAGS bind K INDEX PARAM     step K                 reset K
 *     finalize K            count S SQL STOP_AFTER start S SQL STOP_AFTER wait S
 *     interrupt S MS        state S                status S               export S PATH
 *
 * PARAM: i5, f1.5, ttext, bHEX, n. Each answer is one line of JSON: code, extended, message,
 * took_ms and what the command found, with the session's state. A callback of `start` that asks to
 * stop after N rows returns 1 (0: never); `count` stops by a reset.
 *
 * Thread: one, and one more for each interrupt. Not here: load without waiting (load.c). */
#include <lectern.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLOTS      64
#define FIELDS_MAX 512

/* What `start` runs on a session without waiting. */
struct running {
    lectern_stmt *stmt;
    int64_t rows, sum, stop_after;
    int result;
    bool ended;
};

static lectern *sessions[SLOTS];
static lectern_stmt *statements[SLOTS];
static lectern_cluster *clusters[SLOTS];
static struct running running[SLOTS];
static char *fields[FIELDS_MAX];
static int n_fields;

/* --- the answer ------------------------------------------------------------------------------ */

static void put_text(const char *text, size_t len)
{
    (void)putchar('"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == '"' || c == '\\')
            printf("\\u%04x", c);
        else
            (void)putchar(c);
    }
    (void)putchar('"');
}

static void put_string(const char *name, const char *text)
{
    printf(", \"%s\": ", name);
    if (text == NULL)
        printf("null");
    else
        put_text(text, strlen(text));
}

static void put_number(const char *name, int64_t value)
{
    printf(", \"%s\": %" PRId64, name, value);
}

static void put_value(lectern_stmt *stmt, int column)
{
    const unsigned char *bytes;
    switch (lectern_column_type(stmt, column)) {
    case LECTERN_INTEGER:
        printf("%" PRId64, lectern_column_int64(stmt, column));
        return;
    case LECTERN_FLOAT:
        printf("%.17g", lectern_column_double(stmt, column));
        return;
    case LECTERN_TEXT:
        bytes = lectern_column_text(stmt, column);
        put_text((const char *)bytes, (size_t)lectern_column_bytes(stmt, column));
        return;
    case LECTERN_BLOB:
        bytes = lectern_column_blob(stmt, column);
        printf("{\"blob\": \"");
        for (int i = 0; i < lectern_column_bytes(stmt, column); i++)
            printf("%02x", bytes[i]);
        printf("\"}");
        return;
    default:
        printf("null");
    }
}

static void put_row(lectern_stmt *stmt)
{
    (void)putchar('[');
    for (int i = 0; i < lectern_data_count(stmt); i++) {
        if (i > 0)
            printf(", ");
        put_value(stmt, i);
    }
    (void)putchar(']');
}

/* The code of the answer and the session's state after it. */
static void put_state(int code, lectern *db)
{
    put_number("code", code);
    put_string("name", lectern_errstr(code));
    put_number("errcode", lectern_errcode(db));
    put_number("extended", lectern_extended_errcode(db));
    put_string("message", lectern_errmsg(db));
    put_number("changes", lectern_changes(db));
    put_number("total_changes", lectern_total_changes(db));
    put_number("rowid", lectern_last_insert_rowid(db));
    put_number("autocommit", lectern_get_autocommit(db));
    put_number("position", (int64_t)lectern_position(db));
    put_string("address", lectern_info(db, LECTERN_INFO_ADDRESS));
    put_string("node", lectern_info(db, LECTERN_INFO_NODE));
}

static uint64_t now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* --- the line -------------------------------------------------------------------------------- */

_Noreturn static void usage(const char *what)
{
    (void)fprintf(stderr, "driver: %s: %s\n", n_fields > 0 ? fields[0] : "?", what);
    exit(2);
}

/* Argument I, from 1. */
static const char *field(int i)
{
    if (i >= n_fields)
        usage("an argument is missing");
    return fields[i];
}

static int64_t number(int i)
{
    char *end;
    int64_t v = strtoll(field(i), &end, 10);
    if (*end != 0 || end == field(i))
        usage("not a number");
    return v;
}

static int slot(int i)
{
    int64_t v = number(i);
    if (v < 0 || v >= SLOTS)
        usage("no such slot");
    return (int)v;
}

static lectern *session(int i)
{
    return sessions[slot(i)];
}

/* Cuts LINE into fields, in place. */
static void split(char *line)
{
    char *out = line;
    n_fields = 0;
    fields[n_fields++] = out;
    for (const char *in = line; *in != 0 && *in != '\n'; in++) {
        if (*in == '\t') {
            *out++ = 0;
            if (n_fields == FIELDS_MAX)
                usage("too many arguments");
            fields[n_fields++] = out;
        } else if (*in == '\\' && in[1] != 0) {
            in++;
            *out++ = *in == 'n' ? '\n' : *in == 't' ? '\t' : *in;
        } else {
            *out++ = *in;
        }
    }
    *out = 0;
}

static int hex_digit(char c)
{
    return c >= 'a' ? c - 'a' + 10 : c - '0';
}

static int bind_blob(lectern_stmt *stmt, int index, const char *hex)
{
    size_t n = strlen(hex) / 2;
    unsigned char *bytes = malloc(n + 1);
    if (bytes == NULL)
        return LECTERN_NOMEM;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(hex_digit(hex[2 * i]) * 16 + hex_digit(hex[2 * i + 1]));
    return lectern_bind_blob(stmt, index, bytes, (int)n, free);
}

static int bind_field(lectern_stmt *stmt, int index, const char *text)
{
    switch (text[0]) {
    case 'i':
        return lectern_bind_int64(stmt, index, strtoll(text + 1, NULL, 10));
    case 'f':
        return lectern_bind_double(stmt, index, strtod(text + 1, NULL));
    case 't':
        return lectern_bind_text(stmt, index, text + 1, -1, LECTERN_TRANSIENT);
    case 'b':
        return bind_blob(stmt, index, text + 1);
    default:
        return lectern_bind_null(stmt, index);
    }
}

/* --- sessions --------------------------------------------------------------------------------- */

static void do_open(void)
{
    int s = slot(1), code = lectern_open(field(2), &sessions[s]);
    put_state(code, sessions[s]);
}

static void do_cluster(void)
{
    put_number("code", lectern_cluster_open(field(2), &clusters[slot(1)]));
}

static void do_session(void)
{
    int s = slot(1), code = lectern_open_session(clusters[slot(2)], &sessions[s]);
    put_state(code, sessions[s]);
}

static void do_close(void)
{
    int s = slot(1), code = lectern_close(sessions[s]);
    put_number("code", code);
    if (code == LECTERN_OK)
        sessions[s] = NULL;
}

static void do_close_cluster(void)
{
    int k = slot(1), code = lectern_cluster_close(clusters[k]);
    put_number("code", code);
    if (code == LECTERN_OK)
        clusters[k] = NULL;
}

static void do_timeout(void)
{
    put_state(lectern_timeout(session(1), number(2)), session(1));
}

static void do_level(void)
{
    static const char *const names[] = {"any", "bounded", "session", "strong"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(names[i], field(2)) == 0) {
            put_state(lectern_read_level(session(1), i, number(3)), session(1));
            return;
        }
    }
    usage("no such level");
}

static void do_set_position(void)
{
    uint64_t position = strtoull(field(2), NULL, 10);
    put_state(lectern_set_position(session(1), position), session(1));
}

static void do_state(void)
{
    put_state(lectern_errcode(session(1)), session(1));
    put_string("server", lectern_info(session(1), LECTERN_INFO_SERVER));
    put_string("sqlite", lectern_info(session(1), LECTERN_INFO_SQLITE));
    put_string("cluster", lectern_info(session(1), LECTERN_INFO_CLUSTER));
}

struct interruption {
    lectern *db;
    int64_t ms;
};

static void *interrupt_later(void *arg)
{
    struct interruption *i = arg;
    (void)usleep((useconds_t)(i->ms * 1000));
    lectern_interrupt(i->db);
    free(i);
    return NULL;
}

static void do_interrupt(void)
{
    pthread_t thread;
    struct interruption *i = malloc(sizeof *i);
    if (i == NULL)
        usage("no memory");
    *i = (struct interruption){.db = session(1), .ms = number(2)};
    if (pthread_create(&thread, NULL, interrupt_later, i) != 0)
        usage("no thread");
    (void)pthread_detach(thread);
    put_number("code", LECTERN_OK);
}

/* --- statements ------------------------------------------------------------------------------- */

static int n_printed; /* rows that print_row has printed */

static int print_row(void *arg, int n, char **values, char **names)
{
    (void)arg;
    (void)names;
    printf("%s[", n_printed++ > 0 ? ", " : "");
    for (int i = 0; i < n; i++) {
        if (i > 0)
            printf(", ");
        if (values[i] == NULL)
            printf("null");
        else
            put_text(values[i], strlen(values[i]));
    }
    printf("]");
    return 0;
}

static void do_exec(void)
{
    char *message = NULL;
    n_printed = 0;
    printf(", \"rows\": [");
    int code = lectern_exec(session(1), field(2), print_row, NULL, &message);
    printf("]");
    put_state(code, session(1));
    put_string("exec_message", message);
    lectern_free(message);
}

/* Steps STMT to its end and prints its rows. */
static int print_rows(lectern_stmt *stmt)
{
    int code, n = 0;
    printf(", \"rows\": [");
    while ((code = lectern_step(stmt)) == LECTERN_ROW) {
        if (n++ > 0)
            printf(", ");
        put_row(stmt);
    }
    printf("], \"columns\": [");
    for (int i = 0; i < lectern_column_count(stmt); i++) {
        const char *name = lectern_column_name(stmt, i);
        printf("%s", i > 0 ? ", " : "");
        put_text(name != NULL ? name : "", name != NULL ? strlen(name) : 0);
    }
    printf("]");
    return code;
}

static void do_query(void)
{
    lectern_stmt *stmt = NULL;
    int code = lectern_prepare(session(1), field(2), -1, &stmt, NULL);
    for (int i = 3; i < n_fields && code == LECTERN_OK; i++)
        code = bind_field(stmt, i - 2, fields[i]);
    if (code == LECTERN_OK)
        code = print_rows(stmt);
    put_state(code, session(1));
    (void)lectern_finalize(stmt);
}

static void do_status(void)
{
    lectern_stmt *stmt = NULL;
    int code = lectern_prepare_status(session(1), &stmt);
    if (code == LECTERN_OK)
        code = print_rows(stmt);
    put_state(code, session(1));
    (void)lectern_finalize(stmt);
}

static void do_prepare(void)
{
    unsigned flags = n_fields > 4 ? (unsigned)number(4) : 0;
    int k = slot(2);
    int code = lectern_prepare_v3(session(1), field(3), -1, flags, &statements[k], NULL);
    put_number("columns", lectern_column_count(statements[k]));
    put_number("params", lectern_bind_parameter_count(statements[k]));
    put_number("readonly", lectern_stmt_readonly(statements[k]));
    put_state(code, session(1));
}

static void do_bind(void)
{
    lectern_stmt *stmt = statements[slot(1)];
    put_state(bind_field(stmt, (int)number(2), field(3)), lectern_db_handle(stmt));
}

static void do_step(void)
{
    lectern_stmt *stmt = statements[slot(1)];
    int code = lectern_step(stmt);
    if (code == LECTERN_ROW) {
        printf(", \"row\": ");
        put_row(stmt);
    }
    put_state(code, lectern_db_handle(stmt));
}

static void do_reset(void)
{
    lectern_stmt *stmt = statements[slot(1)];
    put_state(lectern_reset(stmt), lectern_db_handle(stmt));
}

static void do_finalize(void)
{
    int k = slot(1);
    put_number("code", lectern_finalize(statements[k]));
    statements[k] = NULL;
}

/* --- many rows -------------------------------------------------------------------------------- */

static void do_count(void)
{
    lectern_stmt *stmt = NULL;
    int64_t rows = 0, sum = 0, stop_after = number(3);
    int code = lectern_prepare(session(1), field(2), -1, &stmt, NULL);
    while (code == LECTERN_OK || code == LECTERN_ROW) {
        code = lectern_step(stmt);
        if (code != LECTERN_ROW)
            break;
        sum += lectern_column_int64(stmt, 0);
        if (++rows == stop_after) {
            code = lectern_reset(stmt);
            break;
        }
    }
    put_number("rows", rows);
    put_number("sum", sum);
    put_state(code, session(1));
    (void)lectern_finalize(stmt);
}

static int on_row(void *arg, lectern_stmt *stmt)
{
    struct running *r = arg;
    r->sum += lectern_column_int64(stmt, 0);
    return ++r->rows == r->stop_after;
}

static void on_end(void *arg, lectern_stmt *stmt, int result)
{
    struct running *r = arg;
    (void)stmt;
    r->result = result;
    r->ended = true;
}

static void do_start(void)
{
    int s = slot(1);
    struct running *r = &running[s];
    *r = (struct running){.stop_after = number(3)};
    int code = lectern_prepare_v3(sessions[s], field(2), -1, LECTERN_PREPARE_LAZY, &r->stmt, NULL);
    if (code == LECTERN_OK)
        code = lectern_start(r->stmt, on_row, on_end, r);
    put_state(code, sessions[s]);
}

static void do_wait(void)
{
    int s = slot(1), polled = LECTERN_OK;
    struct running *r = &running[s];
    put_number("rows_before", r->rows);
    put_number("ended_before", r->ended);
    while (!r->ended && polled == LECTERN_OK)
        polled = lectern_poll(lectern_cluster_of(sessions[s]), -1);
    put_number("rows", r->rows);
    put_number("sum", r->sum);
    put_number("polled", polled);
    put_state(r->result, sessions[s]);
    (void)lectern_finalize(r->stmt);
    r->stmt = NULL;
}

/* --- several statements as one ---------------------------------------------------------------- */

static void do_batch(void)
{
    lectern_batch *batch = NULL;
    int code = lectern_batch_new(session(1), &batch);
    for (int i = 2; i < n_fields && code == LECTERN_OK; i++)
        code = lectern_batch_add_sql(batch, fields[i]);
    if (code == LECTERN_OK)
        code = lectern_batch_run(batch);
    put_state(code, session(1));
    put_number("failed", lectern_batch_failed(batch));
    printf(", \"batch_changes\": [");
    for (int i = 2; i < n_fields; i++)
        printf("%s%" PRId64, i > 2 ? ", " : "", lectern_batch_changes(batch, i - 2));
    printf("]");
    (void)lectern_batch_free(batch);
}

static int bodies; /* runs of the body of `transaction` */

static int transaction_body(lectern *db, void *arg)
{
    (void)arg;
    bodies++;
    int code = LECTERN_OK;
    for (int i = 2; i < n_fields && code == LECTERN_OK; i++)
        code = lectern_exec(db, fields[i], NULL, NULL, NULL);
    return code;
}

static void do_transaction(void)
{
    bodies = 0;
    int code = lectern_transaction(session(1), NULL, transaction_body, NULL);
    put_state(code, session(1));
    put_number("bodies", bodies);
}

static void do_export(void)
{
    put_state(lectern_export(session(1), field(2), NULL, NULL), session(1));
}

/* --- the loop --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*run)(void);
} commands[] = {
    {"open", do_open},
    {"cluster", do_cluster},
    {"session", do_session},
    {"close", do_close},
    {"close_cluster", do_close_cluster},
    {"timeout", do_timeout},
    {"level", do_level},
    {"set_position", do_set_position},
    {"state", do_state},
    {"interrupt", do_interrupt},
    {"exec", do_exec},
    {"query", do_query},
    {"status", do_status},
    {"prepare", do_prepare},
    {"bind", do_bind},
    {"step", do_step},
    {"reset", do_reset},
    {"finalize", do_finalize},
    {"count", do_count},
    {"start", do_start},
    {"wait", do_wait},
    {"batch", do_batch},
    {"transaction", do_transaction},
    {"export", do_export},
};

static void run_line(char *line)
{
    split(line);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, fields[0]) == 0) {
            printf("{\"command\": \"%s\"", fields[0]);
            uint64_t began = now_us();
            commands[i].run();
            printf(", \"took_ms\": %.3f}\n", (double)(now_us() - began) / 1000.0);
            (void)fflush(stdout);
            return;
        }
    }
    usage("no such command");
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0)
        run_line(line);
    free(line);
    for (int i = 0; i < SLOTS; i++)
        (void)lectern_finalize(statements[i]);
    for (int i = 0; i < SLOTS; i++)
        (void)lectern_close(sessions[i]);
    for (int i = 0; i < SLOTS; i++)
        if (clusters[i] != NULL)
            (void)lectern_cluster_close(clusters[i]);
    return 0;
}
