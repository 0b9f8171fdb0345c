/* Room: base. Thread: any. Owns: one sentence per thread. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[ERR_TEXT_MAX];

struct fact {
    int sqlite;
    enum err_retry retry;
    const char *name;
    const char *text;
};

static const struct fact facts[] = {
#define ERR(name, number, sqlite, retry, text) [number] = {sqlite, ERR_RETRY_##retry, #name, text},
#include "base/err.def"
#undef ERR
};

#define FACTS ((int)(sizeof facts / sizeof facts[0]))

static const struct fact *fact_of(int code)
{
    if (code < 0 || code >= FACTS || facts[code].name == NULL)
        return &facts[ERR_PROTOCOL];
    return &facts[code];
}

enum err err_fail(enum err code, const char *format, ...)
{
    /* The arguments may point into the old sentence: format aside first. */
    char next[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(next, sizeof next, format, args);
    va_end(args);
    (void)snprintf(sentence, sizeof sentence, "%s", next);
    return code;
}

const char *err_text(void)
{
    return sentence;
}

const char *err_name(int code)
{
    return fact_of(code)->name;
}

const char *err_default_text(int code)
{
    return fact_of(code)->text;
}

int err_sqlite_code(int code)
{
    return fact_of(code)->sqlite;
}

enum err_retry err_retry_class(int code)
{
    return fact_of(code)->retry;
}

enum err err_from_wire(uint32_t number)
{
    if (number >= (uint32_t)FACTS || facts[number].name == NULL)
        return ERR_PROTOCOL;
    return (enum err)number;
}
