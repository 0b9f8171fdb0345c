/* Room: client.   Thread: any.   Owns: nothing.
 * Invariants: every error has exactly one code here, and no error reads as LECTERN_OK.
 * Not here: which error a lost node means for a call (client/call.c). */
#include "client/codes.h"

#include "client/lectern.h"

int code_of(enum err e, int sqlite_code)
{
    switch (e) {
    case ERR_OK:
        return LECTERN_OK;
    case ERR_SQL:
        /* A node that names an SQL error and calls it no error is not believed. */
        return code_primary(sqlite_code) == LECTERN_OK || sqlite_code < 0 ? LECTERN_ERROR
                                                                          : sqlite_code;
    case ERR_NOMEM:
        return LECTERN_NOMEM;
    case ERR_IO:
        return LECTERN_IOERR;
    case ERR_CORRUPT:
    case ERR_DIVERGED:
        return LECTERN_CORRUPT;
    case ERR_FORMAT:
        return LECTERN_NOTADB;
    case ERR_TOO_BIG:
        return LECTERN_TOOBIG;
    case ERR_FULL:
        return LECTERN_FULL;
    case ERR_NOT_FOUND:
        return LECTERN_CANTOPEN;
    case ERR_LOCKED:
    case ERR_BUSY:
        return LECTERN_BUSY;
    case ERR_NOT_LEADER:
    case ERR_NO_LEADER:
    case ERR_CLOSED:
    case ERR_STOPPED:
        return LECTERN_UNAVAILABLE;
    case ERR_UNKNOWN:
    case ERR_EXPIRED:
        return LECTERN_UNKNOWN;
    case ERR_TIMEOUT:
        return LECTERN_TIMEOUT;
    case ERR_PROTOCOL:
    case ERR_VERSION:
        return LECTERN_PROTOCOL;
    case ERR_FORBIDDEN:
        return LECTERN_AUTH;
    case ERR_MISUSE:
        return LECTERN_MISUSE;
    case ERR_TXN_LOST:
        return LECTERN_TXN_LOST;
    case ERR_CONFIG:
        return LECTERN_ERROR;
    case ERR_CANCELLED:
        return LECTERN_INTERRUPT;
    case ERR_ROWS_LOST:
        return LECTERN_ROWS_LOST;
    }
    return LECTERN_ERROR;
}

int code_primary(int extended)
{
    return extended & 0xff;
}

struct words {
    int code;
    const char *text, *advice;
};

/* SQLite's own words where the code is SQLite's and means the same here. */
static const struct words words[] = {
    {LECTERN_OK, "not an error", ""},
    {LECTERN_ERROR, "SQL logic error", ""},
    {LECTERN_PERM, "access permission denied", ""},
    {LECTERN_ABORT, "query aborted", ""},
    {LECTERN_BUSY, "database is locked", ""},
    {LECTERN_LOCKED, "database table is locked", ""},
    {LECTERN_NOMEM, "out of memory", ""},
    {LECTERN_READONLY, "attempt to write a readonly database", ""},
    {LECTERN_INTERRUPT, "interrupted", ""},
    {LECTERN_IOERR, "disk I/O error", ""},
    {LECTERN_CORRUPT, "database disk image is malformed", ""},
    {LECTERN_FULL, "database or disk is full", ""},
    {LECTERN_CANTOPEN, "unable to open the database: no node of the cluster answers", ""},
    {LECTERN_PROTOCOL, "no Lectern server, or one of another version", ""},
    {LECTERN_SCHEMA, "database schema has changed", ""},
    {LECTERN_TOOBIG, "string or blob too big", ""},
    {LECTERN_CONSTRAINT, "constraint failed", ""},
    {LECTERN_MISMATCH, "datatype mismatch", ""},
    {LECTERN_MISUSE, "bad parameter or other API misuse", ""},
    {LECTERN_AUTH, "authorization denied", ""},
    {LECTERN_RANGE, "column index out of range", ""},
    {LECTERN_NOTADB, "file is not a database", ""},
    {LECTERN_ROW, "another row available", ""},
    {LECTERN_DONE, "no more rows available", ""},
    {LECTERN_UNKNOWN, "whether the write was done is not known; look before you repeat it", ""},
    {LECTERN_TXN_LOST, "the transaction was rolled back by the cluster; begin it again", ""},
    {LECTERN_UNAVAILABLE, "the cluster cannot be reached or has no leader",
     "nothing was done: try again later"},
    {LECTERN_TIMEOUT, "the time limit passed",
     "nothing was done: try again, or raise lectern_timeout"},
    {LECTERN_ROWS_LOST, "the write was done, its rows were not kept",
     "do not repeat it: read the rows with a SELECT"},
};

static const struct words *words_of(int code)
{
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        if (words[i].code == code)
            return &words[i];
    return NULL;
}

const char *code_text(int code)
{
    const struct words *w = words_of(code);
    if (w == NULL)
        w = words_of(code_primary(code));
    if (code == 516) /* SQLITE_ABORT_ROLLBACK, the one extended code with words of its own */
        return "abort due to ROLLBACK";
    return w == NULL ? "unknown error" : w->text;
}

const char *code_advice(int code)
{
    const struct words *w = words_of(code);
    return w == NULL ? "" : w->advice;
}

const char *lectern_errstr(int code)
{
    return code_text(code);
}
