/* Room: node/http.   Thread: any.   Owns: nothing; what it makes is freed by hrana_error_free.
 * Invariants: a code is a literal; a message is never empty.
 * Not here: when which error is raised (hrana_stream.c, hrana_batch.c), JSON (hrana_json_write.c).
 *
 * Programs tell errors apart by two things: the code, and in SQLite's sentences what is behind
 * "constraint failed: ". So SQLite's sentences are passed on word for word, behind the words that
 * libSQL's server puts before them (libsql-server/src/hrana/stmt.rs); ours stand as they are. The
 * codes are SQLite's base names or libSQL's. */
#include "node/http/hrana_error.h"

#include "base/check.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SQLITE_PRIMARY(code) ((code)&0xff)
enum { PRIMARY_ERROR = 1, PRIMARY_AUTH = 23, PRIMARY_RANGE = 25 };

/* By SQLite's result code. Numbers that are no error of a statement are not named. */
static const char *const sqlite_names[] = {
    [1] = "SQLITE_ERROR",       [2] = "SQLITE_INTERNAL",  [3] = "SQLITE_PERM",
    [4] = "SQLITE_ABORT",       [5] = "SQLITE_BUSY",      [6] = "SQLITE_LOCKED",
    [7] = "SQLITE_NOMEM",       [8] = "SQLITE_READONLY",  [9] = "SQLITE_INTERRUPT",
    [10] = "SQLITE_IOERR",      [11] = "SQLITE_CORRUPT",  [12] = "SQLITE_NOTFOUND",
    [13] = "SQLITE_FULL",       [14] = "SQLITE_CANTOPEN", [15] = "SQLITE_PROTOCOL",
    [16] = "SQLITE_EMPTY",      [17] = "SQLITE_SCHEMA",   [18] = "SQLITE_TOOBIG",
    [19] = "SQLITE_CONSTRAINT", [20] = "SQLITE_MISMATCH", [21] = "SQLITE_MISUSE",
    [22] = "SQLITE_NOLFS",      [23] = "SQLITE_AUTH",     [24] = "SQLITE_FORMAT",
    [25] = "SQLITE_RANGE",      [26] = "SQLITE_NOTADB",
};

/* Our errors: the code that drivers are told, and why that one. NULL: by SQLite's code. */
static const struct {
    enum err err;
    const char *code;
} table[] = {
    /* Of the statement. */
    {ERR_SQL, NULL},       /* SQLite's own: the base name, the only one that Hrana carries */
    {ERR_MISUSE, NULL},    /* see of_misuse */
    {ERR_FORBIDDEN, NULL}, /* the guard's refusals carry SQLITE_AUTH */
    /* What is too big before it runs is refused as an argument: here it is the answer. */
    {ERR_TOO_BIG, "RESPONSE_TOO_LARGE"},
    /* Not done, and may be sent again: every retry loop around SQLite waits for SQLITE_BUSY. */
    {ERR_NOT_LEADER, "SQLITE_BUSY"}, /* also when it was interrupted because the leader changed */
    {ERR_NO_LEADER, "SQLITE_BUSY"},
    {ERR_BUSY, "SQLITE_BUSY"},
    {ERR_LOCKED, "SQLITE_BUSY"},
    /* It waited in vain: SQLITE_BUSY. It ran too long: SQLITE_INTERRUPT, again would be no use. */
    {ERR_TIMEOUT, NULL},
    {ERR_CANCELLED, "SQLITE_INTERRUPT"}, /* as sqlite3_interrupt */
    /* Rolled back: nothing of it was done. Drivers and their users know this code as "begin anew",
     * and drop the transaction; TRANSACTION_TIMEOUT is the same when its time was up. */
    {ERR_TXN_LOST, "TRANSACTION_CLOSED"},
    /* Whether it was done is not known: no code that is retried unasked. After an I/O error in a
     * COMMIT SQLite's users do not know either. */
    {ERR_UNKNOWN, "SQLITE_IOERR"},
    {ERR_EXPIRED, "SQLITE_IOERR"},
    {ERR_ROWS_LOST, "SQLITE_IOERR"}, /* done, but not told what: again would double it */
    {ERR_CLOSED, "SQLITE_IOERR"},    /* a connection of ours ended: likewise */
    /* The node or its disk. */
    {ERR_NOMEM, "SQLITE_NOMEM"},
    {ERR_IO, "SQLITE_IOERR"},
    {ERR_FULL, "SQLITE_FULL"},
    {ERR_CORRUPT, "SQLITE_CORRUPT"},
    {ERR_DIVERGED, "SQLITE_CORRUPT"},
    {ERR_FORMAT, "SQLITE_NOTADB"},
    {ERR_NOT_FOUND, "SQLITE_CANTOPEN"}, /* no such database */
    {ERR_STOPPED, "SQLITE_IOERR"},      /* this node serves no more: another one does */
    {ERR_CONFIG, "SQLITE_ERROR"},
    /* Between nodes, or ours in an answer: not the program's doing. */
    {ERR_PROTOCOL, "SQLITE_PROTOCOL"},
    {ERR_VERSION, "SQLITE_PROTOCOL"},
};

const char *hrana_sqlite_name(int32_t sqlite_code)
{
    size_t n = sizeof sqlite_names / sizeof sqlite_names[0];
    size_t primary = (size_t)SQLITE_PRIMARY((uint32_t)sqlite_code);
    const char *name = primary < n ? sqlite_names[primary] : NULL;
    return name == NULL ? sqlite_names[PRIMARY_ERROR] : name;
}

struct hrana_error *hrana_error_new(const char *code, const char *format, ...)
{
    va_list args;
    struct hrana_error *e = MEM_NEW(struct hrana_error);
    e->code = code;
    va_start(args, format);
    int n = vasprintf(&e->message, format, args);
    va_end(args);
    CHECK(n >= 0); /* no memory */
    return e;
}

struct hrana_error *hrana_error_copy(const struct hrana_error *e)
{
    struct hrana_error *copy = hrana_error_new(e->code, "%s", e->message);
    copy->done = e->done;
    return copy;
}

struct hrana_error *hrana_error_short(const struct hrana_error *e)
{
    if (strlen(e->message) <= HRANA_ERROR_SHORT)
        return hrana_error_copy(e);
    struct hrana_error *copy =
        hrana_error_new(e->code, "%.*s ...", (int)HRANA_ERROR_SHORT, e->message);
    copy->done = e->done;
    return copy;
}

#define BUT(done) ((done) ? "it was done, but " : "")

struct hrana_error *hrana_error_too_large(bool done, uint64_t max)
{
    struct hrana_error *e =
        hrana_error_new("RESPONSE_TOO_LARGE",
                        "%sthe answer of the whole request would be over %" PRIu64
                        " bytes (http-answer-bytes): ask for less (LIMIT), in several "
                        "requests, or by a cursor, whose rows are not collected",
                        BUT(done), max);
    e->done = done;
    return e;
}

struct hrana_error *hrana_error_partly(const struct hrana_error *e)
{
    const char *code = hrana_error_status(e) == 503 ? "RESPONSE_TOO_LARGE" : e->code;
    struct hrana_error *partly =
        hrana_error_new(code, "something of it was done, and cannot be told, but: %.*s",
                        (int)HRANA_ERROR_SHORT, e->message);
    partly->done = true;
    return partly;
}

/* What was done is not to be sent again. */
struct hrana_error *hrana_error_no_room(bool done)
{
    struct hrana_error *e =
        hrana_error_new(done ? "RESPONSE_TOO_LARGE" : "SQLITE_BUSY",
                        "%sthis node has no room for its rows now (waiting-bytes)", BUT(done));
    e->done = done;
    return e;
}

void hrana_error_free(struct hrana_error *e)
{
    if (e == NULL)
        return;
    free(e->message);
    free(e);
}

static struct hrana_error *of_sqlite(const struct wire_error *e, int n)
{
    const char *name = hrana_sqlite_name(e->sqlite_code);
    /* What SQLite can point at in the text is an error of the text. */
    if (SQLITE_PRIMARY((uint32_t)e->sqlite_code) == PRIMARY_ERROR && e->offset >= 0)
        return hrana_error_new("SQL_INPUT_ERROR", "SQL input error: %.*s (at offset %d)", n,
                               e->message, (int)e->offset);
    return hrana_error_new(name, "SQLite error: %.*s", n, e->message);
}

/* Two mistakes of a request have libSQL's own codes. SQLITE_RANGE: an argument without a place. */
static struct hrana_error *of_misuse(const struct wire_error *e, int n)
{
    if (SQLITE_PRIMARY((uint32_t)e->sqlite_code) == PRIMARY_RANGE)
        return hrana_error_new("ARGS_INVALID", "Arguments do not match SQL parameters: %.*s", n,
                               e->message);
    return hrana_error_new(hrana_sqlite_name(e->sqlite_code), "%.*s", n, e->message);
}

struct hrana_error *hrana_error_of_wire(const struct wire_error *e)
{
    struct wire_error f = *e;
    CHECK(e->code != ERR_OK);
    if (f.message == NULL || f.message_len == 0) {
        f.message = err_default_text((int)e->code);
        f.message_len = strlen(f.message);
    }
    if (f.sqlite_code == 0)
        f.sqlite_code = err_sqlite_code((int)e->code);
    int n = f.message_len > 65536 ? 65536 : (int)f.message_len; /* ours are below that */
    if (e->code == ERR_SQL)
        return of_sqlite(&f, n);
    if (e->code == ERR_MISUSE)
        return of_misuse(&f, n);
    const char *code = NULL;
    if (e->code == ERR_TXN_LOST && (e->flags & WIRE_TIME_UP) != 0)
        return hrana_error_new("TRANSACTION_TIMEOUT", "%.*s", n, f.message);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].err == e->code)
            code = table[i].code;
    return hrana_error_new(code == NULL ? hrana_sqlite_name(f.sqlite_code) : code, "%.*s", n,
                           f.message);
}

struct hrana_error *hrana_error_of(enum err code, const char *sentence)
{
    const struct wire_error e = {
        .code = code, .offset = -1, .message = sentence, .message_len = strlen(sentence)};
    return hrana_error_of_wire(&e);
}

int hrana_error_status(const struct hrana_error *e)
{
    static const struct {
        const char *code;
        int status;
    } known[] = {
        {"SQLITE_BUSY", 503},         {"SQLITE_LOCKED", 503},    {"TRANSACTION_CLOSED", 503},
        {"TRANSACTION_TIMEOUT", 503}, {"TRANSACTION_BUSY", 503}, {"SQLITE_IOERR", 500},
        {"SQLITE_NOMEM", 500},        {"SQLITE_FULL", 500},      {"SQLITE_CORRUPT", 500},
        {"SQLITE_NOTADB", 500},       {"SQLITE_CANTOPEN", 500},  {"SQLITE_PROTOCOL", 500},
        {"SQLITE_INTERNAL", 500},     {"SQLITE_INTERRUPT", 503},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(e->code, known[i].code) == 0)
            return known[i].status;
    return e->done ? 500 : 400;
}
